"""Just so much of an evaluation as latent metrics use, with given codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Generator, Tensor

from genbench.api import DataConfig, Evaluation, Images, Measurement, Noise, Prior
from genbench_latent.fit import LatentFit


class Codes:
    """An `Evaluation` whose codes are given; `made` are the keys of what it had to compute."""

    device = torch.device("cpu")
    sampler = ""
    protocol = Evaluation.protocol

    def __init__(self, codes: Tensor, prior: Prior, cache: Path, seed: int = 0, split: str = "test") -> None:
        self.prior, self.seed, self.split, self._codes = prior, seed, split, codes
        self.images = Images(*(torch.zeros(4, 1, 2, 2, dtype=torch.uint8),) * 3, sha256="c0ffee")
        self.data_config = DataConfig(data_root=Path(), cache=cache)
        self.memory: dict[str, object] = {}
        self.made: list[str] = []

    def codes(self, n: int) -> Tensor:
        return self._codes[:n]

    def prior_draws(self, n: int, purpose: str) -> Tensor:
        return self.prior.sample(n, Noise(Generator().manual_seed(77 + self.seed)))

    def cache_for_dataset(self, key: str, compute: Callable[[], object]) -> object:
        if key not in self.memory:
            self.made.append(key)
            self.memory[key] = compute()
        return self.memory[key]


def measured(metric: LatentFit, evaluation: Codes) -> dict[str, Measurement]:
    return {m.component: m for m in metric.measure(cast(Evaluation, evaluation))}


def drawn(prior: Prior, n: int, seed: int = 1) -> Tensor:
    return prior.sample(n, Noise(Generator().manual_seed(seed)))
