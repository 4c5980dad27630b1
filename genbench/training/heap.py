"""The C library's heap while large steps train on a CPU: pages stay with the process between steps.

glibc gives large blocks back to the system as soon as they are free, so that every step of a large network asks for its
activations anew, page by page, each zeroed by the kernel at its first touch: for `swae-mnist` at batch 128 some 60,000
page faults a step, a fifth of the CPU time (reports/speed/memory-notes.md).
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3), as malloc.h numbers them."""
NEVER = 2**31 - 1
"""Bytes: the largest value mallopt takes. No block is mapped for itself, no free end of the heap is given back."""
MAPPED, TRIMMED = 32 << 20, 64 << 20
"""Bytes: where glibc's own thresholds end up in a process that has freed large blocks; it adjusts them no more."""


@contextmanager
def heap_kept() -> Iterator[None]:
    """Free memory stays with the process within, and is given back at the end; nothing where glibc is not in use.

    A process may hold more at its peak: blocks that are mapped by themselves leave no gaps, blocks of a heap do.
    """
    glibc = _glibc()
    if glibc is None:
        yield
        return
    if not glibc.mallopt(MMAP_THRESHOLD, NEVER):  # glibc before 2.35 takes no more than this
        glibc.mallopt(MMAP_THRESHOLD, MAPPED)
    glibc.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        glibc.mallopt(MMAP_THRESHOLD, MAPPED)
        glibc.mallopt(TRIM_THRESHOLD, TRIMMED)
        glibc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library where it is glibc."""
    if platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
