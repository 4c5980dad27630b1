"""The cost of runs in seconds: trainings, fits of samplers, and the evaluation by metric. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from genbench.experiment.run import SAMPLED
from genbench.storage.run_dir import RunRecord
from genbench.storage.schema import MetricRecord, TrainingRecord

SHARED = (
    "once: real images, floors and null distributions, which the first run of a command pays for all; the cache keeps"
    " features and null distributions for later commands"
)
"""The meaning of `MetricCost.shared`."""

WORTH_NAMING = 0.1
"""The share of an evaluation from which the sum names what is spent once."""

BESIDE = "*: on a thread, while other runs were trained"
"""The meaning of `MetricCost.background`."""


@dataclass(frozen=True)
class MetricCost:
    """The seconds of a metric in all runs, snapshots included.

    `shared` are those of what runs share: the first run pays them. `seconds` are the others. Those of a metric in the
    `background` were those of a thread beside other trainings.
    """

    metric: str
    seconds: float
    shared: float
    background: bool


@dataclass(frozen=True)
class Cost:
    """The seconds of some runs; `fits` are those of samplers by name."""

    training: float
    fits: Mapping[str, float]
    metrics: Sequence[MetricCost]

    @property
    def evaluation(self) -> float:
        """Seconds of fits and measurements, those beside other trainings left out."""
        foreground = [metric.seconds + metric.shared for metric in self.metrics if not metric.background]
        return sum(foreground) + sum(self.fits.values())

    @property
    def background(self) -> float:
        """Seconds of measurements beside other trainings, of one thread each."""
        return sum(metric.seconds + metric.shared for metric in self.metrics if metric.background)

    @property
    def shared(self) -> float:
        """Seconds of what runs share."""
        return sum(metric.shared for metric in self.metrics)

    @property
    def words(self) -> str:
        """One line, `training 12 s, evaluation 19 s (61 %), 8.1 s of it once for all runs`; "" where none is known."""
        total = self.training + self.evaluation
        if not total or not self.metrics:
            return ""
        words = [f"training {in_seconds(self.training)}"] * bool(self.training)
        words.append(f"evaluation {in_seconds(self.evaluation)} ({100 * self.evaluation / total:.0f} %)")
        shared = sum(metric.shared for metric in self.metrics if not metric.background)
        if shared >= WORTH_NAMING * self.evaluation > 0:
            words.append(f"{in_seconds(shared)} of it once for all runs")
        if self.background:
            words.append(f"and {in_seconds(self.background)} on threads beside trainings")
        return ", ".join(words)


def cost(records: Sequence[RunRecord]) -> Cost:
    """The cost of runs; each has its share of the seconds of an ensemble."""
    fits: dict[str, float] = {}
    metrics: dict[tuple[str, bool], list[float]] = {}
    training = 0.0
    for record in records:
        training += training_seconds(record.training) if record.training is not None else 0.0
        for measurements in _measurements(record):
            fitted: dict[str, float] = {}
            for entry in measurements.values():
                if entry.fit_seconds is not None:
                    fitted[entry.metric.partition(SAMPLED)[2]] = entry.fit_seconds
                if entry.seconds is not None:
                    sums = metrics.setdefault((entry.metric, entry.background), [0.0, 0.0])
                    shared = min(entry.shared_seconds or 0.0, entry.seconds)
                    sums[0] += entry.seconds - shared
                    sums[1] += shared
            for sampler, seconds in fitted.items():
                fits[sampler] = fits.get(sampler, 0.0) + seconds
    costs = [MetricCost(metric, own, shared, beside) for (metric, beside), (own, shared) in metrics.items()]
    return Cost(training, fits, costs)


def training_seconds(training: TrainingRecord) -> float:
    """The seconds of one run; those of an ensemble are divided among its members."""
    return training.seconds / training.ensemble


def _measurements(record: RunRecord) -> Iterator[Mapping[str, MetricRecord]]:
    yield record.measurements
    for stage in (*record.snapshots.values(), *record.selections.values()):
        yield stage.measurements


def cost_rows(cost: Cost) -> list[tuple[str, str, str]]:
    """A table of the cost: what, its seconds, and those that are spent once for all runs; the total last."""
    rows = [("training", in_seconds(cost.training), "")] if cost.training else []
    rows += [(f"fit of {sampler}", in_seconds(seconds), "") for sampler, seconds in cost.fits.items()]
    for metric in cost.metrics:
        shared = in_seconds(metric.shared) if metric.shared else ""
        rows.append((f"{metric.metric}{' *' if metric.background else ''}", in_seconds(metric.seconds), shared))
    own = sum(metric.seconds for metric in cost.metrics) + sum(cost.fits.values())
    return [*rows, ("evaluation in all", in_seconds(own), in_seconds(cost.shared) if cost.shared else "")]


def cost_notes(cost: Cost) -> list[str]:
    """The meaning of what `cost_rows` marks."""
    return [*[SHARED] * bool(cost.shared), *[BESIDE] * bool(cost.background)]


def in_seconds(seconds: float) -> str:
    """Seconds to two digits.

    >>> in_seconds(0.0123), in_seconds(1), in_seconds(9.96), in_seconds(1234.5)
    ('0.012 s', '1.0 s', '10 s', '1,234 s')
    """
    return f"{seconds:#.2g} s" if seconds < 9.95 else f"{seconds:,.0f} s"
