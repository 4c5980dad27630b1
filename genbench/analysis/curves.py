"""Metric against compute: the values of trainings at their snapshots, and groups at equal budgets. Pure.

A *budget* is a count of images shown, seconds of training or floating point operations. Values between two snapshots
of a run are interpolated linearly in the logarithm of the compute; beyond its first and last there are none. Loss terms
over training images come from the logs.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from genbench.analysis.gather import resolve_metric
from genbench.analysis.table import assemble
from genbench.errors import UsageError
from genbench.stats.best import Mark, column_marks
from genbench.stats.intervals import Estimate, estimate, share_errors, share_scale
from genbench.storage.results import Row, group_key, rows
from genbench.storage.run_dir import LogPoint, RunRecord, read_log

By = Literal["images", "seconds", "flops"]
"""The unit of compute."""

DEFAULT_BUDGETS = 5
"""Budgets compared where none is named."""

Trajectory = tuple[tuple[float, float], ...]
"""One run: (compute, value) in the order of compute."""


@dataclass
class Curve:
    """One group: by seed and count of images, the row of the snapshot."""

    group: str
    label: str
    snapshots: dict[int, dict[int, Row]] = field(default_factory=dict)

    def trajectories(self, by: By) -> dict[int, Trajectory]:
        """Each seed's (compute, value), where the compute is known."""
        trajectories = {}
        for seed, at_images in self.snapshots.items():
            points = sorted(
                (cost, row.value) for row in at_images.values() if (cost := compute(row, by)) and row.value is not None
            )
            if points:
                trajectories[seed] = tuple(points)
        return trajectories


@dataclass(frozen=True)
class CurveSet:
    """Curves that may be compared: of one dataset by one metric under one protocol, on one split.

    `share` is (n, the value of a whole) where all values are shares of n draws, whose errors are known.
    """

    dataset: str
    metric: str
    head: str
    protocol: str
    split: str
    higher_is_better: bool | None
    curves: tuple[Curve, ...]
    share: tuple[int, float] | None = None

    def errors(self, values: Collection[float]) -> list[float]:
        """The known standard errors of a group's values; empty where they are unknown."""
        return share_errors(values, *self.share) if self.share else []

    @property
    def lower(self) -> bool:
        """Whether lower values are better."""
        return not self.higher_is_better


@dataclass(frozen=True)
class BudgetResult:
    """A group at a budget: its mean over seeds, and its mark among the groups that have this budget."""

    group: str
    label: str
    budget: float
    estimate: Estimate
    mark: Mark


@dataclass(frozen=True)
class CurvePoint:
    """A group at one of its snapshots: mean compute and mean value over seeds."""

    group: str
    label: str
    images: int
    seconds: float | None
    flops: float | None
    estimate: Estimate

    def compute(self, by: By) -> float | None:
        """The mean cost of the snapshot."""
        return {"images": float(self.images), "seconds": self.seconds, "flops": self.flops}[by]


def compute(row: Row, by: By) -> float | None:
    """The cost of the weights behind a row."""
    return {"images": float(row.images), "seconds": row.seconds, "flops": row.flops}[by]


def requested_metric(rows: Sequence[Row], metric: str | None) -> str:
    """The full name of a metric; where none is named, of the metric that ranks the table of these rows."""
    if metric is not None:
        return resolve_metric(rows, metric)
    ranking = [table.columns[0].metric for table in assemble(rows) if table.columns]
    if not ranking:
        raise UsageError("nothing was measured of these runs: genbench evaluate RUNS --metrics METRIC")
    return ranking[0]


def curve_sets(rows: Sequence[Row], metric: str) -> tuple[CurveSet, ...]:
    """The curves of a metric, by its full name: those of snapshots on the validation split first.

    Where a dataset has groups without snapshots, a second set holds the ends of all runs on the test split: one point
    each.
    """
    known = [row for row in rows if row.metric == metric and row.value is not None and row.role == "model"]
    with_snapshots = {(row.dataset, row.group) for row in known if row.stage == "snapshot"}
    bare = {row.dataset for row in known if row.stage == "final" and (row.dataset, row.group) not in with_snapshots}
    sets: dict[tuple[str, str, str], CurveSet] = {}
    curves: dict[tuple[str, str, str], dict[str, Curve]] = {}
    for stage in ("snapshot", "final"):
        for row in known:
            if row.stage != stage or (stage == "final" and row.dataset not in bare):
                continue
            key = (row.dataset, row.split, row.protocol)
            sets.setdefault(
                key, CurveSet(row.dataset, metric, row.head, row.protocol, row.split, row.higher_is_better, ())
            )
            curve = curves.setdefault(key, {}).setdefault(row.group, Curve(row.group, row.label))
            curve.snapshots.setdefault(row.seed, {})[row.images] = row
    return tuple(
        replace(curve_set, curves=tuple(curves[key].values()), share=_share(curves[key].values()))
        for key, curve_set in sets.items()
    )


def _share(curves: Iterable[Curve]) -> tuple[int, float] | None:
    rows = [row for curve in curves for by_images in curve.snapshots.values() for row in by_images.values()]
    counts = {row.n for row in rows}
    n = counts.pop() if len(counts) == 1 else None
    whole = share_scale([row.value for row in rows if row.value is not None], n, rows[0].unit) if n else None
    return (n, whole) if n and whole else None


def curve_points(curve_set: CurveSet) -> tuple[CurvePoint, ...]:
    """The groups at their snapshots, means over seeds.

    A snapshot that not every seed of its group has is left out: means over other seeds are other numbers.
    """
    return tuple(
        _point(curve_set, curve, images)
        for curve in curve_set.curves
        for images in sorted(set.intersection(*(set(rows) for rows in curve.snapshots.values())))
    )


def _point(curve_set: CurveSet, curve: Curve, images: int) -> CurvePoint:
    rows = [snapshots[images] for snapshots in curve.snapshots.values()]
    seconds, flops = _mean([row.seconds for row in rows]), _mean([row.flops for row in rows])
    values = [row.value for row in rows if row.value is not None]
    value = estimate(values, errors=curve_set.errors(values))
    return CurvePoint(curve.group, curve.label, images, seconds, flops, value)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


# ---------------------------------------------------------------- equal budgets


def interpolated(trajectory: Trajectory, budget: float) -> float | None:
    """A run's value at a budget: exact at its snapshots, linear in log(compute) between two, None beyond them."""
    at = bisect_left(trajectory, budget, key=lambda point: point[0])
    if at < len(trajectory) and trajectory[at][0] == budget:
        return trajectory[at][1]
    if at in {0, len(trajectory)}:
        return None
    (x0, y0), (x1, y1) = trajectory[at - 1], trajectory[at]
    share = math.log(budget / x0) / math.log(x1 / x0)
    return y0 + share * (y1 - y0)


def budgets(curves: Sequence[Curve], by: By) -> tuple[float, ...]:
    """Budgets at which to compare: where all runs have snapshots (images), else evenly spaced in the logarithm."""
    trajectories = [trajectory for curve in curves for trajectory in curve.trajectories(by).values()]
    if not trajectories:
        raise UsageError(f"--by {by}: it is not recorded of these runs; possible: images, seconds")
    low, high = max(points[0][0] for points in trajectories), min(points[-1][0] for points in trajectories)
    if low > high:
        return ()
    if by == "images":
        counts = [{cost for cost, _ in points} for points in trajectories]
        common = sorted(cost for cost in set.intersection(*counts) if low <= cost <= high)
        if common:
            count = min(len(common), DEFAULT_BUDGETS)
            return tuple(common[-1 - i] for i in _evenly(len(common), count))
    if low == high:
        return (high,)
    inner = (low * (high / low) ** (i / (DEFAULT_BUDGETS - 1)) for i in range(1, DEFAULT_BUDGETS - 1))
    return (low, *inner, high)


def _evenly(total: int, count: int) -> list[int]:
    """`count` evenly spaced indices of 0..total-1, both ends among them, in falling order."""
    return sorted({round(i * (total - 1) / max(1, count - 1)) for i in range(count)}, reverse=True)


def compare_at(curve_set: CurveSet, by: By, budget: float) -> tuple[BudgetResult, ...]:
    """The groups at a budget, only those of which every seed has it; marked as in a table."""
    values: dict[str, dict[int, float]] = {}
    for curve in curve_set.curves:
        at_budget = {seed: interpolated(points, budget) for seed, points in curve.trajectories(by).items()}
        reached = {seed: value for seed, value in at_budget.items() if value is not None}
        if reached and len(reached) == len(at_budget):
            values[curve.group] = reached
    errors = {
        group: dict(zip(by_seed, curve_set.errors(by_seed.values()), strict=True)) if curve_set.share else {}
        for group, by_seed in values.items()
    }
    marks = column_marks(values, lower=curve_set.lower, errors=errors)
    labels = {curve.group: curve.label for curve in curve_set.curves}
    return tuple(
        BudgetResult(
            group,
            labels[group],
            budget,
            estimate(list(by_seed.values()), errors=list(errors[group].values())),
            marks.get(group, ""),
        )
        for group, by_seed in values.items()
    )


def at_budgets(
    rows: Sequence[Row], metric: str, by: By, requested: Sequence[float] = ()
) -> list[tuple[CurveSet, tuple[float, ...]]]:
    """The curves of a metric, each set with the budgets at which its groups are compared.

    Raises `UsageError` for a metric that was not measured or ranks nothing, and for a budget that no group has.
    """
    ranking = [
        curve_set
        for curve_set in curve_sets(rows, resolve_metric(rows, metric))
        if curve_set.higher_is_better is not None
    ]
    if not ranking:
        raise UsageError(f"--metric {metric}: it has no better direction, so it makes no curve to compare")
    chosen = [(curve_set, tuple(requested) or budgets(curve_set.curves, by)) for curve_set in ranking]
    for budget in requested:
        if not any(compare_at(curve_set, by, budget) for curve_set in ranking):
            trajectories = [
                points for cs in ranking for curve in cs.curves for points in curve.trajectories(by).values()
            ]
            costs = [cost for points in trajectories for cost, _ in points]
            span = f"{min(costs):,.6g} to {max(costs):,.6g} {by}" if costs else "none"
            raise UsageError(f"--at {budget:g}: no group has it; measured are {span}")
    return chosen


# ---------------------------------------------------------------- loss terms, from logs

POINTS = 100
"""Counts of images at which the logs of several seeds are compared, which were written at other steps each."""


@dataclass(frozen=True)
class LossCurve:
    """One loss or loss term of one group: its mean over seeds after so many training images."""

    dataset: str
    term: str
    group: str
    label: str
    model: str
    seeds: int
    points: tuple[tuple[float, Estimate], ...]


def loss_curves(records: Sequence[RunRecord]) -> list[LossCurve]:
    """The curves of the models among some runs, by dataset and by term in the order of the logs.

    Raises `UsageError` where no run has a log point.
    """
    named = {row.group: row for row in rows(records)}
    logs: dict[str, list[tuple[RunRecord, list[LogPoint]]]] = {}
    for record in records:
        if record.run.role == "model" and (points := read_log(record.path)):
            logs.setdefault(group_key(record.run), []).append((record, points))
    if not logs:
        raise UsageError("losses: none of these runs has a log (log.jsonl), which a training writes")
    curves = []
    for group, members in logs.items():
        run, row = members[0][0].run, named.get(group)  # none where nothing is measured yet
        dataset, label = (run.dataset.name, run.model.name) if row is None else (row.dataset, row.label)
        terms = dict.fromkeys(term for _, points in members for point in points for term in point.terms)
        for term in terms:
            series = [[(p.images, p.terms[term]) for p in points if term in p.terms] for _, points in members]
            curve = _mean_loss([entries for entries in series if entries])
            curves.append(LossCurve(dataset, term, group, label, run.model.name, len(members), curve))
    order = list(dict.fromkeys((curve.dataset, curve.term) for curve in curves))
    return sorted(curves, key=lambda curve: order.index((curve.dataset, curve.term)))


def _mean_loss(series: Sequence[Sequence[tuple[int, float]]]) -> tuple[tuple[float, Estimate], ...]:
    """The points of one seed as they are; of several the mean, interpolated where all have been."""
    if len(series) == 1:
        return tuple((float(images), estimate([value])) for images, value in series[0])
    xs = _grid(series)
    values = np.stack([np.interp(xs, *np.asarray(entries, dtype=float).T) for entries in series])
    return tuple((float(x), estimate([float(v) for v in column])) for x, column in zip(xs, values.T, strict=True))


def _grid(series: Iterable[Sequence[tuple[int, float]]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    spans = [(entries[0][0], entries[-1][0]) for entries in series]
    low, high = max(first for first, _ in spans), min(last for _, last in spans)
    return np.linspace(low, max(low, high), POINTS if high > low else 1)
