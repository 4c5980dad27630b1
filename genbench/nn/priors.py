"""Demands of models on priors."""

from __future__ import annotations

from genbench.api import Prior
from genbench.errors import UnsupportedError


def missing_density(prior: Prior) -> str:
    """What a prior lacks for a density that is positive on all of R^d, as its author can add it; "" where nothing.

    Example:
        >>> from genbench.api import Prior
        >>> class Moons(Prior):
        ...     latent_dim = 2
        ...     def sample(self, n, noise):
        ...         return noise.normal(n, 2)
        >>> missing_density(Moons())
        'Moons states no log_prob; if it has a density that is positive everywhere, add it, and full_support'
    """
    name = type(prior).__name__
    if not prior.has_density:
        return f"{name} states no log_prob; if it has a density that is positive everywhere, add it, and full_support"
    if not prior.full_support:
        return f"{name} does not state full_support = True; if its density is positive everywhere, add that property"
    return ""


def require_finite_kl(model: str, prior: Prior) -> None:
    """Refuse a prior against which the KL divergence of a Gaussian encoder is infinite.

    Args:
        model: The model's name.
        prior: The distribution that codes are to follow.

    Raises:
        UnsupportedError: The prior has no density, or one that vanishes somewhere.
    """
    if prior.normal_sigma is not None or (prior.has_density and prior.full_support):
        return
    raise UnsupportedError(
        f"the KL of a {model}'s Gaussian encoder needs the prior's density on all of R^d: {missing_density(prior)}; or"
        " take another prior, or a model that needs draws alone (swae, wae-mmd, wae-gan)"
    )
