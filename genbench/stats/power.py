"""Power of the paired t-test for a number of training seeds, and the seeds that a difference needs. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genbench.stats.intervals import RESOLUTION, Errors, t_quantile

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
    """The standard deviation of paired differences in a pilot study, its 95 % interval and degrees of freedom.

    `members` are the positions of the models that it is estimated from, `seeds` the count of seeds that two of them
    have. `known` is the standard deviation that the values' known errors alone give a difference, None where they are
    unknown; `sd` and `low` are at least this. All are 0 where no difference varies and no error is known.
    """

    sd: float
    low: float
    high: float
    df: int
    members: tuple[int, ...]
    seeds: int
    known: float | None = None


def pilot(models: Sequence[Mapping[int, float]], errors: Sequence[Errors] = ()) -> Pilot | None:
    """The pooled standard deviation of differences between models that share seeds; None where no two share two.

    With seeds as blocks, the variances of all pairwise differences average to twice the residual mean square of the
    two-way layout (by least squares where models lack seeds), with as many degrees of freedom as values less free
    parameters: (models - 1)(seeds - 1) where none is lacking. Its interval is chi-square's, exact for normal residuals
    of one variance. Models that share fewer than two seeds with others say nothing and are left out.

    >>> study = pilot([{0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 2.0, 2: 2.0}, {0: 7.0}])
    >>> study.sd, study.df, study.members
    (1.0, 2, (0, 1))
    """
    from scipy.special import chdtri

    shared = _shared_seeds(models)
    if not shared:
        return None
    members, seeds = tuple(shared), sorted(set.union(*shared.values()))
    values = {(i, seed): models[i][seed] for i in members for seed in shared[i]}
    if len(values) == len(members) * len(seeds):
        squares, df = _balanced(values, members, seeds), (len(members) - 1) * (len(seeds) - 1)
    else:
        squares, df = _least_squares(values, members, seeds)
    sd = math.sqrt(2 * squares / df)
    sd = sd if sd > RESOLUTION * max(map(abs, values.values())) else 0.0
    known = None
    if errors and all(seed in errors[i] for i, seed in values):
        known = math.sqrt(2 * math.fsum(errors[i][seed] ** 2 for i, seed in values) / len(values))
    floor = known or 0.0
    sd = max(sd, floor)
    low, high = (sd * math.sqrt(df / float(chdtri(df, (1 + sign * 0.95) / 2))) for sign in (-1, 1))
    return Pilot(sd, max(low, floor), high, df, members, len(seeds), known)


def _shared_seeds(models: Sequence[Mapping[int, float]]) -> dict[int, set[int]]:
    """The seeds that each model shares with others: a model alone with a seed, or with one seed, is fitted exactly."""
    shared = {i: set(model) for i, model in enumerate(models)}
    while True:
        counts: dict[int, int] = {}
        for seeds in shared.values():
            for seed in seeds:
                counts[seed] = counts.get(seed, 0) + 1
        kept = {i: {seed for seed in seeds if counts[seed] > 1} for i, seeds in shared.items()}
        kept = {i: seeds for i, seeds in kept.items() if len(seeds) > 1}
        if kept == shared:
            return shared
        shared = kept


def _balanced(values: Mapping[tuple[int, int], float], members: Sequence[int], seeds: Sequence[int]) -> float:
    """The residual sum of squares of the two-way layout in which every model has every seed."""
    of_model = {i: math.fsum(values[i, seed] for seed in seeds) / len(seeds) for i in members}
    of_seed = {seed: math.fsum(values[i, seed] for i in members) / len(members) for seed in seeds}
    grand = math.fsum(of_model.values()) / len(members)
    return math.fsum((value - of_model[i] - of_seed[seed] + grand) ** 2 for (i, seed), value in values.items())


def _least_squares(
    values: Mapping[tuple[int, int], float], members: Sequence[int], seeds: Sequence[int]
) -> tuple[float, int]:
    """The residual sum of squares of the two-way layout where models lack seeds, and its degrees of freedom."""
    column = {("model", i): k for k, i in enumerate(members)}
    column |= {("seed", seed): len(members) + k for k, seed in enumerate(seeds)}
    design, target = np.zeros((len(values), len(column))), np.array(list(values.values()))
    for line, (i, seed) in enumerate(values):
        design[line, column["model", i]] = design[line, column["seed", seed]] = 1.0
    target -= target.mean()
    solution, _, rank, _ = np.linalg.lstsq(design, target, rcond=None)
    return float(np.square(target - design @ solution).sum()), len(values) - int(rank)
