"""One run after another in this process; what of a run can do without its model goes on beside the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from genbench.background import Background, Finished
from genbench.beside import Entry, Rest
from genbench.executors import News, Site
from genbench.machine import on_device
from genbench.runs import Run


class Serial:
    """The executor that is this process: waiting for news is doing the work."""

    def __init__(self, site: Site, tasks: Background[list[Entry]]) -> None:
        self._site, self._tasks = site, tasks
        self._images = on_device(site.load(), torch.device(site.brief["device"]))
        self._run: Run | None = None
        self._began = False
        self._rests: dict[str, tuple[Rest, bool]] = {}  # of trained runs, and whether these were interrupted
        self._awaited = ""

    @property
    def capacity(self) -> int:
        """One run in training, beside those of which only measurements are left."""
        return 1 + len(self._rests)

    def submit(self, run: Run) -> None:
        """Keep the run for `wait`."""
        self._run, self._began = run, False

    def wait(self, seconds: float) -> list[News]:
        """First that the run began; then, however long it takes, how it ended, or how an earlier one did."""
        if self._run is None:
            return self._wait_for_rest()
        if not self._began:
            self._began = True
            return [*map(self._end, self._tasks.ready()), News(self._run.name, "began")]
        run, rests = self._run, list[Rest]()
        self._run = None
        problem, name = self._site.attempt(run, self._images, rests.append), run.name
        stopped = self._site.stop()
        if not rests:
            return [News(name, "ended", {"problem": problem, "interrupted": stopped})]
        self._rests[name] = (rests[0], stopped)
        return [self._end(finished) for finished in self._tasks.give(name, rests[0].task())]

    def cancel(self) -> None:
        """Nothing: the run at work asks `stop` itself, and what goes on beside it takes seconds."""

    def drop(self) -> None:
        """Give free the folders of runs whose measurements will not be saved: the same command measures them."""
        for rest, _ in self._rests.values():
            rest.claim.close()

    def _wait_for_rest(self) -> list[News]:
        """That the oldest run is still being measured; then how it ended."""
        name, (rest, _) = next(iter(self._rests.items()))
        if self._awaited != name:
            self._awaited = name
            return [News(name, "measuring", {"metric": rest.names})]
        return [self._end(next(self._tasks.rest()))]

    def _end(self, finished: Finished[list[Entry]]) -> News:
        rest, stopped = self._rests.pop(finished.name)
        return News(finished.name, "ended", {"problem": rest.save(finished), "interrupted": stopped})


@contextmanager
def serial(site: Site) -> Iterator[Serial]:
    """The engine."""
    with Background[list[Entry]]() as tasks:
        executor = Serial(site, tasks)
        try:
            yield executor
        finally:
            executor.drop()
