"""Class balance: the classes that a classifier sees in the samples, against the labels of held-out images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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
from genbench.data.seeds import generator
from genbench.errors import MetricError, NotApplicableError, UnsupportedError, UsageError
from genbench.features import FeatureLayer, extract, feature_layer, finite
from genbench.hookspecs import hookimpl
from genbench_fid import WEIGHTS

REPLICATES = 400
"""Simulated perfect models behind a floor and its deviation: both are then known to about 5 % of the deviation."""


@dataclass(frozen=True)
class Balance:
    """Total variation in [0, 1], classes missing, and the share of samples outside the dataset's classes in [0, 1]."""

    total: float
    missing: float
    outside: float


def balance(counts: Tensor, labels: Tensor) -> Balance:
    """The balance of counts `(c + 1,)`, over c classes and all else, against label shares `(c,)`."""
    seen = counts.double() / counts.sum()
    expected = torch.cat([labels.double(), labels.new_zeros(1, dtype=torch.float64)])
    missing = ((counts[:-1] == 0) & (labels > 0)).sum()
    return Balance(0.5 * float((seen - expected).abs().sum()), float(missing), float(seen[-1]))


def perfect(real: Tensor, labels: Tensor, n: int) -> list[Balance]:
    """The balance of simulated perfect models: n classes drawn as `real` counts have them, `(c + 1,)`.

    `real` counts the classes predicted of held-out images, so that the floor contains the classifier's errors.
    """
    draws = generator("cpu", 0, "class-balance/floor")
    drawn = (torch.multinomial(real.double(), n, replacement=True, generator=draws) for _ in range(REPLICATES))
    return [balance(torch.bincount(classes, minlength=len(real)), labels) for classes in drawn]


class ClassBalance(Metric):
    """Total variation between the samples' classes by a classifier and the held-out labels, and its parts.

    A class that no held-out image has counts as such where samples fall into it. A class is the classifier's choice:
    grey28 must choose one of 30 even for a picture of nothing.
    """

    def __init__(
        self,
        *,
        features: Annotated[str, Option("extractor that names the classes of its logits")] = "grey28",
        weights: Annotated[str, WEIGHTS] = "none",
        n: Annotated[int, Option("samples", low=1)] = 10_000,
    ) -> None:
        self.features, self.weights, self.n = features, weights, n

    def classifier(self, data_config: DataConfig) -> FeatureLayer:
        """The extractor at its layer of class logits."""
        chosen = feature_layer(self.features, "", self.weights.removeprefix("none"), data_config)
        if not chosen.extractor.classes:
            raise UsageError(f"class-balance: the extractor '{self.features}' does not name classes: choose another")
        return replace(chosen, layer=chosen.extractor.logits_layer)

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse datasets without test images, and those whose classes the classifier does not know."""
        if not info.test:
            raise UsageError("class-balance needs held-out images and the dataset has none")
        class_indices(info.class_names, self.classifier(data_config))

    def counts_needed(self, info: DatasetInfo) -> Mapping[Piece, int]:
        """`n` samples."""
        return {"samples": self.n}

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """Three numbers; their floors are those of a perfect model with n samples."""
        extractor = self.classifier(e.data_config)
        try:
            indices = class_indices(e.images.class_names, extractor)
        except UnsupportedError as reason:
            raise NotApplicableError(str(reason)) from None
        labels = e.images.test_labels if e.split == "test" else e.images.validation_labels
        if labels is None or not len(labels) or len(labels) != len(e.references):
            raise MetricError(f"class-balance: the {e.split} images have no labels to compare with")
        shares = torch.bincount(labels.cpu(), minlength=len(indices)).double() / len(labels)
        measured = balance(self.counts(extractor, e.samples(self.n), indices), shares)
        key = f"class-balance/floor/{extractor}/{e.split}/{e.images.sha256}/{self.n}"
        null = e.cache_for_dataset(
            key, lambda: perfect(self.counts(extractor, e.references.to(e.device), indices), shares, self.n)
        )
        protocol = e.protocol(
            method="total variation of predicted classes from held-out labels",
            references=len(labels),
            generated=self.n,
            extractor=extractor.implementation,
            layer=extractor.layer,
            weights=extractor.weights_label,
            detail=f"floor from {REPLICATES} draws of the classes predicted of the references",
        )
        for component, field, unit, label in (
            ("", "total", "total variation", "class imbalance"),
            ("missing", "missing", "classes", "classes missing"),
            ("outside", "outside", "share", "outside all classes"),
        ):
            scored = torch.tensor([getattr(simulated, field) for simulated in null], dtype=torch.float64)
            value: float = getattr(measured, field)
            yield Measurement(
                value=value,
                unit=unit,
                higher_is_better=False,
                n=self.n,
                protocol=protocol,
                component=component,
                role="" if component == "outside" else "sample quality",
                floor=float(scored.mean()),
                floor_sd=float(scored.std()),
                label=f"{label} ({extractor.name})",
                se=(math.sqrt(value * (1 - value) / self.n) or None) if component == "outside" else None,
            )

    def counts(self, extractor: FeatureLayer, images: Tensor, indices: Tensor) -> Tensor:
        """How many images the classifier gives each class of the dataset, and, last, any other: `(c + 1,)`."""
        classes = finite(extract(extractor, images), "the images").argmax(1).cpu()
        seen = torch.bincount(classes, minlength=len(extractor.extractor.classes))
        return torch.cat([seen[indices], (seen.sum() - seen[indices].sum())[None]])


def class_indices(names: tuple[str, ...], extractor: FeatureLayer) -> Tensor:
    """The indices of a dataset's classes among the classifier's, `(c,)`; `UnsupportedError` where it lacks some."""
    known = extractor.extractor.classes
    if not names or not set(names) <= set(known):
        sets = ", ".join(dict.fromkeys(name.split("/")[0] for name in known))
        raise UnsupportedError(
            f"class-balance knows the classes of {sets}, and not those of this dataset: leave it out of --metrics"
        )
    return torch.tensor([known.index(name) for name in names])


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """Class balance."""
    yield ComponentSpec(
        name="class-balance",
        description="Classes of the samples by a classifier against the held-out labels",
        factory=ClassBalance,
        reference="ours",
    )
