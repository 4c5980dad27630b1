"""Plug-ins that go wrong in every way that a run must survive, and one that records what it was shown."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Generator, Tensor, nn

from genbench.api import Evaluation, Measurement, Metric, Model, Move, Offer, Player, Protocol, Setting
from genbench.hookspecs import hookimpl


class Plain(Model):
    """One linear layer each way."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        c, h, w = setting.shape
        self.inward, self.outward = nn.Linear(c * h * w, setting.latent_dim), nn.Linear(setting.latent_dim, c * h * w)

    def encode(self, x: Tensor) -> Tensor:
        return self.inward(x.flatten(1))

    def decode(self, z: Tensor) -> Tensor:
        return self.outward(z).sigmoid().unflatten(1, self.setting.shape)

    def players(self) -> Mapping[str, Player]:
        return {"all": Player(tuple(self.parameters()), lambda p: torch.optim.SGD(p, lr=0.1))}

    def moves(self, x: Tensor, z: Tensor, generator: Generator) -> Iterator[Move]:
        yield Move("all", self.loss(x, z))

    def loss(self, x: Tensor, z: Tensor) -> Tensor:
        return (self.decode(self.encode(x)) - x).square().mean()


class Explodes(Plain):
    def loss(self, x: Tensor, z: Tensor) -> Tensor:
        return super().loss(x, z) / 0.0


class Raises(Plain):
    def loss(self, x: Tensor, z: Tensor) -> Tensor:
        raise ZeroDivisionError("a plug-in's\nown fault")


class Blind(Plain):
    """Learns as it should and then shows nothing: a decoder of NaN."""

    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z) if self.training else super().decode(z) * torch.nan


class Hungry(Plain):
    def loss(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.empty(2**50, 2**8).sum()


class Vandal(Plain):
    def loss(self, x: Tensor, z: Tensor) -> Tensor:
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)
        torch.set_default_dtype(torch.float64)
        return super().loss(x, z)


class Recorder(Plain):
    """Its weights are a fingerprint of the images and draws that it was shown, in their order."""

    def loss(self, x: Tensor, z: Tensor) -> Tensor:
        with torch.no_grad():
            self.outward.bias.mul_(0.9).add_(x.mean(0).flatten() + z.sum() / 100)
        return super().loss(x, z)


class Broken(Metric):
    def measure(self, evaluation: Evaluation) -> Iterable[Measurement]:
        raise KeyError("missing")


class NotANumber(Metric):
    def measure(self, evaluation: Evaluation) -> Iterable[Measurement]:
        protocol = Protocol("none", "", "", "test", 1, 1, "none")
        yield Measurement(float("nan"), "none", "lower", 1, protocol)


class Mute(Metric):
    def measure(self, evaluation: Evaluation) -> Iterable[Measurement]:
        return ()


class Twice(Metric):
    def measure(self, evaluation: Evaluation) -> Iterable[Measurement]:
        number = Measurement(1.0, "none", "lower", 1, Protocol("none", "", "", "test", 1, 1, "none"))
        yield number
        yield number


class Uncountable(Metric):
    """Its n would have made metrics.json unreadable."""

    def measure(self, evaluation: Evaluation) -> Iterable[Measurement]:
        yield Measurement(1.0, "none", "lower", -1, Protocol("none", "", "", "test", 1, 1, "none"))


@hookimpl
def genbench_models() -> Iterable[Offer[Model]]:
    kinds = {"explodes": Explodes, "raises": Raises, "hungry": Hungry, "blind": Blind, "vandal": Vandal}
    for name, kind in {**kinds, "recorder-a": Recorder, "recorder-b": Recorder}.items():
        yield Offer(name=name, about="For tests", make=kind)


@hookimpl
def genbench_metrics() -> Iterable[Offer[Metric]]:
    yield Offer(name="broken-metric", about="Raises", make=Broken)
    yield Offer(name="not-a-number", about="NaN", make=NotANumber)
    yield Offer(name="mute", about="Yields nothing", make=Mute)
    yield Offer(name="twice", about="Yields one part twice", make=Twice)
    yield Offer(name="uncountable", about="A negative n", make=Uncountable)
