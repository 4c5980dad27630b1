"""The model `vae`: variational autoencoder with a diagonal Gaussian encoder (Kingma and Welling, arXiv:1312.6114)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, OptimizerConfig, Option
from genbench.hookspecs import hookimpl
from genbench.nn import Likelihood, VariationalAutoencoder, adam


class VAE(VariationalAutoencoder):
    """min E[-log p(x | z)] + KL(q(z | x) | p(z)) in nats per image, with images x and codes z.

    q(z | x) is a Gaussian with diagonal covariance; each image has one draw z = mean + sd * noise. The KL has a closed
    form for a prior N(0, s^2 I); for other priors with a density on all of R^d it is the estimate
    log q(z | x) - log p(z) at the same draw; others are refused.

    Source: arXiv:1312.6114, equation 7.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        likelihood: Annotated[
            Likelihood,
            Option("p(x | z)", reference="arXiv:1711.01558, section 4, for MNIST; gaussian for CelebA there"),
        ] = "bernoulli",
        sigma: Annotated[
            float,
            Option("standard deviation of a pixel given z, in [0, 1]", reference="ours: that of MNIST is .31", above=0),
        ] = 0.3,
        rate: Annotated[float, Option("Adam's learning rate", reference="gmum/cwae-pytorch", above=0)] = 1e-3,
    ) -> None:
        super().__init__(context, name="vae", likelihood=likelihood, sigma=sigma)
        self.optimizer = adam(rate)

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """One optimizer for all parameters."""
        return {"autoencoder": OptimizerConfig(tuple(self.parameters()), self.optimizer)}

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
        name="vae", description="Variational autoencoder, Gaussian encoder", factory=VAE, reference="arXiv:1312.6114"
    )
