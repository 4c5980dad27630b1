"""The selection of one snapshot of a training by a metric on the validation split. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from genbench.errors import MetricError
from genbench.storage.schema import SelectionRecord, SnapshotRecord, StoredMeasurement


def ranking_number(numbers: Sequence[StoredMeasurement]) -> StoredMeasurement | None:
    """The number of a metric that ranks: its excess over the floor, else the first that has a direction."""
    ranking = [number for number in numbers if number.higher_is_better is not None]
    return next((number for number in ranking if number.component == "excess"), ranking[0] if ranking else None)


def select_snapshot(candidates: Sequence[SnapshotRecord], key: str, name: str) -> SelectionRecord:
    """The snapshot whose number by the metric of this key is best, the earliest of equals; without measurements.

    Raises `MetricError` where a candidate has no such number: a choice among the others would not be the choice that
    was asked for.
    """
    ranked: list[tuple[float, SnapshotRecord, StoredMeasurement]] = []
    for candidate in candidates:
        entry = candidate.measurements.get(key)
        number = None if entry is None else ranking_number(entry.numbers)
        if number is None:
            cause = "" if entry is None else entry.error or entry.inapplicable
            message = f"nothing is selected: {name} after {candidate.images:,} images: {cause or 'it ranks nothing'}"
            raise MetricError(message)
        ranked.append((-number.value if number.higher_is_better else number.value, candidate, number))
    _, best, number = min(ranked, key=lambda entry: (entry[0], entry[1].images))
    return SelectionRecord(
        step=best.step,
        images=best.images,
        seconds=best.seconds,
        flops=best.flops,
        measurements={},
        by=name,
        component=number.component,
        value=number.value,
        higher_is_better=bool(number.higher_is_better),
        protocol=number.protocol,
        candidates=len(candidates),
    )


def describe_selection(selection: SelectionRecord) -> str:
    """A selection in one line."""
    by = f"{selection.by}.{selection.component}".rstrip(".")
    return (
        f"selected on validation images by {by} = {selection.value:.6g}: the snapshot after {selection.images:,}"
        f" images, of {selection.candidates} candidates"
    )
