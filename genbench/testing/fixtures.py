"""What the kit's models are built from: priors, a small network, and one whose codes the kit controls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from genbench.api import Model, ModelContext, Network, Noise, Prior, Shape
from genbench.nn import mlp_layers

SHAPE: Shape = (1, 8, 8)
LATENT = 2
BATCH = 16
PERIOD = 50


class Gauss(Prior):
    """N(0, sigma^2 I); `closed` decides whether `normal_sigma` states it."""

    def __init__(self, latent_dim: int, closed: bool = True, sigma: float = 1.0) -> None:
        super().__init__()
        self.latent_dim, self.closed, self.sigma = latent_dim, closed, sigma

    def sample(self, n: int, noise: Noise) -> Tensor:
        """Normal draws, `(n, d)`."""
        return self.sigma * noise.normal(n, self.latent_dim)

    def log_prob(self, z: Tensor) -> Tensor:
        """The normal log density, `(n, d) -> (n,)`."""
        return -0.5 * (z / self.sigma).square().sum(1) - self.latent_dim * math.log(self.sigma * math.sqrt(math.tau))

    @property
    def full_support(self) -> bool:
        """True."""
        return True

    @property
    def normal_sigma(self) -> float | None:
        """sigma, or None where it is not stated."""
        return self.sigma if self.closed else None


class LearnedGauss(Gauss):
    """N(m, I) with a trained mean m."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim, closed=False)
        self.location = nn.Parameter(torch.full((latent_dim,), 0.5))

    def sample(self, n: int, noise: Noise) -> Tensor:
        """Normal draws about m, `(n, d)`."""
        return self.location + super().sample(n, noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """The normal log density about m, `(n, d) -> (n,)`."""
        return super().log_prob(z - self.location)


class Cube(Prior):
    """Uniform on [-1, 1]^d, without a density: draws alone."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def sample(self, n: int, noise: Noise) -> Tensor:
        """Uniform draws, `(n, d)`."""
        return 2.0 * noise.uniform(n, self.latent_dim) - 1.0


class UnitSphere(Prior):
    """Uniform on the sphere |z| = 1, without a density."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def sample(self, n: int, noise: Noise) -> Tensor:
        """Normalized normal draws, `(n, d)`."""
        return nn.functional.normalize(noise.normal(n, self.latent_dim), dim=1)

    @property
    def sphere_radius(self) -> float:
        """1."""
        return 1.0


class EncoderHalf(nn.Sequential):
    """An encoder of the kit's: its parameters are recognised by this class, wherever a model keeps it."""


class DecoderHalf(nn.Sequential):
    """A decoder of the kit's, recognised in the same way."""


@dataclass(frozen=True)
class Small(Network):
    """One hidden layer each way; with batch norm where `normed`."""

    shape: Shape = SHAPE
    normed: bool = False

    def encoder(self, outputs: int) -> nn.Module:
        """`(n, c, h, w) -> (n, outputs)`."""
        norm = [nn.BatchNorm1d(outputs)] if self.normed else []
        return EncoderHalf(nn.Flatten(), *mlp_layers(math.prod(self.shape), outputs, width=24, depth=1), *norm)

    def decoder(self, latent_dim: int) -> nn.Module:
        """`(n, d) -> (n, c, h, w)` logits."""
        norm = [nn.BatchNorm1d(latent_dim)] if self.normed else []
        layers = mlp_layers(latent_dim, math.prod(self.shape), width=24, depth=1)
        return DecoderHalf(*norm, *layers, nn.Unflatten(1, self.shape))


def model_context(prior: Prior | None = None, network: Network | None = None) -> ModelContext:
    """A context on the kit's images, by default with N(0, I) and the small network."""
    return ModelContext(SHAPE, LATENT, prior or Gauss(LATENT), network or Small())


def seeded(seed: int) -> Generator:
    """A CPU generator."""
    return Generator().manual_seed(seed)


def seeded_noise(seed: int) -> Noise:
    """Noise on the CPU."""
    return Noise(seeded(seed))


def squares(n: int, seed: int = 0) -> Tensor:
    """Images with one bright 3x3 square on black, `(n, 1, 8, 8)` float32 in [0, 1]: two numbers describe each."""
    corner = torch.randint(0, SHAPE[1] - 3, (n, 2), generator=seeded(seed))
    row, column = torch.meshgrid(torch.arange(SHAPE[1]), torch.arange(SHAPE[2]), indexing="ij")
    down, right = row - corner[:, 0].view(-1, 1, 1), column - corner[:, 1].view(-1, 1, 1)
    return ((down >= 0) & (down < 3) & (right >= 0) & (right < 3)).float().unsqueeze(1)


def fresh(factory: Callable[..., Model], context: ModelContext, **options: object) -> Model:
    """An untrained model in training mode, from the same weights at every call."""
    torch.manual_seed(0)  # the kit puts the global state back
    model = factory(context, **options)
    model.train()
    model.on_epoch_start(0)
    return model


def steps(
    model: Model,
    batches: Iterator[tuple[Tensor, Tensor]],
    *,
    learn: Callable[[str], bool] | None = None,
    until: Callable[[], bool] | None = None,
) -> list[Mapping[str, float]]:
    """Train as the loop does, with the optimizers for which `learn`, or all; the losses by optimizer of each step.

    `until` is asked after every `PERIOD` steps, and ends the training where it is true.
    """
    configs = model.configure_optimizers()
    optimizers = {name: config.optimizer(config.parameters) for name, config in configs.items()}
    history: list[Mapping[str, float]] = []
    for step, (x, z) in enumerate(batches):
        values: dict[str, float] = {}
        for loss in model.training_step(x, z, seeded_noise(1000 + step)):
            values[loss.optimizer] = float(loss.value.detach())
            if learn is None or learn(loss.optimizer):
                optimizers[loss.optimizer].zero_grad(set_to_none=True)
                loss.value.backward(inputs=configs[loss.optimizer].parameters)
                optimizers[loss.optimizer].step()
        history.append(values)
        if until is not None and len(history) % PERIOD == 0 and until():
            break
    return history


def losses(model: Model, x: Tensor, z: Tensor, seed: int = 5) -> dict[str, Tensor]:
    """Each optimizer's loss with no step in between, detached."""
    return {loss.optimizer: loss.value.detach() for loss in model.training_step(x, z, seeded_noise(seed))}


# ---------------------------------------------------------------- a network with controlled codes

SPAN = 40.0
"""Codes in [-20, 20] for pixels in [0, 1]."""


@dataclass
class Offset:
    """A number added to every code; shared by all encoders of a `ControlledNetwork`."""

    value: float = 0.0


class Encoder(nn.Module):
    """Reads the first `outputs` pixels; the gain, a parameter that starts at 1, lets gradients arrive."""

    def __init__(self, outputs: int, latent_dim: int, offset: Offset) -> None:
        """`latent_dim` leading outputs are shifted by the offset; what follows (log variances) is not."""
        super().__init__()
        self.outputs, self.latent_dim, self.offset = outputs, latent_dim, offset
        self.gain = nn.Parameter(torch.ones(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w) -> (n, outputs)`."""
        raw = SPAN * (x.flatten(1)[:, : self.outputs] - 0.5)
        shift = torch.zeros(self.outputs, device=x.device)
        shift[: self.latent_dim] = self.offset.value
        code: Tensor = self.gain * (raw + shift)
        return code


class Decoder(nn.Module):
    """Grey code_images, whatever the code: a reconstruction cost that the code's offset cannot change."""

    def __init__(self, latent_dim: int, shape: Shape) -> None:
        super().__init__()
        self.linear = nn.Linear(latent_dim, math.prod(shape))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.shape = shape

    def forward(self, z: Tensor) -> Tensor:
        """`(n, d) -> (n, c, h, w)` logits."""
        logits: Tensor = self.linear(z)
        return logits.view(-1, *self.shape)


@dataclass
class ControlledNetwork(Network):
    """The network; `offset.value` shifts the codes of every encoder it made."""

    shape: Shape
    latent_dim: int
    offset: Offset = field(default_factory=Offset)

    def encoder(self, outputs: int) -> nn.Module:
        """An `Encoder`, shifted by `offset`."""
        return Encoder(outputs, self.latent_dim, self.offset)

    def decoder(self, latent_dim: int) -> nn.Module:
        """A `Decoder` of grey images."""
        return Decoder(latent_dim, self.shape)


def code_images(codes: Tensor, shape: Shape) -> Tensor:
    """Images in [0, 1] that hold the codes, `(n, d) -> (n, c, h, w)`; every other pixel is 1/2, which reads as 0."""
    x: Tensor = torch.full((len(codes), math.prod(shape)), 0.5)
    x[:, : codes.shape[1]] = (codes / SPAN + 0.5).clamp(0.0, 1.0)
    image: Tensor = x.unflatten(1, shape)
    return image
