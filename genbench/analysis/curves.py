"""Metric against compute: curves over the snapshots of runs, groups at equal budgets, and the Pareto set. Pure.

A *budget* is a count of images shown, seconds of training or floating point operations. Values between two snapshots
of a run are interpolated linearly in the logarithm of the compute; beyond its first and last there are none.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from genbench.analysis.table import Mark
from genbench.errors import UsageError, unknown
from genbench.stats.comparison import set_of_best
from genbench.stats.intervals import Estimate, estimate
from genbench.storage.results import Row

By = Literal["images", "seconds", "flops"]
"""What compute is counted in."""

SPACED = 5
"""Budgets compared where none is named."""

Track = tuple[tuple[float, float], ...]
"""One run: (compute, value) in the order of compute."""


@dataclass
class Curve:
    """One group: by seed and count of images, the row of the moment."""

    group: str
    label: str
    moments: dict[int, dict[int, Row]] = field(default_factory=dict)

    def tracks(self, by: By) -> dict[int, Track]:
        """Each seed's (compute, value), where the compute is known."""
        found = {}
        for seed, rows in self.moments.items():
            points = sorted(
                (cost, row.value) for row in rows.values() if (cost := compute(row, by)) and row.value is not None
            )
            if points:
                found[seed] = tuple(points)
        return found


@dataclass(frozen=True)
class Sheet:
    """What may be compared: the curves of one dataset by one metric under one protocol, on one split."""

    dataset: str
    metric: str
    head: str
    protocol: str
    split: str
    higher_is_better: bool | None
    curves: tuple[Curve, ...]

    @property
    def lower(self) -> bool:
        """Whether lower values are better."""
        return self.higher_is_better is not True


@dataclass(frozen=True)
class Place:
    """A group at a budget: its mean over seeds, and its mark among the groups that have this budget."""

    group: str
    label: str
    budget: float
    estimate: Estimate
    mark: Mark


@dataclass(frozen=True)
class Point:
    """A group at one of its snapshots: mean compute and mean value over seeds; `pareto`: in the Pareto set."""

    group: str
    label: str
    images: int
    seconds: float | None
    flops: float | None
    compute: float | None
    estimate: Estimate
    pareto: bool = False


def compute(row: Row, by: By) -> float | None:
    """What the weights behind a row cost."""
    return {"images": float(row.images), "seconds": row.seconds, "flops": row.flops}[by]


def resolve(rows: Iterable[Row], name: str) -> str:
    """The full name of the metric that `name` means: itself, or the part of it that ranks ("latent-w2.excess")."""
    better = {row.metric: row.higher_is_better for row in rows if row.metric and row.value is not None}
    if name in better:
        return name
    parts = [metric for metric, its in better.items() if metric.split(".")[0] == name and its is not None]
    if not parts:
        raise unknown("measured metric", name, better)
    return next((part for part in parts if part.endswith(".excess")), parts[0])


def sheets(rows: Sequence[Row], metric: str) -> tuple[Sheet, ...]:
    """The curves of a metric, by its full name: those of snapshots on the validation split first.

    Where a dataset has groups without snapshots, a second sheet holds the ends of all runs on the test split: one point
    each.
    """
    known = [row for row in rows if row.metric == metric and row.value is not None and row.role == "model"]
    with_snapshots = {(row.dataset, row.group) for row in known if row.stage == "snapshot"}
    bare = {row.dataset for row in known if row.stage == "final" and (row.dataset, row.group) not in with_snapshots}
    found: dict[tuple[str, str, str], Sheet] = {}
    curves: dict[tuple[str, str, str], dict[str, Curve]] = {}
    for stage in ("snapshot", "final"):
        for row in known:
            if row.stage != stage or (stage == "final" and row.dataset not in bare):
                continue
            key = (row.dataset, row.split, row.protocol)
            found.setdefault(
                key, Sheet(row.dataset, metric, row.head, row.protocol, row.split, row.higher_is_better, ())
            )
            own = curves.setdefault(key, {}).setdefault(row.group, Curve(row.group, row.label))
            own.moments.setdefault(row.seed, {})[row.images] = row
    return tuple(
        Sheet(s.dataset, s.metric, s.head, s.protocol, s.split, s.higher_is_better, tuple(curves[key].values()))
        for key, s in found.items()
    )


# ---------------------------------------------------------------- equal budgets


def interpolated(track: Track, budget: float) -> float | None:
    """A run's value at a budget: exact at its snapshots, linear in log(compute) between two, None beyond them."""
    at = bisect_left(track, budget, key=lambda point: point[0])
    if at < len(track) and track[at][0] == budget:
        return track[at][1]
    if at in {0, len(track)}:
        return None
    (x0, y0), (x1, y1) = track[at - 1], track[at]
    share = math.log(budget / x0) / math.log(x1 / x0)
    return y0 + share * (y1 - y0)


def shared_range(curves: Iterable[Curve], by: By) -> tuple[float, float] | None:
    """The least and the largest budget that every run has; None where there is none."""
    tracks = [track for curve in curves for track in curve.tracks(by).values()]
    if not tracks:
        raise UsageError(f"--by {by}: it is not recorded of these runs; possible: images, seconds")
    low, high = max(track[0][0] for track in tracks), min(track[-1][0] for track in tracks)
    return (low, high) if low <= high else None


def budgets(curves: Sequence[Curve], by: By) -> tuple[float, ...]:
    """Budgets at which to compare: where all runs have snapshots (images), else evenly spaced in the logarithm."""
    span = shared_range(curves, by)
    if span is None:
        return ()
    low, high = span
    if by == "images":
        counts = [{point[0] for point in track} for curve in curves for track in curve.tracks(by).values()]
        common = sorted(x for x in set.intersection(*counts) if low <= x <= high)
        if common:
            return tuple(common[-1 - i] for i in _thinned(len(common)))
    if low == high:
        return (high,)
    inner = (low * (high / low) ** (i / (SPACED - 1)) for i in range(1, SPACED - 1))
    return (low, *inner, high)


def _thinned(count: int) -> list[int]:
    """At most SPACED of the places 0..count-1 from the end, the last one among them, evenly; in falling order."""
    kept = min(count, SPACED)
    return sorted({round(i * (count - 1) / max(1, kept - 1)) for i in range(kept)}, reverse=True)


def compared(sheet: Sheet, by: By, budget: float) -> tuple[Place, ...]:
    """The groups at a budget, those alone of which every seed has it; marked as in a table."""
    values: dict[str, dict[int, float]] = {}
    for curve in sheet.curves:
        own = {seed: interpolated(track, budget) for seed, track in curve.tracks(by).items()}
        reached = {seed: value for seed, value in own.items() if value is not None}
        if reached and len(reached) == len(own):
            values[curve.group] = reached
    marks = _marks(values, lower=sheet.lower)
    labels = {curve.group: curve.label for curve in sheet.curves}
    return tuple(
        Place(group, labels[group], budget, estimate(list(own.values())), marks[group]) for group, own in values.items()
    )


def _marks(values: Mapping[str, Mapping[int, float]], *, lower: bool) -> dict[str, Mark]:
    """ "best" for the set that is not distinguishable from the best, "lead" where no test is possible."""
    marks: dict[str, Mark] = dict.fromkeys(values, "")
    if len(values) < 2:
        return marks
    standings = dict(zip(values, set_of_best(list(values.values()), lower=lower), strict=True))
    if all(standing.verdict == "undecided" for standing in standings.values()):
        means = {group: math.fsum(own.values()) / len(own) for group, own in values.items()}
        return marks | {(min if lower else max)(means, key=lambda group: means[group]): "lead"}
    told: dict[str, Mark] = {"best": "best", "worse": "", "undecided": "undecided"}
    return {group: told[standing.verdict] for group, standing in standings.items()}


# ---------------------------------------------------------------- the Pareto set


def points(sheet: Sheet, by: By) -> tuple[Point, ...]:
    """The groups at their snapshots, means over seeds, with those marked that make the Pareto set.

    A moment that not every seed of its group has is left out: means over other seeds are other numbers.
    """
    found = [_point(curve, images, by) for curve in sheet.curves for images in _common(curve)]
    known = [point for point in found if point.compute is not None]
    best = pareto([(p.compute or 0.0, p.estimate.mean) for p in known], lower=sheet.lower)
    chosen = {id(known[i]) for i in best}
    return tuple(
        Point(p.group, p.label, p.images, p.seconds, p.flops, p.compute, p.estimate, id(p) in chosen) for p in found
    )


def _common(curve: Curve) -> list[int]:
    return sorted(set.intersection(*(set(rows) for rows in curve.moments.values())))


def _point(curve: Curve, images: int, by: By) -> Point:
    rows = [own[images] for own in curve.moments.values()]
    seconds, flops = _mean([row.seconds for row in rows]), _mean([row.flops for row in rows])
    costs: dict[By, float | None] = {"images": float(images), "seconds": seconds, "flops": flops}
    value = estimate([row.value for row in rows if row.value is not None])
    return Point(curve.group, curve.label, images, seconds, flops, costs[by], value)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def pareto(candidates: Sequence[tuple[float, float]], *, lower: bool) -> list[int]:
    """Indices of the (compute, value) pairs that no other dominates, in the order of compute.

    A pair dominates another where it is at most as dear and at least as good, and one of the two strictly.

    >>> pareto([(1.0, 5.0), (2.0, 3.0), (2.0, 4.0), (3.0, 3.0)], lower=True)
    [0, 1]
    """
    sign = 1.0 if lower else -1.0
    kept: list[int] = []
    best = math.inf
    for i in sorted(range(len(candidates)), key=lambda i: (candidates[i][0], sign * candidates[i][1])):
        cost, value = candidates[i][0], sign * candidates[i][1]
        if value < best or (kept and value == best and cost == candidates[kept[-1]][0]):
            kept.append(i)
            best = value
    return kept


# ---------------------------------------------------------------- best of run


@dataclass(frozen=True)
class Optimistic:
    """The best moment of each run by the very values that are shown, and the end of the run beside it."""

    label: str
    best: Estimate
    images: tuple[int, ...]
    luckiest: float
    end: Estimate


def best_of_run(sheet: Sheet) -> tuple[Optimistic, ...]:
    """For each group the mean of each seed's best value, and the best of all seeds: optimistic, both are extremes."""
    better = min if sheet.lower else max
    found = []
    for curve in sheet.curves:
        best, ends = [], []
        for _, rows in sorted(curve.moments.items()):
            best.append(better(rows.values(), key=lambda row: row.value or 0.0))
            ends.append(rows[max(rows)].value or 0.0)
        values = [row.value or 0.0 for row in best]
        found.append(
            Optimistic(curve.label, estimate(values), tuple(row.images for row in best), better(values), estimate(ends))
        )
    return tuple(found)
