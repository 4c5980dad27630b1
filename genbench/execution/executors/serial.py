"""One run after another in this process; what of a run can do without its model goes on beside the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from genbench.execution.background import Background, Finished
from genbench.execution.beside import Rest
from genbench.execution.scheduler import RunEvent, WorkerSpec
from genbench.experiment.run import Run
from genbench.storage.schema import MetricRecord
from genbench.training.device import on_device


class Rests:
    """Trained runs of which only measurements are left that need no model: they are taken on a thread."""

    def __init__(self, tasks: Background[list[MetricRecord]]) -> None:
        """None yet."""
        self._tasks = tasks
        self._left: dict[str, tuple[Rest, bool]] = {}  # and whether the run was interrupted
        self._awaited = ""

    def __len__(self) -> int:
        """How many runs."""
        return len(self._left)

    def end(self, name: str, problem: str, rests: Sequence[Rest], stopped: bool) -> list[RunEvent]:
        """How a run ended, where nothing is left of it; else how earlier ones did, if this had to wait for them."""
        if not rests:
            return [RunEvent(name, "ended", {"problem": problem, "interrupted": stopped})]
        (rest,) = rests
        self._left[name] = (rest, stopped)
        return [self._save(finished) for finished in self._tasks.give(name, rest.task())]

    def ready(self) -> list[RunEvent]:
        """How those ended that are measured."""
        return [self._save(finished) for finished in self._tasks.ready()]

    def wait(self) -> list[RunEvent]:
        """That the oldest run is still being measured; then how it ended."""
        name, (rest, _) = next(iter(self._left.items()))
        if self._awaited != name:
            self._awaited = name
            return [RunEvent(name, "measuring", {"metric": rest.names})]
        return [self._save(next(self._tasks.rest()))]

    def drop(self) -> None:
        """Give free the folders of runs whose measurements will not be saved: the same command measures them."""
        for rest, _ in self._left.values():
            rest.claim.close()

    def _save(self, finished: Finished[list[MetricRecord]]) -> RunEvent:
        rest, stopped = self._left.pop(finished.name)
        return RunEvent(finished.name, "ended", {"problem": rest.save(finished), "interrupted": stopped})


class Serial:
    """The executor that is this process: waiting for news is doing the work."""

    def __init__(self, site: WorkerSpec, rests: Rests) -> None:
        self._site, self._rests = site, rests
        self._images = on_device(site.load(), torch.device(site.brief["device"]))
        self._run: Run | None = None
        self._began = False

    @property
    def capacity(self) -> int:
        """One run in training, beside those of which only measurements are left."""
        return 1 + len(self._rests)

    def submit(self, run: Run) -> None:
        """Keep the run for `wait`."""
        self._run, self._began = run, False

    def wait(self, seconds: float) -> list[RunEvent]:
        """First that the run began; then, however long it takes, how it ended, or how an earlier one did."""
        if self._run is None:
            return self._rests.wait()
        if not self._began:
            self._began = True
            return [*self._rests.ready(), RunEvent(self._run.name, "began")]
        run, rests = self._run, list[Rest]()
        self._run = None
        problem = self._site.attempt(run, self._images, rests.append)
        return self._rests.end(run.name, problem, rests, self._site.stop())

    def cancel(self) -> None:
        """Nothing: the run at work asks `stop` itself, and what goes on beside it takes seconds."""


@contextmanager
def rests_kept() -> Iterator[Rests]:
    """Rests, and at the end no thread and no claim of them."""
    with Background[list[MetricRecord]]() as tasks:
        rests = Rests(tasks)
        try:
            yield rests
        finally:
            rests.drop()


@contextmanager
def serial(site: WorkerSpec) -> Iterator[Serial]:
    """The engine."""
    with rests_kept() as rests:
        yield Serial(site, rests)
