"""How much a validation value depends on each option of a search. Pure.

In a random search options are drawn independently, so that each can be looked at alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genbench.stats.budget_curves import fill_diverged
from genbench.stats.comparison import holm
from genbench.stats.intervals import LEVEL, Estimate, Floats, normal_quantile

PERMUTATIONS = 1999
"""Permutations of one option's test: the smallest p-value is 0.0005."""

FEWEST = 6
"""Trials from which an option is tested."""

Scalar = int | float | bool | str | None

_SEED = 20_280


@dataclass(frozen=True)
class Sensitivity:
    """How much one option of one model matters.

    `groups` are the thirds of the trials by the option's value, lowest first, or the values of a choice: each with its
    range in words, the count of trials and the median validation value. `spread` is the difference between the worst
    and the best of these medians, in units of the metric, and `by_chance` the spread that 95 % of searches stay below
    when the option does nothing. `p` is the p-value of "the groups do not differ", Holm-adjusted over the options of
    the model. `rank_correlation` is Spearman's between the option and the value with its 95 % interval, positive where
    larger options give larger values; None for a choice.
    """

    option: str
    groups: tuple[tuple[str, int, float], ...]
    best: str
    spread: float
    by_chance: float
    p: float
    rank_correlation: Estimate | None = None


def sensitivities(
    options: Sequence[Mapping[str, Scalar]], values: Sequence[float], *, higher_is_better: bool
) -> tuple[Sensitivity, ...]:
    """The sensitivity of a validation value to each option that varies, the most sensitive first.

    Trials are put in thirds by a numeric option, or in groups by a choice, and the groups are compared: that sees an
    optimum inside the range, which a correlation misses. The test is Kruskal and Wallis's of ranks (1952) by its
    permutation law, which holds for every law, ties included. The spread is positive also when an option does nothing;
    `by_chance` says how large. The interval of the rank correlation is Bonett and Wright's (2000).

    Args:
        options: The options of each trial, by name.
        values: The validation value of each trial; NaN where it diverged, which counts as the worst finite value.
        higher_is_better: The direction of the metric.

    Returns:
        One `Sensitivity` for each option with two values or more; none with fewer than six trials.

    Raises:
        ValueError: No value is finite.

    Example:
        >>> trials = [{"rate": 10.0**k} for k in range(-8, 4)]
        >>> values = [9.0, 9.1, 8.9, 8.8, 1.0, 1.1, 0.9, 1.2, 9.2, 9.3, 9.1, 9.4]
        >>> (rate,) = sensitivities(trials, values, higher_is_better=False)
        >>> rate.best, round(rate.spread, 1), rate.p < 0.05
        ('0.0001 to 0.1', 8.2, True)
    """
    (filled,) = fill_diverged([values], higher_is_better=higher_is_better)
    if len(filled) < FEWEST:
        return ()
    rng = np.random.default_rng(_SEED)
    order = rng.permuted(np.tile(np.arange(len(filled)), (PERMUTATIONS + 1, 1)), axis=1)
    order[0] = np.arange(len(filled))  # as it was observed
    dealt, ranks = filled[order], _ranks(filled)[order]
    names = dict.fromkeys(name for trial in options for name in trial)
    tested = []
    for name in names:
        column = [trial.get(name) for trial in options]
        if len(set(column)) < 2:
            continue
        labels, members = _groups(column)
        medians = np.stack([np.median(dealt[:, member], axis=1) for member in members])
        spreads = medians.max(0) - medians.min(0)
        between = sum(np.square(ranks[:, member].sum(1)) / len(member) for member in members)
        p = float((between >= between[0] * (1 - 1e-12)).mean())
        best = labels[int(np.argmax(medians[:, 0]) if higher_is_better else np.argmin(medians[:, 0]))]
        groups = tuple(
            (label, len(member), float(row[0])) for label, member, row in zip(labels, members, medians, strict=True)
        )
        by_chance = float(np.quantile(spreads[1:], 0.95))
        rho = _spearman(column, filled)
        tested.append(Sensitivity(name, groups, best, float(spreads[0]), by_chance, p, rho))
    adjusted = holm([line.p for line in tested])
    lines = [replace(line, p=p) for line, p in zip(tested, adjusted, strict=True)]
    return tuple(sorted(lines, key=lambda line: (line.p, -line.spread)))


def is_numeric(column: Sequence[Scalar]) -> bool:
    """Whether the values of an option are numbers on a scale."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)


def _groups(column: Sequence[Scalar]) -> tuple[list[str], list[list[int]]]:
    """Groups of trials by an option: their labels, and the places of their trials."""
    distinct = list(dict.fromkeys(column))
    if not is_numeric(column):
        texts = sorted(distinct, key=str)
        return [text_of(value) for value in texts], [[i for i, v in enumerate(column) if v == text] for text in texts]
    numbers = np.array(column, np.float64)
    if len(distinct) <= 3:
        members = [np.flatnonzero(numbers == value) for value in np.unique(numbers)]
    else:  # equal values stay in one group
        cuts = np.quantile(numbers, [1 / 3, 2 / 3])
        places = np.searchsorted(cuts, numbers, side="left")
        members = [np.flatnonzero(places == place) for place in range(3)]
    members = [member for member in members if len(member)]
    return [_range(numbers[member]) for member in members], [member.tolist() for member in members]


def _range(numbers: Floats) -> str:
    low, high = float(numbers.min()), float(numbers.max())
    return text_of(low) if low == high else f"{text_of(low)} to {text_of(high)}"


def text_of(value: Scalar) -> str:
    """An option's value in words."""
    if value is None:
        return "none"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).lower()
    return f"{float(f'{value:.3g}'):g}"


def _spearman(column: Sequence[Scalar], values: Floats) -> Estimate | None:
    """Spearman's rank correlation, ties at their mean rank; None for a choice, or values that are all equal."""
    if not is_numeric(column) or len(np.unique(values)) < 2:
        return None
    ranks = [_ranks(np.array(column, np.float64)), _ranks(values)]
    rho, n = float(np.corrcoef(ranks[0], ranks[1])[0, 1]), len(values)
    if abs(rho) > 1 - 1e-12:
        return Estimate(round(rho), n)
    reach = normal_quantile((1 + LEVEL) / 2) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return Estimate(rho, n, math.tanh(math.atanh(rho) - reach), math.tanh(math.atanh(rho) + reach), "sampling")


def _ranks(x: Floats) -> Floats:
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
