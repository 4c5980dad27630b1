"""The network `my-network`: one hidden layer each way. Change `encoder` and `decoder`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

from torch import nn

from genbench.api import ComponentSpec, Network, Option, Shape
from genbench.hookspecs import hookimpl


class MyNetwork(Network):
    """An encoder/decoder pair, the same for every model of a comparison: `--network my-network`."""

    # Keyword-only parameters are the options: `--set my-network.width=100`. For an image shape that does not fit raise
    # genbench.api.UnsupportedError: the plan is refused before anything trains.
    def __init__(
        self, shape: Shape, *, width: Annotated[int, Option("hidden units", reference="a first guess", low=1)] = 400
    ) -> None:
        """`shape` is channels, height, width. Build nothing yet."""
        self.shape = shape
        self.width = width

    def encoder(self, outputs: int) -> nn.Module:
        """A fresh module, images `(n, c, h, w)` in [0, 1] -> `(n, outputs)`; a VAE asks for 2 d outputs."""
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(self.shape), self.width),
            nn.ReLU(),
            nn.Linear(self.width, outputs),
        )

    def decoder(self, latent_dim: int) -> nn.Module:
        """A fresh module, codes `(n, d)` -> `(n, c, h, w)` logits: the model applies the sigmoid."""
        return nn.Sequential(
            nn.Linear(latent_dim, self.width),
            nn.ReLU(),
            nn.Linear(self.width, math.prod(self.shape)),
            nn.Unflatten(1, self.shape),
        )


@hookimpl
def genbench_networks() -> Iterable[ComponentSpec[Network]]:
    """The network. `reference` is the paper that it comes from."""
    yield ComponentSpec(name="my-network", description="One hidden layer each way", factory=MyNetwork, reference="")
