"""Peak memory and time of what a study measures at its largest, on made-up features and codes, without Inception.

    python tests/benchmarks/peak.py fid          # 50,000 images against as many, 2,048 features
    python tests/benchmarks/peak.py transport    # exact OT of 10,000 points in R^8 and R^64, cold and from a start

The peak is that of the whole process. Prints one line each. It measures without a goal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from genbench.distances import exact_transport, wasserstein_distance
from genbench_fid.frechet import distance, standard_error


def report(what: str, work: Callable[[], float | None]) -> None:
    """Do the work and say what it took."""
    Path("/proc/self/clear_refs").write_text("5")  # the process's peak starts anew
    began = time.perf_counter()
    value = work()
    seconds = time.perf_counter() - began
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 2**20
    print(f"{what}: {value:.10g}, {seconds:.0f} s, {peak:.2f} GiB at the peak", flush=True)


def normal(n: int, d: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def fid() -> None:
    """The distance, and its standard error."""
    real, made = normal(50_000, 2048, 0), normal(50_000, 2048, 1) * 1.1
    report("FID, 50,000 x 2,048", lambda: distance(real, made))
    report("its standard error", lambda: standard_error(real, made))


def transport() -> None:
    """Cold, and by the rule of a CPU."""
    for d in (8, 64):
        x, y = normal(10_000, d, 0, torch.float64), normal(10_000, d, 1, torch.float64)
        report(f"exact OT, 10,000 points, d = {d}, cold", lambda x=x, y=y: exact_transport(x, y, None))  # type: ignore[misc]
        report(f"exact OT, 10,000 points, d = {d}, by the rule", lambda x=x, y=y: wasserstein_distance(x, y))  # type: ignore[misc]


if __name__ == "__main__":
    {"fid": fid, "transport": transport}[sys.argv[1]]()
