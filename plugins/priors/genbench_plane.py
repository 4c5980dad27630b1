"""Priors in the plane: ring and circle as in the notebooks of skolouri/swae, the uniform disk, and a bowl.

Each is symmetric under rotation, so that it is given by the law of its radius r = |z|.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Noise, Option, Prior
from genbench.errors import UnsupportedError
from genbench.hookspecs import hookimpl

NOTEBOOKS = "notebooks of skolouri/swae"


class Plane(Prior):
    """A prior in the plane, symmetric under rotation."""

    def __init__(
        self,
        latent_dim: int,
        *,
        radius: Annotated[
            float, Option("radius of the ring or of the disk", reference="arXiv:1804.01947", above=0.0)
        ] = 1.0,
    ) -> None:
        super().__init__()
        if latent_dim != 2:
            raise UnsupportedError(
                f"the prior {type(self).__name__.lower()} lives in the plane and the latent dimension is "
                f"{latent_dim}: use --latent-dim 2, or a prior for any dimension: normal, uniform, sphere, mixture"
            )
        self.latent_dim = latent_dim
        self.radius = radius

    @property
    @abstractmethod
    def mean_square(self) -> float:
        """E|z|^2."""

    @property
    def mean(self) -> Tensor:
        """Zero, `(2,)`."""
        return torch.zeros(2)

    @property
    def variance(self) -> Tensor:
        """E|z|^2 / 2, `(2,)`."""
        return torch.full((2,), self.mean_square / 2.0)


class Ring(Plane):
    """A circle line blurred by a narrow Gaussian: radius (cos a, sin a) + N(0, noise^2 I), a uniform."""

    def __init__(
        self,
        latent_dim: int,
        *,
        radius: Annotated[
            float, Option("radius of the ring or of the disk", reference="arXiv:1804.01947", above=0.0)
        ] = 1.0,
        noise: Annotated[
            float, Option("standard deviation of each coordinate's blur", reference=NOTEBOOKS, above=0.0)
        ] = 0.01,
    ) -> None:
        super().__init__(latent_dim, radius=radius)
        self.noise = noise

    def sample(self, n: int, noise: Noise) -> Tensor:
        """Independent draws, `(n, 2)`."""
        return self._blurred(noise.uniform(n), noise)

    def sample_batch(self, n: int, noise: Noise) -> Tensor:
        """The notebooks' batch, `(n, 2)`: evenly spaced angles, shuffled.

        A random rotation of all of them gives every row the ring's law; before the blur no gap is wider than 2 pi / n.
        """
        steps = noise.permutation(n)
        offset = noise.uniform(1)
        return self._blurred((steps + offset) / n, noise)

    def _blurred(self, turns: Tensor, noise: Noise) -> Tensor:
        return self.radius * _unit(turns) + self.noise * noise.normal(len(turns), 2)

    def log_prob(self, z: Tensor) -> Tensor:
        r"""Log density, `(n, 2) -> (n,)`, with the scaled Bessel function i0e(t) = exp(-|t|) I_0(t).

        .. math:: \log p(z) = -\frac{(|z| - R)^2}{2 s^2} + \log \mathrm{i0e}\frac{R |z|}{s^2} - \log(2 \pi s^2)
        """
        r: Tensor = torch.linalg.vector_norm(z, dim=1)
        bessel: Tensor = torch.special.i0e(r * (self.radius / self.noise**2)).log()
        return bessel - 0.5 * ((r - self.radius) / self.noise).square() - math.log(math.tau * self.noise**2)

    @property
    def full_support(self) -> bool:
        """The density is positive on all of R^d."""
        return True

    @property
    def mean_square(self) -> float:
        """radius^2 + 2 noise^2."""
        return self.radius**2 + 2.0 * self.noise**2


class Disk(Plane):
    """Uniform on the disk: the radius has the density 2 r, so that the density in the plane is constant.

    `power` = k of this and its relatives: for radius 1, P(|z| <= r) = r^k, density k r^(k-2) / (2 pi).
    """

    power: ClassVar[int] = 2

    def sample(self, n: int, noise: Noise) -> Tensor:
        """Independent draws, `(n, 2)`: the radius by inversion, U^(1/k)."""
        draws = noise.uniform(2, n)
        return self.radius * draws[0, :, None] ** (1.0 / self.power) * _unit(draws[1])

    def log_prob(self, z: Tensor) -> Tensor:
        """log(k / (2 pi R^2)) + (k - 2) log(r / R) for r <= R up to rounding, else -inf, `(n, 2) -> (n,)`."""
        square = (z / self.radius).square().sum(1)
        precision = torch.finfo(z.dtype)
        log_density = 0.5 * (self.power - 2) * torch.log(square.clamp(min=precision.tiny))
        log_density = log_density + math.log(self.power / (math.tau * self.radius**2))
        return torch.where(square <= 1.0 + 4.0 * precision.eps, log_density, -torch.inf)

    @property
    def bounds(self) -> tuple[float, float]:
        """(-radius, radius)."""
        return (-self.radius, self.radius)

    @property
    def mean_square(self) -> float:
        """k / (k + 2) radius^2."""
        return self.power / (self.power + 2.0) * self.radius**2


class Circle(Disk):
    """The notebooks' circle: the *radius* is uniform, so the density 1 / (2 pi r) peaks at the centre."""

    power: ClassVar[int] = 1


class Bowl(Disk):
    """Density 2 r^2 / pi, growing towards the rim; no sampler of the paper's bowl is public, this one is ours."""

    power: ClassVar[int] = 4


def _unit(turns: Tensor) -> Tensor:
    """Points on the unit circle for angles in turns, `(n,) -> (n, 2)`."""
    angle = math.tau * turns
    return torch.stack([angle.cos(), angle.sin()], dim=1)


@hookimpl
def genbench_priors() -> Iterable[ComponentSpec[Prior]]:
    """The four priors of the plane."""
    yield ComponentSpec(
        name="ring", description="Circle line with Gaussian blur (2-D)", factory=Ring, reference=NOTEBOOKS
    )
    yield ComponentSpec(
        name="circle",
        description="Unit disk with uniform radius: dense at the centre, not uniform (2-D)",
        factory=Circle,
        reference=NOTEBOOKS,
    )
    yield ComponentSpec(name="disk", description="Uniform on the unit disk (2-D)", factory=Disk, reference="ours")
    yield ComponentSpec(
        name="bowl",
        description="Unit disk, density growing to the rim; our definition (2-D)",
        factory=Bowl,
        reference="ours",
    )
