"""The maximum mean discrepancy and its kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from genbench.distances.checks import check_pair
from genbench.errors import UsageError

Kernel = Literal["imq", "rbf"]
"""Inverse multiquadratic or Gaussian."""

WAE_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Multiples of the pairwise scale over which WAE's code sums its kernel (arXiv:1711.01558)."""

BLOCK = 512
"""Rows of a kernel matrix computed at once: memory stays bounded, and blocks of some MiB near the processor."""

AT_ONCE = 2**24
"""Numbers of kernel matrices that are held at once where launches decide, on a GPU: 64 MiB in float32.

The matrices of all scales are then one tensor, and those of all pairs one matrix. On a CPU one scale after another is
faster, since it stays in the caches; and so it is for larger matrices anywhere, in a seventh of the memory.
"""


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances |x_i - y_j|^2, never negative, with a finite gradient at x_i = y_j.

    Computed as |x|^2 + |y|^2 - 2 x.y about the common mean, since far from the origin that difference cancels.

    Args:
        x: Points, `(n, d)`.
        y: Points, `(m, d)`.

    Returns:
        The distances, `(n, m)`, in the squared unit of the points.

    Raises:
        UsageError: The shapes do not fit.

    Example:
        >>> squared_distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([[25.]])
    """
    check_pair("squared_distances", x, y)
    centre = ((x.sum(0) + y.sum(0)) / (len(x) + len(y))).detach()
    x, y = x - centre, y - centre
    squares = x.square().sum(1)[:, None] + y.square().sum(1)[None, :]
    return torch.clamp(squares - 2.0 * (x @ y.T), min=0.0)


def imq_kernel(squared: Tensor, scale: float, scales: Sequence[float] = WAE_SCALES) -> Tensor:
    """Inverse multiquadratic kernel sum_s sC / (sC + r^2), elementwise.

    arXiv:1711.01558, section 4, has s = 1; its code sums over `scales`.

    Args:
        squared: Squared distances r^2, any shape.
        scale: The scale C, in the unit of `squared`.
        scales: The multiples s.

    Returns:
        The kernel's values, in the shape of `squared`.

    Raises:
        UsageError: A scale is not positive and finite.

    Example:
        >>> imq_kernel(torch.tensor([0.0, 1.0]), 1.0, scales=[1.0])
        tensor([1.0000, 0.5000])
    """
    _check_scales(scale, scales)
    sloped = squared.requires_grad and torch.is_grad_enabled()
    total: Tensor = InverseMultiquadratic.apply(squared, [s * scale for s in scales], sloped)[0]
    return total


def rbf_kernel(squared: Tensor, scale: float, scales: Sequence[float] = WAE_SCALES) -> Tensor:
    """Gaussian kernel sum_s exp(-r^2 / (sC)), elementwise.

    With C = 2 d sigma^2 and s = 1 it is exp(-r^2 / (2 d sigma^2)): a bandwidth of sqrt(d) sigma.

    Args:
        squared: Squared distances r^2, any shape.
        scale: The scale C, in the unit of `squared`.
        scales: The multiples s.

    Returns:
        The kernel's values, in the shape of `squared`.

    Raises:
        UsageError: A scale is not positive and finite.

    Example:
        >>> rbf_kernel(torch.tensor([0.0, 1.0]), 1.0, scales=[1.0])
        tensor([1.0000, 0.3679])
    """
    _check_scales(scale, scales)
    widths = [s * scale for s in scales]
    if fits_at_once(squared.numel() * len(widths), squared.device):
        at_once: Tensor = torch.exp(-squared / _stacked(widths, squared)).sum(0)
        return at_once
    total = torch.zeros_like(squared)
    for a in widths:
        total = total + torch.exp(-squared / a)
    return total


def mmd(x: Tensor, y: Tensor, *, kernel: Kernel = "imq", scale: float, scales: Sequence[float] = WAE_SCALES) -> Tensor:
    r"""Unbiased estimate of the squared maximum mean discrepancy; it may be negative. Differentiable.

    .. math:: \frac1{n(n-1)} \sum_{i \ne j} k(x_i, x_j) + \frac1{m(m-1)} \sum_{i \ne j} k(y_i, y_j)
              - \frac2{nm} \sum_{i,j} k(x_i, y_j)

    arXiv:1711.01558, algorithm 2.

    Args:
        x: Sample, `(n, d)`, n > 1.
        y: Sample, `(m, d)`, m > 1.
        kernel: "imq" or "rbf".
        scale: The prior's E|z - z'|^2 (`Prior.pairwise_scale`; 2 d sigma^2 for a normal prior). A kernel much wider or
            narrower than that is constant on the sample and has no gradient.
        scales: Multiples of it over which the kernel is summed.

    Returns:
        The estimate, `()`, without a unit.

    Raises:
        UsageError: The shapes do not fit, a sample has fewer than two points, or a scale is not positive and finite.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> mmd(x, x, scale=1.0, scales=[1.0])  # two equal samples: less than zero
        tensor(-0.5000)
    """
    check_pair("mmd", x, y)
    if len(x) < 2 or len(y) < 2:
        raise UsageError(f"mmd: {len(x)} and {len(y)} points; the unbiased estimate needs two of each")
    function = {"imq": imq_kernel, "rbf": rbf_kernel}[kernel]

    n, m = len(x), len(y)
    if fits_at_once((n + m) ** 2 * len(scales), x.device):
        both = torch.cat([x, y])
        weights = torch.full((n + m, n + m), -1.0 / (n * m), dtype=both.dtype, device=both.device)
        weights[:n, :n].fill_(1.0 / (n * (n - 1)))
        weights[n:, n:].fill_(1.0 / (m * (m - 1)))
        return (function(squared_distances(both, both), scale, scales) * weights.fill_diagonal_(0.0)).sum()

    def summed(u: Tensor, v: Tensor, *, without_diagonal: bool) -> Tensor:
        total = u.new_zeros(())
        for block, rows in enumerate(u.split(BLOCK)):
            values = function(squared_distances(rows, v), scale, scales)
            total = total + values.sum()
            if without_diagonal:
                total = total - values.diagonal(block * BLOCK).sum()
        return total

    within_x = summed(x, x, without_diagonal=True) / (n * (n - 1))
    within_y = summed(y, y, without_diagonal=True) / (m * (m - 1))
    return within_x + within_y - 2.0 / (n * m) * summed(x, y, without_diagonal=False)


class InverseMultiquadratic(torch.autograd.Function):
    r"""k = sum_a a / (a + r^2) and its derivative in r^2, -sum_a a / (a + r^2)^2, elementwise in r^2.

    Seven scales of a 128 x 128 matrix are 28 small operations, and another 35 where torch differentiates each of them.
    Here both sums grow in place while a / (a + r^2) is at hand, and the backward pass is one product: a step of WAE-MMD
    with the network `mlp` is 1.1 times as fast on a CPU. The derivative is computed only for inputs that need it.
    """

    @staticmethod
    def forward(squared: Tensor, widths: Sequence[float], sloped: bool) -> tuple[Tensor, Tensor | None]:
        """The kernel, and its derivative where `sloped`; `squared` of any shape, `widths` the numbers a."""
        if fits_at_once(squared.numel() * len(widths), squared.device):
            stacked = _stacked(widths, squared)
            parts = (squared + stacked).reciprocal_()
            weighted = parts * stacked
            return weighted.sum(0), weighted.mul_(parts).sum(0).neg_() if sloped else None
        total = torch.zeros_like(squared)
        slope = torch.zeros_like(squared) if sloped else None
        for a in widths:
            part = (squared + a).reciprocal_()
            total.add_(part, alpha=a)
            if slope is not None:
                slope.addcmul_(part, part, value=-a)
        return total, slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Sequence[float], bool], output: tuple[Tensor, Tensor]) -> None:
        """Keep the derivative for the backward pass."""
        squared, widths, sloped = inputs
        ctx.widths = widths
        if sloped:
            ctx.mark_non_differentiable(output[1])
            ctx.save_for_backward(squared, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None, None]:
        """The gradient for `squared`, which torch can differentiate again if a graph of it is asked for."""
        squared, slope = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return grad * slope, None, None
        parts = [-a * (squared + a).reciprocal().square() for a in ctx.widths]
        return grad * torch.stack(parts).sum(0), None, None

    @staticmethod
    def vmap(_: Any, in_dims: tuple[int, None, None], squared: Tensor, widths: Sequence[float], sloped: bool) -> Any:
        """The same for the members of all, since it is elementwise; a derivative may be asked for within or around."""
        sloped = sloped or (squared.requires_grad and torch.is_grad_enabled())
        total, slope = InverseMultiquadratic.apply(squared, widths, sloped)
        return (total, slope), (in_dims[0], None if slope is None else in_dims[0])


def fits_at_once(count: int, device: torch.device) -> bool:
    """Whether `count` numbers of kernel matrices may be one tensor: on a GPU, and not too many."""
    return device.type != "cpu" and count <= AT_ONCE


def _stacked(widths: Sequence[float], squared: Tensor) -> Tensor:
    """The widths before as many dimensions as `squared` has, made on its device: a CUDA graph may not copy to it."""
    stacked = torch.zeros(len(widths), dtype=squared.dtype, device=squared.device)
    torch._foreach_add_(stacked.unbind(), list(widths))
    return stacked.view(-1, *[1] * squared.dim())


def _check_scales(scale: float, scales: Sequence[float]) -> None:
    if not 0.0 < scale < math.inf or not scales or min(scales) <= 0.0:
        raise UsageError(f"kernel of scale {scale} over {tuple(scales)}; all of them must be positive and finite")
