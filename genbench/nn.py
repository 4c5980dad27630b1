"""Building blocks of models and networks: a base class, reconstruction losses, optimizers and layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer, RMSprop

from genbench.api import Model, ModelContext, Prior, Shape
from genbench.errors import UnsupportedError

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
"""Makes an optimizer for parameters, as `OptimizerConfig` needs it."""


class ReconstructionLoss(Protocol):
    """A reconstruction loss: logits and images in [0, 1], both `(n, c, h, w)`, -> one number for each image, `(n,)`."""

    def __call__(self, logits: Tensor, x: Tensor) -> Tensor:
        """The loss of each image, `(n, c, h, w), (n, c, h, w) -> (n,)`."""


class Autoencoder(Model):
    """Base class of models with one encoder phi and one decoder psi: z = phi(x), images sigmoid(psi(z)).

    Args:
        context: Shape, latent dimension, prior and network of the model. The weights are drawn from torch's global
            random state, which the core seeds.
        outputs: Count of numbers that the encoder yields for each image; by default the latent dimension, more for a
            distribution.
    """

    def __init__(self, context: ModelContext, *, outputs: int | None = None) -> None:
        super().__init__()
        self.context = context
        self.encoder = context.network.encoder(context.latent_dim if outputs is None else outputs)
        self.decoder = context.network.decoder(context.latent_dim)

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
        """The parameters of encoder and decoder, without those that a subclass adds."""
        return (*self.encoder.parameters(), *self.decoder.parameters())


# ---------------------------------------------------------------- reconstruction losses


def squared_error(logits: Tensor, x: Tensor) -> Tensor:
    """Sum over the pixels of (sigmoid(logits) - x)^2, `(n, c, h, w), (n, c, h, w) -> (n,)`.

    Example:
        >>> squared_error(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
        tensor([1.])
    """
    return (torch.sigmoid(logits) - x).square().flatten(1).sum(1)


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Sum over the pixels of -x log y - (1 - x) log(1 - y) in nats, y = sigmoid(logits).

    Shapes `(n, c, h, w), (n, c, h, w) -> (n,)`.

    Example:
        >>> cross_entropy(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))  # log 2
        tensor([0.6931])
    """
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def bce_l1(logits: Tensor, x: Tensor) -> Tensor:
    """Mean over the pixels of cross entropy plus |sigmoid(logits) - x|, `(n, c, h, w), (n, c, h, w) -> (n,)`.

    The loss of the notebooks that accompany arXiv:1804.01947.

    Example:
        >>> bce_l1(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))  # log 2 + 1/2
        tensor([1.1931])
    """
    absolute = (torch.sigmoid(logits) - x).abs().flatten(1).mean(1)
    return cross_entropy(logits, x) / math.prod(x.shape[1:]) + absolute


COSTS: Mapping[str, ReconstructionLoss] = {"squared": squared_error, "bce-l1": bce_l1}
"""Reconstruction losses by the names that options have for them."""


# ---------------------------------------------------------------- optimizers


def adam(rate: float, betas: tuple[float, float] = (0.9, 0.999)) -> OptimizerFactory:
    """Adam (arXiv:1412.6980), fused: a step of `mlp` at batch 128 takes 7.4 ms on one core, 8.9 ms unfused.

    Args:
        rate: The learning rate.
        betas: The decay rates of the first and the second moment.

    Example:
        >>> adam(1e-3)(nn.Linear(2, 1).parameters()).param_groups[0]["lr"]
        0.001
    """

    def build(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return Adam(parameters, lr=rate, betas=betas, fused=True)

    return build


def rmsprop(rate: float, decay: float = 0.9, eps: float = 1e-7) -> OptimizerFactory:
    """RMSprop with Keras' defaults, as in the notebooks of arXiv:1804.01947.

    Args:
        rate: The learning rate.
        decay: The decay rate of the mean square.
        eps: Added to its root, outside the square root.
    """

    def build(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return RMSprop(parameters, lr=rate, alpha=decay, eps=eps)

    return build


def wae_schedule(epoch: int) -> float:
    """1, then 1/2 from epoch 30, 1/10 from 50, 1/100 from 100: the rates of arXiv:1711.01558, appendix C.

    Example:
        >>> [wae_schedule(epoch) for epoch in (0, 30, 50, 100)]
        [1.0, 0.5, 0.1, 0.01]
    """
    return 0.01 if epoch >= 100 else 0.1 if epoch >= 50 else 0.5 if epoch >= 30 else 1.0


# ---------------------------------------------------------------- networks


def missing_density(prior: Prior) -> str:
    """What a prior lacks for a density that is positive on all of R^d, as its author can add it; "" where nothing.

    Example:
        >>> from genbench.api import Prior
        >>> class Moons(Prior):
        ...     latent_dim = 2
        ...     def sample(self, n, noise):
        ...         return noise.normal(n, 2)
        >>> missing_density(Moons())
        'Moons states no log_prob; if it has a density that is positive everywhere, add it, and full_support'
    """
    name = type(prior).__name__
    if not prior.has_density:
        return f"{name} states no log_prob; if it has a density that is positive everywhere, add it, and full_support"
    if not prior.full_support:
        return f"{name} does not state full_support = True; if its density is positive everywhere, add that property"
    return ""


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


def mlp_layers(inputs: int, outputs: int, *, width: int, depth: int) -> list[nn.Module]:
    """`depth` hidden layers of `width` ReLU units and a linear one, `(n, inputs) -> (n, outputs)`.

    Example:
        >>> [type(layer).__name__ for layer in mlp_layers(4, 2, width=8, depth=1)]
        ['Linear', 'ReLU', 'Linear']
    """
    sizes = [inputs, *[width] * depth]
    hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return [*hidden, nn.Linear(width, outputs)]
