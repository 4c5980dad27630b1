"""The extractor `vgg16`: torchvision's VGG16 (arXiv:1409.1556), with the layers of torch-fidelity's extractor."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import nn

from genbench.api import DataConfig
from genbench_vision.base import BILINEAR, IMAGENET_MEAN, IMAGENET_SD, WEIGHTS, State, VisionExtractor, filled

MODULES = {"fc2": 4, "fc2_relu": 5, "logits": 7}
"""Of how many modules of the classifier each layer is the output; dropout does nothing in evaluation."""


class VGG16(VisionExtractor):
    """VGG16, whose second hidden layer precision and recall were published with (arXiv:1904.06991)."""

    name = "vgg16"
    layers = ("fc2_relu", "fc2", "logits")
    default_layer = "fc2_relu"
    logits_layer = "logits"
    resize = f"{BILINEAR}; normalized by ImageNet's mean and standard deviation"
    source = "torchvision's VGG16 (vgg16-397923af.pth of pytorch.org)"
    mean, sd = IMAGENET_MEAN, IMAGENET_SD

    def __init__(self, data_config: DataConfig, *, weights: Annotated[str, WEIGHTS] = "none") -> None:
        super().__init__(data_config, weights=weights)

    def build(self, state: State, layer: str) -> nn.Module:
        """The network up to a layer of the classifier."""
        from torchvision.models import vgg16  # seconds to import

        with torch.device("meta"):
            network = vgg16()
        filled(network, state)
        return nn.Sequential(network.features, network.avgpool, nn.Flatten(), *network.classifier[: MODULES[layer]])
