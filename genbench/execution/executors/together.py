"""Several runs trained in turns in this process, step by step: on a GPU the small steps of many seeds fill it together.

Each run goes on in a lane of its own and ends as it would alone. A training's seconds are those in which all of them
train; while a run is set up or measured the others, and their clock, stand still.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import GEN_CREATED, getgeneratorstate

import torch

from genbench.execution.beside import Rest
from genbench.execution.executors.serial import Rests, rests_kept
from genbench.execution.scheduler import Attempt, Engine, RunEvent, WorkerSpec
from genbench.experiment.run import Run
from genbench.training.device import on_device
from genbench.training.lanes import Lane, isolated


@dataclass(frozen=True)
class Going:
    """A run at work, its lane, and what will be left of it that needs no model."""

    name: str
    attempt: Attempt
    lane: Lane
    rests: Sequence[Rest]

    def close(self) -> None:
        """End it where it is: its folder is given free, its last checkpoint stays."""
        with self.lane.turn():
            self.attempt.close()


class Together:
    """The executor that is this process: waiting for news is doing steps, of each run in turn."""

    def __init__(self, site: WorkerSpec, rests: Rests, count: int) -> None:
        """With `count` runs in training at most."""
        self._site, self._rests, self._count = site, rests, min(count, site.runs)
        self._device = torch.device(site.brief["device"])
        self._images = on_device(site.load(), self._device)
        self._new: list[Run] = []
        self._going: list[Going] = []

    @property
    def capacity(self) -> int:
        """The runs in training, beside those of which only measurements are left."""
        return self._count + len(self._rests)

    def submit(self, run: Run) -> None:
        """Keep the run for `wait`."""
        self._new.append(run)

    def wait(self, seconds: float) -> list[RunEvent]:
        """Which runs began; else what became of them in so many seconds of steps, or until one has ended.

        A run that ends is measured before the others take their next step, however long that takes.
        """
        news = [*self._rests.ready(), *map(self._begin, self._new)]
        self._new.clear()
        if not self._going and not news:
            return self._rests.wait()
        until = time.monotonic() + seconds
        with isolated(self._device):
            while self._going and not news and time.monotonic() < until:
                for going in tuple(self._going):
                    news += self._turn(going)
        return news

    def cancel(self) -> None:
        """Nothing: each run at work asks `stop` itself after its next step."""

    def close(self) -> None:
        """End every run at work."""
        with isolated(self._device), ExitStack() as stack:
            for going in self._going:
                stack.callback(going.close)
            self._going.clear()

    def _begin(self, run: Run) -> RunEvent:
        rests: list[Rest] = []
        attempt = self._site.attempt(run, self._images, rests.append, self._count)
        self._going.append(Going(run.name, attempt, Lane(self._device), rests))
        return RunEvent(run.name, "began")

    def _turn(self, going: Going) -> list[RunEvent]:
        """One step of a run; how it ended where it was the last one."""
        if getgeneratorstate(going.attempt) == GEN_CREATED and self._site.stop():
            self._going.remove(going)
            return self._rests.end(going.name, "", (), True)
        try:
            with going.lane.turn():
                next(going.attempt)
        except StopIteration as end:
            going.lane.finish()
            self._going.remove(going)
            return self._rests.end(going.name, str(end.value), going.rests, self._site.stop())
        return []


@contextmanager
def _opened(site: WorkerSpec, count: int) -> Iterator[Together]:
    with rests_kept() as rests:
        executor = Together(site, rests, count)
        try:
            yield executor
        finally:
            executor.close()


def together(count: int) -> Engine:
    """The engine with `count` runs in training at once."""
    return partial(_opened, count=count)
