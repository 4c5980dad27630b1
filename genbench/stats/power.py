"""Power of the paired t-test for a number of training seeds, and the seeds that a difference needs. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genbench.stats.intervals import t_quantile

ALPHA, POWER = 0.05, 0.80
"""The two-sided level of every test, and the power asked for."""

MOST_SEEDS = 10_000
"""Where a search for the number of seeds ends."""


def power(effect: float, seeds: int) -> float:
    """Power of the two-sided paired t-test at 5 % for a difference of `effect` standard deviations of differences.

    P(|T| > t_{n-1, 0.975}) with T noncentral t of noncentrality effect * sqrt(n); Cohen (1988), chapter 2.

    >>> round(power(1.0, 10), 3)
    0.803
    """
    from scipy.special import nctdtr

    if seeds < 2:
        return 0.0
    shift, critical = abs(effect) * math.sqrt(seeds), t_quantile(seeds - 1, 1 - ALPHA / 2)
    if shift > critical + 30:  # beyond what the series can sum, and certain
        return 1.0
    below, above = nctdtr(seeds - 1, shift, -critical), 1 - nctdtr(seeds - 1, shift, critical)
    return float(min(1.0, max(0.0, (0.0 if math.isnan(below) else below) + above)))


def seeds_needed(effect: float) -> int | None:
    """The fewest seeds that have a power of 80 %; None where more than 10,000 would be needed.

    >>> seeds_needed(1.0), seeds_needed(0.0)
    (10, None)
    """
    low, high = 1, 2
    while power(effect, high) < POWER:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle) >= POWER else (middle, high)
    return high if high <= MOST_SEEDS else None


def minimum_detectable_effect(seeds: int) -> float:
    """The smallest effect, in standard deviations of differences, that `seeds` seeds find with a power of 80 %."""
    if seeds < 2:
        return math.inf
    low, high = 0.0, 1.0
    while power(high, seeds) < POWER:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, seeds) >= POWER else (middle, high)
    return high


@dataclass(frozen=True)
class Pilot:
    """The standard deviation of paired differences in a pilot study, its 95 % interval and degrees of freedom."""

    sd: float
    low: float
    high: float
    df: int
    models: int
    seeds: int


def pilot(models: Sequence[Mapping[int, float]]) -> Pilot | None:
    """The pooled standard deviation of differences between models over the seeds that all share; None below two.

    With seeds as blocks, the variances of all pairwise differences average to twice the residual mean square of the
    two-way layout, with (models - 1)(seeds - 1) degrees of freedom; its interval is chi-square's, exact for normal
    residuals of one variance.

    >>> study = pilot([{0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 2.0, 2: 2.0}])
    >>> study.sd, study.df
    (1.0, 2)
    """
    from scipy.special import chdtri

    shared = sorted(set.intersection(*(set(model) for model in models))) if len(models) > 1 else []
    if len(shared) < 2:
        return None
    k, m = len(shared), len(models)
    of_model = [math.fsum(model[seed] for seed in shared) / k for model in models]
    of_seed = {seed: math.fsum(model[seed] for model in models) / m for seed in shared}
    grand = math.fsum(of_model) / m
    squares = math.fsum(
        (model[seed] - mean - of_seed[seed] + grand) ** 2
        for model, mean in zip(models, of_model, strict=True)
        for seed in shared
    )
    df = (m - 1) * (k - 1)
    sd = math.sqrt(2 * squares / df)
    low = sd * math.sqrt(df / float(chdtri(df, (1 - 0.95) / 2)))
    return Pilot(sd, low, sd * math.sqrt(df / float(chdtri(df, (1 + 0.95) / 2))), df, m, k)
