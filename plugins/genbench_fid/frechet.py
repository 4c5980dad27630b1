"""Distances between images in feature space: the Frechet distance (FID) and the kernel distance (KID)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

import genbench_grey28  # registers the extractor
from genbench.api import Evaluation, Measurement, Metric, Offer, Option, Place, Prior, Protocol, Shape, Summary
from genbench.distances import frechet
from genbench.errors import MetricError
from genbench.features import Extractor, choose, extract, finite, probe
from genbench.hookspecs import hookimpl
from genbench.random import generator

Split = Literal["test", "held-out"]

FEATURES = Option("extractor: inception, grey28 or any registered with torch-fidelity; auto: grey28 for 28x28 grey")
LAYER = Option("layer of the extractor; auto: its usual one (2048 of inception)", source="arXiv:1706.08500")
WEIGHTS = Option("file of the Inception weights, in torch-fidelity's format; none: its usual place")
COUNT = Option("samples generated; 0: as many as there are references", low=0)
SPLIT = Option("references: the test images, or held-out: validation and test images together")
GREY28_SHAPE: Shape = (1, 28, 28)


class FeatureMetric(Metric):
    """What the metrics on features share: the choice of an extractor, references and samples."""

    method: str

    def __init__(self, features: str, layer: str, weights: str, count: int, split: Split) -> None:
        """The options as they are declared by FID and KID."""
        self.features, self.layer, self.weights, self.count, self.split = features, layer, weights, count, split

    def extractor(self, shape: Shape, place: Place) -> Extractor:
        """The extractor for images of a shape."""
        name = self.features
        if name == "auto":
            name = genbench_grey28.NAME if shape == GREY28_SHAPE else "inception"
        return choose(
            name, "" if self.layer == "auto" else self.layer, "" if self.weights == "none" else self.weights, place
        )

    def check(self, summary: Summary, prior: Prior, place: Place) -> None:
        """Refuse missing weights, and layers that they do not hold, before any training."""
        probe(self.extractor(summary.shape, place), *summary.shape)

    def references(self, e: Evaluation) -> Tensor:
        """The real images, `(n, c, h, w)` uint8."""
        return e.images.test if self.split == "test" else torch.cat([e.images.validation, e.images.test])

    def reference_features(self, e: Evaluation, extractor: Extractor) -> Tensor:
        """Features of the references, `(n, f)`, extracted once for all runs of the command."""
        key = f"features/{extractor}/{self.split}/{e.images.content}/{e.device}"
        return e.shared(key, lambda: finite(extract(extractor, self.references(e).to(e.device)), "the real images"))

    def sample_features(self, e: Evaluation, extractor: Extractor, n: int) -> Tensor:
        """Features of n samples, `(n, f)`."""
        return finite(extract(extractor, e.samples(n)), "the samples")

    def protocol(self, e: Evaluation, extractor: Extractor, references: int, generated: int, detail: str) -> Protocol:
        """How the number is measured."""
        return Protocol(
            method=self.method,
            dataset=e.images.content[:12],
            preparation=e.images.preparation,
            split=self.split,
            references=references,
            generated=generated,
            values="uint8, grey repeated to three channels",
            extractor=extractor.registered,
            layer=extractor.layer,
            weights=extractor.weights_label,
            detail=detail,
        )


class FID(FeatureMetric):
    """Frechet distance between Gaussians fitted to features (arXiv:1706.08500, equation 6)."""

    method = "Frechet distance of Gaussians fitted to features"

    def __init__(
        self,
        *,
        features: Annotated[str, FEATURES] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        count: Annotated[int, COUNT] = 0,
        split: Annotated[Split, SPLIT] = "test",
        floor: Annotated[bool, Option("measure as many training images against the references as well")] = True,
    ) -> None:
        """See the annotations."""
        super().__init__(features, layer, weights, count, split)
        self.floor = floor

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """One number; its floor is the distance of as many real training images from the references."""
        extractor = self.extractor(e.setting.shape, e.place)
        real = self.reference_features(e, extractor)
        n = self.count or len(real)
        if min(n, len(real)) < 2:
            raise MetricError(f"fid: {n} samples against {len(real)} references; it needs two of each")
        made = self.sample_features(e, extractor, n)
        value = frechet(*_gaussian(real), *_gaussian(made))
        floor = self.real_floor(e, extractor, real, n) if self.floor and n <= len(e.images.train) else None
        protocol = self.protocol(e, extractor, len(real), n, "")
        head = f"FID ({extractor.head})"
        yield Measurement(value, "squared feature distance", "lower", n, protocol, floor=floor, label=head)

    def real_floor(self, e: Evaluation, extractor: Extractor, real: Tensor, n: int) -> float:
        """The distance of n training images, chosen alike for all runs, from the references; measured once."""

        def measured() -> float:
            chosen = torch.randperm(len(e.images.train), generator=generator("cpu", 0, "fid/floor"))[:n]
            training = e.images.train[chosen.to(e.images.train.device)].to(e.device)
            return frechet(*_gaussian(real), *_gaussian(finite(extract(extractor, training), "training images")))

        return e.shared(f"fid/floor/{extractor}/{self.split}/{e.images.content}/{n}", measured)


class KID(FeatureMetric):
    """Kernel distance: the unbiased squared MMD of features with a cubic kernel (arXiv:1801.01401, section 4)."""

    method = "unbiased MMD^2 of features, kernel (x.y/f + 1)^3, mean over subsets"

    def __init__(
        self,
        *,
        features: Annotated[str, FEATURES] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        count: Annotated[int, COUNT] = 0,
        split: Annotated[Split, SPLIT] = "test",
        subsets: Annotated[int, Option("random subsets averaged over", source="torch-fidelity", low=2)] = 100,
        subset_size: Annotated[int, Option("images in a subset", source="torch-fidelity", low=2)] = 1000,
    ) -> None:
        """See the annotations."""
        super().__init__(features, layer, weights, count, split)
        self.subsets, self.subset_size = subsets, subset_size

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The mean over subsets and their standard deviation, by torch-fidelity's own function."""
        extractor = self.extractor(e.setting.shape, e.place)
        real = self.reference_features(e, extractor)
        n = self.count or len(real)
        made = self.sample_features(e, extractor, n)
        size = min(self.subset_size, n, len(real))
        if size < 2:
            raise MetricError(f"kid: {n} samples against {len(real)} references; it needs two of each")
        found = kid_features_to_metric(
            made.cpu().double(),
            real.cpu().double(),
            kid_subsets=self.subsets,
            kid_subset_size=size,
            rng_seed=2020,
            verbose=False,
        )
        head = f"KID ({extractor.head})"
        protocol = self.protocol(e, extractor, len(real), n, f"{self.subsets} subsets of {size}, drawn from seed 2020")
        mean, spread = found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]
        yield Measurement(mean, "MMD^2", "lower", n, protocol, floor=0.0, label=head)
        yield Measurement(spread, "MMD^2", "neither", n, protocol, part="subset-sd", label=f"{head} sd over subsets")


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(f,)` and covariance `(f, f)` of features, in float64."""
    features = features.double()
    return features.mean(0), torch.cov(features.T)


@hookimpl
def genbench_metrics() -> Iterable[Offer[Metric]]:
    """FID and KID."""
    yield Offer(
        name="fid", about="Frechet distance of features, samples against real", make=FID, source="arXiv:1706.08500"
    )
    yield Offer(name="kid", about="Kernel distance of features, unbiased", make=KID, source="arXiv:1801.01401")
