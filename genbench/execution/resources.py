"""How many runs a CPU does at once where the command does not say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing import get_all_start_methods
from pathlib import Path

import torch

from genbench.api import Shape
from genbench.experiment.build import create_model
from genbench.experiment.run import Run
from genbench.registry.loader import Registry
from genbench.training.device import FEW_OPERATIONS
from genbench.training.flops import forward_flops

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
UNLIMITED = 2**62
"""The old interface tells "no limit" as a number near this one."""


def suitable_jobs(
    registry: Registry, unfinished: int, untrained: Iterable[Run], shape: Shape, cores: float, memory: int
) -> int:
    """Runs at once: 1, or as many of `unfinished` as there are cores, threads and memory for, in bytes.

    That is where all are trainings of small steps, which give the bits of one thread in any case, so that no number
    depends on the choice; and where they are long enough to be worth the workers. A model that cannot be made or
    counted here is left for the training to tell of.
    """
    most = min(unfinished, int(cores), torch.get_num_threads(), memory // BYTES_PER_WORKER)
    if most < 2 or "forkserver" not in get_all_start_methods():
        return 1
    operations: dict[tuple[str, str, int], int] = {}
    seconds = 0.0
    for run in untrained:
        cell = (run.model.name, run.prior.name, run.latent_dim)
        if cell not in operations:
            try:
                operations[cell] = _operations(registry, run, shape)
            except (Exception, SystemExit):
                return 1
        if operations[cell] >= FEW_OPERATIONS:
            return 1
        step = SECONDS_PER_STEP + PASSES * operations[cell] / OPERATIONS_PER_SECOND
        seconds += run.images / run.batch * step
    return most if seconds >= WORTH_SECONDS else 1


def _operations(registry: Registry, run: Run, shape: Shape) -> int:
    """Of a batch's forward pass, counted without memory and without arithmetic."""
    with torch.device("meta"):
        return forward_flops(create_model(registry, run, shape), run.batch)


def allowed_cores(affinity: int, system: Path = Path("/")) -> float:
    """Cores that this process may use: those of its affinity, or a container's or a batch job's share of them."""
    shares = [float(affinity)]
    for group in _groups(system, "cpu"):
        with suppress(OSError, ValueError, ZeroDivisionError):
            if (group / "cpu.max").exists():
                quota, period = _text(group / "cpu.max").split()
            else:
                quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
            if quota not in ("max", "-1"):
                shares.append(int(quota) / int(period))
    return min(shares)


def available_memory(system: Path = Path("/")) -> int:
    """Bytes that new processes may take without swapping, in the whole machine and in each limit on this process.

    0 where the system does not tell, half of the machine's where it tells no more than that.
    """
    bounds = []
    with suppress(OSError, ValueError, IndexError):
        told = dict(line.split(":") for line in _text(system / "proc/meminfo").splitlines())
        bounds.append(int(told["MemAvailable"].split()[0]) * 1024)
    if not bounds:
        with suppress(AttributeError, OSError, ValueError):
            bounds.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    for group in _groups(system, "memory"):
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError):  # "max" is no number
                bound = int(_text(group / limit))
                if bound < UNLIMITED:
                    bounds.append(max(0, bound - int(_text(group / usage)) + _cached(group)))
    return min(bounds, default=0)


def _cached(group: Path) -> int:
    """Bytes of files that a group is charged for and that the system would drop first."""
    with suppress(OSError, ValueError):
        told = dict(line.split() for line in _text(group / "memory.stat").splitlines())
        return int(told.get("total_inactive_file", told.get("inactive_file", "0")))
    return 0


def _groups(system: Path, controller: str) -> Iterator[Path]:
    """The control groups that this process is in, with those above them, of Linux's new interface and the old one.

    A container may see its own group as the root whatever the kernel calls it, hence the root in any case.
    """
    with suppress(OSError, ValueError):
        for line in _text(system / "proc/self/cgroup").splitlines():
            _, controllers, own = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = system / "sys/fs/cgroup" / (controllers and controller)
            inner = root / own.strip("/")
            yield from (group for group in (inner, *inner.parents) if group == root or root in group.parents)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()
