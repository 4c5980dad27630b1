"""Selection of rows: the stage of each run that is shown, and of competing options the best on validation images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genbench.analysis.gather import DEFAULT_SORT, gather, headline_metrics, resolve_metric
from genbench.errors import UsageError
from genbench.storage.results import Row

CandidateKey = tuple[str, str, str, str, int, int, str]
"""The fields that candidates share: dataset, model, prior, network, latent dimension, images trained on, stage."""


@dataclass(frozen=True)
class OptionChoice:
    """The options chosen of some candidates: the group's label, its mean validation value, the number of candidates."""

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
            f"{self.dataset}: {self.label} was selected of {self.candidates} candidates by mean validation"
            f" {self.metric} ({self.mean:.4g} over {self.seeds} seed{'s' * (self.seeds > 1)}); the test values of the"
            " other candidates are not shown"
        )


def of_stage(rows: Sequence[Row], select: str | None) -> list[Row]:
    """The rows of each run's end, or of its snapshot selected by a metric; and of runs that failed."""
    if select is None:
        return [row for row in rows if row.stage == "final"]
    suffix = f"selected by {select}"
    return [
        row
        for row in rows
        if (row.stage == "selected" and row.group.endswith(suffix))
        or (row.stage == "final" and (row.role != "model" or (not row.metric and row.status != "done")))
    ]


@dataclass(frozen=True)
class Leaderboard:
    """The rows of the groups of a dataset that a number ranks: they have it under one protocol."""

    dataset: str
    metric: str
    protocol: str
    rows: tuple[Row, ...]


def leaderboards(rows: Sequence[Row]) -> list[Leaderboard]:
    """The leaderboards of tidy rows, by dataset: one for each metric that ranks, and protocol.

    Sample quality ranks. A model without such a number is ranked by the first that it has with a better direction, and
    so is every model that has this number too. A control opens none. A group without a number stands on none.
    """
    boards = []
    for dataset, gathered in gather(rows).items():
        columns, headlines = gathered.columns, headline_metrics(gathered.columns)
        ranking = [key for key in columns if key[0] in headlines]
        quality = [key for key in ranking if columns[key].example.metric_role == DEFAULT_SORT]
        opened = set()
        for name, group in gathered.groups.items():
            if group.first.role != "control":
                measured = [key for key in ranking if name in columns[key].values]
                opened |= {key for key in measured if key in quality} or {*measured[:1]}
        for metric, protocol in (key for key in ranking if key in opened):
            groups = columns[metric, protocol].values
            boards.append(
                Leaderboard(
                    dataset,
                    metric,
                    protocol,
                    tuple(
                        row
                        for row in rows
                        if row.dataset == dataset
                        and row.group in groups
                        and row.stage != "snapshot"
                        and (row.metric != metric or row.protocol == protocol or row.value is None)
                    ),
                )
            )
    return boards


def select_options(rows: Sequence[Row], name: str) -> tuple[list[Row], list[OptionChoice]]:
    """The rows of the best candidates, and the choices.

    Groups of one model, prior, network, latent dimension and count of images that differ in anything else are
    candidates; the one with the best mean of the metric on the validation split, over the seeds that all of them have,
    stays. Raises `UsageError` where a candidate has no validation value: a test value is never used to choose.
    """
    validation = [row for row in rows if row.stage == "snapshot" and row.split == "validation"]
    if not validation:
        raise UsageError(
            f"--select-options-by {name}: no validation values; re-run the genbench run with --snapshots 1 to get them"
        )
    metric = resolve_metric(validation, name)
    values = {(row.run, row.images): row for row in validation if row.metric == metric and row.value is not None}
    ends = {row.run: row.images for row in sorted(rows, key=lambda row: row.images)}  # the largest count of each run

    # Candidates, and the validation row of each seed.
    rivals: dict[CandidateKey, dict[str, dict[int, Row | None]]] = {}
    for row in rows:
        if row.role == "model" and row.stage != "snapshot" and row.metric and row.value is not None:
            final = row.stage == "final"  # its last batch may have exceeded the count of images asked for
            budget = row.images if final else ends[row.run]
            key = (row.dataset, row.model, row.prior, row.network, row.latent_dim, budget, row.stage)
            by_seed = rivals.setdefault(key, {}).setdefault(row.group, {})
            by_seed[row.seed] = values.get((row.run, ends[row.run] if final else row.images))

    # The best of each set of candidates.
    labels = {row.group: row.label for row in rows}
    choices, dropped = [], set()
    for key, candidates in rivals.items():
        if len(candidates) < 2:
            continue
        chosen, mean, seeds = _best(candidates, labels, metric)
        dropped |= candidates.keys() - {chosen}
        choices.append(OptionChoice(key[0], labels[chosen], metric, mean, seeds, len(candidates)))
    return [row for row in rows if row.group not in dropped], choices


def _best(
    candidates: Mapping[str, Mapping[int, Row | None]], labels: Mapping[str, str], metric: str
) -> tuple[str, float, int]:
    """The best candidate, its mean, and the count of seeds that all candidates share."""
    flag = f"--select-options-by {metric}"
    lacking = sorted(labels[group] for group, rows in candidates.items() if any(row is None for row in rows.values()))
    if lacking:
        raise UsageError(
            f"{flag}: no validation value of {', '.join(lacking[:4])}: re-run its genbench run with"
            f" --snapshots 1 --snapshot-metrics {metric.split('.')[0]}"
        )
    values = {group: {seed: row for seed, row in rows.items() if row} for group, rows in candidates.items()}
    ways = {(row.protocol, row.higher_is_better) for rows in values.values() for row in rows.values()}
    seeds = set.intersection(*(set(rows) for rows in values.values()))
    names = ", ".join(sorted(labels[group] for group in candidates))
    if len(ways) > 1:
        raise UsageError(f"{flag}: {names} were measured in {len(ways)} ways, which cannot be compared")
    if not seeds:
        raise UsageError(f"{flag}: {names} share no seed; train them with the same --seeds")
    means = {group: math.fsum(rows[seed].value or 0.0 for seed in seeds) / len(seeds) for group, rows in values.items()}
    best = (max if next(iter(ways))[1] else min)(means, key=lambda group: means[group])
    return best, means[best], len(seeds)
