"""Several runs at once on this machine, in pebble's pool of worker processes.

The dataset lies in files without a name that every worker maps. Runs and outcomes are strings of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from multiprocessing import forkserver, get_context, parent_process
from multiprocessing.reduction import DupFd
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import IO, Any, cast

import torch
from filelock import FileLock, Timeout
from pebble import ProcessExpired, ProcessPool

from genbench.errors import one_line
from genbench.execution.runner import Runner, RunOutcome, load_images
from genbench.execution.scheduler import WorkerError
from genbench.execution.transfer import image_facts, image_tensors, map_images
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

GRACE_SECONDS = 60.0
"""How long a run may take to save its state once the command is gone; then its process ends itself."""
OUTPUT_BYTES = 4000
"""The last bytes of a worker's output that are kept when it dies."""
SOCKET_FOLDER_BYTES = 60
"""The longest path of TMPDIR below which multiprocessing may keep its sockets."""
STOP = "stop"
"""The file whose presence means that the user has stopped."""


class ProcessExecutor:
    """`jobs` worker processes, each of which does one run, or ensemble, after another; GPUs are assigned in turn."""

    in_process = False

    def __init__(self, runner: Runner, jobs: int, timeout: float | None = None) -> None:
        """For runs of the runner's command; one that takes longer than `timeout` seconds is killed."""
        spec = worker_spec(runner)
        workers = max(1, runner.data_config.workers // jobs)
        self._spec = replace(
            spec,
            device="cuda" if runner.device.type == "cuda" else spec.device,
            threads=max(1, spec.threads // jobs),
            data_config={**spec.data_config, "workers": workers},
            jobs=jobs,
        )
        self._runner, self._jobs, self._timeout = runner, jobs, timeout
        self._resources = ExitStack()
        self._pool: ProcessPool | None = None
        self._scratch = Path()

    def submit(self, runs: Sequence[Run]) -> Future[list[RunOutcome]]:
        """Queue the runs for the next idle worker; all of them have the time of so many, together."""
        pool = self._pool or self._start(runs[0])
        name, timeout = runs[0].name, None if self._timeout is None else self._timeout * len(runs)
        answer = pool.schedule(do_work, args=(run_records(runs),), timeout=timeout)
        return _translated(answer, lambda error: self._worker_error(name, error))

    def interrupt(self) -> None:
        """Tell the workers to stop after their step."""
        if self._pool is not None:
            (self._scratch / STOP).touch()

    def shutdown(self) -> None:
        """End all workers; those that are at work are killed."""
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]
            self._pool.join()
        self._resources.close()

    def _start(self, run: Run) -> ProcessPool:
        """Load the dataset once, into files that the workers map, and start the pool."""
        self._scratch = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="genbench-")))
        images = load_images(self._runner.registry, run, self._runner.data_config, self._runner.callback)
        files = {}
        for name, tensor in image_tensors(images).items():
            file = self._resources.enter_context(nameless_file())
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            file.flush()
            files[name] = Descriptor(file)
        gpus = visible_gpus(self._runner.device)
        settings = {"spec": asdict(self._spec), "facts": image_facts(images), "gpus": gpus}

        # A worker costs a fork, not the import of torch; BLAS reads its threads when it is loaded.
        context = get_context("forkserver")
        _make_socket_folder()
        context.set_forkserver_preload([__name__])
        with environment({"OMP_NUM_THREADS": str(self._spec.threads)}):
            forkserver.ensure_running()
        initargs = (json.dumps(settings), str(self._scratch), files)
        self._pool = ProcessPool(self._jobs, initializer=start_worker, initargs=initargs, context=context)
        return self._pool

    def _worker_error(self, name: str, error: BaseException) -> WorkerError:
        """The cause of a worker's death, with the end of its output."""
        printed = ""
        with suppress(OSError), (self._scratch / f"{name}.txt").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - OUTPUT_BYTES))
            printed = file.read().decode(errors="replace")
        if isinstance(error, ProcessExpired):
            return WorkerError("worker died", how_it_ended(error.exitcode, printed), printed)
        if isinstance(error, WorkerStartError):
            return WorkerError("worker failed", one_line(error), printed, stops=True)
        if isinstance(error, TimeoutError):
            message = f"no end within {self._timeout:g} s (--run-timeout); the worker was killed"
            return WorkerError("timeout", message, printed)
        return WorkerError("worker failed", one_line(error), printed)


def _make_socket_folder() -> None:
    """Have multiprocessing keep its sockets where their paths are short enough, whatever TMPDIR is.

    A path of a socket has at most 108 bytes; the data stay in TMPDIR.
    """
    if len(os.fsencode(tempfile.gettempdir())) <= SOCKET_FOLDER_BYTES:
        return
    given = tempfile.tempdir
    tempfile.tempdir = "/tmp" if os.access("/tmp", os.W_OK) else None
    try:
        get_temp_dir()  # made once for a process
    finally:
        tempfile.tempdir = given


def _translated(answer: Future[str], explain: Any) -> Future[list[RunOutcome]]:
    """The future of outcomes, from the future of their JSON."""
    future = _Mirror(answer)

    def done(_: Future[str]) -> None:
        if answer.cancelled():
            future.cancel()
        elif (error := answer.exception()) is not None:
            future.set_exception(explain(error))
        else:
            future.set_result(received_outcomes(answer.result()))

    answer.add_done_callback(done)
    return future


class _Mirror(Future[list[RunOutcome]]):
    """A future that is running while its source is."""

    def __init__(self, source: Future[str]) -> None:
        super().__init__()
        self._source = source

    def running(self) -> bool:
        return self._source.running()


def nameless_file() -> IO[bytes]:
    """A temporary file without a name: a killed command leaves nothing behind."""
    return tempfile.TemporaryFile()


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within, for a process that is started."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def how_it_ended(status: int, printed: str) -> str:
    """The end of a process, in one line."""
    if status < 0:
        name = signal.Signals(-status).name
        often = " (as the system does where memory runs out)" if name == "SIGKILL" else ""
        return f"the worker process was ended by {name}{often}"
    *_, last = [line for line in printed.splitlines() if line.strip()] or [""]
    return f"the worker process ended with status {status}{': ' if last else ''}{last.strip()[:300]}"


def visible_gpus(device: torch.device) -> list[str]:
    """The GPUs that workers take in turn, as CUDA_VISIBLE_DEVICES names them: all, or the one that was asked for."""
    if device.type != "cuda":
        return []
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = names or [str(index) for index in range(torch.cuda.device_count())]
    index = cast("int | None", device.index)  # torch's stubs say int
    return names if index is None else [names[index % len(names)]]


# ---------------------------------------------------------------- in the worker


class Descriptor:
    """An open file's descriptor, which pickling duplicates into a worker."""

    def __init__(self, file: IO[bytes]) -> None:
        self.number = file.fileno()

    def __getstate__(self) -> Any:
        return DupFd(self.number)

    def __setstate__(self, state: Any) -> None:
        self.number = state.detach()


class WorkerStartError(RuntimeError):
    """No worker can be prepared: a plug-in cannot be imported there, or there is no space."""


class _Worker:
    """This worker process: its runner, or why there is none."""

    runner: Runner | None = None
    error = Exception("the worker was not started")
    scratch = Path()
    stopping = threading.Event()
    terminated = False
    slot: FileLock


def start_worker(settings: str, scratch: str, files: Mapping[str, Descriptor]) -> None:
    """Prepare a worker process; an error is raised by its first run."""
    _Worker.scratch = Path(scratch)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command passes Ctrl-C on by the file
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_stop_with_the_command, daemon=True).start()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # output is complete when the worker dies
    try:
        values = json.loads(settings)
        spec = WorkerSpec(**values["spec"])
        os.environ["OMP_NUM_THREADS"] = str(spec.threads)
        slot = _take_slot()
        if values["gpus"]:
            os.environ["CUDA_VISIBLE_DEVICES"] = values["gpus"][slot % len(values["gpus"])]
        images = map_images(values["facts"], {name: f"/dev/fd/{file.number}" for name, file in files.items()})
        _Worker.runner = make_runner(spec, images, _Worker.stopping.is_set)
    except Exception as error:
        _Worker.error = error


def do_work(records: str) -> str:
    """Do a unit of work; its outcomes as JSON. What it prints goes to a file, by the name of its first run."""
    runs = received_runs(records)
    with (_Worker.scratch / f"{runs[0].name}.txt").open("wb") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    if _Worker.runner is None:
        raise WorkerStartError(f"the worker cannot start: {one_line(_Worker.error)}")
    outcomes = do_runs(_Worker.runner, runs)
    sys.stdout.flush()
    if _Worker.terminated:
        _wait_for_the_end()
    return outcomes


def _take_slot() -> int:
    """The number of this worker: the first that no living worker has. It ends with the process."""
    slot = 0
    while True:
        _Worker.slot = FileLock(_Worker.scratch / f"slot-{slot}", timeout=0)
        try:
            _Worker.slot.acquire()
        except Timeout:
            slot += 1
        else:
            return slot


def _terminate(*_: object) -> None:
    """A batch system ends every process, or the pool this one after its time: save the state first."""
    _Worker.terminated = True
    _Worker.stopping.set()


def _wait_for_the_end() -> None:
    """Give the pool time to kill this process, if it was the pool: the run has then failed, and was not interrupted."""
    until = time.monotonic() + 10.0
    while time.monotonic() < until and not (_Worker.scratch / STOP).exists():
        time.sleep(0.1)


def _stop_with_the_command() -> None:
    """Stop when the user does; when the command is gone, save the state and end."""
    command = parent_process()
    while command is not None and command.is_alive():
        command.join(0.2)
        if (_Worker.scratch / STOP).exists():
            _Worker.stopping.set()
    _Worker.stopping.set()
    threading.Timer(GRACE_SECONDS, os._exit, (1,)).start()
