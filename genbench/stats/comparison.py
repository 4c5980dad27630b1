"""The set of models that may be the best, and Holm's correction. Pure functions; intervals are in `intervals`.

A *seed* is one independent training run; a model's values are a mapping from seed to value. Seeds are paired across
models (same data order, same prior draws, same evaluation noise), so differences are taken seed by seed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from genbench.stats.intervals import LEVEL, RESOLUTION, Errors, Floats, t_upper

FEWEST = 3
"""Shared seeds that a test for the set of bests needs. With two, Student's t has one degree of freedom: a difference is
found where two values happen to agree, rarely where it is large."""

BestSetStatus = Literal["best", "worse", "undecided"]
"""A model may be the best, is not a best, or could not be tested."""


@dataclass(frozen=True)
class BestSetResult:
    """The test of a model in one column; `p` is the adjusted p-value of "this model is a best", None where untested."""

    status: BestSetStatus
    p: float | None = None


def set_of_best(
    models: Sequence[Mapping[int, float]],
    *,
    lower: bool,
    level: float = LEVEL,
    errors: Sequence[Errors] = (),
    rivals: Sequence[Container[int]] | None = None,
) -> tuple[BestSetResult, ...]:
    """The models that may be the best; with probability `level` every model that truly is a best is among them.

    The best of the sample is chosen by the data, so testing the others against it is not a test at the stated level.
    As in Hsu's multiple comparisons with the best (Annals of Statistics 12, 1984), each model is tested instead for
    being a best, against *all* others: H_i holds where mu_i is at least as good as every mu_j. Its evidence against
    is the smallest one-sided paired t-test p-value of "i is worse than j", times the number of those tests
    (Bonferroni, because they share data); the H_i are then rejected in Holm's order (Scand. J. Statistics 6, 1979).
    That controls the family-wise error in the strong sense, ties among the best and any dependence included, and
    assumes no common variance, which Dunnett's and Hsu's tables do. It asks less than all pairwise comparisons:
    a difference between two models that are both worse than a third is not tested. The tests stay t-tests where the
    intervals are bootstrap ones (10 seeds and more): a bootstrap tail of 2,000 resamples is too coarse for Holm's.

    A test needs three shared seeds, and differences that are not all equal unless the values' `errors` are known (those
    of shares): then its p-value is `intervals.upper_p`'s, at least that of a z-test by these errors. A model without
    any test is "undecided". The best mean is in the set, or no model is, when all models have the same seeds.

    `rivals` are for each model the places of those that may be evidence against it. All others are still counted in the
    correction, so that fewer rivals never give more models that are worse.
    """
    values, present = _matrix(models)
    values = values if lower else -values
    if len(values) < FEWEST:  # no test of any pair
        return tuple(BestSetResult("undecided") for _ in models)
    known = bool(errors) and all(error.keys() == model.keys() for error, model in zip(errors, models, strict=True))
    variances = np.square(_matrix(errors)[0]) if known else None
    evidence = [
        _evidence_against(i, values, present, variances, None if rivals is None else rivals[i])
        for i in range(len(models))
    ]
    p_values = holm_of_tests(evidence)
    adjusted = [p for p in p_values if p is not None]
    if adjusted and max(adjusted) <= 1 - level:  # only where seeds differ between pairs: each beaten by another
        return tuple(BestSetResult("undecided", p) for p in p_values)
    return tuple(_result(p, 1 - level) for p in p_values)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down adjusted p-values, in the given order: reject where they are at most alpha.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return tuple(adjusted)


def holm_of_tests(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Holm's adjusted p-values where some comparisons could not be tested (None): those stay None and do not count.

    >>> holm_of_tests([0.01, None, 0.04])
    (0.02, None, 0.04)
    """
    adjusted = iter(holm([p for p in p_values if p is not None]))
    return tuple(None if p is None else next(adjusted) for p in p_values)


def _result(p: float | None, alpha: float) -> BestSetResult:
    if p is None:
        return BestSetResult("undecided")
    return BestSetResult("worse" if p <= alpha else "best", p)


def _matrix(models: Sequence[Mapping[int, float]]) -> tuple[Floats, Floats]:
    """Values and presence (1 or 0), both `(seeds, models)`; an absent value is 0."""
    row = {seed: j for j, seed in enumerate(sorted({seed for model in models for seed in model}))}
    values, present = np.zeros((len(row), len(models))), np.zeros((len(row), len(models)))
    for i, model in enumerate(models):
        for seed, value in model.items():
            values[row[seed], i], present[row[seed], i] = value, 1.0
    return values, present


def _evidence_against(
    i: int, values: Floats, present: Floats, variances: Floats | None, rivals: Container[int] | None
) -> float | None:
    """The p-value of "model i is a best", lower is better: Bonferroni over its one-sided paired tests; None without.

    Without known variances only the largest t for each number of shared seeds can give the smallest p-value:
    thousands of models stay cheap.
    """
    # Paired differences from every model: mean, and its error by their spread.
    measured = present[:, i] > 0
    magnitude = np.abs(values[measured]).max(0)
    rounding = RESOLUTION * np.maximum(magnitude, magnitude[i])
    shared = present[measured]
    counts = shared.sum(0)
    n = np.maximum(counts, 2.0)
    gaps = values[measured, i : i + 1] - values[measured]
    whole = bool(shared.all())
    gaps = gaps if whole else gaps * shared
    mean = gaps.sum(0) / n
    residual = gaps - mean if whole else (gaps - mean) * shared
    error = np.sqrt((residual * residual).sum(0) / (n * (n - 1)))

    # Which pairs can be tested.
    same = np.abs(mean) <= rounding
    unspread = ~same & (error * np.sqrt(n) <= rounding)
    testable = counts >= FEWEST
    testable[i] = False
    if variances is None:
        testable &= ~unspread
    tests = int(testable.sum())
    if not tests:
        return None
    if rivals is not None:
        testable &= np.array([j in rivals for j in range(len(testable))])
        if not testable.any():
            return 1.0

    # The smallest p-value.
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(same, 0.0, mean / error)
    if variances is None:
        groups = ((int(count), t[testable & (counts == count)]) for count in np.unique(counts[testable]))
        return min(1.0, tests * min(t_upper(count - 1, float(t_values.max())) for count, t_values in groups))
    from scipy.special import ndtr, stdtr

    known = np.sqrt(((variances[measured, i : i + 1] + variances[measured]) * shared).sum(0)) / n
    p_values = np.maximum(np.where(unspread, 0.0, stdtr(n - 1, -t)), np.where(same, 0.5, ndtr(-mean / known)))
    return float(min(1.0, tests * p_values[testable].min()))
