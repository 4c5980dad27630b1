"""The Frechet distance of features (FID), its standard error, and its extrapolation to infinitely many samples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import DataConfig, DatasetInfo, Evaluation, Measurement, Option, Prior
from genbench.data.seeds import generator
from genbench.distances import frechet_distance, frechet_distance_of_samples
from genbench.errors import MetricError, UsageError
from genbench.features import FeatureLayer, probe
from genbench_fid.base import COUNT, FEATURES, LAYER, SPLIT, WEIGHTS, FeatureMetric, References

UNIT = "squared feature distance"
NORMAL = statistics.NormalDist().inv_cdf(0.975)
DIVISORS = (1, 2, 4)
"""Into how many disjoint subsets the samples are split for the extrapolation."""
FEATURES_FACTOR = 2
"""Images for each feature below which a Frechet distance is marked. With that many the smallest eigenvalue of a sample
covariance is (1 - sqrt(1/2))^2 = 0.09 of the true one (Marchenko-Pastur law); with as many as features it is 0."""


class FID(FeatureMetric):
    """Frechet distance between Gaussians fitted to features (arXiv:1706.08500, equation 6).

    Its mean over draws lies above the distance of the laws by about c/n; compare equal n only, or use fid-infinity.
    The standard error is that of the samples' draw, by `influence`; the references count as given. Where the distance
    is at its floor the first-order part all but vanishes and it is some 25 % too large; there is none where there are
    no more samples than features: the fitted covariance is then singular and the expansion means nothing.
    """

    name = "fid"
    method = "Frechet distance of Gaussians fitted to features"

    def __init__(
        self,
        *,
        features: Annotated[str, FEATURES] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        count: Annotated[int, COUNT] = 0,
        split: Annotated[References, SPLIT] = "test",
        floor: Annotated[bool, Option("measure as many training images against the references as well")] = True,
    ) -> None:
        super().__init__(features, layer, weights, count, split)
        self.floor = floor

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """One number; its floor is the distance of as many real training images from the references."""
        extractor = self.extractor(e.images.shape, e.data_config)
        real = self.reference_features(e, extractor)
        n = self.count or len(real)
        self.refuse_few(n, len(real))
        generated = self.sample_features(e, extractor, n)
        floor, floor_sd = self.real_floor(e, extractor, real, n) if self.floor else (None, None)
        yield Measurement(
            value=distance(real, generated),
            unit=UNIT,
            higher_is_better=False,
            n=n,
            protocol=self.protocol(e, extractor, len(real), n, ""),
            role="sample quality",
            floor=floor,
            floor_sd=floor_sd,
            se=standard_error(real, generated),
            label=f"FID ({extractor.label()})",
            caution=self.caution(extractor, caution(real, generated)),
        )

    def real_floor(
        self, e: Evaluation, extractor: FeatureLayer, real: Tensor, n: int
    ) -> tuple[float, float | None] | tuple[None, None]:
        """The distance of n training images, the same for all runs, from the references; and its standard error."""
        if n > len(e.images.train):
            return None, None

        def measured() -> tuple[float, float | None]:
            training = self.training_features(e, extractor, n)
            return distance(real, training), standard_error(real, training)

        return e.cache_for_dataset(f"fid/floor/{extractor}/{self.source(e)}/{e.images.sha256}/{n}", measured)


class FIDInfinity(FeatureMetric):
    """FID of infinitely many samples against the same references, extrapolated (arXiv:1911.07023).

    The mean of FID over draws of n samples is FID_infinity + c/n up to smaller terms. It is fitted to the FIDs of
    disjoint subsets of n, n/2 and n/4 samples, over several random partitions. The references are not extrapolated:
    the floor, of training images extrapolated alike, holds their own share.
    """

    name = "fid-infinity"
    method = "Frechet distance of Gaussians fitted to features, extrapolated in 1/n to 0"

    def __init__(
        self,
        *,
        features: Annotated[str, FEATURES] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        count: Annotated[int, COUNT] = 0,
        split: Annotated[References, SPLIT] = "test",
        partitions: Annotated[int, Option("random partitions of the samples into halves and quarters", low=2)] = 8,
    ) -> None:
        super().__init__(features, layer, weights, count, split)
        self.partitions = partitions

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse samples that are too few for the law in 1/n to hold."""
        super().validate(info, prior, data_config)
        width = probe(self.extractor(info.shape, data_config), *info.shape)
        _, generated = self.expected(info)
        least = DIVISORS[-1] * (width + 1)
        if generated < least:
            raise UsageError(
                f"fid-infinity: {generated} samples; its smallest subsets, a quarter each, must have more images than"
                f" the {width} features: --set fid-infinity.count={least}, or a layer of fewer features"
            )

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The extrapolated distance with its interval."""
        extractor = self.extractor(e.images.shape, e.data_config)
        real = self.reference_features(e, extractor)
        n = self.count or len(real)
        self.refuse_few(n, len(real))
        generated = self.sample_features(e, extractor, n)
        result = extrapolated(real, generated, self.partitions)
        floor = self._floor(e, extractor, real, n)
        sizes = ", ".join(str(n // divisor) for divisor in DIVISORS)
        detail = f"subsets of {sizes} samples, {self.partitions} partitions"
        yield Measurement(
            value=result.value,
            unit=UNIT,
            higher_is_better=False,
            n=n,
            protocol=self.protocol(e, extractor, len(real), n, detail),
            role="sample quality",
            floor=floor.value if floor else None,
            floor_sd=floor.se if floor else None,
            se=result.se,
            low=result.value - NORMAL * result.se,
            high=result.value + NORMAL * result.se,
            label=f"FID\N{INFINITY} ({extractor.label()})",
            caution=self.caution(extractor, caution(real, generated)),
        )

    def _floor(self, e: Evaluation, extractor: FeatureLayer, real: Tensor, n: int) -> Extrapolated | None:
        if n > len(e.images.train):
            return None
        key = f"fid-infinity/floor/{extractor}/{self.source(e)}/{e.images.sha256}/{n}/{self.partitions}"
        return e.cache_for_dataset(
            key, lambda: extrapolated(real, self.training_features(e, extractor, n), self.partitions)
        )


@dataclass(frozen=True)
class Extrapolated:
    """The intercept at 1/n = 0 and its standard error over draws of the samples; it may be below 0."""

    value: float
    se: float


def gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(f,)` and covariance `(f, f)` of features, in float64."""
    features = features.double()
    return features.mean(0), torch.cov(features.T)


def distance(real: Tensor, generated: Tensor) -> float:
    """The Frechet distance of features, `(n, f), (m, f)`."""
    return frechet_distance_of_samples(real, generated)


def caution(real: Tensor, generated: Tensor) -> str:
    """The warning of fewer images than twice the features, `(n, f), (m, f)`; "" where there are enough.

    The distance is then biased upwards by as much as it may be worth (arXiv:1911.07023); the kernel distance (KID,
    arXiv:1801.01401) is unbiased at any n.
    """
    images, features = min(len(real), len(generated)), generated.shape[1]
    if images >= FEATURES_FACTOR * features:
        return ""
    return (
        f"{images:,} images for {features:,} features, fewer than {FEATURES_FACTOR} each: biased upwards,"
        " compare by KID (--metrics kid)"
    )


def influence(real: Tensor, generated: Tensor) -> Tensor:
    r"""The first-order contribution of each sample to the distance, `(n, f), (m, f) -> (m,)` float64, with mean zero.

    The derivative of equation 6 of arXiv:1706.08500 in the law of the samples, at a point mass in x:

    .. math:: 2 (\mu_g - \mu_r) \cdot (x - \mu_g) + |x - \mu_g|^2
              - |M^{-1/4} \Sigma_r^{1/2} (x - \mu_g)|^2 - \text{mean}, \qquad
              M = \Sigma_r^{1/2} \Sigma_g \Sigma_r^{1/2}

    since d tr M^{1/2} = tr(M^{-1/2} dM) / 2. The inverse is taken on the range of M.
    """
    (mean_r, cov_r), (mean_g, cov_g) = gaussian(real), gaussian(generated)
    values, vectors = torch.linalg.eigh(cov_r)
    root = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    values, vectors = torch.linalg.eigh(root @ cov_g @ root)
    keep = values > values.max() * len(values) * torch.finfo(values.dtype).eps
    away = generated.double() - mean_g
    whitened = (away @ root @ vectors[:, keep]) * values[keep].pow(-0.25)
    influences: Tensor = 2.0 * away @ (mean_g - mean_r) + away.square().sum(1) - whitened.square().sum(1)
    return influences.sub_(influences.mean())


def standard_error(real: Tensor, generated: Tensor) -> float | None:
    """Standard error of the distance over draws of the samples, `(n, f), (m, f)`; None where m <= f + 1."""
    m, f = generated.shape
    if m <= f + 1:
        return None
    return float(influence(real, generated).std()) / math.sqrt(m)


def extrapolated(real: Tensor, generated: Tensor, partitions: int) -> Extrapolated:
    """The least-squares line through (1/size, mean FID of disjoint subsets of that size), at 1/size = 0.

    The subsets of every size use all samples, so that each point has the first-order error of FID itself, and the
    intercept, whose weights add up to 1, has it too. What depends on the partition comes on top, by its spread over
    the partitions; the value is the mean over them.
    """
    first, (mean_r, cov_r) = standard_error(real, generated), gaussian(real)
    if first is None or len(generated) // DIVISORS[-1] <= generated.shape[1]:
        raise MetricError(
            f"fid-infinity: a quarter of {len(generated)} samples has no more images than the {generated.shape[1]}"
            " features"
        )
    sizes = torch.tensor([1.0 / (len(generated) // divisor) for divisor in DIVISORS], dtype=torch.float64)
    weights = torch.linalg.pinv(torch.stack([torch.ones_like(sizes), sizes], 1))[0]
    whole = frechet_distance(mean_r, cov_r, *gaussian(generated))
    intercepts = []
    for partition in range(partitions):
        order = torch.randperm(len(generated), generator=generator("cpu", 0, "fid-infinity", partition)).to(
            generated.device
        )
        points = [whole]
        for divisor in DIVISORS[1:]:
            size = len(generated) // divisor
            subsets = [generated[order[i * size : (i + 1) * size]] for i in range(divisor)]
            points.append(statistics.fmean(frechet_distance(mean_r, cov_r, *gaussian(subset)) for subset in subsets))
        intercepts.append(float(weights @ torch.tensor(points, dtype=torch.float64)))
    spread = statistics.stdev(intercepts)
    return Extrapolated(statistics.fmean(intercepts), math.hypot(first, spread))
