"""One training step behind a small protocol.

`EagerStep` is here; `genbench.training.cuda_graph` has the recorded one.
"""

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
"""Losses and terms by name, each a scalar on the device, summed over steps."""

PURPOSES = ("prior", "model")
"""Purposes of a step's two generators: the draws from the prior, and the model's noise."""

EAGER_FALLBACK = "eager: "
"""Prefix of `Step.how` where a GPU has no graph; the reason follows."""


@dataclass(frozen=True)
class TrainContext:
    """Everything that a step reads or changes.

    `images` is `(n, c, h, w)` uint8 on the model's device, `batch` the size of a step over all processes, `base_rates`
    are the learning rates of each optimizer's parameter groups before any schedule.
    """

    model: Model
    prior: Prior
    images: Tensor
    batch: int
    seed: int
    optimizer_configs: Mapping[str, OptimizerConfig]
    optimizers: Mapping[str, Optimizer]
    base_rates: Mapping[str, tuple[float, ...]]
    distributed: DistributedContext

    @property
    def device(self) -> torch.device:
        """The device of images and model."""
        return self.images.device

    def on_epoch_start(self, epoch: int) -> None:
        """Notify the model, and set every optimizer's learning rates."""
        self.model.on_epoch_start(epoch)
        for name, config in self.optimizer_configs.items():
            factor = config.schedule(epoch)
            for group, rate in zip(self.optimizers[name].param_groups, self.base_rates[name], strict=True):
                group["lr"] = rate * factor


def create_train_context(
    model: Model, prior: Prior, images: Tensor, batch: int, seed: int, distributed: DistributedContext | None = None
) -> TrainContext:
    """The context of a training, with fresh optimizers; on a GPU a CUDA graph can hold their steps."""
    configs = model.configure_optimizers()
    optimizers = {name: config.optimizer(config.parameters) for name, config in configs.items()}
    if images.device.type == "cuda":
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                if "capturable" in group:  # its count of steps is then a tensor on the device
                    group["capturable"] = True
    base_rates = {name: tuple(group["lr"] for group in o.param_groups) for name, o in optimizers.items()}
    distributed = distributed or DistributedContext()
    return TrainContext(model, prior, images, batch, seed, configs, optimizers, base_rates, distributed)


class Step(Protocol):
    """Does whole training steps, one after another."""

    @property
    def how(self) -> str:
        """How steps are done: "eager", "graph", or `EAGER_FALLBACK` and why there is no graph."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before the first step of an epoch, and again where a training resumes."""

    def run(self, step: int, indices: Tensor) -> None:
        """Do step number `step` on the images `indices`, `(batch,)` int64 on the device, without a wait on it."""

    def take_sums(self) -> Sums:
        """The losses and terms summed since the last call."""


StepFactory = Callable[[TrainContext], Step]


def do_batch(
    context: TrainContext, indices: Tensor, prior_noise: Generator, model_noise: Generator, sums: Sums
) -> None:
    """One batch: gather images, draw, take every loss's optimizer step, add losses and logs to the sums.

    This is the only batch-level code. It reads nothing that a recording could not hold: no step number, no clock. In
    distributed training every process passes the whole batch: `genbench.training.distributed` shards the networks.
    """
    x = to_float(context.images.index_select(0, indices))
    z = context.prior.sample_batch(context.batch, Noise(prior_noise))
    with context.distributed.training():
        for loss in context.model.training_step(x, z, Noise(model_noise)):
            optimizer = context.optimizers[loss.optimizer]
            parameters = context.optimizer_configs[loss.optimizer].parameters
            optimizer.zero_grad(set_to_none=True)
            loss.value.backward(inputs=parameters)
            context.distributed.reduce(parameters)
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
    """Launches every operation anew: on a CPU a recording would save nothing."""

    how = "eager"

    def __init__(self, context: TrainContext) -> None:
        self.context = context
        self.sums: Sums = {}

    def on_epoch_start(self, epoch: int) -> None:
        """Pass the epoch on."""
        self.context.on_epoch_start(epoch)

    def run(self, step: int, indices: Tensor) -> None:
        """One step with fresh generators."""
        context = self.context
        first, second = (generator(context.device, context.seed, purpose, step) for purpose in PURPOSES)
        do_batch(context, indices, first, second, self.sums)

    def take_sums(self) -> Sums:
        """The sums; terms that a later step does not have are not in the later sums."""
        taken, self.sums = self.sums, {}
        return taken
