"""The null distribution of a latent fit: computed once for a prior, an n and a d, and cached on disk."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from genbench.api import DataConfig, Noise, Prior, ProgressEvent
from genbench.data.tensor_files import compute_once, load_tensors, save_tensors
from genbench.errors import DataError

SCHEMA = 1
"""Part of a null's identity: another way of computing it is another null."""

IDENTITY_SEED = 1711_01558
IDENTITY_DRAWS = 1000

LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True)
class Null:
    """A perfect fit's numbers, from pairs of independent samples of the prior.

    `statistics`: the debiased statistic for every pair and split, `(r s,)`; each is one draw of its law, and those of
    one pair depend on each other. `raw`: the distance between the samples of a pair, `(r,)`. `mains`: the main effects'
    variance (`blocks.Variances`), `(r,)`. `slope`: the increase of the statistic's variance by a small
    translation, divided by the increase of its mean, `()`.
    """

    statistics: Tensor
    raw: Tensor
    mains: Tensor
    slope: Tensor

    @property
    def sd(self) -> float:
        """Standard deviation of the statistic about its mean, which is exactly 0.

        Unbiased in the variance: the splits of one table average its residuals with their degrees of freedom.
        """
        return float(self.statistics.square().mean().sqrt())

    def p_value(self, value: float) -> float:
        """The share of the null that is at least `value`, the value itself counted: in (0, 1]."""
        return (1 + int((self.statistics >= value).sum())) / (1 + len(self.statistics))

    @property
    def critical(self) -> float:
        """The value above which the statistic is significant at `LEVEL`."""
        allowed = math.floor(LEVEL * (1 + len(self.statistics)) - 1)
        return float(self.statistics.sort(descending=True).values[max(allowed, 0)])

    def power(self, true: float) -> float:
        """The chance that a translation whose true statistic is `true` is found at `LEVEL`."""
        spread = math.sqrt(max(float(self.slope) * true, 1e-300))
        return float(torch.special.ndtr((self.statistics + true - self.critical) / spread).mean())

    def minimum_detectable_effect(self) -> float:
        """The smallest true statistic that is found with `POWER` at `LEVEL`, where the codes are the prior moved."""
        low, high = 0.0, max(self.critical, self.sd)
        if high <= 0.0:
            return 0.0
        while self.power(high) < POWER:
            high *= 2.0
        for _ in range(60):
            middle = (low + high) / 2.0
            low, high = (middle, high) if self.power(middle) < POWER else (low, middle)
        return high


def cached_null(data_config: DataConfig, name: str, identity: str, make: Callable[[], Null]) -> Null:
    """A null from the cache, or made and kept there; a file that is damaged or of another null is made anew.

    The first use is reported to `data_config.report`.
    """
    identity = f"{SCHEMA} {identity}"
    path = data_config.cache / "null" / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.safetensors"

    def read() -> Null | None:
        try:
            tensors, facts = load_tensors(path)
            return Null(**tensors) if facts == {"identity": identity} else None
        except (DataError, TypeError):  # TypeError: other tensors than a null's
            return None

    def computed() -> Null:
        data_config.report(ProgressEvent(f"null distribution of {name}, computed once and kept", 0, 0))
        null = make()
        save_tensors(path, vars(null), {"identity": identity})
        return null

    return compute_once(path, read, computed)


# ---------------------------------------------------------------- identity of a prior


def describe(prior: Prior) -> str:
    """The prior's class and its plain attributes, the same text on every machine."""
    mode = {"training"}  # of every torch module
    public = {k: v for k, v in vars(prior).items() if k not in mode and isinstance(v, bool | int | float | str)}
    return f"{type(prior).__name__}({', '.join(f'{key}={value!r}' for key, value in public.items())})"


def law(prior: Prior) -> str:
    """Six hexadecimal digits of three draws, rounded so that they agree on every machine."""
    rounded = (prior.sample(3, Noise(Generator().manual_seed(IDENTITY_SEED))) * 1000).round().int()
    return hashlib.sha256(str(rounded.tolist()).encode()).hexdigest()[:6]


def identity(prior: Prior) -> str:
    """A text that tells priors apart even where their plain attributes do not: it holds a hash of 1,000 draws."""
    draws = prior.sample(IDENTITY_DRAWS, Noise(Generator().manual_seed(IDENTITY_SEED))).contiguous()
    return f"{describe(prior)} {hashlib.sha256(draws.numpy().tobytes()).hexdigest()}"
