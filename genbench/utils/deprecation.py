"""Old names of the public surface that go on working for a release, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Renamed:
    """Where a deprecated name's thing is now: a name in the same module, and the release in which the old one goes."""

    to: str
    until: str


def renamed(module: str, table: Mapping[str, Renamed]) -> Callable[[str], object]:
    """A module's `__getattr__`: an old name of the table gives the new thing and a `DeprecationWarning`.

    Any other name is an `AttributeError`, as it would be without the table.
    """

    def getattr_(name: str) -> object:
        if name not in table:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        new = table[name]
        told = f"{module}.{name} is now {module}.{new.to}; the old name goes with genbench {new.until}"
        warnings.warn(told, DeprecationWarning, stacklevel=2)
        return getattr(import_module(module), new.to)

    return getattr_
