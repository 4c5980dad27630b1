"""The model `dip-vae`: disentangled inferred prior, I and II (Kumar et al., arXiv:1711.00848)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, Option, Search
from genbench.hookspecs import hookimpl
from genbench.nn import GaussianDraw, LikelihoodOption, SigmaOption, VariationalAutoencoder, adam


class DIPVAE(VariationalAutoencoder):
    r"""min E[-log p(x | z)] + KL(q(z | x) | p(z)) + R in nats per image, with images x and codes z.

    .. math:: R = \lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - s^2)^2

    C is the batch's covariance of the encoder's means mu(x) for `variant` i, that plus the mean of the
    encoder's variances, which is the covariance of q(z), for ii. s^2 is the prior's mean variance; the
    paper's prior is N(0, I), with 1. Both covariances are means over the batch, divided by n and not by n - 1. Both
    lambdas 0 is the VAE.

    Off the diagonal C tends to 0 whatever the prior: all bundled priors have uncorrelated coordinates.

    Source: arXiv:1711.00848.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        likelihood: LikelihoodOption = "bernoulli",
        sigma: SigmaOption = 0.3,
        variant: Annotated[
            Literal["i", "ii"],
            Option("covariance of the encoder's means, or of its draws", reference="arXiv:1711.00848"),
        ] = "i",
        off_diagonal: Annotated[
            float,
            Option(
                "lambda_od, before squared covariances",
                reference="disentanglement_lib: 1 to 50",
                low=0,
                search=Search("log", 0.1, 1000),
            ),
        ] = 10.0,
        diagonal: Annotated[
            float,
            Option(
                "lambda_d, before squared errors of variances",
                reference="disentanglement_lib: 10 lambda_od; variant ii: 1 lambda_od",
                low=0,
                search=Search("log", 1, 10000),
            ),
        ] = 100.0,
        rate: Annotated[
            float,
            Option("Adam's learning rate", reference="ours: that of vae", above=0, search=Search("log", 1e-4, 0.01)),
        ] = 1e-3,
    ) -> None:
        super().__init__(context, name="dip-vae", likelihood=likelihood, sigma=sigma)
        self.variant = variant
        self.off_diagonal = off_diagonal
        self.diagonal = diagonal
        self.optimizer = adam(rate)

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: the VAE's + R; the prior's draws z are not needed."""
        draw = self.draw(x, noise)
        reconstruction = self.negative_log_likelihood(self.logits(draw.code), x).mean()
        divergence = self.divergence(draw).mean()
        penalty = self.penalty(draw)
        terms = {"reconstruction": reconstruction.detach(), "kl": divergence.detach(), "covariance": penalty.detach()}
        yield Loss("autoencoder", reconstruction + divergence + penalty, terms)

    def penalty(self, draw: GaussianDraw) -> Tensor:
        """R of a batch, `()`; of the encoder's means and variances, not of the noise."""
        deviation = draw.mean - draw.mean.mean(0)
        covariance = deviation.T @ deviation / len(deviation)
        if self.variant == "ii":
            covariance = covariance + torch.diag(draw.log_variance.exp().mean(0))
        variances = covariance.diagonal()
        apart = covariance.square().sum() - variances.square().sum()
        return self.off_diagonal * apart + self.diagonal * (variances - self.prior_variance).square().sum()


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="dip-vae",
        aliases=("dipvae", "dip-vae-i", "dip-vae-ii"),
        family="Disentangling autoencoders",
        description="VAE, penalty on the codes' covariance",
        factory=DIPVAE,
        reference="arXiv:1711.00848",
    )
