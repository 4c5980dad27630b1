"""The tracker: is told how the runs of a study go on, and passes it on to a dashboard, a file or a service."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from genbench.api.metric import Split


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker sees it.

    Args:
        name: The name of its folder: readable, and unique among all runs.
        folder: Its folder; the study's folder is `folder.parent`.
        config: Its components, options and sizes, flat: "model" is "swae", "model.weight" 10.0, "seed" 0.
        resumed: Whether an earlier attempt was interrupted or has failed: log points go on where that one was saved.
    """

    name: str
    folder: Path
    config: Mapping[str, str | bool | int | float | None]
    resumed: bool = False


class Tracker(ABC):  # noqa: B024  # no method must be overridden
    """Follows one run; a method that is not overridden does nothing.

    Its factory is `factory(*, options...)`. It is called once while planning, where it raises `UnsupportedError` if a
    package or an account is missing, and once for each run: it opens nothing, `on_run_start` does.

    All methods are called in the process of the command, wherever the run trains (worker processes, Ray, Slurm); the
    time that they take is no training time. One that raises is reported in one line; the tracker is then left out for
    the rest of the command, and the training goes on.

    Example:
        >>> class Printer(Tracker):
        ...     def on_run_start(self, run):
        ...         self.name = run.name
        ...     def on_log(self, step, images, values):
        ...         print(self.name, images, values)
        >>> tracker = Printer()
        >>> tracker.on_run_start(TrackedRun("swae-s0", Path("runs/swae-s0"), {"model": "swae"}))
        >>> tracker.on_log(1, 128, {"loss": 0.5})
        swae-s0 128 {'loss': 0.5}
    """

    def on_run_start(self, run: TrackedRun) -> None:
        """The run begins; called once, first of all."""

    def on_log(self, step: int, images: int, values: Mapping[str, float]) -> None:
        """A log point of the training, two a second at most.

        Args:
            step: Count of training steps so far.
            images: Count of training images shown so far, repeats included.
            values: The loss of each optimizer and the loss terms of the model by name, means since the last log point,
                and "images_per_second".
        """

    def on_metrics(self, images: int, split: Split, values: Mapping[str, float]) -> None:
        """Measured numbers by name, as `genbench report` names them ("fid", "reconstruction.pixel").

        Called after the training: for each snapshot (split "validation", `images` shown up to there), then for the
        trained model (split "test").
        """

    def on_run_end(self, status: Literal["done", "failed", "interrupted"], problem: str) -> None:
        """The run has ended; called once, last of all. `problem` is one line, "" unless it failed."""
