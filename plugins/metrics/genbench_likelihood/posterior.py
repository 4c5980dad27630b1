"""What the metrics of likelihood share: models with densities, block-wise passes, means with their errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from genbench.api import DataConfig, DatasetInfo, Evaluation, Metric, Model, Prior
from genbench.data.images import to_float
from genbench.errors import MetricError, NotApplicableError, UsageError

BLOCK = 500
"""Images or codes that go through a model at once: they bound the memory, and their noise is drawn together."""

ON_SPHERE = 1e-3
"""Relative distance from a sphere up to which a code lies on it, but for rounding."""

LEAST = 2
"""Held-out images."""

THRESHOLD = 0.01
"""The variance over images of a unit's mean from which the unit is active (arXiv:1509.00519, section 5.2)."""


@dataclass(frozen=True, kw_only=True)
class HeldOutMetric(Metric):
    """Base of metrics of the first n held-out images; n = 0 is all of them."""

    n: int

    name: ClassVar[str]
    uses_samples = False

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse more images than are held out, and a single one: it has no standard error."""
        if info.test < LEAST:
            raise UsageError(f"{self.name} needs {LEAST} held-out images and the dataset has {info.test}")
        if self.n > info.test:
            raise UsageError(
                f"{self.name}: n = {self.n:,} and {info.test:,} held-out images: --set {self.name}.n={info.test}"
            )

    def fit_to(self, info: DatasetInfo) -> Mapping[str, int]:
        """As many images as are held out."""
        return {"n": info.test} if self.n > info.test >= LEAST else {}


@dataclass(frozen=True)
class Mean:
    """The mean of one number for each image, and its standard error."""

    value: float
    se: float


def mean(values: Tensor, metric: str, quantity: str) -> Mean:
    """The mean of `(n,)`; `MetricError` where a value is not finite."""
    bad = int((~values.isfinite()).sum())
    if bad:
        raise MetricError(f"{metric}: the {quantity} of {bad:,} of {len(values):,} images is NaN or infinite")
    if len(values) < LEAST:
        raise MetricError(f"{metric} needs {LEAST} held-out images and has {len(values)}")
    values = values.double()
    return Mean(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


def stochastic(e: Evaluation) -> Model:
    """The model, whose q(z | x) has a density; `NotApplicableError` for any other."""
    if not e.model.has_posterior:
        raise NotApplicableError("q(z | x) has no density: the encoder is deterministic")
    return e.model


def likelihood(e: Evaluation) -> Model:
    """The model, which has densities q(z | x), p(x | z) and p(z); `NotApplicableError` for any other."""
    model = stochastic(e)
    if not model.has_likelihood:
        raise NotApplicableError("p(x | z) has no density: the decoder is no distribution")
    return model


def log_prior(prior: Prior, z: Tensor) -> Tensor:
    """log p(z), `(n, d) -> (n,)`: on R^d, or with respect to its area for codes on the sphere of a uniform prior.

    `NotApplicableError` for a prior without a density.
    """
    if prior.has_density:
        return prior.log_prob(z)
    radius, d = prior.sphere_radius, prior.latent_dim
    if radius is None or bool(((z.norm(dim=1) / radius - 1.0).abs() > ON_SPHERE).any()):
        raise NotApplicableError(f"the prior {type(prior).__name__} has no density on R^{d}")
    area = math.log(2.0) + d / 2 * math.log(math.pi) - math.lgamma(d / 2) + (d - 1) * math.log(radius)
    return torch.full((len(z),), -area, device=z.device)


def blocks(e: Evaluation, images: Tensor, size: int = BLOCK) -> Iterator[Tensor]:
    """Images `(n, c, h, w)` uint8 in blocks on the device, in [0, 1]."""
    return (to_float(block.to(e.device)) for block in images.split(size))


def kl(q: Distribution, z: Tensor, prior: Prior) -> Tensor:
    """KL(q(z | x) | p(z)) in nats for each image, `(n,)`, or its estimate at a draw z of q, `(n, d)`.

    In closed form where torch has one and the prior is normal.
    """
    if prior.normal_sigma is not None:
        d = prior.latent_dim
        center, scale = torch.zeros(d, device=z.device), torch.full((d,), prior.normal_sigma, device=z.device)
        try:
            exact: Tensor = kl_divergence(q, Independent(Normal(center, scale), 1))
        except NotImplementedError:  # no closed form for this q
            pass
        else:
            return exact
    return q.log_prob(z) - log_prior(prior, z)


def describe(prior: Prior) -> str:
    """The prior's class and its plain attributes, for protocols."""
    return f"{type(prior).__name__}({prior.extra_repr()})"


def count_active(means: Tensor, threshold: float = THRESHOLD) -> int:
    """Units whose mean varies over the images by more than the threshold, `(n, d)` means of q(z | x) -> 0..d."""
    return int((means.double().var(0) > threshold).sum())


def collapse(means: Tensor, threshold: float = THRESHOLD) -> str:
    """The collapse of q(z | x) in words; "" where a unit is active."""
    if count_active(means, threshold):
        return ""
    return f"collapsed: 0 of {means.shape[1]} units active"


def law_caution(law: str, images: Tensor) -> str:
    """What is to be known of likelihoods of this law of these uint8 images; "" where nothing."""
    if law == "Bernoulli" and bool(((images != 0) & (images != 255)).any()):
        return "a Bernoulli likelihood of grey values is no density: compare it with its own kind alone"
    return ""


def law_detail(law: str) -> str:
    """The law of p(x | z), for protocols."""
    kind = {
        "Bernoulli": "p(x | z) Bernoulli, cross entropy at grey values in [0, 1]",
        "Gaussian": "p(x | z) Gaussian, density of pixels in [0, 1], not dequantized",
    }
    return kind.get(law, f"p(x | z): {law}")
