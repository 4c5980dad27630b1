"""The model `factor-vae`: VAE with an adversarial total correlation (Kim and Mnih, arXiv:1802.05983)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from torch import Tensor, nn

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, OptimizerConfig, Option, Search
from genbench.hookspecs import hookimpl
from genbench.nn import LikelihoodOption, SigmaOption, VariationalAutoencoder, adam, critic_loss, mlp_layers

_PAPER = "arXiv:1802.05983, appendix A"
SLOPE = 0.2
"""Of the critic's leaky ReLU below zero: that of disentanglement_lib."""


class FactorVAE(VariationalAutoencoder):
    r"""min E[-log p(x | z)] + KL(q(z | x) | p(z)) + gamma TC in nats per image, with images x and codes z.

    .. math:: TC = KL\big(q(z) \,\big|\, \prod_j q(z_j)\big) \approx E \log \frac{D(z)}{1 - D(z)}

    (equations 2 and 3). D is the probability that a critic gives to "z is a draw of q(z), and not one whose coordinates
    were permuted among images", so that log D / (1 - D) is its logit. Each step of the autoencoder is followed by one
    of the critic (algorithm 2), on the draws of the same batch, detached, and on these with each coordinate permuted;
    the paper permutes the draws of a second batch. gamma = 0 is the VAE.

    TC pulls towards independent coordinates, away from priors whose coordinates depend on one another.

    Source: arXiv:1802.05983. The critic's loss is twice the paper's, which a step of Adam does not see.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        likelihood: LikelihoodOption = "bernoulli",
        sigma: SigmaOption = 0.3,
        gamma: Annotated[
            float,
            Option(
                "weight of the total correlation",
                reference="disentanglement_lib: 10 to 100",
                low=0,
                search=Search("log", 0.1, 100),
            ),
        ] = 10.0,
        width: Annotated[
            int, Option("the critic's hidden units", reference=f"ours: that of wae-gan; {_PAPER}: 1000", low=1)
        ] = 512,
        depth: Annotated[
            int, Option("the critic's hidden layers", reference=f"ours: that of wae-gan; {_PAPER}: 6", low=1)
        ] = 4,
        rate: Annotated[
            float,
            Option(
                "Adam's learning rate",
                reference=f"ours: that of vae; {_PAPER}: 1e-4",
                above=0,
                search=Search("log", 1e-4, 0.01),
            ),
        ] = 1e-3,
        critic_rate: Annotated[
            float, Option("the critic's learning rate", reference=_PAPER, above=0, search=Search("log", 1e-5, 1e-3))
        ] = 1e-4,
    ) -> None:
        super().__init__(context, name="factor-vae", likelihood=likelihood, sigma=sigma)
        self.critic = nn.Sequential(*mlp_layers(context.latent_dim, 1, width=width, depth=depth, slope=SLOPE))
        self.gamma = gamma
        self.optimizers = adam(rate), adam(critic_rate, (0.5, 0.9))

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """The autoencoder, a learned sigma included, and the critic."""
        first, second = self.optimizers
        critic = tuple(self.critic.parameters())
        apart = {id(parameter) for parameter in critic}
        others = tuple(parameter for parameter in self.parameters() if id(parameter) not in apart)
        return {"autoencoder": OptimizerConfig(others, first), "critic": OptimizerConfig(critic, second)}

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """Two losses: the VAE's + gamma TC, then the critic's cross entropy; the prior's draws z are not needed."""
        draw = self.draw(x, noise)
        reconstruction = self.negative_log_likelihood(self.logits(draw.code), x).mean()
        divergence = self.divergence(draw).mean()
        correlation = self.critic_logits(draw.code).mean()
        terms = {
            "reconstruction": reconstruction.detach(),
            "kl": divergence.detach(),
            "total-correlation": correlation.detach(),
        }
        yield Loss("autoencoder", reconstruction + divergence + self.gamma * correlation, terms)

        code = draw.code.detach()
        distinguish = critic_loss(self.critic_logits(code), self.critic_logits(permute_dimensions(code, noise)))
        yield Loss("critic", distinguish, {"critic": distinguish.detach()})

    def critic_logits(self, z: Tensor) -> Tensor:
        """log D(z) / (1 - D(z)), `(n, d) -> (n,)`."""
        logits: Tensor = self.critic(z)
        return logits.to(z.dtype).squeeze(1)


def permute_dimensions(code: Tensor, noise: Noise) -> Tensor:
    """Each coordinate permuted among the rows, independently of the others, `(n, d) -> (n, d)` (algorithm 1).

    The ranks of independent uniform draws are a uniform permutation; one sort gives those of all coordinates.
    """
    order = noise.uniform(*code.shape, dtype=code.dtype).argsort(dim=0)
    return code.gather(0, order)


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="factor-vae",
        aliases=("factorvae",),
        family="Disentangling autoencoders",
        description="VAE, adversarial total correlation",
        factory=FactorVAE,
        reference="arXiv:1802.05983",
    )
