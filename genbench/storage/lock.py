"""The lock on a run folder: one process works on a run, and the operating system frees the lock of a dead one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from genbench.errors import StoreError, SystemFailureError
from genbench.utils.io import disk_full_error

LOCK = "lock"


class RunLockedError(Exception):
    """Another process works on this run."""


@contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """Hold a run's folder, made if need be; it is free again when the process ends, however it ends.

    Raises:
        RunLockedError: Another process holds it.
        StoreError: No lock can be made there.
    """
    # Of any thread, since measurements may be saved by another one; never a marker file that outlives its process.
    lock = FileLock(path / LOCK, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        if not os.access(path / LOCK, os.W_OK):
            raise StoreError(f"{path} cannot be locked: it cannot be written to; name another folder") from None
        raise RunLockedError from None
    except (OSError, NotImplementedError) as error:
        cause = getattr(error, "strerror", None) or "its file system has no locks"
        raise disk_full_error(path, error) or SystemFailureError(
            f"{path} cannot be locked ({cause}); name a folder on a file system that has locks"
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds a run's folder; False where no lock was ever made, or none can be made."""
    lock = FileLock(path / LOCK, timeout=0, fallback_to_soft=False)
    try:
        if not (path / LOCK).exists():
            return False
        with lock:
            return False
    except Timeout:
        return os.access(path / LOCK, os.W_OK)
    except (OSError, NotImplementedError):
        return False
