"""Rows sorted by NumPy or by torch: the same numbers and gradients, and one operation for whatever looks on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genbench.distances import sorted_rows


def rows(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(50, 128, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_values_are_those_of_torchs_sort(dtype: torch.dtype) -> None:
    assert torch.equal(sorted_rows(rows(dtype)), torch.sort(rows(dtype), dim=1).values)


def test_gradients_are_those_of_torchs_sort() -> None:
    grads = []
    for sort in (sorted_rows, lambda x: torch.sort(x, dim=1).values):
        x = rows(torch.float64).requires_grad_()
        (sort(x) * torch.arange(50 * 128).view(50, 128)).sum().backward()
        grads.append(x.grad)
    assert grads[0] is not None
    assert torch.equal(*grads)  # no two numbers of a row are equal: those may swap their gradients


def test_rows_that_are_not_contiguous() -> None:
    x = rows().T
    assert torch.equal(sorted_rows(x), torch.sort(x, dim=1).values)


def test_nan_is_last_and_infinity_before_it() -> None:
    row = sorted_rows(torch.tensor([[math.nan, 1.0, math.inf, -math.inf]])).tolist()[0]
    assert row[:3] == [-math.inf, 1.0, math.inf]
    assert math.isnan(row[3])


def test_other_devices_sort_with_torch() -> None:
    assert sorted_rows(torch.empty(3, 4, device="meta")).shape == (3, 4)


class Looks(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_recordings_see_one_operation() -> None:
    with Looks() as looks:
        sorted_rows(rows().requires_grad_())
    assert "genbench.order_of_rows.default" in looks.seen
