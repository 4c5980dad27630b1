"""Demands of models on priors, and the base class of Gaussian mixtures."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.api import Noise, Prior
from genbench.errors import UnsupportedError

MIXTURE_ELEMENTS = 2**24
"""Coordinates of differences between codes and means that are held at once, 64 MiB."""


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
        f"the KL of the Gaussian encoder of {model} needs the prior's density on all of R^d: {missing_density(prior)};"
        " or take another prior, or a model that needs draws alone (swae, wae-mmd, wae-gan)"
    )


def require_unset_prior(model: str, prior: Prior, instead: str) -> None:
    """Refuse a prior that was chosen for a model which learns another and would not use it.

    Args:
        model: The model's name.
        prior: The distribution that was chosen; the default, N(0, I), passes.
        instead: What else to do, after "or".

    Raises:
        UnsupportedError: The prior is another than N(0, I).
    """
    if prior.normal_sigma != 1.0:
        raise UnsupportedError(
            f"the model '{model}' learns its prior and would not use the one that is given: leave --prior at normal"
            f" with sigma 1, or {instead}"
        )


@dataclass(frozen=True)
class GaussianComponents:
    """K Gaussians with diagonal covariances: `means` and `log_variances` `(K, d)`, `log_weights` `(K,)` (sum to 1)."""

    means: Tensor
    log_variances: Tensor
    log_weights: Tensor


class GaussianMixture(Prior):
    r"""Base class of mixtures of Gaussians with diagonal covariances.

    .. math:: p(z) = \sum_k w_k\, N(z; \mu_k, \mathrm{diag}\, \sigma_k^2)

    A subclass says what `components` are: numbers, parameters, or the output of a network.
    """

    @abstractmethod
    def components(self) -> GaussianComponents:
        """Means, log variances and log weights."""

    def sample(self, n: int, noise: Noise) -> Tensor:
        """A component by its weight, then a Gaussian draw about its mean, `(n, d)`."""
        mixture = self.components()
        ends = mixture.log_weights.exp().cumsum(0)
        uniform = noise.uniform(n).to(ends.device) * ends[-1]  # the sum is one up to rounding
        chosen = torch.searchsorted(ends, uniform).clamp(max=len(ends) - 1)
        epsilon = noise.normal(n, self.latent_dim).to(ends.device)
        return mixture.means[chosen] + (0.5 * mixture.log_variances[chosen]).exp() * epsilon

    def log_prob(self, z: Tensor) -> Tensor:
        """log of the weighted sum of the K densities, `(n, d) -> (n,)`."""
        mixture = self.components()
        k, d = mixture.means.shape
        scale = (-0.5 * mixture.log_variances).exp()
        constant = mixture.log_weights - 0.5 * mixture.log_variances.sum(1) - 0.5 * d * math.log(math.tau)
        logs = [
            torch.logsumexp(constant - 0.5 * ((rows[:, None] - mixture.means) * scale).square().sum(2), dim=1)
            for rows in z.split(max(1, MIXTURE_ELEMENTS // (k * d)))
        ]
        return torch.cat(logs)

    @property
    def full_support(self) -> bool:
        """The density is positive on all of R^d."""
        return True

    @property
    def mean(self) -> Tensor:
        """The weighted mean of the means, `(d,)`, on the CPU."""
        return self._weighted_moments()[0]

    @property
    def variance(self) -> Tensor:
        """The weighted mean of the variances, plus the variance of the means, `(d,)`, on the CPU."""
        return self._weighted_moments()[1]

    @torch.no_grad()
    def _weighted_moments(self) -> tuple[Tensor, Tensor]:
        mixture = self.components()
        weights = mixture.log_weights.exp()
        mean = weights @ mixture.means
        variance = weights @ (mixture.log_variances.exp() + (mixture.means - mean).square())
        return mean.cpu(), variance.cpu()
