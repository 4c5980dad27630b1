"""Measurements on threads while the next run trains on a GPU: of metrics that compute on the CPU (`Metric.on_cpu`).

Threads and no processes, since POT's network simplex, in which such metrics spend their time, releases Python's lock
(docs/scaling.md). They only measure: the thread of the command saves the numbers and gives the run's folder free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from genbench.data.images import info_of
from genbench.evaluation.evaluation import DataEvaluation, DetachedEvaluation, RunEvaluation
from genbench.evaluation.measure import measure
from genbench.experiment.build import create_metric
from genbench.experiment.run import Component, Run, split_sampler
from genbench.registry.loader import Registry
from genbench.storage.schema import MetricRecord

MOST_RUNS = 64
"""Runs that are measured, or wait for it: each has codes in memory, and its lock is an open file."""

POLL_SECONDS = 0.25
"""The interval at which Ctrl-C is looked for."""

Measuring = dict[Component, Future[MetricRecord]]
"""The measurements of a run that go on, by metric."""


@dataclass(frozen=True)
class MeasuredRun:
    """A run of which nothing is left but measurements on threads; its folder is locked until `lock` is closed.

    `problem` is that of everything else in one line, or ""; `complete` says whether all of it was done.
    """

    run: Run
    measuring: Measuring
    problem: str
    complete: bool
    lock: ExitStack

    @property
    def ended(self) -> bool:
        """Whether no thread measures it any more."""
        return all(future.done() for future in self.measuring.values())


class Background:
    """Threads that measure, and the runs whose numbers are not saved yet."""

    def __init__(self, workers: int, most: int = MOST_RUNS) -> None:
        """Each thread has as many CPU threads of torch as the command, so that sums are rounded alike.

        At most `most` runs are measured or wait for it.
        """
        count = torch.get_num_threads()
        self._most = most
        self._pool = ThreadPoolExecutor(workers, "genbench-metric", torch.set_num_threads, (count,))
        self._runs: list[MeasuredRun] = []

    def measure(
        self, registry: Registry, component: Component, evaluation: DataEvaluation
    ) -> Future[MetricRecord] | None:
        """Begin to measure a trained model by a metric; None where the metric needs the model or the device."""
        metric, sampler = split_sampler(component)
        if sampler is not None or not isinstance(evaluation, RunEvaluation):
            return None
        try:
            created = create_metric(registry, metric)
            if not created.on_cpu:
                return None
            codes = created.counts_needed(info_of(evaluation.images)).get("codes", 0)
            detached = DetachedEvaluation(evaluation, codes)
        except (Exception, SystemExit):  # of a plug-in: `measure` in the foreground meets it again and records it
            return None
        return self._pool.submit(measure, registry, component, detached)

    def add(self, run: MeasuredRun) -> None:
        """Keep a run until its measurements have ended."""
        self._runs.append(run)

    def ended(self, stop: Callable[[], bool], *, all_of_them: bool = False) -> Iterator[MeasuredRun]:
        """The runs whose measurements have ended; waits for all of them, or where too many go on.

        After a stop, measurements that no thread has begun are cancelled.
        """
        while True:
            if stop():
                for future in self._futures():
                    future.cancel()
            for run in [run for run in self._runs if run.ended]:
                self._runs.remove(run)
                yield run
            if len(self._runs) <= (0 if all_of_them else self._most):
                return
            wait(self._futures(), POLL_SECONDS, FIRST_COMPLETED)

    def _futures(self) -> list[Future[MetricRecord]]:
        return [future for run in self._runs for future in run.measuring.values() if not future.done()]

    def close(self) -> None:
        """Give up what is left, where the command ends early: the next one measures it."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for run in self._runs:
            run.lock.close()
        self._runs.clear()
