"""Saving of intermediate weights, their evaluation on validation images, and the selection of one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from genbench.api import Model, Split, TrainingStats
from genbench.errors import MetricError, StoreError, UsageError
from genbench.evaluation.evaluation import DataEvaluation
from genbench.evaluation.measure import measure, replace_measurement
from genbench.evaluation.selection import select_snapshot
from genbench.experiment.build import create_model
from genbench.experiment.run import Component, Run
from genbench.experiment.snapshots import SnapshotSchedule, total_steps
from genbench.registry.loader import Registry
from genbench.storage.provenance import check_components
from genbench.storage.run_dir import CHECKPOINT, WEIGHTS, RunFolder
from genbench.storage.schema import MetricRecord, SelectionRecord, SnapshotRecord, TrainingRecord
from genbench.training.callbacks import Callback
from genbench.training.checkpoint import restore_weights, save_weights, steps_done, weights_shape
from genbench.training.loop import TrainState

Evaluate = Callable[[TrainingStats, Split], DataEvaluation]
"""The evaluation of the model with its present weights, given the cost of their training, on a split."""


# ---------------------------------------------------------------- weights of snapshots


def save_snapshot(folder: RunFolder, run: Run, model: Model, state: TrainState, step_flops: float | None) -> None:
    """Save the model's weights and the cost of the training so far."""
    facts = {"key": run.key, "step": str(state.step), "images": str(state.images), "seconds": repr(state.seconds)}
    facts["flops"] = "" if step_flops is None else repr(step_flops * state.step)
    save_weights(folder.snapshot_weights(state.images), model, facts)


def check_stored_snapshots(store: Path, runs: Sequence[Run], schedule: SnapshotSchedule) -> list[str]:
    """A line where trained runs lack snapshots of the schedule; `UsageError` where one of them is to be selected.

    Such runs are not trained again.
    """
    runs = [run for run in runs if run.trains]
    incomplete = sum(_count_missing(RunFolder(store / run.name), run, schedule) > 0 for run in runs)
    if not incomplete:
        return []
    problem = f"{incomplete} of {len(runs)} runs were trained, or begun, without all of these snapshots"
    if schedule.select is not None:
        raise UsageError(
            f"--select {schedule.select.name}: {problem}; train into another folder (--out) to choose among them"
        )
    if schedule.share < 1:
        raise UsageError(f"{problem}, by which trials are stopped: search in another folder (--out)")
    return [f"{problem}: their curves hold what was kept; train into another folder (--out) to have all"]


def _count_missing(folder: RunFolder, run: Run, schedule: SnapshotSchedule) -> int:
    """Scheduled snapshots whose step the training has passed and whose weights were not saved.

    A training that is to pause needs no weights where it was measured there before.
    """
    if not schedule.count:
        return 0
    if folder.state == "trained":
        passed = run.images + run.batch
    elif (folder.path / CHECKPOINT).exists():
        passed = steps_done(folder.path / CHECKPOINT)
    else:
        return 0
    missing = [
        step * run.batch
        for step in schedule.kept(run)
        if step <= passed and not folder.snapshot_weights(step * run.batch).exists()
    ]
    measured = folder.snapshots() if missing and schedule.share < 1 else {}
    return sum(str(images) not in measured for images in missing)


def is_paused(run: Run, folder: RunFolder, schedule: SnapshotSchedule) -> bool:
    """Whether the training has come to the pause of the schedule, and its weights there are saved."""
    step = schedule.pause(run)
    return step is not None and folder.snapshot_weights(step * run.batch).exists()


def saved_snapshots(run: Run, folder: RunFolder, schedule: SnapshotSchedule) -> tuple[int, ...]:
    """The counts of images at which weights were saved, the end of the training among them."""
    apart = {step * run.batch for step in schedule.kept(run)}
    counts = (step * run.batch for step in schedule.steps(run))
    return tuple(images for images in counts if images not in apart or folder.snapshot_weights(images).exists())


# ---------------------------------------------------------------- evaluation


def snapshots_measured(run: Run, folder: RunFolder, schedule: SnapshotSchedule, metrics: tuple[Component, ...]) -> bool:
    """Whether every snapshot of a trained run is measured, and the selected one by `metrics`."""
    snapshots = folder.snapshots()
    saved = saved_snapshots(run, folder, schedule)
    if any(lacking_metrics(_measurements_at(snapshots, images), schedule.metrics) for images in saved):
        return False
    if schedule.select is None:
        return True
    selection = folder.selections().get(schedule.select.key)
    if selection is None or selection.candidates != schedule.count:
        return False
    return not lacking_metrics(selection.measurements, metrics)


@dataclass(frozen=True)
class SnapshotEvaluator:
    """Evaluates the snapshots of one trained run; afterwards the model has the weights that were loaded last."""

    run: Run
    folder: RunFolder
    schedule: SnapshotSchedule
    registry: Registry
    callback: Callback
    stop: Callable[[], bool]

    def evaluate(self, model: Model, evaluation: Evaluate, metrics: tuple[Component, ...]) -> list[str]:
        """Measure every snapshot on the validation split, then the selected one by `metrics` on the test split."""
        problems = []
        snapshots = self.folder.snapshots()
        for images in self._saved():
            measurements = _measurements_at(snapshots, images)
            lacking = lacking_metrics(measurements, self.schedule.metrics)
            if not lacking:
                continue
            cost = self._load(model, images)
            for component, entry in self._measure(lacking, evaluation(self._stats(cost), "validation")):
                measurements = replace_measurement(measurements, component, entry)
                snapshots[str(images)] = SnapshotRecord(**cost, measurements=measurements)
                self.folder.save_snapshots(snapshots)
                if entry.error:
                    problems.append(f"{component.name} after {images:,} images: {entry.error}")
            if self.stop():
                return problems
        if self.schedule.select is not None:
            problems += self._select(self.schedule.select, model, evaluation, metrics)
        return problems

    def _select(
        self, select: Component, model: Model, evaluation: Evaluate, metrics: tuple[Component, ...]
    ) -> list[str]:
        """Select a snapshot by the metric `select`, and measure it by `metrics` on the test split."""
        snapshots, saved = self.folder.snapshots(), self._saved()
        if len(saved) < self.schedule.count:
            return [f"nothing is selected: {len(saved)} of {self.schedule.count} snapshots were kept"]
        try:
            selected = select_snapshot([snapshots[str(images)] for images in saved], select.key, select.name)
        except MetricError as error:
            return [str(error)]
        selections = self.folder.selections()
        measurements = _still_valid(selections.get(select.key), selected)
        lacking = lacking_metrics(measurements, metrics)
        if not lacking:
            return []
        problems, cost = [], self._load(model, selected.images)
        for component, entry in self._measure(lacking, evaluation(self._stats(cost), "test")):
            measurements = replace_measurement(measurements, component, entry)
            selection = msgspec.structs.replace(selected, measurements=measurements)
            self.folder.save_selections({**selections, select.key: selection})
            if entry.error:
                problems.append(f"{component.name} of the selected snapshot: {entry.error}")
        return problems

    def _saved(self) -> tuple[int, ...]:
        return saved_snapshots(self.run, self.folder, self.schedule)

    def _load(self, model: Model, images: int) -> dict[str, Any]:
        """Load the weights of a snapshot into the model; returns their cost."""
        end = total_steps(self.run)
        if images == end * self.run.batch:
            restore_weights(self.folder.path / WEIGHTS, model, self.run.key)
            training = self.folder.training()
            return {"step": end, **{name: getattr(training, name) for name in ("images", "seconds", "flops")}}
        path = self.folder.snapshot_weights(images)
        facts = restore_weights(path, model, self.run.key)
        try:
            cost = {"step": int(facts["step"]), "images": int(facts["images"]), "seconds": float(facts["seconds"])}
            return {**cost, "flops": float(facts["flops"]) if facts["flops"] else None}
        except (KeyError, ValueError) as error:
            raise StoreError(f"{path} does not say what it cost ({error}): move the run's folder away") from None

    def _stats(self, cost: Mapping[str, Any]) -> TrainingStats:
        """The cost of the training up to a snapshot."""
        whole = training_stats(self.folder.training())
        return replace(whole, **{name: cost[name] for name in ("images", "seconds", "flops")})

    def _measure(
        self, lacking: list[Component], evaluation: DataEvaluation
    ) -> Iterator[tuple[Component, MetricRecord]]:
        for component in lacking:
            if self.stop():
                return
            where = f"{evaluation.split}, {evaluation.training.images:,} images"
            self.callback.on_metric_start(self.run, f"{component.name} ({where})")
            yield component, measure(self.registry, component, evaluation)


def training_stats(record: TrainingRecord) -> TrainingStats:
    """The cost of a training in the form that metrics read."""
    return TrainingStats(**{name: getattr(record, name) for name in TrainingStats.__dataclass_fields__})


def lacking_metrics(measurements: Mapping[str, MetricRecord], metrics: tuple[Component, ...]) -> list[Component]:
    """The metrics that are not among the measurements; one that failed counts as lacking."""
    return [metric for metric in metrics if metric.key not in measurements or measurements[metric.key].error]


def _measurements_at(snapshots: Mapping[str, SnapshotRecord], images: int) -> dict[str, MetricRecord]:
    snapshot = snapshots.get(str(images))
    return {} if snapshot is None else snapshot.measurements


def _still_valid(before: SelectionRecord | None, selected: SelectionRecord) -> dict[str, MetricRecord]:
    """The measurements of an earlier selection where it selected the same snapshot."""
    if before is None:
        return {}
    same = all(getattr(before, name) == getattr(selected, name) for name in ("images", "value", "candidates"))
    return before.measurements if same else {}


# ---------------------------------------------------------------- trained models


def trained_model(registry: Registry, run: Run, folder: RunFolder, device: torch.device) -> Model:
    """The trained model of a run folder; `StoreError` where it is not trained, or a plug-in of it is not loaded."""
    if folder.state != "trained":
        raise StoreError(f"{folder.path} is not trained ({folder.state}): finish it with the command that began it")
    check_components(run, folder.path, registry)
    shape = weights_shape(folder.weights())
    return restore_model(create_model(registry, run, shape).to(device), run, folder)


def restore_model(model: Model, run: Run, folder: RunFolder) -> Model:
    """The model with the run's trained weights; `StoreError` where the file is damaged or belongs to another run."""
    restore_weights(folder.weights(), model, run.key)
    return model
