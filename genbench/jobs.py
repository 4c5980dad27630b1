"""How many runs a CPU does at once where the command does not say."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import get_all_start_methods
from pathlib import Path

import torch

from genbench.api import Shape
from genbench.machine import FEW_OPERATIONS, forward_operations
from genbench.plugins import Catalogue
from genbench.runs import Run, make_model

WORTH_SECONDS = 30.0
"""Of training one run after another, below which workers are not worth their start, some seconds of each core."""
OPERATIONS_PER_SECOND = 80e9
"""Of one core in matrix products; with `SECONDS_PER_STEP` it makes 5.6 ms of the 6 ms of a step of the network mlp."""
SECONDS_PER_STEP = 1e-3
"""Of everything else."""
PASSES = 3
"""Forward passes that cost as much as a forward and a backward one."""
BYTES_PER_WORKER = 2 * 2**30
"""Ample for a training of small steps and for its measurements; a worker with 10,000 codes in R^64 held 1.1 GiB."""


def suitable_jobs(
    catalogue: Catalogue, unfinished: int, untrained: Iterable[Run], shape: Shape, cores: int, memory: int
) -> int:
    """Runs at once: 1, or as many of `unfinished` as there are cores, threads and memory for, in bytes.

    That is where all are trainings of small steps, which have one thread each anyway, so that no number depends on the
    choice; and where they are long enough to be worth the workers. A model that cannot be made or counted here is left
    for the training to tell of.
    """
    most = min(unfinished, cores, torch.get_num_threads(), memory // BYTES_PER_WORKER)
    if most < 2 or "forkserver" not in get_all_start_methods():
        return 1
    operations: dict[tuple[str, str, int], int] = {}
    seconds = 0.0
    for run in untrained:
        cell = (run.model.name, run.prior.name, run.latent_dim)
        if cell not in operations:
            try:
                operations[cell] = _operations(catalogue, run, shape)
            except (Exception, SystemExit):
                return 1
        if operations[cell] >= FEW_OPERATIONS:
            return 1
        step = SECONDS_PER_STEP + PASSES * operations[cell] / OPERATIONS_PER_SECOND
        seconds += run.images / run.batch * step
    return most if seconds >= WORTH_SECONDS else 1


def _operations(catalogue: Catalogue, run: Run, shape: Shape) -> int:
    """Of a batch's forward pass, counted without memory and without arithmetic."""
    with torch.device("meta"):
        return forward_operations(make_model(catalogue, run, shape), run.batch)


def available_memory() -> int:
    """Bytes that new processes may take without swapping: as Linux tells, elsewhere half of the machine's, or 0."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return 0
