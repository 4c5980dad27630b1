"""Sliced Wasserstein distances: directions, defining functions, and the costs of sorted slices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.api import Noise
from genbench.distances.checks import check_pair
from genbench.distances.mmd import squared_distances
from genbench.errors import UsageError

TINY = 1e-12
"""Least value of what a root is taken of or is divided by: gradients stay finite."""


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
    cost, widths = _transport(projections @ x.T, projections @ y.T, p)
    return cost.mean() if widths is None else (cost @ widths).mean()


def wasserstein_costs(u: Tensor, v: Tensor, p: float = 2.0) -> Tensor:
    r"""W_p^p between the numbers of each row, differentiable: what sliced distances average, weigh or maximize.

    Rows of `projections @ x.T` give the sliced Wasserstein distance, those of other functions of x a generalized one
    (arXiv:1902.00434).

    Args:
        u: Slices of a sample, `(L, n)`.
        v: Slices of another, `(L, m)`.
        p: The power, at least 1.

    Returns:
        The costs, `(L,)`, in the slices' unit to the power p.

    Raises:
        UsageError: p < 1.

    Example:
        >>> wasserstein_costs(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[4.0, 3.0], [0.0, 1.0]]))
        tensor([9., 0.])
    """
    cost, widths = _transport(u, v, p)
    return cost.mean(1) if widths is None else cost @ widths


def energy_weighted(costs: Tensor) -> Tensor:
    r"""The mean of costs under weights that grow with them: energy-based slices.

    .. math:: \sum_l w_l c_l, \qquad w_l = e^{c_l} / \sum_k e^{c_k}

    The estimate by importance sampling from uniform directions with the energy function exp (arXiv:2304.13586). It is
    at least the mean and at most the largest cost. The gradient passes through the weights too.

    Args:
        costs: Costs of the slices, `(L,)`.

    Returns:
        The weighted mean, `()`.

    Example:
        >>> energy_weighted(torch.tensor([1.0, 1.0]))
        tensor(1.)
    """
    return (torch.softmax(costs, 0) * costs).sum()


def power_spherical(location: Tensor, concentration: int, count: int, noise: Noise) -> Tensor:
    r"""Independent draws of the power spherical distribution, with a density proportional to (1 + m . theta)^k.

    m is the location over its length, k the concentration: 0 is uniform, and large k tends to m itself. The cosine
    t = m . theta follows 2 Beta((d - 1)/2 + k, (d - 1)/2) - 1 (arXiv:2006.04437), drawn as a ratio of sums
    of squared normal numbers, exactly and with a fixed count of them. The gradient reaches the location.

    Args:
        location: Any vector but 0, `(d,)`; its direction counts.
        concentration: k, an integer not below 0.
        count: The number of draws L.
        noise: The source of randomness.

    Returns:
        Directions of length one, `(L, d)`, in the dtype of the location.

    Example:
        >>> theta = power_spherical(torch.tensor([0.0, 2.0]), 1000, 5, Noise(torch.Generator().manual_seed(0)))
        >>> bool((theta[:, 1] > 0.9).all())
        True
    """
    d = len(location)
    normal = noise.normal(count, 2 * (d - 1) + 2 * concentration, dtype=location.dtype).to(location.device)
    tangent, rest = normal[:, : d - 1], normal[:, d - 1 :]
    across, along = tangent.square().sum(1, keepdim=True), rest.square().sum(1, keepdim=True)
    # The squared length of `tangent` is independent of its direction: it serves as the second sum of the ratio.
    t = 2.0 * along / (along + across).clamp(min=TINY) - 1.0 if d > 1 else torch.ones_like(along)
    side = (1.0 - t.square()).clamp(min=0.0).sqrt() * tangent / across.clamp(min=TINY).sqrt()
    # Reflect (t, side), which is around the first axis, so that this axis becomes the location's.
    axis = torch.zeros_like(location)
    axis[0] = 1.0
    mirror = axis - location / torch.linalg.vector_norm(location)
    around_axis = torch.cat([t, side], dim=1)
    scale = 2.0 * (around_axis @ mirror) / mirror.square().sum().clamp(min=TINY)
    theta: Tensor = around_axis - scale[:, None] * mirror
    return theta


def circular_slices(x: Tensor, projections: Tensor, radius: float) -> Tensor:
    """|x_i - r theta_l|, the circular defining function, `(n, d), (L, d) -> (L, n)` (arXiv:1902.00434).

    Example:
        >>> circular_slices(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 1.0)
        tensor([[2.],
                [4.]])
    """
    distances: Tensor = squared_distances(radius * projections, x).clamp(min=TINY).sqrt()
    return distances


def monomials(x: Tensor, degree: int) -> Tensor:
    """All products of `degree` coordinates, `(n, d) -> (n, count)`, count = (d + degree - 1 choose degree).

    Their linear slices are the polynomial defining function (arXiv:1902.00434); of degree 1 they are x.

    Example:
        >>> monomials(torch.tensor([[2.0, 3.0]]), 3)  # aaa, aab, abb, bbb
        tensor([[ 8., 12., 18., 27.]])
    """
    places = torch.combinations(torch.arange(x.shape[1], device=x.device), degree, with_replacement=True)
    places = places.view(-1, degree)  # of degree 1 they come flat
    product = x[:, places[:, 0]]
    for column in places.T[1:]:  # `prod` would wait on the device in its backward pass
        product = product * x[:, column]
    return product


def _transport(u: Tensor, v: Tensor, p: float) -> tuple[Tensor, Tensor | None]:
    """|difference of quantiles|^p, `(L, k)`, and the widths of its columns, or None where all are 1/k."""
    if not p >= 1.0:
        raise UsageError(f"sliced_wasserstein_cost: p = {p}; it must be at least 1")
    u, v = sorted_rows(u), sorted_rows(v)
    if u.shape[1] == v.shape[1]:
        return _power(u - v, p), None
    rows_x, rows_y, widths = _common_quantiles(u.shape[1], v.shape[1])
    cost = _power(u[:, rows_x.to(u.device)] - v[:, rows_y.to(v.device)], p)
    return cost, widths.to(cost)


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
