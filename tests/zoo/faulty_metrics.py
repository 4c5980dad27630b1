"""A dataset and metrics with errors found in public code."""

from __future__ import annotations

from collections.abc import Iterable
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
from genbench.hookspecs import hookimpl

PROTOCOL = EvalProtocol("faulty", "", "", "test", 1, 1, "codes")


class Overlap(Dataset):
    """Validation images that are training images."""

    def info(self, data_config: DataConfig) -> DatasetInfo:
        return DatasetInfo((1, 8, 8), 50, 20, 10)

    def load(self, data_config: DataConfig) -> Images:
        drawn = torch.randint(0, 256, (70, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        return with_content(Images(drawn[:50], drawn[50:], drawn[40:50]))


class Reshuffled(Overlap):
    """Another order at every load."""

    def load(self, data_config: DataConfig) -> Images:
        images = super().load(data_config)
        chosen = torch.randperm(70)
        drawn = torch.cat([images.train, images.test])[chosen]
        return with_content(replace(images, train=drawn[:40], test=drawn[50:], validation=drawn[40:50]))

    def info(self, data_config: DataConfig) -> DatasetInfo:
        return DatasetInfo((1, 8, 8), 40, 20, 10)


class BatchedDistance(Metric):
    """The mean exact distance over batches of 128: mostly the sampling floor, which is not stated."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        codes, draws = e.codes(0), e.prior_draws(len(e.codes(0)), "batched")
        pairs = list(zip(codes.split(128), draws.split(128), strict=True))
        value = sum(wasserstein_distance(x.double(), y.double()) for x, y in pairs) / len(pairs)
        yield Measurement(value=value, unit="code units", higher_is_better=False, n=len(codes), protocol=PROTOCOL)


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
        yield Measurement(
            value=value, unit="pixels", higher_is_better=False, n=len(e.references), protocol=PROTOCOL, floor=0.0
        )


class WrongDirection(Metric):
    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        yield Measurement(
            value=gap(e.references, e.samples(len(e.references))),
            unit="pixels",
            higher_is_better=True,
            n=1,
            protocol=PROTOCOL,
        )


class GlobalRandomness(Metric):
    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        chosen = e.references[torch.randperm(len(e.references))[:50]]
        yield Measurement(
            value=gap(chosen, e.samples(len(e.references))),
            unit="pixels",
            higher_is_better=None,
            n=1,
            protocol=PROTOCOL,
        )


class FirstPair(Metric):
    """The first sample and the first reference stand for all."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        value = (to_float(e.samples(1)) - to_float(e.references[:1])).square().sum()
        yield Measurement(value=float(value), unit="pixels^2", higher_is_better=False, n=1, protocol=PROTOCOL)


class BatchScaled(Metric):
    """Each batch by its own range, as batch statistics in an extractor would."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        blocks = e.samples(len(e.references)).split(genbench.features.extractor.BATCH)
        scaled = torch.cat([to_float(block) - to_float(block).mean(0) for block in blocks])
        value = (scaled.var(0, correction=0) - to_float(e.references).var(0, correction=0)).square().sum()
        yield Measurement(
            value=float(value), unit="pixels^2", higher_is_better=False, n=len(scaled), protocol=PROTOCOL, floor=0.0
        )


class Silent(Metric):
    """NaN where it cannot measure."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        yield Measurement(
            value=float(e.codes(0).square().sum(1).mean()),
            unit="code units^2",
            higher_is_better=None,
            n=1,
            protocol=PROTOCOL,
        )


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
    }
    for name, kind in kinds.items():
        yield ComponentSpec(name=name, description="Faulty", factory=kind)
