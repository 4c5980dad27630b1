"""As much of a trained run as metrics on images ask for, from tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Generator, Tensor

from genbench.api import DataConfig, Evaluation, Images, Measurement, Metric
from genbench.data.images import to_uint8


def evaluation(train: Tensor, test: Tensor, made: Tensor, data_config: DataConfig, **more: Any) -> Evaluation:
    """As much of a run as these metrics ask for; samples and reconstructions are `made`."""
    images = Images(train, test, test[:0], sha256="0" * 64, **more.pop("images", {}))
    memory: dict[str, object] = {}

    def cached(key: str, compute: Callable[[], object]) -> object:
        if key not in memory:
            memory[key] = compute()
        return memory[key]

    usual: dict[str, Any] = {
        "images": images,
        "split": "test",
        "references": test,
        "held_out": lambda n: test[: n or None],
        "training_images": lambda n: train[: n or None],
        "samples": lambda n: made[:n],
        "reconstructions": lambda n: made[: n or None],
        "sampler": "",
        "cache_for_dataset": cached,
        "cache_for_run": cached,
        "device": torch.device("cpu"),
        "data_config": data_config,
    }
    pieces = cast("Evaluation", SimpleNamespace(**(usual | more)))
    pieces.protocol = partial(Evaluation.protocol, pieces)  # type: ignore[method-assign]
    return pieces


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def pictures(n: int, seed: int, side: int = 28) -> Tensor:
    """Smooth random images, uint8: any two of them are far apart."""
    coarse = torch.rand(n, 1, 5, 5, generator=Generator().manual_seed(seed))
    return to_uint8(torch.nn.functional.interpolate(coarse, side, mode="bilinear"))


def measured(metric: Metric, e: Evaluation) -> dict[str, Measurement]:
    return {m.component: m for m in metric.measure(e)}
