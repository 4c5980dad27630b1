"""Class balance: the classes that grey28 sees in the samples, against the labels of held-out images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

import genbench_grey28
from genbench.api import (
    ComponentSpec,
    DataConfig,
    DatasetInfo,
    EvalProtocol,
    Evaluation,
    Measurement,
    Metric,
    Option,
    Prior,
)
from genbench.errors import MetricError, NotApplicableError, UnsupportedError
from genbench.features.extractor import Extractor, extract, finite
from genbench.hookspecs import hookimpl
from genbench.utils.rng import generator

REPLICATES = 400
"""Simulated perfect models behind a floor and its deviation: both are then known to about 5 % of the deviation."""


@dataclass(frozen=True)
class Balance:
    """Total variation in [0, 1], classes missing, and the share of samples outside the dataset's classes in [0, 1]."""

    total: float
    missing: float
    outside: float


def balance(counts: Tensor, labels: Tensor) -> Balance:
    """Of counts `(c + 1,)` over a dataset's c classes and what is outside of them, against label shares `(c,)`."""
    seen = counts.double() / counts.sum()
    wanted = torch.cat([labels.double(), labels.new_zeros(1, dtype=torch.float64)])
    missing = ((counts[:-1] == 0) & (labels > 0)).sum()
    return Balance(0.5 * float((seen - wanted).abs().sum()), float(missing), float(seen[-1]))


def perfect(real: Tensor, labels: Tensor, n: int) -> list[Balance]:
    """The balance of simulated perfect models: n classes drawn as `real` counts have them, `(c + 1,)`.

    `real` are what the classifier says of held-out images, so that its own errors, which a perfect model's samples
    would meet with alike, are in the floor.
    """
    draws = generator("cpu", 0, "class-balance/floor")
    drawn = (torch.multinomial(real.double(), n, replacement=True, generator=draws) for _ in range(REPLICATES))
    return [balance(torch.bincount(classes, minlength=len(real)), labels) for classes in drawn]


class ClassBalance(Metric):
    """Total variation between the samples' classes under grey28 and the held-out labels, and what it is made of.

    A class that no held-out image has counts as such where samples fall into it. A class is what the classifier says:
    it must choose one of 30 even for a picture of nothing.
    """

    def __init__(self, *, n: Annotated[int, Option("samples", low=1)] = 10_000) -> None:
        """See the annotations."""
        self.n = n

    def check(self, summary: DatasetInfo, prior: Prior, place: DataConfig) -> None:
        """Refuse datasets whose classes grey28 does not know."""
        own_classes(summary.class_names)

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """Three numbers beside what a perfect model would score with n samples."""
        try:
            own = own_classes(e.images.class_names)
        except UnsupportedError as reason:
            raise NotApplicableError(str(reason)) from None
        labels = e.images.test_labels if e.split == "test" else e.images.validation_labels
        if labels is None or not len(labels) or len(labels) != len(e.references):
            raise MetricError(f"class-balance: the {e.split} images have no labels to compare with")
        extractor = Extractor(genbench_grey28.NAME, "logits")
        shares = torch.bincount(labels.cpu(), minlength=len(own)).double() / len(labels)
        found = balance(self.counts(extractor, e.samples(self.n), own), shares)
        key = f"class-balance/floor/{e.split}/{e.images.content}/{self.n}"
        null = e.shared(key, lambda: perfect(self.counts(extractor, e.references.to(e.device), own), shares, self.n))
        protocol = self._protocol(e, extractor, len(labels))
        for part, field, unit, label in (
            ("", "total", "total variation", "class imbalance (grey28)"),
            ("missing", "missing", "classes", "classes missing (grey28)"),
            ("outside", "outside", "share", "outside all classes (grey28)"),
        ):
            scored = torch.tensor([getattr(one, field) for one in null], dtype=torch.float64)
            value: float = getattr(found, field)
            yield Measurement(
                value,
                unit,
                "lower",
                self.n,
                protocol,
                part=part,
                floor=float(scored.mean()),
                floor_sd=float(scored.std()),
                label=label,
                se=(math.sqrt(value * (1 - value) / self.n) or None) if part == "outside" else None,
            )

    def counts(self, extractor: Extractor, images: Tensor, own: Tensor) -> Tensor:
        """How many images the classifier gives each class of the dataset, and, last, any other: `(c + 1,)`."""
        classes = finite(extract(extractor, images), "the images").argmax(1).cpu()
        seen = torch.bincount(classes, minlength=len(genbench_grey28.CLASSES))
        return torch.cat([seen[own], (seen.sum() - seen[own].sum())[None]])

    def _protocol(self, e: Evaluation, extractor: Extractor, references: int) -> EvalProtocol:
        return EvalProtocol(
            method="total variation of predicted classes from held-out labels",
            dataset=e.images.content[:12],
            preparation=e.images.preparation,
            split=e.split,
            references=references,
            generated=self.n,
            values="uint8",
            extractor=extractor.registered,
            layer=extractor.layer,
            weights=extractor.weights_label,
            detail=f"floor from {REPLICATES} draws of the classes predicted of the references",
        )


def own_classes(names: tuple[str, ...]) -> Tensor:
    """The numbers of a dataset's classes among grey28's, `(c,)`; `UnsupportedError` where grey28 does not know them."""
    known = genbench_grey28.CLASSES
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
        description="Classes of the samples under grey28 against the held-out labels",
        factory=ClassBalance,
        reference="ours",
    )
