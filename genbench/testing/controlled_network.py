"""A network whose codes the kit controls: pixels of an image hold its code, and an offset shifts all codes alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from genbench.api import Network, Shape

SPAN = 40.0
"""Codes in [-20, 20] for pixels in [0, 1]."""


@dataclass
class Offset:
    """A number added to every code; shared by all encoders of a `ControlledNetwork`."""

    value: float = 0.0


class Encoder(nn.Module):
    """Reads the first `outputs` pixels; the gain, a parameter that starts at 1, lets gradients arrive."""

    def __init__(self, outputs: int, latent_dim: int, offset: Offset) -> None:
        """`latent_dim` leading outputs are shifted by the offset; what follows (log variances) is not."""
        super().__init__()
        self.outputs, self.latent_dim, self.offset = outputs, latent_dim, offset
        self.gain = nn.Parameter(torch.ones(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w) -> (n, outputs)`."""
        raw = SPAN * (x.flatten(1)[:, : self.outputs] - 0.5)
        shift = torch.zeros(self.outputs, device=x.device)
        shift[: self.latent_dim] = self.offset.value
        code: Tensor = self.gain * (raw + shift)
        return code


class Decoder(nn.Module):
    """Grey images, whatever the code: a reconstruction cost that the code's offset cannot change."""

    def __init__(self, latent_dim: int, shape: Shape) -> None:
        super().__init__()
        self.linear = nn.Linear(latent_dim, math.prod(shape))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.shape = shape

    def forward(self, z: Tensor) -> Tensor:
        """`(n, d) -> (n, c, h, w)` logits."""
        logits: Tensor = self.linear(z)
        return logits.view(-1, *self.shape)


@dataclass
class ControlledNetwork(Network):
    """The network; `offset.value` shifts the codes of every encoder it made."""

    shape: Shape
    latent_dim: int
    offset: Offset = field(default_factory=Offset)

    def encoder(self, outputs: int) -> nn.Module:
        """See `Encoder`."""
        return Encoder(outputs, self.latent_dim, self.offset)

    def decoder(self, latent_dim: int) -> nn.Module:
        """See `Decoder`."""
        return Decoder(latent_dim, self.shape)


def images(codes: Tensor, shape: Shape) -> Tensor:
    """Images in [0, 1] that hold the codes, `(n, d) -> (n, c, h, w)`; every other pixel is 1/2, which reads as 0."""
    x: Tensor = torch.full((len(codes), math.prod(shape)), 0.5)
    x[:, : codes.shape[1]] = (codes / SPAN + 0.5).clamp(0.0, 1.0)
    image: Tensor = x.unflatten(1, shape)
    return image
