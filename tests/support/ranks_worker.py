"""One of several processes that take training steps together: python ranks_worker.py RANK WORLD MEETING OUT DTYPE...

MEETING is a file by which they find each other; the main process writes the tensors of each case in each dtype to OUT.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from genbench.api import DataConfig, Noise
from genbench.experiment.build import create_model, create_prior
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import plan
from genbench.experiment.run import Run
from genbench.registry.loader import Registry, load
from genbench.training.distributed import DistributedContext, ShardedNetwork
from genbench.utils.io import save_tensors
from genbench.utils.rng import generator

DOTS = Path(__file__).parents[1] / "fixtures" / "dots.py"
BATCH = 9  # no multiple of the world: shares are unequal


@dataclass(frozen=True)
class Case:
    """A model on a network, and options that choose another branch of it."""

    model: str
    network: str
    settings: tuple[str, ...] = ()
    prior: str = "normal"


CASES = (
    *(Case(model, "normed") for model in ("swae", "wae-gan", "wae-mmd", "vae", "ae", "cwae")),
    *(Case(model, "conv") for model in ("swae", "wae-gan", "vae")),
    Case("vae", "normed", ("vae.likelihood=learned-sigma",), "mixture"),
    Case("wae-gan", "normed", ("wae-gan.log-density=true",)),
    Case("cwae", "normed", (), "mixture"),
)


def run_of(case: Case, registry: Registry, folder: Path) -> Run:
    """A run of the case on the tiny dataset."""
    grid = ExperimentConfig(
        models=(case.model,),
        dataset="dots",
        priors=(case.prior,),
        latent_dims=(5,),
        seeds=(0,),
        network=case.network,
        settings=(*case.settings, *(() if case.network == "normed" else ("dots.size=28",))),
        images=100,
        batch=BATCH,
        metrics=(),
    )
    return plan(grid, registry, DataConfig(folder, folder)).runs[0]


def steps_of(
    case: Case, registry: Registry, folder: Path, dtype: torch.dtype, distributed: DistributedContext | None
) -> dict[str, Tensor]:
    """Gradients of the first step's moves, and all weights and buffers after three steps."""
    run = run_of(case, registry, folder)
    size = 12 if case.network == "normed" else 28
    torch.manual_seed(0)
    shard = None if distributed is None else partial(ShardedNetwork, distributed=distributed)
    model = create_model(registry, run, (1, size, size), shard).to(dtype).train()
    prior, tensors = create_prior(registry, run), {}
    configs = model.configure_optimizers()
    optimizers = {name: torch.optim.SGD(config.parameters, lr=1e-3) for name, config in configs.items()}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for step in range(3):
        x = torch.rand(BATCH, 1, size, size, generator=generator("cpu", 0, "x", step)).to(dtype)
        z = prior.sample_batch(BATCH, Noise(generator("cpu", 0, "prior", step))).to(dtype)
        for loss in model.training_step(x, z, Noise(generator("cpu", 0, "model", step))):
            optimizers[loss.optimizer].zero_grad(set_to_none=True)
            loss.value.backward(inputs=configs[loss.optimizer].parameters)
            if distributed is not None:
                distributed.reduce(configs[loss.optimizer].parameters)
            if step == 0:
                tensors[f"{loss.optimizer}.loss"] = loss.value.detach().clone()
                for parameter in configs[loss.optimizer].parameters:
                    if parameter.grad is not None:
                        tensors[f"{loss.optimizer}.{names[parameter]}"] = parameter.grad.clone()
            optimizers[loss.optimizer].step()
    return {**tensors, **{f"after.{name}": value.clone() for name, value in model.state_dict().items()}}


def main() -> None:
    """Take the steps of every case together."""
    rank, world, meeting, out, *dtypes = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    registry, distributed, folder = load([DOTS]), DistributedContext(rank, world), Path(out)
    for dtype, (index, case) in product(dtypes, enumerate(CASES)):
        with distributed.training():
            tensors = steps_of(case, registry, folder, getattr(torch, dtype), distributed)
        if distributed.is_main_process:
            save_tensors(folder / f"{dtype}-{index}.safetensors", tensors)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
