"""Honest choices among rows: which stage of each run is shown, and which options of a model, picked on validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genbench.analysis.curves import resolve
from genbench.errors import UsageError
from genbench.storage.results import Row

Cell = tuple[str, str, str, str, int, int, str]
"""What candidates share: dataset, model, prior, network, latent dimension, images trained on, stage."""


@dataclass(frozen=True)
class Pick:
    """The options picked for one cell: the group's label and mean validation value, and how many there were."""

    dataset: str
    label: str
    metric: str
    mean: float
    seeds: int
    candidates: int

    @property
    def text(self) -> str:
        """One line."""
        return (
            f"{self.dataset}: {self.label} was picked of {self.candidates} candidates by mean validation {self.metric}"
            f" ({self.mean:.4g} over {self.seeds} seed{'s' * (self.seeds > 1)}); the others' test values are not shown"
        )


def of_stage(rows: Sequence[Row], select: str | None) -> list[Row]:
    """The rows of each run's end, or of its moment selected by a metric; and of what failed."""
    if select is None:
        return [row for row in rows if row.stage == "final"]
    suffix = f"selected by {select}"
    return [
        row
        for row in rows
        if (row.stage == "selected" and row.group.endswith(suffix))
        or (row.stage == "final" and (row.role != "model" or (not row.metric and row.status != "done")))
    ]


def pick(rows: Sequence[Row], name: str) -> tuple[list[Row], list[Pick]]:
    """The rows without the options that were not picked, and what was picked.

    Groups of one model, prior, network, latent dimension and count of images that differ in anything else are
    candidates; the one with the best mean of the metric on the validation split, over the seeds that all of them have,
    stays. Raises `UsageError` where a candidate has no validation value: a test value is never used to choose.
    """
    validation = [row for row in rows if row.stage == "snapshot" and row.split == "validation"]
    if not validation:
        raise UsageError(f"--pick {name}: no validation values; get them by repeating genbench run with --snapshots 1")
    metric = resolve(validation, name)
    values = {(row.run, row.images): row for row in validation if row.metric == metric and row.value is not None}
    ends = {row.run: row.images for row in sorted(rows, key=lambda row: row.images)}  # the largest count of each run
    cells: dict[Cell, dict[str, dict[int, Row | None]]] = {}
    for row in rows:
        if row.role == "model" and row.stage != "snapshot" and row.metric and row.value is not None:
            final = row.stage == "final"  # its last batch may have exceeded the count of images asked for
            budget = row.images if final else ends[row.run]
            where = (row.dataset, row.model, row.prior, row.network, row.latent_dim, budget, row.stage)
            own = cells.setdefault(where, {}).setdefault(row.group, {})
            own[row.seed] = values.get((row.run, ends[row.run] if final else row.images))
    labels = {row.group: row.label for row in rows}
    picks, dropped = [], set()
    for cell, candidates in cells.items():
        if len(candidates) < 2:
            continue
        chosen, mean, seeds = _best(candidates, labels, metric)
        dropped |= candidates.keys() - {chosen}
        picks.append(Pick(cell[0], labels[chosen], metric, mean, seeds, len(candidates)))
    return [row for row in rows if row.group not in dropped], picks


def _best(
    candidates: Mapping[str, Mapping[int, Row | None]], labels: Mapping[str, str], metric: str
) -> tuple[str, float, int]:
    """The best candidate, its mean, and the count of seeds that all candidates share."""
    lacking = sorted(labels[group] for group, own in candidates.items() if any(row is None for row in own.values()))
    if lacking:
        raise UsageError(
            f"--pick {metric}: no validation value of {', '.join(lacking[:4])}: repeat its genbench run with"
            f" --snapshots 1 --snapshot-metrics {metric.split('.')[0]}"
        )
    found = {group: {seed: row for seed, row in own.items() if row} for group, own in candidates.items()}
    ways = {(row.protocol, row.higher_is_better) for own in found.values() for row in own.values()}
    seeds = set.intersection(*(set(own) for own in found.values()))
    names = ", ".join(sorted(labels[group] for group in candidates))
    if len(ways) > 1:
        raise UsageError(f"--pick {metric}: {names} were measured in {len(ways)} ways, which cannot be compared")
    if not seeds:
        raise UsageError(f"--pick {metric}: {names} share no seed; train them with the same --seeds")
    means = {group: math.fsum(own[seed].value or 0.0 for seed in seeds) / len(seeds) for group, own in found.items()}
    best = (max if next(iter(ways))[1] is True else min)(means, key=lambda group: means[group])
    return best, means[best], len(seeds)
