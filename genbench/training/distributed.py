"""Several processes that train one model as one process would: data-parallel networks, whole-batch losses.

Usual data-parallel training computes the loss of each process's shard and averages gradients. A sliced Wasserstein
distance, an MMD, a critic or a batch norm of shards is another objective than that of the batch, so here only the
encoder and the decoder are sharded. Each process passes its rows of the batch through them and the outputs are
gathered: a model's `training_step` sees the whole batch, with the same prior draws and the same noise in every
process, and computes the same loss there. A model needs no change for it. Gradients are those of the one-process step:

* the loss is the same in every process, so the gradient that reaches a gathered output is too, and each process keeps
  its rows of it (`_Gather`);
* the input of a sharded network is cut into rows, whose gradients are gathered again (`_Cut`), so that codes receive
  them all;
* a parameter of a sharded network has in each process the part of the gradient that its rows make: these are summed.
  Any other parameter (a critic's, a learned variance) has the whole gradient in each process already.

Batch norm inside a sharded network takes its moments over the rows of all processes (Ioffe and Szegedy,
arXiv:1502.03167, algorithm 1). `torch.nn.SyncBatchNorm` does this on CUDA devices alone; `batch_norm` is plain
operations and one sum over the processes for each moment, on any device and in any dtype.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from genbench.api import Network


@dataclass
class DistributedContext:
    """The default process group, in which this process is number `rank` of `world`; a single process has no group.

    Networks are sharded inside `training()` alone: a process that evaluates must not wait for the rest.
    """

    rank: int = 0
    world: int = 1
    active: bool = field(default=False, init=False)
    _sharded: set[nn.Parameter] = field(default_factory=set, init=False)

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes files, evaluates and prints."""
        return self.rank == 0

    def rows(self, n: int, rank: int | None = None) -> slice:
        """The rows of a batch of n that a process has (this one by default); shares differ by one row at most."""
        rank = self.rank if rank is None else rank
        return slice(n * rank // self.world, n * (rank + 1) // self.world)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Shard the networks inside; every process must enter, and do the same there."""
        self.active = True
        try:
            yield
        finally:
            self.active = False

    def shard(self, network: nn.Module) -> nn.Module:
        """The same encoder or decoder, `(n, ...) -> (n, ...)`, which computes this process's rows while training."""
        whole = network.forward

        def forward(x: Tensor) -> Tensor:
            if not self.active:
                y: Tensor = whole(x)
                return y
            rows: Tensor = whole(_Cut.apply(x, self))
            gathered: Tensor = _Gather.apply(rows, len(x), self)
            return gathered

        network.forward = forward
        share_batch_norm(network, lambda: self.active)
        self._sharded.update(network.parameters())
        return network

    def reduce(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make the gradients of one loss's parameters, after its `backward`, those of the whole batch.

        Gradients outside of the sharded networks are equal in all processes up to the order in which a device adds;
        their mean keeps the copies of a model from drifting apart.
        """
        if self.world == 1:
            return
        buckets: dict[torch.dtype, list[tuple[Tensor, float]]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                share = 1.0 if parameter in self._sharded else 1.0 / self.world
                buckets.setdefault(parameter.grad.dtype, []).append((parameter.grad, share))
        for bucket in buckets.values():
            flat = torch.cat([(grad * share).flatten() for grad, share in bucket])
            dist.all_reduce(flat)
            pieces = flat.split([grad.numel() for grad, _ in bucket])
            for (grad, _), piece in zip(bucket, pieces, strict=True):
                grad.copy_(piece.view_as(grad))

    def broadcast(self, value: int) -> int:
        """The main process's value, in every process."""
        if self.world == 1:
            return value
        shared = torch.tensor(value, dtype=torch.int64)
        dist.broadcast(shared, src=0)
        return int(shared)

    def all_equal(self, value: int) -> bool:
        """Whether all processes have the same value."""
        if self.world == 1:
            return True
        values = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(values, torch.tensor([value], dtype=torch.int64))
        return len(set(map(int, values))) == 1


def processes() -> int:
    """How many processes torchrun started to train one model; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return processes() > 1


def local_device(device: torch.device) -> torch.device:
    """The device of this process: with several GPUs in a machine, the one of its local rank."""
    index = cast("int | None", device.index)  # torch's stubs say int
    if device.type != "cuda" or index is not None or not launched():
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


@contextmanager
def init_distributed(device: torch.device) -> Iterator[DistributedContext]:
    """Join the process group of torchrun, if there is one.

    `broadcast` and `all_equal` go over the CPU, so that no step waits for a device. The timeout is days, since the
    processes wait while the main process evaluates.
    """
    if not launched():
        yield DistributedContext()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with process_group(backend, timeout=timedelta(days=7)) as distributed:
        yield distributed


@contextmanager
def process_group(backend: str, **how: Any) -> Iterator[DistributedContext]:
    """Join a process group, by the arguments of `init_process_group`; no thread of it outlives the context.

    The functions of `torch.distributed.nn` have the group that exists at their import as a default, and many libraries
    import them. Imported inside, they would keep the group alive when it is destroyed; then threads of gloo that hold
    a tensor when the interpreter ends abort the process. So they are imported before.
    """
    import_module("torch.distributed.nn.functional")
    dist.init_process_group(backend, **how)
    try:
        yield DistributedContext(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class ShardedNetwork(Network):
    """A network whose encoders and decoders are sharded over the processes while they train.

    Modules keep their types and the names of their parameters.
    """

    def __init__(self, network: Network, distributed: DistributedContext) -> None:
        self.network, self.distributed, self.shape = network, distributed, network.shape

    def encoder(self, outputs: int) -> nn.Module:
        """The network's encoder, sharded."""
        return self.distributed.shard(self.network.encoder(outputs))

    def decoder(self, latent_dim: int) -> nn.Module:
        """The network's decoder, sharded."""
        return self.distributed.shard(self.network.decoder(latent_dim))


# ---------------------------------------------------------------- rows of a batch


def _gather_rows(rows: Tensor, n: int, distributed: DistributedContext) -> Tensor:
    """The rows of all processes in order, `(rows, ...) -> (n, ...)`."""
    longest = -(-n // distributed.world)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    pieces = [torch.empty_like(padded) for _ in range(distributed.world)]
    dist.all_gather(pieces, padded)
    counts = [len(range(n)[distributed.rows(n, rank)]) for rank in range(distributed.world)]
    return torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])


class _Cut(torch.autograd.Function):
    """This process's rows of a tensor that all processes have; backward, the gradients of all rows, gathered."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, distributed: DistributedContext) -> Tensor:
        ctx.n, ctx.distributed = len(x), distributed  # type: ignore[attr-defined]
        return x[distributed.rows(len(x))].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return _gather_rows(grad.contiguous(), ctx.n, ctx.distributed), None  # type: ignore[attr-defined]


class _Gather(torch.autograd.Function):
    """The rows of all processes; backward, this process's rows of the gradient, which is the same in all."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, n: int, distributed: DistributedContext) -> Tensor:
        ctx.rows = distributed.rows(n)  # type: ignore[attr-defined]
        return _gather_rows(rows.contiguous(), n, distributed)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[ctx.rows].contiguous(), None, None  # type: ignore[attr-defined]


# ---------------------------------------------------------------- batch norm over all processes


def share_batch_norm(module: nn.Module, active: Callable[[], bool]) -> None:
    """Let every batch norm inside take its moments over all processes, in training mode, while `active()`.

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
    """The layer's output for this process's rows x, `(rows, c, ...)` -> the same shape, by the moments of all rows.

    The variance is the mean of squared deviations from the mean of all rows, in float32 at least: the difference of
    the mean square and the squared mean would lose the digits that gradients need. Updates the running moments.
    """
    axes = [axis for axis in range(x.dim()) if axis != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    wide = x if x.dtype == torch.float64 else x.float()
    count = wide.new_tensor([x.numel() / x.shape[1]])
    total, count = _Sum.apply(torch.cat([wide.sum(axes), count])).split([x.shape[1], 1])
    mean = total / count
    deviation = wide - mean.view(shape)
    variance = _Sum.apply(deviation.square().sum(axes)) / count
    if layer.track_running_stats:
        _update_running_moments(layer, mean.detach(), variance.detach(), count.detach())
    y: Tensor = deviation * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        y = y * layer.weight.view(shape) + layer.bias.view(shape)
    return y.to(x.dtype)


def _update_running_moments(layer: _BatchNorm, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """Move them by `momentum`, or as cumulative means where it is None; the variance is unbiased."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    weight = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    unbiased = variance * (count / (count - 1.0))
    for running, current in ((layer.running_mean, mean), (layer.running_var, unbiased)):
        running.lerp_(current.to(running.dtype), weight)


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
