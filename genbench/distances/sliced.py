"""The sliced Wasserstein distance: random directions, and the mean cost of sorted projections."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.api import Noise
from genbench.distances.checks import check_pair
from genbench.errors import UsageError


def random_projections(count: int, dim: int, noise: Noise, dtype: torch.dtype = torch.float32) -> Tensor:
    """Independent uniform draws from the unit sphere in R^dim.

    Normalized Gaussian vectors, as in arXiv:1804.01947, algorithm 1.

    Args:
        count: The number L of directions.
        dim: The dimension d.
        noise: The source of randomness.
        dtype: The dtype of the draws and of the result.

    Returns:
        Directions of length one, `(L, d)`, on `noise.device`.

    Raises:
        UsageError: `count` or `dim` is less than 1.

    Example:
        >>> theta = random_projections(50, 8, Noise(torch.Generator().manual_seed(0)))
        >>> theta.shape, bool(theta.norm(dim=1).allclose(torch.ones(50)))
        (torch.Size([50, 8]), True)
    """
    if count < 1 or dim < 1:
        raise UsageError(f"random_projections: {count} directions in {dim} dimensions; both must be at least 1")
    gaussian = noise.normal(count, dim, dtype=dtype)
    norm = torch.linalg.vector_norm(gaussian, dim=1, keepdim=True)
    return torch.where(norm > 0, gaussian / norm, torch.ones_like(gaussian) / math.sqrt(dim))


def sliced_wasserstein_cost(x: Tensor, y: Tensor, projections: Tensor, p: float = 2.0) -> Tensor:
    r"""The p-th power of the sliced Wasserstein distance between two samples, differentiable.

    .. math:: SW_p^p = \frac1L \sum_{l=1}^L W_p^p(\theta_l \cdot x, \theta_l \cdot y), \qquad
              W_p^p(u, v) = \frac1n \sum_{i=1}^n |u_{(i)} - v_{(i)}|^p

    with sorted projections u_(i), v_(i) (arXiv:1804.01947, algorithm 1). Both sums are means. For n != m the quantile
    functions are integrated exactly. In one dimension this is W_p^p itself.

    Args:
        x: Sample, `(n, d)`.
        y: Sample, `(m, d)`.
        projections: Directions theta, `(L, d)`; see `random_projections`.
        p: The power, at least 1.

    Returns:
        The cost, `()`, in the samples' unit to the power p.

    Raises:
        UsageError: The samples' shapes do not fit, or p < 1.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> sliced_wasserstein_cost(x, x + 3.0, torch.ones(1, 1))
        tensor(9.)
    """
    check_pair("sliced_wasserstein_cost", x, y)
    if not p >= 1.0:
        raise UsageError(f"sliced_wasserstein_cost: p = {p}; it must be at least 1")
    u, v = sorted_rows(projections @ x.T), sorted_rows(projections @ y.T)
    if len(x) == len(y):
        return _power(u - v, p).mean()
    rows_x, rows_y, widths = _common_quantiles(len(x), len(y))
    cost = _power(u[:, rows_x.to(u.device)] - v[:, rows_y.to(v.device)], p)
    return (cost @ widths.to(cost)).mean()


def _power(difference: Tensor, p: float) -> Tensor:
    """|difference|^p; the absolute value matters for every p that is not an even integer."""
    return difference.square() if p == 2.0 else difference.abs().pow(p)


def _common_quantiles(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """The steps on which two empirical quantile functions are both constant: index in n, index in m, width.

    In units of 1/(nm) the functions jump at multiples of m and of n, so that all of it is exact in integers.
    """
    ends = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))
    widths = torch.diff(ends, prepend=torch.zeros(1, dtype=ends.dtype))
    return (ends - 1) // m, (ends - 1) // n, widths.double() / (n * m)


# ---------------------------------------------------------------- sorting
#
# Sorting is the costliest small operation of a sliced distance. NumPy's sort is vectorized and torch's on a CPU is not:
# 50 rows of 128 new float32 numbers take 30 microseconds against 215. So the order of rows is an operation of torch's
# dispatcher, with NumPy behind it on a CPU and torch elsewhere: whatever records, counts or replays operations sees
# one operation.

_LIBRARY = torch.library.Library("genbench", "DEF")
_LIBRARY.define("order_of_rows(Tensor rows) -> Tensor")


def _order_by_numpy(rows: Tensor) -> Tensor:
    exact = rows.float() if rows.dtype == torch.bfloat16 else rows  # NumPy has no bfloat16
    return torch.from_numpy(np.argsort(exact.numpy(), axis=-1))


_LIBRARY.impl("order_of_rows", _order_by_numpy, "CPU")
_LIBRARY.impl("order_of_rows", torch.argsort, "CompositeExplicitAutograd")


def _order_of_members(info: Any, in_dims: tuple[int | None], rows: Tensor) -> tuple[Tensor, int]:
    """The operation under vmap: rows of all members are rows."""
    assert in_dims[0] is not None
    return torch.ops.genbench.order_of_rows.default(rows.movedim(in_dims[0], 0)), 0


torch.library.register_vmap("genbench::order_of_rows", _order_of_members, lib=_LIBRARY)


def sorted_rows(rows: Tensor) -> Tensor:
    """Each row in ascending order, NaN last, differentiable.

    Args:
        rows: Numbers, `(..., n)`.

    Returns:
        The sorted rows, `(..., n)`; equal numbers may swap their gradients.

    Example:
        >>> sorted_rows(torch.tensor([[2.0, 1.0, 3.0]]))
        tensor([[1., 2., 3.]])
    """
    order: Tensor = torch.ops.genbench.order_of_rows.default(rows.detach())
    return rows.gather(-1, order)
