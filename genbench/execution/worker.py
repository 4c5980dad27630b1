"""What a worker process does: plug-ins and images loaded once, then one run after another.

It speaks with the process that started it through a socket: messages are JSON, the first one the brief and the images'
facts, then runs, or "stop".
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import torch

from genbench.api import Images, ProgressEvent
from genbench.errors import StoreError
from genbench.execution.messages import map_images, moment_record, place_of, plan_of
from genbench.execution.runner import Runner
from genbench.experiment.run import Run, run_of_record
from genbench.registry.loader import load
from genbench.storage.provenance import provenance
from genbench.training.callbacks import NullCallback
from genbench.training.device import on_device
from genbench.training.loop import TrainState

GRACE_SECONDS = 60.0
"""How long a run may take to save its state once nobody listens any more; then the process ends itself."""

Tell = Callable[[str, str, Mapping[str, Any]], None]
"""Told the run's name, the kind of news and its facts."""


class Relay(NullCallback):
    """Passes on what a bench tells of one run."""

    def __init__(self, name: str, tell: Tell) -> None:
        self._name, self._tell = name, tell

    def preparing(self, progress: ProgressEvent) -> None:
        """Nothing: a worker is given its images."""

    def trained(self, moment: TrainState) -> None:
        """A log point."""
        self._tell(self._name, "trained", moment_record(moment))

    def measuring(self, metric: str) -> None:
        """A metric begins."""
        self._tell(self._name, "measuring", {"metric": metric})


class WorkerContext:
    """What the runs that one worker does share: the plug-ins, and the images on its device."""

    def __init__(
        self, brief: Mapping[str, Any], images: Images, stop: Callable[[], bool], *, held: bool = False
    ) -> None:
        """Load the plug-ins and put the images, which are on the CPU, on the device.

        `held` says that the command that sent the runs holds their folders.
        """
        torch.set_num_threads(brief["threads"])
        self._brief, self._held = brief, held
        self._device = torch.device(brief["device"])
        self._catalogue = load([Path(file) for file in brief["plugins"]], disabled=brief["without"])
        self._catalogue.allow_changed_source = brief["any_source"]
        self._images = on_device(images, self._device)
        self._memory: dict[str, Any] = {}
        self.stop = stop
        facts = {**provenance(self._device, []), "command": brief["command"]}
        self._bench = Runner(
            self._catalogue,
            Path(brief["store"]),
            place_of(brief["place"]),
            self._device,
            facts,
            NullCallback(),
            stop,
            jobs=brief["jobs"],
        )

    def do(self, record: Mapping[str, Any], tell: Tell, store: Path | None = None) -> dict[str, Any]:
        """Do the run of a record in its folder, or in that of another store; the facts of its end."""
        torch.set_num_threads(self._brief["threads"])  # of this thread: OpenMP keeps a count for each
        run = run_of_record(record)
        bench = replace(self._bench, listener=Relay(run.name, tell), store=store or self._bench.store)
        tell(run.name, "began", {})
        plan = plan_of(self._brief, run, self._images)
        problem = bench.attempt(run, plan, self._images, self._memory, held=self._held)
        return {"problem": problem, "interrupted": self.stop()}


def checked_run(record: Mapping[str, Any], name: str) -> Run:
    """The run of a record, which must be the one of that name: workers of another version would do another run."""
    run = run_of_record(record)
    if run.name != name:
        raise StoreError(f"a worker of another genbench takes the run {name} for {run.name}: install one version")
    return run


def serve(channel: Connection, paths: Mapping[str, str]) -> None:
    """Do runs as they come until the other end is closed; whatever is at work then saves its state first."""
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    stopping = threading.Event()

    def listen() -> None:
        try:
            while True:
                message = json.loads(channel.recv_bytes())
                if message == "stop":
                    stopping.set()
                else:
                    orders.put(message)
        except (EOFError, OSError):
            stopping.set()
            orders.put(None)
            threading.Timer(GRACE_SECONDS, os._exit, (1,)).start()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is passed on as "stop"
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())  # a batch system tells every process
    first = json.loads(channel.recv_bytes())
    threading.Thread(target=listen, daemon=True).start()

    def tell(name: str, kind: str, facts: Mapping[str, Any]) -> None:
        try:
            channel.send_bytes(json.dumps([name, kind, facts]).encode())
        except OSError:  # nobody listens any more: what is at work is saved all the same
            stopping.set()

    place = WorkerContext(first["brief"], map_images(first["facts"], paths), stopping.is_set)
    while (order := orders.get()) is not None:
        run = checked_run(order["run"], order["name"])
        tell(run.name, "ended", place.do(order["run"], tell))


class Descriptor:
    """The number of an open file, which follows it into the worker."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getstate__(self) -> Any:
        return DupFd(self.number)

    def __setstate__(self, state: Any) -> None:
        self.number = state.detach()


def begin(
    channel: Connection, printed: Descriptor, files: Mapping[str, Descriptor], variables: Mapping[str, str]
) -> None:
    """The whole life of a worker of `executors_local`: what it prints goes to a file, the images come from files."""
    os.setsid()  # the terminal's Ctrl-C is for the command, which passes it on; a kill takes what plug-ins started
    os.environ.update(variables)
    os.dup2(printed.number, 1)
    os.dup2(printed.number, 2)
    serve(channel, {name: f"/dev/fd/{file.number}" for name, file in files.items()})
    sys.stdout.flush()
    os._exit(0)  # threads that plug-ins left behind do not keep the process
