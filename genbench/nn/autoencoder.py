"""The base class of models with one encoder and one decoder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from genbench.api import Model, ModelContext, OptimizerConfig
from genbench.nn.optimizers import OptimizerFactory


class Autoencoder(Model):
    """Base class of models with one encoder phi and one decoder psi: z = phi(x), images sigmoid(psi(z)).

    A subclass sets `optimizer`, or overrides `configure_optimizers` where it has more than one or a schedule.

    Args:
        context: Shape, latent dimension, prior and network of the model. The weights are drawn from torch's global
            random state, which the core seeds.
        outputs: Count of numbers that the encoder yields for each image; by default the latent dimension, more for a
            distribution.
    """

    optimizer: OptimizerFactory
    """Makes the optimizer of all parameters."""

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

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """One optimizer, "autoencoder", for all parameters: those that a subclass adds too."""
        return {"autoencoder": OptimizerConfig(tuple(self.parameters()), self.optimizer)}

    def autoencoder_parameters(self) -> tuple[nn.Parameter, ...]:
        """The parameters of encoder and decoder, without those that a subclass adds."""
        return (*self.encoder.parameters(), *self.decoder.parameters())

    @cached_property
    def pairwise_scale(self) -> float:
        """The prior's E|z - z'|^2, read at the first step: under torch.device("meta") a prior has no numbers."""
        return self.prior.pairwise_scale

    @property
    def prior_variance(self) -> float:
        """The prior's mean variance over coordinates: s^2 of N(0, s^2 I)."""
        return self.pairwise_scale / (2.0 * self.context.latent_dim)
