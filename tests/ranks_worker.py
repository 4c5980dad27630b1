"""One of several processes that take training steps together: python ranks_worker.py RANK WORLD MEETING OUT DTYPE.

MEETING is a file by which they find each other; the leader writes what `steps_of` returns for each case to OUT.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from genbench.api import Place
from genbench.files import save_tensors
from genbench.plan import Grid, plan
from genbench.plugins import Catalogue, load
from genbench.random import generator
from genbench.ranks import Divided, Ranks
from genbench.runs import Run, make_model, make_prior

DOTS = Path(__file__).parent / "plugins" / "dots.py"
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


def run_of(case: Case, catalogue: Catalogue, folder: Path) -> Run:
    """A run of the case on the tiny dataset."""
    grid = Grid(
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
    return plan(grid, catalogue, Place(folder, folder)).runs[0]


def steps_of(
    case: Case, catalogue: Catalogue, folder: Path, dtype: torch.dtype, ranks: Ranks | None
) -> dict[str, Tensor]:
    """Gradients of the first step's moves, and all weights and buffers after three steps."""
    run = run_of(case, catalogue, folder)
    size = 12 if case.network == "normed" else 28
    torch.manual_seed(0)
    wrap = None if ranks is None else partial(Divided, ranks=ranks)
    model = make_model(catalogue, run, (1, size, size), wrap).to(dtype).train()
    prior, found = make_prior(catalogue, run), {}
    players = model.players()
    optimisers = {name: torch.optim.SGD(player.parameters, lr=1e-3) for name, player in players.items()}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for step in range(3):
        x = torch.rand(BATCH, 1, size, size, generator=generator("cpu", 0, "x", step)).to(dtype)
        z = prior.sample_batch(BATCH, generator("cpu", 0, "prior", step)).to(dtype)
        for move in model.moves(x, z, generator("cpu", 0, "model", step)):
            optimisers[move.player].zero_grad(set_to_none=True)
            move.loss.backward(inputs=players[move.player].parameters)
            if ranks is not None:
                ranks.reduce(players[move.player].parameters)
            if step == 0:
                found[f"{move.player}.loss"] = move.loss.detach().clone()
                for parameter in players[move.player].parameters:
                    if parameter.grad is not None:
                        found[f"{move.player}.{names[parameter]}"] = parameter.grad.clone()
            optimisers[move.player].step()
    return {**found, **{f"after.{name}": value.clone() for name, value in model.state_dict().items()}}


def main() -> None:
    """Take the steps of every case together."""
    rank, world, meeting, out, dtype = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6]
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    catalogue, ranks, folder = load([DOTS]), Ranks(rank, world), Path(out)
    for index, case in enumerate(CASES):
        with ranks.training():
            found = steps_of(case, catalogue, folder, getattr(torch, dtype), ranks)
        if ranks.leads:
            save_tensors(folder / f"{index}.safetensors", found)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
