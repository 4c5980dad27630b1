"""One training step behind a small protocol.

`EagerStep` is here; `genbench.training.cuda_graph` has the recorded one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from genbench.api import Model, Noise, OptimizerConfig, Prior
from genbench.data.images import to_float
from genbench.training.distributed import DistributedContext
from genbench.utils.rng import derive_seed

Sums = dict[str, Tensor]
"""Losses and terms by name, each a scalar on the device (of an ensemble: one for each member), summed over steps."""

PURPOSES = ("prior", "model")
"""Purposes of a step's two generators: the draws from the prior, and the model's noise."""

EAGER_FALLBACK = "eager: "
"""Prefix of `Step.how` where a GPU has no graph; the reason follows."""

ALONE = ", no ensemble: "
"""In `TrainState.how`, between how steps are done and why the run is not trained in an ensemble."""


class StepNoise(Protocol):
    """The random numbers of a step."""

    @property
    def generators(self) -> Sequence[Generator]:
        """The generators that `do_batch` draws from."""

    def prepare(self, step: int) -> None:
        """Make ready for step number `step`, outside of any recording."""


class StepContext(Protocol):
    """The work of a step, of one training or of an ensemble."""

    @property
    def model(self) -> Model:
        """The model whose `training_step` is done."""

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers by name."""

    @property
    def device(self) -> torch.device:
        """The device of images and model."""

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of a step's indices of images."""

    @property
    def noise(self) -> StepNoise:
        """The random numbers of the step that is done next."""

    @property
    def version(self) -> int:
        """Another number where `on_epoch_start` has changed which operations a step is made of."""

    def on_epoch_start(self, epoch: int) -> None:
        """Notify the model, and set every optimizer's learning rates."""

    def do_batch(self, indices: Tensor, sums: Sums) -> None:
        """Do a step on the images `indices`, and add its losses and terms to the sums.

        It reads nothing that a recording could not hold: no step number, no clock.
        """


class SoloNoise:
    """The two generators of one training's steps: for the draws from the prior, and for the model."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.generators = [Generator(device=device) for _ in PURPOSES]
        self.prior, self.model = map(Noise, self.generators)
        self._seed = seed

    def prepare(self, step: int) -> None:
        """Seed both for a step."""
        for source, purpose in zip(self.generators, PURPOSES, strict=True):
            source.manual_seed(derive_seed(self._seed, purpose, step))


@dataclass(frozen=True)
class TrainContext:
    """Everything that a step of one training reads or changes.

    `images` is `(n, c, h, w)` uint8 on the model's device, `batch` the size of a step over all processes, `base_rates`
    are the learning rates of each optimizer's parameter groups before any schedule, `dtype` is that of the batches.
    """

    model: Model
    prior: Prior
    images: Tensor
    batch: int
    seed: int
    noise: SoloNoise
    optimizer_configs: Mapping[str, OptimizerConfig]
    optimizers: Mapping[str, Optimizer]
    base_rates: Mapping[str, tuple[float, ...]]
    distributed: DistributedContext
    dtype: torch.dtype = torch.float32
    version: int = 0

    @property
    def device(self) -> torch.device:
        """The device of images and model."""
        return self.images.device

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """`(batch,)`."""
        return (self.batch,)

    def on_epoch_start(self, epoch: int) -> None:
        """Notify the model, and set every optimizer's learning rates."""
        self.model.on_epoch_start(epoch)
        for name, config in self.optimizer_configs.items():
            factor = config.schedule(epoch)
            for group, rate in zip(self.optimizers[name].param_groups, self.base_rates[name], strict=True):
                group["lr"] = rate * factor

    def do_batch(self, indices: Tensor, sums: Sums) -> None:
        """One batch: gather images, draw, take every loss's optimizer step, add losses and logs to the sums.

        In distributed training every process passes the whole batch: `genbench.training.distributed` shards the
        networks.
        """
        x = to_float(self.images.index_select(0, indices)).to(self.dtype)
        z = self.prior.sample_batch(self.batch, self.noise.prior)
        with self.distributed.training():
            for loss in self.model.training_step(x, z, self.noise.model):
                optimizer = self.optimizers[loss.optimizer]
                parameters = self.optimizer_configs[loss.optimizer].parameters
                optimizer.zero_grad(set_to_none=True)
                loss.value.backward(inputs=parameters)
                self.distributed.reduce(parameters)
                optimizer.step()
                add_terms(sums, {loss.optimizer: loss.value, **loss.logs})


def create_train_context(
    model: Model, prior: Prior, images: Tensor, batch: int, seed: int, distributed: DistributedContext | None = None
) -> TrainContext:
    """The context of a training, with fresh optimizers; on a GPU a CUDA graph can hold their steps."""
    configs = model.configure_optimizers()
    optimizers = {name: config.optimizer(config.parameters) for name, config in configs.items()}
    make_capturable(optimizers.values(), images.device)
    base_rates = {name: tuple(group["lr"] for group in o.param_groups) for name, o in optimizers.items()}
    distributed = distributed or DistributedContext()
    noise = SoloNoise(images.device, seed)
    return TrainContext(model, prior, images, batch, seed, noise, configs, optimizers, base_rates, distributed)


def make_capturable(optimizers: Iterable[Optimizer], device: torch.device) -> None:
    """On a GPU, let a CUDA graph hold the optimizers' steps: their count is then a tensor on the device."""
    for optimizer in optimizers if device.type == "cuda" else ():
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True


class Step(Protocol):
    """Does whole training steps, one after another."""

    @property
    def how(self) -> str:
        """How steps are done: "eager", "graph", or `EAGER_FALLBACK` and why there is no graph."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before the first step of an epoch, and again where a training resumes."""

    def run(self, step: int, indices: Tensor) -> None:
        """Do step number `step` on the images `indices`, int64 on the device, without a wait on it."""

    def take_sums(self) -> Sums:
        """The losses and terms summed since the last call."""


StepFactory = Callable[[StepContext], Step]


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

    def __init__(self, context: StepContext) -> None:
        self.context = context
        self.sums: Sums = {}

    def on_epoch_start(self, epoch: int) -> None:
        """Pass the epoch on."""
        self.context.on_epoch_start(epoch)

    def run(self, step: int, indices: Tensor) -> None:
        """One step with the random numbers of its number."""
        self.context.noise.prepare(step)
        self.context.do_batch(indices, self.sums)

    def take_sums(self) -> Sums:
        """The sums; terms that a later step does not have are not in the later sums."""
        taken, self.sums = self.sums, {}
        return taken
