"""The network: an encoder and a decoder for one image shape."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


class Network(ABC):
    """An encoder/decoder pair for one image shape: the controlled variable, the same for every model.

    Its `make` raises `UnsupportedError` for a shape that does not fit; once made, no method raises.
    """

    shape: Shape

    @abstractmethod
    def encoder(self, outputs: int) -> nn.Module:
        """An untrained module `(n, c, h, w)` in [0, 1] -> `(n, outputs)`."""

    @abstractmethod
    def decoder(self, latent_dim: int) -> nn.Module:
        """An untrained module `(n, latent_dim)` -> `(n, c, h, w)` *logits*: the model applies the sigmoid."""
