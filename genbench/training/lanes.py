"""What one of several works in turns has for itself: torch's process-wide state, and on a GPU a stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """What torch keeps for a whole process and a run may change; on a GPU also its random state and TF32."""

    device: torch.device
    random: Tensor
    dtype: torch.dtype
    threads: int
    device_random: Tensor | None = None
    tf32: tuple[bool, bool] | None = None

    @classmethod
    def now(cls, device: torch.device) -> State:
        """As it is."""
        host = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
        if device.type != "cuda":
            return cls(device, *host)
        products = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        return cls(device, *host, torch.cuda.get_rng_state(device), products)

    def restore(self) -> None:
        """Make it so again."""
        torch.set_rng_state(self.random)
        if torch.get_default_dtype() != self.dtype:
            torch.set_default_dtype(self.dtype)
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        if self.device_random is not None:
            torch.cuda.set_rng_state(self.device_random, self.device)
        if self.tf32 is not None:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = self.tf32


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Torch's state is afterwards what it was before, whatever plug-ins did to it, or lanes had their turns within."""
    before = State.now(device)
    try:
        yield
    finally:
        before.restore()


class Lane:
    """One work's stream and state, which begins as a copy of the process's; turns are taken within `isolated`.

    All of a work has to be done in its turns: what it keeps on a GPU lies in the memory of its stream.
    """

    def __init__(self, device: torch.device) -> None:
        """For a work that may use what is on the device, or on its way there, now."""
        self._device, self._state = device, State.now(device)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Its stream is the current one within, and its state torch's."""
        self._state.restore()
        try:
            with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                yield
        finally:
            self._state = State.now(self._device)

    def finish(self) -> None:
        """Wait for its stream, before others use what it has made."""
        if self._stream is not None:
            self._stream.synchronize()
