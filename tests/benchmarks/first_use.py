"""What a study pays where something is used first: imports, plug-ins, glyphs, features, neighbours, nulls.

    python tests/benchmarks/first_use.py

CPU seconds and wall seconds, one line each; the images are noise. It measures without a goal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def timed(what: str, work: Callable[[], T]) -> T:
    """Do the work and say how long it took."""
    began, used = time.perf_counter(), time.process_time()
    result = work()
    print(f"{what}: CPU {time.process_time() - used:.2f} s, wall {time.perf_counter() - began:.2f} s", flush=True)
    return result


def main() -> None:
    """One after another."""
    timed("import torch", lambda: __import__("torch"))
    timed("import torch._dynamo, as the first optimizer does", lambda: __import__("torch._dynamo"))
    from genbench.registry.loader import load

    timed("load the plug-ins", load)
    timed("import POT", lambda: __import__("ot"))
    import torch

    import genbench_glyphs as glyphs
    import genbench_neighbours as neighbours
    from genbench.api import DataConfig
    from genbench.features import extract, feature_layer
    from genbench_latent import LatentSW, LatentW2
    from genbench_priors import Normal

    noise = torch.randint(0, 256, (10_000, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for workers in (1, 2):
        config = DataConfig(Path(), Path(), workers=workers)
        timed(f"10,000 glyphs, {workers} threads", lambda config=config: glyphs._drawn("test", config))  # type: ignore[misc]
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
        timed(f"null of the latent SW2, d = 8, {threads} threads", lambda: LatentSW().null(Normal(8)))


if __name__ == "__main__":
    main()
