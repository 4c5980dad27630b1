"""The extractor `dinov2`: the class token of DINOv2 (arXiv:2304.07193), as torchvision's ViT computes it.

DINOv2 is a plain ViT but for a scale of each block's outputs, which is folded into the layers before it, and positions
that are learned at 518x518 pixels and interpolated to 224x224. Features differ from the authors' code by rounding alone
(a test asks for 1e-4 of their norm).
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genbench.api import DataConfig
from genbench.features import read_weights
from genbench_vision.base import (
    BILINEAR,
    IMAGENET_MEAN,
    IMAGENET_SD,
    SIDE,
    WEIGHTS,
    State,
    VisionExtractor,
    filled,
)

SIZES = {384: "ViT-S/14", 768: "ViT-B/14", 1024: "ViT-L/14"}
"""The networks by their width. ViT-g/14 has other blocks."""

PATCH, HEAD_WIDTH = 14, 64
OFFSET = 0.1
"""Pixels that the authors' code adds to the size before it divides: the positions move a little by it."""

SAME = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attn.proj": "self_attention.out_proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}
"""Layers of a block, and their names in torchvision."""

SCALES = {"ls1": "self_attention.out_proj", "ls2": "mlp.3"}
"""Scales of outputs, and the layer that each is folded into."""


class DINOv2(VisionExtractor):
    """DINOv2, whose size is that of the weights; it agrees with people better than Inception (arXiv:2306.04675)."""

    name = "dinov2"
    layers = ("dinov2",)
    default_layer = "dinov2"
    resize = f"{BILINEAR}; normalized by ImageNet's mean and standard deviation"
    source = "the weights of DINOv2 ViT-S/14, ViT-B/14 or ViT-L/14 without registers (dinov2_vitl14_pretrain.pth)"
    mean, sd = IMAGENET_MEAN, IMAGENET_SD

    def __init__(self, data_config: DataConfig, *, weights: Annotated[str, WEIGHTS] = "none") -> None:
        super().__init__(data_config, weights=weights)

    @property
    def weights_label(self) -> str:
        """The network's size and the start of the file's hash."""
        token = read_weights(self.path).get("cls_token")
        size = SIZES.get(token.shape[-1], "") if token is not None and token.dim() else ""
        return f"{size} {super().weights_label}".strip()

    def build(self, state: State, layer: str) -> nn.Module:
        """torchvision's ViT with these weights."""
        from torchvision.models import VisionTransformer  # seconds to import

        width = state["cls_token"].shape[-1]
        if width not in SIZES:
            raise ValueError(f"a network of width {width}")
        renamed = torchvision_names(state)
        depth = sum(name.endswith("ln_1.weight") for name in renamed)
        with torch.device("meta"):
            network = VisionTransformer(SIDE, PATCH, depth, width // HEAD_WIDTH, width, 4 * width)
        network.heads = nn.Identity()
        return filled(network, renamed)


def torchvision_names(state: State) -> State:
    """DINOv2's tensors under torchvision's names, scales folded; `KeyError` where some are missing or left over."""
    left = dict(state)
    left.pop("mask_token", None)  # of the training alone
    renamed = {"class_token": left.pop("cls_token"), "encoder.pos_embedding": positions(left.pop("pos_embed"))}
    for kind in ("weight", "bias"):
        renamed[f"conv_proj.{kind}"] = left.pop(f"patch_embed.proj.{kind}")
        renamed[f"encoder.ln.{kind}"] = left.pop(f"norm.{kind}")
    for i in range(sum(name.endswith(".norm1.weight") for name in state)):
        block = f"encoder.layers.encoder_layer_{i}"
        for kind in ("weight", "bias"):
            renamed[f"{block}.self_attention.in_proj_{kind}"] = left.pop(f"blocks.{i}.attn.qkv.{kind}")
            for name, new_name in SAME.items():
                renamed[f"{block}.{new_name}.{kind}"] = left.pop(f"blocks.{i}.{name}.{kind}")
        for name, target in SCALES.items():
            scale = left.pop(f"blocks.{i}.{name}.gamma")
            renamed[f"{block}.{target}.weight"] = scale[:, None] * renamed[f"{block}.{target}.weight"]
            renamed[f"{block}.{target}.bias"] = scale * renamed[f"{block}.{target}.bias"]
    if left:
        raise KeyError(f"unknown tensors: {', '.join(left)}")
    return renamed


def positions(learned: Tensor) -> Tensor:
    """Positions of the class token and of all patches, `(1, 1 + m^2, d) -> (1, 1 + 16^2, d)`, bicubic."""
    side, new_side = math.isqrt(learned.shape[1] - 1), SIDE // PATCH
    if side == new_side:
        return learned
    grid = learned[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factor = (new_side + OFFSET) / side
    grid = interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([learned[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)
