"""For tests of executors: models that take their time, never end a step, or take their process with them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from genbench.api import Model, Move, Offer, Option, Player, Setting
from genbench.hookspecs import hookimpl


class Sleeper(Model):
    """One linear layer each way, and a pause in every step that a worker takes; the test's own process hurries."""

    def __init__(self, setting: Setting, *, pause: Annotated[float, Option("seconds a step", low=0.0)] = 0.1) -> None:
        super().__init__()
        self.setting, self.pause = setting, pause
        c, h, w = setting.shape
        self.inward, self.outward = nn.Linear(c * h * w, setting.latent_dim), nn.Linear(setting.latent_dim, c * h * w)

    def encode(self, x: Tensor) -> Tensor:
        return self.inward(x.flatten(1))

    def decode(self, z: Tensor) -> Tensor:
        return self.outward(z).sigmoid().unflatten(1, self.setting.shape)

    def players(self) -> Mapping[str, Player]:
        return {"all": Player(tuple(self.parameters()), lambda p: torch.optim.SGD(p, lr=0.1))}

    def moves(self, x: Tensor, z: Tensor, generator: Generator) -> Iterator[Move]:
        self.dawdle()
        yield Move("all", (self.decode(self.encode(x)) - x).square().mean())

    def dawdle(self) -> None:
        if multiprocessing.parent_process() or threading.current_thread() is not threading.main_thread():
            time.sleep(self.pause)


class Stuck(Sleeper):
    def dawdle(self) -> None:
        time.sleep(3600)


class Doomed(Sleeper):
    def dawdle(self) -> None:
        print("these are its last words")
        os.kill(os.getpid(), signal.SIGKILL)


@hookimpl
def genbench_models() -> Iterable[Offer[Model]]:
    for name, make in (("sleeper", Sleeper), ("stuck", Stuck), ("doomed", Doomed)):
        yield Offer(name=name, about="For a test", make=make)
