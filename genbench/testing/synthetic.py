"""A synthetic evaluation for the checks of metrics: the kit sets its samples, codes and reconstructions."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.api import DataConfig, Images, Model, ModelContext, Shape, TrainingStats
from genbench.data.images import to_float, with_content
from genbench.errors import MetricError, NotApplicableError
from genbench.evaluation.evaluation import DataEvaluation, finite
from genbench.testing.fixtures import Gauss, Small, seeded

SHAPE: Shape = (1, 28, 28)
LATENT = 8
TRAIN, TEST, VALIDATION = 800, 500, 100
CLASSES = tuple(f"mnist/{digit}" for digit in range(10))
"""The classes of the pictures, which resemble no digit: for metrics that need the classes of a classifier."""
FACTORS = ("class", "light")
"""What is known of each picture: a discrete factor and a continuous one."""


@dataclass(frozen=True)
class Scene:
    """The inputs of a metric.

    `samples` are "real", "noise" or "dim" pictures, or the "references"; `shift` is the codes' in standard deviations,
    `error` the reconstructions', `order` the seed of a permutation (0: none). `nan` puts NaN into codes and
    reconstructions, `strided` images are not contiguous; `test` (0: 500) and `train` count images.
    """

    samples: str = "real"
    shift: float = 0.0
    error: float = 0.05
    order: int = 0
    nan: bool = False
    strided: bool = False
    test: int = 0
    train: int = TRAIN


def pictures(n: int, seed: int) -> Tensor:
    """Smooth blobs on black, `(n, 1, 28, 28)` uint8."""
    coarse = torch.rand(n, 1, 5, 5, generator=seeded(seed)).square()
    smooth = F.interpolate(coarse, size=SHAPE[1:], mode="bilinear", align_corners=True)
    return (smooth * 255).to(torch.uint8)


def strided(images: Tensor) -> Tensor:
    """The same images as every second one of a larger tensor: equal, and not contiguous."""
    return torch.stack([images, 255 - images], 1)[:, 0]


def noise(n: int, seed: int) -> Tensor:
    """Uniform noise, `(n, 1, 28, 28)` uint8."""
    return torch.randint(0, 256, (n, *SHAPE), generator=seeded(seed), dtype=torch.uint8)


def real_images(train: int, test: int, validation: int, *, test_seed: int = 2) -> Images:
    """Splits of pictures, as many as asked for; each has a class, its number's remainder by ten, and two factors."""
    splits = [pictures(train, 1), pictures(test, test_seed), pictures(validation, 3)]
    labels = [torch.arange(len(split)) % len(CLASSES) for split in splits]
    factors = [
        dict(zip(FACTORS, (classes, split.float().mean((1, 2, 3))), strict=True))
        for split, classes in zip(splits, labels, strict=True)
    ]
    images = Images(splits[0], splits[1], splits[2], labels[0], labels[1], labels[2], class_names=CLASSES)
    return with_content(
        replace(images, train_factors=factors[0], test_factors=factors[1], validation_factors=factors[2])
    )


class Synthetic(DataEvaluation):
    """An evaluation of a scene; nothing was trained.

    `asked` names the fields of the scene on which something depended that was asked for.
    """

    def __init__(self, scene: Scene, memory: dict[str, Any] | None = None) -> None:
        images = real_images(scene.train, scene.test or TEST, VALIDATION)
        if scene.order:
            order = self._permutation(scene, len(images.test))
            assert images.test_labels is not None
            factors = {name: values[order] for name, values in images.test_factors.items()}
            images = replace(
                images, test=images.test[order], test_labels=images.test_labels[order], test_factors=factors
            )
        if scene.strided:
            images = replace(images, train=strided(images.train), test=strided(images.test))
        folder = Path(tempfile.gettempdir())
        super().__init__(
            ModelContext(SHAPE, LATENT, Gauss(LATENT), Small(SHAPE)),
            images,
            seed=0,
            device=torch.device("cpu"),
            training=TrainingStats(1.0, 1000, 1000, "cpu", 1, 2**20, 1e9),
            data_config=DataConfig(folder, folder),
            memory={} if memory is None else memory,
        )
        self.scene, self.asked = scene, set[str]()

    @staticmethod
    def _permutation(scene: Scene, n: int) -> Tensor:
        return torch.randperm(n, generator=seeded(scene.order)) if scene.order else torch.arange(n)

    @property
    def model(self) -> Model:
        """Raises `NotApplicableError`: nothing was trained."""
        raise NotApplicableError("the kit's evaluation has no model")

    def _spoilt(self, values: Tensor) -> Tensor:
        if self.scene.nan:
            values[len(values) // 2] = torch.nan
        return values

    def codes(self, n: int) -> Tensor:
        """Normal draws, shifted."""
        self.asked.add("shift")
        n = len(self.held_out(n))
        draws = torch.randn(n, LATENT, generator=seeded(11))[self._permutation(self.scene, n)]
        return self._spoilt(draws + self.scene.shift)

    def training_codes(self, n: int) -> Tensor:
        """Normal draws, shifted."""
        self.asked.add("shift")
        n = len(self.training_images(n))
        return self._spoilt(torch.randn(n, LATENT, generator=seeded(12)) + self.scene.shift)

    def decode(self, z: Tensor) -> Tensor:
        """Pictures that do not depend on the codes."""
        return self.samples(len(z))

    def reconstructions(self, n: int) -> Tensor:
        """The held-out images, blended with noise by the scene's error."""
        self.asked.add("error")
        x = to_float(self.held_out(n))
        made = (1 - self.scene.error) * x + self.scene.error * to_float(noise(len(x), 13))
        return finite(self._spoilt(made), "reconstructions")

    def samples(self, n: int) -> Tensor:
        """Pictures as the scene says."""
        self.asked.add("samples")
        if self.scene.samples == "references":
            if n > len(self.references):
                raise MetricError(f"{n} samples were asked for; this evaluation has {len(self.references)}")
            return self.references[:n]
        made = noise(n, 14) if self.scene.samples == "noise" else pictures(n, 14)
        made = (made // 3 if self.scene.samples == "dim" else made)[self._permutation(self.scene, n)]
        return strided(made) if self.scene.strided else made
