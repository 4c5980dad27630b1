"""The network `conv`, the default: convolutions on a coarse grid of patches, fast on a CPU."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

from torch import nn

from genbench.api import ComponentSpec, Network, Option, Shape
from genbench.hookspecs import hookimpl
from genbench.nn import mlp_layers, require_shape

_SOURCE = "ours: the best of 20 on MNIST for equal seconds"

GRID = 8
"""Halve until no side has more cells than this: there a 3x3 kernel sees much and costs little."""


class Conv(Network):
    """Space to depth, a 3x3 convolution, ReLU; twice for 64 pixels, three times for 128; then one dense layer.

    The decoder is the mirror. Rearranging 4x4 pixels into channels first makes each 3x3 kernel see 12x12 pixels at a
    sixteenth of the positions, which is fast on a CPU. Without batch norm, so that no image sees the others of its
    batch.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        width: Annotated[
            int, Option("channels of the finest grid; doubled where halved again", reference=_SOURCE, low=1)
        ] = 16,
        hidden: Annotated[int, Option("units of the dense layer next to the code", reference=_SOURCE, low=1)] = 256,
    ) -> None:
        """Plan the stages: factors by which the grid is made coarser, and their channels."""
        c, h, w = shape
        self.factors = [4] + [2] * max(0, math.ceil(math.log2(max(h, w) / (4 * GRID))))
        step = math.prod(self.factors)
        fits = h % step == 0 and w % step == 0 and min(h, w) >= 8
        sizes = "multiples of 4 from 8 to 32 pixels, of 8 to 64, of 16 to 128, and so on"
        require_shape("conv", shape, fits, f"height and width must be {sizes}; 'mlp' takes any")
        self.shape = shape
        self.channels = [c, *(width * 2**stage for stage in range(len(self.factors)))]
        self.grid = (self.channels[-1], h // step, w // step)
        self.hidden = hidden

    def encoder(self, outputs: int) -> nn.Module:
        """`(n, c, h, w) -> (n, outputs)`."""
        layers: list[nn.Module] = []
        for factor, inner, outer in zip(self.factors, self.channels[1:], self.channels, strict=False):
            layers += [nn.PixelUnshuffle(factor), nn.Conv2d(outer * factor**2, inner, 3, padding=1), nn.ReLU()]
        layers += [nn.Flatten(), *mlp_layers(math.prod(self.grid), outputs, width=self.hidden, depth=1)]
        return _he(nn.Sequential(*layers))

    def decoder(self, latent_dim: int) -> nn.Module:
        """`(n, latent_dim) -> (n, c, h, w)` logits."""
        layers = [*mlp_layers(latent_dim, math.prod(self.grid), width=self.hidden, depth=1), nn.Unflatten(1, self.grid)]
        for factor, inner, outer in reversed([*zip(self.factors, self.channels[1:], self.channels, strict=False)]):
            layers += [nn.ReLU(), nn.Conv2d(inner, outer * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
        return _he(nn.Sequential(*layers))


def _he(layers: nn.Sequential) -> nn.Sequential:
    """The layers with weights N(0, 2 / fan-in), 1 / fan-in in the last one, and biases 0 (arXiv:1502.01852).

    With torch's smaller defaults some seeds and widths stay at the mean image for an epoch.
    """
    weighted = [layer for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in weighted:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if layer is weighted[-1] else "relu")
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layers


@hookimpl
def genbench_networks() -> Iterable[ComponentSpec[Network]]:
    """The component."""
    yield ComponentSpec(
        name="conv",
        description="Small convolutions for 28, 32, 64 or 128 pixels, fast on a CPU",
        factory=Conv,
        reference="ours",
    )
