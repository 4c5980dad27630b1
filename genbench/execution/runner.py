"""The wiring of a study: load the data once, then train, picture and measure each run that still needs it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genbench.api import Control, DataConfig, Images, Model, Split, TrainingStats
from genbench.data.images import without_test
from genbench.errors import GenbenchError, StoreError
from genbench.evaluation.controls import ControlEvaluation, fitted
from genbench.evaluation.evaluation import DataEvaluation, RunEvaluation
from genbench.evaluation.measure import picture
from genbench.evaluation.snapshots import SnapshotEvaluator, keep, restored, training_stats
from genbench.execution.beside import Detached, Rest, measure_all, rest_of
from genbench.execution.executors.serial import serial
from genbench.execution.messages import brief
from genbench.execution.scheduler import Engine, Outcome, WorkerSpec, carry_out, record_worker_failure
from genbench.experiment.build import create_context, create_dataset
from genbench.experiment.plan import Plan
from genbench.experiment.run import Component, Run
from genbench.experiment.snapshots import NO_SNAPSHOTS, SnapshotSchedule
from genbench.registry.loader import Registry
from genbench.storage.lock import RunLockedError, lock_run
from genbench.storage.run_dir import CHECKPOINT, WEIGHTS, RunFolder, RunRecord
from genbench.storage.schema import MetricRecord
from genbench.training.callbacks import LEFT, Callback
from genbench.training.checkpoint import save_weights
from genbench.training.device import explain, forget_peak_memory, release_memory
from genbench.training.distributed import DistributedContext
from genbench.training.flops import counted_flops
from genbench.training.setup import TrainingJob
from genbench.utils.torch_state import isolated


@dataclass(frozen=True)
class Runner:
    """Everything that the runs of one command share."""

    registry: Registry
    store: Path
    place: DataConfig
    device: torch.device
    provenance: Mapping[str, Any]
    listener: Callback
    stop: Callable[[], bool]
    distributed: DistributedContext = field(default_factory=DistributedContext)
    beside: bool | None = None
    """Whether a run is measured while the next one trains, as far as it can be; None: where a GPU trains, since on a
    CPU both would want the same cores."""
    jobs: int = 1
    """How many runs go on at once on this machine, this bench's among them."""

    def folder(self, run: Run) -> RunFolder:
        """Where a run lives."""
        return RunFolder(self.store / run.name)

    def missing(self, run: Run, metrics: tuple[Component, ...]) -> list[Component]:
        """The metrics that a run still lacks; one that failed counts as lacking."""
        return lacking_metrics(self.folder(run).measurements(), metrics)

    def complete(self, run: Run, plan: Plan, record: RunRecord | None = None) -> bool:
        """Whether nothing is left to do for a run, by its record where that was read."""
        known = record or self.folder(run)
        watch = plan.snapshots if run.role == "model" else NO_SNAPSHOTS  # a control has no snapshots
        if known.state != "trained":
            return False
        measurements = record.measurements if record else self.folder(run).measurements()
        if watch.select is None and lacking_metrics(measurements, plan.metrics):
            return False
        return not watch.count or self.follower(run, watch).settled(plan.metrics)

    def follower(self, run: Run, watch: SnapshotSchedule) -> SnapshotEvaluator:
        """Who measures the moments of a run's training."""
        return SnapshotEvaluator(run, self.folder(run), watch, self.registry, self.listener, self.stop)

    def conduct(self, plan: Plan, engine: Engine = serial, done: Collection[str] | None = None) -> Outcome:
        """Have the engine do what the plan still lacks; a run that fails is recorded and the others go on.

        `done` are the names of the runs that lack nothing, where that is known already.
        """
        outcome = Outcome()
        todo = []
        for run in plan.runs:
            if self.complete(run, plan) if done is None else run.name in done:
                outcome.skipped.append(run.name)
            else:
                todo.append(run)
        if not todo:
            return outcome
        with engine(self._site(plan, len(todo))) as executor:
            carry_out(executor, todo, lambda run: self.folder(run).state, self.listener, self.stop, outcome)
        return outcome

    def _site(self, plan: Plan, runs: int) -> WorkerSpec:
        """What an engine needs to know."""
        dataset, memory, content = create_dataset(self.registry, plan.runs[0].dataset), dict[str, Any](), ""

        def load() -> Images:
            nonlocal content
            images = dataset.load(replace(self.place, report=self.listener.preparing))
            content = images.sha256
            return images

        beside = self.device.type == "cuda" if self.beside is None else self.beside

        def attempt(run: Run, images: Images, later: Callable[[Rest], None]) -> str:
            return self.attempt(run, plan, images, memory, later=later if beside else None)

        def fail(run: Run, kind: str, message: str, trace: str) -> str:
            facts = {**self.provenance, "content": content}
            return record_worker_failure(self.folder(run), run, facts, kind, message, trace)

        plain = brief(
            self.registry, self.store, self.place, str(self.device), plan, str(self.provenance.get("command", ""))
        )
        return WorkerSpec(self.store, plain, runs, load, attempt, fail, self.stop)

    def attempt(
        self,
        run: Run,
        plan: Plan,
        images: Images,
        memory: dict[str, Any],
        *,
        held: bool = False,
        later: Callable[[Rest], None] | None = None,
    ) -> str:
        """Train and measure one run; "" or why it failed.

        `held` says that its folder is claimed for it already. `later` is given what is left of it that needs no model,
        if anything is; nothing is left without it.
        """
        with ExitStack() as claim:
            try:
                return self._attempt(run, plan, images, memory, claim, held, later)
            except (Exception, SystemExit) as error:  # a plug-in may raise anything; the other runs go on
                return self._problem(run, error)

    def _guarded(self, run: Run, work: Callable[[], str]) -> str:
        """What the work returns, or in one line why it failed, which is recorded."""
        try:
            return work()
        except (Exception, SystemExit) as error:
            return self._problem(run, error)

    def _problem(self, run: Run, error: Exception | SystemExit) -> str:
        """The error that is being handled in one line; it is recorded."""
        if isinstance(error, RunLockedError):
            return LEFT
        kind, message = explain(error, run)
        if not isinstance(error, StoreError):
            self.folder(run).fail(kind, message, traceback.format_exc())
        if self.distributed.world > 1 and not isinstance(error, GenbenchError):
            raise error  # the other processes may not have met it, and wait: torchrun ends them all
        release_memory()
        return f"{kind}: {message}"

    def _attempt(
        self,
        run: Run,
        plan: Plan,
        images: Images,
        memory: dict[str, Any],
        claim: ExitStack,
        held: bool,
        later: Callable[[Rest], None] | None,
    ) -> str:
        folder = self.folder(run)
        if not held:
            claim.enter_context(lock_run(folder.path))
        with isolated(self.device):
            begun = folder.begin(run.record(), {**self.provenance, "content": images.sha256})
            if begun.get("content") != images.sha256:
                raise StoreError(f"{folder.path} was begun on other data: move it away, or restore the dataset")
            folder.forget_failure()
            model: Model | Control | None
            if run.role == "control":
                model = fitted(self.registry, run, folder, images, self.device)
            else:
                model = self._train(run, folder, images, plan)
            if model is None:
                return ""
            self.listener.about(run)
            watched = isinstance(model, Model) and bool(plan.snapshots.count)
            lacking = [] if watched and plan.snapshots.select else self.missing(run, plan.metrics)
            aside = None if later is None else list[Detached]()
            problems = self._measure(run, model, folder, lacking, images, memory, aside)
            if isinstance(model, Model) and watched and not self.stop():
                evaluate = partial(self.evaluation, run, model, images=images, memory=memory)
                problems += self.follower(run, plan.snapshots).follow(model, evaluate, plan.metrics)
        if later is None or not aside:
            return "; ".join(problems)
        keys = [choice.key for choice in lacking]
        later(rest_of(aside, folder, keys, problems, claim.pop_all(), partial(self._guarded, run)))
        return ""

    def _train(self, run: Run, folder: RunFolder, images: Images, plan: Plan) -> Model | None:
        """The trained model, from its weights or by training; None where it was interrupted.

        The weights of snapshots are kept on the way.
        """
        job = TrainingJob(self.registry, run, images, self.device, self.distributed, plan.threads)
        snapshot_steps, checkpoint = plan.snapshots.steps(run)[:-1], folder.path / CHECKPOINT
        model = job.build_model()
        if folder.state == "trained":
            return restored(model, run, folder)
        step_flops = counted_flops(model, run.batch)
        forget_peak_memory(self.device)
        device_config, state = job.select_device_config(model), None
        self.distributed.broadcast(int(run.key, 16))  # the others train it too: see genbench.execution.accompany
        with job.start(model, device_config, checkpoint, stop=self.stop, snapshot_steps=snapshot_steps) as states:
            for state in states:
                folder.log(state.logged())
                self.listener.about(run)
                self.listener.trained(state)
                if state.step in snapshot_steps:
                    keep(folder, run, model, state, step_flops)
        if state is None or state.step < state.steps:
            return None
        stats = job.stats(model, state, device_config, step_flops, self.jobs)
        folder.save_training(asdict(stats))
        shape = "x".join(map(str, images.shape))
        save_weights(folder.path / WEIGHTS, model, {"key": run.key, "shape": shape})
        checkpoint.unlink(missing_ok=True)
        return model

    def _measure(
        self,
        run: Run,
        model: Model | Control,
        folder: RunFolder,
        metrics: list[Component],
        images: Images,
        memory: dict[str, Any],
        aside: list[Detached] | None,
    ) -> list[str]:
        """Take the pictures and the measurements that are missing; which metrics failed.

        Where there is an `aside`, what can be measured without the model is put there instead.
        """
        record = training_stats(folder.training())
        evaluation = self.evaluation(run, model, record, images=images, memory=memory)
        problems = picture(evaluation, folder)
        return problems + measure_all(self.registry, metrics, evaluation, folder, self.listener, self.stop, aside)

    def evaluation(
        self,
        run: Run,
        model: Model | Control,
        record: TrainingStats,
        split: Split = "test",
        *,
        images: Images,
        memory: dict[str, Any],
    ) -> DataEvaluation:
        """The evaluation of a trained run, or of a fitted control; one on the validation split holds no test image."""
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
            data_config=self.place,
            memory=memory,
            split=split,
        )


def lacking_metrics(measurements: Mapping[str, MetricRecord], metrics: tuple[Component, ...]) -> list[Component]:
    """The metrics that are not among the measurements; one that failed counts as lacking."""
    return [metric for metric in metrics if metric.key not in measurements or measurements[metric.key].error]
