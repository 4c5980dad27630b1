"""Moments of a training as data: what was measured at each, and which of them was selected and by what. No torch.

snapshots/IMAGES.safetensors   the weights after so many images
snapshots.json                 measurements on the validation split, by the count of images
selected.json                  the moment that each selecting metric chose, and its measurements on the test split
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.errors import MetricError
from genbench.storage import schema as records
from genbench.storage.schema import SCHEMA, mapping, maybe, number, text, whole
from genbench.utils.io import write_json

if TYPE_CHECKING:
    from genbench.storage.run_dir import RunFolder

FOLDER, SNAPSHOTS, SELECTED = "snapshots", "snapshots.json", "selected.json"

_COST = {"step": whole, "images": whole, "seconds": number, "flops": maybe(number)}
_MOMENT, _CHOSEN = mapping(**_COST), mapping(**_COST, by=text, part=text, value=number, better=text, candidates=whole)


def _snapshots(value: Any) -> bool:
    return records.each(lambda it: _MOMENT(it) and records.MEASUREMENTS(it), str.isdecimal)(value.get("snapshots"))


def _selections(value: Any) -> bool:
    return records.each(lambda it: _CHOSEN(it) and records.MEASUREMENTS(it))(value.get("selections"))


def weights_path(folder: RunFolder, images: int) -> Path:
    """Where the weights after so many images are kept."""
    return folder.path / FOLDER / f"{images:010d}.safetensors"


def snapshots(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """What was measured on the way, by the count of images: {"step", "images", "seconds", "flops", "measurements"}."""
    if not folder.has(SNAPSHOTS):
        return {}
    return dict(folder.read(SNAPSHOTS, _snapshots)["snapshots"])


def save_snapshots(folder: RunFolder, found: Mapping[str, Any]) -> None:
    """Replace snapshots.json, moments in their order."""
    ordered = {key: found[key] for key in sorted(found, key=int)}
    write_json(folder.path / SNAPSHOTS, {"schema": SCHEMA, "snapshots": ordered})


def selections(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """The selected moments, by the key of the selecting metric's choice."""
    if not folder.has(SELECTED):
        return {}
    return dict(folder.read(SELECTED, _selections)["selections"])


def save_selections(folder: RunFolder, found: Mapping[str, Any]) -> None:
    """Replace selected.json."""
    write_json(folder.path / SELECTED, {"schema": SCHEMA, "selections": found})


def headline(numbers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The number of a metric that ranks: its excess over the floor, else the first that has a direction."""
    ranking = [it for it in numbers if it["higher_is_better"] is not None]
    return next((it for it in ranking if it["component"] == "excess"), ranking[0] if ranking else None)


def best_moment(candidates: Sequence[Mapping[str, Any]], key: str, name: str) -> dict[str, Any]:
    """The moment whose number by the metric of this key is best, the earliest of equals, with what it was chosen by.

    Raises `MetricError` where a candidate has no such number: a choice among those that have one would not be the
    choice that was asked for.
    """
    ranked: list[tuple[float, Mapping[str, Any], Mapping[str, Any]]] = []
    for candidate in candidates:
        entry = candidate["measurements"].get(key, {})
        found = headline(entry.get("numbers", []))
        if found is None:
            cause = entry.get("error") or entry.get("inapplicable") or "it ranks nothing"
            raise MetricError(f"nothing is selected: {name} after {candidate['images']:,} images: {cause}")
        ranked.append(((-1.0 if found["higher_is_better"] else 1.0) * found["value"], candidate, found))
    _, chosen, by = min(ranked, key=lambda it: (it[0], it[1]["images"]))
    cost = {field: chosen[field] for field in _COST}
    facts = {"part": by["component"], "value": by["value"], "better": "higher" if by["higher_is_better"] else "lower", "protocol": by["protocol"]}
    return {**cost, "by": name, **facts, "candidates": len(candidates)}


def told(chosen: Mapping[str, Any]) -> str:
    """A selection in one line."""
    by = f"{chosen['by']}.{chosen['part']}".rstrip(".")
    return (
        f"selected on validation images by {by} = {chosen['value']:.6g}: the moment after {chosen['images']:,} images,"
        f" of {chosen['candidates']} candidates"
    )
