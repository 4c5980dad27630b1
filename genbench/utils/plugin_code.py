"""Where an error was raised in the code of a plug-in: the loader states its files, messages name file and line."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path

from genbench.errors import GenbenchError, one_line, shell_word

_SOURCES: set[Path] = set()
"""Plug-in files, and the folders of plug-ins that are packages. They say how an error is worded, and nothing else."""


def plugin_options(files: Iterable[str]) -> str:
    """Plug-in files as a command names them, quoted for the shell: `--plugin ./a.py --plugin ./b.py`."""
    return " ".join(map(shell_word, (word for file in files for word in ("--plugin", file))))


def add_source(file: Path) -> None:
    """State that a file is a plug-in's; the `__init__.py` of a package stands for its whole folder."""
    file = file.resolve()
    _SOURCES.add(file.parent if file.name == "__init__.py" else file)


def error_location(error: BaseException) -> str:
    """The last line of a plug-in that an error passed, `infovae.py:43, in training_step`; "" where it passed none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if name := _plugin_file(frame.filename):
            function = "" if frame.name == "<module>" else f", in {frame.name}"
            return f"{name}:{frame.lineno}{function}"
    if isinstance(error, SyntaxError) and (name := _plugin_file(error.filename or "")):
        return f"{name}:{error.lineno}"
    return ""


def describe_error(error: BaseException) -> str:
    """An error in one line: what a `GenbenchError` says, else the place in a plug-in, the type and the message."""
    text = one_line(error)
    if isinstance(error, GenbenchError):
        return text
    if isinstance(error, SyntaxError):
        text = one_line(SyntaxError(error.msg))
    place = error_location(error)
    kind = type(error).__name__
    what = kind if text == kind else f"{kind}: {text}"
    return f"{place}: {what}" if place else what


def _plugin_file(filename: str) -> str:
    """A plug-in's file by its name, one within a package by its path from there; "" for any other file."""
    path = Path(filename)
    if path.suffix != ".py":  # "<frozen runpy>", a compiled extension
        return ""
    path = path.resolve()
    if path in _SOURCES:
        return path.name
    package = next((folder for folder in path.parents if folder in _SOURCES), None)
    return "" if package is None else path.relative_to(package.parent).as_posix()
