"""The model `iwae`: importance weighted autoencoder (Burda, Grosse and Salakhutdinov, arXiv:1509.00519)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, Option, Search
from genbench.hookspecs import hookimpl
from genbench.nn import LikelihoodOption, SigmaOption, VariationalAutoencoder, adam


class IWAE(VariationalAutoencoder):
    r"""max L_k, a bound on log p(x) in nats per image that rises with the count k of draws z_i of q(z | x).

    .. math:: L_k(x) = E \log \frac1k \sum_{i=1}^k w_i, \qquad w_i = \frac{p(x | z_i)\, p(z_i)}{q(z_i | x)}

    q(z | x) is a Gaussian with diagonal covariance. L_1 is the VAE's bound with log q(z | x) - log p(z) at the draw in
    place of the KL: the same in expectation, also where the prior is N(0, s^2 I) and the VAE takes the closed form. The
    gradient is that of the estimate of L_k (equation 14). The decoder sees k codes for each image, which is most of a
    step's cost.

    Source: arXiv:1509.00519, equation 8. Left out is its schedule of the rate, 1e-3 10^(-i/7) for 3^i epochs, i = 0..7.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        likelihood: LikelihoodOption = "bernoulli",
        sigma: SigmaOption = 0.3,
        samples: Annotated[
            int, Option("k, draws for each image", reference="arXiv:1509.00519, section 5: 1, 5 and 50", low=1)
        ] = 5,
        rate: Annotated[
            float,
            Option(
                "Adam's learning rate",
                reference="arXiv:1509.00519, section 5: its first",
                above=0,
                search=Search("log", 1e-4, 0.01),
            ),
        ] = 1e-3,
    ) -> None:
        super().__init__(context, name="iwae", likelihood=likelihood, sigma=sigma)
        self.samples = samples
        self.optimizer = adam(rate)

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: minus the bound; the logged terms are means over images and draws."""
        draw = self.draw(x, noise, self.samples)
        images = x.repeat(self.samples, 1, 1, 1) if self.samples > 1 else x
        reconstruction = self.negative_log_likelihood(self.logits(draw.code), images)
        divergence = draw.log_density - self.log_prior(draw.code)
        log_weights = -(reconstruction + divergence).view(self.samples, len(x))
        bound = torch.logsumexp(log_weights, 0) - math.log(self.samples)
        terms = {"reconstruction": reconstruction.mean().detach(), "kl": divergence.mean().detach()}
        yield Loss("autoencoder", -bound.mean(), terms)


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="iwae",
        aliases=("iwvae", "importance-weighted"),
        family="Variational autoencoders",
        description="Importance-weighted autoencoder, tighter bound",
        factory=IWAE,
        reference="arXiv:1509.00519",
    )
