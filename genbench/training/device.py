"""What a run meets outside itself: other processes, torch's global state, memory, threads."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from genbench.api import Images, Model
from genbench.errors import one_line
from genbench.experiment.run import Run
from genbench.training.heap import heap_kept

FEW_OPERATIONS = 1e9
"""Operations of a batch's forward pass below which a training has the bits of one CPU thread, and contiguous weights.

Measured on two cores with the network `conv`, batch 128 (0.2e9 operations), in images/s: two threads 15,200, one thread
10,500; but beside one other busy process two threads fell to 220 (each of some hundred small parallel regions waits for
a thread that is not running) and one thread to 5,900. So `genbench.training.pace` measures on the way what is quicker.

Channels-last weights against contiguous ones, two threads, float32: `conv` at 28 pixels 0.88 times as fast, at 64
pixels 1.18, `swae-mnist` 1.48, `wae-mnist` (batch 16) 0.9; with bfloat16 0.92, 1.17, 2.2, 1.1 (reports/speed).
"""


def on_device(images: Images, device: torch.device) -> Images:
    """The images with every split on the device: one copy, shared by all runs."""
    moved = {name: getattr(images, name).to(device) for name in ("train", "test", "validation")}
    return replace(images, **moved)


def explain(error: BaseException, run: Run, together: int = 1) -> tuple[str, str]:
    """The kind of a failure and one line about it; `together` trainings had their turns in this process."""
    text = one_line(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        if run.role == "control":
            return "out of memory", text[:120]
        smaller = "--batch" if together == 1 else f"--together than {together}"
        return "out of memory", f"with batch {run.batch} ({text[:120]}); try a smaller {smaller}"
    return type(error).__name__, text


def release_memory() -> None:
    """Give back what a failed run held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def forget_peak_memory(device: torch.device) -> None:
    """Start `peak_memory` anew, so that it does not tell of earlier runs."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Bytes since `forget_peak_memory`: the device's, or on a CPU the process's; None where the system cannot tell."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


@dataclass(frozen=True)
class DeviceConfig:
    """How a training uses its machine: threads of a CPU, and where the channels of a convolution's weights lie.

    Steps have up to `at_most` threads where that changes no bit and is quicker (see `genbench.training.pace`); none are tried
    where it is no more than `threads`. `keeps_heap` says that memory stays with the process between steps (see
    `genbench.training.heap`).
    """

    threads: int
    memory_format: Literal["contiguous", "channels-last"]
    keeps_heap: bool = False
    at_most: int = 0


def select_device_config(model: Model, batch: int, device: torch.device) -> DeviceConfig:
    """The arrangement that suits a training: a rule in the size of a step, so that a resumed one has the same.

    On a CPU large steps have all threads, channels-last weights and a kept heap; small ones have one thread, or more
    where a measurement on the way finds that they gain by it. On a GPU convolutions are channels-last.
    """
    if device.type != "cpu":
        return DeviceConfig(torch.get_num_threads(), "channels-last" if _convolves(model) else "contiguous")
    if forward_operations(model, batch) < FEW_OPERATIONS:
        return DeviceConfig(1, "contiguous", at_most=torch.get_num_threads())
    return DeviceConfig(
        torch.get_num_threads(), "channels-last" if _convolves(model) else "contiguous", keeps_heap=True
    )


def forward_operations(model: Model, batch: int) -> int:
    """Operations of a forward pass of a batch, in matrix products and convolutions, on the default device."""
    x = torch.zeros(batch, *model.context.shape)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval().decode(model.encode(x))
    return int(counter.get_total_flops())


def _convolves(model: Model) -> bool:
    return any(parameter.dim() == 4 for parameter in model.parameters())


@contextmanager
def apply_device_config(model: Model, arrangement: DeviceConfig) -> Iterator[None]:
    """The model and the process are so within; weights are contiguous afterwards, as a restored model's are."""
    if arrangement.memory_format == "channels-last":
        model.to(memory_format=torch.channels_last)
    try:
        with threads(arrangement.threads), heap_kept() if arrangement.keeps_heap else nullcontext():
            yield
    finally:
        if arrangement.memory_format == "channels-last":
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.data = tensor.data.contiguous()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use `count` CPU threads within."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
