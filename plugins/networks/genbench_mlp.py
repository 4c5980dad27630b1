"""The network `mlp`: three hidden layers of 200 units each way."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

from torch import nn

from genbench.api import ComponentSpec, Network, Option, Shape
from genbench.hookspecs import hookimpl
from genbench.nn import mlp_layers

_SOURCE = "gmum/cwae-pytorch, for MNIST and Fashion-MNIST"


class MLP(Network):
    """Dense layers with ReLU, the same number and width in encoder and decoder."""

    def __init__(
        self,
        shape: Shape,
        *,
        width: Annotated[int, Option("units of a hidden layer", reference=_SOURCE, low=1)] = 200,
        depth: Annotated[int, Option("hidden layers each way", reference=_SOURCE, low=1)] = 3,
    ) -> None:
        """Plan the layers; any image shape fits."""
        self.shape = shape
        self.width = width
        self.depth = depth

    def encoder(self, outputs: int) -> nn.Module:
        """`(n, c, h, w) -> (n, outputs)`."""
        layers = mlp_layers(math.prod(self.shape), outputs, width=self.width, depth=self.depth)
        return nn.Sequential(nn.Flatten(), *layers)

    def decoder(self, latent_dim: int) -> nn.Module:
        """`(n, latent_dim) -> (n, c, h, w)` logits."""
        layers = mlp_layers(latent_dim, math.prod(self.shape), width=self.width, depth=self.depth)
        return nn.Sequential(*layers, nn.Unflatten(1, self.shape))


@hookimpl
def genbench_networks() -> Iterable[ComponentSpec[Network]]:
    """The component."""
    yield ComponentSpec(
        name="mlp", description="3 x 200 ReLU units each way, for any image", factory=MLP, reference="gmum/cwae-pytorch"
    )
