"""The connection to a Ray cluster, or one clear line where there is none. Imports no ray: it is handed in."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from genbench.errors import UsageError, one_line

ANSWER_SECONDS = 5.0
"""How long a cluster may take to accept a connection; Ray itself tries for minutes."""


@contextmanager
def connected(ray: ModuleType, address: str) -> Iterator[None]:
    """A connection to the cluster, unless the process has one already; `UsageError` where there is no cluster."""
    if ray.is_initialized():
        yield
        return
    answered(ray, address)
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


def answered(ray: ModuleType, address: str) -> None:
    """Raise `UsageError` where nothing accepts a connection at HOST:PORT or ray://HOST:PORT.

    Other addresses pass: Ray tells at once what is wrong with them. It replaces a loopback host by the machine's own
    address, so either may answer.
    """
    place = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    loopback = host == "localhost" or host.startswith("127.")
    for name in (host.strip("[]"), *([ray.util.get_node_ip_address()] if loopback else [])):
        with suppress(OSError, OverflowError), socket.create_connection((name, int(port)), ANSWER_SECONDS):
            return
    raise UsageError(
        f"--address {address}: nothing answers at {host}:{port}; start a cluster there with `ray start --head`, or say"
        " --address local"
    )
