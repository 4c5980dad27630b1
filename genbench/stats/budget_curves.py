"""The expected best validation value against the number of trials, and where two models' curves part. Pure.

The trials of a search are independent draws of one law: those of a random search are. Trials of a sampler that learns
(TPE, a Gaussian process), of successive halving, and a default that was tried first are not, and have no such curve.
A trial that diverged is NaN here, and counts as the worst finite value of all the trials that are compared.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from genbench.stats.intervals import LEVEL, Estimate, Floats

FEWEST = 6
"""Trials from which a curve has intervals, and two models are compared."""

STUDIES = 4_000
"""Simulated searches of each of three reference laws: the standard error of a tail probability of 2.5 % is 0.14 %."""

PERMUTATIONS = 999
"""Permutations of one comparison at least: the standard error of a p-value of 5 % is 0.7 %."""

HOPELESS = 0.04
"""From this p-value by the first permutations on, more of them are not drawn for a pair among more than five, of which
each is tested at less than 1 %."""

FINEST = 0.1
"""The smallest p-value that a comparison can have after correction for all pairs, as a part of the error rate."""

LARGEST_FIRST = 0.8
"""The part of the error rate that the largest number of trials has to itself: the verdict on tuned models is there."""

_SEED = 20_260

_NUMBERS = 2_000_000
"""Simulated values of one reference law at most: 16 MB."""

SIMULATED, COMPARED = 16, 50
"""Numbers of trials whose quantiles are simulated, at most, those between being interpolated; and that are compared."""


def expected_best(values: Sequence[float], *, higher_is_better: bool) -> tuple[Estimate, ...]:
    """The expected best value of k trials, for k from 1 to the number of trials, with 95 % intervals up to half of it.

    The estimate is the mean, over all subsets of k trials, of the best value in the subset: a U-statistic, unbiased
    for every law (Tang et al. 2020, arXiv:2004.13705). Drawing the subsets with replacement (Dodge et al. 2019,
    arXiv:1909.03004) would be pessimistic.

    The interval is that of the pivot t = (estimate - truth) / jackknife error. Its quantiles are not Student's, since
    the estimate and its error hang on the few best trials: they are simulated for the same n and k under a mixture of
    three laws, whose tails towards the best are short (uniform), normal and long (gamma of shape 2), from a fixed seed.
    Simulations of its coverage are in reports/trust/budget-curves.md. No interval holds for every law (Bahadur and
    Savage 1956): the mean depends on tails that n trials do not show.

    There is no interval with fewer than six trials, beyond half of the trials, and where two trials better than the
    worst are equal: then values are discrete, and that the best was seen says little about a better one.

    Args:
        values: One validation value for each trial; NaN where it diverged. At least one is finite.
        higher_is_better: The direction of the metric.

    Returns:
        One `Estimate` for each k, `n` being the number of trials.

    Raises:
        ValueError: No value is finite.

    Example:
        >>> [round(e.mean, 2) for e in expected_best([3.0, 1.0, 2.0], higher_is_better=False)]
        [2.0, 1.33, 1.0]
    """
    (filled,) = fill_diverged([values], higher_is_better=higher_is_better)
    sign = 1.0 if higher_is_better else -1.0
    x = np.sort(sign * filled)
    n = len(x)
    better = x[x > x[0]]
    banded = n >= FEWEST and len(np.unique(better)) == len(better) > 1
    counts = spaced_counts(n // 2, SIMULATED) if banded else [1]
    quantiles = np.array([pivot_quantiles(n, k) for k in counts] if banded else [(0.0, 0.0)])
    curve = []
    for k in range(1, n + 1):
        mean, error = (float(part[0]) for part in best_of(x[None], k)) if k < n else (float(x[-1]), 0.0)
        if not banded or k > n // 2 or error <= 0:
            curve.append(Estimate(sign * mean, n))
            continue
        low, high = (float(np.interp(k, counts, column)) for column in quantiles.T)
        first, last = sorted((sign * (mean - high * error), sign * (mean - low * error)))
        curve.append(Estimate(sign * mean, n, first, last, "calibrated"))
    return tuple(curve)


def fill_diverged(models: Sequence[Sequence[float]], *, higher_is_better: bool) -> list[Floats]:
    """The values of several searches, with the worst finite value of all of them where a trial diverged (not finite).

    Raises `ValueError` where no value is finite.
    """
    arrays = [np.asarray(values, np.float64) for values in models]
    finite = np.concatenate([x[np.isfinite(x)] for x in arrays])
    if not len(finite):
        raise ValueError("every trial diverged")
    worst = finite.min() if higher_is_better else finite.max()
    return [np.where(np.isfinite(x), x, worst) for x in arrays]


def spaced_counts(reach: int, most: int) -> list[int]:
    """Numbers of trials from 1 to `reach`: each, or `most` of them in steps of one ratio."""
    return sorted({round(float(k)) for k in np.geomspace(1, reach, most)} if reach > most else range(1, reach + 1))


def best_of(x: Floats, k: int) -> tuple[Floats, Floats]:
    """The unbiased estimate of the expected maximum of k draws, k < n, and its jackknife error, each `(searches,)`.

    `x` is `(searches, n)`, each row sorted. The i-th smallest value is the best of C(i - 1, k - 1) subsets of C(n, k).
    """
    n = x.shape[1]
    error = np.sqrt((n - 1) / n * np.square(x[:, k - 1 :] @ _leave_out(n, k)).sum(1))
    error[error <= 1e-12 * np.maximum(np.abs(x[:, 0]), np.abs(x[:, -1]))] = 0.0  # rounding
    return x @ _weights(n, k), error


@lru_cache(maxsize=256)
def _leave_out(n: int, k: int) -> Floats:
    """The estimates without one draw, less their mean, are linear in the sorted values: the matrix, `(value, draw)`.

    Without draw j the values below it keep their rank, and those above it lose one. The k - 1 smallest values are the
    best of no subset, and each leaves the same estimate: one column, by the square root of their number, for them all.
    """
    weights = _weights(n - 1, k)
    below, above = np.append(weights, 0.0), np.insert(weights, 0, 0.0)
    matrix = np.triu(np.tile(below[:, None], n), 1) + np.tril(np.tile(above[:, None], n), -1)
    matrix -= matrix.mean(1, keepdims=True)
    matrix[:, max(0, k - 2)] *= math.sqrt(max(1, k - 1))
    return np.asarray(matrix[k - 1 :, max(0, k - 2) :], np.float64)


@lru_cache(maxsize=4096)
def _weights(n: int, k: int) -> Floats:
    """C(i - 1, k - 1) / C(n, k) for i from 1 to n."""
    from scipy.special import gammaln

    rank = np.arange(k, n + 1)
    weights = np.zeros(n)
    log = gammaln(rank) - gammaln(rank - k + 1) - gammaln(k)
    weights[k - 1 :] = np.exp(log - (gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)))
    return weights


# ---------------------------------------------------------------- the interval


@lru_cache(maxsize=4096)
def pivot_quantiles(n: int, k: int, level: float = LEVEL) -> tuple[float, float]:
    """The two quantiles of (estimate - truth) / error under the mixture of the reference laws."""
    pivots = []
    for x, cdf, grid in _reference_searches(n):
        truth = _mean_of_best(cdf, grid, k)
        mean, error = best_of(x, k)
        pivots.append((mean - truth) / error)
    low, high = np.quantile(np.concatenate(pivots), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@lru_cache(maxsize=2)
def _reference_searches(n: int) -> tuple[tuple[Floats, Callable[[Floats], Floats], Floats], ...]:
    """Sorted simulated searches `(studies, n)` of each reference law, its distribution function and a grid of it."""
    from scipy.special import gammainc, ndtr

    rng = np.random.default_rng([_SEED, n])
    size = (min(STUDIES, max(500, _NUMBERS // n)), n)
    laws = (
        (rng.random(size), lambda y: np.clip(y, 0, 1), np.linspace(0, 1, 4001)),
        (rng.normal(size=size), ndtr, np.linspace(-9, 9, 4001)),
        (rng.gamma(2.0, 1.0, size), lambda y: gammainc(2.0, y), np.linspace(0, 50, 4001)),
    )
    return tuple((np.sort(x, axis=1), cdf, grid) for x, cdf, grid in laws)


def _mean_of_best(cdf: Callable[[Floats], Floats], grid: Floats, k: int) -> float:
    """The mean of the maximum of k draws: the upper end less the integral of the distribution function's k-th power."""
    power = cdf(grid) ** k
    return float(grid[-1] - (grid[1] - grid[0]) * (power.sum() - (power[0] + power[-1]) / 2))


# ---------------------------------------------------------------- where two curves part


@dataclass(frozen=True)
class BudgetComparison:
    """Two models' expected best values compared at numbers of trials from 1 on.

    `ahead` holds for each of `trials` 1 where the first model is ahead, -1 where the second is, and 0 where they cannot
    be told apart; `p_values` are adjusted over all numbers of trials and all pairs of models.
    """

    first: str
    second: str
    trials: tuple[int, ...]
    ahead: tuple[int, ...]
    p_values: tuple[float, ...]

    @property
    def sentence(self) -> str:
        """The comparison in words.

        >>> BudgetComparison("swae", "vae", (1, 2, 3, 4), (1, 1, 0, 0), (0.01, 0.02, 0.3, 0.6)).sentence
        'swae is ahead of vae up to 2 trials, not distinguishable beyond (compared up to 4)'
        """
        if not self.trials:
            return f"{self.first} and {self.second}: fewer than {FEWEST} trials, not compared"
        reach = self.trials[-1]
        if not any(self.ahead):
            return f"{self.first} and {self.second} are not distinguishable at any number of trials up to {reach}"
        names = {1: (self.first, self.second), -1: (self.second, self.first)}
        parts: list[str] = []
        named = False
        for lead, members in itertools.groupby(zip(self.ahead, self.trials, strict=True), key=lambda pair: pair[0]):
            counts = [count for _, count in members]
            where = _span(counts[0], counts[-1], reach)
            if lead:
                leader, rival = names[lead]
                parts.append(f"{leader} is ahead{'' if named else f' of {rival}'} {where}")
                named = True
            else:
                parts.append(f"{'' if parts else f'{self.first} and {self.second} are '}not distinguishable {where}")
        return ", ".join(parts) if len(parts) == 1 else f"{', '.join(parts)} (compared up to {reach})"


def _span(first: int, last: int, reach: int) -> str:
    """A range of numbers of trials in words."""
    if first == 1:
        return f"at every number of trials up to {last}" if last == reach else f"up to {_trials(last)}"
    if last == reach:
        return "beyond" if last > first else f"at {_trials(last)}"
    return f"at {_trials(first)}" if first == last else f"from {first} to {_trials(last)}"


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"


def compare_budgets(
    models: Mapping[str, Sequence[float]],
    *,
    higher_is_better: bool,
    level: float = LEVEL,
    pairs: Collection[tuple[str, str]] | None = None,
) -> tuple[BudgetComparison, ...]:
    """Pairs of models: at which numbers of trials one has the better expected best value.

    With probability `level` nothing is claimed of models whose trials have one law, over all numbers of trials and all
    pairs together. For a pair, t_k = difference of the estimates / its jackknife error is compared with its law when
    the trials are dealt anew to the two models: exact for equal laws with any ties, and, since t_k is studentized,
    right in large samples where only the expected values are equal (Chung and Romano 2013, doi:10.1214/13-AOS1090). The
    trials of models are not paired: each model has a space of its own options.

    Numbers of trials up to half of the smaller search are compared. The largest is tested at four fifths of the error
    rate. The others have the last fifth, or all of it where the test of the largest rejects (the fallback procedure,
    Wiens 2003, doi:10.1002/pst.64); among them the smallest p-value is compared with its own permutation law (Westfall
    and Young 1993). Pairs are corrected by Bonferroni.

    Args:
        models: Validation values of each model's trials; NaN where one diverged.
        higher_is_better: The direction of the metric.
        level: One minus the error rate.
        pairs: The pairs that are compared, each in the order of `models`; all where None. The correction is for all.

    Returns:
        A comparison for each pair, in the order of `models`; an empty one below six trials.

    Raises:
        ValueError: No value of any model is finite.

    Example:
        >>> a, b = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], [5.0, 5.1, 5.2, 5.3, 5.4, 5.5]
        >>> (pair,) = compare_budgets({"swae": a, "vae": b}, higher_is_better=False)
        >>> pair.ahead
        (1, 1, 1)
    """
    sign = 1.0 if higher_is_better else -1.0
    filled = fill_diverged(list(models.values()), higher_is_better=higher_is_better)
    values = {name: tuple((sign * x).tolist()) for name, x in zip(models, filled, strict=True)}
    every = list(itertools.combinations(models, 2))
    # With too few permutations for so many pairs no p-value could be small enough, whatever the trials.
    permutations = max(PERMUTATIONS, math.ceil(len(every) / (FINEST * (1 - level)) - 1e-6) - 1)
    comparisons = []
    for first, second in every if pairs is None else [pair for pair in every if pair in pairs]:
        trials, signs, raw = _permutation_test(values[first], values[second], PERMUTATIONS)
        if permutations > PERMUTATIONS and min(raw, default=1.0) <= HOPELESS:
            trials, signs, raw = _permutation_test(values[first], values[second], permutations)
        p_values = tuple(min(1.0, len(every) * p) for p in raw)
        ahead = tuple(s if p <= 1 - level else 0 for s, p in zip(signs, p_values, strict=True))
        comparisons.append(BudgetComparison(first, second, trials, ahead, p_values))
    return tuple(comparisons)


@lru_cache(maxsize=4096)
def _permutation_test(
    a: tuple[float, ...], b: tuple[float, ...], permutations: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
    """Numbers of trials, the sign of each difference, and p-values adjusted over them; larger is better."""
    if min(len(a), len(b)) < FEWEST:
        return (), (), ()
    pooled = np.array([*a, *b])
    rng = np.random.default_rng(_SEED)
    order = rng.permuted(np.tile(np.arange(len(pooled)), (permutations + 1, 1)), axis=1)
    order[0] = np.arange(len(pooled))  # as it was observed
    dealt = pooled[order]
    left, right = np.sort(dealt[:, : len(a)], axis=1), np.sort(dealt[:, len(a) :], axis=1)
    counts = tuple(spaced_counts(min(len(a), len(b)) // 2, COMPARED))
    signs: list[int] = []
    p_values: list[Floats] = []
    for k in counts:
        (mean_a, error_a), (mean_b, error_b) = best_of(left, k), best_of(right, k)
        gap, error = mean_a - mean_b, np.hypot(error_a, error_b)
        gap[np.abs(gap) <= 1e-12 * np.abs(pooled).max()] = 0.0  # rounding
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(gap == 0, 0.0, np.abs(gap) / error)
        signs.append(int(np.sign(gap[0])))
        p_values.append(_upper_shares(t))
    *smaller, at_largest = p_values
    largest = min(1.0, float(at_largest[0]) / LARGEST_FIRST)
    smallest = np.min(smaller, axis=0)
    shares = [float((smallest <= column[0]).mean()) for column in smaller]
    fallback = [min(p / (1 - LARGEST_FIRST), max(p, largest), 1.0) for p in shares]
    return counts, tuple(signs), (*fallback, largest)


def _upper_shares(t: Floats) -> Floats:
    """For each value the share of values that are at least as large, up to rounding."""
    return 1 - np.searchsorted(np.sort(t), t * (1 - 1e-9), side="left") / len(t)
