"""Inception score: how surely each sample is of one class, and how many classes there are (arXiv:1606.03498)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

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
    Shape,
)
from genbench.errors import DataError, MetricError, UsageError
from genbench.features import FeatureLayer, probe
from genbench.hookspecs import hookimpl
from genbench_fid import FEATURES, VALUES, WEIGHTS, FeatureMetric

SHUFFLE_SEED = 2020
"""torch-fidelity's own, with which it shuffles before it splits."""

UNDERFLOW = 700.0
"""Nats below an image's largest logit at which a probability is still a positive float64."""


@dataclass(frozen=True)
class Score:
    """The mean of the scores of disjoint splits, and their standard deviation."""

    mean: float
    spread: float

    def standard_error(self, splits: int) -> float:
        """That of the mean; torch-fidelity's deviation divides by `splits`, not by one less."""
        return self.spread / math.sqrt(splits - 1)


def score(logits: Tensor, splits: int) -> Score:
    r"""The score of class logits, `(n, classes)`, by torch-fidelity's own function, in float64; from 1 to `classes`.

    .. math:: \exp\, E_x\, KL(p(y|x) \,|\, p(y))

    with p(y) the mean over a split (arXiv:1606.03498, section 4). A logit so low that its probability is 0 in float64
    gives torch-fidelity 0 log 0 = NaN wherever all images of a split agree on it: such logits are raised to
    `UNDERFLOW` below the largest, which moves no probability by more than 1e-304.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    logits = logits.double().cpu()
    logits = logits.maximum(logits.amax(1, keepdim=True) - UNDERFLOW)
    result = isc_features_to_metric(logits, splits=splits, shuffle=True, rng_seed=SHUFFLE_SEED)
    return Score(result[KEY_METRIC_ISC_MEAN], result[KEY_METRIC_ISC_STD])


class InceptionScore(FeatureMetric):
    """The score of the samples; it knows no real image, so that one sharp picture of each class is perfect to it.

    The mean over splits is biased downwards where a split is small: compare equal n and splits only. Its scale is its
    extractor's: with grey28 it lies between 1 and 30, and real images of one dataset reach about 10.
    """

    name = "inception-score"
    method = "exp of the mean KL(p(y|x) | p(y)), mean over splits"

    def __init__(
        self,
        *,
        features: Annotated[str, FEATURES] = "auto",
        layer: Annotated[str, Option("layer of class logits; auto: the extractor's own")] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        n: Annotated[int, Option("samples", low=2)] = 10_000,
        splits: Annotated[int, Option("parts of the samples, scored apart", reference="arXiv:1606.03498", low=2)] = 10,
    ) -> None:
        super().__init__(features, layer, weights, n, "test")
        self.n, self.splits = n, splits

    def extractor(self, shape: Shape, data_config: DataConfig) -> FeatureLayer:
        """The extractor at its layer of class logits."""
        chosen = super().extractor(shape, data_config)
        if self.layer == "auto":
            if not chosen.extractor.logits_layer:
                raise UsageError(
                    f"inception-score: the extractor '{chosen.name}' tells no classes: leave the score out"
                )
            chosen = replace(chosen, layer=chosen.extractor.logits_layer)
        if not chosen.layer.startswith("logits"):
            raise UsageError(f"inception-score needs class logits, and layer {chosen.layer} of {chosen.name} has none")
        return chosen

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse too few samples, and weights without finite class logits."""
        if self.n < self.splits:
            raise UsageError(f"inception-score: {self.n} samples in {self.splits} splits; each needs at least one")
        extractor = self.extractor(info.shape, data_config)
        try:
            probe(extractor, *info.shape)
        except DataError as error:
            if "no finite layer" not in str(error):
                raise
            raise DataError(
                f"inception-score: {extractor.weights or extractor.name} has no finite layer {extractor.layer}: give "
                "complete weights with --set inception-score.weights=FILE, or leave the score out of --metrics"
            ) from None

    def counts_needed(self, info: DatasetInfo) -> Mapping[Piece, int]:
        """`n` samples."""
        return {"samples": self.n}

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The score beside that of as many training images, the score of a perfect model."""
        if self.n < self.splits:
            raise MetricError(f"inception-score: {self.n} samples in {self.splits} splits; each needs at least one")
        extractor = self.extractor(e.images.shape, e.data_config)
        result = score(self.sample_features(e, extractor, self.n), self.splits)
        key = f"inception-score/floor/{extractor}/{e.images.sha256}/{self.n}/{self.splits}/{e.device}"
        floor = e.cache_for_dataset(key, lambda: self.real(e, extractor)) if self.n <= len(e.images.train) else None
        yield Measurement(
            value=result.mean,
            unit="effective classes",
            higher_is_better=True,
            n=self.n,
            protocol=self._protocol(e, extractor),
            role="sample quality",
            floor=floor.mean if floor else None,
            floor_sd=floor.standard_error(self.splits) if floor else None,
            label=f"Inception score ({extractor.label(extractor.extractor.logits_layer)})",
            se=result.standard_error(self.splits),
            caution=self.caution(extractor),
        )

    def real(self, e: Evaluation, extractor: FeatureLayer) -> Score:
        """The score of n training images."""
        return score(self.training_features(e, extractor, self.n), self.splits)

    def _protocol(self, e: Evaluation, extractor: FeatureLayer) -> EvalProtocol:
        return e.protocol(
            method=self.method,
            split="none",
            references=0,
            generated=self.n,
            values=VALUES,
            resize=extractor.resize,
            extractor=extractor.implementation,
            layer=extractor.layer,
            weights=extractor.weights_label,
            dtype="float64 from float32 logits",
            detail=f"{self.splits} splits, shuffled with seed {SHUFFLE_SEED}",
        )


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """The inception score."""
    yield ComponentSpec(
        name="inception-score",
        aliases=("is", "isc"),
        description="Sureness and variety of the samples' classes",
        factory=InceptionScore,
        reference="arXiv:1606.03498",
    )
