"""Threads, memory format and peak memory of the training device."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch

from genbench.api import Images, Model
from genbench.errors import one_line
from genbench.experiment.run import Run
from genbench.training.flops import forward_flops
from genbench.utils.torch_state import threads

FEW_OPERATIONS = 1e9
"""Operations of a batch's forward pass below which a CPU training has one thread and contiguous weights.

Measured on two cores with the network `conv`, batch 128 (0.2e9 operations), in images/s: two threads 15,200, one thread
10,500; but beside another busy process two threads fell to 220 (each of some hundred small parallel regions waits for
a thread that is not running) and one thread to 5,900.

Channels-last weights against contiguous ones, two threads, float32: `conv` at 28 pixels 0.88 times as fast, at 64
pixels 1.18, `swae-mnist` 1.48, `wae-mnist` (batch 16) 0.9; with bfloat16 0.92, 1.17, 2.2, 1.1 (reports/speed).
"""


@dataclass(frozen=True)
class DeviceConfig:
    """How a training uses its device: CPU threads, and the memory format of convolutions' weights."""

    threads: int
    memory_format: Literal["contiguous", "channels-last"]


def select_device_config(model: Model, batch: int, device: torch.device, threads: int | None = None) -> DeviceConfig:
    """The configuration of a training: `threads` CPU threads, or by default a number that suits the size of a step.

    On a CPU a small step (`FEW_OPERATIONS`) has one thread by default, whose speed does not collapse beside other
    busy processes, and contiguous weights; a large step has all threads of the process and channels-last weights. On
    a GPU convolutions are channels-last. The memory format does not depend on `threads`.
    """
    small = device.type == "cpu" and forward_flops(model, batch) < FEW_OPERATIONS
    convolutional = any(parameter.dim() == 4 for parameter in model.parameters())
    default = 1 if small else torch.get_num_threads()
    return DeviceConfig(threads or default, "channels-last" if convolutional and not small else "contiguous")


@contextmanager
def apply_device_config(model: Model, config: DeviceConfig) -> Iterator[None]:
    """Use the configuration inside; weights are contiguous afterwards, as those of a restored model are."""
    if config.memory_format == "channels-last":
        model.to(memory_format=torch.channels_last)
    try:
        with threads(config.threads):
            yield
    finally:
        if config.memory_format == "channels-last":
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.data = tensor.data.contiguous()


def on_device(images: Images, device: torch.device) -> Images:
    """The images with every split on the device: one copy, shared by all runs."""
    moved = {name: getattr(images, name).to(device) for name in ("train", "test", "validation")}
    return replace(images, **moved)


def reset_peak_memory(device: torch.device) -> None:
    """Reset `peak_memory`, so that it does not include earlier runs."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """The device's bytes since `reset_peak_memory`; None on a CPU, where only the process's memory is known.

    That holds the libraries, the images and whatever the evaluation of earlier runs left: of two models of equal size
    the second one took 300 MiB more.
    """
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None


def release_memory() -> None:
    """Free the memory of a failed run."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def describe_failure(error: BaseException, run: Run) -> tuple[str, str]:
    """The kind of a failure, and one line about it."""
    text = one_line(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        if not run.trains:
            return "out of memory", text[:120]
        return "out of memory", f"with batch {run.batch} ({text[:120]}); try a smaller --batch"
    return type(error).__name__, text
