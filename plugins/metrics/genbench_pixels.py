"""The metrics `pixel-w2` and `pixel-sw`: distance of samples from held-out images in pixels (arXiv:1804.01947).

The distance between samples of images is mostly its *floor*, the distance of two samples of real images; images
that are alike, such as copies of the mean image, fall below it. The raw distance therefore ranks nothing; the `excess`
does.
"""

from __future__ import annotations

import math
import statistics
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Generator, Tensor

from genbench.api import (
    ComponentSpec,
    DataConfig,
    DatasetInfo,
    Evaluation,
    Measurement,
    Metric,
    Noise,
    Option,
    Piece,
    Prior,
)
from genbench.data.images import to_float
from genbench.distances import random_projections, wasserstein_distance
from genbench.errors import UsageError
from genbench.hookspecs import hookimpl
from genbench_latent.blocks import Distance, across, as_given, block_table, excess, variances, within

FLOORS = 4
"""Disjoint sets of training images, as many as there are, whose distances from the held-out ones are the floor."""

DIRECTIONS_SEED = 1804_01947
"""Seed of the directions of `pixel-sw`: the same in every run."""

SQUARED = "\N{SUPERSCRIPT TWO}"
LEAST = 16
"""Images of each set: four in each of four blocks."""

N = Option("held-out images, and samples", reference="ours", low=LEAST)
BLOCKS = Option("blocks of each sample: for the debiased distance and its standard error", reference="ours", low=4)


@dataclass(frozen=True, kw_only=True)
class PixelDistance(Metric):
    """A 2-Wasserstein distance between images as points of [0, 1]^(c h w), and its square without the floor.

    The floor is measured: held-out images against training images, the value of a model that samples the data's law.
    Where the splits differ in law (people in CelebA) the floor contains that difference.
    """

    n: int
    blocks: int

    name: ClassVar[str]
    method: ClassVar[str]
    label: ClassVar[str]

    @abstractmethod
    def distance(self, dim: int) -> Distance:
        """The squared distance between samples of points in R^dim."""

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse more images than there are, and blocks of fewer than four."""
        there = min(info.test, info.train)
        if there < LEAST:
            raise UsageError(f"{self.name} needs {LEAST} test and training images, and there are {there}")
        if self.n > there:
            settings = " ".join(f"--set {self.name}.{option}={value}" for option, value in self.fit_to(info).items())
            raise UsageError(
                f"{self.name} compares {self.n} images and the smaller of the test and training sets has {there}: "
                f"{settings}"
            )
        if self.n < 4 * self.blocks:
            raise UsageError(
                f"{self.name}: {self.n} images in {self.blocks} blocks: --set {self.name}.n={4 * self.blocks}"
            )

    def fit_to(self, info: DatasetInfo) -> Mapping[str, int]:
        """As many images as the smaller of the test and training sets has, in blocks that are large enough."""
        n = min(self.n, info.test, info.train)
        fitted = {"n": n, "blocks": min(self.blocks, n // 4)}
        return {} if n < LEAST else {name: x for name, x in fitted.items() if x != getattr(self, name)}

    def counts_needed(self, info: DatasetInfo) -> Mapping[Piece, int]:
        """`n` samples."""
        return {"samples": self.n}

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """The distance beside its floor, then the excess beside that of training images."""
        e, key = evaluation, f"pixels {self!r} {evaluation.split}"
        real = _points(e.held_out(self.n))
        distance, cut = self.distance(real.shape[1]), len(real) // self.blocks
        references = e.cache_for_dataset(f"{key} within", lambda: within(distance, _cut(real, cut, self.blocks)))

        def compared(points: Tensor) -> tuple[float, Tensor]:
            xs, ys = _cut(points, cut, self.blocks), _cut(real, cut, self.blocks)
            whole = distance.between(distance.prepare(points), distance.prepare(real))
            return math.sqrt(max(whole, 0.0)), block_table(within(distance, xs), across(distance, xs, ys), references)

        def floors() -> tuple[list[float], list[float]]:
            count = min(FLOORS, len(e.images.train) // self.n)
            pairs = [compared(_points(block)) for block in e.training_images(self.n * count).split(self.n)]
            return [raw for raw, _ in pairs], [float(excess(table, as_given(self.blocks))) for _, table in pairs]

        raw_floor, excess_floor = e.cache_for_dataset(f"{key} floors", floors)
        raw, table = compared(_points(e.samples(self.n)))
        value, noise = float(excess(table, as_given(self.blocks))), variances(table)
        unit = "pixel units"
        yield self._measurement(e, "", raw, raw_floor, unit, self.label, None)
        label = f"{self.label}{SQUARED} excess"
        yield self._measurement(e, "excess", value, excess_floor, f"{unit}^2", label, math.sqrt(noise.total))

    def _measurement(
        self, e: Evaluation, component: str, value: float, floors: list[float], unit: str, label: str, se: float | None
    ) -> Measurement:
        protocol = e.protocol(
            method=self.method + (", centred between blocks (arXiv:2203.11627)" if component else ""),
            references=self.n,
            generated=self.n,
            values="pixels in [0, 1], samples rounded to uint8",
            dtype="float64",
            detail=f"{self!r}; floor: training images",
        )
        return Measurement(
            value=value,
            unit=unit,
            higher_is_better=False if component else None,
            n=self.n,
            protocol=protocol,
            component=component,
            role="sample quality" if component else "",
            floor=statistics.fmean(floors),
            floor_sd=statistics.stdev(floors) if len(floors) > 1 else None,
            label=label,
            se=se,
        )


@dataclass(frozen=True, kw_only=True)
class PixelW2(PixelDistance):
    """Exact 2-Wasserstein distance."""

    n: Annotated[int, N] = 1000
    blocks: Annotated[int, BLOCKS] = 4

    name: ClassVar[str] = "pixel-w2"
    method: ClassVar[str] = "exact 2-Wasserstein distance of pixels, network simplex"
    label: ClassVar[str] = "pixel W2"

    def distance(self, dim: int) -> Distance:
        """W2^2."""
        return Distance(lambda block: block, lambda u, v: wasserstein_distance(u, v) ** 2)


@dataclass(frozen=True, kw_only=True)
class PixelSW(PixelDistance):
    """Sliced 2-Wasserstein distance over fixed directions."""

    n: Annotated[int, N] = 1000
    blocks: Annotated[int, BLOCKS] = 4
    projections: Annotated[int, Option("directions, the same for all runs", reference="ours", low=1)] = 500

    name: ClassVar[str] = "pixel-sw"
    method: ClassVar[str] = "sliced 2-Wasserstein distance of pixels"
    label: ClassVar[str] = "pixel SW2"

    def distance(self, dim: int) -> Distance:
        """SW2^2: of sorted projections, the mean squared difference (arXiv:1804.01947, algorithm 1)."""
        noise = Noise(Generator().manual_seed(DIRECTIONS_SEED))
        theta = random_projections(self.projections, dim, noise, torch.float64)
        return Distance(
            lambda block: torch.sort(theta @ block.T, dim=1).values, lambda u, v: float((u - v).square().mean())
        )


def _points(images: Tensor) -> Tensor:
    """Images as points in float64 on the CPU, `(n, c, h, w)` uint8 -> `(n, c h w)`."""
    return to_float(images.cpu()).flatten(1).double()


def _cut(points: Tensor, size: int, count: int) -> list[Tensor]:
    """Blocks of one size; the last points may belong to none."""
    return list(points.split(size)[:count])


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """The components."""
    about = "2-Wasserstein distance of samples to held-out images, in pixels"
    yield ComponentSpec(name="pixel-w2", description=f"Exact {about}", factory=PixelW2, reference="arXiv:1804.01947")
    yield ComponentSpec(name="pixel-sw", description=f"Sliced {about}", factory=PixelSW, reference="arXiv:1804.01947")
