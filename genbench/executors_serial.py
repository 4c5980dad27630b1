"""One run after another in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from genbench.executors import News, Site
from genbench.machine import on_device
from genbench.runs import Run


class Serial:
    """The executor that is this process: waiting for news is doing the work."""

    capacity = 1

    def __init__(self, site: Site) -> None:
        self._site = site
        self._images = on_device(site.load(), torch.device(site.brief["device"]))
        self._run: Run | None = None
        self._began = False

    def submit(self, run: Run) -> None:
        """Keep the run for `wait`."""
        self._run, self._began = run, False

    def wait(self, seconds: float) -> list[News]:
        """First that the run began; then, however long it takes, how it ended."""
        assert self._run is not None
        if not self._began:
            self._began = True
            return [News(self._run.name, "began")]
        problem = self._site.attempt(self._run, self._images)
        return [News(self._run.name, "ended", {"problem": problem, "interrupted": self._site.stop()})]

    def cancel(self) -> None:
        """Nothing: the run at work asks `stop` itself."""


@contextmanager
def serial(site: Site) -> Iterator[Serial]:
    """The engine."""
    yield Serial(site)
