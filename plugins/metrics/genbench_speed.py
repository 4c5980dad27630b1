"""What training cost: throughput, seconds, parameters, memory."""

from __future__ import annotations

from collections.abc import Iterable

from genbench.api import Better, ComponentSpec, EvalProtocol, Evaluation, Measurement, Metric
from genbench.errors import NotApplicableError
from genbench.hookspecs import hookimpl


class Speed(Metric):
    """The training's own record; comparable only on one machine, which the protocol cannot name and a reader must."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """Facts of one training."""
        record = e.training
        if not record.images:
            raise NotApplicableError("nothing was trained")
        beside = f", up to {record.jobs} runs at once" if record.jobs > 1 else ""
        protocol = EvalProtocol(
            method="wall time of training proper, evaluation and data left out",
            dataset=e.images.content[:12],
            preparation=e.images.preparation,
            split="train",
            references=len(e.images.train),
            generated=0,
            values="uint8",
            draws="none",
            detail=f"{record.device}, {record.threads} CPU threads{beside}",
        )
        memory = None if record.peak_memory is None else record.peak_memory / 2**20
        facts: tuple[tuple[str, float | None, str, Better], ...] = (
            ("images-per-second", record.images / max(record.seconds, 1e-9), "images/s", "higher"),
            ("seconds", record.seconds, "s", "lower"),
            ("step", 1000.0 * record.seconds * record.batch / record.images or None, "ms", "lower"),
            ("parameters", float(record.parameters), "count", "neither"),
            ("peak-memory", memory, "MiB", "neither"),
        )
        for part, value, unit, better in facts:
            if value is None:
                continue
            label = "time a step" if part == "step" else part.replace("-", " ")
            yield Measurement(value, unit, better, record.images, protocol, part=part, label=label)


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """Speed."""
    yield ComponentSpec(
        name="speed",
        description="Images per second, seconds, parameters, peak memory of training",
        factory=Speed,
        reference="ours",
    )
