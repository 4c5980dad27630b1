"""The network: an encoder and a decoder for one image shape."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


class Network(ABC):
    """Makes encoders and decoders for one image shape: the controlled variable, the same for every model.

    Its factory raises `UnsupportedError` for a shape that does not fit; afterwards no method raises.
    """

    shape: Shape

    @abstractmethod
    def encoder(self, outputs: int) -> nn.Module:
        """An untrained module, images in [0, 1] `(n, c, h, w)` -> `(n, outputs)`."""

    @abstractmethod
    def decoder(self, latent_dim: int) -> nn.Module:
        """An untrained module, codes `(n, latent_dim)` -> `(n, c, h, w)` *logits*: the model applies the sigmoid."""
