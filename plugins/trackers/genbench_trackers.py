"""Trackers: TensorBoard, and JSON lines for scripts."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from genbench.api import ComponentSpec, Option, Split, TrackedRun, Tracker
from genbench.errors import UnsupportedError
from genbench.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Tracker):
    """Scalars over training images: loss terms as `loss/NAME`, measurements as `test/NAME` or `validation/NAME`."""

    def __init__(
        self, *, folder: Annotated[str, Option("where to write; empty: the folder tensorboard beside the runs")] = ""
    ) -> None:
        spec = importlib.util.find_spec("tensorboard")
        if spec is None or spec.origin is None:  # without an origin it is a folder of event files
            raise UnsupportedError(
                "the tracker 'tensorboard' needs the package tensorboard: pip install 'genbench[tensorboard]'"
            )
        self.folder = folder
        self.writer: SummaryWriter

    def on_run_start(self, run: TrackedRun) -> None:
        """Open the run's event file; a resumed run gets a further one, which TensorBoard joins."""
        from torch.utils.tensorboard import SummaryWriter  # seconds to import

        folder = Path(self.folder) if self.folder else run.folder.parent / "tensorboard"
        self.writer = SummaryWriter(str(folder / run.name))
        table = "\n".join(f"| {name} | {value} |" for name, value in run.config.items())
        self.writer.add_text("config", f"| | |\n|:--|:--|\n{table}")

    def on_log(self, step: int, images: int, values: Mapping[str, float]) -> None:
        """One scalar for each term."""
        self._add("loss", images, values)

    def on_metrics(self, images: int, split: Split, values: Mapping[str, float]) -> None:
        """One scalar for each number."""
        self._add(split, images, values)

    def on_run_end(self, status: Literal["done", "failed", "interrupted"], problem: str) -> None:
        """Write what is left."""
        self.writer.close()

    def _add(self, group: str, images: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, images)
        self.writer.flush()


class JsonLines(Tracker):
    """Every event of every run as a line of one file, to be followed by `tail -f`, or read by a script.

    Each line has `event` ("start", "log", "metrics" or "end") and `run`, and the arguments of the event by name.
    """

    def __init__(
        self, *, file: Annotated[str, Option("where to append; empty: events.jsonl beside the runs")] = ""
    ) -> None:
        self.file = file

    def on_run_start(self, run: TrackedRun) -> None:
        """The line with the configuration."""
        self.name = run.name
        self.path = Path(self.file) if self.file else run.folder.parent / "events.jsonl"
        self._append("start", config=dict(run.config), resumed=run.resumed)

    def on_log(self, step: int, images: int, values: Mapping[str, float]) -> None:
        """A line for each log point."""
        self._append("log", step=step, images=images, values=dict(values))

    def on_metrics(self, images: int, split: Split, values: Mapping[str, float]) -> None:
        """A line for each set of measurements."""
        self._append("metrics", images=images, split=split, values=dict(values))

    def on_run_end(self, status: Literal["done", "failed", "interrupted"], problem: str) -> None:
        """The last line."""
        self._append("end", status=status, problem=problem)

    def _append(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, "run": self.name, **fields})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


@hookimpl
def genbench_trackers() -> Iterable[ComponentSpec[Tracker]]:
    """TensorBoard and JSON lines."""
    yield ComponentSpec(
        name="tensorboard",
        description="scalars for TensorBoard (needs genbench[tensorboard])",
        factory=TensorBoard,
        reference="arXiv:1603.04467",
    )
    yield ComponentSpec(
        name="jsonl", description="events of all runs as JSON lines", factory=JsonLines, reference="ours"
    )
