"""Weights kept on the way of a training, their measurement on validation images, the selection of one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from genbench.api import Model, Split, TrainingStats
from genbench.errors import MetricError, StoreError, UsageError
from genbench.evaluation.evaluation import DataEvaluation
from genbench.evaluation.measure import measure
from genbench.evaluation.selection import select_snapshot
from genbench.experiment.build import create_model
from genbench.experiment.run import Component, Run
from genbench.experiment.snapshots import SnapshotSchedule
from genbench.registry.loader import Registry
from genbench.storage.run_dir import CHECKPOINT, WEIGHTS, RunFolder
from genbench.storage.schema import MetricRecord, SelectionRecord, SnapshotRecord, TrainingRecord
from genbench.training.callbacks import Callback
from genbench.training.checkpoint import restore_weights, save_weights, steps_done, weights_shape
from genbench.training.loop import TrainState

Evaluate = Callable[[TrainingStats, Split], DataEvaluation]
"""The evaluation of the model as it is now, with what its training has cost so far, on a split."""


def keep(folder: RunFolder, run: Run, model: Model, moment: TrainState, step_flops: float | None) -> None:
    """Write the weights of a moment and what they cost."""
    facts = {"key": run.key, "step": str(moment.step), "images": str(moment.images), "seconds": repr(moment.seconds)}
    facts["flops"] = "" if step_flops is None else repr(step_flops * moment.step)
    save_weights(folder.snapshot_weights(moment.images), model, facts)


def absent(folder: RunFolder, run: Run, watch: SnapshotSchedule) -> int:
    """How many of the moments a training has passed without keeping their weights: it was begun without --snapshots."""
    if folder.state == "trained":
        passed = run.images + run.batch
    elif (folder.path / CHECKPOINT).exists():
        passed = steps_done(folder.path / CHECKPOINT)
    else:
        return 0
    return sum(
        mark <= passed and not folder.snapshot_weights(mark * run.batch).exists() for mark in watch.steps(run)[:-1]
    )


def tell_absent(store: Path, runs: Sequence[Run], watch: SnapshotSchedule) -> list[str]:
    """A line where runs have passed moments without keeping them; `UsageError` where one of those is to be selected.

    They are never trained anew in silence: what is trained stays.
    """
    runs = [run for run in runs if run.role == "model"]
    found = [absent(RunFolder(store / run.name), run, watch) for run in runs] if watch.count else []
    lacking = sum(1 for count in found if count)
    if not lacking:
        return []
    what = f"{lacking} of {len(runs)} runs were trained, or begun, without all of these snapshots"
    if watch.select is not None:
        raise UsageError(
            f"--select {watch.select.name}: {what}; train into another folder (--out) to choose among them"
        )
    return [f"{what}: their curves hold what was kept; train into another folder (--out) to have all"]


def kept_snapshots(run: Run, folder: RunFolder, watch: SnapshotSchedule) -> tuple[int, ...]:
    """The counts of images after which there are weights, the end among them."""
    *earlier, end = (mark * run.batch for mark in watch.steps(run))
    return (*(images for images in earlier if folder.snapshot_weights(images).exists()), end)


def snapshots_measured(run: Run, folder: RunFolder, watch: SnapshotSchedule, metrics: tuple[Component, ...]) -> bool:
    """Whether every snapshot of a trained run is measured, and the selected one by `metrics`."""
    measured = folder.snapshots()
    kept = kept_snapshots(run, folder, watch)
    if any(lacking_metrics(_measured_at(measured, images), watch.metrics) for images in kept):
        return False
    if watch.select is None:
        return True
    chosen = folder.selections().get(watch.select.key)
    if chosen is None or chosen.candidates != watch.count:
        return False
    return not lacking_metrics(chosen.measurements, metrics)


@dataclass(frozen=True)
class SnapshotEvaluator:
    """Measures the moments of one trained run; the model's weights are those of the last moment afterwards."""

    run: Run
    folder: RunFolder
    watch: SnapshotSchedule
    registry: Registry
    callback: Callback
    stop: Callable[[], bool]

    def moments(self) -> tuple[int, ...]:
        """The counts of images after which there are weights, the end among them."""
        return kept_snapshots(self.run, self.folder, self.watch)

    def follow(self, model: Model, evaluate: Evaluate, metrics: tuple[Component, ...]) -> list[str]:
        """Measure every moment on the validation split, then the selected one by `metrics` on the test split."""
        problems = []
        found = self.folder.snapshots()
        for images in self.moments():
            lacking = lacking_metrics(_measured_at(found, images), self.watch.metrics)
            if not lacking:
                continue
            cost = self._load(model, images)
            measurements = _measured_at(found, images)
            for choice, measured in self._measured(lacking, evaluate(self._record(cost), "validation")):
                measurements = _replaced(measurements, choice, measured)
                found[str(images)] = SnapshotRecord(**cost, measurements=measurements)
                self.folder.save_snapshots(found)
                if measured.error:
                    problems.append(f"{choice.name} after {images:,} images: {measured.error}")
            if self.stop():
                return problems
        return problems + ([] if self.watch.select is None else self._select(model, evaluate, metrics))

    def _select(self, model: Model, evaluate: Evaluate, metrics: tuple[Component, ...]) -> list[str]:
        assert self.watch.select is not None
        select, found = self.watch.select, self.folder.snapshots()
        moments = self.moments()
        if len(moments) < self.watch.count:
            return [f"nothing is selected: {len(moments)} of {self.watch.count} snapshots were kept"]
        try:
            chosen = select_snapshot([found[str(images)] for images in moments], select.key, select.name)
        except MetricError as error:
            return [str(error)]
        kept = self.folder.selections()
        measurements = _still_valid(kept.get(select.key), chosen)
        lacking = lacking_metrics(measurements, metrics)
        if not lacking:
            return []
        problems, cost = [], self._load(model, chosen.images)
        for choice, measured in self._measured(lacking, evaluate(self._record(cost), "test")):
            measurements = _replaced(measurements, choice, measured)
            selection = msgspec.structs.replace(chosen, measurements=measurements)
            self.folder.save_selections({**kept, select.key: selection})
            if measured.error:
                problems.append(f"{choice.name} of the selected moment: {measured.error}")
        return problems

    def _load(self, model: Model, images: int) -> dict[str, Any]:
        """Put the weights of a moment into the model; what they cost."""
        if images == self.moments()[-1]:
            restore_weights(self.folder.path / WEIGHTS, model, self.run.key)
            training = self.folder.training()
            step = self.watch.steps(self.run)[-1]
            return {"step": step, **{name: getattr(training, name) for name in ("images", "seconds", "flops")}}
        path = self.folder.snapshot_weights(images)
        facts = restore_weights(path, model, self.run.key)
        try:
            cost = {"step": int(facts["step"]), "images": int(facts["images"]), "seconds": float(facts["seconds"])}
            return {**cost, "flops": float(facts["flops"]) if facts["flops"] else None}
        except (KeyError, ValueError) as error:
            raise StoreError(f"{path} does not say what it cost ({error}): move the run's folder away") from None

    def _record(self, cost: Mapping[str, Any]) -> TrainingStats:
        whole = training_stats(self.folder.training())
        return replace(whole, **{name: cost[name] for name in ("images", "seconds", "flops")})

    def _measured(self, lacking: list[Component], evaluation: DataEvaluation) -> Any:
        for choice in lacking:
            if self.stop():
                return
            where = f"{evaluation.split}, {evaluation.training.images:,} images"
            self.callback.on_metric_start(self.run, f"{choice.name} ({where})")
            yield choice, measure(self.registry, choice, evaluation)


def training_stats(record: TrainingRecord) -> TrainingStats:
    """The cost of a training as metrics see it."""
    return TrainingStats(**{name: getattr(record, name) for name in TrainingStats.__dataclass_fields__})


def _measured_at(snapshots: Mapping[str, SnapshotRecord], images: int) -> dict[str, MetricRecord]:
    snapshot = snapshots.get(str(images))
    return {} if snapshot is None else snapshot.measurements


def _still_valid(before: SelectionRecord | None, chosen: SelectionRecord) -> dict[str, MetricRecord]:
    """The measurements of an earlier selection where it chose the same snapshot."""
    if before is None:
        return {}
    same = all(getattr(before, name) == getattr(chosen, name) for name in ("images", "value", "candidates"))
    return before.measurements if same else {}


def lacking_metrics(measurements: Mapping[str, MetricRecord], metrics: tuple[Component, ...]) -> list[Component]:
    """The metrics that are not among the measurements; one that failed counts as lacking."""
    return [metric for metric in metrics if metric.key not in measurements or measurements[metric.key].error]


def _replaced(
    measurements: Mapping[str, MetricRecord], choice: Component, measured: MetricRecord
) -> dict[str, MetricRecord]:
    """The measurements with a new one, without those by another source of the same metric and options."""
    others = {
        key: other
        for key, other in measurements.items()
        if (other.metric, other.options) != (choice.name, choice.values)
    }
    return {**others, choice.key: measured}


def trained_model(registry: Registry, run: Run, folder: RunFolder, device: torch.device) -> Model:
    """The trained model of a run folder."""
    if folder.state != "trained":
        raise StoreError(f"{folder.path} is not trained ({folder.state}): finish it with the command that began it")
    shape = weights_shape(folder.weights())
    return restored(create_model(registry, run, shape).to(device), run, folder)


def restored(model: Model, run: Run, folder: RunFolder) -> Model:
    """The model with the run's trained weights; `StoreError` where they are another run's, or damaged."""
    restore_weights(folder.weights(), model, run.key)
    return model
