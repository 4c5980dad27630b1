"""Models with errors found in public code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, OptimizerConfig
from genbench.distances import WAE_SCALES, gaussian_kl, mmd, random_projections
from genbench.hookspecs import hookimpl
from genbench.nn import GaussianDraw, squared_error
from genbench_ae import AE
from genbench_swae import SWAE
from genbench_vae import VAE
from genbench_wae_gan import WAEGAN
from genbench_wae_mmd import WAEMMD


class PenaltyAnew(WAEMMD):
    """WAE-MMD with a penalty of one's own and no options."""

    def __init__(self, context: ModelContext) -> None:
        super().__init__(context)

    def penalty(self, code: Tensor, z: Tensor, noise: Noise) -> Tensor:
        return mmd(code, z, scale=self.pairwise_scale)

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        code = self.encode(x)
        fit = squared_error(self.logits(code), x).mean()
        yield Loss("autoencoder", fit + self.weight * self.penalty(code, z, noise))


class WrongSign(PenaltyAnew):
    def penalty(self, code: Tensor, z: Tensor, noise: Noise) -> Tensor:
        return -mmd(code, z, scale=self.pairwise_scale)


class WeightUnused(WAEMMD):
    def __init__(self, context: ModelContext, *, weight: float = 200.0) -> None:
        super().__init__(context)


class DividedByPairs(SWAE):
    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        for loss in super().training_step(x, z, noise):
            fit, n = loss.logs.get("reconstruction", 0.0), len(x)
            yield Loss(loss.optimizer, fit + (loss.value - fit) / (n * (n - 1)))


class OddPower(PenaltyAnew):
    """Sorted differences cubed, without the absolute value."""

    def penalty(self, code: Tensor, z: Tensor, noise: Noise) -> Tensor:
        return (code.sort(0).values - z.sort(0).values).pow(3).mean()


class DirectionsSummed(PenaltyAnew):
    """No mean over directions."""

    def __init__(self, context: ModelContext, *, projections: int = 50) -> None:
        super().__init__(context)
        self.projections = projections

    def penalty(self, code: Tensor, z: Tensor, noise: Noise) -> Tensor:
        theta = random_projections(self.projections, code.shape[1], noise).T
        return ((code @ theta).sort(0).values - (z @ theta).sort(0).values).square().mean(0).sum()


class DiagonalLeftIn(PenaltyAnew):
    def penalty(self, code: Tensor, z: Tensor, noise: Noise) -> Tensor:
        return mmd(code, z, scale=self.pairwise_scale) + 2.0 * len(WAE_SCALES) / (len(code) - 1)


class CrossWithoutDiagonal(PenaltyAnew):
    """The cross term's diagonal left out, of n(n-1) pairs where n^2 is divided by."""

    def penalty(self, code: Tensor, z: Tensor, noise: Noise) -> Tensor:
        c, apart = self.pairwise_scale, (code - z).square().sum(1)
        return mmd(code, z, scale=c) + 2.0 * sum((s * c / (s * c + apart)).sum() for s in WAE_SCALES) / len(z) ** 2


class ConstantKernel(PenaltyAnew):
    def penalty(self, code: Tensor, z: Tensor, noise: Noise) -> Tensor:
        return mmd(code, z, scale=1e9)


class AssumesNormal(VAE):
    """KL to N(0, I), whatever the prior."""

    def divergence(self, draw: GaussianDraw) -> Tensor:
        return gaussian_kl(draw.mean, draw.log_variance, 1.0)


class Broadcast(WAEGAN):
    """[n, 1] + [n] is [n, n]."""

    def __init__(self, context: ModelContext) -> None:
        super().__init__(context, log_density=True)

    def critic_logits(self, z: Tensor) -> Tensor:
        return self.critic(z) + self.prior.log_prob(z)


class Tanh(AE):
    def decode(self, z: Tensor) -> Tensor:
        return torch.tanh(self.logits(z))


class Standardised(AE):
    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        yield from super().training_step((x - 0.1307) / 0.3081, z, noise)


class AlwaysTraining(AE):
    def train(self, mode: bool = True) -> AlwaysTraining:
        return super().train(True)


class GlobalRandomness(SWAE):
    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        return super().training_step(x, z, Noise(torch.default_generator))


class Shards(SWAE):
    """The sliced distance on each half of the batch, as under data-parallel training on two devices."""

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        halves = [super(Shards, self).training_step(a, b, noise) for a, b in zip(x.chunk(2), z.chunk(2), strict=True)]
        for losses in zip(*halves, strict=True):
            yield Loss(losses[0].optimizer, sum(loss.value for loss in losses) / len(losses))


class DirectionsOfAnyLength(DirectionsSummed):
    """Directions that were drawn and not normalised."""

    def penalty(self, code: Tensor, z: Tensor, noise: Noise) -> Tensor:
        theta = noise.normal(code.shape[1], self.projections)
        return ((code @ theta).sort(0).values - (z @ theta).sort(0).values).square().mean()


class EncoderCutOff(PenaltyAnew):
    """Codes detached before anything is computed of them: neither term reaches the encoder."""

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x).detach()


class DecoderCutOff(PenaltyAnew):
    """A reconstruction without weight: the decoder gets zeros, the encoder its penalty."""

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        code = self.encode(x)
        fit = squared_error(self.logits(code), x).mean()
        yield Loss("autoencoder", 0.0 * fit + self.weight * self.penalty(code, z, noise))


class ForgetsState(AE):
    """What learning changes is kept in a plain attribute, which no state dict has."""

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        yield from super().training_step(x, z, noise)
        self.seen = getattr(self, "seen", 0) + 1

    def logits(self, z: Tensor) -> Tensor:
        return super().logits(z) * (1.0 + 0.01 * getattr(self, "seen", 0))


class Orphan(AE):
    """A layer whose parameters no optimizer has."""

    def __init__(self, context: ModelContext) -> None:
        super().__init__(context)
        self.extra = torch.nn.Linear(context.latent_dim, context.latent_dim)

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        return {"autoencoder": OptimizerConfig(self.autoencoder_parameters(), self.optimizer)}


class WholeBatchesOnly(AE):
    """The first batch's size is taken for that of every batch."""

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        self.batch = getattr(self, "batch", len(x))
        yield from super().training_step(x.view(self.batch, -1).view(self.batch, *self.context.shape), z, noise)


class OneLikelihood(VAE):
    """The mean over the batch where one number for each image is asked for."""

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return super().log_likelihood(x, z).mean()


KINDS = {
    "one-likelihood": OneLikelihood,
    "directions-of-any-length": DirectionsOfAnyLength,
    "encoder-cut-off": EncoderCutOff,
    "decoder-cut-off": DecoderCutOff,
    "forgets-state": ForgetsState,
    "orphan": Orphan,
    "whole-batches-only": WholeBatchesOnly,
    "wrong-sign": WrongSign,
    "weight-unused": WeightUnused,
    "divided-by-pairs": DividedByPairs,
    "odd-power": OddPower,
    "directions-summed": DirectionsSummed,
    "assumes-normal": AssumesNormal,
    "diagonal-left-in": DiagonalLeftIn,
    "cross-without-diagonal": CrossWithoutDiagonal,
    "constant-kernel": ConstantKernel,
    "broadcast": Broadcast,
    "tanh": Tanh,
    "standardised": Standardised,
    "always-training": AlwaysTraining,
    "global-model": GlobalRandomness,
    "shards": Shards,
}


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    for name, kind in KINDS.items():
        yield ComponentSpec(name=name, description="Faulty", factory=kind)
