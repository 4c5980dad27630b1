"""Tensors in safetensors files with a checksum, hashes, and a lock: for caches of datasets and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from genbench.utils.io import hash_file, hash_tensors, load_tensors, save_tensors

__all__ = ["compute_once", "hash_file", "hash_tensors", "load_tensors", "save_tensors"]

T = TypeVar("T")


def compute_once(path: Path, read: Callable[[], T | None], make: Callable[[], T]) -> T:
    """The value kept in a file, or made and kept there: of several processes one makes it, and the others wait for it.

    Args:
        path: The file; the lock is a file beside it.
        read: Reads the file; None where it is missing, damaged or of something else. Called again under the lock.
        make: Computes the value, and saves it at the path.

    Returns:
        What `read` or `make` returned.

    Example:
        >>> path = Path("two.txt")
        >>> def make() -> int:
        ...     return path.write_text("2") and 2
        >>> [compute_once(path, lambda: int(path.read_text()) if path.exists() else None, make) for _ in range(2)]
        [2, 2]
    """
    value = read()
    if value is not None:
        return value
    with _locked(path):
        value = read()
        return make() if value is None else value


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock beside a file; a dead process holds none. Where the file system has no locks it is not held."""
    lock = path.with_name(f".{path.name}.lock")
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(lock, fallback_to_soft=False))
            held.callback(lock.unlink, missing_ok=True)  # whoever still waits for it finds the value
        except (OSError, NotImplementedError):
            pass  # it may be computed twice; and `make` says what is wrong with the folder
        yield
