"""The base classes of models with a likelihood, and of those with a diagonal Gaussian encoder (arXiv:1312.6114)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from genbench.api import ModelContext, Noise, Option
from genbench.distances import gaussian_kl
from genbench.nn.autoencoder import Autoencoder
from genbench.nn.losses import cross_entropy, squared_error
from genbench.nn.priors import require_finite_kl

LOG_2PI = math.log(2.0 * math.pi)
LOG_VARIANCE_BOUND = 10.0
"""Log variances stay within +-10, standard deviations within 0.0067 .. 148."""

Likelihood = Literal["bernoulli", "gaussian", "learned-sigma"]
"""The law p(x | z) of a pixel around the decoder's mean."""

LikelihoodOption = Annotated[
    Likelihood, Option("p(x | z)", reference="arXiv:1711.01558, section 4, for MNIST; gaussian for CelebA there")
]
"""The annotation of the option `likelihood`, the same in all models that have one."""

SigmaOption = Annotated[
    float, Option("standard deviation of a pixel given z, in [0, 1]", reference="ours: that of MNIST is .31", above=0)
]
"""The annotation of the option `sigma`."""


@dataclass(frozen=True)
class GaussianDraw:
    """One draw of q(z | x) for each image, differentiable.

    `mean` and `log_variance` are those of q, `epsilon` the standard normal noise, and `code` = mean + sd * epsilon, all
    `(n, d)`.
    """

    mean: Tensor
    log_variance: Tensor
    epsilon: Tensor
    code: Tensor

    @property
    def log_density(self) -> Tensor:
        """log q(z | x) of the draw in nats, `(n,)`."""
        return -0.5 * (self.epsilon.square() + self.log_variance + LOG_2PI).sum(1)


class LikelihoodAutoencoder(Autoencoder):
    """Base class of models whose decoder is a distribution p(x | z), whatever their encoder.

    p(x | z) by `likelihood`: bernoulli; gaussian of the fixed standard deviation `sigma`; or learned-sigma, a gaussian
    whose one standard deviation for all pixels is a parameter (arXiv:2006.13202) that starts at `sigma`. Its mean is
    the sigmoid of the decoder's logits in each case.

    Args:
        context: Shape, latent dimension, prior and network of the model.
        outputs: Count of numbers that the encoder yields for each image.
        likelihood: The law of a pixel.
        sigma: The standard deviation of a pixel given z, in [0, 1].
    """

    log_sigma: Tensor

    def __init__(
        self, context: ModelContext, *, outputs: int, likelihood: Likelihood = "bernoulli", sigma: float = 0.3
    ) -> None:
        super().__init__(context, outputs=outputs)
        self.likelihood = likelihood
        start = torch.full((), math.log(sigma))
        if likelihood == "learned-sigma":
            self.log_sigma = nn.Parameter(start)
        else:
            self.register_buffer("log_sigma", start, persistent=False)

    @property
    def likelihood_law(self) -> str:
        """Bernoulli or Gaussian; standard deviations, fixed or learned, do not tell Gaussian densities apart."""
        return "Bernoulli" if self.likelihood == "bernoulli" else "Gaussian"

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats, summed over the pixels, `(n, c, h, w), (n, d) -> (n,)`."""
        return -self.negative_log_likelihood(self.logits(z), x)

    def negative_log_likelihood(self, logits: Tensor, x: Tensor) -> Tensor:
        """-log p(x | z) in nats, summed over the pixels, `(n, c, h, w) -> (n,)`."""
        if self.likelihood == "bernoulli":
            return cross_entropy(logits, x)
        scaled = 0.5 * squared_error(logits, x) * torch.exp(-2.0 * self.log_sigma)
        return scaled + math.prod(x.shape[1:]) * (self.log_sigma + 0.5 * LOG_2PI)


class VariationalAutoencoder(LikelihoodAutoencoder):
    """Base class of models with q(z | x) = N(mean(x), diag sd(x)^2) and a likelihood p(x | z).

    A prior with parameters is trained with the rest, by the gradient of log p(z) in the KL divergence; where the
    objective has no KL, it is refused.

    Args:
        context: Shape, latent dimension, prior and network of the model.
        name: The model's name, for the refusal of a prior against which the KL is infinite.
        likelihood: The law of a pixel.
        sigma: The standard deviation of a pixel given z, in [0, 1].
        needs_density: Whether the objective has a KL or a density of the prior; without, every prior is accepted.

    Raises:
        UnsupportedError: The prior has no density that is positive on all of R^d, and the objective needs one.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        name: str,
        likelihood: Likelihood = "bernoulli",
        sigma: float = 0.3,
        needs_density: bool = True,
    ) -> None:
        if needs_density:
            require_finite_kl(name, context.prior)
        super().__init__(context, outputs=2 * context.latent_dim, likelihood=likelihood, sigma=sigma)
        if needs_density and context.prior.learned:
            self.learned_prior = context.prior  # a submodule, so that it is trained, moved and saved with the model

    def posterior_parameters(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x), `(n, c, h, w) -> (n, d), (n, d)`.

        The log variance is b tanh(u / b) of the encoder's output u, b = 10: the identity to 2 % for |u| < 2.5, finite
        and with a gradient everywhere, where a clamp would have none.
        """
        mean, raw = super().encode(x).chunk(2, dim=1)
        return mean, LOG_VARIANCE_BOUND * torch.tanh(raw / LOG_VARIANCE_BOUND)

    def draw(self, x: Tensor, noise: Noise, count: int = 1) -> GaussianDraw:
        """`count` independent draws of q(z | x) for each image, with what their density needs.

        They are count * n rows: one of each image in the images' order, then the next of each.
        """
        mean, log_variance = self.posterior_parameters(x)
        if count > 1:
            mean, log_variance = mean.repeat(count, 1), log_variance.repeat(count, 1)
        epsilon = noise.normal(*mean.shape, dtype=mean.dtype).to(mean.device)  # measurements draw on the CPU
        return GaussianDraw(mean, log_variance, epsilon, mean + (0.5 * log_variance).exp() * epsilon)

    def posterior(self, x: Tensor) -> Distribution:
        """q(z | x) for each image: batch shape `(n,)`, event shape `(d,)`."""
        mean, log_variance = self.posterior_parameters(x)
        return Independent(Normal(mean, (0.5 * log_variance).exp(), validate_args=False), 1, validate_args=False)

    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z | x), `(n, c, h, w) -> (n, d)`."""
        return self.posterior_parameters(x)[0]

    def sample_codes(self, x: Tensor, noise: Noise) -> Tensor:
        """A draw from q(z | x), `(n, c, h, w) -> (n, d)`."""
        return self.draw(x, noise).code

    def divergence(self, draw: GaussianDraw) -> Tensor:
        """KL(q(z | x) | p(z)) in nats for each image, `(n,)`.

        In closed form for a prior N(0, s^2 I); for other priors log q(z | x) - log p(z) at the draw, without bias.
        """
        if self.prior.normal_sigma is not None:
            return gaussian_kl(draw.mean, draw.log_variance, self.prior.normal_sigma)
        return draw.log_density - self.prior.log_prob(draw.code)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) in nats, `(n, d) -> (n,)`; that of N(0, s^2 I) also where such a prior states no density."""
        sigma = self.prior.normal_sigma
        if sigma is None:
            return self.prior.log_prob(z)
        return -0.5 * (z / sigma).square().sum(1) - z.shape[1] * (math.log(sigma) + 0.5 * LOG_2PI)
