"""The model `ae`: an autoencoder without a regulariser, the control of every comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from torch import Generator, Tensor

from genbench.api import Model, Move, Offer, Option, Player, Setting
from genbench.hookspecs import hookimpl
from genbench.networks import Autoencoder, adam, squared_error


class AE(Autoencoder):
    """min E |x - psi(phi(x))|^2; what the codes follow is left open, so that samples show what a prior is worth."""

    def __init__(
        self,
        setting: Setting,
        *,
        rate: Annotated[float, Option("Adam's learning rate", source="gmum/cwae-pytorch", above=0)] = 1e-3,
    ) -> None:
        """Build the autoencoder."""
        super().__init__(setting)
        self.rate = rate

    def players(self) -> Mapping[str, Player]:
        """One optimiser for everything."""
        return {"autoencoder": Player(self.halves(), adam(self.rate))}

    def moves(self, x: Tensor, z: Tensor, generator: Generator) -> Iterator[Move]:
        """One move: the mean over the batch of the summed squared errors."""
        fit = squared_error(self.logits(self.encode(x)), x).mean()
        yield Move("autoencoder", fit, {"reconstruction": fit.detach()})


@hookimpl
def genbench_models() -> Iterable[Offer[Model]]:
    """Offer the model."""
    source = "doi:10.1126/science.1127647"
    yield Offer(name="ae", about="Autoencoder without a regulariser: the control", make=AE, source=source)
