"""One training step: all that is done with one batch, behind a small protocol; `genbench.training.cuda_graph` has the other one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from genbench.api import Model, Noise, OptimizerConfig, Prior
from genbench.data.images import to_float
from genbench.training.distributed import DistributedContext
from genbench.utils.rng import generator

Sums = dict[str, Tensor]
"""Terms by name, each a scalar on the device, summed over steps."""


@dataclass(frozen=True)
class TrainContext:
    """What a training is made of: `images` is `(n, c, h, w)` uint8 on the model's device, `batch` a step's share."""

    model: Model
    prior: Prior
    images: Tensor
    batch: int
    seed: int
    configure_optimizers: Mapping[str, OptimizerConfig]
    optimizers: Mapping[str, Optimizer]
    base_rates: Mapping[str, tuple[float, ...]]
    distributed: DistributedContext

    @property
    def device(self) -> torch.device:
        """Where all of it is."""
        return self.images.device

    def on_epoch_start(self, epoch: int) -> None:
        """Tell the model, and set every player's learning rates."""
        self.model.on_epoch_start(epoch)
        for name, player in self.configure_optimizers.items():
            factor = player.schedule(epoch)
            for group, rate in zip(self.optimizers[name].param_groups, self.base_rates[name], strict=True):
                group["lr"] = rate * factor


def create_train_context(
    model: Model, prior: Prior, images: Tensor, batch: int, seed: int, distributed: DistributedContext | None = None
) -> TrainContext:
    """The parts of a training, with fresh optimisers; on a GPU they are such that a CUDA graph can hold their steps."""
    configure_optimizers = model.configure_optimizers()
    optimizers = {name: player.optimizer(player.parameters) for name, player in configure_optimizers.items()}
    if images.device.type == "cuda":
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                if "capturable" in group:  # its count of steps is then a tensor on the device
                    group["capturable"] = True
    rates = {name: tuple(group["lr"] for group in o.param_groups) for name, o in optimizers.items()}
    return TrainContext(
        model, prior, images, batch, seed, configure_optimizers, optimizers, rates, distributed or DistributedContext()
    )


EAGER_FALLBACK = "eager: "
"""How `Step.how` begins where a GPU has to do without a graph; the reason follows."""


class Step(Protocol):
    """Does whole steps of a training, one after another."""

    @property
    def how(self) -> str:
        """How steps are done: "eager", "graph", or `EAGER_FALLBACK` and why no graph could be had."""

    @property
    def most_threads(self) -> int:
        """The most threads of a CPU among which the step chooses by measuring; 0 where it does not."""

    @property
    def usual_threads(self) -> int:
        """The count of threads that it chose for most steps; 0 where it does not choose."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before the first step of an epoch, and again where a run resumes."""

    def do(self, step: int, indices: Tensor) -> None:
        """Do step number `step` on the images `indices`, `(batch,)` int64 on the device, without a wait on it."""

    def take(self) -> Sums:
        """The terms summed since the last call, which starts them anew."""


StepOf = Callable[[TrainContext], Step]


def do_batch(parts: TrainContext, indices: Tensor, prior_noise: Generator, model_noise: Generator, sums: Sums) -> None:
    """Everything done with one batch: gather images, draw, take every loss's optimizer step, sum losses and logs.

    This is the only batch-level code. It reads nothing that a recording could not hold: no step number, no clock. In
    distributed training every process passes the whole batch: `genbench.training.distributed` shards the networks.
    """
    x = to_float(parts.images.index_select(0, indices))
    z = parts.prior.sample_batch(parts.batch, Noise(prior_noise))
    with parts.distributed.training():
        for loss in parts.model.training_step(x, z, Noise(model_noise)):
            optimizer, parameters = (
                parts.optimizers[loss.optimizer],
                parts.configure_optimizers[loss.optimizer].parameters,
            )
            optimizer.zero_grad(set_to_none=True)
            loss.value.backward(inputs=parameters)
            parts.distributed.reduce(parameters)
            optimizer.step()
            add_terms(sums, {loss.optimizer: loss.value, **loss.logs})


def add_terms(sums: Sums, terms: Mapping[str, Tensor]) -> None:
    """Add each term to its sum, in place, so that a recording adds to the same memory at every replay."""
    for name, value in terms.items():
        if name in sums:
            sums[name].add_(value.detach())
        else:
            sums[name] = value.detach().clone()


class EagerStep:
    """Every operation launched anew: on a CPU there is nothing to save by a recording."""

    how = "eager"
    most_threads = usual_threads = 0

    def __init__(self, parts: TrainContext) -> None:
        """For some parts."""
        self.parts = parts
        self.sums: Sums = {}

    def on_epoch_start(self, epoch: int) -> None:
        """Pass it on."""
        self.parts.on_epoch_start(epoch)

    def do(self, step: int, indices: Tensor) -> None:
        """One step with generators of its own."""
        parts = self.parts
        first, second = (generator(parts.device, parts.seed, purpose, step) for purpose in PURPOSES)
        do_batch(parts, indices, first, second, self.sums)

    def take(self) -> Sums:
        """The sums; terms that a later step does not have are not in the later sums."""
        taken, self.sums = self.sums, {}
        return taken


PURPOSES = ("prior", "model")
"""Of a step's two generators: the prior's draws, and the model's own noise."""
