"""One run, or an ensemble of them, in this process: lock, train, evaluate, save. Knows no executor."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from genbench.api import Control, DataConfig, Images, Model, Split, TrainingStats
from genbench.data.images import describe_duplicates, without_test
from genbench.errors import DivergenceError, GenbenchError, StoreError, SystemFailureError
from genbench.evaluation.controls import ControlEvaluation, fit_control
from genbench.evaluation.evaluation import DataEvaluation, RunEvaluation
from genbench.evaluation.external import ExternalEvaluation, ExternalResults, load_results
from genbench.evaluation.measure import measure, replace_measurement, save_measurement, save_pictures
from genbench.evaluation.snapshots import (
    SnapshotEvaluator,
    is_paused,
    lacking_metrics,
    restore_model,
    save_snapshot,
    snapshots_measured,
    training_stats,
)
from genbench.execution.background import Background, MeasuredRun, Measuring
from genbench.experiment.build import create_context, create_prior, load_dataset, replaced_defaults
from genbench.experiment.run import NONE, Component, Run
from genbench.experiment.snapshots import NO_SNAPSHOTS, SnapshotSchedule
from genbench.registry.loader import Registry
from genbench.storage.lock import RunLockedError, lock_run
from genbench.storage.run_dir import CHECKPOINT, DEFAULTS, WEIGHTS, RunFolder
from genbench.storage.schema import SCHEMA, FailureRecord
from genbench.training.callbacks import LOCKED, Callback, NullCallback
from genbench.training.checkpoint import save_weights, steps_done
from genbench.training.device import describe_failure, on_device, release_memory, reset_peak_memory
from genbench.training.distributed import DistributedContext
from genbench.training.flops import counted_flops
from genbench.training.loop import TrainState
from genbench.training.precision import using_tf32
from genbench.training.setup import EnsembleJob, TrainingJob
from genbench.training.step import ALONE
from genbench.utils.plugin_code import describe_error, error_location
from genbench.utils.torch_state import isolated


@dataclass(frozen=True)
class RunOutcome:
    """The end of one run; `problem` is one line, empty unless it failed or is locked by another process."""

    status: Literal["done", "failed", "interrupted", "locked", "measuring"]
    """measuring: its last measurements go on in the background, and `Runner.finished` has its end."""
    problem: str = ""
    stops: bool = False
    """Whether every further run would fail alike."""


INTERRUPTED = RunOutcome("interrupted")
MEASURING = RunOutcome("measuring")

Evaluated = Model | Control | ExternalResults
"""What metrics measure."""


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
    ensemble: int | Literal["auto"] = 1
    """The most runs that are trained as one tensor program; auto: all that can, where that is measured to be faster."""
    locks: bool = True
    """False where the command that sent the runs holds their locks."""
    images: Images | None = None
    """The dataset on the device; None: loaded for the first run."""
    memory: dict[str, Any] = field(default_factory=dict)
    """Shared by the evaluations of all runs."""
    background: Background | None = None
    """Measures on threads while the next run trains, where a GPU trains; else None."""
    _finished: list[tuple[Run, RunOutcome]] = field(default_factory=list)

    def folder(self, run: Run) -> RunFolder:
        """The folder of a run."""
        return RunFolder(self.store / run.name)

    def run(self, run: Run, *, begun: bool = False, alone: str = "") -> RunOutcome:
        """Train and evaluate the run, as far as it is not done; a failure is recorded and returned.

        `begun`: its start was reported before. `alone` is why it is not trained in an ensemble, for its log.
        """
        self._save_measured()
        with ExitStack() as lock:
            try:
                trains = self._begin(run, lock, begun=begun)
                if trains is None and not begun:
                    return INTERRUPTED
                with isolated(self.device):
                    model = None if trains is None else self._train(run, alone) if trains else self._restore(run)
                    with using_tf32(False, self.device):  # protocols say float32
                        outcome = self._evaluate(run, model, lock)
            except RunLockedError:
                outcome = RunOutcome("locked", LOCKED)
            except (Exception, SystemExit) as error:  # a plug-in may raise anything; the other runs go on
                outcome = self._failure(run, error)
        if self.distributed.is_main_process and outcome is not MEASURING:
            self.callback.on_run_end(run, outcome.status, outcome.problem)
        return outcome

    def finished(self, *, all_of_them: bool = False) -> list[tuple[Run, RunOutcome]]:
        """The runs that have ended in the background since the last call; waits for all of them, if it is asked to."""
        self._save_measured(all_of_them=all_of_them)
        finished, self._finished = self._finished, []
        return finished

    def _save_measured(self, *, all_of_them: bool = False) -> None:
        """Save and report the runs whose measurements in the background have ended."""
        if self.background is None:
            return
        for measured in self.background.ended(self.stop, all_of_them=all_of_them):
            run, folder = measured.run, self.folder(measured.run)
            with measured.lock:
                try:
                    outcome = self._save_measurements(folder, measured)
                except (Exception, SystemExit) as error:
                    outcome = self._failure(run, error)
            self.callback.on_run_end(run, outcome.status, outcome.problem)
            self._finished.append((run, outcome))

    def _save_measurements(self, folder: RunFolder, measured: MeasuredRun) -> RunOutcome:
        """Save the measurements of a run in the order of the metrics."""
        entries, problems = folder.measurements(), [measured.problem] * bool(measured.problem)
        for component, future in measured.measuring.items():
            if not future.cancelled():
                entry = future.result()
                entries = replace_measurement(entries, component, entry)
                problems += [f"{component.name}: {entry.error}"] if entry.error else []
        order = {component.key: place for place, component in enumerate(self.metrics)}
        folder.save_measurements(dict(sorted(entries.items(), key=lambda item: order.get(item[0], -1))))
        cancelled = any(future.cancelled() for future in measured.measuring.values())
        return _outcome(problems, complete=measured.complete and not cancelled)

    def run_ensemble(self, runs: Sequence[Run]) -> list[RunOutcome]:
        """Do several runs, and train those that are not trained as one tensor program; the outcomes in their order.

        Where they cannot be stacked, runs whose options differ are divided by their options; others go one after
        another, and their logs say why. Each run's folder, and its evaluation, is that of `run`.
        """
        ended: dict[str, RunOutcome | None] = {}
        reasons: dict[str, str] = {}
        groups = self._ensembles(runs)
        for members in groups:
            try:
                self._train_ensemble(members, ended)
            except (Exception, SystemExit) as error:  # of a plug-in, or for want of memory: alone they may well run
                release_memory()
                reasons |= dict.fromkeys((run.name for run in members), describe_error(error))
                options = dict.fromkeys(run.model for run in members)
                if len(options) > 1 and ended.keys().isdisjoint(run.name for run in members):
                    groups += [[run for run in members if run.model == model] for model in options]
        return [
            ended.get(run.name) or self.run(run, begun=run.name in ended, alone=reasons.get(run.name, ""))
            for run in runs
        ]

    def _ensembles(self, runs: Sequence[Run]) -> list[list[Run]]:
        """The runs that lack their training, those together whose checkpoints are of the same step."""
        groups: dict[int, list[Run]] = {}
        for run in runs:
            folder = self.folder(run)
            if self._lacks_training(run):
                try:
                    step = steps_done(folder.path / CHECKPOINT) if folder.has(CHECKPOINT) else 0
                except StoreError:
                    continue  # its own training reports it
                groups.setdefault(step, []).append(run)
        return list(groups.values())

    def _train_ensemble(self, runs: Sequence[Run], ended: dict[str, RunOutcome | None]) -> None:
        """Train runs as one tensor program; `ended` gets the outcome of each that was begun, None where it is trained.

        Raises `EnsembleError`, or what a plug-in raises, where that cannot be done, or not to the end.
        """
        if len(runs) < 2 or self.distributed.world > 1:
            return

        # Set up. Nothing is written where the runs cannot be stacked.
        job = EnsembleJob([self._job(run) for run in runs])
        with isolated(self.device), ExitStack() as locks:
            models = job.build_models()
            draws = job.check(models, measured=self.ensemble == "auto")

            # Lock.
            members: dict[int, Run] = {}
            for k, run in enumerate(runs):
                try:
                    trains = self._begin(run, locks)
                except RunLockedError:
                    self._end_member(run, RunOutcome("locked", LOCKED), ended)
                except (Exception, SystemExit) as error:
                    self._end_member(run, self._failure(run, error), ended)
                else:
                    ended[run.name] = INTERRUPTED if trains is None else None
                    if trains:
                        members[k] = run
            if not members:
                return

            # Train; log, keep snapshots, and let go of those that have diverged.
            checkpoints = [self.folder(run).path / CHECKPOINT for run in runs]
            snapshot_steps, pause = self.snapshots.kept(runs[0]), self.snapshots.pause(runs[0])
            states: dict[int, TrainState] = {}
            begun = list(members)
            with job.start(
                models, begun, draws, checkpoints, stop=self.stop, snapshot_steps=snapshot_steps, pause=pause
            ) as points:
                for point in points:
                    for index, state in point.items():
                        run = members[k := begun[index]]
                        if isinstance(state, DivergenceError):
                            self._end_member(members.pop(k), self._failure(run, state), ended)
                            continue
                        states[k] = state
                        self.folder(run).log(state.logged())
                        self.callback.on_log(run, state)
                        self._save_measured()
                        if state.step == pause:
                            self.folder(run).save_training(asdict(job.stats(models[k], state, self.jobs)))
                        if state.step in snapshot_steps:
                            save_snapshot(self.folder(run), run, models[k], state, job.step_flops)

            # Save.
            for k, run in members.items():
                if states[k].step < (pause or states[k].steps):
                    self._end_member(run, INTERRUPTED, ended)
                elif pause is None:
                    self._save(run, models[k], job.stats(models[k], states[k], self.jobs))

    def _end_member(self, run: Run, outcome: RunOutcome, ended: dict[str, RunOutcome | None]) -> None:
        """Report the end of a run whose training did not come to its end."""
        ended[run.name] = outcome
        self.callback.on_run_end(run, outcome.status, outcome.problem)

    def _begin(self, run: Run, lock: ExitStack, *, begun: bool = False) -> bool | None:
        """Lock and begin the folder. In every process: whether the run needs training, or None after a stop."""
        trains: bool | None = None
        try:
            if self.distributed.is_main_process and not self.stop():
                folder = self.folder(run)
                if not begun:
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
                recorded = folder.begin(run.record(), {**self.provenance, **facts})
                if recorded.get("content") != content:
                    raise StoreError(f"{folder.path} was begun on other data: move it away, or restore the dataset")
                folder.clear_failure()
                trains = self._lacks_training(run)
        finally:  # the other processes wait for this
            answers = (None, False, True)
            trains = answers[self.distributed.broadcast(answers.index(trains))]
        return trains

    def _lacks_training(self, run: Run) -> bool:
        """Whether steps are left to do, as far as the schedule goes."""
        folder = self.folder(run)
        return run.trains and folder.state != "trained" and not is_paused(run, folder, self.snapshots)

    def load_images(self, run: Run) -> Images:
        """The dataset of a run on the device, loaded once."""
        if self.images is None:
            self.images = on_device(load_images(self.registry, run, self.data_config, self.callback), self.device)
        return self.images

    def _restore(self, run: Run) -> Evaluated | None:
        """The trained model of a finished training, a fitted control or results; only the main process needs one.

        A training that has paused has snapshots alone, whose weights are loaded when they are measured.
        """
        if not self.distributed.is_main_process:
            return None
        images, folder = self.load_images(run), self.folder(run)
        if run.role == "external":
            return load_results(folder, run.key)
        if run.role == "control":
            return fit_control(self.registry, run, folder, images, self.device)
        model = self._job(run).build_model()
        return restore_model(model, run, folder) if folder.state == "trained" else model

    def _job(self, run: Run) -> TrainingJob:
        images = self.load_images(run)
        return TrainingJob(self.registry, run, images, self.device, self.distributed, self.threads)

    def _train(self, run: Run, alone: str = "") -> Model | None:
        """The trained model, or the one at the pause; None where the training was interrupted.

        Snapshots are kept on the way. What the training cost is saved before the weights of the pause, which say that
        nothing is left to do.
        """
        folder, state = self.folder(run), None
        snapshot_steps, pause = self.snapshots.kept(run), self.snapshots.pause(run)
        checkpoint = folder.path / CHECKPOINT

        # Set up.
        job = self._job(run)
        model = job.build_model()
        step_flops = counted_flops(model, run.batch)
        reset_peak_memory(self.device)
        device_config = job.select_device_config(model)

        # Train; log, and keep snapshots.
        with job.start(
            model, device_config, checkpoint, stop=self.stop, snapshot_steps=snapshot_steps, pause=pause
        ) as states:
            for state in states:
                if not self.distributed.is_main_process:
                    continue
                if alone:
                    state = replace(state, how=f"{state.how}{ALONE}{alone}")
                folder.log(state.logged())
                self.callback.on_log(run, state)
                self._save_measured()
                if state.step == pause:
                    stats = job.stats(model, state, device_config, step_flops, self.jobs)
                    folder.save_training(asdict(stats))
                if state.step in snapshot_steps:
                    save_snapshot(folder, run, model, state, step_flops)
        if state is None or state.step < (pause or state.steps):
            return None

        # Save.
        if self.distributed.is_main_process and pause is None:
            self._save(run, model, job.stats(model, state, device_config, step_flops, self.jobs))
        return model

    def _save(self, run: Run, model: Model, stats: TrainingStats) -> None:
        """Save a trained model and the cost of its training."""
        folder = self.folder(run)
        folder.save_training(asdict(stats))
        shape = "x".join(map(str, self.load_images(run).shape))
        save_weights(folder.path / WEIGHTS, model, {"key": run.key, "shape": shape})
        (folder.path / CHECKPOINT).unlink(missing_ok=True)

    def _evaluate(self, run: Run, model: Evaluated | None, lock: ExitStack) -> RunOutcome:
        """Take the pictures, measurements and snapshot measurements that are missing.

        Where measurements go on in the background, they take the lock over, and the outcome is `MEASURING`.
        """
        if not self.distributed.is_main_process:
            return RunOutcome("done")
        if model is None:
            return INTERRUPTED
        folder = self.folder(run)

        # The end of the training, unless a snapshot is selected instead. A trial is measured on validation images.
        stats = None if isinstance(model, ExternalResults) else training_stats(folder.training())
        trial = run.role == "trial"
        evaluation = self.evaluation(run, model, stats, "validation" if trial else "test")
        problems = [] if trial else save_pictures(evaluation, folder)
        selects = trial or (run.role == "model" and self.snapshots.select is not None)
        complete, measuring = True, Measuring()
        for component in [] if selects else lacking_metrics(folder.measurements(), self.metrics):
            complete = not self.stop()
            if not complete:
                break
            self.callback.on_metric_start(run, component.name)
            if self.background is not None:
                future = self.background.measure(self.registry, component, evaluation)
                if future is not None:
                    measuring[component] = future
                    continue
            problems += save_measurement(folder, component, measure(self.registry, component, evaluation))

        # Snapshots.
        if complete and isinstance(model, Model) and self.snapshots.count:
            evaluator = SnapshotEvaluator(run, folder, self.snapshots, self.registry, self.callback, self.stop)
            problems += evaluator.evaluate(model, partial(self.evaluation, run, model), self.metrics)
            complete = not self.stop() or snapshots_measured(run, folder, self.snapshots, self.metrics)
        outcome = _outcome(problems, complete=complete)
        if self.background is None or not measuring:
            return outcome
        self.callback.on_metric_start(run, ", ".join(component.name for component in measuring))
        self.background.add(MeasuredRun(run, measuring, outcome.problem, complete, lock.pop_all()))
        return MEASURING

    def evaluation(
        self, run: Run, model: Evaluated, record: TrainingStats | None, split: Split = "test"
    ) -> DataEvaluation:
        """The evaluation of a trained run, a fitted control or results; one on validation images holds no test image.

        `record` is the cost of the training, None where it is not known.
        """
        images, memory = self.load_images(run), self.memory
        if split == "validation":
            images, memory = without_test(images), memory.setdefault("of the validation split", {})
        evaluate: Callable[..., DataEvaluation]
        if isinstance(model, ExternalResults):
            evaluate = partial(
                ExternalEvaluation, model, None if run.prior == NONE else create_prior(self.registry, run)
            )
        else:
            context = create_context(self.registry, run, images.shape)
            own = partial(ControlEvaluation, model) if isinstance(model, Control) else partial(RunEvaluation, model)
            evaluate = partial(own, context, training=record)
        return evaluate(
            images,
            seed=run.seed,
            device=self.device,
            data_config=replace(self.data_config, report=self.callback.on_data),
            memory=memory,
            split=split,
        )

    def _failure(self, run: Run, error: Exception | SystemExit) -> RunOutcome:
        """Record the error of a run."""
        kind, message = describe_failure(error, run)
        where = "" if isinstance(error, GenbenchError) else error_location(error)
        failure = FailureRecord(SCHEMA, kind, message, "".join(traceback.format_exception(error)), where)
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
