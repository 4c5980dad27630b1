"""Means over training seeds with 95 % intervals, and the share of the sampling draw in their spread. Pure.

Values that agree over seeds say nothing about their spread: 1 of 40 samples in both seeds is not 1 of 40 for certain.
Where a value is a share of n draws its standard error is known (`share_errors`), and no interval is narrower and no
p-value smaller than this error allows. Where nothing is known, values or differences that are all equal have neither.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Coverage of every interval, and one minus the family-wise error of every set of bests."""

BOOTSTRAP_FROM = 10
"""Seeds from which the interval is a bootstrap one; with fewer, resamples say less than Student's assumption."""

RESAMPLES = 1999
"""Resamples of one bootstrap: the standard error of the tail probability is 0.5 %."""

TAIL = 10
"""Resamples that must lie beyond the level: with fewer the tail is too coarse, and the interval is Student's."""

DEGENERATE = 0.01
"""Share of resamples without any spread (many tied values) above which the t-interval is used instead."""

RESOLUTION = 1e-6
"""Differences and spreads up to this fraction of the values are rounding of float32 measurements, not evidence."""

IntervalKind = Literal["none", "t", "bootstrap", "sampling", "calibrated"]
"""The method of an interval: none (one seed, or equal values), Student's t, the studentised bootstrap, the normal
interval of the values' known standard errors where that is the widest, or the pivot of `budget_curves`."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds with its interval; no `low` and `high` for one seed, or equal values of unknown error."""

    mean: float
    n: int
    low: float | None = None
    high: float | None = None
    kind: IntervalKind = "none"

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def estimate(values: Sequence[float], level: float = LEVEL, errors: Sequence[float] = ()) -> Estimate:
    """Mean and interval over seeds: Student's t below 10 values, the symmetric studentised bootstrap from 10 on.

    Student's interval, mean +- t_{n-1, (1 + level) / 2} s / sqrt(n), is exact for values that are normal over seeds;
    a few seeds say too little for anything else. Where nearly all values are tied the bootstrap has no law to draw
    from, and where the level leaves it fewer than `TAIL` resamples it has no tail: the interval is Student's again;
    `kind` names the method.

    `errors` are the values' standard errors where they are known without the spread over seeds, as those of shares
    are: the interval is then never narrower than mean +- z_{(1 + level) / 2} sqrt(sum of errors^2) / n. Without them,
    values that are equal up to rounding have no interval.

    >>> estimate([1.0, 2.0, 3.0])
    Estimate(mean=2.0, n=3, low=-0.484..., high=4.484..., kind='t')
    >>> estimate([7.0])
    Estimate(mean=7.0, n=1, low=None, high=None, kind='none')
    >>> estimate([0.025, 0.025]).half_width, estimate([0.025, 0.025], errors=[0.03, 0.03]).half_width
    (None, 0.0415...)
    """
    if not values:
        raise ValueError("an estimate needs at least one value")
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Estimate(mean, n)
    s = deviation(values, mean)
    half = 0.0
    kind: IntervalKind = "none"
    if s > RESOLUTION * max(map(abs, values)):
        factor = math.nan
        if n >= BOOTSTRAP_FROM and resampled(level):
            factor = float(bootstrap_factors(np.array([sorted(values)]), level)[0])
        kind = "bootstrap" if math.isfinite(factor) else "t"
        half = (factor if kind == "bootstrap" else t_quantile(n - 1, (1 + level) / 2)) * s / math.sqrt(n)
    if errors:
        known = normal_quantile((1 + level) / 2) * math.sqrt(math.fsum(error**2 for error in errors)) / n
        half, kind = (known, "sampling") if known > half else (half, kind)
    return Estimate(mean, n) if kind == "none" else Estimate(mean, n, mean - half, mean + half, kind)


def deviation(values: Sequence[float], mean: float) -> float:
    """The standard deviation of two values or more about their mean."""
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def upper_p(values: Sequence[float], errors: Sequence[float] = (), scale: float = 0.0) -> float | None:
    """The p-value of "the true mean of these values, two or more, is at most 0"; None where there is no test.

    Student's t-test; with known `errors` of the values the larger of its p-value and the z-test's, which takes the
    errors for the only spread: the first alone believes a spread that is small by chance, the second knows none of the
    training's. A mean that is rounding at the `scale` of what was subtracted is no evidence (0.5), and values that are
    all equal without known errors allow no test.

    >>> round(upper_p([1.0, 2.0, 3.0]), 4), upper_p([0.025, 0.025])
    (0.0371, None)
    >>> round(upper_p([0.025, 0.025], [0.04, 0.04]), 2)
    0.19
    """
    n, mean = len(values), math.fsum(values) / len(values)
    rounding = RESOLUTION * max(scale, *map(abs, values))
    if abs(mean) <= rounding:
        return 0.5
    s = deviation(values, mean)
    p_values = [t_upper(n - 1, mean * math.sqrt(n) / s)] if s > rounding else []
    if errors:
        p_values.append(normal_upper(mean * n / math.sqrt(math.fsum(error**2 for error in errors))))
    return max(p_values, default=None)


def share_scale(values: Collection[float], n: int, unit: str = "") -> float | None:
    """The value of a whole, 1 or for a unit of per cent 100, where the values are shares of n draws; None otherwise.

    They are where all are whole multiples of 1 / n of it and some lies between 0 and the whole without being an
    integer: integers may be counts of anything.

    >>> share_scale([0.0, 0.025], 40), share_scale([0.0, 2.5], 40, "%"), share_scale([0.31, 0.0], 40)
    (1.0, 100.0, None)
    """
    whole = 100.0 if "%" in unit or "per cent" in unit or "percent" in unit else 1.0
    counts = [value * n / whole for value in values]
    between = any(0.0 < value < whole and not value.is_integer() for value in values)
    if between and all(
        -RESOLUTION <= count <= n * (1 + RESOLUTION) and abs(count - round(count)) <= RESOLUTION * max(1.0, count)
        for count in counts
    ):
        return whole
    return None


def share_errors(values: Collection[float], n: int, whole: float = 1.0) -> list[float]:
    """The standard error of each of a model's shares of n independent draws, in the unit of the values.

    sqrt(p (1 - p) / n) with p = (k + 2) / (m + 4), k the hits among the m draws of all its seeds, in place of k / m:
    not 0 where there is no hit (Agresti and Coull, The American Statistician 52, 1998).

    >>> [round(error, 4) for error in share_errors([0.0, 0.0], 40)], round(share_errors([0.3], 4000)[0], 4)
    ([0.0241, 0.0241], 0.0072)
    """
    if not values:
        return []
    share = (math.fsum(values) / whole * n + 2) / (len(values) * n + 4)
    return [whole * math.sqrt(share * (1 - share) / n)] * len(values)


def known_errors(
    values: Collection[float], n: int | None, unit: str = "", column: Collection[float] = ()
) -> list[float]:
    """The standard errors of a model's values where those of the whole column are shares of n draws; else none.

    Without a `column` the values stand for it.

    >>> len(known_errors([0.1, 0.2], 40)), known_errors([0.0, 0.0], 40), known_errors([0.11, 0.2], 40)
    (2, [], [])
    """
    whole = share_scale(column or values, n, unit) if n else None
    return share_errors(values, n, whole) if n and whole else []


def resampled(level: float) -> bool:
    """Whether enough resamples lie beyond a level."""
    return (1 - level) * (RESAMPLES + 1) >= TAIL * (1 - 1e-9)


def bootstrap_factors(studies: Floats, level: float = LEVEL) -> Floats:
    """The `level` quantile of |t*|, used in place of Student's, for each row of `(studies, n)`.

    t* = sqrt(n) (mean* - mean) / s* over resamples with replacement; Hall, The Bootstrap and Edgeworth Expansion
    (1992), section 3.6: the coverage error of the symmetric interval is O(1 / n^2). The percentile and the BCa
    interval cover only 90 to 92 % at n = 10, because neither makes up for the spread that is estimated too. The
    resamples are the same for every row, drawn from a fixed seed, and values are
    sorted first. NaN where more than a hundredth of the resamples have no spread.
    """
    n = studies.shape[1]
    centred = np.sort(studies - studies.mean(1, keepdims=True), axis=1)
    scale = centred.std(1, ddof=1, keepdims=True)
    unit = centred / np.where(scale > 0, scale, 1.0)
    times = _resamples(n)
    means = unit @ times.T / n
    variances = (unit**2 @ times.T - n * means**2) / (n - 1)
    degenerate = variances <= 1e-9
    t = np.abs(means) * math.sqrt(n) / np.sqrt(np.where(degenerate, np.inf, variances))
    t[degenerate] = np.inf  # counted as far out: leaving them out would narrow the interval
    rank = math.ceil(level * (RESAMPLES + 1)) - 1
    factors: Floats = np.partition(t, rank, axis=1)[:, rank]
    factors[degenerate.mean(1) > DEGENERATE] = np.nan
    return factors


@lru_cache(maxsize=8)
def _resamples(n: int) -> Floats:
    """Counts of each of n values in each resample, `(resamples, n)`; a function of n alone."""
    picks = np.random.default_rng(n).integers(0, n, (RESAMPLES, n))
    times: Floats = np.zeros((RESAMPLES, n))
    np.add.at(times, (np.arange(RESAMPLES)[:, None], picks), 1.0)
    return times


Errors = Mapping[int, float]
"""Known standard errors of a model's values by seed; empty where they are unknown."""


def paired_difference(
    a: Mapping[int, float],
    b: Mapping[int, float],
    level: float = LEVEL,
    errors: tuple[Errors, Errors] = ({}, {}),
) -> Estimate | None:
    """Mean of a - b over the seeds that both have, with its interval; None where they share no seed.

    `errors` are the known standard errors of a's and b's values. Differences that are all equal have no interval
    without them.
    """
    shared = sorted(a.keys() & b.keys())
    if not shared:
        return None
    gaps, scale = paired_gaps(a, b)
    difference = estimate(gaps, level, paired_errors(errors, shared))
    if difference.kind in {"t", "bootstrap"} and deviation(gaps, difference.mean) <= RESOLUTION * scale:
        return Estimate(difference.mean, difference.n)  # equal up to the rounding of what was subtracted
    return difference


def paired_gaps(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[list[float], float]:
    """The differences a - b over shared seeds, in their order, and the largest magnitude of what was subtracted."""
    shared = sorted(a.keys() & b.keys())
    return [a[seed] - b[seed] for seed in shared], max(max(abs(a[seed]), abs(b[seed])) for seed in shared)


def paired_errors(errors: tuple[Errors, Errors], seeds: Sequence[int]) -> list[float]:
    """The standard error of each seed's difference of two values with independent errors; empty where unknown."""
    a, b = errors
    known = all(seed in a and seed in b for seed in seeds)
    return [math.hypot(a[seed], b[seed]) for seed in seeds] if known else []


def by_seed_table(groups: Sequence[Mapping[int, float]]) -> Floats:
    """Values by seed as `(seeds, groups)`, seeds in their order; NaN where a group lacks a seed."""
    row = {seed: j for j, seed in enumerate(sorted({seed for group in groups for seed in group}))}
    table = np.full((len(row), len(groups)), np.nan)
    for i, group in enumerate(groups):
        for seed, value in group.items():
            table[row[seed], i] = value
    return table


def paired_t_intervals(values: Floats, rivals: Floats, level: float) -> tuple[Floats, Floats]:
    """Student's intervals of the mean of `values - rival` over seeds, `(seeds,)` and each column of `(seeds, rivals)`.

    NaN is an absent value. Low and high, `(rivals,)` each; NaN where fewer than two seeds are shared or all
    differences are equal.
    """
    gaps = values[:, None] - rivals
    there = np.isfinite(gaps)
    n = there.sum(0)
    gaps[~there] = 0.0
    mean = gaps.sum(0) / np.maximum(n, 1)
    squares = (((gaps - mean) * there) ** 2).sum(0)
    half = np.full(len(n), np.nan)
    for count in np.unique(n[n > 1]):
        columns = n == count
        scale = t_quantile(int(count) - 1, (1 + level) / 2) / math.sqrt(count * (count - 1))
        half[columns] = scale * np.sqrt(squares[columns])
    magnitude = np.maximum(np.nanmax(np.abs(values), initial=0.0), np.nanmax(np.abs(rivals), axis=0, initial=0.0))
    half[np.sqrt(squares / np.maximum(n - 1, 1)) <= RESOLUTION * magnitude] = np.nan
    return mean - half, mean + half


# ---------------------------------------------------------------- training seed against sampling draw


@dataclass(frozen=True)
class Spread:
    """Standard deviations over training seeds: all of it, and the parts of the sampling draw and of the training.

    total^2 = training^2 + draw^2 by the law of total variance: a run's value is its weights' value plus the error of
    its draws, whose variance is the mean squared standard error. That asks for errors of what each seed draws anew,
    given what the seeds share. References are given (FID, KID), but the error of a latent fit counts the choice of the
    held-out images as well, which all seeds encode: there `draw` is an upper bound and `training` a lower one, and in
    a simulation of one encoder draw^2 is two to three times too large. Where the draws' own error exceeds what was
    seen, the estimate of training^2 is negative: `training` is 0 then and `negative` says so.
    """

    total: float
    draw: float
    training: float
    negative: bool = False


def spread(groups: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Spread | None:
    """The spread of one group, or pooled over several, each (values over seeds, standard errors of those values).

    Variances are pooled with n - 1 as weights; groups of one seed, or without a standard error for each value, say
    nothing and are left out. None where none is left.

    >>> spread([([1.0, 3.0], [1.0, 1.0])])
    Spread(total=1.414..., draw=1.0, training=1.0, negative=False)
    """
    total = draw = weight = 0.0
    for values, errors in groups:
        n = len(values)
        if n < 2 or len(errors) != n:
            continue
        mean = math.fsum(values) / n
        squares = math.fsum((value - mean) ** 2 for value in values)
        total += squares if math.sqrt(squares / (n - 1)) > RESOLUTION * max(map(abs, values)) else 0.0
        draw += (n - 1) * math.fsum(error**2 for error in errors) / n
        weight += n - 1
    if not weight:
        return None
    rest = (total - draw) / weight
    return Spread(math.sqrt(total / weight), math.sqrt(draw / weight), math.sqrt(max(0.0, rest)), rest < 0)


def combined_p(p_values: Sequence[float]) -> float:
    """The p-value of "every seed's run is perfect" from one p-value for each seed: Bonferroni, K times the smallest.

    Fisher's sum of logarithms would want independence, which runs that encode the same held-out images and share the
    null's draws do not have; Bonferroni's bound holds under any dependence.

    >>> combined_p([0.01, 0.5, 0.9])
    0.03
    """
    return min(1.0, len(p_values) * min(p_values))


@lru_cache(maxsize=1024)
def t_quantile(df: float, probability: float) -> float:
    """Quantile of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtrit  # scipy.stats would take a second to import

    return float(stdtrit(df, probability))


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal law."""
    from scipy.special import ndtri

    return float(ndtri(probability))


def normal_upper(z: float) -> float:
    """P(Z >= z) of a standard normal Z."""
    from scipy.special import ndtr

    return float(ndtr(-z))


def t_upper(df: float, t: float) -> float:
    """P(T >= t) of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtr

    return float(stdtr(df, -t))
