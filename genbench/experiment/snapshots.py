"""Snapshot schedule: when intermediate weights are saved and evaluated, and which metric selects the best of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from genbench.api import DataConfig, DatasetInfo
from genbench.errors import GenbenchError, UnsupportedError, UsageError
from genbench.experiment.build import create_metric, create_prior
from genbench.experiment.run import Component, Run
from genbench.registry.loader import Registry


@dataclass(frozen=True)
class SnapshotSchedule:
    """`count` snapshots of each training, the last one at the end, evaluated by `metrics` on validation images.

    Where `select` is set, the final evaluation uses the snapshot that is best by this metric on validation images, not
    the end. Where `share` is below 1 the training pauses after this part of its steps, at its last snapshot, and can
    go on from there. Snapshots do not affect the weights, so a schedule is no part of a run.
    """

    count: int = 0
    metrics: tuple[Component, ...] = ()
    select: Component | None = None
    share: float = 1.0

    def steps(self, run: Run) -> tuple[int, ...]:
        """The training steps after which snapshots are taken, evenly spaced; the last one ends or pauses it."""
        steps = self.pause(run) or total_steps(run)
        return tuple(round(i * steps / self.count) for i in range(1, self.count + 1))

    def kept(self, run: Run) -> tuple[int, ...]:
        """The steps of the snapshots whose weights are files apart: those before the end of the training."""
        steps = self.steps(run)
        return steps if self.share < 1 else steps[:-1]

    def pause(self, run: Run) -> int | None:
        """The step at which the training pauses; None where it goes on to its end."""
        return max(1, round(self.share * total_steps(run))) if self.share < 1 else None


def total_steps(run: Run) -> int:
    """The steps of a whole training."""
    return math.ceil(run.images / run.batch)


NO_SNAPSHOTS = SnapshotSchedule()

SNAPSHOTS_ADVISED = 6
"""The number that a refusal advises."""


def plan_snapshots(
    count: int,
    metrics: Sequence[Component],
    select: Component | None,
    runs: Sequence[Run],
    registry: Registry,
    info: DatasetInfo,
    data_config: DataConfig,
) -> SnapshotSchedule:
    """The checked schedule of some runs.

    Raises `UsageError` for options that exclude each other, `UnsupportedError` where there are no validation images or
    too few of them for a metric.
    """
    if not count:
        option = f"--select {select.name}" if select else "--snapshot-metrics" if metrics else ""
        if option:
            raise UsageError(
                f"{option}: needs snapshots of each training; say how many: --snapshots {SNAPSHOTS_ADVISED}"
            )
        return NO_SNAPSHOTS
    if select is not None:
        if count == 1:
            raise UsageError(f"--select {select.name}: one snapshot leaves no choice; say --snapshots 2 or more")
        metrics = tuple(dict.fromkeys([*metrics, select]))
    if not metrics:
        raise UsageError("--snapshots: there is nothing to measure; name a metric by --snapshot-metrics")
    steps = total_steps(runs[0])
    if count > steps:
        raise UsageError(f"--snapshots {count}: a run has {steps} steps; ask for at most as many")
    if not info.validation:
        raise UnsupportedError(_no_validation(runs[0].dataset, info))
    _check_metrics(metrics, runs, registry, info, data_config)
    return SnapshotSchedule(count, tuple(metrics), select)


def _no_validation(dataset: Component, info: DatasetInfo) -> str:
    """The reason for the user, and how to set training images aside where the dataset can."""
    reason = f"--snapshots are measured on validation images, and the dataset '{dataset.name}' has none"
    setting = validation_setting(dataset, info)
    if setting is None:
        return f"{reason}: take one that has, or leave --snapshots off"
    return f"{reason}: set training images aside with --set {setting} (another training set, so other runs)"


def validation_setting(dataset: Component, info: DatasetInfo) -> str | None:
    """The setting that has a dataset set training images aside for validation; None where it has no such option."""
    examples: Mapping[type, object] = {int: max(1, info.train // 10), float: 0.1}
    amount = examples.get(type(dataset.values.get("validation")))
    return None if amount is None else f"{dataset.name}.validation={amount}"


def _check_metrics(
    metrics: Sequence[Component], runs: Sequence[Run], registry: Registry, info: DatasetInfo, data_config: DataConfig
) -> None:
    validation = replace(info, test=info.validation)  # a metric checks the count of held-out images
    problems: dict[str, None] = {}
    for run in {(run.prior, run.latent_dim): run for run in runs}.values():
        for metric in metrics:
            try:
                create_metric(registry, metric).validate(validation, create_prior(registry, run), data_config)
            except GenbenchError as error:
                problems[f"--snapshots, on the {info.validation:,} validation images: {error}"] = None
    if problems:
        raise UnsupportedError("; ".join(problems))
