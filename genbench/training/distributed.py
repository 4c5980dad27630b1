"""Several processes that train one model as one would: data-parallel halves, everything else on the whole batch.

Usual data-parallel training computes the loss of each process's shard and averages gradients. A sliced Wasserstein
distance, an MMD, a critic or a batch norm of shards is another objective than that of the batch, so here only the
encoder and the decoder are divided. Each gets its rows of the batch, and its output is gathered: what a model's `training_step`
sees is the whole batch, with the same prior draws and the same noise in every process, and it computes the same loss
there. A model needs to know nothing of it. Gradients are those of the one-process step, for these reasons:

* the loss is the same in every process, so the gradient that reaches a gathered output is too, and each process keeps
  its own rows of it (`_Gather`);
* what enters a half is cut into rows, whose gradients are gathered again (`_Cut`), so that codes receive them all;
* a parameter of a half has in each process the part of the gradient that its rows make: these are summed. Any other
  parameter (a critic's, a learned variance) has the whole gradient in each process already.

Batch norm within a half takes its moments over all processes' rows (`genbench.training.batchnorm`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from genbench.api import Network
from genbench.training.batchnorm import share_batch_norm


@dataclass
class DistributedContext:
    """The processes of the default process group, of which this one is number `rank` of `world`; one alone has none.

    Nothing is divided unless within `training()`: who evaluates alone must not wait for the others.
    """

    rank: int = 0
    world: int = 1
    active: bool = field(default=False, init=False)
    _divided: set[nn.Parameter] = field(default_factory=set, init=False)

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes, measures and speaks for all."""
        return self.rank == 0

    def rows(self, n: int, rank: int | None = None) -> slice:
        """The rows of a batch of n that a process has, this one unless told: shares differ by one row at most."""
        of = self.rank if rank is None else rank
        return slice(n * of // self.world, n * (of + 1) // self.world)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Divide the halves within; every process must enter, and do the same there."""
        self.active = True
        try:
            yield
        finally:
            self.active = False

    def divide(self, half: nn.Module) -> nn.Module:
        """The encoder or decoder itself, `(n, ...) -> (n, ...)` as before, its work divided by rows while training."""
        whole = half.forward

        def forward(x: Tensor) -> Tensor:
            if not self.active:
                y: Tensor = whole(x)
                return y
            mine: Tensor = whole(_Cut.apply(x, self))
            gathered: Tensor = _Gather.apply(mine, len(x), self)
            return gathered

        half.forward = forward
        share_batch_norm(half, lambda: self.active)
        self._divided.update(half.parameters())
        return half

    def reduce(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make the gradients of one player's parameters, after its `backward`, those of the whole batch.

        Those outside of the halves are equal in all processes up to the order in which a device adds; their mean keeps
        the copies of a model from drifting apart.
        """
        if self.world == 1:
            return
        buckets: dict[torch.dtype, list[tuple[Tensor, float]]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                share = 1.0 if parameter in self._divided else 1.0 / self.world
                buckets.setdefault(parameter.grad.dtype, []).append((parameter.grad, share))
        for bucket in buckets.values():
            flat = torch.cat([(grad * share).flatten() for grad, share in bucket])
            dist.all_reduce(flat)
            pieces = flat.split([grad.numel() for grad, _ in bucket])
            for (grad, _), piece in zip(bucket, pieces, strict=True):
                grad.copy_(piece.view_as(grad))

    def agree(self, word: int) -> int:
        """The leader's word, in every process."""
        if self.world == 1:
            return word
        told = torch.tensor(word, dtype=torch.int64)
        dist.broadcast(told, src=0)
        return int(told)

    def same(self, number: int) -> bool:
        """Whether all processes came with one number."""
        if self.world == 1:
            return True
        numbers = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(numbers, torch.tensor([number], dtype=torch.int64))
        return len({int(other) for other in numbers}) == 1


def processes() -> int:
    """How many processes torchrun started to train one model; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return processes() > 1


def local_device(device: torch.device) -> torch.device:
    """The device of this process: of several GPUs in a machine, its own."""
    if device.type != "cuda" or device.index is not None or not launched():
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


@contextmanager
def init_distributed(device: torch.device) -> Iterator[DistributedContext]:
    """Meet the other processes that torchrun started, if any.

    Words go over the CPU, so that no step waits for a device; the others may wait for days while the leader measures.
    """
    if not launched():
        yield DistributedContext()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=7))
    try:
        yield DistributedContext(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class ShardedNetwork(Network):
    """A network whose encoders and decoders are divided between the processes while they train."""

    def __init__(self, network: Network, distributed: DistributedContext) -> None:
        """Wrap a network; the modules that it makes keep their types and the names of their parameters."""
        self.network, self.distributed, self.shape = network, distributed, network.shape

    def encoder(self, outputs: int) -> nn.Module:
        """As the network's own, divided."""
        return self.distributed.divide(self.network.encoder(outputs))

    def decoder(self, latent_dim: int) -> nn.Module:
        """As the network's own, divided."""
        return self.distributed.divide(self.network.decoder(latent_dim))


def _gathered(mine: Tensor, n: int, distributed: DistributedContext) -> Tensor:
    """All processes' rows in order, `(rows, ...) -> (n, ...)`."""
    longest = -(-n // distributed.world)
    padded = mine.new_zeros(longest, *mine.shape[1:])
    padded[: len(mine)] = mine
    pieces = [torch.empty_like(padded) for _ in range(distributed.world)]
    dist.all_gather(pieces, padded)
    counts = [len(range(n)[distributed.rows(n, rank)]) for rank in range(distributed.world)]
    return torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])


class _Cut(torch.autograd.Function):
    """This process's rows of what all have; backward, the gradients of all rows, gathered."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, distributed: DistributedContext) -> Tensor:
        ctx.n, ctx.distributed = len(x), distributed  # type: ignore[attr-defined]
        return x[distributed.rows(len(x))].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return _gathered(grad.contiguous(), ctx.n, ctx.distributed), None  # type: ignore[attr-defined]


class _Gather(torch.autograd.Function):
    """All processes' rows; backward, this process's rows of the gradient, which is the same in all."""

    @staticmethod
    def forward(ctx: FunctionCtx, mine: Tensor, n: int, distributed: DistributedContext) -> Tensor:
        ctx.rows = distributed.rows(n)  # type: ignore[attr-defined]
        return _gathered(mine.contiguous(), n, distributed)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[ctx.rows].contiguous(), None, None  # type: ignore[attr-defined]
