"""Set-up of one training job, the same in every process of a distributed training."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from genbench.api import Images, Model, TrainingStats
from genbench.errors import DivergenceError
from genbench.experiment.build import create_model
from genbench.experiment.run import Run
from genbench.registry.loader import Registry
from genbench.training.device import (
    DeviceConfig,
    apply_device_config,
    peak_memory,
    reset_peak_memory,
    select_device_config,
)
from genbench.training.distributed import DistributedContext, ShardedNetwork
from genbench.training.ensemble import Draw, check_faster, check_stackable, train_ensemble
from genbench.training.flops import counted_flops
from genbench.training.loop import TrainConfig, TrainState, train
from genbench.training.precision import computing
from genbench.training.step import create_train_context
from genbench.utils.rng import derive_seed
from genbench.utils.torch_state import threads


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
        pause: int | None = None,
    ) -> Iterator[Iterator[TrainState]]:
        """The log points of `genbench.training.loop.train`; device config and precision hold inside."""
        run = self.run
        config = TrainConfig(run.images, run.batch, run.seed, checkpoint, run.key, snapshot_steps, pause)
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
            ensemble=state.ensemble,
        )


@dataclass
class EnsembleJob:
    """Sets up the training of several runs as one tensor program."""

    jobs: Sequence[TrainingJob]
    device_config: DeviceConfig | None = None
    step_flops: float | None = None
    """Operations of one step of one member."""

    def build_models(self) -> list[Model]:
        """The untrained model of each run, that of its solo training."""
        first = self.jobs[0]
        models = [job.build_model() for job in self.jobs]
        self.step_flops = counted_flops(models[0], first.run.batch)
        reset_peak_memory(first.device)
        # Under vmap the convolutions of all members are one grouped convolution, whose weights are contiguous.
        self.device_config = replace(first.select_device_config(models[0]), memory_format="contiguous")
        for model in models:
            model.train()
        return models

    def check(self, models: Sequence[Model], *, measured: bool) -> list[list[Draw]]:
        """The draws of a step; `EnsembleError` where the runs cannot be stacked, or are `measured` to be slower."""
        contexts = [
            create_train_context(model, model.prior, job.images.train, job.run.batch, job.run.seed)
            for job, model in zip(self.jobs, models, strict=True)
        ]
        assert self.device_config is not None
        with threads(self.device_config.threads):
            draws = check_stackable(contexts)
            if measured:
                check_faster(contexts, draws)
        return draws

    @contextmanager
    def start(
        self,
        models: Sequence[Model],
        members: Sequence[int],
        draws: Sequence[Sequence[Draw]],
        checkpoints: Sequence[Path],
        *,
        stop: Callable[[], bool] = lambda: False,
        snapshot_steps: Container[int] = (),
        pause: int | None = None,
    ) -> Iterator[Iterator[dict[int, TrainState | DivergenceError]]]:
        """The log points of `train_ensemble` for some members, which it counts from 0.

        Device config and precision hold inside.
        """
        assert self.device_config is not None
        first, configs = self.jobs[0], []
        for k in members:
            run = self.jobs[k].run
            checkpoint = checkpoints[k]
            configs.append(TrainConfig(run.images, run.batch, run.seed, checkpoint, run.key, snapshot_steps, pause))
        with ExitStack() as stack:
            stack.enter_context(threads(self.device_config.threads))
            for k in members:
                stack.enter_context(computing(models[k], first.run.precision, first.device))
            yield train_ensemble([models[k] for k in members], first.images.train, configs, draws, stop=stop)

    def stats(self, model: Model, state: TrainState, jobs: int) -> TrainingStats:
        """The cost of a member's training; its seconds are those of all members, which count among the `jobs`."""
        assert self.device_config is not None
        return self.jobs[0].stats(model, state, self.device_config, self.step_flops, jobs * len(self.jobs))
