"""Keeping what a plug-in says at import out of our output."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

STDOUT = 1


@contextmanager
def captured() -> Iterator[list[str]]:
    """Catch what is said within, and append it to the list at the end.

    Python's two streams are caught, and the file descriptor of standard output, which C code and child processes write
    to: a csv that is piped on stays clean. The descriptor of standard error is left alone, for the last words of a
    crash. It is the process's descriptor: what other threads print meanwhile is caught too.
    """
    said: list[str] = []
    words = StringIO()
    try:
        with _descriptor(said), redirect_stdout(words), redirect_stderr(words):
            yield said
    finally:
        said.insert(0, words.getvalue())


@contextmanager
def _descriptor(said: list[str]) -> Iterator[None]:
    """Catch descriptor 1 in a file: a pipe would block whoever says more than it holds."""
    try:
        os.fstat(STDOUT)  # first: the file would take the number of a closed one
        file, kept = tempfile.TemporaryFile(), os.dup(STDOUT)  # noqa: SIM115
    except OSError:  # a closed descriptor has nothing to keep clean; a full disk does not stop a listing
        yield
        return
    with file:
        if sys.stdout is not None:
            sys.stdout.flush()
        os.dup2(file.fileno(), STDOUT)
        try:
            yield
        finally:
            _flush_c()
            os.dup2(kept, STDOUT)
            os.close(kept)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))


def _flush_c() -> None:
    """Have C's buffered output written now: else it would come at the exit, into our own."""
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
