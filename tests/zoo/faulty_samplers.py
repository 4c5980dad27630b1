"""Samplers with errors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Noise, Prior, Sampler
from genbench.hookspecs import hookimpl


class Diagonal(Sampler):
    """Right: independent Gaussians fitted to codes."""

    training_codes = 1000

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def fit(self, codes: Tensor) -> None:
        self.mean, self.scale = codes.mean(0).float(), codes.std(0).float()

    def sample(self, n: int, noise: Noise) -> Tensor:
        return self.mean + self.scale * noise.normal(n, len(self.mean))


class GlobalDraws(Diagonal):
    """Draws from torch's global random state."""

    def sample(self, n: int, noise: Noise) -> Tensor:
        return self.mean + self.scale * torch.randn(n, len(self.mean))


class UnseededFit(Diagonal):
    """Fitted to a random half of the codes, another one at every call."""

    least_codes = 4

    def fit(self, codes: Tensor) -> None:
        super().fit(codes[torch.randperm(len(codes))[: len(codes) // 2]])


class NoiseUnused(Diagonal):
    """The same draws whatever the noise."""

    def sample(self, n: int, noise: Noise) -> Tensor:
        return super().sample(n, Noise(torch.Generator().manual_seed(0)))


class Divided(Diagonal):
    """Divides by the deviation of each coordinate, which may be 0."""

    def fit(self, codes: Tensor) -> None:
        scaled = (codes - codes.mean(0)) / codes.std(0)
        self.mean, self.scale = codes.mean(0).float(), (scaled.std(0) * codes.std(0)).float()


class PriorKept(Diagonal):
    """Fits nothing and draws from the prior."""

    def sample(self, n: int, noise: Noise) -> Tensor:
        return self.prior.sample(n, noise)


@hookimpl
def genbench_samplers() -> Iterable[ComponentSpec[Sampler]]:
    faulty = {
        "global-draws": GlobalDraws,
        "unseeded-fit": UnseededFit,
        "noise-unused": NoiseUnused,
        "divided": Divided,
        "prior-kept": PriorKept,
    }
    for name, kind in faulty.items():
        yield ComponentSpec(name=name, description="Faulty", factory=kind)
