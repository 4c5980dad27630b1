"""The network `resnet`: residual blocks with group norm, for 28, 32, 64 or 128 pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated

from torch import Tensor, nn

from genbench.api import ComponentSpec, Network, Option, Shape
from genbench.hookspecs import hookimpl
from genbench.nn import require_shape

GRID = 8
"""Halve until no side has more cells than this."""

GROUPS = 8
"""Groups of a norm, as far as they divide the channels."""


class ResNet(Network):
    """Space to depth, a convolution, then blocks x + f(x) before and after each halving; the decoder is the mirror.

    f is twice [group norm, ReLU, 3x3 convolution] (arXiv:1603.05027). Group norm (arXiv:1803.08494) and not batch norm:
    an image's code then depends neither on the rest of its batch nor on the mode, a step of several processes or of an
    ensemble is that of one, and pseudo-inputs or interpolations are not normalised by images.

    Patches of 2x2 pixels up to 32 pixels, of 4x4 above, become channels first, so that the finest grid has 14 to 32
    cells a side; a larger `width` fills a GPU. With the defaults and 16 latent dimensions, on one thread
    (`python tests/benchmarks/network_speed.py resnet`):

    ========== ========== ========
    images     parameters images/s
    ========== ========== ========
    1x28x28       136,644    1,189
    3x32x32       154,796      873
    3x64x64       165,200      711
    3x128x128     528,720      123
    ========== ========== ========
    """

    def __init__(
        self,
        shape: Shape,
        *,
        width: Annotated[
            int, Option("channels of the finest grid; doubled where it is halved", reference="ours", low=1)
        ] = 16,
        depth: Annotated[int, Option("residual blocks on each grid", reference="ours", low=1)] = 1,
    ) -> None:
        """Plan the grids: the side of a patch, the halvings, and the channels of each grid."""
        c, h, w = shape
        self.patch = 2 if max(h, w) <= 4 * GRID else 4
        halvings = max(0, math.ceil(math.log2(max(h, w) / (self.patch * GRID))))
        step = self.patch * 2**halvings
        sizes = "multiples of 2 from 8 to 16 pixels, of 4 to 32, of 8 to 64, of 16 to 128, and so on"
        fits = h % step == 0 and w % step == 0 and min(h, w) >= GRID
        require_shape("resnet", shape, fits, f"height and width must be {sizes}; 'mlp' takes any")
        self.shape, self.depth = shape, depth
        self.channels = [width * 2**stage for stage in range(halvings + 1)]
        self.grid = (self.channels[-1], h // step, w // step)
        self.pixels = c * self.patch**2

    def encoder(self, outputs: int) -> nn.Module:
        """`(n, c, h, w) -> (n, outputs)`."""
        layers = [nn.PixelUnshuffle(self.patch), _conv(self.pixels, self.channels[0]), *self._blocks(self.channels[0])]
        for finer, coarser in pairwise(self.channels):
            layers += [nn.PixelUnshuffle(2), _conv(4 * finer, coarser), *self._blocks(coarser)]
        last = nn.Linear(math.prod(self.grid), outputs)
        return nn.Sequential(*layers, *_active(self.channels[-1]), nn.Flatten(), last)

    def decoder(self, latent_dim: int) -> nn.Module:
        """`(n, latent_dim) -> (n, c, h, w)` logits."""
        layers = [nn.Linear(latent_dim, math.prod(self.grid)), nn.Unflatten(1, self.grid)]
        layers += self._blocks(self.channels[-1])
        for coarser, finer in pairwise(reversed(self.channels)):
            layers += [_conv(coarser, 4 * finer), nn.PixelShuffle(2), *self._blocks(finer)]
        last = _conv(self.channels[0], self.pixels)
        return nn.Sequential(*layers, *_active(self.channels[0]), last, nn.PixelShuffle(self.patch))

    def _blocks(self, channels: int) -> list[nn.Module]:
        return [ResidualBlock(channels) for _ in range(self.depth)]


class ResidualBlock(nn.Module):
    """x + f(x), `(n, c, h, w)` -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            *(*_active(channels), _conv(channels, channels)), *(*_active(channels), _conv(channels, channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        """x + f(x)."""
        changed: Tensor = x + self.change(x)
        return changed


def _conv(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _active(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels), nn.ReLU()


@hookimpl
def genbench_networks() -> Iterable[ComponentSpec[Network]]:
    """The component."""
    yield ComponentSpec(
        name="resnet",
        aliases=("residual",),
        description="Residual blocks for 28, 32, 64 or 128 pixels",
        factory=ResNet,
        reference="arXiv:1603.05027",
    )
