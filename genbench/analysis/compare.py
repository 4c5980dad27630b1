"""Two groups against each other, and the power of numbers of seeds by a pilot study, from tidy rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from genbench.analysis.gather import ColumnValues, GatheredRows, gather, labels, resolve_metric
from genbench.errors import UsageError, unknown
from genbench.stats.best import p_of_trials
from genbench.stats.comparison import holm_of_tests
from genbench.stats.intervals import (
    RESOLUTION,
    Estimate,
    deviation,
    paired_difference,
    paired_errors,
    paired_gaps,
    upper_p,
)
from genbench.stats.power import ALPHA, Pilot, minimum_detectable_effect, pilot, power, seeds_needed
from genbench.storage.results import Row

ComparisonConclusion = Literal[
    "A is better", "B is better", "A's options are better", "B's options are better", "undecided", "equal", "no test"
]
"""A's options: both were tuned alike, and their searches do not show that the models differ. Undecided: tested without
a result; equal: in every seed; no test: differences are equal, and so without a spread."""


@dataclass(frozen=True)
class Comparison:
    """A minus B in one metric over the seeds that both have.

    `seeds_a` and `seeds_b` count the seeds of each, `difference.n` those that both have. `p` is the two-sided paired
    t-test's, for shares of n draws at least the z-test's by their known errors (`genbench.stats.intervals.upper_p`);
    None where all differences are equal and no error is known. `p_holm` is the same after Holm's correction over the
    metrics compared at once, which the conclusion uses. `sd` is that of the differences, at least what known errors
    give. `effect` is the mean difference over `sd` (Cohen's d_z) times Hedges' correction; None below three seeds or
    where all differences are equal and no error is known. `more_seeds` is how many more
    seeds give a power of 80 % at 5 % if the observed difference and deviation are the true ones: 0 where the
    conclusion is sure, None where the difference is smaller than its standard error, too uncertain to plan by.
    `unproven` says why the searches of two that were tuned alike say nothing, "" where they do.
    """

    metric: str
    head: str
    protocol: str
    higher_is_better: bool | None
    a: float
    b: float
    difference: Estimate
    seeds_a: int
    seeds_b: int
    sd: float
    p: float | None
    p_holm: float | None
    effect: float | None
    conclusion: ComparisonConclusion
    more_seeds: int | None
    unproven: str = ""


def compare(rows: Sequence[Row], a: str, b: str, metric: str | None = None) -> tuple[str, str, tuple[Comparison, ...]]:
    """The labels of two groups and their comparisons; every metric with a direction where none is named.

    `a` and `b` are labels of the table, names of models that one group has, or names of runs. `UsageError` where a
    name fits no group or several, the groups are of different datasets, were measured under different protocols, or
    share fewer than two seeds.
    """
    first, second = _resolve(rows, a), _resolve(rows, b)
    if first == second:
        raise UsageError(f"'{a}' and '{b}' are one group: name two")
    if first[0] != second[0]:
        raise UsageError(f"'{a}' is of {first[0]} and '{b}' of {second[0]}: numbers of two datasets never compare")
    gathered, names = gather(rows)[first[0]], labels(gather(rows)[first[0]].groups)
    chosen = _shared(gathered, first[1], second[1], (a, b), metric)
    raw = [_compare(values, first[1], second[1]) for values in chosen]
    adjusted = holm_of_tests([comparison.p for comparison in raw])
    concluded = [c if p is None else _concluded(c, p) for c, p in zip(raw, adjusted, strict=True)]
    of_models = (_as_models(c, v, first[1], second[1]) for c, v in zip(concluded, chosen, strict=True))
    return names[first[1]], names[second[1]], tuple(of_models)


def _resolve(rows: Sequence[Row], name: str) -> tuple[str, str]:
    """The dataset and group of a name: a label first, then a run, then a model."""
    groups: dict[tuple[str, str], str] = {}
    for dataset, gathered in gather(rows).items():
        groups |= {(dataset, group): label for group, label in labels(gathered.groups).items()}
    fits = {key for key, label in groups.items() if label == name}
    fits = fits or {(row.dataset, row.group) for row in rows if row.run == name} & groups.keys()
    fits = fits or {(row.dataset, row.group) for row in rows if row.model == name} & groups.keys()
    if not fits:
        raise unknown("group", name, {*groups.values(), *(row.model for row in rows)})
    if len(fits) > 1:
        matches = ", ".join(sorted(f"'{groups[key]}' on {key[0]}" for key in fits))
        raise UsageError(f"'{name}' names {len(fits)} groups: {matches}; give a whole label, or the name of a run")
    return fits.pop()


def _shared(gathered: GatheredRows, a: str, b: str, names: tuple[str, str], metric: str | None) -> list[ColumnValues]:
    """The columns in which both groups have at least two shared seeds; why there is none, as an error."""
    directed = {key: values for key, values in gathered.columns.items() if values.example.higher_is_better is not None}
    if metric is not None:
        examples = [values.example for values in directed.values()]
        metric = resolve_metric(examples, metric, "measured metric with a better direction called")
    requested = {key: values for key, values in directed.items() if metric in (None, key[0])}
    both = [values for values in requested.values() if a in values.values and b in values.values]
    if not both:
        _refuse_protocols(requested, (a, b), names, metric)
    chosen = [values for values in both if len(values.values[a].keys() & values.values[b].keys()) > 1]
    if not chosen:
        seeds = [", ".join(map(str, sorted(both[0].values[group]))) for group in (a, b)]
        shared = len(both[0].values[a].keys() & both[0].values[b].keys())
        raise UsageError(
            f"'{names[0]}' has seeds {seeds[0]} and '{names[1]}' seeds {seeds[1]}: {shared or 'none'} shared, and a "
            "paired difference needs two; train both with the same --seeds"
        )
    return chosen


def _refuse_protocols(
    requested: Mapping[tuple[str, str], ColumnValues], groups: Iterable[str], names: Sequence[str], metric: str | None
) -> None:
    texts = []
    for group, name in zip(groups, names, strict=True):
        keys = sorted(f"{key[0]} {key[1]}" for key, values in requested.items() if group in values.values)
        texts.append(f"'{name}' has {', '.join(keys) or 'none'}")
    raise UsageError(f"no number of {metric or 'any metric'} under one protocol in both: {'; '.join(texts)}")


def _compare(values: ColumnValues, a: str, b: str) -> Comparison:
    """One comparison, still without a conclusion but where there is no test."""
    x, y = values.by_seed(a), values.by_seed(b)
    known = values.known_errors(a), values.known_errors(b)
    shared = sorted(x.keys() & y.keys())
    gaps, scale = paired_gaps(x, y)
    errors = paired_errors(known, shared)
    difference = paired_difference(x, y, errors=known)
    assert difference is not None  # at least two shared seeds
    n, mean = len(gaps), difference.mean
    sd = deviation(gaps, mean)
    if sd <= RESOLUTION * scale:
        sd = 0.0
    sd = max(sd, math.sqrt(math.fsum(error**2 for error in errors) / n))
    tail = upper_p([gap if mean > 0 else -gap for gap in gaps], errors, scale)
    p = None if tail is None else min(1.0, 2 * tail)
    same = all(abs(gap) <= RESOLUTION * scale for gap in gaps)
    row = values.example
    return Comparison(
        metric=row.metric,
        head=values.head or row.metric,
        protocol=row.protocol,
        higher_is_better=row.higher_is_better,
        a=math.fsum(x[seed] for seed in shared) / n,
        b=math.fsum(y[seed] for seed in shared) / n,
        difference=difference,
        seeds_a=len(x),
        seeds_b=len(y),
        sd=sd,
        p=p,
        p_holm=p,
        effect=hedges(n) * mean / sd if sd > 0 and n > 2 else None,
        conclusion="equal" if same else "no test" if p is None else "undecided",
        more_seeds=None,
    )


def hedges(n: int) -> float:
    """Hedges' correction of d_z: Gamma(f / 2) / (sqrt(f / 2) Gamma((f - 1) / 2)), f = n - 1 (1981)."""
    f = n - 1
    return math.exp(math.lgamma(f / 2) - math.lgamma((f - 1) / 2)) / math.sqrt(f / 2)


def _concluded(comparison: Comparison, p_holm: float) -> Comparison:
    n = comparison.difference.n
    if comparison.conclusion == "equal":
        return replace(comparison, p_holm=p_holm)
    if p_holm <= ALPHA:
        a_wins = (comparison.difference.mean < 0) == (not comparison.higher_is_better)
        return replace(comparison, p_holm=p_holm, conclusion="A is better" if a_wins else "B is better", more_seeds=0)
    uncertain = comparison.sd == 0 or abs(comparison.difference.mean) < comparison.sd / math.sqrt(n)
    needed = None if uncertain else seeds_needed(comparison.difference.mean / comparison.sd)
    return replace(comparison, p_holm=p_holm, more_seeds=None if needed is None else max(1, needed - n))


def _as_models(comparison: Comparison, values: ColumnValues, a: str, b: str) -> Comparison:
    """The comparison where both were tuned alike: of the models where their searches agree, else of chosen options."""
    searches = values.searches
    if a not in searches or b not in searches or searches[a].way != searches[b].way:
        return comparison
    problems = [searches[group].problem for group in (a, b) if searches[group].problem]
    comparison = replace(comparison, unproven=problems[0] if problems else "")
    if comparison.conclusion not in ("A is better", "B is better"):
        return comparison
    a_wins = comparison.conclusion == "A is better"
    winner, loser = (a, b) if a_wins else (b, a)
    p = p_of_trials(loser, winner, {group: searches[group] for group in (a, b)}, lower=not comparison.higher_is_better)
    if p is not None:
        return comparison
    return replace(comparison, conclusion="A's options are better" if a_wins else "B's options are better")


# ---------------------------------------------------------------- before anything is trained


@dataclass(frozen=True)
class SeedPower:
    """The smallest difference that K seeds detect with a power of 80 %, and the power for a given one."""

    seeds: int
    minimum_detectable_effect: float
    power: float | None


@dataclass(frozen=True)
class Forecast:
    """The forecast of a pilot for one metric on one dataset; `needed` is (at the sd, at its low, at its high).

    `left_out` are the labels of groups that share fewer than two seeds with others.
    """

    dataset: str
    metric: str
    protocol: str
    pilot: Pilot
    table: tuple[SeedPower, ...]
    difference: float | None
    needed: tuple[int | None, int | None, int | None] | None
    left_out: tuple[str, ...] = ()


def forecast(
    rows: Sequence[Row], metric: str, seeds: Sequence[int], difference: float | None = None
) -> tuple[Forecast, ...]:
    """For each dataset and protocol of the metric in a pilot's rows: the power that numbers of seeds would have.

    Groups that share fewer than two seeds with others are left out. `UsageError` where no two share two, no difference
    varies over seeds, or the metric was not measured.
    """
    rows = [row for row in rows if row.role != "control"]
    metric = resolve_metric(rows, metric)
    forecasts, unspread = [], False
    for dataset, gathered in gather(rows).items():
        names = labels(gathered.groups)
        for (name, protocol), values in gathered.columns.items():
            if name != metric:
                continue
            groups = list(values.values)
            study = pilot([values.by_seed(group) for group in groups], [values.known_errors(group) for group in groups])
            if study is not None and study.sd > 0:
                left_out = tuple(names[group] for i, group in enumerate(groups) if i not in study.members)
                forecasts.append(_forecast(dataset, metric, protocol, study, seeds, difference, left_out))
            unspread |= study is not None and study.sd == 0
    if unspread and not forecasts:
        raise UsageError(f"{metric}: all differences between models are equal over the seeds of the pilot: no test")
    if not forecasts:
        raise UsageError(f"the pilot has no two models that share two seeds with {metric}: train 2 models, --seeds 3")
    return tuple(forecasts)


def _forecast(
    dataset: str,
    metric: str,
    protocol: str,
    pilot_study: Pilot,
    seeds: Sequence[int],
    difference: float | None,
    left_out: tuple[str, ...],
) -> Forecast:
    table = tuple(
        SeedPower(
            k,
            pilot_study.sd * minimum_detectable_effect(k),
            None if difference is None else power(difference / pilot_study.sd, k),
        )
        for k in seeds
    )
    needed = None
    if difference is not None:
        needed = (
            seeds_needed(difference / pilot_study.sd),
            seeds_needed(difference / pilot_study.low),
            seeds_needed(difference / pilot_study.high),
        )
    return Forecast(dataset, metric, protocol, pilot_study, table, difference, needed, left_out)
