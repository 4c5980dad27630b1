"""A dataset and metrics with errors found in public code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

import genbench.features.extractor
from genbench.api import (
    ComponentSpec,
    DataConfig,
    Dataset,
    DatasetInfo,
    EvalProtocol,
    Evaluation,
    Images,
    Measurement,
    Metric,
)
from genbench.data.images import to_float, with_content
from genbench.distances import wasserstein_distance
from genbench.errors import MetricError
from genbench.hookspecs import hookimpl

PROTOCOL = EvalProtocol("faulty", "", "", "test", 1, 1, "codes")


class Overlap(Dataset):
    """Validation images that are training images."""

    def inspect(self, place: DataConfig) -> DatasetInfo:
        return DatasetInfo((1, 8, 8), 50, 20, 10)

    def load(self, place: DataConfig) -> Images:
        drawn = torch.randint(0, 256, (70, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        return with_content(Images(drawn[:50], drawn[50:], drawn[40:50]))


class Reshuffled(Overlap):
    """Another order at every load."""

    def load(self, place: DataConfig) -> Images:
        images = super().load(place)
        chosen = torch.randperm(70)
        drawn = torch.cat([images.train, images.test])[chosen]
        return with_content(replace(images, train=drawn[:40], test=drawn[50:], validation=drawn[40:50]))

    def inspect(self, place: DataConfig) -> DatasetInfo:
        return DatasetInfo((1, 8, 8), 40, 20, 10)


class BatchedDistance(Metric):
    """The mean exact distance over batches of 128: mostly the sampling floor, which is not told."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        codes, draws = e.codes(0), e.prior_draws(len(e.codes(0)), "batched")
        pairs = list(zip(codes.split(128), draws.split(128), strict=True))
        value = sum(wasserstein_distance(x.double(), y.double()) for x, y in pairs) / len(pairs)
        yield Measurement(value, "code units", "lower", len(codes), PROTOCOL)


class Clinging(Metric):
    """Asks for the codes when it should have them."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        codes = e.codes(0)
        if not codes.isfinite().all():
            raise MetricError(f"{len(codes)} codes are not all finite")
        yield Measurement(float(codes.square().mean()), "code units^2", "neither", len(codes), PROTOCOL)

    def detached(self, e: Evaluation) -> Callable[[], Iterable[Measurement]]:
        return lambda: self.measure(e)


class Untrue(Clinging):
    """Measures other codes when detached."""

    def detached(self, e: Evaluation) -> Callable[[], Iterable[Measurement]]:
        found = [replace(each, value=1.01 * each.value) for each in self.measure(e)]
        return lambda: found


def gap(a: Tensor, b: Tensor) -> float:
    """A distance of pixel statistics, its root: real against samples."""
    x, y = to_float(a).flatten(1), to_float(b).flatten(1)
    return float(
        (x.mean(0) - y.mean(0)).square().sum() + (x.std(0, correction=0) - y.std(0, correction=0)).square().sum()
    )


def rescaled(images: Tensor) -> Tensor:
    x = to_float(images).flatten(1)
    low, high = x.min(1, keepdim=True).values, x.max(1, keepdim=True).values
    return ((x - low) / (high - low) * 255).to(torch.uint8).view_as(images)


class Rescaled(Metric):
    """Each image by its own minimum and maximum."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        value = gap(rescaled(e.references), rescaled(e.samples(len(e.references))))
        yield Measurement(value, "pixels", "lower", len(e.references), PROTOCOL, floor=0.0)


class WrongDirection(Metric):
    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        yield Measurement(gap(e.references, e.samples(len(e.references))), "pixels", "higher", 1, PROTOCOL)


class GlobalRandomness(Metric):
    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        chosen = e.references[torch.randperm(len(e.references))[:50]]
        yield Measurement(gap(chosen, e.samples(len(e.references))), "pixels", "neither", 1, PROTOCOL)


class FirstPair(Metric):
    """The first sample and the first reference stand for all."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        value = (to_float(e.samples(1)) - to_float(e.references[:1])).square().sum()
        yield Measurement(float(value), "pixels^2", "lower", 1, PROTOCOL)


class BatchScaled(Metric):
    """Each batch by its own range, as batch statistics in an extractor would."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        blocks = e.samples(len(e.references)).split(genbench.features.extractor.BATCH)
        scaled = torch.cat([to_float(block) - to_float(block).mean(0) for block in blocks])
        value = (scaled.var(0, correction=0) - to_float(e.references).var(0, correction=0)).square().sum()
        yield Measurement(float(value), "pixels^2", "lower", len(scaled), PROTOCOL, floor=0.0)


class Silent(Metric):
    """NaN where it cannot measure."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        yield Measurement(float(e.codes(0).square().sum(1).mean()), "code units^2", "neither", 1, PROTOCOL)


@hookimpl
def genbench_datasets() -> Iterable[ComponentSpec[Dataset]]:
    yield ComponentSpec(name="overlap", description="Faulty", factory=Overlap)
    yield ComponentSpec(name="reshuffled", description="Faulty", factory=Reshuffled)


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    kinds = {
        "batched-distance": BatchedDistance,
        "rescaled": Rescaled,
        "wrong-direction": WrongDirection,
        "global-metric": GlobalRandomness,
        "silent": Silent,
        "first-pair": FirstPair,
        "batch-scaled": BatchScaled,
        "clinging": Clinging,
        "untrue": Untrue,
    }
    for name, kind in kinds.items():
        yield ComponentSpec(name=name, description="Faulty", factory=kind)
