"""Training on a CPU with the heap kept between steps against glibc's own thresholds, a process for each.

`pytest tests/benchmarks/test_heap.py -s`; one and then the other is asked to train, so that both meet the same load.
"""

from __future__ import annotations

import multiprocessing
import platform
import resource
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from ratio import compare

from genbench.api import DataConfig
from genbench.experiment.build import create_model, create_prior
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import plan
from genbench.registry.loader import load
from genbench.training.device import peak_memory
from genbench.training.heap import heap_kept
from genbench.training.loop import Budget, train

BATCH = 128
STEPS = {"swae-mnist": 5, "wae-mnist": 1, "conv": 100}
SPEEDS_UP = ("swae-mnist",)
"""Where a gain is claimed."""


def serve(orders: Connection, network: str, kept: bool) -> None:
    """Train so many steps for every order; answer the CPU seconds, page faults and peak bytes so far."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, heap_kept() if kept else nullcontext():
        place = DataConfig(Path(folder), Path(folder))
        grid = ExperimentConfig(
            ("swae",), "glyphs", ("normal",), (8,), network, (0,), BATCH, ("reconstruction",), images=BATCH
        )
        registry = load([])
        run = plan(grid, registry, place).runs[0]
        images = torch.randint(0, 256, (10_000, 1, 28, 28), dtype=torch.uint8)
        model, prior = create_model(registry, run, (1, 28, 28)), create_prior(registry, run)
        for order in iter(orders.recv, 0):
            budget, checkpoint = Budget(order * BATCH, BATCH, 0), Path(folder) / "c"
            for _ in train(model, prior, images, budget, checkpoint, key=run.key, stop=lambda: False):
                pass
            used = resource.getrusage(resource.RUSAGE_SELF)
            cpu = torch.device("cpu")
            orders.send((used.ru_utime + used.ru_stime, used.ru_minflt, peak_memory(cpu)))
            checkpoint.unlink(missing_ok=True)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("network", list(STEPS))
def test_heap(network: str) -> None:
    context = multiprocessing.get_context("spawn")
    told: dict[bool, list[tuple[float, int, int]]] = {True: [], False: []}
    workers = []

    def contender(kept: bool) -> Callable[[], float]:
        orders, others = context.Pipe()
        worker = context.Process(target=serve, args=(others, network, kept), daemon=True)
        worker.start()
        workers.append((orders, worker))

        def work() -> float:
            orders.send(STEPS[network])
            told[kept].append(orders.recv())
            return STEPS[network] * BATCH

        return work

    contenders = {"heap kept": contender(True), "glibc's thresholds": contender(False)}
    goal = 1.0 if network in SPEEDS_UP else None
    item = compare(f"train {network}, batch {BATCH}", contenders, unit="images", file="heap", goal=goal)
    for orders, worker in workers:
        orders.send(0)
        worker.join(60)
    for kept, ((cpu, faults, _), *_, (last_cpu, last_faults, peak)) in told.items():
        steps = (len(told[kept]) - 1) * STEPS[network]
        name = "kept" if kept else "glibc"
        print(
            f"{network} {name}: {(last_cpu - cpu) / steps:.3f} CPU s and {(last_faults - faults) / steps:,.0f}", end=""
        )
        print(f" page faults a step, peak {peak / 2**20:,.0f} MiB")
    assert item.met
