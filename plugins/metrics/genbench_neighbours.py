"""Fidelity and coverage by nearest neighbours in feature space: precision and recall, density and coverage.

Around each point lies a ball that reaches to its k-th nearest neighbour of the same set. Precision and recall
(arXiv:1904.06991) count the samples in any ball of the real images, and the real images in any ball of the samples;
density and coverage (arXiv:2002.09797) count the balls of the real images that a sample lies in, and those that hold
any sample.

Why neither torch-fidelity's `prc` nor prdc's own code is called, though the tests measure against both. prdc and
torch-fidelity's default hold whole n x n matrices; with `save_cpu_ram` torch-fidelity still holds 10,000 columns at
once. Both take float32 distances as roots of cancelling differences, so that a point is not at distance 0 from its
duplicate. torchmetrics has neither metric.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genbench.api import ComponentSpec, DataConfig, DatasetInfo, Evaluation, Measurement, Metric, Option, Prior
from genbench.errors import MetricError, UsageError
from genbench.hookspecs import hookimpl
from genbench_fid import COUNT, FEATURES, LAYER, WEIGHTS, FeatureMetric

BLOCK_ELEMENTS = 2**22
CPU_BLOCK_ELEMENTS = 2**18
"""Distances held at once: 32 MiB in float64, whatever the number of images; 2 MiB on a CPU, where larger blocks leave
the processor's cache and are fetched anew from the system each time (4,000 points: 0.54 s instead of 1.6 s)."""

ROUNDING = 1e-12
"""Squared distances below this share of the squared norms count as zero: they are rounding errors."""


@dataclass(frozen=True)
class Statistic:
    """A statistic and, where the samples enter as independent draws, its standard error given the real images."""

    value: float
    se: float | None = None


def distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances between rows, `(n, f), (m, f)` float64, as blocks `(rows of x, (b, m))`; 0 for duplicates."""
    squares = y.square().sum(1)
    step = max(1, (CPU_BLOCK_ELEMENTS if x.device.type == "cpu" else BLOCK_ELEMENTS) // len(y))
    for start in range(0, len(x), step):
        rows = x[start : start + step]
        norms = rows.square().sum(1)[:, None] + squares
        apart = torch.addmm(norms, rows, y.T, alpha=-2.0)
        yield slice(start, start + len(rows)), apart.masked_fill_(apart < ROUNDING * norms, 0.0).sqrt_()


def radii(x: Tensor, k: int) -> Tensor:
    """Distance of each row to its k-th nearest other one, `(n, f) -> (n,)`; duplicates count."""
    return torch.cat([block.topk(k + 1, dim=1, largest=False).values[:, -1] for _, block in distances(x, x)])


def precision_recall(real: Tensor, generated: Tensor, k: int) -> dict[str, Statistic]:
    """Precision and recall of features `(n, f)`, `(m, f)` (arXiv:1904.06991, equations 1 and 2); balls are closed."""
    real, generated = _centred(real, generated)
    real_radii, generated_radii = radii(real, k), radii(generated, k)
    hit = torch.zeros(len(generated), dtype=torch.bool, device=generated.device)
    recalled = torch.zeros(len(real), dtype=torch.bool, device=generated.device)
    for rows, block in distances(real, generated):
        hit |= (block <= real_radii[rows, None]).any(0)
        recalled[rows] = (block <= generated_radii).any(1)
    return {"precision": _share(hit), "recall": Statistic(float(recalled.double().mean()))}


def density_coverage(real: Tensor, generated: Tensor, k: int) -> dict[str, Statistic]:
    """Density and coverage of features `(n, f)`, `(m, f)` (arXiv:2002.09797, equations 4 and 5); balls are open.

    Open as in the authors' package prdc: of two identical sets without duplicates the density is then exactly 1.
    """
    real, generated = _centred(real, generated)
    real_radii = radii(real, k)
    balls = torch.zeros(len(generated), dtype=torch.float64, device=generated.device)
    covered = torch.zeros(len(real), dtype=torch.bool, device=generated.device)
    for rows, block in distances(real, generated):
        inside = block < real_radii[rows, None]
        balls += inside.sum(0)
        covered[rows] = inside.any(1)
    density = balls / k
    error = float(density.std()) / math.sqrt(len(generated)) if len(generated) > 1 else None
    return {"density": Statistic(float(density.mean()), error), "coverage": Statistic(float(covered.double().mean()))}


def _share(hit: Tensor) -> Statistic:
    """A share of independent draws; where it is 0 or 1 the usual standard error would be 0, which it is not."""
    share = float(hit.double().mean())
    return Statistic(share, math.sqrt(share * (1.0 - share) / len(hit)) or None)


def _centred(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 about the real mean: far from the origin |x|^2 + |y|^2 - 2 x.y cancels."""
    real, generated = real.double(), generated.double()
    centre = real.mean(0)
    return real - centre, generated - centre


class NeighbourMetric(FeatureMetric):
    """Base of both metrics: features, counts, and the same statistics of real training images as the floor."""

    name: ClassVar[str]
    k: int

    @abstractmethod
    def compare(self, real: Tensor, generated: Tensor) -> dict[str, Statistic]:
        """The statistics of features `(n, f)`, `(m, f)` by component."""

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse fewer images than a point has neighbours, and the cases of `FeatureMetric`."""
        self._need(self.count or info.test, info.test, UsageError)
        super().validate(info, prior, data_config)

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """Both statistics; their floors are those of as many training images."""
        extractor = self.extractor(e.images.shape, e.data_config)
        real = self.reference_features(e, extractor)
        n = self.count or len(real)
        self._need(n, len(real), MetricError)
        statistics = self.compare(real, self.sample_features(e, extractor, n))
        key = f"{self.name}/floor/{extractor}/{e.split}/{e.images.sha256}/{len(real)}/{n}/{self.k}/{e.device}"
        floors: dict[str, Statistic] = (
            e.cache_for_dataset(key, lambda: self.compare(real, self.training_features(e, extractor, n)))
            if n <= len(e.images.train)
            else {}
        )
        protocol = self.protocol(e, extractor, len(real), n, f"k = {self.k}, distances in float64")
        for component, statistic in statistics.items():
            floor = floors.get(component, Statistic(math.nan))
            yield Measurement(
                value=statistic.value,
                unit="balls" if component == "density" else "share",
                higher_is_better=True,
                n=n,
                protocol=protocol,
                component=component,
                role="sample quality",
                floor=None if math.isnan(floor.value) else floor.value,
                floor_sd=floor.se,
                label=f"{component} ({extractor.label()})",
                se=statistic.se,
                caution=self.caution(extractor),
            )

    def _need(self, generated: int, real: int, error: type[UsageError] | type[MetricError]) -> None:
        if min(generated, real) <= self.k:
            raise error(
                f"{self.name}: {generated} samples against {real} references; the {self.k} nearest neighbours of a "
                f"point need {self.k + 1} of each: --set {self.name}.k=... or more images"
            )


class PrecisionRecall(NeighbourMetric):
    """Improved precision and recall (arXiv:1904.06991); the ball of one real outlier takes in much."""

    name = "precision-recall"
    method = "share in any closed ball to the k-th neighbour"

    def __init__(
        self,
        *,
        features: Annotated[str, FEATURES] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        count: Annotated[int, COUNT] = 0,
        k: Annotated[int, Option("nearest neighbours that a ball reaches to", reference="arXiv:1904.06991", low=1)] = 3,
    ) -> None:
        super().__init__(features, layer, weights, count, "test")
        self.k = k

    def compare(self, real: Tensor, generated: Tensor) -> dict[str, Statistic]:
        """Precision and recall."""
        return precision_recall(real, generated, self.k)


class DensityCoverage(NeighbourMetric):
    """Density and coverage (arXiv:2002.09797); density may exceed 1, coverage may not."""

    name = "density-coverage"
    method = "open balls to the k-th neighbour: mean count / k around samples, share that hold a sample"

    def __init__(
        self,
        *,
        features: Annotated[str, FEATURES] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        count: Annotated[int, COUNT] = 0,
        k: Annotated[int, Option("nearest neighbours that a ball reaches to", reference="arXiv:2002.09797", low=1)] = 5,
    ) -> None:
        super().__init__(features, layer, weights, count, "test")
        self.k = k

    def compare(self, real: Tensor, generated: Tensor) -> dict[str, Statistic]:
        """Density and coverage."""
        return density_coverage(real, generated, self.k)


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """Precision and recall, density and coverage."""
    yield ComponentSpec(
        name="precision-recall",
        aliases=("precision", "recall"),
        description="Samples among the real images, and real images among the samples",
        factory=PrecisionRecall,
        reference="arXiv:1904.06991",
    )
    yield ComponentSpec(
        name="density-coverage",
        aliases=("prdc", "density", "coverage"),
        description="Samples around each real image, real images that have any",
        factory=DensityCoverage,
        reference="arXiv:2002.09797",
    )
