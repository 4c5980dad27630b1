"""The wiring of a study: load the data once, then train, picture and measure each run that still needs it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
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
from genbench.evaluation.snapshots import SnapshotEvaluator, keep, restored
from genbench.execution.beside import Detached, Rest, measure_all, rest_of
from genbench.execution.executors.serial import serial
from genbench.execution.messages import brief
from genbench.execution.scheduler import Attempt, Engine, Outcome, WorkerSpec, carry_out, record_worker_failure
from genbench.experiment.build import create_context, create_dataset
from genbench.experiment.plan import Plan
from genbench.experiment.run import Component, Run
from genbench.experiment.snapshots import NO_SNAPSHOTS, SnapshotSchedule
from genbench.registry.loader import Registry
from genbench.storage.lock import RunLockedError, lock_run
from genbench.storage.run_dir import CHECKPOINT, TRAINING, WEIGHTS, RunFolder
from genbench.storage.schema import SCHEMA
from genbench.training.callbacks import LEFT, Callback
from genbench.training.checkpoint import save_weights
from genbench.training.device import explain, forget_peak_memory, release_memory
from genbench.training.distributed import DistributedContext
from genbench.training.flops import counted_flops
from genbench.training.lanes import isolated
from genbench.training.setup import Clock, Training
from genbench.utils.io import write_json


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
    clock: Clock = field(default_factory=Clock)
    """Tells the seconds of trainings: those that have their turns in one process wait while another is measured."""

    def folder(self, run: Run) -> RunFolder:
        """Where a run lives."""
        return RunFolder(self.store / run.name)

    def missing(self, run: Run, metrics: tuple[Component, ...], folder: RunFolder | None = None) -> list[Component]:
        """The metrics that a run still lacks; one that failed counts as lacking."""
        found = (folder or self.folder(run)).measurements()
        return [metric for metric in metrics if metric.key not in found or found[metric.key].get("error")]

    def complete(self, run: Run, plan: Plan, folder: RunFolder | None = None) -> bool:
        """Whether nothing is left to do for a run."""
        folder = folder or self.folder(run)
        watch = plan.snapshots if run.role == "model" else NO_SNAPSHOTS  # a control has no moments
        lacking = bool(self.missing(run, plan.metrics, folder)) and watch.select is None
        if folder.state != "trained" or lacking:
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
            content = images.content
            return images

        beside = self.device.type == "cuda" if self.beside is None else self.beside

        def attempt(run: Run, images: Images, later: Callable[[Rest], None], together: int) -> Attempt:
            return self.attempt(run, plan, images, memory, later=later if beside else None, together=together)

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
        together: int = 1,
    ) -> Attempt:
        """Train and measure one run, pausing between any two steps of its training; "" or why it failed.

        `held` says that its folder is claimed for it already, `together` how many have their turns in this process.
        `later` is given what is left of it that needs no model, if anything is; nothing is left without it.
        """
        with ExitStack() as claim:
            try:
                return (yield from self._attempt(run, plan, images, memory, claim, held, later, together))
            except (Exception, SystemExit) as error:  # a plug-in may raise anything; the other runs go on
                return self._problem(run, error, together)

    def _guarded(self, run: Run, work: Callable[[], str]) -> str:
        """What the work returns, or in one line why it failed, which is recorded."""
        try:
            return work()
        except (Exception, SystemExit) as error:
            return self._problem(run, error)

    def _problem(self, run: Run, error: Exception | SystemExit, together: int = 1) -> str:
        """The error that is being handled in one line; it is recorded."""
        if isinstance(error, RunLockedError):
            return LEFT
        kind, message = explain(error, run, together)
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
        together: int,
    ) -> Attempt:
        folder = self.folder(run)
        if not held:
            claim.enter_context(lock_run(folder.path))
        with isolated(self.device):
            folder.begin(run.record(), {**self.provenance, "content": images.content})
            if folder.record()["provenance"].get("content") != images.content:
                raise StoreError(f"{folder.path} was begun on other data: move it away, or restore the dataset")
            folder.forget_failure()
            model: Model | Control | None
            if run.role == "control":
                model = fitted(self.registry, run, folder, images, self.device)
            else:
                model = yield from self._train(run, folder, images, plan.snapshots, together)
            if model is None:
                return ""
            self.listener.about(run)
            watched = isinstance(model, Model) and bool(plan.snapshots.count)
            lacking = [] if watched and plan.snapshots.select else self.missing(run, plan.metrics)
            aside = None if later is None else list[Detached]()
            with self.clock.standing():
                problems = self._measure(run, model, folder, lacking, images, memory, aside)
                if isinstance(model, Model) and watched and not self.stop():
                    evaluate = partial(self.evaluation, run, model, images=images, memory=memory)
                    problems += self.follower(run, plan.snapshots).follow(model, evaluate, plan.metrics)
        if later is None or not aside:
            return "; ".join(problems)
        keys = [choice.key for choice in lacking]
        later(rest_of(aside, folder, keys, problems, claim.pop_all(), partial(self._guarded, run)))
        return ""

    def _train(
        self, run: Run, folder: RunFolder, images: Images, watch: SnapshotSchedule, together: int
    ) -> Generator[None, None, Model | None]:
        """The trained model, from its weights or by training; None where it was interrupted.

        The weights of the watched moments are kept on the way. It pauses between steps.
        """
        training, moment = Training(self.registry, run, images, self.device, self.distributed), None
        marks, checkpoint = watch.steps(run)[:-1], folder.path / CHECKPOINT
        with self.clock.standing():
            model = training.untrained()
            if folder.state == "trained":
                return restored(model, run, folder)
            step_flops = counted_flops(model, run.batch)
            forget_peak_memory(self.device)
            arrangement = training.select_device_config(model)
        self.distributed.agree(int(run.key, 16))  # the others begin to train it too: see genbench.execution.accompany
        with training.begun(model, arrangement, checkpoint, stop=self.stop, marks=marks, clock=self.clock) as steps:
            for moment in steps:
                if moment is None:
                    yield
                    continue
                with self.clock.standing():
                    folder.log(moment.logged())
                    self.listener.about(run)
                    self.listener.trained(moment)
                    if moment.step in marks:
                        keep(folder, run, model, moment, step_flops)
        if moment is None or moment.step < moment.steps:
            return None
        record = training.record(model, moment, arrangement, step_flops, together, self.jobs)
        write_json(folder.path / TRAINING, {"schema": SCHEMA, **asdict(record)})
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
        known = {name.name for name in fields(TrainingStats)}
        record = TrainingStats(**{name: value for name, value in folder.training().items() if name in known})
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
            place=self.place,
            memory=memory,
            split=split,
        )
