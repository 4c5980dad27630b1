"""The cost of training: throughput, seconds, parameters, memory."""

from __future__ import annotations

from collections.abc import Iterable

from genbench.api import ComponentSpec, Evaluation, Measurement, Metric
from genbench.errors import NotApplicableError
from genbench.hookspecs import hookimpl


class Speed(Metric):
    """The cost of the training, comparable only on one machine."""

    uses_samples = False

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """Facts of one training."""
        record = e.training
        if not record.images:
            raise NotApplicableError("nothing was trained")
        concurrency = f", up to {record.jobs} runs at once" if record.jobs > 1 else ""
        protocol = e.protocol(
            method="wall time of training proper, evaluation and data left out",
            split="train",
            references=len(e.images.train),
            generated=0,
            draws="none",
            detail=f"{record.device}, {record.threads} CPU threads{concurrency}",
        )
        memory = None if record.peak_memory is None else record.peak_memory / 2**20
        numbers: tuple[tuple[str, float | None, str, bool | None], ...] = (
            ("images-per-second", record.images / max(record.seconds, 1e-9), "images/s", True),
            ("seconds", record.seconds, "s", False),
            ("step", 1000.0 * record.seconds * record.batch / record.images or None, "ms", False),
            ("parameters", float(record.parameters), "count", None),
            ("peak-memory", memory, "MiB", None),
        )
        for component, value, unit, higher_is_better in numbers:
            if value is None:
                continue
            yield Measurement(
                value=value,
                unit=unit,
                higher_is_better=higher_is_better,
                n=record.images,
                protocol=protocol,
                component=component,
                role="speed",
                label="time a step" if component == "step" else component.replace("-", " "),
            )


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """Speed."""
    yield ComponentSpec(
        name="speed",
        aliases=("time", "memory", "parameters"),
        description="Images per second, seconds, parameters, peak memory of training",
        factory=Speed,
        reference="ours",
    )
