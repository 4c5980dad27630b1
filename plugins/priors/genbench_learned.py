"""Priors with parameters, trained by variational autoencoders: a mixture of Gaussians, and a normalizing flow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from genbench.api import ComponentSpec, Noise, Option, Prior
from genbench.hookspecs import hookimpl
from genbench.nn import LOG_VARIANCE_BOUND, GaussianComponents, GaussianMixture

_DURKAN = "arXiv:1906.04032"


class LearnedMixture(GaussianMixture):
    """K Gaussians with trained means, standard deviations along the axes, and weights.

    They start as N(m_k, I) of equal weights with means m_k drawn uniformly from the unit ball: near N(0, I), from which
    the codes of an untrained encoder are not far, and no two alike. Log variances are bounded as the encoder's are.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        components: Annotated[int, Option("number of Gaussians", reference="one for each digit", low=1)] = 10,
    ) -> None:
        super().__init__()
        self.latent_dim, self.count = latent_dim, components
        direction = nn.functional.normalize(torch.randn(components, latent_dim), dim=1)
        self.means = nn.Parameter(direction * torch.rand(components, 1) ** (1.0 / latent_dim))
        self.raw_log_variances = nn.Parameter(torch.zeros(components, latent_dim))
        self.raw_log_weights = nn.Parameter(torch.zeros(components))

    def components(self) -> GaussianComponents:
        """The trained Gaussians."""
        log_variances = LOG_VARIANCE_BOUND * torch.tanh(self.raw_log_variances / LOG_VARIANCE_BOUND)
        return GaussianComponents(self.means, log_variances, torch.log_softmax(self.raw_log_weights, dim=0))


class Flow(Prior):
    r"""A neural spline flow with coupling layers, between a standard normal e and codes z = loc + scale * f(e).

    .. math:: \log p(z) = \log N(e; 0, I) + \log |\det \partial e / \partial z|

    Splines act within +-5 and leave the rest alone, so that location and scale of each coordinate are trained beside
    them. With coupling layers a draw costs twice as much as a density, in every dimension. In one dimension the spline
    depends on nothing. By the library zuko.

    Source: arXiv:1906.04032, section 3.
    """

    moment_draws: ClassVar[int] = 10_000

    def __init__(
        self,
        latent_dim: int,
        *,
        layers: Annotated[
            int, Option("coupling layers; conditions one half of the coordinates on the other", reference="zuko", low=1)
        ] = 3,
        bins: Annotated[int, Option("bins of a spline", reference=_DURKAN, low=2)] = 8,
        hidden: Annotated[int, Option("units of both hidden layers of a coupling", reference="zuko", low=1)] = 64,
    ) -> None:
        super().__init__()
        import zuko  # a second to import

        self.latent_dim, self.layers, self.bins, self.hidden = latent_dim, layers, bins, hidden
        self.splines = zuko.flows.NSF(latent_dim, transforms=layers, bins=bins, passes=2, hidden_features=(hidden,) * 2)
        self.location = nn.Parameter(torch.zeros(latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))

    def sample(self, n: int, noise: Noise) -> Tensor:
        """Standard normal draws through the inverse of the flow, `(n, d)`."""
        base = noise.normal(n, self.latent_dim).to(self.location.device)
        splined: Tensor = self.splines.transform().inv(base)
        return self.location + self.log_scale.exp() * splined

    def log_prob(self, z: Tensor) -> Tensor:
        """By the change of variables, `(n, d) -> (n,)`."""
        standardized = (z - self.location) * (-self.log_scale).exp()
        base, log_determinant = self.splines.transform().call_and_ladj(standardized)
        normal = -0.5 * base.square().sum(1) - 0.5 * self.latent_dim * math.log(math.tau)
        density: Tensor = normal + log_determinant - self.log_scale.sum()
        return density

    @property
    def full_support(self) -> bool:
        """The density is positive on all of R^d."""
        return True


@hookimpl
def genbench_priors() -> Iterable[ComponentSpec[Prior]]:
    """The priors."""
    yield ComponentSpec(
        name="learned-mixture",
        aliases=("trained-mixture", "mog"),
        description="Gaussians with trained means, scales and weights",
        factory=LearnedMixture,
        reference="arXiv:1705.07120",
    )
    yield ComponentSpec(
        name="flow",
        aliases=("nsf", "normalizing-flow", "spline-flow"),
        description="Normalizing flow, trained",
        factory=Flow,
        reference=_DURKAN,
    )
