"""Priors with errors found in public code."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Noise, Prior
from genbench.hookspecs import hookimpl
from genbench.nn import GaussianComponents
from genbench_learned import LearnedMixture
from genbench_plane import Circle, Disk
from genbench_priors import Normal, Uniform


class VarianceTwoInTraining(Normal):
    def sample_batch(self, n: int, noise: Noise) -> Tensor:
        return 2.0**0.5 * self.sample(n, noise)


class UnitCube(Uniform):
    def sample(self, n: int, noise: Noise) -> Tensor:
        return noise.uniform(n, self.latent_dim)


class DiskWithUniformRadius(Disk):
    def sample(self, n: int, noise: Noise) -> Tensor:
        return Circle(2).sample(n, noise)


class DiskDeclaredByItsDraws(Disk):
    """As above, with moments that agree: only the density shows it."""

    mean_square = 1.0 / 3.0

    def sample(self, n: int, noise: Noise) -> Tensor:
        return Circle(2).sample(n, noise)


class GlobalRandomness(Normal):
    def sample(self, n: int, noise: Noise) -> Tensor:
        return torch.randn(n, self.latent_dim)


class Unnormalised(Normal):
    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(1)


class SecondLobe(Normal):
    """A density with a second lobe where no draw falls: of mass two, and right wherever there are draws."""

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.logaddexp(super().log_prob(z), super().log_prob(z - 20.0))


class NotInitialized(Prior):
    """No `super().__init__()`: it draws, and can be neither moved nor saved."""

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim

    def sample(self, n: int, noise: Noise) -> Tensor:
        return noise.normal(n, self.latent_dim)


class DrawsOfTheStart(LearnedMixture):
    """Draws of the Gaussians that it started from, whatever it has learned."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        with torch.no_grad():
            self.start = copy.deepcopy(self.components())

    def sample(self, n: int, noise: Noise) -> Tensor:
        chosen = noise.integers(len(self.start.means), n)
        return self.start.means[chosen] + noise.normal(n, self.latent_dim)


class MeansOutsideTheState(LearnedMixture):
    """Its means are a plain tensor: neither trained nor saved."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        del self.means
        self.means = torch.randn(10, latent_dim)

    def log_prob(self, z: Tensor) -> Tensor:
        self.means = self.means.detach() + 0.01 * (z.mean(0) - self.means).detach()
        return super().log_prob(z)


class WeightsCutOff(LearnedMixture):
    """Weights that no gradient of the density reaches."""

    def components(self) -> GaussianComponents:
        mixture = super().components()
        return GaussianComponents(mixture.means, mixture.log_variances, mixture.log_weights.detach())


KINDS = {
    "draws-of-the-start": DrawsOfTheStart,
    "means-outside-the-state": MeansOutsideTheState,
    "weights-cut-off": WeightsCutOff,
    "not-initialized": NotInitialized,
    "second-lobe": SecondLobe,
    "variance-two-in-training": VarianceTwoInTraining,
    "unit-cube": UnitCube,
    "disk-with-uniform-radius": DiskWithUniformRadius,
    "disk-declared-by-its-draws": DiskDeclaredByItsDraws,
    "global-prior": GlobalRandomness,
    "unnormalised": Unnormalised,
}


@hookimpl
def genbench_priors() -> Iterable[ComponentSpec[Prior]]:
    for name, kind in KINDS.items():
        yield ComponentSpec(name=name, description="Faulty", factory=kind)
