"""Controls and a network with errors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from genbench.api import ComponentSpec, Control, Evaluation, Images, ModelContext, Network, Shape
from genbench.hookspecs import hookimpl
from genbench_controls import MeanImage, NoiseImages
from genbench_mlp import MLP


class Peeping(MeanImage):
    """Fitted to the held-out images."""

    def fit(self, images: Images, setting: ModelContext) -> None:
        super().fit(Images(images.test, images.test, images.test), setting)


class Unseeded(NoiseImages):
    """Another draw at every call."""

    def sample(self, n: int, evaluation: Evaluation) -> Tensor:
        return torch.randint(0, 256, (n, *evaluation.context.shape), dtype=torch.uint8)


class Reordered(NoiseImages):
    """The first samples depend on how many are asked for."""

    def sample(self, n: int, evaluation: Evaluation) -> Tensor:
        return super().sample(n, evaluation).flip(0)


class Floats(NoiseImages):
    """Images in [0, 1] that were never rounded."""

    def sample(self, n: int, evaluation: Evaluation) -> Tensor:
        return super().sample(n, evaluation) / 255.0


class Centred(nn.Module):
    def forward(self, code: Tensor) -> Tensor:
        return code - code.mean(0)


class Leaky(Network):
    """Batch statistics in evaluation mode too."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.inner = shape, MLP(shape)

    def encoder(self, outputs: int) -> nn.Module:
        return nn.Sequential(self.inner.encoder(outputs), Centred())

    def decoder(self, latent_dim: int) -> nn.Module:
        return self.inner.decoder(latent_dim)


class Squashed(Network):
    """A decoder that ends in a sigmoid, to which models add another."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.inner = shape, MLP(shape)

    def encoder(self, outputs: int) -> nn.Module:
        return self.inner.encoder(outputs)

    def decoder(self, latent_dim: int) -> nn.Module:
        return nn.Sequential(self.inner.decoder(latent_dim), nn.Sigmoid())


@hookimpl
def genbench_controls() -> Iterable[ComponentSpec[Control]]:
    for name, kind in {"peeping": Peeping, "unseeded": Unseeded, "reordered": Reordered, "floats": Floats}.items():
        yield ComponentSpec(name=name, description="Faulty", factory=kind)


@hookimpl
def genbench_networks() -> Iterable[ComponentSpec[Network]]:
    yield ComponentSpec(name="leaky", description="Faulty", factory=Leaky)
    yield ComponentSpec(name="squashed", description="Faulty", factory=Squashed)
