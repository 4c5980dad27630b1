"""Runs as calls of actors on a Ray cluster, where ray is installed (`pip install 'genbench[ray]'`).

An actor holds a slot (cores, a GPU or a part of one), the plug-ins and the images on its device, and does one run
after another; a thread of the command waits for each. Ray places actors; the run of an actor that died goes to a new
one. The command holds the lock of every run. An actor that sees the command's own folder of runs, by a token in it,
writes there; from any other the files come back through Ray. Arguments and results are JSON, bytes and numpy arrays.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from genbench.api import Images
from genbench.errors import StoreError, UsageError, one_line
from genbench.execution.runner import INTERRUPTED, Runner, RunOutcome, load_images
from genbench.execution.scheduler import WorkerError
from genbench.execution.transfer import checked_name, image_facts, image_tensors, images_of, read_folder, receive
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
from genbench.storage.lock import LOCK, RunLockedError, lock_run
from genbench.storage.run_dir import LOG
from genbench.training.callbacks import LOCKED
from genbench.utils.io import write_text

RETRIES = 3
"""How often a run is given to another actor after its node or its process died.

Not left to Ray's own `max_task_retries`: with ray 2.60 and a node killed, all three were used up, as "unavailable",
while the actor still waited for a place to be restarted.
"""
POLL_SECONDS = 0.5
"""The interval at which a thread looks for the end of its run, or for Ctrl-C."""
PATIENCE_SECONDS = 60.0
"""How long an actor may take to save its run's state when the command stops."""
ANSWER_SECONDS = 5.0
"""How long a cluster may take to accept a connection; Ray itself tries for minutes."""
NOT_SENT = (LOCK,)


@dataclass(frozen=True)
class Slot:
    """The resources of one run on the cluster."""

    cpus: float
    gpus: float

    def count(self, node: Mapping[str, float]) -> int:
        """Runs that a node of these resources holds at once."""
        counts = [int(node.get("CPU", 0.0) / self.cpus + 1e-9)]
        if self.gpus:
            counts.append(int(node.get("GPU", 0.0) / self.gpus + 1e-9))
        return min(counts)


class RayExecutor:
    """Runs on a cluster, as many at once as its nodes hold, or `jobs`: an autoscaler then adds nodes."""

    in_process = False

    def __init__(
        self, runner: Runner, jobs: int | None, timeout: float | None, options: Mapping[str, Any] | None = None
    ) -> None:
        """`options` are those of `--executor-option`: `address`, `cpus-per-run`, `gpus-per-run`."""
        try:
            import ray
        except ImportError:
            raise UsageError("--executor ray needs Ray: pip install 'genbench[ray]'") from None
        options = options or {}
        self._ray, self._runner, self._jobs = ray, runner, jobs
        self._timeout = float("inf") if timeout is None else timeout
        self._address = options.get("address", "auto")
        gpus = float(options.get("gpus-per-run", runner.device.type == "cuda"))
        self._slot = Slot(float(options.get("cpus-per-run", 1.0)), gpus)
        self._resources = ExitStack()
        self._threads: ThreadPoolExecutor | None = None
        self._actor_arguments: tuple[Any, ...] = ()
        self._local = threading.local()
        self._mutex = threading.Lock()
        self._actors: list[Any] = []
        self._waiting = 0
        self._interrupted_at = float("inf")

    def submit(self, runs: Sequence[Run]) -> Future[list[RunOutcome]]:
        """Queue the runs for the next idle thread."""
        threads = self._threads or self._start(runs[0])
        with self._mutex:
            self._waiting += 1
        return threads.submit(self._do, runs)

    def interrupt(self) -> None:
        """Tell the actors to stop after their step."""
        with self._mutex:
            self._interrupted_at = time.monotonic()
            for actor in self._actors:
                actor.stop.remote()

    def shutdown(self) -> None:
        """End all actors."""
        self._interrupted_at = float("-inf")  # do not wait for states to be saved
        with self._mutex:
            for actor in self._actors:
                with suppress(self._ray.exceptions.RayError):
                    self._ray.kill(actor)
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self._resources.close()

    def _start(self, run: Run) -> ThreadPoolExecutor:
        """Connect, load the dataset once and put it into the cluster's memory."""
        ray = self._ray
        self._resources.enter_context(connected(ray, self._address))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        count = self._jobs or sum(self._slot.count(node) for node in nodes)
        if not count:
            raise UsageError(
                f"no node of the Ray cluster has {self._slot.cpus:g} cores and {self._slot.gpus:g} GPUs for a run:"
                " lower cpus-per-run or gpus-per-run, or add --jobs N to have an autoscaler add nodes"
            )
        store = self._runner.store
        store.mkdir(parents=True, exist_ok=True)
        token, secret = store / f".seen-{uuid4().hex[:8]}", uuid4().hex
        write_text(token, secret)
        self._resources.callback(token.unlink, missing_ok=True)
        cores = max(1, int(self._slot.cpus))
        spec = worker_spec(self._runner)
        # Ray shows an actor its GPU alone.
        device = "cuda" if self._runner.device.type == "cuda" else spec.device
        spec = replace(spec, device=device, threads=cores, data_config={**spec.data_config, "workers": cores})
        images = load_images(self._runner.registry, run, self._runner.data_config, self._runner.callback)
        facts, arrays = image_facts(images), {name: tensor.numpy() for name, tensor in image_tensors(images).items()}
        stored = ray.put(arrays)  # once for each node; actors there map it
        plugins = [(Path(file).name, Path(file).read_text(encoding="utf-8")) for file in spec.plugins]
        self._actor_arguments = (json.dumps(asdict(spec)), json.dumps(facts), [stored], plugins, (token.name, secret))
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="ray")
        return self._threads

    # ---------------------------------------------------------------- in a thread

    def _do(self, runs: Sequence[Run]) -> list[RunOutcome]:
        """Lock runs and have them done by an actor; those that another command has locked are left to it."""
        with self._mutex:
            self._waiting -= 1
        outcomes = {run.name: RunOutcome("locked", LOCKED) for run in runs}
        with ExitStack() as locks:
            locked_here = []
            for run in runs:
                with suppress(RunLockedError):
                    locks.enter_context(lock_run(self._runner.store / run.name))
                    locked_here.append(run)
            try:
                done = self._attempts(locked_here) if locked_here else []
            finally:
                if not self._waiting:  # the slot may be another command's
                    self._dismiss()
        outcomes |= {run.name: outcome for run, outcome in zip(locked_here, done, strict=True)}
        return list(outcomes.values())

    def _attempts(self, runs: Sequence[Run]) -> list[RunOutcome]:
        """Have runs done by this thread's actor, by another one where that dies."""
        death = ""
        for _ in range(RETRIES + 1):
            if self._interrupted_at < float("inf"):
                return [INTERRUPTED] * len(runs)
            try:
                return self._attempt(runs)
            except self._ray.exceptions.RayTaskError as error:
                raise WorkerError("worker failed", one_line(error.cause or error)) from None
            except self._ray.exceptions.RayError as error:
                self._dismiss()
                death = str(error)
            # An actor that cannot be created, for example for want of a plug-in's import, fails on any node.
            if "creation task" in death:
                *_, cause = [line for line in death.splitlines() if line.strip()]
                raise WorkerError("worker failed", f"the worker cannot start: {cause.strip()[:300]}", stops=True)
        if self._interrupted_at < float("inf"):
            return [INTERRUPTED] * len(runs)
        message = f"{RETRIES + 1} times, at last: {' '.join(death.split())[:300]}"
        raise WorkerError("worker lost", message)

    def _attempt(self, runs: Sequence[Run]) -> list[RunOutcome]:
        """Have this thread's actor do runs."""
        actor, store = self._actor(), self._runner.store
        begun = actor.shares.remote()
        while not self._ready(begun):
            if self._interrupted_at < float("inf"):
                self._dismiss()
                return [INTERRUPTED] * len(runs)
        shares = self._ray.get(begun)
        files = {} if shares else {run.name: read_folder(store / run.name, NOT_SENT) for run in runs}
        result = actor.do.remote(run_records(runs), files)
        deadline = time.monotonic() + self._timeout * len(runs)
        while not self._ready(result):
            for run in () if shares else runs:
                self._follow(actor, run)
            if time.monotonic() > deadline:
                self._dismiss()
                message = f"no end within {self._timeout:g} s (--run-timeout); the worker was killed"
                raise WorkerError("timeout", message)
            if time.monotonic() > self._interrupted_at + PATIENCE_SECONDS:
                self._dismiss()
                return [INTERRUPTED] * len(runs)
        answer, returned = self._ray.get(result)
        outcomes = received_outcomes(answer)
        for index, run in enumerate(runs if returned is not None else ()):
            try:
                receive(store / run.name, returned[run.name], tuple(files[run.name]))
            except (OSError, StoreError) as error:
                outcomes[index] = RunOutcome("failed", one_line(error))
        return outcomes

    def _ready(self, reference: Any) -> bool:
        ready, _ = self._ray.wait([reference], timeout=POLL_SECONDS)
        return bool(ready)

    def _follow(self, actor: Any, run: Run) -> None:
        """Append what a distant log has gained to the one here, by which progress is shown."""
        log = self._runner.store / run.name / LOG
        content = self._ray.get(actor.log.remote(run.name, log.stat().st_size if log.exists() else 0))
        if content:
            with log.open("ab") as file:
                file.write(content)

    def _actor(self) -> Any:
        """This thread's actor."""
        actor = getattr(self._local, "actor", None)
        if actor is None:
            options = {"num_cpus": self._slot.cpus, "num_gpus": self._slot.gpus, "max_concurrency": 4}
            made = self._ray.remote(RayActor).options(**options, scheduling_strategy="SPREAD")
            actor = self._local.actor = made.remote(*self._actor_arguments)
            with self._mutex:
                self._actors.append(actor)
        return actor

    def _dismiss(self) -> None:
        actor, self._local.actor = getattr(self._local, "actor", None), None
        if actor is not None:
            with self._mutex:
                self._actors.remove(actor)
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)


# ---------------------------------------------------------------- connection


@contextmanager
def connected(ray: ModuleType, address: str) -> Iterator[None]:
    """A connection to the cluster, unless the process has one already; `UsageError` where there is no cluster."""
    if ray.is_initialized():
        yield
        return
    check_address(ray, address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    started: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, logging_level="ERROR", log_to_driver=False, **started)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"address={address}: no Ray cluster answers ({one_line(error, 160)}); start one with `ray start --head`,"
            " or use address=local"
        ) from None
    for number, handler in handlers.items():  # ray takes SIGTERM for itself; here it means: save and stop
        signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def check_address(ray: ModuleType, address: str) -> None:
    """Raise `UsageError` where nothing accepts a connection at HOST:PORT or ray://HOST:PORT.

    Other addresses pass: Ray says at once what is wrong with them. It replaces a loopback host by the machine's own
    address, so either may answer.
    """
    target = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, _, port = target.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    loopback = host == "localhost" or host.startswith("127.")
    for name in (host.strip("[]"), *([ray.util.get_node_ip_address()] if loopback else [])):
        with suppress(OSError, OverflowError), socket.create_connection((name, int(port)), ANSWER_SECONDS):
            return
    raise UsageError(
        f"address={address}: nothing answers at {host}:{port}; start a cluster there with `ray start --head`, or use"
        " address=local"
    )


# ---------------------------------------------------------------- on the cluster


class RayActor:
    """One slot of a cluster."""

    def __init__(
        self,
        spec: str,
        facts: str,
        arrays: Sequence[Any],
        plugins: Sequence[tuple[str, str]],
        token: tuple[str, str],
    ) -> None:
        """Load the plug-ins from their texts and put the images on the device.

        `arrays` holds the reference to them: as an argument of its own it would be lost to an actor that is restarted.
        """
        self._scratch = tempfile.TemporaryDirectory(prefix="genbench-")
        folder = Path(self._scratch.name)
        files = []
        for index, (name, text) in enumerate(plugins):
            file = folder / "plugins" / str(index) / checked_name(name)
            file.parent.mkdir(parents=True)
            file.write_text(text, encoding="utf-8")
            files.append(str(file))
        worker = replace(WorkerSpec(**json.loads(spec)), plugins=files)
        token_file = Path(worker.store) / token[0]
        self._shares = token_file.is_file() and token_file.read_text(encoding="utf-8") == token[1]
        self._store = Path(worker.store) if self._shares else folder / "runs"
        self._stopping = threading.Event()
        self._threads = worker.threads
        images = images_of_arrays(json.loads(facts), fetched(arrays[0]))
        self._runner = make_runner(worker, images, self._stopping.is_set, locks=False, store=self._store)

    def shares(self) -> bool:
        """Whether this machine sees the command's folder of runs."""
        return self._shares

    def stop(self) -> None:
        """Have the run at work save its state and end."""
        self._stopping.set()

    def log(self, name: str, offset: int) -> bytes:
        """The log of a run here, from so many bytes on."""
        path = self._store / checked_name(name) / LOG
        return path.read_bytes()[offset:] if path.exists() else b""

    def do(
        self, records: str, files: Mapping[str, Mapping[str, bytes]]
    ) -> tuple[str, dict[str, dict[str, bytes]] | None]:
        """Do runs; their outcomes as JSON, and where this machine does not see the store their files, by their names.

        `files` are those of the folders as they were before.
        """
        torch.set_num_threads(self._threads)  # of this thread: OpenMP keeps a count for each
        runs = received_runs(records)
        for name, content_by_path in files.items():
            for relative, content in content_by_path.items():
                path = self._store / checked_name(name) / checked_name(relative)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        outcomes = do_runs(self._runner, runs)
        if self._shares:
            return outcomes, None
        return outcomes, {run.name: read_folder(self._store / run.name, NOT_SENT) for run in runs}


def fetched(reference: Any) -> Mapping[str, np.ndarray[Any, Any]]:
    """The arrays behind a reference: mapped from this node's memory, into which Ray copies them once."""
    import ray

    arrays: Mapping[str, np.ndarray[Any, Any]] = ray.get(reference)
    return arrays


def images_of_arrays(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> Images:
    """The dataset of arrays in Ray's shared memory, not copied; they cannot be written to."""
    if set(arrays) != set(facts["tensors"]):
        raise StoreError(f"the images came as {sorted(arrays)}, not as {sorted(facts['tensors'])}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return images_of(facts, {name: torch.from_numpy(array) for name, array in arrays.items()})
