"""One training step: all that is done with one batch, behind a small protocol; `genbench.capture` has the other one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from genbench.api import Model, Player, Prior
from genbench.images import to_float
from genbench.random import generator
from genbench.ranks import Ranks

Sums = dict[str, Tensor]
"""Terms by name, each a scalar on the device, summed over steps."""


@dataclass(frozen=True)
class Parts:
    """What a training is made of: `images` is `(n, c, h, w)` uint8 on the model's device, `batch` a step's share."""

    model: Model
    prior: Prior
    images: Tensor
    batch: int
    seed: int
    players: Mapping[str, Player]
    optimisers: Mapping[str, Optimizer]
    base_rates: Mapping[str, tuple[float, ...]]
    ranks: Ranks

    @property
    def device(self) -> torch.device:
        """Where all of it is."""
        return self.images.device

    def begin_epoch(self, epoch: int) -> None:
        """Tell the model, and set every player's learning rates."""
        self.model.begin_epoch(epoch)
        for name, player in self.players.items():
            factor = player.schedule(epoch)
            for group, rate in zip(self.optimisers[name].param_groups, self.base_rates[name], strict=True):
                group["lr"] = rate * factor


def gather_parts(
    model: Model, prior: Prior, images: Tensor, batch: int, seed: int, ranks: Ranks | None = None
) -> Parts:
    """The parts of a training, with fresh optimisers; on a GPU they are such that a CUDA graph can hold their steps."""
    players = model.players()
    optimisers = {name: player.optimiser(player.parameters) for name, player in players.items()}
    if images.device.type == "cuda":
        for optimiser in optimisers.values():
            for group in optimiser.param_groups:
                if "capturable" in group:  # its count of steps is then a tensor on the device
                    group["capturable"] = True
    rates = {name: tuple(group["lr"] for group in o.param_groups) for name, o in optimisers.items()}
    return Parts(model, prior, images, batch, seed, players, optimisers, rates, ranks or Ranks())


RELUCTANT = "eager: "
"""How `Step.how` begins where a GPU has to do without a graph; the reason follows."""


class Step(Protocol):
    """Does whole steps of a training, one after another."""

    @property
    def how(self) -> str:
        """How steps are done: "eager", "graph", or `RELUCTANT` and why no graph could be had."""

    @property
    def most_threads(self) -> int:
        """The most threads of a CPU among which the step chooses by measuring; 0 where it does not."""

    @property
    def usual_threads(self) -> int:
        """The count of threads that it chose for most steps; 0 where it does not choose."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first step of an epoch, and again where a run resumes."""

    def do(self, step: int, indices: Tensor) -> None:
        """Do step number `step` on the images `indices`, `(batch,)` int64 on the device, without a wait on it."""

    def take(self) -> Sums:
        """The terms summed since the last call, which starts them anew."""


StepOf = Callable[[Parts], Step]


def do_batch(parts: Parts, indices: Tensor, prior_noise: Generator, model_noise: Generator, sums: Sums) -> None:
    """All that is done with one batch: gather, draw, play every move with its optimiser step, sum the terms.

    This is the one place of batch-level work. It reads nothing that a recording could not hold fast: no step number, no
    clock. Of several processes each comes here with the whole batch: `genbench.ranks` divides what the halves do.
    """
    x = to_float(parts.images.index_select(0, indices))
    z = parts.prior.sample_batch(parts.batch, prior_noise)
    with parts.ranks.training():
        for move in parts.model.moves(x, z, model_noise):
            player, optimiser = parts.players[move.player], parts.optimisers[move.player]
            optimiser.zero_grad(set_to_none=True)
            move.loss.backward(inputs=player.parameters)
            parts.ranks.reduce(player.parameters)
            optimiser.step()
            add_terms(sums, {move.player: move.loss, **move.terms})


def add_terms(sums: Sums, terms: Mapping[str, Tensor]) -> None:
    """Add each term to its sum, in place, so that a recording adds to the same memory at every replay."""
    for name, value in terms.items():
        if name in sums:
            sums[name].add_(value.detach())
        else:
            sums[name] = value.detach().clone()


class EagerStep:
    """Every operation launched anew: on a CPU there is nothing to save by a recording."""

    how = "eager"
    most_threads = usual_threads = 0

    def __init__(self, parts: Parts) -> None:
        """For some parts."""
        self.parts = parts
        self.sums: Sums = {}

    def begin_epoch(self, epoch: int) -> None:
        """Pass it on."""
        self.parts.begin_epoch(epoch)

    def do(self, step: int, indices: Tensor) -> None:
        """One step with generators of its own."""
        parts = self.parts
        first, second = (generator(parts.device, parts.seed, purpose, step) for purpose in PURPOSES)
        do_batch(parts, indices, first, second, self.sums)

    def take(self) -> Sums:
        """The sums; terms that a later step does not have are not in the later sums."""
        taken, self.sums = self.sums, {}
        return taken


PURPOSES = ("prior", "model")
"""Of a step's two generators: the prior's draws, and the model's own noise."""
