"""Tests for copies of training images: C_T by ranks of distances, and the share of authentic samples (AuthPct).

Both compare samples with held-out images, which are new, in pixels or in features, and both have a p-value of "the
samples are no nearer to the training images than new images are". What they find, and which underfitted models they
take for copiers, is measured in reports/trust/memorization.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Evaluation, Measurement, Metric, Option
from genbench.errors import MetricError
from genbench.hookspecs import hookimpl
from genbench_fid import LAYER, WEIGHTS
from genbench_nearest import SPACE, TRAINING, MemorizationMetric, N, binomial_error, more_often, nearest_rows

LEAST_IN_CELL = 20
"""Samples and held-out images of a cell that counts: below it the z-score is not normal."""

FITTED = 10_000
"""Training images, at most, to which the cells are fitted."""

BLOCK = 4_096
"""Points that are assigned to cells at once."""


@dataclass(frozen=True)
class CopyingTest:
    """C_T, its standard deviation under the null and standard error over draws of the samples, and cells that count."""

    value: float
    null_sd: float
    se: float
    cells: int

    @property
    def p_value(self) -> float:
        """The probability of so small a value where the samples are new draws of the data's law."""
        return NormalDist().cdf(self.value / self.null_sd)


class DataCopying(MemorizationMetric):
    r"""The data-copying test C_T (arXiv:2004.05675).

    The training images are cut into cells by k-means. In each, the distances of the samples and of the held-out images
    to the nearest training image of that cell are compared by a Mann-Whitney test; C_T is the mean of its z-scores over
    cells, weighted by the held-out images. Far below 0 the samples are copies, far above it the model underfits. A
    mean of z-scores varies less than one of them: the p-value, of copying alone, takes that into account.

    Ours: k-means on at most 10,000 training images, no projection of the features to 64 components, no continuity
    correction, and only cells with 20 samples and 20 held-out images.
    """

    name: ClassVar[str] = "data-copying"
    least = LEAST_IN_CELL

    def __init__(
        self,
        *,
        features: Annotated[str, SPACE] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        n: Annotated[int, N] = 1000,
        training: Annotated[int, TRAINING] = 0,
        cells: Annotated[int, Option("cells of the training images", reference="arXiv:2004.05675", low=1)] = 10,
    ) -> None:
        super().__init__(features, layer, weights, n, training)
        self.cells = cells

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """C_T; a perfect model has 0 on average."""
        points = self.points(e)

        def prepared() -> tuple[Cells, list[Tensor]]:
            cells = Cells(points.training, self.cells)
            return cells, cells.distances(points.held_out)

        key = f"data-copying/{e.split}/{e.images.sha256}/{points.key}/{self.cells}"
        cells, held_out = e.cache_for_dataset(key, prepared)
        result = copying_test(cells.distances(points.samples), held_out)
        yield Measurement(
            value=result.value,
            unit="z-score",
            higher_is_better=None,
            n=self.n,
            protocol=self.space_protocol(
                e,
                points,
                "C_T: mean of z-scores of Mann-Whitney tests by cells, distances to the nearest training image",
                f"{self.cells} cells of k-means, those with {LEAST_IN_CELL} samples and held-out images",
            ),
            floor=0.0,
            floor_sd=result.null_sd,
            se=result.se,
            p_value=result.p_value,
            label=f"C_T ({points.label})",
            caution=self.caution(
                points.extractor,
                f"only {result.cells} of {self.cells} cells have enough images" * (result.cells < self.cells),
            ),
        )


class Cells:
    """Cells of k-means around training images `(m, d)`, and the training images of each."""

    def __init__(self, training: Tensor, count: int) -> None:
        from sklearn.cluster import KMeans

        fitted = training[:: math.ceil(len(training) / FITTED)].float().cpu()
        if len(torch.unique(fitted, dim=0)) < count:
            raise MetricError(f"data-copying: {count} cells of training images of which fewer are different")
        means = KMeans(count, n_init=3, random_state=0).fit(fitted.numpy())
        self.centers = torch.from_numpy(means.cluster_centers_).float().to(training.device)
        self.training, self.members = training, self.assigned(training)

    def assigned(self, x: Tensor) -> Tensor:
        """The cell of each point, `(n, d) -> (n,)`."""
        middle = self.centers.mean(0)
        centers = self.centers - middle
        offsets = centers.square().sum(1)
        blocks = [(offsets - 2.0 * (rows.float() - middle) @ centers.T).argmin(1) for rows in x.split(BLOCK)]
        return torch.cat(blocks)

    def distances(self, x: Tensor) -> list[Tensor]:
        """By cell, the distances of its points to the nearest training image in it, `(n, d) -> k times (n_k,)`."""
        cells, nearest = self.assigned(x.to(self.centers.device)), []
        for cell in range(len(self.centers)):
            inside, rows = x[cells.to(x.device) == cell], self.training[self.members == cell]
            nearest.append(nearest_rows(inside, rows)[0].sqrt().cpu() if len(inside) and len(rows) else torch.zeros(0))
        return nearest


def copying_test(samples: list[Tensor], held_out: list[Tensor]) -> CopyingTest:
    """C_T of distances by cell; see `DataCopying`."""
    weighted, squares, errors, total, used = 0.0, 0.0, 0.0, 0.0, 0
    for q, p in zip(samples, held_out, strict=True):
        m, n = len(q), len(p)
        if min(m, n) < LEAST_IN_CELL:
            continue
        # The share of held-out distances below that of a sample, ties by half; its sum over samples is U / n.
        ordered = p.sort().values
        below = (torch.searchsorted(ordered, q) + torch.searchsorted(ordered, q, right=True)).double() / (2.0 * n)
        scale = m * n / math.sqrt(m * n * (m + n + 1) / 12.0)
        weighted += n * scale * (float(below.mean()) - 0.5)
        squares += n**2
        errors += (n * scale) ** 2 * float(below.var()) / m
        total += n
        used += 1
    if not used:
        raise MetricError(
            f"data-copying: no cell has {LEAST_IN_CELL} samples and {LEAST_IN_CELL} held-out images: take more images"
            " or fewer cells (--set data-copying.n=... or data-copying.cells=...), or all samples are far from the data"
        )
    return CopyingTest(weighted / total, math.sqrt(squares) / total, math.sqrt(errors) / total, used)


class AuthPct(MemorizationMetric):
    """The share of authentic samples (arXiv:2102.08921, AuthPct in later work).

    A sample is authentic where it is farther from its nearest training image than that image is from its own nearest
    one. Held-out images are not all authentic either: their share is the floor, and the p-value is Fisher's exact one
    of no fewer authentic samples than held-out images. Samples that are bad, and so far from everything, are authentic
    as well: a high share is no merit.
    """

    name: ClassVar[str] = "authpct"

    def __init__(
        self,
        *,
        features: Annotated[str, SPACE] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        n: Annotated[int, N] = 1000,
        training: Annotated[int, TRAINING] = 0,
    ) -> None:
        super().__init__(features, layer, weights, n, training)

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The share; its floor is that of held-out images."""
        points = self.points(e)
        key = f"authpct/{e.split}/{e.images.sha256}/{points.key}"
        real = e.cache_for_dataset(key, lambda: authentic(points.held_out, points.training))
        own = authentic(points.samples, points.training)
        share, usual = (float(x.double().mean()) for x in (own, real))
        yield Measurement(
            value=share,
            unit="share of samples",
            higher_is_better=None,
            n=self.n,
            protocol=self.space_protocol(
                e, points, "share farther from the nearest training image than that is from its own nearest one", ""
            ),
            floor=usual,
            floor_sd=binomial_error(usual, len(real)),
            se=binomial_error(share, self.n),
            p_value=more_often(~own, ~real),
            label=f"AuthPct ({points.label})",
            caution=self.caution(points.extractor),
        )


def authentic(x: Tensor, training: Tensor) -> Tensor:
    """Which points are authentic, `(n, d), (m, d) -> (n,)` bool on the CPU; see `AuthPct`."""
    squares, place = nearest_rows(x, training)
    places, back = place.unique(return_inverse=True)
    between, _ = nearest_rows(training.to(x.device)[places], training, excluded=places)
    return (between[back] < squares).cpu()


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """C_T and AuthPct."""
    yield ComponentSpec(
        name="data-copying",
        aliases=("ct", "c_t", "c-t"),
        description="Are samples nearer to training images than held-out images are (C_T)",
        factory=DataCopying,
        reference="arXiv:2004.05675",
    )
    yield ComponentSpec(
        name="authpct",
        aliases=("authenticity",),
        description="Share of samples that lie no nearer to a training image than its own neighbour",
        factory=AuthPct,
        reference="arXiv:2102.08921",
    )
