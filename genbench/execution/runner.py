"""One run in this process: lock its folder, train, evaluate, save. Knows no executor."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from genbench.api import Control, DataConfig, Images, Model, Split, TrainingStats
from genbench.data.images import describe_duplicates, without_test
from genbench.errors import GenbenchError, StoreError, SystemFailureError
from genbench.evaluation.controls import ControlEvaluation, fit_control
from genbench.evaluation.evaluation import DataEvaluation, RunEvaluation
from genbench.evaluation.measure import measure, save_measurement, save_pictures
from genbench.evaluation.snapshots import (
    SnapshotEvaluator,
    lacking_metrics,
    restore_model,
    save_snapshot,
    snapshots_measured,
    training_stats,
)
from genbench.experiment.build import create_context, load_dataset, replaced_defaults
from genbench.experiment.run import Component, Run
from genbench.experiment.snapshots import NO_SNAPSHOTS, SnapshotSchedule
from genbench.registry.loader import Registry
from genbench.storage.lock import RunLockedError, lock_run
from genbench.storage.run_dir import CHECKPOINT, DEFAULTS, WEIGHTS, RunFolder
from genbench.storage.schema import SCHEMA, FailureRecord
from genbench.training.callbacks import LOCKED, Callback, NullCallback
from genbench.training.checkpoint import save_weights
from genbench.training.device import describe_failure, on_device, release_memory, reset_peak_memory
from genbench.training.distributed import DistributedContext
from genbench.training.flops import counted_flops
from genbench.training.setup import TrainingJob
from genbench.utils.plugin_code import error_location
from genbench.utils.torch_state import isolated


@dataclass(frozen=True)
class RunOutcome:
    """The end of one run; `problem` is one line, empty unless it failed or is locked by another process."""

    status: Literal["done", "failed", "interrupted", "locked"]
    problem: str = ""
    stops: bool = False
    """Whether every further run would fail alike."""


INTERRUPTED = RunOutcome("interrupted")


def never() -> bool:
    """The default of `Runner.stop`: nobody asks to stop."""
    return False


@dataclass
class Runner:
    """Trains and evaluates one run after another in this process; the fields are what the runs of one command share.

    Of several `distributed` processes every one has a Runner and is given the same runs in the same order: all of them
    train, the main process alone locks, writes, evaluates and calls back.
    """

    registry: Registry
    store: Path
    data_config: DataConfig
    device: torch.device
    provenance: Mapping[str, Any]
    metrics: tuple[Component, ...]
    snapshots: SnapshotSchedule = NO_SNAPSHOTS
    threads: int | None = None
    """CPU threads of a training; None: one for a small step, all of them for a large one."""
    callback: Callback = field(default_factory=NullCallback)
    stop: Callable[[], bool] = never
    distributed: DistributedContext = field(default_factory=DistributedContext)
    jobs: int = 1
    """Runs at once on this machine, this one among them."""
    locks: bool = True
    """False where the command that sent the runs holds their locks."""
    images: Images | None = None
    """The dataset on the device; None: loaded for the first run."""
    memory: dict[str, Any] = field(default_factory=dict)
    """Shared by the evaluations of all runs."""

    def folder(self, run: Run) -> RunFolder:
        """The folder of a run."""
        return RunFolder(self.store / run.name)

    def run(self, run: Run) -> RunOutcome:
        """Train and evaluate the run, as far as it is not done; a failure is recorded and returned."""
        with ExitStack() as lock:
            try:
                trains = self._begin(run, lock)
                if trains is None:
                    return INTERRUPTED
                with isolated(self.device):
                    model = self._train(run) if trains else self._restore(run)
                    outcome = self._evaluate(run, model)
            except RunLockedError:
                outcome = RunOutcome("locked", LOCKED)
            except (Exception, SystemExit) as error:  # a plug-in may raise anything; the other runs go on
                outcome = self._failure(run, error)
        if self.distributed.is_main_process:
            self.callback.on_run_end(run, outcome.status, outcome.problem)
        return outcome

    def _begin(self, run: Run, lock: ExitStack) -> bool | None:
        """Lock and begin the folder. In every process: whether the run needs training, or None after a stop."""
        trains: bool | None = None
        try:
            if self.distributed.is_main_process and not self.stop():
                folder = self.folder(run)
                self.callback.on_run_start(run, folder.state)
                if self.locks:
                    lock.enter_context(lock_run(folder.path))
                images = self.load_images(run)
                content = images.sha256
                facts = {
                    "content": content,
                    "data": data_facts(images),
                    DEFAULTS: replaced_defaults(self.registry, run),
                }
                begun = folder.begin(run.record(), {**self.provenance, **facts})
                if begun.get("content") != content:
                    raise StoreError(f"{folder.path} was begun on other data: move it away, or restore the dataset")
                folder.clear_failure()
                trains = run.role == "model" and folder.state != "trained"
        finally:  # the other processes wait for this
            answers = (None, False, True)
            trains = answers[self.distributed.broadcast(answers.index(trains))]
        return trains

    def load_images(self, run: Run) -> Images:
        """The dataset of a run on the device, loaded once."""
        if self.images is None:
            self.images = on_device(load_images(self.registry, run, self.data_config, self.callback), self.device)
        return self.images

    def _restore(self, run: Run) -> Model | Control | None:
        """The trained model of a finished training, or a fitted control; only the main process needs one."""
        if not self.distributed.is_main_process:
            return None
        images, folder = self.load_images(run), self.folder(run)
        if run.role == "control":
            return fit_control(self.registry, run, folder, images, self.device)
        return restore_model(self._job(run).build_model(), run, folder)

    def _job(self, run: Run) -> TrainingJob:
        images = self.load_images(run)
        return TrainingJob(self.registry, run, images, self.device, self.distributed, self.threads)

    def _train(self, run: Run) -> Model | None:
        """The trained model; None where the training was interrupted. Snapshots are kept on the way."""
        folder, state = self.folder(run), None
        snapshot_steps, checkpoint = self.snapshots.steps(run)[:-1], folder.path / CHECKPOINT

        # Set up.
        job = self._job(run)
        model = job.build_model()
        step_flops = counted_flops(model, run.batch)
        reset_peak_memory(self.device)
        device_config = job.select_device_config(model)

        # Train; log, and keep snapshots.
        with job.start(model, device_config, checkpoint, stop=self.stop, snapshot_steps=snapshot_steps) as states:
            for state in states:
                if not self.distributed.is_main_process:
                    continue
                folder.log(state.logged())
                self.callback.on_log(run, state)
                if state.step in snapshot_steps:
                    save_snapshot(folder, run, model, state, step_flops)
        if state is None or state.step < state.steps:
            return None

        # Save.
        if self.distributed.is_main_process:
            stats = job.stats(model, state, device_config, step_flops, self.jobs)
            folder.save_training(asdict(stats))
            shape = "x".join(map(str, self.load_images(run).shape))
            save_weights(folder.path / WEIGHTS, model, {"key": run.key, "shape": shape})
            checkpoint.unlink(missing_ok=True)
        return model

    def _evaluate(self, run: Run, model: Model | Control | None) -> RunOutcome:
        """Take the pictures, measurements and snapshot measurements that are missing."""
        if not self.distributed.is_main_process:
            return RunOutcome("done")
        if model is None:
            return INTERRUPTED
        folder = self.folder(run)

        # The end of the training, unless a snapshot is selected instead.
        evaluation = self.evaluation(run, model, training_stats(folder.training()))
        problems = save_pictures(evaluation, folder)
        selects = run.role == "model" and self.snapshots.select is not None
        for component in [] if selects else lacking_metrics(folder.measurements(), self.metrics):
            if self.stop():
                return _outcome(problems, complete=False)
            self.callback.on_metric_start(run, component.name)
            problems += save_measurement(folder, component, measure(self.registry, component, evaluation))

        # Snapshots.
        if isinstance(model, Model) and self.snapshots.count:
            evaluator = SnapshotEvaluator(run, folder, self.snapshots, self.registry, self.callback, self.stop)
            problems += evaluator.evaluate(model, partial(self.evaluation, run, model), self.metrics)
            complete = not self.stop() or snapshots_measured(run, folder, self.snapshots, self.metrics)
            return _outcome(problems, complete=complete)
        return _outcome(problems, complete=True)

    def evaluation(
        self, run: Run, model: Model | Control, record: TrainingStats, split: Split = "test"
    ) -> DataEvaluation:
        """The evaluation of a trained run, or of a fitted control; one on the validation split holds no test image."""
        images, memory = self.load_images(run), self.memory
        if split == "validation":
            images, memory = without_test(images), memory.setdefault("of the validation split", {})
        evaluate: Callable[..., DataEvaluation]
        evaluate = partial(ControlEvaluation, model) if isinstance(model, Control) else partial(RunEvaluation, model)
        return evaluate(
            create_context(self.registry, run, images.shape),
            images,
            seed=run.seed,
            device=self.device,
            training=record,
            data_config=self.data_config,
            memory=memory,
            split=split,
        )

    def _failure(self, run: Run, error: Exception | SystemExit) -> RunOutcome:
        """Record the error that is being handled."""
        kind, message = describe_failure(error, run)
        where = "" if isinstance(error, GenbenchError) else error_location(error)
        failure = FailureRecord(SCHEMA, kind, message, traceback.format_exc(), where)
        if self.distributed.is_main_process and not isinstance(error, StoreError):
            self.folder(run).fail(failure)
        if self.distributed.world > 1 and not isinstance(error, GenbenchError):
            raise error  # the other processes may not have met it, and wait: torchrun ends them all
        release_memory()
        if isinstance(error, SystemFailureError):
            return RunOutcome("failed", str(error), stops=True)
        return RunOutcome("failed", failure.line)


def _outcome(problems: list[str], *, complete: bool) -> RunOutcome:
    if problems:
        return RunOutcome("failed", "; ".join(problems))
    return RunOutcome("done") if complete else INTERRUPTED


def data_facts(images: Images) -> dict[str, int | str]:
    """What a run's record says of its images: how many there are, how they were read, what a reader must know."""
    counts: dict[str, int | str] = {split: len(getattr(images, split)) for split in ("train", "test", "validation")}
    skipped = f"{images.skipped:,} corrupt or absent image{'s' * (images.skipped != 1)} left out (--skip-corrupt)"
    remarks = [skipped] * bool(images.skipped) + [describe_duplicates(images.duplicates, len(images.test))]
    texts = {"notes": "; ".join(images.notes), "remarks": "; ".join(filter(None, remarks))}
    return {**counts, "skipped": images.skipped, "duplicates": images.duplicates, **texts}


def load_images(registry: Registry, run: Run, data_config: DataConfig, callback: Callback) -> Images:
    """The dataset of a run, on the CPU."""
    return load_dataset(registry, run.dataset, replace(data_config, report=callback.on_data))
