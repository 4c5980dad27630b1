"""Who works on a run folder: a lock that the operating system frees, and beside it a lease for other machines.

`flock` decides between processes of one machine, and between machines where the file system carries locks (NFS 4, most
cluster file systems). Some keep them to each machine, so whoever holds the lock also leaves a lease: a file, made where
there is none, that its holder touches now and then. A lease of this machine with a free lock is of a dead process and
is taken over at once; one of another machine is respected until it has not been touched for a while.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

LEASE = "lease.json"
BEAT_SECONDS = 10.0
"""How often a holder touches its lease."""
STALE_SECONDS = 90.0
"""Age at which the lease of another machine is nobody's. Ages are told by the file system's clock, not by ours."""


class RunLockedError(Exception):
    """Another process works on this run."""


@contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """Hold a run's folder; it is free again when the process ends, however it ends. `RunLockedError` where it is held."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunLockedError from None
        with leased(path / LEASE):
            yield


@contextmanager
def leased(path: Path) -> Iterator[None]:
    """Hold the lease in a file; for whoever holds the lock beside it. `RunLockedError` where another machine holds it."""
    mine = json.dumps({"machine": machine(), "process": os.getpid(), "token": uuid4().hex}) + "\n"
    _take(path, mine)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with suppress(OSError):
                os.utime(path)  # without times: the file system's clock

    pulse = threading.Thread(target=beat, daemon=True, name="lease")
    pulse.start()
    try:
        yield
    finally:
        over.set()
        pulse.join()
        if _content(path) == mine:
            path.unlink(missing_ok=True)


def machine() -> str:
    """This machine since it was started: processes of an earlier start are dead."""
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{platform.node()} {boot}"


def _take(path: Path, mine: str) -> None:
    """Make the lease, after moving a dead one away; whoever comes second at either step finds it busy."""
    found = _content(path)
    if found is not None:
        if _holder(found) != machine() and _age(path) < STALE_SECONDS:
            raise RunLockedError
        aside = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
        try:
            path.rename(aside)
        except FileNotFoundError:
            raise RunLockedError from None
        taken = _content(aside)
        if taken != found:  # another one was quicker, and this is its lease: give it back
            with suppress(FileExistsError):
                os.link(aside, path)
            aside.unlink(missing_ok=True)
            raise RunLockedError
        aside.unlink(missing_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(mine)
    except FileExistsError:
        raise RunLockedError from None


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _holder(content: str) -> str:
    """The machine in a lease; "" for one that cannot be read, which is respected until it is stale."""
    try:
        return str(json.loads(content)["machine"])
    except (ValueError, TypeError, KeyError):
        return ""


def _age(path: Path) -> float:
    """Seconds since a lease was touched, by the clock of its file system."""
    probe = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        raise RunLockedError from None
    finally:
        probe.unlink(missing_ok=True)
