"""What is kept and measured on the way of each training, and by what a moment of it is selected; checked here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from genbench.api import DataConfig, DatasetInfo
from genbench.errors import GenbenchError, UnsupportedError, UsageError
from genbench.experiment.run import Component, Run, make_metric, make_prior
from genbench.registry.loader import Registry


@dataclass(frozen=True)
class SnapshotSchedule:
    """`count` moments of each training, its end among them, each measured by `metrics` on the validation split.

    Where `select` is set, the final measurements are taken of the moment that is best by this metric on the validation
    split, and not of the end. None of it affects the weights, so none of it is part of a run.
    """

    count: int = 0
    metrics: tuple[Component, ...] = ()
    select: Component | None = None

    def marks(self, run: Run) -> tuple[int, ...]:
        """The steps after which the moments are: evenly spaced in images, the last one the end of the training."""
        steps = math.ceil(run.images / run.batch)
        return tuple(round(i * steps / self.count) for i in range(1, self.count + 1))


NO_SNAPSHOTS = SnapshotSchedule()
"""Nothing is kept on the way."""


def plan_watch(
    count: int,
    metrics: Sequence[Component],
    select: Component | None,
    runs: Sequence[Run],
    registry: Registry,
    summary: DatasetInfo,
    place: DataConfig,
) -> SnapshotSchedule:
    """The checked watch over some runs.

    Raises `UsageError` for options that do not fit each other, `UnsupportedError` where there are no validation images or too
    few of them for a metric.
    """
    if not count:
        asked = f"--select {select.name}" if select else "--snapshot-metrics" if metrics else ""
        if asked:
            raise UsageError(f"{asked}: needs snapshots of each training; say how many, for example --snapshots 6")
        return NO_SNAPSHOTS
    if select is not None:
        if count == 1:
            raise UsageError(f"--select {select.name}: one snapshot leaves no choice; say --snapshots 2 or more")
        metrics = tuple(dict.fromkeys([*metrics, select]))
    if not metrics:
        raise UsageError("--snapshots: there is nothing to measure; name a metric by --snapshot-metrics")
    watch = SnapshotSchedule(count, tuple(metrics), select)
    steps = math.ceil(runs[0].images / runs[0].batch)
    if count > steps:
        raise UsageError(f"--snapshots {count}: a run has {steps} steps; ask for at most as many")
    if not summary.validation:
        raise UnsupportedError(_no_validation(runs[0].dataset, summary))
    _check_metrics(watch, runs, registry, summary, place)
    return watch


def _no_validation(dataset: Component, summary: DatasetInfo) -> str:
    """Why snapshots cannot be measured, and how to set training images aside where the dataset can."""
    reason = f"--snapshots are measured on validation images, and the dataset '{dataset.name}' has none"
    usual: Mapping[type, object] = {int: max(1, summary.train // 10), float: 0.1}
    amount = usual.get(type(dataset.values.get("validation")))
    if amount is None:
        return f"{reason}: take one that has, or leave --snapshots off"
    aside = f"--set {dataset.name}.validation={amount}"
    return f"{reason}: set training images aside with {aside} (another training set, so other runs)"


def _check_metrics(
    watch: SnapshotSchedule, runs: Sequence[Run], registry: Registry, summary: DatasetInfo, place: DataConfig
) -> None:
    shown = replace(summary, test=summary.validation)  # a metric asks how many held-out images there are
    problems: dict[str, None] = {}
    for run in {(run.prior, run.latent_dim): run for run in runs}.values():
        for metric in watch.metrics:
            try:
                make_metric(registry, metric).validate(shown, make_prior(registry, run), place)
            except GenbenchError as error:
                problems[f"--snapshots, on the {summary.validation:,} validation images: {error}"] = None
    if problems:
        raise UnsupportedError("; ".join(problems))
