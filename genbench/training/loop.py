"""The training loop: one flat function for every model, resumable, without a wait on the device between log points."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genbench.api import Model, Prior
from genbench.errors import DivergenceError, StoreError
from genbench.training.checkpoint import load_checkpoint, save_checkpoint
from genbench.training.cuda_graph import default_step
from genbench.training.distributed import DistributedContext
from genbench.training.sampler import BatchOrder
from genbench.training.step import ALONE, EAGER_FALLBACK, EagerStep, StepFactory, create_train_context


@dataclass(frozen=True)
class TrainState:
    """The state of a training at a log point.

    `images` counts the images shown, `seconds` the time of training alone, `rate` is images per second and `terms` are
    means since the last log point, `how` says how steps are done (`genbench.training.step.Step.how`),
    `ensemble` counts the runs that are trained together, of which `seconds` are those of all.
    """

    step: int
    steps: int
    images: int
    seconds: float
    rate: float
    terms: Mapping[str, float]
    how: str = "eager"
    ensemble: int = 1

    def logged(self) -> dict[str, Any]:
        """The line of the log: the fields that change, and the reason where a run has no graph or no ensemble."""
        line = {name: value for name, value in asdict(self).items() if name not in ("steps", "how", "ensemble")}
        remarkable = self.how.startswith(EAGER_FALLBACK) or ALONE in self.how
        return {**line, "how": self.how} if remarkable else line


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, from which seed, and when to log, to save and to pause for a snapshot.

    `images` counts the images shown, repeats included, `batch` those of a step. `checkpoint` is the file to resume from
    and to save to; `key` is the run's and has to stand in it. A log point follows every step in `snapshot_steps`. After
    the step `pause` the state is saved and the iteration ends.
    """

    images: int
    batch: int
    seed: int
    checkpoint: Path
    key: str
    snapshot_steps: Container[int] = ()
    pause: int | None = None
    log_seconds: float = field(default=0.5, kw_only=True)
    save_seconds: float = field(default=30.0, kw_only=True)

    @property
    def steps(self) -> int:
        """Steps of one batch each; the last one may exceed the count of images."""
        return math.ceil(self.images / self.batch)

    @property
    def last_step(self) -> int:
        """The step after which nothing is done."""
        return self.steps if self.pause is None else self.pause


def train(
    model: Model,
    prior: Prior,
    images: Tensor,
    config: TrainConfig,
    *,
    stop: Callable[[], bool] = lambda: False,
    distributed: DistributedContext | None = None,
    make_step: StepFactory = default_step,
) -> Iterator[TrainState]:
    """Train `model` on `images`, `(n, c, h, w)` uint8 on the model's device; yields the state at each log point.

    A checkpoint, where there is one, is resumed to the weights of an uninterrupted training: all randomness is derived
    from (seed, purpose, step). `stop()` is asked after every step; where it is true the state is saved and the
    iteration ends. The time that the caller takes at a log point is no training time. `make_step` creates the
    `Step`: by default a CUDA graph on a GPU, eager operations elsewhere.

    Every process of `distributed` must call this. The main process decides when all of them log and stop, and writes
    checkpoints; steps of several processes are eager.

    Raises `DivergenceError` where a loss or a parameter is not finite (the checkpoint then holds an earlier state, in
    which all were), and `StoreError` where the checkpoint is damaged or another run's.
    """
    distributed = distributed or DistributedContext()

    # Resume.
    context = create_train_context(model, prior, images, config.batch, config.seed, distributed)
    step, seconds_before = 0, 0.0
    if config.checkpoint.exists():
        step, seconds_before = load_checkpoint(config.checkpoint, model, context.optimizers, config.key)
    if not distributed.all_equal(step):
        raise StoreError(f"{config.checkpoint}: the processes read different checkpoints; they need one file system")

    # Prepare.
    model.train()
    stepper = make_step(context) if distributed.world == 1 else EagerStep(context)
    order = BatchOrder(len(images), config.batch, config.seed, images.device)
    parameters = list(model.parameters())
    epoch, logged_step = -1, step
    started = logged = saved = time.perf_counter()

    # Main loop.
    while step < config.last_step:
        if step * config.batch // len(images) != epoch:
            epoch = step * config.batch // len(images)
            stepper.on_epoch_start(epoch)
        stepper.run(step, order.indices(step))
        step += 1

        # Log or stop? The main process decides for all.
        now, stopping = time.perf_counter(), stop() or step == config.pause
        logging = stopping or now - logged >= config.log_seconds
        logging = logging or step == config.steps or step in config.snapshot_steps
        if distributed.world > 1:
            logging, stopping = map(bool, divmod(distributed.broadcast(2 * logging + stopping), 2))
        if not logging:
            continue

        # Log. Reading the means is the only wait on the device.
        means = _read_means(stepper.take_sums(), parameters, step - logged_step, step)
        now = time.perf_counter()
        shown, seconds = step * config.batch, seconds_before + now - started
        rate = (step - logged_step) * config.batch / (now - logged)
        yield TrainState(step, config.steps, shown, seconds, rate, means, stepper.how)
        logged, logged_step = time.perf_counter(), step
        started += logged - now  # the caller's time does not count

        # Checkpoint.
        due = stopping or logged - saved >= config.save_seconds
        if due and distributed.is_main_process and step < config.steps:
            save_checkpoint(config.checkpoint, model, context.optimizers, config.key, step, seconds)
            saved = time.perf_counter()
        if stopping:
            return


def _read_means(sums: Mapping[str, Tensor], parameters: Sequence[Tensor], steps: int, step: int) -> dict[str, float]:
    """Means over `steps` of the summed losses and terms; the loss of each optimizer stands under the optimizer's name.

    Raises `DivergenceError` where one of them or a parameter is not finite.
    """
    norms = torch.stack(torch._foreach_norm([parameter.detach() for parameter in parameters])).sum()
    *values, norm = torch.stack([*(value.float() / steps for value in sums.values()), norms.float()]).tolist()
    return finite_means(dict(zip(sums, values, strict=True)), norm, steps, step)


def finite_means(means: dict[str, float], norm: float, steps: int, step: int) -> dict[str, float]:
    """The means; `DivergenceError` where one of them, or the norm of the parameters, is not finite.

    A finite loss may have a gradient that is not.
    """
    infinite = [name for name, value in means.items() if not math.isfinite(value)]
    if infinite:
        names = ", ".join(infinite)
        raise DivergenceError(f"the loss is not finite ({names}) within the {steps} steps up to step {step}")
    if not math.isfinite(norm):
        raise DivergenceError(f"the parameters are not finite any more after step {step}, though the losses were")
    return means
