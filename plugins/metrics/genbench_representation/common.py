"""What the metrics of representations share: their options, codes as arrays, chance and the jackknife."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from genbench.api import DataConfig, DatasetInfo, Metric, Prior
from genbench.errors import MetricError, UnsupportedError, UsageError

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]

SEED = 1802_04942
"""Seed of permutations, clusters and trees, the same for all runs."""

LEAST = 50
"""Codes of either split."""


@dataclass(frozen=True, kw_only=True)
class RepresentationMetric(Metric):
    """Base of the metrics of codes: `n` held-out images, and `train` training images where it fits anything to them."""

    n: int

    name: ClassVar[str]
    requirement: ClassVar[str]
    uses_samples = False

    @abstractmethod
    def lacks(self, info: DatasetInfo) -> bool:
        """Whether the dataset lacks what the metric needs."""

    @property
    def training_count(self) -> int:
        """The option `train`, or 0 for a metric that fits nothing to codes of training images."""
        return getattr(self, "train", 0)

    def counts(self, info: DatasetInfo) -> Mapping[str, tuple[int, int, str]]:
        """Options that count images, each with its value, what the dataset has, and of which kind."""
        counts = {"n": (self.n, info.test, "held-out")}
        return counts | ({"train": (self.training_count, info.train, "training")} if self.training_count else {})

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse datasets without labels or factors, and more images than there are."""
        if self.lacks(info):
            raise UnsupportedError(
                f"{self.name} needs {self.requirement}, and this dataset has none: leave it out of --metrics"
            )
        for option, (asked, present, kind) in self.counts(info).items():
            if present < LEAST:
                raise UsageError(f"{self.name} needs {LEAST} {kind} images and the dataset has {present}")
            if asked > present:
                raise UsageError(
                    f"{self.name}: {option} = {asked:,} and {present:,} {kind} images: --set"
                    f" {self.name}.{option}={present}"
                )

    def fit_to(self, info: DatasetInfo) -> Mapping[str, int]:
        """As many images as there are."""
        return {
            option: present for option, (asked, present, _) in self.counts(info).items() if asked > present >= LEAST
        }


def array(codes: Tensor, metric: str) -> Reals:
    """Codes `(n, d)` in float64; `MetricError` where one is not finite, or where they are too few."""
    bad = int((~codes.isfinite()).any(1).sum())
    if bad:
        raise MetricError(f"{metric}: {bad:,} of {len(codes):,} codes hold values that are NaN or infinite")
    if len(codes) < LEAST:
        raise MetricError(f"{metric} needs {LEAST} codes and has {len(codes)}")
    values: Reals = codes.double().cpu().numpy()
    return values


def standardized(train: Reals, test: Reals) -> tuple[Reals, Reals]:
    """Both with the training codes' mean and standard deviation taken out; a constant unit becomes 0."""
    spread = train.std(0)
    scale = np.where(spread > 0, spread, 1.0)
    return (train - train.mean(0)) / scale, (test - train.mean(0)) / scale


def permutations(n: int, count: int) -> list[Integers]:
    """Fixed permutations of n codes: an order that knows nothing of the images."""
    generator = np.random.default_rng(SEED)
    return [generator.permutation(n) for _ in range(count)]


def groups(n: int, count: int) -> list[Integers]:
    """The numbers 0 .. n - 1 without the k-th of `count` groups of them, for each k."""
    numbers = np.arange(n)
    return [numbers[numbers % count != k] for k in range(count)]


def jackknife(values: Reals) -> Reals:
    """Standard errors of numbers from their values without one group each, `(groups, ...) -> (...)`."""
    count = len(values)
    return np.asarray(np.sqrt((count - 1) / count * ((values - values.mean(0)) ** 2).sum(0)))


def binomial_error(share: float, n: int) -> float | None:
    """The standard error of a share of n images; None where it is 0 or 1 and its error unknown."""
    return math.sqrt(share * (1.0 - share) / n) or None
