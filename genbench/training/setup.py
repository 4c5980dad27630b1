"""Set-up of one training job, the same in every process of a distributed training."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from genbench.api import Images, Model, TrainingStats
from genbench.experiment.build import create_model
from genbench.experiment.run import Run
from genbench.registry.loader import Registry
from genbench.training.device import DeviceConfig, apply_device_config, peak_memory, select_device_config
from genbench.training.distributed import DistributedContext, ShardedNetwork
from genbench.training.loop import TrainConfig, TrainState, train
from genbench.training.precision import computing
from genbench.utils.rng import derive_seed


@dataclass(frozen=True)
class TrainingJob:
    """Sets up one training job (seeded model, device config, loop), identically on every rank.

    `images` are on the device; `threads` are the CPU threads of `--threads`, None for the default.
    """

    registry: Registry
    run: Run
    images: Images
    device: torch.device
    distributed: DistributedContext = field(default_factory=DistributedContext)
    threads: int | None = None

    def build_model(self) -> Model:
        """The untrained model on the device; its initial weights are a function of the run's seed alone."""
        torch.manual_seed(derive_seed(self.run.seed, "weights"))
        shard = None if self.distributed.world == 1 else partial(ShardedNetwork, distributed=self.distributed)
        return create_model(self.registry, self.run, self.images.shape, shard).to(self.device)

    def select_device_config(self, model: Model) -> DeviceConfig:
        """The threads and the memory format of this training."""
        return select_device_config(model, self.run.batch, self.device, self.threads)

    @contextmanager
    def start(
        self,
        model: Model,
        device_config: DeviceConfig,
        checkpoint: Path,
        *,
        stop: Callable[[], bool] = lambda: False,
        snapshot_steps: Container[int] = (),
    ) -> Iterator[Iterator[TrainState]]:
        """The log points of `genbench.training.loop.train`; device config and precision hold inside."""
        run = self.run
        config = TrainConfig(run.images, run.batch, run.seed, checkpoint, run.key, snapshot_steps)
        torch.manual_seed(derive_seed(run.seed, "global"))
        with apply_device_config(model, device_config), computing(model, run.precision, self.device):
            yield train(model, model.prior, self.images.train, config, stop=stop, distributed=self.distributed)

    def stats(
        self, model: Model, state: TrainState, device_config: DeviceConfig, step_flops: float | None, jobs: int
    ) -> TrainingStats:
        """The cost of the training that ended in `state`, beside `jobs` - 1 further runs at most."""
        return TrainingStats(
            seconds=state.seconds,
            images=state.images,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            device=self.device.type,
            threads=device_config.threads,
            peak_memory=peak_memory(self.device),
            flops=None if step_flops is None else step_flops * state.step,
            precision=self.run.precision,
            memory_format=device_config.memory_format,
            step=state.how,
            batch=self.run.batch,
            jobs=jobs,
        )
