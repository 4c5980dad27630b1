"""The model `vae`: variational autoencoder with a diagonal Gaussian encoder (Kingma and Welling, arXiv:1312.6114)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, OptimizerConfig, Option, Prior
from genbench.distances import gaussian_kl
from genbench.errors import UnsupportedError
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, adam, cross_entropy, missing_density, squared_error

LOG_2PI = math.log(2.0 * math.pi)
LOG_VARIANCE_BOUND = 10.0
"""Log variances stay within +-10, standard deviations within 0.0067 .. 148."""


class VAE(Autoencoder):
    """min E[-log p(x | z)] + KL(q(z | x) | p(z)) in nats per image, with images x and codes z.

    q(z | x) is a Gaussian with diagonal covariance; each image has one draw z = mean + sd * noise.

    p(x | z) by `likelihood`: bernoulli; gaussian of the fixed standard deviation `sigma`; or learned-sigma, a gaussian
    whose one standard deviation for all pixels is a parameter (arXiv:2006.13202) that starts at `sigma`. Its mean is
    the sigmoid of the decoder's logits in each case. The KL has a closed form for a prior N(0, s^2 I); for other priors
    with a density on all of R^d it is the estimate log q(z | x) - log p(z) at the same draw; others are refused.

    Source: arXiv:1312.6114, equation 7.
    """

    log_sigma: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        likelihood: Annotated[
            Literal["bernoulli", "gaussian", "learned-sigma"],
            Option("p(x | z)", reference="arXiv:1711.01558, section 4, for MNIST; gaussian for CelebA there"),
        ] = "bernoulli",
        sigma: Annotated[
            float,
            Option("standard deviation of a pixel given z, in [0, 1]", reference="ours: that of MNIST is .31", above=0),
        ] = 0.3,
        rate: Annotated[float, Option("Adam's learning rate", reference="gmum/cwae-pytorch", above=0)] = 1e-3,
    ) -> None:
        _require_finite_kl(context.prior)
        super().__init__(context, outputs=2 * context.latent_dim)
        self.likelihood = likelihood
        start = torch.full((), math.log(sigma))
        if likelihood == "learned-sigma":
            self.log_sigma = nn.Parameter(start)
        else:
            self.register_buffer("log_sigma", start, persistent=False)
        self.optimizer = adam(rate)

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """One optimizer for all parameters."""
        return {"autoencoder": OptimizerConfig(tuple(self.parameters()), self.optimizer)}

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: the negative evidence lower bound; the prior's draws z are not needed."""
        mean, log_variance = self.posterior(x)
        epsilon = _randn_like(mean, noise)
        code = mean + (0.5 * log_variance).exp() * epsilon
        reconstruction = self.negative_log_likelihood(self.logits(code), x).mean()
        divergence = self.divergence(mean, log_variance, epsilon, code).mean()
        terms = {"reconstruction": reconstruction.detach(), "kl": divergence.detach()}
        yield Loss("autoencoder", reconstruction + divergence, terms)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x), `(n, c, h, w) -> (n, d), (n, d)`.

        The log variance is b tanh(u / b) of the encoder's output u, b = 10: the identity to 2 % for |u| < 2.5, finite
        and with a gradient everywhere, where a clamp would have none.
        """
        mean, raw = super().encode(x).chunk(2, dim=1)
        return mean, LOG_VARIANCE_BOUND * torch.tanh(raw / LOG_VARIANCE_BOUND)

    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z | x), `(n, c, h, w) -> (n, d)`."""
        return self.posterior(x)[0]

    def sample_codes(self, x: Tensor, noise: Noise) -> Tensor:
        """A draw from q(z | x), `(n, c, h, w) -> (n, d)`."""
        mean, log_variance = self.posterior(x)
        return mean + (0.5 * log_variance).exp() * _randn_like(mean, noise)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats, summed over the pixels, `(n, c, h, w), (n, d) -> (n,)`."""
        return -self.negative_log_likelihood(self.logits(z), x)

    def negative_log_likelihood(self, logits: Tensor, x: Tensor) -> Tensor:
        """-log p(x | z) in nats, summed over the pixels, `(n, c, h, w) -> (n,)`."""
        if self.likelihood == "bernoulli":
            return cross_entropy(logits, x)
        scaled = 0.5 * squared_error(logits, x) * torch.exp(-2.0 * self.log_sigma)
        return scaled + math.prod(x.shape[1:]) * (self.log_sigma + 0.5 * LOG_2PI)

    def divergence(self, mean: Tensor, log_variance: Tensor, epsilon: Tensor, code: Tensor) -> Tensor:
        """KL(q(z | x) | p(z)) in nats, exact or at one draw, each argument `(n, d)`, -> `(n,)`."""
        if self.prior.normal_sigma is not None:
            return gaussian_kl(mean, log_variance, self.prior.normal_sigma)
        log_q = -0.5 * (epsilon.square() + log_variance + LOG_2PI).sum(1)
        return log_q - self.prior.log_prob(code)


def _randn_like(tensor: Tensor, noise: Noise) -> Tensor:
    """Standard normal draws of the tensor's shape, dtype and device; measurements draw on the CPU."""
    return noise.normal(*tensor.shape, dtype=tensor.dtype).to(tensor.device)


def _require_finite_kl(prior: Prior) -> None:
    """`UnsupportedError` for a prior against which the KL of a Gaussian encoder is infinite."""
    if prior.normal_sigma is not None or (prior.has_density and prior.full_support):
        return
    raise UnsupportedError(
        f"the KL of a vae's Gaussian encoder needs the prior's density on all of R^d: {missing_density(prior)}; or take"
        " another prior, or a model that needs draws alone (swae, wae-mmd, wae-gan)"
    )


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="vae", description="Variational autoencoder, Gaussian encoder", factory=VAE, reference="arXiv:1312.6114"
    )
