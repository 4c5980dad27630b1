"""The model `vamp-vae`: VAE with a mixture of posteriors for prior (Tomczak and Welling, arXiv:1705.07120)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import torch
from torch import Tensor, nn

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, Option, Prior, Search
from genbench.hookspecs import hookimpl
from genbench.nn import (
    GaussianComponents,
    GaussianMixture,
    LikelihoodOption,
    SigmaOption,
    VariationalAutoencoder,
    adam,
    require_unset_prior,
)

_CODE = "jmtomczak/vae_vampprior"


class VampPrior(GaussianMixture):
    r"""The mean of q(z | u_k) over K pseudo-inputs u_k, which are parameters.

    .. math:: p(z) = \frac{1}{K} \sum_k q(z \mid u_k)

    `encode` is the model's: images to means and log variances.

    Source: arXiv:1705.07120, equation 9.
    """

    def __init__(
        self, pseudo_inputs: Tensor, latent_dim: int, encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> None:
        super().__init__()
        self.latent_dim, self.encode = latent_dim, encode
        self.pseudo_inputs = nn.Parameter(pseudo_inputs)

    def components(self) -> GaussianComponents:
        """q(z | u_k) of the pseudo-inputs, cut to [0, 1], with weights 1 / K."""
        means, log_variances = self.encode(self.pseudo_inputs.clamp(0.0, 1.0))
        return GaussianComponents(means, log_variances, means.new_full((len(means),), -math.log(len(means))))

    @torch.no_grad()
    def sample_batch(self, n: int, noise: Noise) -> Tensor:
        """Draws for which the chosen pseudo-inputs alone are encoded, `(n, d)`: a step has fewer of them than K."""
        chosen = noise.integers(len(self.pseudo_inputs), n).to(self.pseudo_inputs.device)
        means, log_variances = self.encode(self.pseudo_inputs[chosen].clamp(0.0, 1.0))
        return means + (0.5 * log_variances).exp() * noise.normal(*means.shape).to(means.device)

    @torch.no_grad()
    def frozen(self) -> Prior:
        """The mixture itself, for which no pseudo-input is encoded any more."""
        return FrozenVampPrior(self.components())


class FrozenVampPrior(GaussianMixture):
    """The VampPrior of a trained model: K Gaussians that do not change."""

    def __init__(self, mixture: GaussianComponents) -> None:
        super().__init__()
        self.latent_dim, self.pseudo_inputs = mixture.means.shape[1], len(mixture.means)
        self.means = nn.Parameter(mixture.means, requires_grad=False)
        self.log_variances = nn.Parameter(mixture.log_variances, requires_grad=False)
        self.log_weights = nn.Parameter(mixture.log_weights, requires_grad=False)

    def components(self) -> GaussianComponents:
        """The Gaussians."""
        return GaussianComponents(self.means, self.log_variances, self.log_weights)


class VampVAE(VariationalAutoencoder):
    """min E[-log p(x | z)] + KL(q(z | x) | p(z)), p(z) the mean of q(z | u_k) over trained pseudo-inputs u_k.

    As in `vae`, with the estimate log q(z | x) - log p(z) of the KL. Pseudo-inputs are images, kept within [0, 1] and
    started from N(0.05, 0.01^2) as in the authors' code; a network with batch norm sees them as a batch apart. A step
    encodes them all: with the default network, batches of 128 and 28x28 pixels it takes four times that of `vae` on a
    CPU, and 1.8 times with 100 pseudo-inputs.

    Source: arXiv:1705.07120, equation 9, with one layer of latent variables. Left out is the code's warm-up of
    the KL.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        likelihood: LikelihoodOption = "bernoulli",
        sigma: SigmaOption = 0.3,
        pseudo_inputs: Annotated[
            int, Option("pseudo-inputs K; a step encodes them beside its batch", reference=_CODE, low=1)
        ] = 500,
        start: Annotated[
            float, Option("mean of the pixels of pseudo-inputs before training", reference=_CODE, low=0, high=1)
        ] = 0.05,
        spread: Annotated[float, Option("standard deviation of these pixels", reference=_CODE, above=0, high=1)] = 0.01,
        rate: Annotated[
            float,
            Option(
                "Adam's learning rate",
                reference=f"ours: that of vae; {_CODE}: 5e-4",
                above=0,
                search=Search("log", 1e-4, 0.01),
            ),
        ] = 1e-3,
    ) -> None:
        require_unset_prior("vamp-vae", context.prior, "take vae with the prior learned-mixture or flow")
        super().__init__(context, name="vamp-vae", likelihood=likelihood, sigma=sigma)
        self.optimizer = adam(rate)
        images = start + spread * torch.randn(pseudo_inputs, *context.shape)
        self.vamp_prior = VampPrior(images, context.latent_dim, self.posterior_parameters)

    @property
    def prior(self) -> Prior:
        """The VampPrior."""
        return self.vamp_prior

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: the negative evidence lower bound; the prior's draws z are not needed."""
        draw = self.draw(x, noise)
        reconstruction = self.negative_log_likelihood(self.logits(draw.code), x).mean()
        divergence = self.divergence(draw).mean()
        terms = {"reconstruction": reconstruction.detach(), "kl": divergence.detach()}
        yield Loss("autoencoder", reconstruction + divergence, terms)


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="vamp-vae",
        aliases=("vampprior", "vamp"),
        family="Variational autoencoders",
        description="VAE, prior a mixture of its encoder's Gaussians",
        factory=VampVAE,
        reference="arXiv:1705.07120",
    )
