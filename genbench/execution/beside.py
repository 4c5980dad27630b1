"""Measurements of a finished run that go on on a thread while the next run trains, and their end in the caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch

from genbench.evaluation.evaluation import DataEvaluation
from genbench.evaluation.measure import measure
from genbench.execution.background import Finished
from genbench.experiment.run import Component
from genbench.registry.loader import Registry
from genbench.storage.run_dir import RunFolder
from genbench.storage.schema import MetricRecord
from genbench.training.callbacks import Callback


@dataclass(frozen=True)
class Detached:
    """A measurement without its model: see `Metric.detached`."""

    choice: Component
    work: Callable[[], MetricRecord]


@dataclass(frozen=True)
class Rest:
    """What is left of a trained run, whose folder stays claimed until it is saved or dropped."""

    measurements: Sequence[Detached]
    claim: ExitStack
    save: Callable[[Finished[list[MetricRecord]]], str]
    """Writes what was measured and gives the folder free, in the caller's thread; what failed, in one line."""

    @property
    def names(self) -> str:
        """The metrics."""
        return ", ".join(detached.choice.name for detached in self.measurements)

    def task(self) -> Callable[[], list[MetricRecord]]:
        """Finds the entries on another thread, with the caller's count of CPU threads, which decides how sums round."""
        threads = torch.get_num_threads()

        def work() -> list[MetricRecord]:
            torch.set_num_threads(threads)  # of this thread: OpenMP keeps a count for each
            return [detached.work() for detached in self.measurements]

        return work


def measure_all(
    registry: Registry,
    choices: Sequence[Component],
    evaluation: DataEvaluation,
    folder: RunFolder,
    listener: Callback,
    stop: Callable[[], bool],
    aside: list[Detached] | None,
) -> list[str]:
    """Measure and save until `stop()`, or put aside where there is an `aside` and the metric can; which ones failed.

    Where something was put aside the evaluation has forgotten its model.
    """
    problems = []
    for choice in choices:
        if stop():
            break
        listener.measuring(choice.name)
        problems += save_measurement(folder, choice, measure(registry, choice, evaluation))
    return problems


def rest_of(
    aside: Sequence[Detached],
    folder: RunFolder,
    order: Sequence[str],
    problems: Sequence[str],
    claim: ExitStack,
    guarded: Callable[[Callable[[], str]], str],
) -> Rest:
    """What is left of a run whose `problems` so far are these; `guarded` records why its work failed.

    `order` are the keys of all that was to be measured, set aside or not: metrics.json will have them so.
    """

    def write(finished: Finished[list[MetricRecord]]) -> str:
        if finished.error is not None:
            raise finished.error
        found = list(problems)
        for one, entry in zip(aside, finished.result or (), strict=True):
            found += save_measurement(folder, one.choice, entry)
        entries = folder.measurements()
        before = [key for key in entries if key not in order]
        folder.save_measurements({key: entries[key] for key in (*before, *order) if key in entries})
        return "; ".join(found)

    def save(finished: Finished[list[MetricRecord]]) -> str:
        with claim:
            return guarded(partial(write, finished))

    return Rest(aside, claim, save)


def save_measurement(folder: RunFolder, choice: Component, entry: MetricRecord) -> list[str]:
    """Put a metric's entry into metrics.json, in place of another source's of the same options; why it failed."""
    others = {
        key: other
        for key, other in folder.measurements().items()
        if (other.metric, other.options) != (choice.name, choice.values)
    }
    folder.save_measurements({**others, choice.key: entry})
    return [f"{choice.name}: {entry.error}"] if entry.error else []
