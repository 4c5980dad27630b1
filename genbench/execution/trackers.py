"""Passes the events of a study on to its trackers, in the process of the command, whatever the executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench.api import ProgressEvent, TrackedRun, Tracker
from genbench.errors import StoreError
from genbench.experiment.build import create_tracker
from genbench.experiment.run import COMPONENTS, Component, Run
from genbench.registry.loader import Registry
from genbench.storage.run_dir import RunRecord, read_run
from genbench.storage.schema import MetricRecord
from genbench.training.callbacks import Callback
from genbench.training.loop import TrainState
from genbench.utils.plugin_code import describe_error


class TrackingCallback:
    """Passes every event on to `callback` and to the trackers of its run.

    A tracker that raises is left out from there on, and `warn` is called with one line.
    """

    def __init__(
        self,
        callback: Callback,
        store: Path,
        registry: Registry,
        trackers: Sequence[Component],
        warn: Callable[[str], None],
    ) -> None:
        self._callback, self._store, self._registry, self._warn = callback, store, registry, warn
        self._components = list(trackers)
        self._active: dict[str, dict[Component, Tracker]] = {}
        self._states: dict[str, str] = {}

    def on_data(self, progress: ProgressEvent) -> None:
        self._callback.on_data(progress)

    def on_run_start(self, run: Run, state: str) -> None:
        self._callback.on_run_start(run, state)
        self._states[run.name] = state  # trackers start at the first event: the run may be locked by another command

    def on_log(self, run: Run, state: TrainState) -> None:
        self._callback.on_log(run, state)
        values = {**state.terms, "images_per_second": state.rate}
        self._call(run, lambda tracker: tracker.on_log(state.step, state.images, values))

    def on_metric_start(self, run: Run, metric: str) -> None:
        self._callback.on_metric_start(run, metric)

    def on_run_end(self, run: Run, status: str, problem: str) -> None:
        self._callback.on_run_end(run, status, problem)
        if status in ("done", "failed", "interrupted"):
            for images, split, values in measured_values(self._store / run.name):
                self._call(run, lambda t, i=images, s=split, v=values: t.on_metrics(i, s, v))  # type: ignore[misc]
            self._call(run, lambda tracker: tracker.on_run_end(status, problem))  # type: ignore[arg-type]
        self._active.pop(run.name, None)

    def _call(self, run: Run, event: Callable[[Tracker], None]) -> None:
        """Pass an event on to the trackers of a run, which are made for its first one."""
        for component in tuple(self._components):
            try:
                trackers = self._active.setdefault(run.name, {})
                if component not in trackers:
                    trackers[component] = create_tracker(self._registry, component)
                    trackers[component].on_run_start(self._tracked(run))
                event(trackers[component])
            except (Exception, SystemExit) as error:  # the work of hours must not end because a service is away
                self._components.remove(component)
                self._warn(f"the tracker '{component.name}' is left out from here on: {describe_error(error)}")

    def _tracked(self, run: Run) -> TrackedRun:
        config: dict[str, Any] = {}
        for field, value in run.record().items():
            config[field] = value["name"] if field in COMPONENTS else value
            if field in COMPONENTS:
                config |= {f"{field}.{name}": option for name, option in value["options"].items()}
        resumed = self._states.get(run.name) in ("interrupted", "failed")
        return TrackedRun(run.name, self._store / run.name, config, resumed)


def measured_values(folder: Path) -> list[tuple[int, Any, dict[str, float]]]:
    """Images shown, split and numbers by name: of each snapshot, then of the trained run."""
    try:
        record: RunRecord = read_run(folder)
    except StoreError:  # a run that failed before its folder was begun
        return []
    stages: list[tuple[int, str, Mapping[str, MetricRecord]]] = [
        (snapshot.images, "validation", snapshot.measurements) for snapshot in record.snapshots.values()
    ]
    shown = record.run.images if record.training is None else record.training.images
    stages.append((shown, "test", record.measurements))
    values = [(images, split, _numbers(measurements)) for images, split, measurements in stages]
    return [entry for entry in values if entry[2]]


def _numbers(measurements: Mapping[str, MetricRecord]) -> dict[str, float]:
    return {
        f"{entry.metric}.{number.component}" if number.component else entry.metric: number.value
        for entry in measurements.values()
        for number in entry.numbers
    }
