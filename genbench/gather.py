"""Tidy rows sorted into what a table is made of: groups, and values by (metric, protocol), for each dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from genbench.rows import Row

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
    """What one (metric, protocol) pair collects: values by group and seed (a list: repeats), floors by group."""

    example: Row
    head: str = ""
    counts: set[int] = field(default_factory=set)
    values: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    floors: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Gathered:
    """The rows of one dataset, in the order in which they came."""

    groups: dict[str, Group] = field(default_factory=dict)
    columns: dict[Key, Values] = field(default_factory=dict)
    problems: dict[Problem, None] = field(default_factory=dict)


def gather(rows: Iterable[Row]) -> dict[str, Gathered]:
    """The rows by dataset, in one pass."""
    datasets: dict[str, Gathered] = {}
    for row in rows:
        if row.stage == "snapshot":  # what was measured on the way, on validation images, is no result
            continue
        gathered = datasets.setdefault(row.dataset, Gathered())
        group = gathered.groups.setdefault(row.group, Group(row.label or row.model, row))
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
    column = columns.setdefault((row.metric, row.protocol), Values(row))
    column.head = column.head or row.head
    if row.n is not None:
        column.counts.add(row.n)
    column.values.setdefault(row.group, {}).setdefault(row.seed, []).append(value)
    if row.floor is not None and math.isfinite(row.floor):
        column.floors.setdefault(row.group, []).append(row.floor)


def _no_cause(row: Row) -> str:
    if row.metric:
        return "no finite value"
    return "no cause was recorded" if row.status == "failed" else ""
