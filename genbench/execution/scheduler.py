"""Where runs are done: the protocol of an executor, and the loop that has one do all that a plan lacks.

An engine is one file: `executors_serial`, `executors_local`, `executors_ray`. It moves work about
and owns no state: what is done, begun or failed stands in the run folders, and each run is claimed there before
anything is written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from genbench.api import Images
from genbench.errors import StoreError
from genbench.execution.beside import Rest
from genbench.execution.messages import moment_of
from genbench.experiment.run import Run
from genbench.storage.lock import RunLockedError, lock_run
from genbench.storage.run_dir import RunFolder
from genbench.training.callbacks import LEFT, Callback

WAIT_SECONDS = 0.5
"""How long a wait for news lasts at most: as long passes before a Ctrl-C is heard."""


@dataclass
class Outcome:
    """What became of a plan's runs, by name."""

    skipped: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    interrupted: bool = False


@dataclass(frozen=True)
class RunEvent:
    """Something that happened to the run `name`, as plain data.

    "began" has no facts, "trained" a `TrainState`'s fields, "measuring" the `metric`, "ended" the `problem` ("": none) and
    whether the run was `interrupted`, which leaves it to be resumed.
    """

    name: str
    kind: Literal["began", "trained", "measuring", "ended"]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Executor(Protocol):
    """An engine at work on one plan."""

    @property
    def capacity(self) -> int:
        """How many runs may be with the engine at once; it may grow and shrink."""

    def submit(self, run: Run) -> None:
        """Take a run; never called with `capacity` runs at hand."""

    def wait(self, seconds: float) -> list[RunEvent]:
        """The news since the last call, waiting for some at most so long, where the engine can.

        Every run that was submitted ends once, whatever becomes of its worker.
        """

    def cancel(self) -> None:
        """Have every run at work save its state and end as interrupted."""


@dataclass(frozen=True)
class WorkerSpec:
    """What an engine needs to know of the command and its plan.

    `brief` is plain JSON data from which a `genbench.execution.worker.WorkerContext` is made elsewhere. `load` decodes the images, on
    the CPU. `attempt` does a run in this process, (run, images on the device, later), and returns its problem in one
    line. What it hands to `later` is still to be done for the run, which has not ended until it is saved. `fail`
    records a run whose worker is gone, and returns the problem in one line: (run, kind, message, trace).
    """

    store: Path
    brief: Mapping[str, Any]
    runs: int
    load: Callable[[], Images]
    attempt: Callable[[Run, Images, Callable[[Rest], None]], str]
    fail: Callable[[Run, str, str, str], str]
    stop: Callable[[], bool]


Engine = Callable[[WorkerSpec], AbstractContextManager[Executor]]
"""Opens an executor; leaving the context ends every worker, whatever it is at."""


def carry_out(
    executor: Executor,
    todo: Sequence[Run],
    state: Callable[[Run], str],
    listener: Callback,
    stop: Callable[[], bool],
    outcome: Outcome,
) -> None:
    """Have the runs done in their order, as many at once as the executor takes; what became of them goes to `outcome`.

    When `stop()` turns true nothing more is begun, and the runs at work save their state.
    """
    waiting, at_work = deque(todo), dict[str, tuple[Run, str]]()
    begun, cancelled = 0, False
    while (waiting and not stop()) or at_work:
        while waiting and not stop() and len(at_work) < executor.capacity:
            run = waiting.popleft()
            at_work[run.name] = (run, state(run))
            executor.submit(run)
        if stop() and not cancelled:
            executor.cancel()
            cancelled = True
        for news in executor.wait(WAIT_SECONDS):
            run, before = at_work[news.name]
            listener.about(run)
            if news.kind == "began":
                begun += 1
                listener.began(begun, len(todo), run, before)
            elif news.kind == "trained":
                listener.trained(moment_of(news.facts))
            elif news.kind == "measuring":
                listener.measuring(news.facts["metric"])
            else:
                del at_work[news.name]
                _end(run, news.facts, listener, outcome)
    outcome.interrupted = outcome.interrupted or bool(waiting)


def _end(run: Run, facts: Mapping[str, Any], listener: Callback, outcome: Outcome) -> None:
    problem = facts["problem"]
    if facts["interrupted"]:
        outcome.interrupted = True
        if not problem:
            listener.paused(run)
            return
    listener.ended(run, problem)
    if problem == LEFT:
        outcome.left.append(run.name)
    elif problem:
        outcome.failed[run.name] = problem
    else:
        outcome.done.append(run.name)


def record_worker_failure(
    folder: RunFolder, run: Run, provenance: Mapping[str, Any], kind: str, message: str, trace: str
) -> str:
    """Record that a run's worker is gone; the problem in one line."""
    try:
        with lock_run(folder.path):
            folder.begin(run.record(), provenance)
            folder.fail(kind, message, trace)
    except RunLockedError:  # another command took it over
        return LEFT
    except StoreError as error:
        return f"{kind}: {message}; {error}"
    return f"{kind}: {message}"
