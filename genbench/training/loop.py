"""The training loop: one flat function for every model, resumable, without a wait on the device between log points."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genbench.api import Model, Prior
from genbench.errors import DivergenceError, StoreError
from genbench.training.checkpoint import load_checkpoint, save_checkpoint
from genbench.training.cuda_graph import default_step
from genbench.training.distributed import DistributedContext
from genbench.training.step import EAGER_FALLBACK, EagerStep, StepOf, create_train_context
from genbench.utils.rng import generator

WORDS = ((False, False), (True, False), (True, True))
"""What the leader tells the other processes after a step: whether to log, and whether to stop."""


@dataclass(frozen=True)
class TrainState:
    """The state of a training at a log point: `terms` are means since the last one, `rate` is images per second.

    `how`, `most_threads` and `usual_threads` say how its steps are done (`genbench.training.step.Step`).
    """

    step: int
    steps: int
    images: int
    seconds: float
    rate: float
    terms: Mapping[str, float]
    how: str = "eager"
    most_threads: int = 0
    usual_threads: int = 0

    def logged(self) -> dict[str, Any]:
        """Its line in the log: what differs between log points, and why a GPU had to do without a graph."""
        same = ("steps", "how", "most_threads", "usual_threads")
        line = {name: value for name, value in asdict(self).items() if name not in same}
        return {**line, "how": self.how} if self.how.startswith(EAGER_FALLBACK) else line


@dataclass(frozen=True)
class Budget:
    """How long to train, and from which random state."""

    images: int
    batch: int
    seed: int

    @property
    def steps(self) -> int:
        """Steps of one batch each; the last one may exceed the count of images."""
        return math.ceil(self.images / self.batch)


def train(
    model: Model,
    prior: Prior,
    images: Tensor,
    budget: Budget,
    checkpoint: Path,
    *,
    key: str,
    stop: Callable[[], bool],
    marks: Container[int] = (),
    distributed: DistributedContext | None = None,
    log_seconds: float = 0.5,
    save_seconds: float = 30.0,
    step_of: StepOf = default_step,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[TrainState | None]:
    """Train `model` on `images`, `(n, c, h, w)` uint8 on the model's device, from its checkpoint where there is one.

    Yields a moment at each log point, and None between any two steps, where other trainings may have their turn;
    `moments` gives the former alone. Seconds are `clock`'s, without those that the caller takes for a moment.

    Batches are all of one size: consecutive pieces of an endless sequence of permutations of the training set, so each
    image is shown once in an epoch. All randomness is derived from (seed, purpose, step). When `stop()` turns true the
    state is saved and the iteration ends early. After each step in `marks` a moment is yielded whatever the clock says,
    so that the caller may keep the weights. `step_of` makes what does a step: a recorded one on a GPU. Raises
    `DivergenceError` when a loss or a parameter is not finite; the checkpoint then holds the last state that was, at a
    log point.

    Of several `distributed`, which must all call this, the leader decides where to log and to stop, and writes checkpoints;
    their steps are eager ones.
    """
    distributed = distributed or DistributedContext()
    device, total = images.device, len(images)
    parts = create_train_context(model, prior, images, budget.batch, budget.seed, distributed)
    done = load_checkpoint(checkpoint, model, parts.optimizers, key) if checkpoint.exists() else (0, 0.0)
    step, earlier = done
    if not distributed.same(step):
        raise StoreError(f"{checkpoint}: the processes read different checkpoints; they need one file system")
    parameters, work = list(model.parameters()), step_of(parts) if distributed.world == 1 else EagerStep(parts)

    model.train()
    began = logged = saved = clock()
    logged_step, epoch = step, -1
    order = BatchOrder(total, budget.batch, budget.seed, device)
    while step < budget.steps:
        if step * budget.batch // total != epoch:
            epoch = step * budget.batch // total
            work.on_epoch_start(epoch)
        work.do(step, order.indices(step))
        step += 1

        now, stopping = clock(), stop()
        logging = now - logged >= log_seconds or step == budget.steps or step in marks or stopping
        logging, stopping = WORDS[distributed.agree(WORDS.index((logging, stopping)))]
        if logging:
            terms = _means(work.take(), parameters, step - logged_step, step)  # the only wait on the device
            now = clock()
            rate = (step - logged_step) * budget.batch / (now - logged)
            how = work.how, work.most_threads, work.usual_threads
            yield TrainState(step, budget.steps, step * budget.batch, earlier + now - began, rate, terms, *how)
            resumed = clock()
            began, now = began + resumed - now, resumed
            logged, logged_step = now, step
            if distributed.is_main_process and step < budget.steps and (stopping or now - saved >= save_seconds):
                save_checkpoint(checkpoint, model, parts.optimizers, key, step, earlier + now - began)
                saved = clock()
            if stopping:
                return
        if step < budget.steps:
            yield None


def moments(training: Iterable[TrainState | None]) -> Iterator[TrainState]:
    """The log points of a training that is done in one go."""
    return (moment for moment in training if moment is not None)


class BatchOrder:
    """Which training images each step shows: permutations of the set, one after another, cut into equal batches."""

    def __init__(self, total: int, batch: int, seed: int, device: torch.device) -> None:
        """For `total` images and `batch` <= total of them a step; permutations are drawn on the CPU."""
        self.total, self.batch, self.seed, self.device = total, batch, seed, device
        self._epochs: dict[int, Tensor] = {}

    def indices(self, step: int) -> Tensor:
        """The images of a step, `(batch,)` int64 on the device; a function of the step alone."""
        epoch, offset = divmod(step * self.batch, self.total)
        head = self._permutation(epoch)[offset : offset + self.batch]
        if len(head) == self.batch:
            return head
        return torch.cat([head, self._permutation(epoch + 1)[: self.batch - len(head)]])

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            drawn = torch.randperm(self.total, generator=generator("cpu", self.seed, "order", epoch))
            self._epochs = {e: p for e, p in self._epochs.items() if e == epoch - 1} | {epoch: drawn.to(self.device)}
        return self._epochs[epoch]


def _means(sums: Mapping[str, Tensor], parameters: Sequence[Tensor], steps: int, step: int) -> dict[str, float]:
    """Means of the summed terms; raises where one of them or of the parameters is not finite.

    The loss of each player stands under its name. A finite loss may have had a gradient that was not.
    """
    size = torch.stack(torch._foreach_norm([parameter.detach() for parameter in parameters])).sum()
    *values, size = torch.stack([*(value.float() / steps for value in sums.values()), size.float()]).tolist()
    means = dict(zip(sums, values, strict=True))
    wrong = [name for name, value in means.items() if not math.isfinite(value)]
    if not wrong and not math.isfinite(size):
        raise DivergenceError(f"the parameters are not finite any more after step {step}, though the losses were")
    if wrong:
        raise DivergenceError(f"the loss is not finite ({', '.join(wrong)}) within the {steps} steps up to step {step}")
    return means
