"""Does all runs of a plan by an executor: submits what is missing and records failures, while the other runs go on.

An executor has the interface of `concurrent.futures` and holds no state of the study. Run folders record which runs
are done, begun or failed, and each run is locked there before anything is written. Progress needs no messages: runs in
other processes are followed by their `log.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from genbench.errors import StoreError, SystemFailureError, one_line
from genbench.evaluation.snapshots import is_paused, lacking_metrics, snapshots_measured
from genbench.execution.runner import Runner, RunOutcome
from genbench.experiment.plan import Plan
from genbench.experiment.run import Run
from genbench.experiment.snapshots import NO_SNAPSHOTS
from genbench.storage.lock import RunLockedError, lock_run
from genbench.storage.run_dir import LOG, RUN, Protocols, RunFolder, RunRecord, State, read_run
from genbench.storage.schema import SCHEMA, FailureRecord
from genbench.training.callbacks import LOCKED, Callback, NullCallback
from genbench.training.loop import TrainState

POLL_SECONDS = 0.25
"""The interval at which runs in other processes, and Ctrl-C, are looked for."""


class Executor(Protocol):
    """Trains and evaluates runs, in this process or elsewhere."""

    in_process: bool
    """Whether `submit` does the runs itself; its Runner then calls back."""

    def submit(self, runs: Sequence[Run]) -> Future[list[RunOutcome]]:
        """Take one unit of work: a run, or several for `Runner.run_ensemble`; the future has an outcome for each.

        It raises `WorkerError` where the worker died.
        """

    def interrupt(self) -> None:
        """Have every running run save its state and end as interrupted; those that wait are not begun."""

    def shutdown(self) -> None:
        """End every worker at once."""


class WorkerError(Exception):
    """The worker of a run died, or was killed after its time.

    `output` is the end of what it printed. It `stops` the study where no worker can start.
    """

    def __init__(self, kind: str, message: str, output: str = "", *, stops: bool = False) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.message, self.output, self.stops = kind, message, output, stops


@dataclass
class Outcome:
    """The names of a plan's runs by how they ended."""

    skipped: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    locked: list[str] = field(default_factory=list)
    interrupted: bool = False
    stopped: str = ""
    """The problem that ended the study, since every further run would meet it."""

    def add(self, run: Run, ended: RunOutcome) -> None:
        """Add a run that has ended."""
        match ended.status:
            case "done":
                self.done.append(run.name)
            case "failed":
                self.failed[run.name] = ended.problem
                self.stopped = self.stopped or (ended.problem if ended.stops else "")
            case "locked":
                self.locked.append(run.name)
            case "interrupted":
                self.interrupted = True


def run_all(plan: Plan, executor: Executor, runner: Runner, done: Collection[str] | None = None) -> Outcome:
    """Train and evaluate the runs of a plan that are not done, until the runner's `stop()`.

    Args:
        plan: The runs and what is measured of each.
        executor: Where runs are done.
        runner: The runner of this process, which says where the store is, what to call back and when to stop.
        done: Names of the runs that lack nothing, where that is known already.
    """
    # Submit. An executor in this process does the work here.
    outcome, followed = Outcome(), dict[Future[list[RunOutcome]], list[RunFollower]]()
    done = run_status(plan, runner.store).done if done is None else done
    callback = NullCallback() if executor.in_process else runner.callback
    outcome.skipped = [run.name for run in plan.runs if run.name in done]
    for runs in units([run for run in plan.runs if run.name not in done], runner.ensemble):
        followers = [RunFollower(run, runner.folder(run), callback) for run in runs]
        future = executor.submit(runs)
        followed[future] = followers
        if executor.in_process:
            for run, ended in runner.finished():
                outcome.add(run, ended)
            if outcome.stopped or any(ended.stops for ended in future.result()):
                break

    # Follow.
    interrupted = False
    while followed:
        if (runner.stop() or outcome.stopped) and not interrupted:
            executor.interrupt()
            interrupted = True
        finished, _ = wait(followed, POLL_SECONDS, FIRST_COMPLETED)
        for future, followers in list(followed.items()):
            for follower in followers:
                follower.poll(future, starts=not interrupted)  # one that waited ends at once, without having begun
            if future in finished:
                del followed[future]
                for follower, ended in zip(followers, _ended(future, followers, plan, runner.provenance), strict=True):
                    follower.end(ended)
                    outcome.add(follower.run, ended)
    for run, ended in runner.finished(all_of_them=True):
        outcome.add(run, ended)
    return outcome


def units(runs: Sequence[Run], ensemble: int | Literal["auto"]) -> list[tuple[Run, ...]]:
    """The runs in units of work: those that may be an ensemble together, of `ensemble` members at most.

    They may differ in their seeds and in options of the model that are floats. Each unit is at the place of its first
    run, and units of one kind have equal sizes, as far as possible.
    """
    kinds: dict[Run, list[Run]] = {}
    for run in runs:
        kinds.setdefault(run if not run.trains or ensemble == 1 else ensemble_kind(run), []).append(run)
    made: list[tuple[Run, ...]] = []
    for members in kinds.values():
        count = 1 if ensemble == "auto" else -(-len(members) // ensemble)
        size = -(-len(members) // count)
        made += [tuple(members[start : start + size]) for start in range(0, len(members), size)]
    place = {run: index for index, run in enumerate(runs)}
    return sorted(made, key=lambda members: place[members[0]])


def ensemble_kind(run: Run) -> Run:
    """The run without what members of an ensemble may differ in."""
    options = tuple((name, 0.0 if isinstance(value, float) else value) for name, value in run.model.options)
    return replace(run, seed=0, model=replace(run.model, options=options))


def _ended(
    future: Future[list[RunOutcome]], followers: Sequence[RunFollower], plan: Plan, provenance: Mapping[str, Any]
) -> list[RunOutcome]:
    try:
        return future.result()
    except WorkerError as raised:
        error = raised
    except Exception as raised:  # of the executor's library
        error = WorkerError("worker failed", one_line(raised))
    outcomes = []
    for follower in followers:
        run, folder = follower.run, follower.folder
        if folder.has(RUN) and is_complete(run, plan, read_run(folder.path)):  # another one of the same worker failed
            outcomes.append(RunOutcome("done"))
        else:
            outcomes.append(record_worker_failure(folder, run, provenance, error))
    return outcomes


def record_worker_failure(folder: RunFolder, run: Run, provenance: Mapping[str, Any], error: WorkerError) -> RunOutcome:
    """Record a run whose worker is gone."""
    try:
        with lock_run(folder.path):
            folder.begin(run.record(), provenance)
            folder.fail(FailureRecord(SCHEMA, error.kind, error.message, error.output))
    except RunLockedError:  # another command took it over
        return RunOutcome("locked", LOCKED)
    except StoreError as problem:
        return RunOutcome("failed", f"{error}; {problem}", stops=error.stops or isinstance(problem, SystemFailureError))
    return RunOutcome("failed", str(error), stops=error.stops)


class RunFollower:
    """Calls back for a run in another process, by its future and the log in its folder."""

    def __init__(self, run: Run, folder: RunFolder, callback: Callback) -> None:
        self.run, self.folder, self._callback = run, folder, callback
        self._state, self._started = folder.state, False
        self._log = folder.path / LOG
        self._read = self._log.stat().st_size if self._log.exists() else 0

    def poll(self, future: Future[list[RunOutcome]], *, starts: bool = True) -> None:
        """Call back for the start of the run and for its new log points."""
        if starts and not self._started and future.running():
            self._start()
        self._log_states()

    def end(self, outcome: RunOutcome) -> None:
        """Call back for the end of the run, unless it was interrupted before its start.

        A short run may end before it was seen running: its log points are read now.
        """
        if not self._started and outcome.status != "interrupted":
            self._start()
        self._log_states()
        if self._started:
            self._callback.on_run_end(self.run, outcome.status, outcome.problem)

    def _log_states(self) -> None:
        """Call back for new log points of a run that has started."""
        if self._started:
            for state in self._states():
                self._callback.on_log(self.run, state)

    def _start(self) -> None:
        self._started = True
        self._callback.on_run_start(self.run, self._state)

    def _states(self) -> list[TrainState]:
        """The log points since the last call; the last line may be half written yet."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except OSError:
            return []
        lines = content[: content.rfind(b"\n") + 1]
        self._read += len(lines)
        steps = -(-self.run.images // self.run.batch)
        return [TrainState(steps=steps, **json.loads(line)) for line in lines.splitlines()]


# ---------------------------------------------------------------- what is left to do


@dataclass(frozen=True)
class RunStatus:
    """The state of each run of a plan by its name, and the records of all where nothing is left to do."""

    states: Mapping[str, State | Literal["done"]]
    records: Sequence[RunRecord]

    @cached_property
    def done(self) -> frozenset[str]:
        """The names of the runs that lack nothing."""
        return frozenset(name for name, state in self.states.items() if state == "done")


def run_status(plan: Plan, store: Path) -> RunStatus:
    """Read the runs of a plan, each once; `StoreError` where the records of one are damaged.

    The records are returned where every run is done, since a table follows at once. Otherwise they are dropped: they
    would take memory for hours, and be outdated after the training.
    """
    protocols: Protocols = {}
    states: dict[str, State | Literal["done"]] = {}
    records: list[RunRecord] = []
    for run in plan.runs:
        path = store / run.name
        record = read_run(path, protocols) if (path / RUN).exists() else None
        complete = record is not None and is_complete(run, plan, record)
        states[run.name] = "done" if complete else "new" if record is None else record.state
        if record is not None and complete and len(records) + 1 == len(states):
            records.append(record)
        else:
            records.clear()
    return RunStatus(states, records)


def is_complete(run: Run, plan: Plan, record: RunRecord) -> bool:
    """Whether nothing is left to do for a run."""
    schedule = plan.snapshots if run.trains else NO_SNAPSHOTS  # a control has no snapshots
    if record.state != "trained" and not is_paused(run, record.folder, schedule):
        return False
    if schedule.select is None and lacking_metrics(record.measurements, plan.metrics):
        return False
    return not schedule.count or snapshots_measured(run, record.folder, schedule, plan.metrics)
