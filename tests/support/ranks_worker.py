"""Processes that take training steps together: `python ranks_worker.py OUT 2:float64,float32 3:float64`.

For each argument so many processes take the steps of all cases in each dtype; the first one writes their tensors to
OUT/WORLD. All are forks of this process, which has imported torch and the plug-ins.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from genbench.api import DataConfig, Noise
from genbench.experiment.build import create_model, create_prior
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import plan
from genbench.experiment.run import Run
from genbench.registry.loader import Registry, load
from genbench.training.distributed import DistributedContext, ShardedNetwork, process_group
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


def threads() -> list[str]:
    """The names of this process's threads, of gloo's for example."""
    return sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))


def joined(meeting: Path, rank: int, world: int, work: Callable[[DistributedContext], None]) -> None:
    """Do the work as one of several processes, of whose threads none may be left."""
    meeting.parent.mkdir(parents=True, exist_ok=True)
    where = {"init_method": f"file://{meeting}", "rank": rank, "world_size": world}
    before = threads()
    with process_group("gloo", timeout=timedelta(seconds=60), **where) as distributed:
        work(distributed)
        assert len(threads()) > len(before)
    assert threads() == before


def import_late(distributed: DistributedContext) -> None:
    """Import what keeps the group that exists at its import, as the plug-ins of a command may."""
    import_module("torch.distributed.nn.functional")
    assert distributed.all_equal(1)


def take_steps(folder: Path, dtypes: list[str], registry: Registry, distributed: DistributedContext) -> None:
    """Take the steps of every case together."""
    for dtype, (index, case) in product(dtypes, enumerate(CASES)):
        with distributed.training():
            tensors = steps_of(case, registry, folder, getattr(torch, dtype), distributed)
        if distributed.is_main_process:
            save_tensors(folder / f"{dtype}-{index}.safetensors", tensors)


def fork(work: Callable[[int], None], world: int) -> None:
    """Do the work of each rank in a process; `SystemExit` where one ends otherwise than well."""
    children = []
    for rank in range(world):
        children.append(os.fork())
        if not children[-1]:
            try:
                work(rank)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(ends):
        raise SystemExit(f"the processes ended with {ends}")


def main() -> None:
    """Fork the processes of each world, one world after another."""
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    assert "torch.distributed.nn" not in sys.modules  # or `import_late` would say nothing
    fork(lambda rank: joined(out / "late" / "meeting", rank, 2, import_late), 2)
    registry = load([DOTS])
    for argument in sys.argv[2:]:
        world, _, dtypes = argument.partition(":")
        folder, steps = out / world, partial(take_steps, out / world, dtypes.split(","), registry)
        fork(lambda rank: joined(folder / "meeting", rank, int(world), steps), int(world))  # noqa: B023


if __name__ == "__main__":
    main()
