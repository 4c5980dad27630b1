"""The model: codes for images, images for codes, and a training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from genbench.api.network import Network, Shape
from genbench.api.prior import Prior


@dataclass(frozen=True)
class ModelContext:
    """What a model is built for, the same for every model of a comparison.

    `shape` is the images', `latent_dim` the d of the codes, `prior` what they are meant to follow, `network` what makes
    encoder and decoder.
    """

    shape: Shape
    latent_dim: int
    prior: Prior
    network: Network


@dataclass(frozen=True)
class Loss:
    """One player's loss, a scalar to descend, and detached scalar terms for the log."""

    player: str
    loss: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


def constant_schedule(epoch: int) -> float:
    """The schedule that leaves the learning rate alone."""
    return 1.0


@dataclass(frozen=True)
class OptimizerConfig:
    """The `parameters` that one `optimizer` owns; `schedule(epoch)` multiplies its learning rate from that epoch on."""

    parameters: tuple[nn.Parameter, ...]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    schedule: Callable[[int], float] = constant_schedule


class Model(nn.Module, ABC):
    """An autoencoder-type generative model: codes for images, images for codes, and an objective as moves.

    Its `make` raises `UnsupportedError` for a setting that has no meaning (a KL divergence from a prior without a density); once
    made, no method raises: a loss that is not finite is the training loop's to tell, as `DivergenceError`.
    """

    setting: ModelContext

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """The point code that reconstructs x, `(n, c, h, w)` in [0, 1] -> `(n, d)`; no randomness."""

    def sample_codes(self, x: Tensor, generator: Generator) -> Tensor:
        """A draw from q(z | x), `(n, c, h, w) -> (n, d)`: what the prior is compared with.

        The same as `encode` for a deterministic encoder.
        """
        return self.encode(x)

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Images in [0, 1] for codes, `(n, d) -> (n, c, h, w)`; the mean where the decoder is a distribution."""

    @abstractmethod
    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """The optimisers by name; their parameters are disjoint and together all of the model's."""

    @abstractmethod
    def training_step(self, x: Tensor, z: Tensor, generator: Generator) -> Iterator[Loss]:
        """One training step: yields a player's loss and is resumed after that player's optimiser step.

        x: `(n, c, h, w)` images in [0, 1]; z: `(n, d)` draws of the prior; any further noise comes from `generator`.
        Losses are means over the batch, so that the objective does not depend on its size. Never wait on the device
        here (no `.item()`), and never yield inside `no_grad` or `autocast`.
        """

    def on_epoch_start(self, epoch: int) -> None:
        """Called before each epoch, counted from 0, and again where a run resumes; a function of `epoch` alone."""
