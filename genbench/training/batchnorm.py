"""Batch norm over the rows of all processes (Ioffe and Szegedy, arXiv:1502.03167, algorithm 1).

`torch.nn.SyncBatchNorm` does this on CUDA devices alone; this one is plain operations and one sum over the processes
for each moment, on any device and in any dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


def share_batch_norm(module: nn.Module, active: Callable[[], bool]) -> None:
    """Let every batch norm within take its moments over all processes, in training mode, while `active()`.

    Types, parameters and buffers stay as they are, so that weights are those of an ordinary module.
    """
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.forward = _shared(layer, layer.forward, active)  # type: ignore[method-assign]


def _shared(layer: _BatchNorm, alone: Callable[[Tensor], Tensor], active: Callable[[], bool]) -> Callable[..., Tensor]:
    def forward(x: Tensor) -> Tensor:
        return batch_norm(layer, x) if layer.training and active() else alone(x)

    return forward


def batch_norm(layer: _BatchNorm, x: Tensor) -> Tensor:
    """What the layer makes of this process's rows x, `(rows, c, ...)` -> the same shape, by the moments of all rows.

    The variance is the mean of squared deviations from the mean of all, in float32 at least: the difference of the
    mean square and the squared mean would lose the digits that gradients need. Updates the running moments.
    """
    over = [axis for axis in range(x.dim()) if axis != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    wide = x if x.dtype == torch.float64 else x.float()
    count = wide.new_tensor([x.numel() / x.shape[1]])
    total, count = _Sum.apply(torch.cat([wide.sum(over), count])).split([x.shape[1], 1])
    mean = total / count
    deviation = wide - mean.view(shape)
    variance = _Sum.apply(deviation.square().sum(over)) / count
    if layer.track_running_stats:
        _follow(layer, mean.detach(), variance.detach(), count.detach())
    y: Tensor = deviation * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        y = y * layer.weight.view(shape) + layer.bias.view(shape)
    return y.to(x.dtype)


def _follow(layer: _BatchNorm, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """Move the running moments: by `momentum`, or as cumulative means where it is None; the variance is unbiased."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    weight = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    unbiased = variance * (count / (count - 1.0))
    for running, now in ((layer.running_mean, mean), (layer.running_var, unbiased)):
        running.lerp_(now.to(running.dtype), weight)


class _Sum(torch.autograd.Function):
    """The sum over the processes; backward too, since each process's rows make a part of the loss."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:  # noqa: ARG004
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:  # noqa: ARG004
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total
