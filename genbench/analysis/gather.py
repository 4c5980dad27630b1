"""Tidy rows sorted into what a table is made of: groups, and values by (metric, protocol), for each dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from genbench.storage.results import Row

Key = tuple[str, str]
"""A column: metric and protocol."""


@dataclass(frozen=True)
class Problem:
    """A run that failed or is unfinished, or (with `metric`) a number that could not be measured."""

    run: str
    label: str
    seed: int
    status: str
    cause: str
    metric: str = ""


@dataclass
class Group:
    """Runs that differ by seed alone: their label, the row of the lowest seed, and each seed's status."""

    label: str
    first: Row
    seeds: dict[int, str] = field(default_factory=dict)


@dataclass
class Values:
    """What one (metric, protocol) pair collects: values by group and seed (a list: repeats), floors by group.

    `errors` are standard errors over draws and `p_values` those of a perfect fit (of repeats the largest), by group and
    seed; `minimum_detectable_effect` is the largest of the smallest values that a run's n can find.
    """

    example: Row
    head: str = ""
    counts: set[int] = field(default_factory=set)
    values: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    floors: dict[str, list[float]] = field(default_factory=dict)
    floor_sds: list[float] = field(default_factory=list)
    errors: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    p_values: dict[str, dict[int, float]] = field(default_factory=dict)
    minimum_detectable_effect: float | None = None
    _by_seed: dict[str, dict[int, float]] = field(default_factory=dict, repr=False, compare=False)

    def by_seed(self, group: str) -> dict[int, float]:
        """A group's value for each seed; repeats of a seed are averaged, never counted twice. Asked once all is in."""
        if group not in self._by_seed:
            self._by_seed[group] = {
                seed: repeats[0] if len(repeats) == 1 else math.fsum(repeats) / len(repeats)
                for seed, repeats in self.values[group].items()
            }
        return self._by_seed[group]

    def errors_of(self, group: str) -> list[float]:
        """The standard errors over draws, one for each seed; empty where any is unknown."""
        known = self.errors.get(group, {})
        return [max(known[seed]) for seed in self.values[group]] if known.keys() == self.values[group].keys() else []


@dataclass
class Gathered:
    """The rows of one dataset, in the order in which they came."""

    groups: dict[str, Group] = field(default_factory=dict)
    columns: dict[Key, Values] = field(default_factory=dict)
    problems: dict[Problem, None] = field(default_factory=dict)


def gather(rows: Iterable[Row]) -> dict[str, Gathered]:
    """The rows by dataset, in one pass; snapshots of a training and numbers on validation images stay out."""
    datasets: dict[str, Gathered] = {}
    for row in rows:
        if row.stage == "snapshot" or (row.metric and row.split == "validation"):
            continue
        gathered = datasets.get(row.dataset)
        if gathered is None:
            gathered = datasets[row.dataset] = Gathered()
        group = gathered.groups.get(row.group)
        if group is None:
            group = gathered.groups[row.group] = Group(row.label or row.model, row)
        if row.seed < group.first.seed:
            group.first = row
        if group.seeds.get(row.seed) != "done":  # a seed that was done anywhere is done
            group.seeds[row.seed] = row.status
        if row.metric and row.value is not None and math.isfinite(row.value):
            _collect(gathered.columns, row, row.value)
        elif row.metric or row.status != "done":
            status = "not measured" if row.metric else row.status
            problem = Problem(row.run, group.label, row.seed, status, row.error or _no_cause(row), row.metric)
            gathered.problems[problem] = None
    return datasets


def _collect(columns: dict[Key, Values], row: Row, value: float) -> None:
    column = columns.get((row.metric, row.protocol))
    if column is None:
        column = columns[row.metric, row.protocol] = Values(row)
    column.head = column.head or row.head
    if row.n is not None:
        column.counts.add(row.n)
    column.values.setdefault(row.group, {}).setdefault(row.seed, []).append(value)
    if row.floor is not None and math.isfinite(row.floor):
        column.floors.setdefault(row.group, []).append(row.floor)
    if row.floor_sd is not None and math.isfinite(row.floor_sd):
        column.floor_sds.append(row.floor_sd)
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
