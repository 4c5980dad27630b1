"""The model: codes for images, images for codes, and a training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genbench.api.network import Network, Shape
from genbench.api.noise import Noise
from genbench.api.prior import Prior
from genbench.errors import UnsupportedError


@dataclass(frozen=True)
class ModelContext:
    """The givens of a model, the same for every model of a comparison.

    Args:
        shape: Channels, height and width of the images.
        latent_dim: The dimension d of the codes.
        prior: The distribution that the codes are meant to follow.
        network: Makes the encoder and the decoder.
    """

    shape: Shape
    latent_dim: int
    prior: Prior
    network: Network


@dataclass(frozen=True)
class Loss:
    """A loss for one optimizer.

    Args:
        optimizer: The name of the optimizer that descends it, a key of `Model.configure_optimizers()`.
        value: The scalar to descend, `()`, a mean over the batch.
        logs: Further scalars for the log by name, detached, `()` each.
    """

    optimizer: str
    value: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)


def constant_schedule(epoch: int) -> float:
    """The schedule that leaves the learning rate alone."""
    return 1.0


@dataclass(frozen=True)
class OptimizerConfig:
    """One optimizer of a model.

    Args:
        parameters: The parameters that it updates.
        optimizer: Makes the `torch.optim.Optimizer` for them.
        schedule: `schedule(epoch)` multiplies the learning rate from that epoch on; epochs count from 0.
    """

    parameters: tuple[nn.Parameter, ...]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    schedule: Callable[[int], float] = constant_schedule


class Model(nn.Module, ABC):
    """An autoencoder-type generative model: codes for images, images for codes, and a training step.

    A subclass sets `context` in its `__init__`. Its factory raises `UnsupportedError` for a context that has no meaning
    (a KL divergence from a prior without a density); afterwards no method raises: the training loop reports a loss that
    is not finite, as `DivergenceError`. `genbench.nn.Autoencoder` is a base class for models of one encoder and one
    decoder.
    """

    context: ModelContext

    @property
    def prior(self) -> Prior:
        """The distribution that samples are decoded from and that the latent fit compares codes with.

        It is the context's. A model that learns its prior (a VampPrior, a flow) overrides this property, and keeps that
        prior as a submodule under another name, so that its parameters are trained and saved.
        """
        return self.context.prior

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """The code that reconstructs x best, images in [0, 1] `(n, c, h, w)` -> `(n, d)`; no randomness."""

    def sample_codes(self, x: Tensor, noise: Noise) -> Tensor:
        """A draw from q(z | x), `(n, c, h, w) -> (n, d)`: compared with the prior.

        The same as `encode` for a deterministic encoder. The noise may be on the CPU while x is on a GPU, so that
        measurements draw the same numbers on every device: move it with `.to(x.device)`.
        """
        return self.encode(x)

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Images in [0, 1] for codes, `(n, d) -> (n, c, h, w)`; the mean of a decoder that is a distribution."""

    @property
    def has_likelihood(self) -> bool:
        """Whether `log_likelihood` is defined."""
        return type(self).log_likelihood is not Model.log_likelihood

    @property
    def likelihood_law(self) -> str:
        """The law of a pixel in p(x | z), a part of the protocol of likelihoods: laws never share a column.

        "Bernoulli", whose likelihood of grey values is no density, and "Gaussian", a density of pixels in [0, 1], are
        known to metrics; any other model names its law here, or else its likelihoods stand in a column of their own.
        """
        return f"the law of {type(self).__name__}"

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats, summed over the pixels, `(n, c, h, w), (n, d) -> (n,)`.

        Raises:
            UnsupportedError: The decoder is no distribution; `has_likelihood` says so beforehand.
        """
        raise UnsupportedError(f"the model {type(self).__name__} has no likelihood p(x | z)")

    @property
    def has_posterior(self) -> bool:
        """Whether `posterior` is defined."""
        return type(self).posterior is not Model.posterior

    def posterior(self, x: Tensor) -> Distribution:
        """q(z | x) of a stochastic encoder, images `(n, c, h, w)` -> batch shape `(n,)`, event shape `(d,)`.

        Metrics use its `log_prob`, which broadcasts: `(k, 1, d) -> (k, n)`; its draws are those of `sample_codes`.

        Raises:
            UnsupportedError: q(z | x) has no density, as that of a deterministic encoder; `has_posterior` says so
                beforehand.
        """
        raise UnsupportedError(f"the model {type(self).__name__} has no density q(z | x)")

    @abstractmethod
    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """The optimizers by name; their parameters are disjoint and together all of the model's."""

    @abstractmethod
    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One training step: yields one `Loss` for each optimizer and is resumed after that optimizer's step.

        Losses are means over the batch, so that the objective does not depend on its size. Never wait on the device
        here (no `.item()`), and never yield inside `no_grad` or `autocast`.

        Args:
            x: Images in [0, 1], `(n, c, h, w)`.
            z: Draws of `prior`, `(n, d)`.
            noise: The source of all further randomness.
        """

    def on_epoch_start(self, epoch: int) -> None:
        """Called before each epoch, counted from 0, and again after a resume; a function of `epoch` alone."""
