"""What a study pays where a metric is used first: imports, features, neighbours, and the null of the latent W2.

    python tests/benchmarks/first_use.py

Seconds, one line each; the images are noise. It measures without a goal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def timed(what: str, work: Callable[[], T]) -> T:
    """Do the work and say how long it took."""
    began = time.perf_counter()
    result = work()
    print(f"{what}: {time.perf_counter() - began:.1f} s", flush=True)
    return result


def main() -> None:
    """One after another."""
    timed("import torch", lambda: __import__("torch"))
    timed("import torch_fidelity", lambda: __import__("torch_fidelity"))
    import torch

    import genbench_neighbours as neighbours
    from genbench.api import DataConfig
    from genbench.features import extract, feature_layer
    from genbench.registry.loader import load
    from genbench_latent import LatentW2
    from genbench_priors import Normal

    noise = torch.randint(0, 256, (10_000, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    load()
    grey28 = feature_layer("grey28", "128", "", DataConfig(Path(), Path()))
    real = timed("grey28 features of 10,000 images", lambda: extract(grey28, noise))
    made = extract(grey28, noise.flip(3))
    for elements in (2**22, neighbours.CPU_BLOCK_ELEMENTS):
        neighbours.CPU_BLOCK_ELEMENTS = elements
        what = f"precision and recall, 10,000 against 10,000, {elements:,} distances at once"
        timed(what, lambda: neighbours.precision_recall(real, made, 3))
    for threads in (1, 2):
        torch.set_num_threads(threads)
        timed(f"null of the latent W2, d = 8, {threads} threads", lambda: LatentW2().null(Normal(8)))


if __name__ == "__main__":
    main()
