"""Torch's process-wide state: random state, default dtype, thread count, TF32; and the device that a command names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.errors import UsageError


@dataclass(frozen=True)
class TorchState:
    """Torch's process-wide state, which a plug-in may change; on a GPU also its random state and TF32."""

    device: torch.device
    random: Tensor
    dtype: torch.dtype
    threads: int
    device_random: Tensor | None = None
    tf32: tuple[bool, bool] | None = None

    @classmethod
    def current(cls, device: torch.device) -> TorchState:
        """The state as it is now."""
        host = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
        if device.type != "cuda":
            return cls(device, *host)
        tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        return cls(device, *host, torch.cuda.get_rng_state(device), tf32)

    def restore(self) -> None:
        """Make this the current state again."""
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
    """Restore torch's state on exit, whatever plug-ins did to it inside."""
    before = TorchState.current(device)
    try:
        yield
    finally:
        before.restore()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use `count` CPU threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(name: str) -> torch.device:
    """The device of `--device`; raises `UsageError` where this machine has no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] == "mps":
        raise UsageError(f"--device {name}: Apple GPUs are not supported: use --device cpu or an NVIDIA GPU")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: possible are auto, cpu, cuda, cuda:i") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: possible are auto, cpu, cuda, cuda:i")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices")
    return device
