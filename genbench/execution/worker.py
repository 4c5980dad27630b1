"""A Runner in another process: described as plain JSON data, and made from that.

The only code in it are the plug-in files that the user names on the command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from genbench.api import DataConfig, Images
from genbench.errors import StoreError
from genbench.execution.runner import Runner, RunOutcome
from genbench.experiment.run import Component, Run, component_of_record, run_of_record
from genbench.experiment.snapshots import SnapshotSchedule
from genbench.registry.loader import load
from genbench.storage.provenance import provenance
from genbench.training.device import on_device


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that a worker needs beside the images and its runs, as JSON data; it collects provenance itself."""

    store: str
    data_config: Mapping[str, Any]
    device: str
    metrics: list[dict[str, Any]]
    snapshots: Mapping[str, Any]
    plugins: list[str]
    disabled: list[str]
    allow_changed_source: bool
    command: str
    threads: int
    """CPU threads of the process."""
    training_threads: int | None = None
    """CPU threads of a training, where the user states them."""
    jobs: int = 1
    ensemble: int | Literal["auto"] = 1


def worker_spec(runner: Runner) -> WorkerSpec:
    """Describes a runner of this process."""
    data_config, snapshots = runner.data_config, runner.snapshots
    return WorkerSpec(
        store=str(runner.store.resolve()),
        data_config={
            "data_root": str(data_config.data_root.resolve()),
            "cache": str(data_config.cache.resolve()),
            **{name: getattr(data_config, name) for name in ("download", "skip_corrupt", "workers")},
        },
        device=str(runner.device),
        metrics=[component_record(metric) for metric in runner.metrics],
        snapshots={
            "count": snapshots.count,
            "metrics": [component_record(metric) for metric in snapshots.metrics],
            "select": None if snapshots.select is None else component_record(snapshots.select),
            "share": snapshots.share,
        },
        plugins=[str(file.resolve()) for file in runner.registry.files],
        disabled=list(runner.registry.disabled),
        allow_changed_source=runner.registry.allow_changed_source,
        command=str(runner.provenance.get("command", "")),
        threads=torch.get_num_threads(),
        training_threads=runner.threads,
        ensemble=runner.ensemble,
    )


def make_runner(
    spec: WorkerSpec, images: Images | None, stop: Callable[[], bool], *, locks: bool = True, store: Path | None = None
) -> Runner:
    """The runner that a spec describes; loads its plug-ins, and puts `images`, which are on the CPU, on the device.

    Without images, or a `store`, the runner loads the dataset itself, or uses the spec's store.
    """
    torch.set_num_threads(spec.threads)
    device = torch.device(spec.device)
    registry = load([Path(file) for file in spec.plugins], disabled=spec.disabled)
    registry.allow_changed_source = spec.allow_changed_source
    select = spec.snapshots["select"]
    metrics = tuple(component_of_record(metric) for metric in spec.snapshots["metrics"])
    snapshots = SnapshotSchedule(
        spec.snapshots["count"],
        metrics,
        None if select is None else component_of_record(select),
        spec.snapshots["share"],
    )
    return Runner(
        registry,
        store or Path(spec.store),
        DataConfig(
            **{
                **spec.data_config,
                "data_root": Path(spec.data_config["data_root"]),
                "cache": Path(spec.data_config["cache"]),
            }
        ),
        device,
        provenance(device, spec.command),
        tuple(component_of_record(metric) for metric in spec.metrics),
        snapshots,
        spec.training_threads,
        stop=stop,
        jobs=spec.jobs,
        ensemble=spec.ensemble,
        locks=locks,
        images=None if images is None else on_device(images, device),
    )


def run_records(runs: Sequence[Run]) -> str:
    """A unit of work as it is sent to a worker, in JSON."""
    return json.dumps([{"name": run.name, "run": run.record()} for run in runs])


def received_runs(records: str) -> list[Run]:
    """The runs that `run_records` describes; `StoreError` where this genbench takes one for another run."""
    runs = []
    for record in json.loads(records):
        run = run_of_record(record["run"])
        if run.name != record["name"]:
            raise StoreError(
                f"a worker of another genbench takes the run {record['name']} for {run.name}: install one version"
            )
        runs.append(run)
    return runs


def do_runs(runner: Runner, runs: Sequence[Run]) -> str:
    """Do a unit of work; its outcomes as JSON."""
    outcomes = runner.run_ensemble(runs) if len(runs) > 1 else [runner.run(runs[0])]
    return json.dumps([asdict(outcome) for outcome in outcomes])


def received_outcomes(outcomes: str) -> list[RunOutcome]:
    """The outcomes that `do_runs` describes."""
    return [RunOutcome(**outcome) for outcome in json.loads(outcomes)]


def component_record(component: Component) -> dict[str, Any]:
    """A component as JSON data."""
    return {**asdict(component), "options": component.values}
