"""The tracker `my-tracker`: the losses of each run as a CSV file in the run's folder. Change the methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from genbench.api import ComponentSpec, Option, Split, TrackedRun, Tracker
from genbench.hookspecs import hookimpl


class MyTracker(Tracker):
    """Follows one run: each run has a tracker, and all methods are called in the process of the command."""

    # Keyword-only parameters are the options: `--set my-tracker.digits=4`. Raise genbench.api.UnsupportedError where a
    # package or an account is missing: the study is refused before anything trains. Open nothing here.
    def __init__(self, *, digits: Annotated[int, Option("significant digits", low=1)] = 6) -> None:
        """Keep the options."""
        self.digits = digits

    def on_run_start(self, run: TrackedRun) -> None:
        """The run begins. `run.config` has its components, options and sizes by name."""
        self.path = run.folder / "my-tracker.csv"
        if not run.resumed:
            self.path.write_text("images,name,value\n", encoding="utf-8")

    def on_log(self, step: int, images: int, values: Mapping[str, float]) -> None:
        """Loss terms and images per second, means since the last log point, after so many training images."""
        self._write(images, values)

    def on_metrics(self, images: int, split: Split, values: Mapping[str, float]) -> None:
        """Measurements by name: of snapshots on validation images, then of the trained model on test images."""
        self._write(images, {f"{split}/{name}": value for name, value in values.items()})

    def on_run_end(self, status: Literal["done", "failed", "interrupted"], problem: str) -> None:
        """The run has ended: close what `on_run_start` opened."""

    def _write(self, images: int, values: Mapping[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{images},{name},{value:.{self.digits}g}\n" for name, value in values.items())


@hookimpl
def genbench_trackers() -> Iterable[ComponentSpec[Tracker]]:
    """The tracker. `reference` is the page of the service."""
    yield ComponentSpec(name="my-tracker", description="Losses as a CSV file", factory=MyTracker, reference="")
