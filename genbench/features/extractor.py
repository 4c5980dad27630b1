"""Features of images by registered extractors, on device tensors and without a DataLoader."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from genbench.api import ComponentSpec, DataConfig, Extractor
from genbench.errors import DataError, MetricError, UsageError, unknown

BATCH = 100
"""Images at once on a GPU, and the most on a CPU."""

_registered: dict[str, ComponentSpec[Extractor]] = {}
_fingerprints: dict[str, str] = {}


def register_extractors(specs: Mapping[str, ComponentSpec[Extractor]], fingerprints: Mapping[str, str]) -> None:
    """Make extractors available by name and drop those of an earlier call; called when plug-ins are loaded.

    `fingerprints` are those of the plug-ins' code. The table is global because a metric is created from its options
    alone.
    """
    _registered.clear()
    _registered.update(specs)
    _fingerprints.clear()
    _fingerprints.update(fingerprints)


@dataclass(frozen=True)
class FeatureLayer:
    """One layer of a registered extractor, with the file of its weights ("" for the extractor's own).

    `weights_label` names the weights in protocols: the start of their hash, and whether they are standard ones.
    `fingerprint` is that of the extractor's code. The text of a layer is part of cache keys, and with it both.
    """

    name: str
    layer: str
    weights: str = ""
    weights_label: str = ""
    fingerprint: str = ""
    extractor: Extractor = field(kw_only=True, compare=False, repr=False)

    @property
    def implementation(self) -> str:
        """The extractor's name in protocols."""
        return self.extractor.implementation or self.name

    @property
    def resize(self) -> str:
        """The resizing of images to the extractor's size, in protocols."""
        return self.extractor.resize

    def label(self, default_layer: str = "") -> str:
        """The name for a column head, with the layer where it is not the default one (that of distances)."""
        default_layer = default_layer or self.extractor.default_layer
        return self.name if self.layer == default_layer else f"{self.name} layer {self.layer}"


def feature_layer(name: str, layer: str, weights: str, data_config: DataConfig) -> FeatureLayer:
    """A layer of a registered extractor.

    Args:
        name: The extractor's name.
        layer: The layer's name; "" for the one that distances use.
        weights: A file of weights; "" for the extractor's own.
        data_config: Where weights may be downloaded to.

    Raises:
        UsageError: There is no such extractor or layer, or the extractor takes no file of weights.
        DataError: The file of weights is missing.
    """
    if name not in _registered:
        raise unknown("feature extractor", name, _registered)
    factory = _registered[name].factory
    if weights and "weights" not in inspect.signature(factory).parameters:
        raise UsageError(f"the extractor '{name}' brings its own weights: leave weights={weights} out")
    extractor = factory(data_config, **({"weights": weights} if weights else {}))
    if layer and layer not in extractor.layers:
        raise unknown(f"layer of the extractor '{name}' called", layer, extractor.layers)
    chosen = layer or extractor.default_layer
    fingerprint = _fingerprints.get(name, "")
    return FeatureLayer(name, chosen, weights, extractor.weights_label, fingerprint, extractor=extractor)


@lru_cache(maxsize=16)
def probe(chosen: FeatureLayer, channels: int, height: int, width: int) -> int:
    """The count of features of such images; called before any training.

    Raises:
        DataError: The weights are missing, or the layer's features are not finite.
        UnsupportedError: The extractor does not take images of this shape.
    """
    noise = torch.randint(0, 256, (2, channels, height, width), generator=torch.Generator().manual_seed(0))
    features = extract(chosen, noise.to(torch.uint8))
    if not features.isfinite().all():
        raise DataError(f"{chosen.weights or chosen.name} has no finite layer {chosen.layer}: choose another")
    return features.shape[1]


@torch.no_grad()
def extract(chosen: FeatureLayer, images: Tensor) -> Tensor:
    """Features of images, `(n, c, h, w)` uint8 on any device -> `(n, f)` float32 on it; grey is repeated to three
    channels.

    Raises:
        MetricError: The images are not uint8.
    """
    if images.dtype != torch.uint8:
        raise MetricError(f"features are taken of uint8 images, not {images.dtype}: round them first")
    network = _network(chosen, str(images.device))
    batch = min(BATCH, chosen.extractor.cpu_batch) if images.device.type == "cpu" else BATCH
    # TF32 moves an FID by 1e-3, and the protocol says float32. `enabled` is stated since its default here is False.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return torch.cat([network(block.expand(-1, 3, -1, -1)).float() for block in images.split(batch)])


def finite(features: Tensor, name: str) -> Tensor:
    """The features, or a `MetricError` that says whose features are not finite."""
    if not features.isfinite().all():
        raise MetricError(f"the features of {name} are not finite")
    return features


@lru_cache(maxsize=4)
def _network(chosen: FeatureLayer, device: str) -> torch.nn.Module:
    network = chosen.extractor.network(chosen.layer)
    return network.to(device).to(memory_format=torch.channels_last).eval()  # on a CPU 1.5 times the images per second
