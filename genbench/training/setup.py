"""A run's training as every process sets it up that takes its steps: the seeds, the model, the machine, the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from genbench.api import Images, Model, TrainingStats
from genbench.experiment.build import create_model, create_prior
from genbench.experiment.run import Run
from genbench.registry.loader import Registry
from genbench.training.device import DeviceConfig, apply_device_config, peak_memory, select_device_config
from genbench.training.distributed import DistributedContext, ShardedNetwork
from genbench.training.loop import Budget, TrainState, train
from genbench.training.pace import arranged_step
from genbench.training.precision import computing
from genbench.utils.rng import derive_seed


class Clock:
    """The seconds of all trainings that have their turns in this process, which none of them can help."""

    def __init__(self) -> None:
        """Begin at any time."""
        self._lost = 0.0

    def __call__(self) -> float:
        """Seconds since some moment."""
        return time.perf_counter() - self._lost

    @contextmanager
    def standing(self) -> Iterator[None]:
        """What is done within is no training; it is not used within itself."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._lost += time.perf_counter() - began


@dataclass(frozen=True)
class Training:
    """Whatever decides the steps of a run's training; `images` are on the device."""

    registry: Registry
    run: Run
    images: Images
    device: torch.device
    distributed: DistributedContext

    def untrained(self) -> Model:
        """The model on the device, with the weights from which the run begins in every process."""
        torch.manual_seed(derive_seed(self.run.seed, "weights"))
        divided = None if self.distributed.world == 1 else partial(ShardedNetwork, distributed=self.distributed)
        return create_model(self.registry, self.run, self.images.shape, divided).to(self.device)

    def select_device_config(self, model: Model) -> DeviceConfig:
        """How the machine is used."""
        return select_device_config(model, self.run.batch, self.device)

    @contextmanager
    def begun(
        self,
        model: Model,
        arrangement: DeviceConfig,
        checkpoint: Path,
        *,
        stop: Callable[[], bool],
        marks: Container[int],
        clock: Callable[[], float] = time.perf_counter,
    ) -> Iterator[Iterator[TrainState | None]]:
        """The training, as `genbench.training.loop.train` yields it, and within it the arrangement and the precision."""
        prior, budget = create_prior(self.registry, self.run), Budget(self.run.images, self.run.batch, self.run.seed)
        torch.manual_seed(derive_seed(self.run.seed, "global"))
        with apply_device_config(model, arrangement), computing(model, self.run.precision, self.device):
            yield train(
                model,
                prior,
                self.images.train,
                budget,
                checkpoint,
                key=self.run.key,
                stop=stop,
                marks=marks,
                distributed=self.distributed,
                step_of=arranged_step(arrangement),
                clock=clock,
            )

    def record(
        self,
        model: Model,
        last: TrainState,
        arrangement: DeviceConfig,
        step_flops: float | None,
        together: int,
        jobs: int,
    ) -> TrainingStats:
        """What the training has cost, which ended with the moment `last`."""
        return TrainingStats(
            last.seconds,
            last.images,
            sum(parameter.numel() for parameter in model.parameters()),
            self.device.type,
            arrangement.threads,
            peak_memory(self.device) if together == 1 else None,
            None if step_flops is None else step_flops * last.step,
            self.run.precision,
            arrangement.memory_format,
            last.how,
            self.run.batch,
            together,
            jobs,
            last.most_threads,
            last.usual_threads,
        )
