"""The cost of training: throughput, seconds, parameters, memory."""

from __future__ import annotations

from collections.abc import Iterable

from genbench.api import ComponentSpec, Evaluation, Measurement, Metric
from genbench.errors import NotApplicableError
from genbench.hookspecs import hookimpl

LABELS = {"seconds": "training time", "step": "time a step"}
"""Column heads, beside which the unit stands."""


class Speed(Metric):
    """The cost of the training: facts that rank nothing, since they tell as much of the machine and its load."""

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
        # On a CPU a record of an earlier version holds the process's peak, which is not the model's.
        known = record.peak_memory is not None and record.device != "cpu"
        memory = (record.peak_memory or 0) / 2**20 if known else None
        numbers: tuple[tuple[str, float | None, str], ...] = (
            ("images-per-second", record.images / max(record.seconds, 1e-9), "images/s"),
            ("seconds", record.seconds, "s"),
            ("step", 1000.0 * record.seconds * record.batch / record.images or None, "ms"),
            ("parameters", float(record.parameters), "count"),
            ("peak-memory", memory, "MiB"),
        )
        for component, value, unit in numbers:
            if value is None:
                continue
            yield Measurement(
                value=value,
                unit=unit,
                higher_is_better=None,
                n=record.images,
                protocol=protocol,
                component=component,
                role="speed",
                label=LABELS.get(component, component.replace("-", " ")),
            )


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """Speed."""
    yield ComponentSpec(
        name="speed",
        aliases=("time", "memory", "parameters"),
        description="Images per second, seconds, parameters of training; on a GPU its peak memory",
        factory=Speed,
        reference="ours",
    )
