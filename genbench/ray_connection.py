"""The connection of a command to a Ray cluster. Ray is handed in: this module loads without it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from genbench.errors import UsageError, one_line


@contextmanager
def connected(ray: ModuleType, address: str) -> Iterator[None]:
    """A connection to the cluster, unless the process has one already; `UsageError` where there is no cluster."""
    if ray.is_initialized():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    started: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, logging_level="ERROR", log_to_driver=False, **started)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--address {address}: no Ray cluster answers ({one_line(error, 160)}); start one with `ray start --head`,"
            " or say --address local"
        ) from None
    for number, handler in handlers.items():  # ray takes SIGTERM for itself; here it means: save and stop
        signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()
