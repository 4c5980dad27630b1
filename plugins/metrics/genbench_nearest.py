"""Distance to the nearest training image, so that a model which replays its training set does not look like the winner.

Limits of a pixel distance. A small distance is no memorisation: blurred averages lie nearer to the training
images than new real images do, since the mean of a neighbourhood is near to all of it. A large one is no novelty: a
copy that is shifted by a pixel or brightened is far away. What is reported beyond the mean is the share of samples so
near to a training image that nothing but a copy explains it. At a tenth of the held-out images' median distance, of 300
of MNIST's training images all count that went through JPEG at quality 90 and 5 % at quality 75, and of 1,000 held-out
or slightly blurred ones none. How many copies this and the metrics of `genbench_copying` and `genbench_fld` find, in
pixels and in features, is measured in reports/trust/memorization.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genbench.api import (
    ComponentSpec,
    DataConfig,
    DatasetInfo,
    EvalProtocol,
    Evaluation,
    Measurement,
    Metric,
    Option,
    Piece,
    Prior,
)
from genbench.errors import MetricError, UsageError
from genbench.features import FeatureLayer
from genbench.hookspecs import hookimpl
from genbench_fid import LAYER, VALUES, WEIGHTS, FeatureMetric

PIXELS = "pixels"
SPACE = Option("pixels, or the extractor whose features are compared; auto: grey28 for 28x28 grey, else inception")
N = Option("samples, and at most as many held-out images", low=2)
TRAINING = Option("training images that are looked through; 0: all", low=0)

BLOCK_ELEMENTS = 2**23
"""Numbers in a block of training images, and at most in a block of distances: 32 MiB of float32 each."""

CANDIDATES = 4
"""Training images whose distance is computed again without cancellation, for each image."""


def nearest(images: Tensor, training: Tensor) -> Tensor:
    """Root mean squared pixel distance in [0, 1] of each image to its nearest training image.

    images: `(n, c, h, w)` uint8, training: `(m, c, h, w)` uint8 -> `(n,)` float64 on the CPU.
    """
    rows = images.flatten(1)
    squares, _ = nearest_rows(rows, training.flatten(1))
    return (squares / rows.shape[1]).sqrt().div(255.0).cpu()


def nearest_rows(x: Tensor, rows: Tensor, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Squared distance to the nearest of some rows, `(n,)` float64, and the place of that row, `(n,)` int64.

    x: `(n, d)`, rows: `(m, d)`, both uint8 or both float32; excluded: for each x the place of a row that is left out,
    `(n,)` int64, m > 1.

    The nearest are found by |y|^2 - 2 x.y in float32 about the (of uint8, rounded) mean, so that all values of images
    are integers: up to 2^24, which 28x28 images rarely exceed, nothing is rounded. Float32 cancels where points are
    equal, so the distances of the best few are then summed in integers or float64: a copy is at 0. Only where more than
    these few are nearer than float32 can tell apart is the result that of one of them.
    """
    rows = rows.to(x.device)
    # The mean of a spread of 1,000 will do: it need only be some point in the middle.
    centre = rows[:: max(1, len(rows) // 1000)].float().mean(0)
    centre = centre if rows.is_floating_point() else centre.round()
    queries = x.float() - centre
    scores = queries.new_full((len(x), 0), 0)
    chosen = x.new_full((len(x), 0), 0, dtype=torch.int64)
    step = max(1, BLOCK_ELEMENTS // max(rows.shape[1], len(x)))
    for start in range(0, len(rows), step):
        block = rows[start : start + step].float() - centre
        score = torch.addmm(block.square().sum(1)[None], queries, block.T, alpha=-2.0)
        if excluded is not None:
            (here,) = torch.where((excluded >= start) & (excluded < start + len(block)))
            score[here, excluded[here] - start] = math.inf
        best = score.topk(min(CANDIDATES, len(block)), dim=1, largest=False)
        scores, chosen = torch.cat([scores, best.values], 1), torch.cat([chosen, best.indices + start], 1)
        kept = scores.topk(min(CANDIDATES, scores.shape[1]), dim=1, largest=False)
        scores, chosen = kept.values, chosen.gather(1, kept.indices)
    squares = torch.stack([_squares(x, rows, column) for column in chosen.unbind(1)], 1).double()
    squares.masked_fill_(scores.isposinf(), math.inf)
    least = squares.min(1)
    return least.values, chosen.gather(1, least.indices[:, None])[:, 0]


def _squares(x: Tensor, rows: Tensor, column: Tensor) -> Tensor:
    """Sums of squared differences between x and chosen rows, `(n, d), (m, d), (n,) -> (n,)`: int64, or float64."""
    exact = torch.float64 if x.is_floating_point() else torch.int32
    blocks = zip(x.split(1000), column.split(1000), strict=True)
    return torch.cat([(some.to(exact) - rows[index].to(exact)).square().sum(1) for some, index in blocks])


@dataclass(frozen=True)
class Points:
    """Samples, held-out and training images as rows `(n, d)`: uint8 pixels, or float32 features of an extractor."""

    samples: Tensor
    held_out: Tensor
    training: Tensor
    extractor: FeatureLayer | None

    @property
    def key(self) -> str:
        """What the real points are, for keys of caches."""
        return f"{self.extractor or PIXELS}/{len(self.held_out)}/{len(self.training)}"

    @property
    def label(self) -> str:
        """The space, for the heads of columns."""
        return self.extractor.label() if self.extractor else PIXELS


class MemorizationMetric(FeatureMetric):
    """Base of metrics that compare samples with training images, beside held-out ones, in pixels or in features."""

    least = 2

    def __init__(self, features: str, layer: str, weights: str, n: int, training: int) -> None:
        """Options that the metrics declare."""
        super().__init__(features, layer, weights, n, "test")
        self.n, self.training = n, training

    def counts_needed(self, info: DatasetInfo) -> Mapping[Piece, int]:
        """`n` samples."""
        return {"samples": self.n}

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse too few images, and what an extractor lacks."""
        if min(info.test, info.train) < self.least:
            raise UsageError(
                f"{self.name}: {info.test} held-out and {info.train} training images; it needs {self.least} of each"
            )
        if self.n < self.least:
            raise UsageError(f"{self.name}: {self.n} samples; it needs {self.least}: --set {self.name}.n={self.least}")
        if 0 < self.training < self.least:
            raise UsageError(
                f"{self.name}: {self.training} training images; it needs {self.least}: --set {self.name}.training=0"
                " takes all"
            )
        if self.features != PIXELS:
            super().validate(info, prior, data_config)
        elif (self.layer, self.weights) != ("auto", "none"):
            raise UsageError(f"{self.name}: pixels have neither layers nor weights: leave them out, or set features")

    def held_out_count(self, e: Evaluation) -> int:
        """How many held-out images are compared."""
        return min(self.n, len(e.references))

    def points(self, e: Evaluation) -> Points:
        """The points; those of real images are the same for all runs."""
        held_out, training = self.held_out_count(e), min(self.training or len(e.images.train), len(e.images.train))
        if min(held_out, training, self.n) < self.least:
            raise MetricError(
                f"{self.name}: {self.n} samples, {held_out} held-out and {training} training images; it needs"
                f" {self.least} of each"
            )
        images = e.images.train if training == len(e.images.train) else e.training_images(training)
        if self.features == PIXELS:
            real = e.held_out(held_out).to(e.device).flatten(1)
            return Points(e.samples(self.n).flatten(1), real, images.flatten(1), None)
        extractor = self.extractor(e.images.shape, e.data_config)

        def extracted() -> tuple[Tensor, Tensor]:
            return (
                self.kept(e, extractor, e.held_out(held_out), "the held-out images"),
                self.kept(e, extractor, images, "the training images"),
            )

        key = f"memorization/{extractor}/{e.split}/{e.images.sha256}/{held_out}/{training}/{e.device}"
        return Points(self.sample_features(e, extractor, self.n), *e.cache_for_dataset(key, extracted), extractor)

    def space_protocol(self, e: Evaluation, points: Points, method: str, detail: str) -> EvalProtocol:
        """How a number is measured."""
        detail = "; ".join(filter(None, (f"{len(points.training)} training images", detail)))
        if points.extractor is None:
            return e.protocol(
                method=method,
                references=len(points.held_out),
                generated=len(points.samples),
                values="uint8 / 255",
                dtype="exact integers",
                detail=detail,
            )
        return e.protocol(
            method=method,
            references=len(points.held_out),
            generated=len(points.samples),
            values=VALUES,
            resize=points.extractor.resize,
            extractor=points.extractor.implementation,
            layer=points.extractor.layer,
            weights=points.extractor.weights_label,
            detail=detail,
        )


class NearestTrain(MemorizationMetric):
    """Distance of samples to the nearest training image beside that of held-out images, and the share of copies.

    A copy is a sample nearer to a training image than `fraction` of the held-out images' median distance. The floors
    are the held-out images' own mean and share, which are those of new real images; the p-value is Fisher's exact one,
    of as large a share of copies as among held-out images.
    """

    name: ClassVar[str] = "nearest-train"

    def __init__(
        self,
        *,
        n: Annotated[int, N] = 1000,
        fraction: Annotated[float, Option("of the held-out images' median distance, below it: a copy", above=0)] = 0.1,
        features: Annotated[str, SPACE] = PIXELS,
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        training: Annotated[int, TRAINING] = 0,
    ) -> None:
        super().__init__(features, layer, weights, n, training)
        self.fraction = fraction

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The mean distance and the share of copies."""
        points = self.points(e)
        key = f"nearest-train/{e.split}/{e.images.sha256}/{points.key}"
        real = e.cache_for_dataset(key, lambda: _roots(points.held_out, points.training))
        limit = copy_limit(real, self.fraction)
        distances = _roots(points.samples, points.training)
        in_pixels = points.extractor is None
        protocol = self.space_protocol(
            e,
            points,
            f"{'RMS pixel' if in_pixels else 'Euclidean feature'} distance to the nearest training image",
            f"copy: below {self.fraction!r} of the held-out median",
        )
        mean, copies, usual = float(distances.mean()), _share(distances, limit), _share(real, limit)
        yield Measurement(
            value=mean,
            unit="RMS over pixels in [0, 1]" if in_pixels else "feature distance",
            higher_is_better=None,
            n=self.n,
            protocol=protocol,
            floor=float(real.mean()),
            floor_sd=float(real.std()) / math.sqrt(self.n),
            label=f"distance to the nearest training image{'' if in_pixels else f' ({points.label})'}",
            se=float(distances.std()) / math.sqrt(self.n),
        )
        yield Measurement(
            value=copies,
            unit="share of samples",
            higher_is_better=False,
            n=self.n,
            protocol=protocol,
            component="copies",
            role="memorization",
            floor=usual,
            floor_sd=binomial_error(usual, self.n),
            label=f"copies of training images{'' if in_pixels else f' ({points.label})'}",
            se=binomial_error(copies, self.n),
            p_value=more_often(distances < limit, real < limit),
        )


def _roots(x: Tensor, rows: Tensor) -> Tensor:
    """Distances to the nearest of some rows, `(n,)` float64 on the CPU: of pixels the RMS in [0, 1]."""
    squares, _ = nearest_rows(x, rows)
    if not x.is_floating_point():
        squares = squares / (x.shape[1] * 255.0**2)
    return squares.sqrt().cpu()


def copy_limit(real: Tensor, fraction: float) -> float:
    """The distance below which a sample is a copy, from the distances of held-out images `(n,)`."""
    limit = fraction * float(real.median())
    if limit == 0.0:
        raise MetricError(
            "nearest-train: half of the held-out images are training images too, so that a copy cannot be told "
            "from a new image: remove the duplicates from the dataset"
        )
    return limit


def more_often(samples: Tensor, held_out: Tensor) -> float:
    """Fisher's exact p-value, of an event no more frequent among samples `(n,)` than among held-out images `(m,)`."""
    from scipy.stats import hypergeom

    hits, usual = int(samples.sum()), int(held_out.sum())
    return float(min(1.0, hypergeom.sf(hits - 1, len(samples) + len(held_out), hits + usual, len(samples))))


def _share(distances: Tensor, limit: float) -> float:
    return float((distances < limit).double().mean())


def binomial_error(share: float, n: int) -> float | None:
    """Standard error of a share of n independent draws; at 0 and 1 the formula gives 0, which it is not: None."""
    return math.sqrt(share * (1.0 - share) / n) or None


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """The distance to the nearest training image."""
    yield ComponentSpec(
        name="nearest-train",
        aliases=("memorization", "copies", "nearest-neighbor"),
        description="Distance of samples to the nearest training image, and the share of copies",
        factory=NearestTrain,
        reference="arXiv:2004.05675",
    )
