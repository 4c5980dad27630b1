"""Tidy rows assembled into tables: one per dataset, groups down, (metric, protocol) pairs across. Data only, no text.

Numbers of different protocols never share a column, and models of different datasets never share a table, so nothing
is ranked that was not measured alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from genbench.analysis.gather import Gathered, Group, Key, Problem, Values, gather
from genbench.errors import unknown
from genbench.stats.comparison import set_of_best
from genbench.stats.intervals import Estimate, Spread, combined_p, estimate, paired_difference, spread
from genbench.storage.results import Row

DEFAULT_SORT = "sample quality"
"""The role of the metric that ranks where none is asked for: the first one with it."""

Section = Literal["headline", "detail", "fact"]
"""Prominence of a column: what ranks models first, its other parts, and what has no better direction."""

Mark = Literal["", "best", "lead", "undecided"]
"""A cell's mark: in the set of bests; the best value where no test was possible; no test with any other group."""


Standing = Literal["model", "copy", "control"]
"""What a line is: only a model is ranked and can be a best; a copy is a model that shows its training images."""

STANDINGS: tuple[Standing, ...] = ("model", "copy", "control")
MEMORIZATION = "memorization"
"""The role of a metric whose value is the share of samples that are copies of training images."""

COPIES_ALLOWED = 0.05
"""The share above which a model is a copy: a perfect model's samples come that near by chance far less often."""


@dataclass(frozen=True)
class Column:
    """One metric under one protocol. `floor` is set where it is the same for all groups, `shared` where the metric was
    measured under other protocols too, `spread` is
    pooled over the models, `minimum_detectable_effect` the smallest true value that every run's n finds.
    """

    metric: str
    protocol: str
    head: str
    higher_is_better: bool | None
    unit: str
    counts: tuple[int, ...]
    section: Section
    shared: bool
    floor: float | None = None
    floor_sd: float | None = None
    minimum_detectable_effect: float | None = None
    spread: Spread | None = None
    role: str = ""


@dataclass(frozen=True)
class Cell:
    """A group's number in a column; `behind` is its paired difference from the best mean of the column.

    `p` is that of "every seed's run is perfect"; `se` the standard error over draws where there is one seed alone;
    `spread` what of the group's spread over seeds is the draws'.
    """

    estimate: Estimate
    mark: Mark = ""
    floor: float | None = None
    behind: Estimate | None = None
    p: float | None = None
    se: float | None = None
    spread: Spread | None = None


@dataclass(frozen=True)
class Line:
    """One group: its cells in the order of the columns (None: not measured), its seeds and their state."""

    group: str
    label: str
    cells: tuple[Cell | None, ...]
    seeds: tuple[int, ...]
    done: tuple[int, ...]
    first_run: str
    images: int
    network: str
    failed: bool
    seconds: float | None = None
    flops: float | None = None
    stage: str = "final"
    role: Standing = "model"

    @property
    def state(self) -> str:
        """ "failed" or "unfinished" where no seed is done, else ""."""
        if self.done:
            return ""
        return "failed" if self.failed else "unfinished"


@dataclass(frozen=True)
class Table:
    """The results on one dataset; lines are ranked by the first column."""

    dataset: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    problems: tuple[Problem, ...]


def assemble(rows: Sequence[Row], sort: str | None = None) -> tuple[Table, ...]:
    """A table for each dataset, in the order in which the rows name them; ranked by the metric `sort`.

    Without `sort` that is the first metric of the role `DEFAULT_SORT`, else the first that has a better direction.
    """
    measured = {row.metric for row in rows if row.metric}
    if sort is not None and sort not in measured:
        raise unknown("metric", sort, measured)
    return tuple(_table(dataset, gathered, sort) for dataset, gathered in gather(rows).items())


def _table(dataset: str, gathered: Gathered, sort: str | None) -> Table:
    roles = _roles(gathered)
    columns = _columns(gathered.columns, sort, roles)
    cells = {column: _cells(column, gathered.columns[column.metric, column.protocol], roles) for column in columns}
    names = labels(gathered.groups)
    lines = [
        Line(
            group=name,
            label=names[name],
            cells=tuple(cells[column].get(name) for column in columns),
            seeds=tuple(sorted(group.seeds)),
            done=tuple(sorted(seed for seed, status in group.seeds.items() if status == "done")),
            first_run=group.first.run,
            images=group.first.images,
            network=group.first.network,
            failed="failed" in group.seeds.values(),
            seconds=group.first.seconds,
            flops=group.first.flops,
            stage=group.first.stage,
            role=roles[name],
        )
        for name, group in gathered.groups.items()
    ]
    return Table(dataset, columns, _ranked(lines, columns), tuple(gathered.problems))


def _roles(gathered: Gathered) -> dict[str, Standing]:
    """What each group is; a control is one even where it copies."""
    copies = {
        group
        for found in gathered.columns.values()
        for group in found.values
        if found.example.metric_role == MEMORIZATION and _mean(list(found.by_seed(group).values())) > COPIES_ALLOWED
    }
    return {
        name: "control" if group.first.role == "control" else "copy" if name in copies else "model"
        for name, group in gathered.groups.items()
    }


def labels(groups: Mapping[str, Group]) -> dict[str, str]:
    """A label for each group; groups whose labels are equal are told apart by their own names."""
    seen: dict[str, int] = {}
    for group in groups.values():
        seen[group.label] = seen.get(group.label, 0) + 1
    return {name: g.label if seen[g.label] == 1 else f"{g.label} [{name}]" for name, g in groups.items()}


def _columns(collected: Mapping[Key, Values], sort: str | None, roles: Mapping[str, Standing]) -> tuple[Column, ...]:
    """The columns: the ranking one first, then headlines, their other parts, and facts that rank nothing."""
    protocols: dict[str, int] = {}
    for metric, _ in collected:
        protocols[metric] = protocols.get(metric, 0) + 1
    headline = _headlines(collected)
    ranking = _ranking(collected, sort)
    order: dict[Section, int] = {"headline": 0, "detail": 1, "fact": 2}
    columns = []
    for key, found in collected.items():
        ranks = found.example.higher_is_better is not None
        section: Section = "fact" if not ranks else "headline" if key[0] in headline else "detail"
        floor = _one_floor(found.floors) if len(found.floors) == len(found.values) else None
        columns.append(
            Column(
                metric=key[0],
                protocol=key[1],
                head=found.head or key[0],
                role=found.example.metric_role,
                higher_is_better=found.example.higher_is_better,
                unit=found.example.unit,
                counts=tuple(sorted(found.counts)),
                section="headline" if key[0] == ranking else section,
                shared=protocols[key[0]] > 1,
                floor=floor,
                floor_sd=_mean(found.floor_sds) if floor is not None and found.floor_sds else None,
                minimum_detectable_effect=found.minimum_detectable_effect,
                spread=spread([_spread_of(found, name) for name in found.values if roles[name] == "model"]),
            )
        )
    first_seen = {metric: place for place, metric in enumerate(dict.fromkeys(metric for metric, _ in collected))}

    def place(column: Column) -> tuple[bool, int, int, int]:
        groups = len(collected[column.metric, column.protocol].values)
        return column.metric != ranking, order[column.section], first_seen[column.metric], -groups

    return tuple(sorted(columns, key=place))


def _ranking(collected: Mapping[Key, Values], sort: str | None) -> str:
    """The metric that ranks the lines, "" where there is none."""
    metrics = {metric: found.example.higher_is_better for (metric, _), found in collected.items()}
    if sort in metrics:
        return sort or ""
    headlines = _headlines(collected)
    for (metric, _), found in collected.items():
        if found.example.metric_role == DEFAULT_SORT and metric in headlines:
            return metric
    return next((metric for metric, better in metrics.items() if better is not None and metric in headlines), "")


def _headlines(collected: Mapping[Key, Values]) -> set[str]:
    """One metric for each name before the dot: its excess over the floor where it has one, else its first part."""
    chosen: dict[str, str] = {}
    for (metric, _), found in collected.items():
        name, _, part = metric.partition(".")
        if found.example.higher_is_better is not None and (name not in chosen or part == "excess"):
            chosen[name] = metric
    return set(chosen.values())


def _one_floor(floors: Mapping[str, Sequence[float]]) -> float | None:
    """The floor where all groups have the same to a thousandth, else None."""
    means = [_mean(values) for values in floors.values()]
    if not means or max(means) - min(means) > 1e-3 * max(abs(mean) for mean in means):
        return None
    return _mean(means)


def _spread_of(found: Values, name: str) -> tuple[list[float], list[float]]:
    """A group's values over seeds and their standard errors over draws."""
    return list(found.by_seed(name).values()), found.errors_of(name)


def _cells(column: Column, found: Values, roles: Mapping[str, Standing]) -> dict[str, Cell]:
    """The groups' cells in one column; only models are marked, and only they are compared."""
    by_seed = {name: found.by_seed(name) for name in found.values}
    estimates = {name: estimate(list(values.values())) for name, values in by_seed.items()}
    models = {name: values for name, values in by_seed.items() if roles[name] == "model"}
    marks: Mapping[str, Mark] = {}
    best = None
    if column.higher_is_better is not None and len(models) > 1:
        lower = column.higher_is_better is False
        best = (min if lower else max)(models, key=lambda name: estimates[name].mean)
        marks = _marks(models, best, lower=lower)
    cells = {}
    for name, values in by_seed.items():
        floors, errors, p_values = found.floors.get(name), found.errors_of(name), found.p_values.get(name, {})
        cells[name] = Cell(
            estimates[name],
            marks.get(name, ""),
            floor=_mean(floors) if floors and column.floor is None else None,
            behind=None if best is None or name == best else paired_difference(values, by_seed[best]),
            p=combined_p(list(p_values.values())) if p_values.keys() == values.keys() else None,
            se=errors[0] if len(values) == 1 and errors else None,
            spread=spread([_spread_of(found, name)]),
        )
    return cells


def _marks(by_seed: Mapping[str, Mapping[int, float]], best: str, *, lower: bool) -> dict[str, Mark]:
    standings = set_of_best(list(by_seed.values()), lower=lower)
    if all(standing.verdict == "undecided" for standing in standings):
        level = [name for name, values in by_seed.items() if list(values.values()) == list(by_seed[best].values())]
        return {} if len(level) == len(by_seed) else dict.fromkeys(level, "lead")
    marks: dict[str, Mark] = {"best": "best", "worse": "", "undecided": "undecided"}
    return {name: marks[standing.verdict] for name, standing in zip(by_seed, standings, strict=True)}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _ranked(lines: Iterable[Line], columns: Sequence[Column]) -> tuple[Line, ...]:
    """Models best first; then those without the ranking number, by label; then those of which no seed is done. Copies
    and controls stand below all models.
    """
    sign = -1.0 if columns and columns[0].higher_is_better is True else 1.0

    def place(line: Line) -> tuple[int, bool, str, bool, float, str]:
        cell = line.cells[0] if line.cells else None
        value = sign * cell.estimate.mean if cell else 0.0
        return STANDINGS.index(line.role), not line.done, line.state, cell is None, value, line.label

    return tuple(sorted(lines, key=place))
