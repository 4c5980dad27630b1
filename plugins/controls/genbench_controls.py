"""Controls: the scores of a perfect model, a copying one, a linear one, a constant, noise and an untrained network.

They give a column of numbers its scale. None of them is a model: `held-out` and `replay` return real images, so a
number that ranks `replay` above every model does not tell generation from memorization.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor, nn

from genbench.api import (
    ComponentSpec,
    Control,
    DatasetInfo,
    Evaluation,
    Images,
    LatentControl,
    ModelContext,
    Option,
    Prior,
)
from genbench.data.images import to_float, to_uint8
from genbench.errors import NotApplicableError, UnsupportedError
from genbench.hookspecs import hookimpl

BLOCK = 2000
"""Images that are floats at once, and noise images of one draw."""


class HeldOut(Control):
    """The held-out images themselves: the end of every scale, by construction and not by merit."""

    def sample(self, n: int, evaluation: Evaluation) -> Tensor:
        """The first n held-out images, `(n, c, h, w)`."""
        enough(n, evaluation.references, "held-out")
        return evaluation.held_out(n)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The images."""
        return x


class Replay(Control):
    """Training images, drawn without replacement: a model that memorizes its data.

    It has no reconstruction: the nearest training image would be one, at the price of all pairs of images.
    """

    def sample(self, n: int, evaluation: Evaluation) -> Tensor:
        """n training images in an order drawn from the seed, `(n, c, h, w)`."""
        training = evaluation.images.train
        enough(n, training, "training")
        order = torch.randperm(len(training), generator=evaluation.generator("controls/replay"))
        return training[order[:n].to(training.device)]


class MeanImage(Control):
    """The mean of the training images: the least squared error of a constant."""

    def fit(self, images: Images, context: ModelContext) -> None:
        """One number for each pixel."""
        self.mean = mean_and_covariance(images.train)[0].view(1, *context.shape).float()
        self.parameters = self.mean.numel()

    def sample(self, n: int, evaluation: Evaluation) -> Tensor:
        """n times the mean, rounded, `(n, c, h, w)`."""
        return to_uint8(self.mean.clone()).expand(n, -1, -1, -1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean for each image."""
        return self.mean.to(x.device).expand_as(x)


class NoiseImages(Control):
    """Independent pixels, uniform on 0..255: images of the right size and nothing else."""

    def sample(self, n: int, evaluation: Evaluation) -> Tensor:
        """n images of noise, `(n, c, h, w)`, drawn in blocks so that the first ones do not depend on n."""
        draws, shape = evaluation.generator("controls/noise"), (BLOCK, *evaluation.context.shape)
        blocks = [torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8) for _ in range(0, n, BLOCK)]
        return torch.cat(blocks)[:n]


class PCA(LatentControl):
    r"""The linear autoencoder of least squared error, with a Gaussian of diagonal covariance on its codes.

    .. math:: z = \sigma \Lambda^{-1/2} V^T (x - \mu) + m, \qquad x = \mu + V \Lambda^{1/2} (z - m) / \sigma

    with the mean mu, the first d axes V and their variances Lambda of the training images (probabilistic PCA without
    its noise; Tipping and Bishop, 1999). m and sigma are the prior's mean and standard deviation, so that codes and
    prior agree in their first two moments, coordinate by coordinate, whatever the prior is: for N(0, I) they are
    whitened. Images are cut to [0, 1], which only lowers their error.
    """

    def __init__(self, *, images: Annotated[int, Option("training images fitted to; 0: all", low=0)] = 0) -> None:
        self.images = images

    def validate(self, info: DatasetInfo, prior: Prior) -> None:
        """Refuse more axes than images and pixels can have, and a prior without spread."""
        count = min(self.images or info.train, info.train)
        most = min(math.prod(info.shape), count - 1)
        if prior.latent_dim > most:
            raise UnsupportedError(
                f"{count} images of {math.prod(info.shape)} values have at most {most} principal axes, not"
                f" {prior.latent_dim}: a smaller --latent-dim, or other --controls"
            )
        if not bool((prior.variance > 0).all()):
            raise UnsupportedError("the prior does not vary in every coordinate, and codes cannot be scaled to it")

    def fit(self, images: Images, context: ModelContext) -> None:
        """Mean, axes and variances, computed in float64; `UnsupportedError` where the images' rank is too low."""
        chosen, d, device = images.train[: self.images or None], context.latent_dim, images.train.device
        self.shape = context.shape
        mean, variances, axes = principal_axes(chosen, d)
        self.mean, self.axes, self.deviations = mean.float(), axes.float(), variances.sqrt().float()
        self.location = context.prior.mean.to(device)
        self.scale = context.prior.variance.sqrt().to(device)
        self.parameters = sum(t.numel() for t in (mean, axes, variances))

    def encode(self, x: Tensor) -> Tensor:
        """Standardised coordinates along the axes, `(n, c, h, w) -> (n, d)`."""
        return self.location + self.scale * ((x.flatten(1) - self.mean) @ self.axes.T) / self.deviations

    def decode(self, z: Tensor) -> Tensor:
        """The images at these coordinates, `(n, d) -> (n, c, h, w)`, cut to [0, 1]."""
        return self.linear(z).clamp(0.0, 1.0)

    def linear(self, z: Tensor) -> Tensor:
        """The same before it is cut."""
        coordinates = (z - self.location) / self.scale * self.deviations
        return (self.mean + coordinates @ self.axes).view(-1, *self.shape)


class Untrained(LatentControl):
    """The study's network with the initial weights of an autoencoder of this seed."""

    def fit(self, images: Images, context: ModelContext) -> None:
        """Draw the weights, encoder first, as `ae` does."""
        device = images.train.device
        self.encoder: nn.Module = context.network.encoder(context.latent_dim).to(device).eval()
        self.decoder: nn.Module = context.network.decoder(context.latent_dim).to(device).eval()
        self.parameters = sum(p.numel() for network in (self.encoder, self.decoder) for p in network.parameters())

    def encode(self, x: Tensor) -> Tensor:
        """The encoder's output, `(n, c, h, w) -> (n, d)`."""
        code: Tensor = self.encoder(x)
        return code

    def decode(self, z: Tensor) -> Tensor:
        """The sigmoid of the decoder's logits, `(n, d) -> (n, c, h, w)`."""
        return torch.sigmoid(self.decoder(z))


def enough(n: int, images: Tensor, name: str) -> None:
    """`NotApplicableError` where n images are asked for and there are fewer."""
    if n > len(images):
        raise NotApplicableError(f"{n} samples are asked for, and there are {len(images)} {name} images")


def mean_and_covariance(images: Tensor, *, gram: bool = False) -> tuple[Tensor, Tensor | None]:
    """Mean `(p,)` of flattened images in [0, 1] in float64, and on demand their p x p covariance (divisor n)."""
    total = sum((_flat(block).sum(0) for block in images.split(BLOCK)), torch.zeros((), dtype=torch.float64))
    mean = total / len(images)
    if not gram:
        return mean, None
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=images.device)
    for block in images.split(BLOCK):
        centred = _flat(block) - mean
        covariance += centred.T @ centred
    return mean, covariance / len(images)


def principal_axes(images: Tensor, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean `(p,)`, the d largest variances (divisor n) and their orthonormal axes `(d, p)`, largest first, float64.

    Of the covariance, or where images are fewer than values of their n x n products, which have the same spectrum.
    """
    n, p, device = len(images), images[0].numel(), images.device
    from scipy.linalg import eigh  # half a second to import

    mean, matrix = mean_and_covariance(images, gram=n > p)
    if matrix is None:
        centred = _flat(images) - mean
        matrix = centred @ centred.T / n
    variances, vectors = (
        torch.from_numpy(array).to(device)
        for array in eigh(matrix.cpu().numpy(), subset_by_index=(len(matrix) - d, len(matrix) - 1))
    )
    variances, vectors = variances.flip(0), vectors.flip(1)
    small = variances <= variances[0] * max(n, p) * torch.finfo(torch.float64).eps
    if bool(small.any()):
        raise UnsupportedError(
            f"the training images vary along {int((~small).sum())} axes, not {d}: a smaller --latent-dim"
        )
    axes = vectors.T if n > p else (vectors.T @ centred) / (n * variances).sqrt()[:, None]
    signs = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # an eigenvector's sign is arbitrary
    return mean, variances, axes * signs


def _flat(images: Tensor) -> Tensor:
    return to_float(images).flatten(1).double()


@hookimpl
def genbench_controls() -> Iterable[ComponentSpec[Control]]:
    """From the best that a number can be to the worst."""
    yield ComponentSpec(name="held-out", description="The held-out images against themselves", factory=HeldOut)
    yield ComponentSpec(name="replay", description="Training images, replayed: a copycat", factory=Replay)
    yield ComponentSpec(
        name="pca", description="Principal components, codes scaled to the prior: a linear model", factory=PCA
    )
    yield ComponentSpec(name="untrained", description="The study's network before any training", factory=Untrained)
    yield ComponentSpec(name="mean-image", description="The mean training image, always", factory=MeanImage)
    yield ComponentSpec(name="noise", description="Independent uniform pixels", factory=NoiseImages)
