"""Plug-ins that draw from torch's process-wide random state and change what else it keeps for a process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Generator, Tensor, nn

from genbench.api import Evaluation, Measurement, Metric, Model, Move, Offer, Player, Protocol, Setting
from genbench.hookspecs import hookimpl


class Drops(Model):
    """One linear layer each way, with dropout."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting, self.steps = setting, 0
        c, h, w = setting.shape
        self.inward = nn.Sequential(nn.Dropout(0.3), nn.Linear(c * h * w, setting.latent_dim))
        self.outward = nn.Linear(setting.latent_dim, c * h * w)

    def encode(self, x: Tensor) -> Tensor:
        return self.inward(x.float().flatten(1))  # type: ignore[no-any-return]

    def decode(self, z: Tensor) -> Tensor:
        return self.outward(z.float()).sigmoid().unflatten(1, self.setting.shape)

    def players(self) -> Mapping[str, Player]:
        return {"all": Player(tuple(self.parameters()), lambda p: torch.optim.SGD(p, lr=0.1))}

    def moves(self, x: Tensor, z: Tensor, generator: Generator) -> Iterator[Move]:
        self.steps += 1
        yield Move("all", self.loss(x))

    def loss(self, x: Tensor) -> Tensor:
        return (self.decode(self.encode(x)) - x).square().mean()


class Meddles(Drops):
    """Leaves torch's default dtype, its count of threads and its random state as no other run may find them."""

    def loss(self, x: Tensor) -> Tensor:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.manual_seed(self.steps)
        return super().loss(x)


class Founders(Drops):
    """Diverges at its fifth step."""

    def loss(self, x: Tensor) -> Tensor:
        return super().loss(x) * (torch.inf if self.steps == 5 else 1.0)


class Dice(Metric):
    """A draw from torch's process-wide random state, in its default dtype, and its count of threads."""

    def measure(self, evaluation: Evaluation) -> Iterable[Measurement]:
        protocol = Protocol("dice", "", "", "test", 1, 1, "none")
        yield Measurement(torch.rand(()).item(), "none", "lower", 1, protocol, part="draw")
        yield Measurement(torch.get_num_threads(), "none", "lower", 1, protocol, part="threads")


@hookimpl
def genbench_models() -> Iterable[Offer[Model]]:
    for name, make in (("drops", Drops), ("meddles", Meddles), ("founders", Founders)):
        yield Offer(name=name, about="For a test", make=make)


@hookimpl
def genbench_metrics() -> Iterable[Offer[Metric]]:
    yield Offer(name="dice", about="For a test", make=Dice)
