"""Layers of networks, and the refusal of image shapes."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from genbench.api import Shape
from genbench.errors import UnsupportedError


def require_shape(network: str, shape: Shape, fits: bool, accepted: str) -> None:
    """Refuse an image shape that a network cannot do.

    Args:
        network: The network's name.
        shape: Channels, height and width.
        fits: Whether the network can do that shape.
        accepted: The shapes that it can do, in words for the message.

    Raises:
        UnsupportedError: `fits` is false.
    """
    if not fits:
        c, h, w = shape
        raise UnsupportedError(
            f"the network '{network}' cannot do images of {c} x {h} x {w} (channels x height x width): {accepted}"
        )


def mlp_layers(inputs: int, outputs: int, *, width: int, depth: int, slope: float = 0.0) -> list[nn.Module]:
    """`depth` hidden layers of `width` ReLU units and a linear one, `(n, inputs) -> (n, outputs)`.

    Units are leaky where `slope`, their derivative below zero, is positive.

    Example:
        >>> [type(layer).__name__ for layer in mlp_layers(4, 2, width=8, depth=1)]
        ['Linear', 'ReLU', 'Linear']
    """
    sizes = [inputs, *[width] * depth]
    hidden: list[nn.Module] = []
    for pair in pairwise(sizes):
        hidden += [nn.Linear(*pair), nn.LeakyReLU(slope) if slope else nn.ReLU()]
    return [*hidden, nn.Linear(width, outputs)]
