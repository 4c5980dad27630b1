"""Tidy rows sorted by dataset, group and column, in one pass; and the metric that a name means. Data only, no text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from genbench.errors import UsageError, unknown
from genbench.stats import budget_curves
from genbench.stats.best import GroupSearch
from genbench.stats.intervals import Errors, Estimate, estimate, share_errors, share_scale
from genbench.storage.results import EQUAL_COST, Row

DEFAULT_SORT = "sample quality"
"""The role of the metric that ranks where none is asked for: the first one with it."""

CAUTIONS = "; "
"""What separates several cautions on one number: each becomes a note, whose columns and groups may differ."""

ColumnKey = tuple[str, str]
"""A column: metric and protocol."""


@dataclass(frozen=True)
class RunProblem:
    """A run that failed or is unfinished, or (with `metric`) a number that could not be measured."""

    run: str
    label: str
    seed: int
    status: str
    cause: str
    metric: str = ""


@dataclass
class RunGroup:
    """Runs that differ by seed alone: their label, the row of the lowest seed, and each seed's status."""

    label: str
    first: Row
    seeds: dict[int, str] = field(default_factory=dict)


@dataclass
class ColumnValues:
    """The values of one (metric, protocol) pair by group and seed (a list: repeats), and floors by group.

    `errors` are standard errors over draws and `p_values` those of a perfect fit (of repeats the largest), by group and
    seed; `minimum_detectable_effect` is the largest of the smallest values that a run's n can detect.
    """

    example: Row
    head: str = ""
    counts: set[int] = field(default_factory=set)
    values: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    floors: dict[str, list[float]] = field(default_factory=dict)
    floor_sds: list[float] = field(default_factory=list)
    chances: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    p_values: dict[str, dict[int, float]] = field(default_factory=dict)
    minimum_detectable_effect: float | None = None
    cautions: dict[str, set[str]] = field(default_factory=dict)
    fit_seconds: list[float] = field(default_factory=list)
    searches: dict[str, GroupSearch] = field(default_factory=dict)
    _by_seed: dict[str, dict[int, float]] = field(default_factory=dict, repr=False, compare=False)
    _shares: tuple[int, float | None] | None = field(default=None, repr=False, compare=False)

    def by_seed(self, group: str) -> dict[int, float]:
        """A group's value for each seed; repeats of a seed are averaged, never counted twice. Asked once all is in."""
        if group not in self._by_seed:
            self._by_seed[group] = {
                seed: repeats[0] if len(repeats) == 1 else math.fsum(repeats) / len(repeats)
                for seed, repeats in self.values[group].items()
            }
        return self._by_seed[group]

    def known_errors(self, group: str) -> Errors:
        """The standard errors of a group's values where the whole column is of shares of n draws; else empty."""
        if self._shares is None:
            singles = [value for by_seed in self.values.values() for repeats in by_seed.values() for value in repeats]
            n = next(iter(self.counts)) if len(self.counts) == 1 else 0
            self._shares = (n, share_scale(singles, n, self.example.unit)) if n else (0, None)
        n, whole = self._shares
        by_seed = self.by_seed(group)
        return dict(zip(by_seed, share_errors(by_seed.values(), n, whole), strict=True)) if whole else {}

    def estimate(self, group: str) -> Estimate:
        """The mean of a group over seeds and its interval, which is not narrower than known errors allow."""
        return estimate(list(self.by_seed(group).values()), errors=list(self.known_errors(group).values()))

    def errors_of(self, group: str) -> list[float]:
        """The standard errors over draws, one for each seed; empty where any is unknown."""
        known = self.errors.get(group, {})
        return [max(known[seed]) for seed in self.values[group]] if known.keys() == self.values[group].keys() else []


@dataclass
class GatheredRows:
    """The rows of one dataset, in the order in which they came."""

    groups: dict[str, RunGroup] = field(default_factory=dict)
    columns: dict[ColumnKey, ColumnValues] = field(default_factory=dict)
    problems: dict[RunProblem, None] = field(default_factory=dict)


def gather(rows: Iterable[Row]) -> dict[str, GatheredRows]:
    """The rows by dataset, in one pass; snapshots of a training and numbers on validation images stay out."""
    datasets: dict[str, GatheredRows] = {}
    for row in rows:
        if row.stage == "snapshot" or (row.metric and row.split == "validation"):
            continue
        gathered = datasets.get(row.dataset)
        if gathered is None:
            gathered = datasets[row.dataset] = GatheredRows()
        group = gathered.groups.get(row.group)
        if group is None:
            group = gathered.groups[row.group] = RunGroup(row.label or row.model, row)
        if row.seed < group.first.seed:
            group.first = row
        if group.seeds.get(row.seed) != "done":  # a seed that was done anywhere is done
            group.seeds[row.seed] = row.status
        if row.metric and row.value is not None and math.isfinite(row.value):
            _collect(gathered.columns, row, row.value)
        elif row.metric or row.status != "done":
            status = "not measured" if row.metric else row.status
            problem = RunProblem(row.run, group.label, row.seed, status, row.error or _no_cause(row), row.metric)
            gathered.problems[problem] = None
    return datasets


def _collect(columns: dict[ColumnKey, ColumnValues], row: Row, value: float) -> None:
    column = columns.get((row.metric, row.protocol))
    if column is None:
        column = columns[row.metric, row.protocol] = ColumnValues(row)
    column.head = column.head or row.head
    if row.n is not None:
        column.counts.add(row.n)
    column.values.setdefault(row.group, {}).setdefault(row.seed, []).append(value)
    if row.trials and row.group not in column.searches:
        column.searches[row.group] = _search(row)
    for caution in filter(None, row.caution.split(CAUTIONS)):
        column.cautions.setdefault(caution, set()).add(row.group)
    if row.fit_seconds is not None:
        column.fit_seconds.append(row.fit_seconds)
    if row.floor is not None and math.isfinite(row.floor):
        column.floors.setdefault(row.group, []).append(row.floor)
    if row.floor_sd is not None and math.isfinite(row.floor_sd):
        column.floor_sds.append(row.floor_sd)
    if row.chance is not None and math.isfinite(row.chance):
        column.chances.setdefault(row.group, []).append(row.chance)
    if row.se is not None and math.isfinite(row.se):
        column.errors.setdefault(row.group, {}).setdefault(row.seed, []).append(row.se)
    if row.p_value is not None and math.isfinite(row.p_value):
        p_values = column.p_values.setdefault(row.group, {})
        p_values[row.seed] = max(row.p_value, p_values.get(row.seed, 0.0))
    if row.minimum_detectable_effect is not None and math.isfinite(row.minimum_detectable_effect):
        column.minimum_detectable_effect = max(row.minimum_detectable_effect, column.minimum_detectable_effect or 0.0)


def _no_cause(row: Row) -> str:
    if row.metric:
        return "no finite value"
    return "no cause was recorded" if row.status == "failed" else ""


def labels(groups: Mapping[str, RunGroup]) -> dict[str, str]:
    """A label for each group; groups of equal labels get their names as well."""
    counts: dict[str, int] = {}
    for group in groups.values():
        counts[group.label] = counts.get(group.label, 0) + 1
    return {name: g.label if counts[g.label] == 1 else f"{g.label} [{name}]" for name, g in groups.items()}


def headline_metrics(collected: Mapping[ColumnKey, ColumnValues]) -> set[str]:
    """One metric for each name before the dot: its excess over the floor where it has one, else its first part."""
    chosen: dict[str, str] = {}
    for (metric, _), measured in collected.items():
        name, _, part = metric.partition(".")
        if measured.example.higher_is_better is not None and (name not in chosen or part == "excess"):
            chosen[name] = metric
    return set(chosen.values())


def resolve_metric(rows: Iterable[Row], name: str, kind: str = "metric") -> str:
    """The full name of a metric that was measured, from any name that a reader of a table has for it.

    In this order, whatever the case, the same case first: its full name ("latent-w2.excess"), its label ("MSE per
    pixel"), its first part ("latent-w2", which means its excess over the floor, else the first part that ranks), or a
    beginning of one label alone. `UsageError` for another name, and for one that fits several metrics; `kind` is what
    the error calls it.
    """
    rows_of = {row.metric: row for row in rows if row.metric and (row.value is not None or row.metric == name)}
    wanted = name.strip().casefold()
    heads = {metric: (row.head or metric).casefold() for metric, row in rows_of.items()}
    parts = [metric for metric in rows_of if metric.casefold().split(".")[0] == wanted]
    ranked = [metric for metric in parts if rows_of[metric].higher_is_better is not None] or parts
    excess = [metric for metric in ranked if metric.endswith(".excess")]
    for matches in (
        [name] if name in rows_of else [],
        [metric for metric in rows_of if metric.casefold() == wanted],
        [metric for metric, head in heads.items() if head == wanted],
        (excess or ranked)[:1],
        [metric for metric, head in heads.items() if wanted and head.startswith(wanted)],
    ):
        if len(matches) > 1:
            listed = ", ".join(f"'{metric}' ({rows_of[metric].head or metric})" for metric in matches)
            raise UsageError(f"'{name}' names {len(matches)} metrics: give one of {listed}")
        if matches:
            return matches[0]
    raise unknown(kind, name, rows_of)


DEPENDENT = {
    "tpe": "trials of a TPE search depend on one another",
    "gp": "trials of a GP search depend on one another",
    "halving": "successive halving stops most trials before their end",
}
"""Why no budget curves are compared, by the algorithm of the searches."""


def tuning_way(trials: int, tuned_by: str) -> tuple[object, ...]:
    """What groups that were tuned alike share, from fields of their rows; empty where nothing was tuned."""
    if not trials:
        return ()
    return (tuned_by,) if EQUAL_COST in tuned_by else (trials, tuned_by)


def _search(row: Row) -> GroupSearch:
    """The search behind a number of a tuned group."""
    record, way = row.searched, tuning_way(row.trials, row.tuned_by)
    if row.metric != row.tuned_metric:
        return GroupSearch(row.search, way, problem=f"the searches are by {row.tuned_metric}")
    if record is None:
        return GroupSearch(row.search, way, problem="no tuning.json has the trials of the searches")
    if record.algorithm != "random":
        why = DEPENDENT.get(record.algorithm, f"trials of a {record.algorithm} search may depend on one another")
        return GroupSearch(row.search, way, problem=why)
    trials = tuple(math.nan if trial.value is None else trial.value for trial in record.trials[1:])
    problem = ""
    if not row.like_trials:
        problem = f"the searches measured {row.metric} by other options"
    elif EQUAL_COST in row.tuned_by:
        problem = f"the searches have their {record.by} alike, and not their trials"
    elif len(trials) < budget_curves.FEWEST:
        problem = f"fewer than {budget_curves.FEWEST} random trials"
    elif not any(map(math.isfinite, trials)):
        problem = "every random trial failed"
    return GroupSearch(row.search, way, trials, record.protocol, problem)
