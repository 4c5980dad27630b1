"""Curves as text and as data: groups at equal budgets, the Pareto set, best of run apart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genbench.analysis import notes
from genbench.analysis.curves import (
    By,
    Place,
    Point,
    Sheet,
    best_of_run,
    budgets,
    compared,
    points,
    resolve,
    sheets,
)
from genbench.analysis.formatting import format_estimate, format_value
from genbench.errors import UsageError
from genbench.reporting.csv_json import csv_text
from genbench.storage.results import Row

UNITS: dict[By, str] = {"images": "images", "seconds": "seconds", "flops": "FLOPs"}
SPLITS = {"validation": "snapshots on the validation split", "test": "the ends of the runs on the test split"}
GAP, LABEL_WIDTH = 2, 30
FIELDS = (
    *("dataset", "metric", "protocol", "split", "kind", "by", "budget", "group", "label"),
    *("images", "seconds", "flops", "seeds", "mean", "low", "high", "mark"),
)


def asked(rows: Sequence[Row], metric: str, by: By, at: Sequence[float]) -> list[tuple[Sheet, tuple[float, ...]]]:
    """The sheets of a metric, each with the budgets at which its groups are compared.

    Raises `UsageError` for a metric that was not measured or ranks nothing, and for a budget that no group has.
    """
    name = resolve(rows, metric)
    found = [sheet for sheet in sheets(rows, name) if sheet.higher_is_better is not None]
    if not found:
        raise UsageError(f"--metric {metric}: it has no better direction, so it makes no curve to compare")
    chosen = [(sheet, tuple(at) or budgets(sheet.curves, by)) for sheet in found]
    for budget in at:
        if not any(compared(sheet, by, budget) for sheet in found):
            raise UsageError(f"--at {budget:g}: no group has it; measured are {_ranges(found, by)}")
    return chosen


def _ranges(found: Iterable[Sheet], by: By) -> str:
    costs = [x for s in found for curve in s.curves for track in curve.tracks(by).values() for x, _ in track]
    return f"{_cost(min(costs), by)} to {_cost(max(costs), by)} {UNITS[by]}"


def _cost(value: float, by: By) -> str:
    return f"{value:,.0f}" if by == "images" else f"{value:.3g}"


def show(console: Console, rows: Sequence[Row], metric: str, by: By, at: Sequence[float], *, extremes: bool) -> None:
    """Print each sheet: the groups at common budgets, the Pareto set, and on request best of run, apart."""
    for sheet, chosen in asked(rows, metric, by, at):
        seeds = sorted({len(curve.moments) for curve in sheet.curves})
        counted = f"{seeds[0]} seed{'s' * (seeds[0] != 1)}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
        title = f"{sheet.dataset} · {sheet.head or sheet.metric} {notes.ARROWS[sheet.higher_is_better]} by {UNITS[by]}"
        _line(console, "")
        _line(console, f"{title} · {SPLITS.get(sheet.split, sheet.split)} · {counted}", "bold")
        _budget_table(console, sheet, by, chosen)
        _pareto_table(console, sheet, by)
        if extremes:
            _extremes(console, sheet)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style))


def _budget_table(console: Console, sheet: Sheet, by: By, chosen: Sequence[float]) -> None:
    if not chosen:
        _line(console, f"no count of {UNITS[by]} lies within every run: name one by --at", "dim")
        return
    places = {(place.group, budget): place for budget in chosen for place in compared(sheet, by, budget)}
    last = [places.get((curve.group, chosen[-1])) for curve in sheet.curves]
    order = sorted(zip(sheet.curves, last, strict=True), key=lambda it: _rank(it[1], sheet))
    width = GAP + max(len(_text(places.get((c.group, x)))) for c in sheet.curves for x in chosen)
    room = console.width - GAP - min(LABEL_WIDTH, max(len(curve.label) for curve in sheet.curves))
    fitting = max(1, room // width)
    for start in range(0, len(chosen), fitting):
        shown = chosen[start : start + fitting]
        table = Table("at", *(_cost(budget, by) for budget in shown), box=box.SIMPLE_HEAD, pad_edge=False)
        for column in table.columns[1:]:
            column.justify, column.no_wrap = "right", True
        for curve, _ in order:
            table.add_row(Text(curve.label), *(_cell(places.get((curve.group, budget))) for budget in shown))
        console.print(table)
    for note in _notes(sheet, by, places.values(), len(chosen) * len(sheet.curves)):
        _line(console, f" {note}", "dim")


def _rank(place: Place | None, sheet: Sheet) -> float:
    return math.inf if place is None else place.estimate.mean * (1.0 if sheet.lower else -1.0)


def _text(place: Place | None) -> str:
    return "-  " if place is None else f"{format_estimate(place.estimate).plain} {notes.SIGNS[place.mark] or ' '}"


def _cell(place: Place | None) -> Text:
    style = "dim" if place is None else "bold" if place.mark in {"best", "lead"} else ""
    return Text(_text(place), style=style)


def _notes(sheet: Sheet, by: By, places: Iterable[Place], cells: int) -> list[str]:
    shown = list(places)
    marks = {place.mark for place in shown}
    found = ["± half the 95 % interval over training seeds"] * any(place.estimate.n > 1 for place in shown)
    found += [f"* {notes.BEST}"] * ("best" in marks) + [notes.LEAD] * ("lead" in marks)
    found += [notes.UNDECIDED] * ("undecided" in marks)
    if len(shown) < cells:
        found.append("- beyond the snapshots of a seed: never extrapolated")
    if by == "seconds":
        found.append("seconds are those of the machine, and of whatever else it did at the time")
    tracks = [track for curve in sheet.curves for track in curve.tracks(by).values()]
    if any(place.budget not in {x for x, _ in track} for place in shown for track in tracks):
        found.append("between two snapshots of a run: linear in the logarithm of the compute")
    return found


def _pareto_table(console: Console, sheet: Sheet, by: By) -> None:
    best = sorted((p for p in points(sheet, by) if p.pareto), key=lambda p: p.compute or 0.0)
    _line(console, "")
    _line(console, f"Pareto set: no other moment of any group costs as little ({UNITS[by]}) and scores as well", "bold")
    table = Table(UNITS[by], "model", "images", sheet.head or sheet.metric, box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[0].justify = table.columns[2].justify = table.columns[3].justify = "right"
    for p in best:
        table.add_row(_cost(p.compute or 0.0, by), Text(p.label), f"{p.images:,}", format_estimate(p.estimate).plain)
    console.print(table)
    _line(console, " by means over seeds; neighbours may not be distinguishable", "dim")


def _extremes(console: Console, sheet: Sheet) -> None:
    _line(console, "")
    _line(console, "best of run (optimistic): the best moment by the very values shown; not for a comparison", "bold")
    table = Table("model", "best of each run", "after images", "best seed", "end of the run", box=box.SIMPLE_HEAD)
    for it in best_of_run(sheet):
        after = ", ".join(f"{images:,}" for images in it.images)
        table.add_row(
            Text(it.label),
            format_estimate(it.best).plain,
            after,
            format_value(it.luckiest).plain,
            format_estimate(it.end).plain,
        )
    console.print(table)


# ---------------------------------------------------------------- data


def records(rows: Sequence[Row], metric: str, by: By, at: Sequence[float]) -> list[dict[str, object]]:
    """The curves as flat records: kind "snapshot" (mark "pareto" in the set) and kind "budget" (marked as a table)."""
    found = []
    for sheet, chosen in asked(rows, metric, by, at):
        places = [place for budget in chosen for place in compared(sheet, by, budget)]
        found += [_snapshot(sheet, by, point) for point in points(sheet, by)]
        found += [_budget(sheet, by, place) for place in places]
    return found


def _snapshot(sheet: Sheet, by: By, point: Point) -> dict[str, object]:
    costs = {"images": point.images, "seconds": point.seconds, "flops": point.flops}
    mark = "pareto" if point.pareto else ""
    own = {"kind": "snapshot", "group": point.group, "label": point.label, **costs, "mark": mark}
    return _record(sheet, by, {**own, **_estimated(point)})


def _budget(sheet: Sheet, by: By, place: Place) -> dict[str, object]:
    own = {"kind": "budget", "budget": place.budget, "group": place.group, "label": place.label, "mark": place.mark}
    return _record(sheet, by, {**own, **_estimated(place)})


def _estimated(it: Place | Point) -> dict[str, object]:
    estimate = it.estimate
    return {"seeds": estimate.n, "mean": estimate.mean, "low": estimate.low, "high": estimate.high}


def _record(sheet: Sheet, by: By, own: dict[str, object]) -> dict[str, object]:
    facts = {"dataset": sheet.dataset, "metric": sheet.metric, "protocol": sheet.protocol, "split": sheet.split}
    return dict.fromkeys(FIELDS) | facts | {"by": by} | own


def as_csv(found: Sequence[dict[str, object]]) -> str:
    """The records as CSV."""
    return csv_text([list(FIELDS), *([record[name] for name in FIELDS] for record in found)])


def as_json(found: Sequence[dict[str, object]]) -> str:
    """The records as a JSON array with an object on each line."""
    lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) for record in found]
    return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"


def export_csv(rows: Sequence[Row]) -> str:
    """Every metric's snapshots against images, as CSV; "" where there are none."""
    metrics = dict.fromkeys(row.metric for row in rows if row.stage == "snapshot" and row.value is not None)
    ranking = {row.metric for row in rows if row.higher_is_better is not None}
    found = [it for metric in metrics if metric in ranking for it in records(rows, metric, "images", ())]
    kept = [it for it in found if it["kind"] == "snapshot" and it["split"] == "validation"]
    return as_csv(kept) if kept else ""
