"""A third party's plug-in: a spiral prior, an InfoVAE (arXiv:1706.02262) and a metric, from public modules alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import (
    ComponentSpec,
    EvalProtocol,
    Evaluation,
    Loss,
    Measurement,
    Metric,
    Model,
    ModelContext,
    Noise,
    OptimizerConfig,
    Option,
    Prior,
    UnsupportedError,
)
from genbench.distances import gaussian_kl, mmd
from genbench.errors import MetricError
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, adam, cross_entropy


class Spiral(Prior):
    """Archimedes' spiral in the plane: it has no density there."""

    def __init__(self, latent_dim: int, *, turns: Annotated[float, Option("windings", above=0)] = 2.0) -> None:
        super().__init__()
        if latent_dim != 2:
            raise UnsupportedError(f"a spiral lies in the plane: --latent-dim 2, not {latent_dim}")
        self.latent_dim = latent_dim
        self.turns = turns

    def sample(self, n: int, noise: Noise) -> Tensor:
        """`(n, 2)`: radius sqrt(u), angle 2 pi turns radius."""
        radius = noise.uniform(n).sqrt()
        angle = 2 * torch.pi * self.turns * radius
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


class InfoVAE(Autoencoder):
    """E[-log p(x|z)] + (1 - alpha) KL(q(z|x) | p) + (alpha + lambda - 1) MMD(q(z), p): equation 6 with the MMD."""

    def __init__(
        self,
        context: ModelContext,
        *,
        alpha: Annotated[float, Option("0: a VAE and the MMD; 1: no KL", reference="arXiv:1706.02262", high=1)] = 0.0,
        weight: Annotated[
            float,
            Option("lambda", reference="ours: at the paper's 1000 a short training learns the prior alone", low=1),
        ] = 10.0,
        rate: Annotated[float, Option("Adam's learning rate", reference="ours", above=0)] = 3e-3,
    ) -> None:
        super().__init__(context, outputs=2 * context.latent_dim)
        if context.prior.normal_sigma is None and alpha != 1:
            raise UnsupportedError("info-vae has the KL divergence from a normal prior alone: --set info-vae.alpha=1")
        self.alpha, self.weight, self.rate = alpha, weight, rate
        self.scale = context.prior.pairwise_scale  # once: a float taken in a step would wait on the device

    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z|x)."""
        return self.encoder(x).chunk(2, dim=1)[0]

    def sample_codes(self, x: Tensor, noise: Noise) -> Tensor:
        """A draw of q(z|x)."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean + (0.5 * log_variance).exp() * noise.normal(*mean.shape).to(mean.device)

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """One optimizer for all parameters."""
        return {"autoencoder": OptimizerConfig(self.autoencoder_parameters(), adam(self.rate))}

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        code = mean + (0.5 * log_variance).exp() * noise.normal(*mean.shape).to(mean.device)
        loss = cross_entropy(self.logits(code), x).mean()
        loss = loss + (self.alpha + self.weight - 1) * mmd(code, z, scale=self.scale)
        if self.alpha != 1:
            sigma = self.prior.normal_sigma or 1.0
            loss = loss + (1 - self.alpha) * gaussian_kl(mean, log_variance, sigma).mean()
        yield Loss("autoencoder", loss)


class Radius(Metric):
    """Mean length of the codes, beside that of as many draws of the prior."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """One number."""
        n = len(e.references)
        protocol = EvalProtocol("mean |z|", e.images.sha256[:12], e.images.preprocessing, e.split, n, 0, "codes")
        value, ideal = (float(z.norm(dim=1).mean()) for z in (e.codes(n), e.prior_draws(n, "radius")))
        if not math.isfinite(value):
            raise MetricError(f"the mean length of {n} codes is {value}: the encoder diverged")
        yield Measurement(value=value, unit="length", higher_is_better=None, n=n, protocol=protocol, floor=ideal)


@hookimpl
def genbench_priors() -> Iterable[ComponentSpec[Prior]]:
    """The spiral."""
    yield ComponentSpec(name="specimen-spiral", description="A spiral in the plane", factory=Spiral)


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """InfoVAE."""
    yield ComponentSpec(name="info-vae", description="VAE with the MMD", factory=InfoVAE, reference="arXiv:1706.02262")


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """Length of codes."""
    yield ComponentSpec(name="radius", description="Mean length of codes", factory=Radius)
