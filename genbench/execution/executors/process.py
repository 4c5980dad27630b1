"""Several runs at once on this machine, each in a worker process that does one after another."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import IO, Any

import torch

from genbench.execution.messages import image_facts, image_tensors
from genbench.execution.scheduler import Engine, RunEvent, WorkerSpec
from genbench.execution.worker import Descriptor, begin
from genbench.experiment.run import Run

START_SECONDS = 120.0
"""What a new worker may need beyond --run-timeout, for importing torch and the plug-ins."""
TAIL = 4000
"""Bytes of what a worker printed that are kept where it dies."""


@dataclass
class Hand:
    """A worker process, the run it is at, and until when it may be."""

    slot: int
    process: BaseProcess
    channel: Connection
    printed: IO[bytes]
    run: Run | None = None
    deadline: float = float("inf")
    fresh: bool = True


class Local:
    """The executor of worker processes. Images lie in one file for all of them, GPUs are dealt out in turn."""

    def __init__(self, site: WorkerSpec, jobs: int, limit: float, files: Mapping[str, IO[bytes]], facts: Any) -> None:
        """With `jobs` workers at most, started when needed, and `limit` seconds for a run."""
        self._site, self._limit, self._files, self._facts = site, limit, files, facts
        self.capacity = min(jobs, site.runs)
        self._hands: list[Hand] = []
        self._cancelled = False
        share = max(1, site.brief["threads"] // self.capacity)
        workers = max(1, site.brief["place"]["workers"] // self.capacity)
        device = "cuda" if site.brief["device"].startswith("cuda") else "cpu"
        place = {**site.brief["place"], "workers": workers}
        self._brief = {**site.brief, "device": device, "threads": share, "place": place, "jobs": self.capacity}

    def submit(self, run: Run) -> None:
        """Give the run to an idle worker, or to a new one."""
        hand = next((hand for hand in self._hands if hand.run is None), None) or self._hire()
        allowance = START_SECONDS if hand.fresh else 0.0
        hand.run, hand.deadline = run, time.monotonic() + self._limit + allowance
        self._send(hand, {"name": run.name, "run": run.record()})

    def wait(self, seconds: float) -> list[RunEvent]:
        """What the workers told, and what became of those that died or took too long."""
        news: list[RunEvent] = []
        for channel in wait([hand.channel for hand in self._hands], seconds):
            hand = next(hand for hand in self._hands if hand.channel is channel)
            news += self._hear(hand)
        for hand in list(self._hands):
            if hand.run is not None and time.monotonic() > hand.deadline:
                message = f"no end within {self._limit:g} s (--run-timeout); the worker was killed"
                news.append(self._bury(hand, "timeout", message))
        return news

    def cancel(self) -> None:
        """Tell the workers to stop after their step."""
        self._cancelled = True
        for hand in self._hands:
            self._send(hand, "stop")

    def close(self) -> None:
        """End all workers: idle ones leave by themselves, others are killed."""
        for hand in self._hands:
            hand.channel.close()
            if hand.run is not None:
                kill(hand.process)
        for hand in self._hands:
            hand.process.join(timeout=5)
            if hand.process.is_alive():
                kill(hand.process)
                hand.process.join()
            hand.printed.close()
        self._hands.clear()

    def _hire(self) -> Hand:
        taken = {hand.slot for hand in self._hands}
        slot = next(slot for slot in range(self.capacity) if slot not in taken)
        ours, theirs = Pipe()
        printed = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the worker)
        files = {name: Descriptor(file.fileno()) for name, file in self._files.items()}
        variables = {"OMP_NUM_THREADS": str(self._brief["threads"]), **gpu(self._site.brief, slot)}
        context = get_context("forkserver")
        context.set_forkserver_preload(["genbench.execution.worker"])  # a worker costs a fork, not the import of torch
        process = context.Process(target=begin, args=(theirs, Descriptor(printed.fileno()), files, variables))
        with environment(variables):  # of the server too, where this starts it: BLAS reads its threads when loaded
            process.start()
        theirs.close()
        hand = Hand(slot, process, ours, printed)
        self._hands.append(hand)
        self._send(hand, {"brief": self._brief, "facts": self._facts})
        return hand

    def _send(self, hand: Hand, message: object) -> None:
        with suppress(OSError):  # a worker that died is found by `wait`
            hand.channel.send_bytes(json.dumps(message).encode())

    def _hear(self, hand: Hand) -> list[RunEvent]:
        try:
            name, kind, facts = json.loads(hand.channel.recv_bytes())
        except (EOFError, OSError):
            if hand.run is None:
                self._dismiss(hand)
                return []
            return [self._bury(hand, "worker died", "")]
        if kind == "began":
            hand.fresh, hand.deadline = False, time.monotonic() + self._limit
        elif kind == "ended":
            hand.run, hand.deadline = None, float("inf")
        return [RunEvent(name, kind, facts)]

    def _bury(self, hand: Hand, kind: str, message: str) -> RunEvent:
        """The end of a run whose worker is dead or is killed now; the failure is recorded in the run's folder."""
        run = hand.run
        assert run is not None
        tail = self._dismiss(hand, expired=bool(message))
        problem = self._site.fail(run, kind, message or last_words(hand.process.exitcode or 0, tail), tail)
        return RunEvent(run.name, "ended", {"problem": problem, "interrupted": self._cancelled})

    def _dismiss(self, hand: Hand, *, expired: bool = False) -> str:
        """Take a worker out, killed where it lives; the end of what it printed."""
        self._hands.remove(hand)
        hand.process.join(timeout=0 if expired else 1)  # one that closed its channel is about to be gone
        kill(hand.process)
        hand.process.join()
        hand.channel.close()
        with hand.printed as printed:
            printed.seek(max(0, printed.seek(0, os.SEEK_END) - TAIL))
            return printed.read().decode(errors="replace")


def kill(process: BaseProcess) -> None:
    """Kill a worker and whatever it started."""
    if process.is_alive() and process.pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its group has its number, once it has begun
        process.kill()


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


def last_words(status: int, printed: str) -> str:
    """How a process ended, in one line."""
    if status < 0:
        name = signal.Signals(-status).name
        often = " (as the system does where memory runs out)" if name == "SIGKILL" else ""
        return f"the worker process was ended by {name}{often}"
    *_, last = [line for line in printed.splitlines() if line.strip()] or [""]
    return f"the worker process ended with status {status}{': ' if last else ''}{last.strip()[:300]}"


def gpu(brief: Mapping[str, Any], slot: int) -> dict[str, str]:
    """The environment that shows a worker its GPU: the one that was asked for, or each in turn."""
    device = torch.device(brief["device"])
    if device.type != "cuda":
        return {}
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = [name.strip() for name in given.split(",") if name.strip()]
    visible = visible or [str(index) for index in range(torch.cuda.device_count())]
    return {"CUDA_VISIBLE_DEVICES": visible[(slot if device.index is None else device.index) % len(visible)]}


@contextmanager
def _opened(site: WorkerSpec, jobs: int, limit: float) -> Iterator[Local]:
    with ExitStack() as stack:
        images = site.load()
        facts, files = image_facts(images), dict[str, IO[bytes]]()
        for name, tensor in image_tensors(images).items():
            file = stack.enter_context(tempfile.TemporaryFile())  # it has no name: nothing is left behind
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            file.flush()
            files[name] = file
        del images, tensor
        executor = Local(site, jobs, limit, files, facts)
        stack.callback(executor.close)
        yield executor


def local(jobs: int, limit: float | None = None) -> Engine:
    """The engine with `jobs` worker processes; a run that takes longer than `limit` seconds is killed and failed."""
    return partial(_opened, jobs=jobs, limit=float("inf") if limit is None else limit)
