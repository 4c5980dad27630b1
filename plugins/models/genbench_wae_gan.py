"""The model `wae-gan`: Wasserstein autoencoder with an adversary on the codes (Tolstikhin et al., arXiv:1711.01558)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

from torch import Tensor, nn
from torch.nn.functional import softplus

from genbench.api import (
    ComponentSpec,
    Loss,
    Model,
    ModelContext,
    Noise,
    OptimizerConfig,
    Option,
    Prior,
    Search,
    constant_schedule,
)
from genbench.errors import UnsupportedError
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, adam, critic_loss, missing_density, mlp_layers, squared_error, wae_schedule

_CODE = "tolstikhin/wae, for MNIST"


class WAEGAN(Autoencoder):
    """min E |x - psi(phi(x))|^2 - weight E log D(phi(x)) against max E log D(z) + E log(1 - D(phi(x))).

    Images x, encoder phi, decoder psi, prior draws z; D is the sigmoid of the critic's logit, and the encoder's loss is
    the non-saturating one. Each step of the autoencoder is followed by a step of the critic on the same codes,
    detached; the authors' code computes them again with the updated encoder.

    Source: arXiv:1711.01558, algorithm 1, and tolstikhin/wae. Left out are the code's pre-training of the encoder and
    its noise of 0.01 on the input. Its weight on this scale would be 10 / 0.05 = 200, at which images are poor: after
    two epochs of MNIST (network conv, latent 8) the squared error per pixel is .042, against .025 with 10, .022 with 2.

    The adversarial autoencoder (arXiv:1511.05644) with a deterministic encoder is this model, so there is no other one.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        weight: Annotated[
            float,
            Option(
                "lambda, before -log D",
                reference=f"{_CODE}: 10, there beside 0.05 x the cost",
                low=0,
                search=Search("log", 0.1, 1000),
            ),
        ] = 10.0,
        width: Annotated[int, Option("the critic's hidden units", reference=f"{_CODE}; CelebA: 1024", low=1)] = 512,
        depth: Annotated[int, Option("the critic's hidden layers", reference=_CODE, low=1)] = 4,
        log_density: Annotated[
            bool, Option("logit = critic(z) + log p(z); the prior needs a density on all of R^d", reference=_CODE)
        ] = False,
        rate: Annotated[
            float, Option("Adam's learning rate", reference=_CODE, above=0, search=Search("log", 1e-4, 0.01))
        ] = 1e-3,
        critic_rate: Annotated[
            float, Option("the critic's learning rate", reference=_CODE, above=0, search=Search("log", 5e-5, 5e-3))
        ] = 5e-4,
        beta1: Annotated[
            float, Option("Adam's first decay", reference="arXiv:1711.01558, section 4", low=0, high=0.999)
        ] = 0.5,
        schedule: Annotated[
            Literal["published", "constant"],
            Option("rate / 2 from epoch 30, / 10 from 50, / 100 from 100", reference=_CODE),
        ] = "published",
    ) -> None:
        if log_density:
            _require_density(context.prior)
        super().__init__(context)
        self.critic = nn.Sequential(*mlp_layers(context.latent_dim, 1, width=width, depth=depth))
        self.weight = weight
        self.log_density = log_density
        self.optimizers = adam(rate, (beta1, 0.999)), adam(critic_rate, (beta1, 0.999))
        self.schedule = {"published": wae_schedule, "constant": constant_schedule}[schedule]

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """The autoencoder and the critic."""
        first, second = self.optimizers
        return {
            "autoencoder": OptimizerConfig(self.autoencoder_parameters(), first, self.schedule),
            "critic": OptimizerConfig(tuple(self.critic.parameters()), second, self.schedule),
        }

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """Two losses: summed squares + weight * adversarial loss, then the critic's cross entropy on the same batch."""
        code = self.encode(x)
        reconstruction = squared_error(self.logits(code), x).mean()
        adversarial = softplus(-self.critic_logits(code)).mean()
        terms = {"reconstruction": reconstruction.detach(), "fool": adversarial.detach()}
        yield Loss("autoencoder", reconstruction + self.weight * adversarial, terms)

        distinguish = critic_loss(self.critic_logits(z), self.critic_logits(code.detach()))
        yield Loss("critic", distinguish, {"critic": distinguish.detach()})

    def critic_logits(self, z: Tensor) -> Tensor:
        """The critic's logit of "z was drawn from the prior", `(n, d) -> (n,)`."""
        logits: Tensor = self.critic(z).to(z.dtype).squeeze(1)
        return logits + self.prior.log_prob(z) if self.log_density else logits


def _require_density(prior: Prior) -> None:
    """`UnsupportedError` for a prior without a density, or with one that vanishes somewhere."""
    if lack := missing_density(prior):
        raise UnsupportedError(
            f"the critic of wae-gan with log-density needs the prior's density on all of R^d: {lack}; or leave"
            " log-density off"
        )


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="wae-gan",
        aliases=("aae", "adversarial", "adversarial-autoencoder"),
        family="Wasserstein autoencoders",
        description="Wasserstein autoencoder, adversary",
        factory=WAEGAN,
        reference="arXiv:1711.01558",
    )
