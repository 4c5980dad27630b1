"""The model `vae`: variational autoencoder with a diagonal Gaussian encoder (Kingma and Welling, arXiv:1312.6114)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, Option, Search
from genbench.distances import gaussian_kl
from genbench.errors import UnsupportedError
from genbench.hookspecs import hookimpl
from genbench.nn import GaussianDraw, LikelihoodOption, SigmaOption, VariationalAutoencoder, adam


class VAE(VariationalAutoencoder):
    r"""min E[-log p(x | z)] + beta KL(q(z | x) | p(z)) in nats per image, with images x and codes z.

    q(z | x) is a Gaussian with diagonal covariance; each image has one draw z = mean + sd * noise. The KL has a closed
    form for a prior N(0, s^2 I); for other priors with a density on all of R^d it is the estimate
    log q(z | x) - log p(z) at the same draw; others are refused. beta other than 1 is the beta-VAE (Higgins et al.,
    ICLR 2017, equation 4); with `warmup` it grows linearly from 0 in the first epoch to its value in epoch `warmup`,
    counted from 0 (arXiv:1602.02282).

    With `free_bits` = l above 0 the KL is replaced by the sum over dimensions j of

    .. math:: \max\big(l,\ E_x\, KL(q(z_j | x) | p(z_j))\big)

    (arXiv:1606.04934, equation 15), the mean over the batch; each dimension is a group there, and the prior must be
    N(0, s^2 I), whose KL is a sum over dimensions.

    Source: arXiv:1312.6114, equation 7.
    """

    strength: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        likelihood: LikelihoodOption = "bernoulli",
        sigma: SigmaOption = 0.3,
        beta: Annotated[
            float, Option("weight of the KL", reference="arXiv:1312.6114", low=0, search=Search("log", 0.1, 10))
        ] = 1.0,
        warmup: Annotated[
            int, Option("epochs in which the KL's weight grows from 0", reference="off; arXiv:1602.02282: 200", low=0)
        ] = 0,
        free_bits: Annotated[
            float, Option("nats of KL that each dimension has free", reference="off; arXiv:1606.04934", low=0)
        ] = 0.0,
        rate: Annotated[
            float,
            Option("Adam's learning rate", reference="gmum/cwae-pytorch", above=0, search=Search("log", 1e-4, 0.01)),
        ] = 1e-3,
    ) -> None:
        if free_bits > 0 and context.prior.normal_sigma is None:
            raise UnsupportedError(
                f"the vae's free-bits need a prior N(0, s^2 I), whose KL is a sum over dimensions; "
                f"{type(context.prior).__name__} is another: take the prior normal, or leave free-bits at 0"
            )
        super().__init__(context, name="vae", likelihood=likelihood, sigma=sigma)
        self.beta = beta
        self.warmup = warmup
        self.free_bits = free_bits
        self.optimizer = adam(rate)
        # A tensor, not a number: a step that was captured as a CUDA graph sees its new value.
        self.register_buffer("strength", torch.full((), 0.0 if warmup else float(beta)), persistent=False)

    def on_epoch_start(self, epoch: int) -> None:
        """Set the KL's weight of this epoch."""
        self.strength.fill_(self.beta * (min(1.0, epoch / self.warmup) if self.warmup else 1.0))

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: the negative evidence lower bound; the prior's draws z are not needed."""
        draw = self.draw(x, noise)
        reconstruction = self.negative_log_likelihood(self.logits(draw.code), x).mean()
        divergence = self.divergence(draw).mean()
        penalty = self.free(draw) if self.free_bits > 0 else divergence
        terms = {"reconstruction": reconstruction.detach(), "kl": divergence.detach()}
        yield Loss("autoencoder", reconstruction + self.strength * penalty, terms)

    def free(self, draw: GaussianDraw) -> Tensor:
        """The sum over dimensions of their mean KL, or of `free_bits` where that is more, `()`."""
        sigma = self.prior.normal_sigma
        assert sigma is not None  # __init__ refuses other priors
        each = gaussian_kl(draw.mean.reshape(-1, 1), draw.log_variance.reshape(-1, 1), sigma).view_as(draw.mean)
        return each.mean(0).clamp(min=self.free_bits).sum()


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="vae",
        aliases=("beta-vae", "variational"),
        family="Variational autoencoders",
        description="Variational autoencoder; beta, free bits",
        factory=VAE,
        reference="arXiv:1312.6114",
    )
