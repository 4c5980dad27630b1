"""The model `beta-tc-vae`: VAE with a weight on the total correlation (Chen et al., arXiv:1802.04942)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, Option, Search
from genbench.hookspecs import hookimpl
from genbench.nn import GaussianDraw, LikelihoodOption, SigmaOption, VariationalAutoencoder, adam

LOG_2PI = math.log(2.0 * math.pi)


class BetaTCVAE(VariationalAutoencoder):
    r"""min E[-log p(x | z)] + MI + beta TC + DW in nats per image, where MI + TC + DW is the VAE's mean KL.

    .. math:: E_x KL(q(z | x) | p(z)) = \underbrace{E \log \frac{q(z | x)}{q(z)}}_{MI}
              + \underbrace{E \log \frac{q(z)}{\prod_j q(z_j)}}_{TC}
              + \underbrace{E \log \frac{\prod_j q(z_j)}{p(z)}}_{DW}

    (equation 2; DW is the dimension-wise KL where the prior is a product). q(z | x) is a Gaussian with diagonal
    covariance, q(z) its mean over all images. Both q(z) and q(z_j) are estimated by minibatch-weighted sampling
    (section 3.1): the sum over the batch's M images divided by N M, N being the dataset's size. N shifts MI by log N,
    TC by (d - 1) log N and DW by -d log N, constants, so that no gradient depends on N: it is left out here, and the
    estimates are those of the batch's own mixture. The loss is the VAE's, whose KL has a closed form for N(0, s^2 I),
    plus (beta - 1) TC: beta = 1 is the VAE.

    TC pulls towards independent coordinates, away from priors whose coordinates depend on one another.

    Source: arXiv:1802.04942, equation 4 with alpha = gamma = 1, and rtqichen/beta-tcvae.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        likelihood: LikelihoodOption = "bernoulli",
        sigma: SigmaOption = 0.3,
        beta: Annotated[
            float,
            Option(
                "weight of the total correlation",
                reference="rtqichen/beta-tcvae, its example",
                low=0,
                search=Search("log", 0.1, 100),
            ),
        ] = 6.0,
        rate: Annotated[
            float,
            Option("Adam's learning rate", reference="rtqichen/beta-tcvae", above=0, search=Search("log", 1e-4, 0.01)),
        ] = 1e-3,
    ) -> None:
        super().__init__(context, name="beta-tc-vae", likelihood=likelihood, sigma=sigma)
        self.beta = beta
        self.optimizer = adam(rate)

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: the VAE's + (beta - 1) TC; the prior's draws z are not needed."""
        draw = self.draw(x, noise)
        reconstruction = self.negative_log_likelihood(self.logits(draw.code), x).mean()
        divergence = self.divergence(draw).mean()
        information, correlation, dimensions = (part.mean() for part in self.decomposition(draw))
        terms = {
            "reconstruction": reconstruction.detach(),
            "kl": divergence.detach(),
            "mutual-information": information.detach(),
            "total-correlation": correlation.detach(),
            "dimension-kl": dimensions.detach(),
        }
        yield Loss("autoencoder", reconstruction + divergence + (self.beta - 1.0) * correlation, terms)

    def decomposition(self, draw: GaussianDraw) -> tuple[Tensor, Tensor, Tensor]:
        """MI, TC and DW at each draw, `(n,)` each; their sum is log q(z | x) - log p(z)."""
        log_joint, log_marginals = batch_densities(draw)
        log_product = log_marginals.sum(1)
        return draw.log_density - log_joint, log_joint - log_product, log_product - self.log_prior(draw.code)


def batch_densities(draw: GaussianDraw) -> tuple[Tensor, Tensor]:
    """log q(z) and log q(z_j) at each draw, `(n,)` and `(n, d)`, where q is the mean of the batch's n posteriors.

    All pairs are formed, `(n, n, d)`: 4 MiB for 128 images in 64 dimensions.
    """
    gap = draw.code[:, None] - draw.mean[None]  # [draw, image, dimension]
    log_pairs = -0.5 * (gap.square() * (-draw.log_variance).exp() + draw.log_variance + LOG_2PI)
    log_n = math.log(len(draw.code))
    return torch.logsumexp(log_pairs.sum(2), 1) - log_n, torch.logsumexp(log_pairs, 1) - log_n


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="beta-tc-vae",
        aliases=("beta-tcvae", "tc-vae", "tcvae"),
        family="Disentangling autoencoders",
        description="VAE, weight on total correlation",
        factory=BetaTCVAE,
        reference="arXiv:1802.04942",
    )
