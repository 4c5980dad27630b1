"""Base class of metrics on features: extractor, references, samples and protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genbench.api import DataConfig, DatasetInfo, EvalProtocol, Evaluation, Metric, Option, Piece, Prior, Shape
from genbench.errors import DataError, MetricError, UsageError
from genbench.features import FeatureLayer, extract, feature_layer, finite, probe
from genbench_fid.cache import kept

References = Literal["test", "held-out", "all"]

FEATURES = Option(
    "extractor: any that `genbench list extractors` names; auto: grey28 for 28x28 grey, else inception, or where its"
    " weights are missing efficientnet-lite0"
)
LAYER = Option("layer of the extractor; auto: its usual one (2048 of inception)", reference="arXiv:1706.08500")
WEIGHTS = Option("file of the extractor's weights; none: its usual one", file=True)
COUNT = Option("samples generated; 0: as many as there are references", low=0)
SPLIT = Option(
    "references: the test images; held-out: validation and test; all: training images as well, as some papers have it"
)
GREY28_SHAPE: Shape = (1, 28, 28)
USUAL, STAND_IN = "inception", "efficientnet-lite0"
"""The extractor of images of other shapes, and the one in its place where its weights are missing."""
VALUES = "0..255, rounded to uint8; grey repeated to three channels"


class FeatureMetric(Metric):
    """A measurement of features of real and generated images."""

    name: ClassVar[str]
    method: ClassVar[str]
    least: ClassVar[int] = 2
    """References and samples that it needs."""

    def __init__(self, features: str, layer: str, weights: str, count: int, split: References) -> None:
        """Options that the metrics declare."""
        self.features, self.layer, self.weights, self.count, self.split = features, layer, weights, count, split

    def extractor(self, shape: Shape, data_config: DataConfig) -> FeatureLayer:
        """The extractor for images of a shape.

        Raises:
            DataError: Its weights are missing, and where it is the automatic choice those of the stand-in as well.
        """
        name = self.features
        if name == "auto":
            name = "grey28" if shape == GREY28_SHAPE else USUAL
        layer, weights = self.layer.removeprefix("auto"), self.weights.removeprefix("none")
        try:
            return feature_layer(name, layer, weights, data_config)
        except DataError as missing:
            if self.features != "auto" or layer or weights:  # a layer or a file is of one network alone
                raise
            try:
                return feature_layer(STAND_IN, "", "", data_config)
            except (DataError, UsageError):
                raise DataError(
                    f"{missing}; pip install 'genbench[color]' has a network in its place, with other numbers"
                ) from None

    def caution(self, extractor: FeatureLayer | None, text: str = "") -> str:
        """Why a number is to be read with care: the text, and that the extractor stands in for the usual one.

        Every metric of features gives it with its numbers; `extractor` is None where they are of pixels.
        """
        stands_in = self.features == "auto" and extractor is not None and extractor.name == STAND_IN
        reason = f"{STAND_IN} in place of {USUAL}, whose weights are missing: comparable with no published number"
        return "; ".join(part for part in (reason * stands_in, text) if part)

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse missing weights, layers that they do not hold, and too few images, before any training."""
        references, generated = self.expected(info)
        if references < self.least:
            raise UsageError(f"{self.name} needs {self.least} held-out images and the dataset has {references}")
        if generated < self.least:
            raise UsageError(f"{self.name}: {generated} samples; it needs {self.least}: --set {self.name}.count=0")
        probe(self.extractor(info.shape, data_config), *info.shape)

    def expected(self, info: DatasetInfo) -> tuple[int, int]:
        """How many references and samples a test evaluation of such a dataset has."""
        references = info.test + (info.validation if self.split != "test" else 0)
        references += info.train if self.split == "all" else 0
        return references, self.count or references

    def counts_needed(self, info: DatasetInfo) -> Mapping[Piece, int]:
        """As many samples as references, or `count`."""
        return {"samples": self.expected(info)[1]} if self.uses_samples else {}

    def source(self, e: Evaluation) -> str:
        """Which images the references are: a validation evaluation never looks at test images."""
        return self.split if e.split == "test" else e.split

    def references(self, e: Evaluation) -> Tensor:
        """The real images, `(n, c, h, w)` uint8."""
        source = self.source(e)
        if source not in ("held-out", "all"):
            return e.references
        training = [e.images.train] if source == "all" else []
        return torch.cat([*training, e.images.validation, e.images.test])

    def reference_features(self, e: Evaluation, extractor: FeatureLayer) -> Tensor:
        """Features of the references, `(n, f)`, extracted once for all commands: see `genbench_fid.cache`."""
        key = f"features/{extractor}/{self.source(e)}/{e.images.sha256}/{e.device}"
        return e.cache_for_dataset(key, lambda: self.kept(e, extractor, self.references(e), "the real images"))

    def training_features(self, e: Evaluation, extractor: FeatureLayer, n: int) -> Tensor:
        """Features of n training images, the same for all runs, extracted once for all commands."""
        key = f"training-features/{extractor}/{e.images.sha256}/{n}/{e.device}"
        return e.cache_for_dataset(key, lambda: self.kept(e, extractor, e.training_images(n), "the training images"))

    def kept(self, e: Evaluation, extractor: FeatureLayer, images: Tensor, name: str) -> Tensor:
        """Features of real images, from disk where they were extracted before."""
        images = images.to(e.device)
        return kept(e.data_config, extractor, images, lambda: self.extracted(extractor, images, name))

    def sample_features(self, e: Evaluation, extractor: FeatureLayer, n: int) -> Tensor:
        """Features of n samples, `(n, f)`, extracted once for all metrics of a run."""
        return e.cache_for_run(
            f"features/{extractor}/{n}", lambda: self.extracted(extractor, e.samples(n), "the samples")
        )

    def extracted(self, extractor: FeatureLayer, images: Tensor, name: str) -> Tensor:
        """Finite features of images, `(n, c, h, w)` uint8 -> `(n, f)`."""
        return finite(extract(extractor, images), f"{name} ({self.name})")

    def protocol(
        self, e: Evaluation, extractor: FeatureLayer, references: int, generated: int, detail: str
    ) -> EvalProtocol:
        """How the number is measured."""
        return e.protocol(
            method=self.method,
            split=self.source(e),
            references=references,
            generated=generated,
            values=VALUES,
            resize=extractor.resize,
            extractor=extractor.implementation,
            layer=extractor.layer,
            weights=extractor.weights_label,
            detail=detail,
        )

    def refuse_few(self, generated: int, real: int) -> None:
        """Raise where either set is too small."""
        if min(generated, real) < self.least:
            raise MetricError(
                f"{self.name}: {generated} samples against {real} references; it needs {self.least} of each"
            )
