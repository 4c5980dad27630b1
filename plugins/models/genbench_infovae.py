"""The model `infovae`: information maximizing variational autoencoder, MMD-VAE (Zhao et al., arXiv:1706.02262)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, Option, Search
from genbench.distances import mmd
from genbench.errors import UnsupportedError
from genbench.hookspecs import hookimpl
from genbench.nn import LikelihoodOption, SigmaOption, VariationalAutoencoder, adam


class InfoVAE(VariationalAutoencoder):
    r"""min E[-log p(x | z)] + (1 - alpha) KL(q(z | x) | p(z)) + (alpha + weight - 1) MMD_k(q(z), p(z)).

    Images x, codes z, in nats per image; q(z | x) is a Gaussian with diagonal covariance and q(z) the law of its draws
    over all images. MMD_k is the unbiased estimate between the draws of a batch and as many of the prior, with a kernel
    summed over seven scales of the prior's E|z - z'|^2, as in wae-mmd. alpha = 0 and weight = 1 is the VAE, alpha = 1
    the MMD-VAE: it has no KL, and so takes every prior.

    Source: arXiv:1706.02262, section 3.2, with the MMD for the divergence of q(z) from p(z), which may be any.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        likelihood: LikelihoodOption = "bernoulli",
        sigma: SigmaOption = 0.3,
        alpha: Annotated[
            float, Option("preference for information in z; 1: no KL", reference="arXiv:1706.02262: MMD-VAE", high=1)
        ] = 1.0,
        weight: Annotated[
            float,
            Option(
                "lambda; alpha + lambda - 1 stands before the MMD",
                reference="ours",
                low=0,
                search=Search("log", 0.1, 1000),
            ),
        ] = 10.0,
        kernel: Annotated[
            Literal["imq", "rbf"],
            Option("inverse multiquadratic or Gaussian", reference="arXiv:1711.01558; arXiv:1706.02262: rbf"),
        ] = "imq",
        rate: Annotated[
            float,
            Option("Adam's learning rate", reference="ours: that of vae", above=0, search=Search("log", 1e-4, 0.01)),
        ] = 1e-3,
    ) -> None:
        if alpha + weight < 1:
            raise UnsupportedError(
                f"infovae with alpha {alpha:g} and weight {weight:g} would descend {alpha + weight - 1:g} times the"
                f" MMD, away from the prior: take a weight of at least {1 - alpha:g}"
            )
        super().__init__(context, name="infovae", likelihood=likelihood, sigma=sigma, needs_density=alpha != 1)
        self.alpha = alpha
        self.mmd_weight = alpha + weight - 1.0
        self.kernel: Literal["imq", "rbf"] = kernel
        self.optimizer = adam(rate)

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: reconstruction + (1 - alpha) KL + (alpha + weight - 1) MMD; a term of weight 0 is left out."""
        draw = self.draw(x, noise)
        reconstruction = self.negative_log_likelihood(self.logits(draw.code), x).mean()
        loss, terms = reconstruction, {"reconstruction": reconstruction.detach()}
        if self.alpha != 1:
            divergence = self.divergence(draw).mean()
            loss, terms["kl"] = loss + (1.0 - self.alpha) * divergence, divergence.detach()
        if self.mmd_weight:
            distance = mmd(draw.code, z, kernel=self.kernel, scale=self.pairwise_scale)
            loss, terms["mmd"] = loss + self.mmd_weight * distance, distance.detach()
        yield Loss("autoencoder", loss, terms)


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="infovae",
        aliases=("info-vae", "mmd-vae"),
        family="Variational autoencoders",
        description="InfoVAE, KL and MMD; by default MMD-VAE",
        factory=InfoVAE,
        reference="arXiv:1706.02262",
    )
