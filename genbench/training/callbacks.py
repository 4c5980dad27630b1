"""Callbacks, by which a study reports its progress."""

from __future__ import annotations

from typing import Protocol

from genbench.api import ProgressEvent
from genbench.experiment.run import Run
from genbench.training.loop import TrainState

LOCKED = "skipped: it is running in another process"
"""The problem of a run that another command works on."""


class Callback(Protocol):
    """Called as a study goes on; several runs may be at work at once."""

    def on_data(self, progress: ProgressEvent) -> None:
        """The dataset is being decoded or generated."""

    def on_run_start(self, run: Run, state: str) -> None:
        """A run begins; `state` is the state of its folder."""

    def on_log(self, run: Run, state: TrainState) -> None:
        """A log point of a training."""

    def on_metric_start(self, run: Run, metric: str) -> None:
        """A metric begins; not called for runs in other processes."""

    def on_run_end(self, run: Run, status: str, problem: str) -> None:
        """A run is "done", "failed" with a problem, "locked" by another process, or "interrupted" and to be resumed."""


class NullCallback:
    """Does nothing; a base class for callbacks that need few of the methods."""

    def on_data(self, progress: ProgressEvent) -> None: ...

    def on_run_start(self, run: Run, state: str) -> None: ...

    def on_log(self, run: Run, state: TrainState) -> None: ...

    def on_metric_start(self, run: Run, metric: str) -> None: ...

    def on_run_end(self, run: Run, status: str, problem: str) -> None: ...
