"""Distance to the nearest training image, so that a model which replays its training set does not look like the winner.

Limits of a pixel distance. A small distance is no memorisation: blurred averages lie nearer to the training
images than new real images do, since the mean of a neighbourhood is near to all of it. A large one is no novelty: a
copy that is shifted by a pixel or brightened is far away. The test for data copying of arXiv:2004.05675 compares the
distances of samples and of held-out images to the training set by ranks; in pixels it would call every blurred model a
copier, so that its statistic is not reported here. What is reported beyond the mean is the share of samples so near
to a training image that nothing but a copy explains it. At a tenth of the held-out images' median distance, of 300 of
MNIST's training images all count that went through JPEG at quality 90 and 5 % at quality 75, and of 1,000 held-out or
slightly blurred ones none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import (
    ComponentSpec,
    DataConfig,
    DatasetInfo,
    Evaluation,
    Measurement,
    Metric,
    Option,
    Piece,
    Prior,
)
from genbench.errors import MetricError, UsageError
from genbench.hookspecs import hookimpl

BLOCK_ELEMENTS = 2**23
"""Numbers in a block of training images, and at most in a block of distances: 32 MiB of float32 each."""

CANDIDATES = 4
"""Training images whose distance is computed again in integers, for each image."""


def nearest(images: Tensor, training: Tensor) -> Tensor:
    """Root mean squared pixel distance in [0, 1] of each image to its nearest training image.

    images: `(n, c, h, w)` uint8, training: `(m, c, h, w)` uint8 -> `(n,)` float64 on the CPU.

    The nearest are found by |y|^2 - 2 x.y in float32 about the rounded mean image, so that all values are integers:
    up to 2^24, which 28x28 images rarely exceed, nothing is rounded. Float32 cancels where images are equal, so the
    distances of the best few are then summed in integers: a copy is at 0. Only where more than these few are nearer
    than float32 can tell apart is the result that of one of them.
    """
    x, rows = images.flatten(1), training.flatten(1).to(images.device)
    # The mean of a spread of 1,000 will do: it need only be some image in the middle.
    centre = rows[:: max(1, len(rows) // 1000)].float().mean(0).round()
    queries = x.float() - centre
    scores = x.new_full((len(x), 0), 0, dtype=torch.float32)
    chosen = x.new_full((len(x), 0), 0, dtype=torch.int64)
    step = max(1, BLOCK_ELEMENTS // max(rows.shape[1], len(x)))
    for start in range(0, len(rows), step):
        block = rows[start : start + step].float() - centre
        score = torch.addmm(block.square().sum(1)[None], queries, block.T, alpha=-2.0)
        best = score.topk(min(CANDIDATES, len(block)), dim=1, largest=False)
        scores, chosen = torch.cat([scores, best.values], 1), torch.cat([chosen, best.indices + start], 1)
        kept = scores.topk(min(CANDIDATES, scores.shape[1]), dim=1, largest=False)
        scores, chosen = kept.values, chosen.gather(1, kept.indices)
    squares = torch.stack([_squares(x, rows, column) for column in chosen.unbind(1)])
    return (squares.amin(0).double() / x.shape[1]).sqrt().div(255.0).cpu()


def _squares(x: Tensor, rows: Tensor, column: Tensor) -> Tensor:
    """Sums of squared differences between x and chosen rows, `(n, d), (m, d), (n,) -> (n,)` int64, exact."""
    blocks = zip(x.split(1000), column.split(1000), strict=True)
    return torch.cat([(rows_of_x.int() - rows[index].int()).square().sum(1) for rows_of_x, index in blocks])


class NearestTrain(Metric):
    """Distance of samples to the nearest training image beside that of held-out images, and the share of copies.

    A copy is a sample nearer to a training image than `fraction` of the held-out images' median distance. The floors
    are the held-out images' own mean and share, which are those of new real images.
    """

    def __init__(
        self,
        *,
        n: Annotated[int, Option("samples, and at most as many held-out images", low=2)] = 1000,
        fraction: Annotated[float, Option("of the held-out images' median distance, below it: a copy", above=0)] = 0.1,
    ) -> None:
        self.n, self.fraction = n, fraction

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse a dataset without enough images to take a median of."""
        if min(info.test, info.train) < 2:
            raise UsageError(
                f"nearest-train: {info.test} held-out and {info.train} training images; it needs two of each"
            )

    def needs(self, info: DatasetInfo) -> Mapping[Piece, int]:
        """`n` samples."""
        return {"samples": self.n}

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The mean distance and the share of copies."""
        references = min(self.n, len(e.references))
        if min(references, len(e.images.train)) < 2:
            raise MetricError(
                f"nearest-train: {references} held-out and {len(e.images.train)} training images; it needs two of each"
            )
        real = e.cache_for_dataset(
            f"nearest-train/{e.split}/{e.images.sha256}/{references}",
            lambda: nearest(e.held_out(references).to(e.device), e.images.train),
        )
        limit = self.fraction * float(real.median())
        if limit == 0.0:
            raise MetricError(
                "nearest-train: half of the held-out images are training images too, so that a copy cannot be told "
                "from a new image: remove the duplicates from the dataset"
            )
        distances = nearest(e.samples(self.n), e.images.train)
        protocol = e.protocol(
            method="RMS pixel distance to the nearest training image",
            references=references,
            generated=self.n,
            values="uint8 / 255",
            dtype="exact integers",
            detail=f"{len(e.images.train)} training images; copy: below {self.fraction!r} of the held-out median",
        )
        mean, copies, usual = float(distances.mean()), _share(distances, limit), _share(real, limit)
        yield Measurement(
            value=mean,
            unit="RMS over pixels in [0, 1]",
            higher_is_better=None,
            n=self.n,
            protocol=protocol,
            floor=float(real.mean()),
            floor_sd=float(real.std()) / math.sqrt(self.n),
            label="distance to the nearest training image",
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
            floor_sd=_binomial(usual, self.n),
            label="copies of training images",
            se=_binomial(copies, self.n),
        )


def _share(distances: Tensor, limit: float) -> float:
    return float((distances < limit).double().mean())


def _binomial(share: float, n: int) -> float | None:
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
