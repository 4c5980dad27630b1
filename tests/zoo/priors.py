"""Priors with errors found in public code."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Generator, Tensor

from genbench.api import ComponentSpec, Prior
from genbench.hookspecs import hookimpl
from genbench_plane import Circle, Disk
from genbench_priors import Normal, Uniform


class VarianceTwoInTraining(Normal):
    def sample_batch(self, n: int, generator: Generator) -> Tensor:
        return 2.0**0.5 * self.sample(n, generator)


class UnitCube(Uniform):
    def sample(self, n: int, generator: Generator) -> Tensor:
        return torch.rand(n, self.latent_dim, generator=generator)


class DiskWithUniformRadius(Disk):
    def sample(self, n: int, generator: Generator) -> Tensor:
        return Circle(2).sample(n, generator)


class DiskDeclaredByItsDraws(Disk):
    """As above, with moments that agree: only the density tells."""

    mean_square = 1.0 / 3.0

    def sample(self, n: int, generator: Generator) -> Tensor:
        return Circle(2).sample(n, generator)


class GlobalRandomness(Normal):
    def sample(self, n: int, generator: Generator) -> Tensor:
        return torch.randn(n, self.latent_dim)


class Unnormalised(Normal):
    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(1)


class SecondLobe(Normal):
    """A density with a second lobe where no draw falls: of mass two, and right wherever there are draws."""

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.logaddexp(super().log_prob(z), super().log_prob(z - 20.0))


KINDS = {
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
        yield ComponentSpec(name=name, about="Faulty", make=kind)
