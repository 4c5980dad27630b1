"""The generalization gap of the feature likelihood divergence (FLD): are training images likelier than held-out ones?

The density is a mixture of Gaussians around the samples, whose widths are fitted to training images: around a copy it
is narrow and high. What the gap finds is measured in reports/trust/memorization.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genbench.api import ComponentSpec, DataConfig, DatasetInfo, Evaluation, Measurement, Metric, Option, Prior
from genbench.errors import MetricError, UsageError
from genbench.hookspecs import hookimpl
from genbench_fid import LAYER, WEIGHTS
from genbench_nearest import SPACE, TRAINING, MemorizationMetric, N, Points

PAIRS = 2**25
"""Distances between samples and the images of a fold, at most: 128 MiB in float32, of which a few are held at once."""

LEAST_SQUARE = 1e-3
"""The narrowest Gaussian: its variance times the dimension. The authors' code begins there at a copy."""

RATE = 100.0
"""The gap is in hundredths of a nat per dimension, as in the authors' code."""


@dataclass(frozen=True)
class Gap:
    """The gap, and the p-value of "training and held-out images are alike to the samples"."""

    value: float
    p_value: float


class FLDGap(MemorizationMetric):
    r"""FLD's generalization gap (arXiv:2302.04440): 100 / d times the mean of -log p over training images less that
    over held-out images, p being a mixture of Gaussians around the n samples whose widths maximize the likelihood of
    the training images. Below 0 the model knows its training images.

    Fitted widths make training images likelier than new ones under any model, so that the gap of a perfect model is
    below 0 too: that of held-out images as samples is the floor, where there are enough of them. The p-value needs no
    floor. The training images are cut into folds of as many images as are held out, the widths are fitted to each fold
    and to the held-out images alike, and the mean fitted log-likelihood of the folds is compared with that of the
    held-out images by a normal test: where the samples know nothing of the training images these are exchangeable,
    however bad the samples are. The gap is the mean over the folds.

    Ours: the folds, the p-value, expectation maximization in place of gradient steps, and pixels scaled as a whole,
    since the deviation of single pixels may be 0. There is no standard error: all widths depend on all samples, and
    one that holds them fixed is too small by half and more.
    """

    name: ClassVar[str] = "fld-gap"

    def __init__(
        self,
        *,
        features: Annotated[str, SPACE] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        n: Annotated[int, N] = 1000,
        training: Annotated[int, TRAINING] = 0,
        held_out: Annotated[int, Option("held-out images, and training images of a fold; 0: all", low=0)] = 0,
        steps: Annotated[int, Option("steps of expectation maximization", reference="ours", low=1)] = 20,
    ) -> None:
        super().__init__(features, layer, weights, n, training)
        self.held_out, self.steps = held_out, steps

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse a single image that is held out, too: it has no variance."""
        super().validate(info, prior, data_config)
        if 0 < self.held_out < self.least:
            raise UsageError(
                f"{self.name}: held-out = {self.held_out}; it needs {self.least}: --set {self.name}.held-out=0"
                " takes all"
            )

    def held_out_count(self, e: Evaluation) -> int:
        """As many as a fold has."""
        return min(self.held_out or len(e.references), len(e.references), max(2, PAIRS // self.n), len(e.images.train))

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The gap; its floor is that of held-out images in place of samples."""
        points = self.points(e)
        result = gap(points.samples, points.training, points.held_out, self.steps)
        floor = self.real_floor(e, points)
        folds = len(points.training) // len(points.held_out)
        yield Measurement(
            value=result.value,
            unit="0.01 nats per dimension",
            higher_is_better=None,
            n=self.n,
            protocol=self.space_protocol(
                e,
                points,
                "FLD gap: -log p of training less that of held-out images, p Gaussians around samples",
                f"{folds} folds, {self.steps} steps of expectation maximization",
            ),
            floor=floor.value if floor else None,
            p_value=result.p_value,
            label=f"FLD gap ({points.label})",
            caution=self.caution(points.extractor),
        )

    def real_floor(self, e: Evaluation, points: Points) -> Gap | None:
        """The gap of n further held-out images in place of samples; None where there are no more."""
        count = len(points.held_out)
        if count + self.n > len(e.references):
            return None

        def measured() -> Gap:
            further = e.held_out(count + self.n)[count:].to(e.device)
            if points.extractor is None:
                rows = further.flatten(1)
            else:
                rows = self.kept(e, points.extractor, further, "the held-out images")
            return gap(rows, points.training, points.held_out, self.steps)

        key = f"fld-gap/floor/{e.split}/{e.images.sha256}/{points.key}/{self.n}/{self.steps}/{e.device}"
        return e.cache_for_dataset(key, measured)


def gap(samples: Tensor, training: Tensor, held_out: Tensor, steps: int) -> Gap:
    """FLD's gap of samples `(n, d)`, training `(m, d)` and held-out images `(k, d)`, m >= k; see `FLDGap`."""
    count = len(held_out)
    shift, scale = scaling(held_out)

    def scaled(rows: Tensor) -> Tensor:
        return (rows.to(samples.device).float() - shift) * scale

    centers, new = scaled(samples), scaled(held_out)
    width = int((scale > 0).sum()) if scale.ndim else centers.shape[1]
    new_squares = squared(new, centers)
    likelihoods, values = [], []
    for fold in training.split(count)[: len(training) // count]:
        squares = squared(scaled(fold), centers)
        widths = fitted_widths(squares, width, steps)
        seen, unseen = (log_likelihood(z, widths, width) for z in (squares, new_squares))
        likelihoods.append(seen)
        values.append(float(unseen.mean() - seen.mean()) * RATE / width)
    fitted = log_likelihood(new_squares, fitted_widths(new_squares, width, steps), width)
    known = torch.cat(likelihoods)
    error = math.sqrt(float(known.var()) / len(known) + float(fitted.var()) / len(fitted))
    excess = float(known.mean() - fitted.mean())
    if not math.isfinite(excess):
        raise MetricError("fld-gap: the likelihood is not finite")
    return Gap(math.fsum(values) / len(values), NormalDist().cdf(-excess / error) if error else 1.0)


def scaling(held_out: Tensor) -> tuple[Tensor, Tensor]:
    """What to take away and to multiply by, by held-out images `(k, d)`: each feature, or all pixels alike, to 1."""
    rows = held_out.float()
    mean, variance = rows.mean(0), rows.var(0)
    if not held_out.is_floating_point():
        variance = variance.mean()
    if not float(variance.max()) > 0.0:
        raise MetricError("fld-gap: the held-out images are all alike")
    return mean, torch.where(variance > 0.0, variance.rsqrt(), 0.0)


def squared(x: Tensor, centers: Tensor) -> Tensor:
    """Squared distances, `(n, d), (m, d) -> (n, m)`."""
    norms = x.square().sum(1)[:, None] + centers.square().sum(1)
    return torch.addmm(norms, x, centers.T, alpha=-2.0).clamp_(min=0.0)


def fitted_widths(squares: Tensor, width: int, steps: int) -> Tensor:
    """Variances `(m,)` of Gaussians around centers that make points likely, from squared distances `(n, m)`.

    Expectation maximization, begun where each Gaussian is best for its nearest point; one that explains no point stays.
    """
    least = LEAST_SQUARE / width
    variances = (squares.amin(0) / width).clamp_(min=least)
    for _ in range(steps):
        shares = torch.softmax(_log_densities(squares, variances, width), 1)
        weight = shares.sum(0)
        moved = shares.mul_(squares).sum(0) / (width * weight.clamp(min=1e-30))
        variances = torch.where(weight > 1e-6, moved.clamp_(min=least), variances)
    return variances


def log_likelihood(squares: Tensor, variances: Tensor, width: int) -> Tensor:
    """log p of each point, from squared distances `(n, m)`, `(n,)` float64."""
    values = torch.logsumexp(_log_densities(squares, variances, width), 1).double()
    return values - math.log(squares.shape[1]) - width / 2.0 * math.log(2.0 * math.pi)


def _log_densities(squares: Tensor, variances: Tensor, width: int) -> Tensor:
    """Up to a constant, `(n, m)`."""
    return (squares * (-0.5 / variances)).sub_(0.5 * width * variances.log())


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """FLD's generalization gap."""
    yield ComponentSpec(
        name="fld-gap",
        aliases=("fld", "feature-likelihood"),
        description="Are training images likelier than held-out ones under Gaussians around samples",
        factory=FLDGap,
        reference="arXiv:2302.04440",
    )
