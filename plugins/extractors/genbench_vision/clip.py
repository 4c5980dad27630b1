"""The extractor `clip`: the image encoder of CLIP (arXiv:2103.00020), a ViT in torch-fidelity's code."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import nn

from genbench.api import DataConfig
from genbench.features import read_weights
from genbench_vision.base import BILINEAR, SIDE, WEIGHTS, State, VisionExtractor, filled

SIZES = {(768, 32): "ViT-B/32", (768, 16): "ViT-B/16", (1024, 14): "ViT-L/14"}
"""The encoders for 224x224 pixels by their width and the side of a patch."""

HEAD_WIDTH = 64


class CLIP(VisionExtractor):
    """The image encoder of CLIP, whose size is that of the weights; the encoder of texts may be in the file."""

    name = "clip"
    layers = ("clip",)
    default_layer = "clip"
    resize = f"{BILINEAR}; normalized by CLIP's mean and standard deviation"
    source = "the state_dict of OpenAI's CLIP ViT-B/32, ViT-B/16 or ViT-L/14 (names begin with visual.)"
    mean, sd = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def __init__(self, data_config: DataConfig, *, weights: Annotated[str, WEIGHTS] = "none") -> None:
        super().__init__(data_config, weights=weights)

    @property
    def weights_label(self) -> str:
        """The encoder's size and the start of the file's hash."""
        patches = read_weights(self.path).get("visual.conv1.weight")
        size = SIZES.get((patches.shape[0], patches.shape[-1]), "") if patches is not None else ""
        return f"{size} {super().weights_label}".strip()

    def build(self, state: State, layer: str) -> nn.Module:
        """The image encoder, by the names of OpenAI's model."""
        from torch_fidelity.feature_extractor_clip import VisionTransformer  # seconds to import

        visual = {name.removeprefix("visual."): t for name, t in state.items() if name.startswith("visual.")}
        width, _, patch, _ = visual["conv1.weight"].shape
        side = patch * math.isqrt(len(visual["positional_embedding"]) - 1)
        if (width, patch) not in SIZES or side != SIDE:
            raise ValueError(f"a ViT of width {width} for {side}x{side} pixels in patches of {patch}")
        depth = 1 + max(int(name.split(".")[2]) for name in visual if name.startswith("transformer.resblocks."))
        with torch.device("meta"):
            network = VisionTransformer(side, patch, width, depth, width // HEAD_WIDTH, visual["proj"].shape[1])
        return filled(network, visual)
