"""Priors for any latent dimension: normal, uniform, sphere and mixture."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Noise, Option, Prior
from genbench.distances import random_projections
from genbench.errors import UnsupportedError, UsageError
from genbench.hookspecs import hookimpl

LEAST_SEPARATION = 2.0
"""Standard deviations between two means below which equal Gaussians have a single mode."""


class Normal(Prior):
    """N(0, sigma^2 I)."""

    def __init__(
        self,
        latent_dim: int,
        *,
        sigma: Annotated[
            float, Option("standard deviation of each coordinate", reference="arXiv:1711.01558, section 4", above=0.0)
        ] = 1.0,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.sigma = sigma

    def sample(self, n: int, noise: Noise) -> Tensor:
        """sigma times standard normal draws, `(n, d)`."""
        return self.sigma * noise.normal(n, self.latent_dim)

    def log_prob(self, z: Tensor) -> Tensor:
        """-|z|^2 / (2 sigma^2) - d log(sigma sqrt(2 pi)), `(n, d) -> (n,)`."""
        return -0.5 * (z / self.sigma).square().sum(1) - self.latent_dim * math.log(self.sigma * math.sqrt(math.tau))

    @property
    def full_support(self) -> bool:
        """The density is positive on all of R^d."""
        return True

    @property
    def normal_sigma(self) -> float:
        """sigma."""
        return self.sigma

    @property
    def mean(self) -> Tensor:
        """Zero, `(d,)`."""
        return torch.zeros(self.latent_dim)

    @property
    def variance(self) -> Tensor:
        """sigma^2, `(d,)`."""
        return torch.full((self.latent_dim,), self.sigma**2)


class Uniform(Prior):
    """Uniform on the cube [low, high]^d."""

    def __init__(
        self,
        latent_dim: int,
        *,
        low: Annotated[float, Option("lower end of each coordinate", reference="notebooks of skolouri/swae")] = -1.0,
        high: Annotated[float, Option("upper end of each coordinate", reference="notebooks of skolouri/swae")] = 1.0,
    ) -> None:
        super().__init__()
        if not low < high:
            raise UsageError(f"uniform prior on [{low:g}, {high:g}]: low must be below high")
        self.latent_dim = latent_dim
        self.low, self.high = low, high

    def sample(self, n: int, noise: Noise) -> Tensor:
        """Independent uniform coordinates, `(n, d)`."""
        unit = noise.uniform(n, self.latent_dim)
        return (self.low + (self.high - self.low) * unit).clamp(max=self.high)

    def log_prob(self, z: Tensor) -> Tensor:
        """-d log(high - low) inside the closed cube, -inf outside, `(n, d) -> (n,)`."""
        inside = ((z >= self.low) & (z <= self.high)).all(1)
        flat = 0.0 * z.sum(1) - self.latent_dim * math.log(self.high - self.low)  # a gradient of zero, not none
        return torch.where(inside, flat, -torch.inf)

    @property
    def bounds(self) -> tuple[float, float]:
        """(low, high)."""
        return (self.low, self.high)

    @property
    def mean(self) -> Tensor:
        """The centre of the cube, `(d,)`."""
        return torch.full((self.latent_dim,), (self.low + self.high) / 2.0)

    @property
    def variance(self) -> Tensor:
        """(high - low)^2 / 12, `(d,)`."""
        return torch.full((self.latent_dim,), (self.high - self.low) ** 2 / 12.0)


class Sphere(Prior):
    """Uniform on the sphere |z| = radius in R^d, d >= 2; a surface, so that it has no density on R^d."""

    def __init__(
        self,
        latent_dim: int,
        *,
        radius: Annotated[float, Option("radius of the sphere", reference="unit sphere", above=0.0)] = 1.0,
    ) -> None:
        super().__init__()
        if latent_dim < 2:
            raise UnsupportedError(
                f"the prior sphere needs a latent dimension of at least 2 and got {latent_dim}: "
                "use normal or uniform, or --latent-dim 2"
            )
        self.latent_dim = latent_dim
        self.radius = radius

    def sample(self, n: int, noise: Noise) -> Tensor:
        """Normalised Gaussian vectors times the radius, `(n, d)`."""
        return self.radius * random_projections(n, self.latent_dim, noise)

    @property
    def sphere_radius(self) -> float:
        """radius."""
        return self.radius

    @property
    def bounds(self) -> tuple[float, float]:
        """(-radius, radius)."""
        return (-self.radius, self.radius)

    @property
    def mean(self) -> Tensor:
        """Zero, `(d,)`."""
        return torch.zeros(self.latent_dim)

    @property
    def variance(self) -> Tensor:
        """radius^2 / d, `(d,)`."""
        return torch.full((self.latent_dim,), self.radius**2 / self.latent_dim)


class Mixture(Prior):
    r"""K equally likely Gaussians N(mu_k, sigma^2 I) with means on the trigonometric moment curve.

    .. math:: \mu_k = \rho\, (\cos a_{1k}, \sin a_{1k}, \cos a_{2k}, \sin a_{2k}, \dots), \qquad
              a_{jk} = 2 \pi h_j k / K + \pi / 4

    h_j = 1, 2, 3, ... without the multiples of K, at which all means would coincide. In the plane this is the ring of
    Gaussians; in every dimension the mean is zero and each coordinate has the variance rho^2 / 2 + sigma^2 exactly
    (about 1 by default, so that weights tuned for N(0, I) keep their meaning), and means part further as d grows.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        components: Annotated[int, Option("number of Gaussians", reference="one for each digit", low=2)] = 10,
        radius: Annotated[
            float,
            Option("radius of the circle of means in each pair of coordinates", reference="variance 1", above=0.0),
        ] = 1.4,
        sigma: Annotated[
            float,
            Option("standard deviation of each Gaussian", reference="4.3 sigma between means at d = 2", above=0.0),
        ] = 0.2,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.components, self.radius, self.sigma = components, radius, sigma
        separation = float(torch.pdist(self.means(torch.device("cpu"))).min()) / sigma
        if separation < LEAST_SEPARATION:
            raise UnsupportedError(
                f"a mixture of {components} Gaussians with radius {radius:g} and sigma {sigma:g} has no "
                f"separate modes in {latent_dim} dimensions (nearest means {separation:.2g} sigma apart, "
                f"{LEAST_SEPARATION:g} needed): use fewer components, a smaller sigma or more dimensions"
            )

    def means(self, device: torch.device) -> Tensor:
        """mu_k, `(K, d)` float32, computed on the device from exact integer phases: the same on every machine."""
        column = torch.arange(self.latent_dim, device=device)
        harmonic = column // 2 + 1 + (column // 2) // (self.components - 1)
        turns = torch.arange(self.components, device=device)[:, None] * harmonic % self.components
        angle = turns.double() * (math.tau / self.components) + math.pi / 4.0
        return (self.radius * torch.where(column % 2 == 0, angle.cos(), angle.sin())).float()

    def sample(self, n: int, noise: Noise) -> Tensor:
        """A component by a fair K-sided die, then a Gaussian draw about its mean, `(n, d)`."""
        component = noise.integers(self.components, n)
        deviation = noise.normal(n, self.latent_dim)
        return self.means(noise.device)[component] + self.sigma * deviation

    def log_prob(self, z: Tensor) -> Tensor:
        """log of the mean over k of the density of N(mu_k, sigma^2 I), `(n, d) -> (n,)`."""
        deviation = (z[:, None, :] - self.means(z.device).to(z)) / self.sigma
        log_sum = torch.logsumexp(-0.5 * deviation.square().sum(2), dim=1)
        return log_sum - math.log(self.components) - self.latent_dim * math.log(self.sigma * math.sqrt(math.tau))

    @property
    def full_support(self) -> bool:
        """The density is positive on all of R^d."""
        return True

    @property
    def mean(self) -> Tensor:
        """Zero, `(d,)`."""
        return torch.zeros(self.latent_dim)

    @property
    def variance(self) -> Tensor:
        """radius^2 / 2 + sigma^2, `(d,)`."""
        return torch.full((self.latent_dim,), self.radius**2 / 2.0 + self.sigma**2)


@hookimpl
def genbench_priors() -> Iterable[ComponentSpec[Prior]]:
    """The four priors that exist in any dimension."""
    yield ComponentSpec(
        name="normal",
        aliases=("gaussian", "gauss", "standard-normal"),
        description="N(0, sigma^2 I)",
        factory=Normal,
        reference="arXiv:1711.01558",
    )
    yield ComponentSpec(
        name="uniform",
        aliases=("cube", "box"),
        description="Uniform on a cube",
        factory=Uniform,
        reference="arXiv:1804.01947",
    )
    yield ComponentSpec(
        name="sphere",
        aliases=("hypersphere", "vmf"),
        description="Uniform on a sphere (no density)",
        factory=Sphere,
        reference="ours",
    )
    yield ComponentSpec(
        name="mixture",
        aliases=("gmm", "gaussian-mixture"),
        description="Well separated Gaussians in any dimension",
        factory=Mixture,
        reference="ours",
    )
