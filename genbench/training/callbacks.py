"""Who is told how a study goes."""

from __future__ import annotations

from typing import Protocol

from genbench.api import ProgressEvent
from genbench.experiment.run import Run
from genbench.training.loop import TrainState

LEFT = "left to another process, which works on it"
"""The problem of a run that is none: two commands share a store."""


class Callback(Protocol):
    """Who is told how a study goes; the command line shows it."""

    def preparing(self, progress: ProgressEvent) -> None:
        """The dataset is being decoded or generated."""

    def about(self, run: Run) -> None:
        """What is told next concerns this run, one of several that may be at work."""

    def began(self, index: int, total: int, run: Run, state: str) -> None:
        """Run `index` (from 1) of those that need work begins."""

    def trained(self, moment: TrainState) -> None:
        """A log point of the training."""

    def measuring(self, metric: str) -> None:
        """A metric begins."""

    def ended(self, run: Run, problem: str) -> None:
        """The run is done, or failed with a problem, or was left to another process."""

    def paused(self, run: Run) -> None:
        """The run was interrupted: the same command resumes it."""


class NullCallback:
    """The listener that shows nothing."""

    def preparing(self, progress: ProgressEvent) -> None:
        """Nothing."""

    def about(self, run: Run) -> None:
        """Nothing."""

    def began(self, index: int, total: int, run: Run, state: str) -> None:
        """Nothing."""

    def trained(self, moment: TrainState) -> None:
        """Nothing."""

    def measuring(self, metric: str) -> None:
        """Nothing."""

    def ended(self, run: Run, problem: str) -> None:
        """Nothing."""

    def paused(self, run: Run) -> None:
        """Nothing."""
