"""The checks of extractors, on the kit's pictures; an extractor whose weights are missing is skipped."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from genbench.api import DataConfig, Extractor
from genbench.errors import DataError
from genbench.testing.results import ConformanceCheck, Skipped, expect
from genbench.testing.synthetic import pictures

FEW = 7


def build(make: Callable[[DataConfig], Extractor]) -> Extractor:
    """The extractor without a download."""
    folder = Path(tempfile.gettempdir())
    try:
        extractor = make(DataConfig(folder, folder))
        _features(extractor, extractor.default_layer, pictures(1, 5))
    except DataError as error:
        raise Skipped(f"needs weights that are not here: {error}") from None
    return extractor


@torch.no_grad()
def _features(extractor: Extractor, layer: str, images: Tensor) -> Tensor:
    features: Tensor = extractor.network(layer).eval()(images.expand(-1, 3, -1, -1))
    return features


def layers_give_features(subject: Extractor) -> str:
    """Every layer gives (n, f) finite float32 features of grey images repeated to three channels."""
    for layer in subject.layers:
        features = _features(subject, layer, pictures(FEW, 5))
        text = f"layer {layer} gives {tuple(features.shape)} {features.dtype}"
        expect(features.dim() == 2 and len(features) == FEW and features.dtype == torch.float32, text)
        expect(bool(features.isfinite().all()), f"layer {layer} is not finite")
    return ", ".join(subject.layers)


def named_layers_exist(subject: Extractor) -> str:
    """`default_layer` and `logits_layer` are among `layers`; each class has a logit."""
    for layer in filter(None, (subject.default_layer, subject.logits_layer)):
        expect(layer in subject.layers, f"there is no layer {layer} among {', '.join(subject.layers)}")
    if subject.classes:
        width = _features(subject, subject.logits_layer, pictures(1, 5)).shape[1]
        expect(width == len(subject.classes), f"{width} logits for {len(subject.classes)} classes")
    return subject.default_layer


def images_stand_alone(subject: Extractor) -> str:
    """The features of an image do not depend on the rest of its batch, and differ between images."""
    images = pictures(FEW, 5)
    together = _features(subject, subject.default_layer, images)
    alone = _features(subject, subject.default_layer, images[:1])
    gap = float((together[0] - together[1]).norm())
    expect(gap > 0.0, "two different images have equal features")
    change = float((together[0] - alone[0]).norm())
    expect(change <= 1e-3 * gap, f"the features of an image change by {change:.2g} with its batch")
    return "features of each image alone"


def weights_are_named(subject: Extractor) -> str:
    """`weights_label` is a text that is the same at every call."""
    label = subject.weights_label
    expect(bool(label) and label == subject.weights_label, f"weights_label is {label!r}")
    return label


CHECKS: tuple[ConformanceCheck[Extractor], ...] = (
    ConformanceCheck(layers_give_features, "return one (n, f) float32 tensor from the network's forward"),
    ConformanceCheck(named_layers_exist, "name layers that `layers` lists"),
    ConformanceCheck(images_stand_alone, "put batch norm in evaluation mode"),
    ConformanceCheck(weights_are_named, "hash the weights: genbench.data.tensor_files.hash_file"),
)
