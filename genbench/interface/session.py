"""Planned work with everything that it needs: the path from a study to its runs that commands and functions share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from genbench.api import DataConfig
from genbench.errors import StoreError, UsageError
from genbench.evaluation.snapshots import check_stored_snapshots
from genbench.execution.executors.choice import SERIAL, ExecutorConfig, create_executor
from genbench.execution.runner import Runner
from genbench.execution.scheduler import Executor, RunStatus, run_status
from genbench.execution.trackers import TrackingCallback
from genbench.experiment.config import option_texts
from genbench.experiment.plan import Plan, create_metric_components, plan, plan_of_runs
from genbench.interface.config import StudyConfig
from genbench.registry.loader import Registry
from genbench.storage.provenance import MissingComponents, missing_components, provenance
from genbench.storage.run_dir import RUN, RunRecord, read_runs
from genbench.training.callbacks import Callback
from genbench.training.distributed import init_distributed, launched, local_device, processes
from genbench.training.precision import check_precision
from genbench.utils.torch_state import pick_device


@dataclass(frozen=True)
class Session:
    """A plan, the runner of its runs, and their states before the work; `warnings` are lines for the user.

    Work is done by `with session.working(progress, warn) as executor: run_all(session.plan, executor, session.runner,
    session.done)`.
    """

    plan: Plan
    runner: Runner
    status: RunStatus
    done: frozenset[str]
    executor_config: ExecutorConfig = SERIAL
    warnings: tuple[str, ...] = ()

    @property
    def remaining(self) -> int:
        """How many runs are not done."""
        return len(self.plan.runs) - len(self.done)

    @contextmanager
    def working(self, progress: AbstractContextManager[Callback], warn: Callable[[str], None]) -> Iterator[Executor]:
        """The executor for the runs that are not done, while their progress is shown and tracked."""
        runner = self.runner
        with progress as shown, create_executor(self.executor_config, runner, self.remaining) as executor:
            runner.callback = shown
            if self.plan.trackers:
                runner.callback = TrackingCallback(shown, runner.store, runner.registry, self.plan.trackers, warn)
            yield executor

    def records(self) -> tuple[Sequence[RunRecord], list[str]]:
        """The records of the runs after the work, and a line for each that cannot be read."""
        if self.status.records:
            return self.status.records, []
        return read_runs(path for run in self.plan.runs if ((path := self.runner.folder(run).path) / RUN).exists())


@contextmanager
def open_study(
    study: StudyConfig, registry: Registry, data_config: DataConfig, command: str, stop: Callable[[], bool]
) -> Iterator[Session]:
    """The checked plan of a study, and what trains it; of the processes of torchrun each has its own.

    Raises `GenbenchError` before anything is written.
    """
    executor_config = study.executor_config()
    if launched() and executor_config != SERIAL:
        raise UsageError(
            "torchrun trains one model in several processes, one run after another: leave --executor, --jobs,"
            " --executor-option and --run-timeout off"
        )
    device = local_device(pick_device(study.device))
    check_precision(study.precision, device)
    planned = plan(study.experiment(), registry, data_config)
    with init_distributed(device) as distributed:
        runner = make_runner(registry, planned, study.folder, data_config, device, command, stop)
        runner.distributed = distributed
        runner.ensemble = ensemble_size(study, device, executor_config)
        status = run_status(planned, study.folder)
        done = frozenset(run.name for run in planned.runs if distributed.broadcast(run.name in status.done))
        warnings = check_stored_snapshots(study.folder, planned.runs, planned.snapshots)
        yield Session(planned, runner, status, done, executor_config, tuple(warnings))


def ensemble_size(study: StudyConfig, device: torch.device, executor_config: ExecutorConfig) -> int | Literal["auto"]:
    """The most members of an ensemble; `UsageError` where torchrun trains one model in several processes."""
    if study.ensemble == "off" or launched():
        if isinstance(study.ensemble, int) and study.ensemble > 1:
            raise UsageError(f"torchrun trains one model in several processes: leave --ensemble {study.ensemble} off")
        return 1
    if study.ensemble == "auto":
        apart = executor_config.executor not in (None, "serial") or executor_config.jobs not in (None, 1)
        return 1 if device.type == "cpu" or apart or executor_config.timeout is not None else "auto"
    return study.ensemble


def evaluable(records: Sequence[RunRecord], registry: Registry) -> tuple[list[RunRecord], list[str]]:
    """The trained runs whose plug-ins are loaded, and a line for all that lack the same ones; `StoreError` for none."""
    usable: list[RunRecord] = []
    lacking: dict[MissingComponents, list[str]] = {}
    trials = sum(record.run.role == "trial" for record in records)
    for record in records:
        if record.state == "trained" and record.run.role != "trial":
            missing = missing_components(record.run, record.path, registry)
            if missing is None:
                usable.append(record)
            else:
                lacking.setdefault(missing, []).append(record.name)
    problems = [missing.describe(names) for missing, names in lacking.items()]
    if trials:
        problems.append(f"{trials} trial{'s' * (trials > 1)} of a search: they are not measured on test images")
    if not usable:
        raise StoreError(
            problems[0] if problems else "none of these runs is trained: finish them with the command that began them"
        )
    return usable, problems


def open_evaluations(
    records: Sequence[RunRecord],
    metrics: Sequence[str],
    settings: Sequence[str],
    samplers: Sequence[str],
    registry: Registry,
    data_config: DataConfig,
    device: str,
    command: str,
    stop: Callable[[], bool],
    executor_config: ExecutorConfig = SERIAL,
) -> list[Session]:
    """What evaluates `evaluable` runs by further metrics: a session for each folder of runs and dataset."""
    if launched():
        raise UsageError("torchrun trains one model in several processes, with genbench run; evaluate in one process")
    chosen = pick_device(device)
    components = create_metric_components(registry, metrics, settings, samplers)
    runs = [(record.path, record.run) for record in records]
    sessions = []
    given = option_texts(settings, {"metric": tuple(metrics), "sampler": tuple(samplers)}, registry)
    for store, planned in plan_of_runs(runs, components, registry, data_config, given):
        runner = make_runner(registry, planned, store, data_config, chosen, command, stop)
        status = run_status(planned, store)
        sessions.append(Session(planned, runner, status, status.done, executor_config))
    return sessions


def make_runner(
    registry: Registry,
    planned: Plan,
    out: Path,
    data_config: DataConfig,
    device: torch.device,
    command: str,
    stop: Callable[[], bool],
) -> Runner:
    """The runner for the runs of a plan; `command` is recorded as their origin."""
    facts = {**provenance(device, command), "processes": processes()}
    return Runner(
        registry, out, data_config, device, facts, planned.metrics, planned.snapshots, planned.threads, stop=stop
    )
