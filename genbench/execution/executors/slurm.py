"""Each run, or ensemble, as a job of a Slurm array, by submitit (`pip install 'genbench[slurm]'`).

Nodes see the command's folder of runs. Submitit pickles a call: here that of `do_work`, with strings.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from genbench.errors import UsageError, one_line
from genbench.execution.runner import INTERRUPTED, Runner, RunOutcome, load_images
from genbench.execution.scheduler import WorkerError
from genbench.execution.worker import (
    WorkerSpec,
    do_runs,
    make_runner,
    received_outcomes,
    received_runs,
    run_records,
    worker_spec,
)
from genbench.experiment.run import Run

DEFAULT_MINUTES = 24 * 60
"""The time limit of a job where --run-timeout is not given."""
POLL_SECONDS = 0.5
CANNOT_START = "cannot start: "
"""The beginning of a job's result that says why its worker could do no run."""
STOP = "stop"
"""The file whose presence means that the user has stopped."""


class SlurmExecutor:
    """Submits runs in arrays, of which `jobs` go on at once at most."""

    in_process = False

    def __init__(
        self, runner: Runner, jobs: int | None, timeout: float | None, options: Mapping[str, Any] | None = None
    ) -> None:
        """`options` are those of `--executor-option`: `cluster`, `cpus-per-run`, `gpus-per-run`, `memory-gb`, ..."""
        try:
            import submitit
        except ImportError:
            raise UsageError("--executor slurm needs submitit: pip install 'genbench[slurm]'") from None
        options = dict(options or {})
        self._cluster, cpus = str(options.pop("cluster", "slurm")), int(options.pop("cpus-per-run", 1))
        gpus = int(options.pop("gpus-per-run", runner.device.type == "cuda"))
        if self._cluster == "slurm" and shutil.which("sbatch") is None:
            raise UsageError("--executor slurm: there is no sbatch on this machine; run the command on a login node")
        self._parameters = {
            "name": "genbench",
            "timeout_min": DEFAULT_MINUTES if timeout is None else math.ceil(timeout / 60),
            "cpus_per_task": cpus,
            "gpus_per_node": gpus,
            "mem_gb": options.pop("memory-gb", None),
            "slurm_array_parallelism": jobs,
            **{f"slurm_{name}": value for name, value in options.items()},
        }
        spec = worker_spec(runner)
        self._spec = replace(spec, threads=cpus, data_config={**spec.data_config, "workers": cpus})
        self._runner, self._submitit = runner, submitit
        self._folder = runner.store.resolve() / f".slurm-{uuid4().hex[:8]}"
        self._queued: list[tuple[Sequence[Run], Future[list[RunOutcome]]]] = []
        self._jobs: list[tuple[Any, int, Future[list[RunOutcome]]]] = []
        self._closed = threading.Event()
        self._collector: threading.Thread | None = None

    def submit(self, runs: Sequence[Run]) -> Future[list[RunOutcome]]:
        """Queue the runs, one job, for the next array."""
        if self._collector is None:  # the dataset is decoded once, before any node asks for it
            load_images(self._runner.registry, runs[0], self._runner.data_config, self._runner.callback)
            self._folder.mkdir(parents=True, exist_ok=True)
            self._collector = threading.Thread(target=self._collect, daemon=True)
            self._collector.start()
        future: Future[list[RunOutcome]] = Future()
        self._queued.append((runs, future))
        return future

    def interrupt(self) -> None:
        """Have running jobs save their state, and cancel those that wait."""
        if self._collector is not None:
            (self._folder / STOP).touch()

    def shutdown(self) -> None:
        """Cancel every job that is not done."""
        self._closed.set()
        if self._collector is not None:
            self._collector.join()
            for job, *_ in self._jobs:
                job.cancel(check=False)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _collect(self) -> None:
        """Submit what is queued, and pass results on."""
        executor = self._submitit.AutoExecutor(self._folder, cluster=self._cluster)
        executor.update_parameters(**{name: value for name, value in self._parameters.items() if value is not None})
        spec = json.dumps(asdict(self._spec))
        while not self._closed.wait(POLL_SECONDS):
            queued, self._queued = self._queued, []
            if queued:
                self._submit_array(executor, spec, queued)
            self._jobs = [work for work in self._jobs if not self._finish(*work)]

    def _submit_array(
        self, executor: Any, spec: str, queued: list[tuple[Sequence[Run], Future[list[RunOutcome]]]]
    ) -> None:
        folder = str(self._folder)
        try:
            with executor.batch():
                jobs = [executor.submit(do_work, spec, run_records(runs), folder) for runs, _ in queued]
        except Exception as error:  # of sbatch
            for _, future in queued:
                future.set_exception(WorkerError("not submitted", one_line(error), stops=True))
        else:
            self._jobs += [(job, len(runs), future) for job, (runs, future) in zip(jobs, queued, strict=True)]

    def _finish(self, job: Any, count: int, future: Future[list[RunOutcome]]) -> bool:
        """Pass on the result of a job of so many runs; whether there was one."""
        if not job.done():
            if job.state == "RUNNING" and not future.running():
                future.set_running_or_notify_cancel()
            elif job.state == "PENDING" and (self._folder / STOP).exists():
                job.cancel(check=False)
                future.set_result([INTERRUPTED] * count)
                return True
            return False
        error = job.exception()
        if error is None:
            result = job.result()
            if result.startswith(CANNOT_START):  # for want of a plug-in's import, for example: then on any node
                message = f"the worker {result}"
                future.set_exception(WorkerError("worker failed", message, stops=True))
            else:
                future.set_result(received_outcomes(result))
        else:
            printed = (job.stderr() or "")[-4000:]
            kind = "timeout" if job.state.startswith("TIMEOUT") else "worker died"
            *_, last = [line for line in printed.splitlines() if line.strip()] or [one_line(error)]
            future.set_exception(
                WorkerError(kind, f"Slurm job {job.job_id}, {job.state}: {last.strip()[:300]}", printed)
            )
        return True


def do_work(spec: str, records: str, folder: str) -> str:
    """A job: does a unit of work, and returns its outcomes as JSON, or why it cannot begin any run."""
    stopping = threading.Event()

    def poll() -> None:
        while not stopping.wait(1.0):
            if (Path(folder) / STOP).exists():
                stopping.set()

    for number in (signal.SIGTERM, signal.SIGUSR2):  # sent before a job is preempted, or its time is over
        signal.signal(number, lambda *_: stopping.set())
    try:
        runner = make_runner(WorkerSpec(**json.loads(spec)), None, stopping.is_set)
    except Exception as error:
        return f"{CANNOT_START}{one_line(error)}"
    threading.Thread(target=poll, daemon=True).start()
    return do_runs(runner, received_runs(records))
