"""Checks of the arguments that distances share."""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.errors import MetricError, UsageError


def check_pair(function: str, x: Tensor, y: Tensor) -> None:
    """Refuse samples that are not `(n, d)` and `(m, d)` with n, m > 0."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise UsageError(f"{function}: samples of shape {tuple(x.shape)} and {tuple(y.shape)}; need (n, d) and (m, d)")


def check_finite(function: str, name: str, tensor: Tensor) -> None:
    """Refuse a tensor that holds NaN or infinities."""
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise MetricError(
            f"{function}: {name} of shape {tuple(tensor.shape)} holds {bad} values that are NaN or infinite"
        )
