"""The Inception of FID, as torch-fidelity has it, in a form that does the same sums with less work.

Batch normalisation is folded into the convolutions; images are resized along rows before they are repeated along
columns. Features differ from torch-fidelity's by rounding alone (a test asks for 1e-5 of their norm).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3

NAME = "inception-v3-compat"

CPU_BATCH = 4
"""Images at once on a CPU: the largest activations of so few stay near the processor (reports/speed)."""

SIZE = FeatureExtractorInceptionV3.INPUT_IMAGE_SIZE

PIECES = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)
"""torch-fidelity's modules in their order."""

LAST = {"64": "MaxPool_1", "192": "MaxPool_2", "768": "Mixed_6e"}
"""The piece whose mean over pixels a layer is; the other layers come after all of them."""


class FoldedInception(nn.Module):
    """torch-fidelity's Inception up to one layer; it takes over the modules of the extractor that it is made of."""

    def __init__(self, made: FeatureExtractorInceptionV3, layer: str) -> None:
        """`layer` is one of `made.get_provided_features_list()`."""
        super().__init__()
        end = PIECES.index(LAST.get(layer, PIECES[-1])) + 1
        self.pieces = nn.Sequential(*(getattr(made, name) for name in PIECES[:end]))
        for block in self.pieces.modules():
            if isinstance(block, BasicConv2d) and not isinstance(block.bn, nn.Identity):
                block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
        self.head = made.fc if layer.startswith("logits") else None
        self.biased = layer == "logits"

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Features of images, `(n, 3, h, w)` uint8 -> `(n, f)` float32."""
        x = resized(images.float().contiguous(memory_format=torch.channels_last))
        features = self.pieces(x.sub_(128).div_(128)).mean((2, 3))
        if self.head is not None:
            features = features @ self.head.weight.T
            features = features + self.head.bias if self.biased else features
        return (features,)


def resized(x: Tensor) -> Tensor:
    """Bilinear to 299x299 as TensorFlow 1 did, `(n, c, h, w)` -> `(n, c, 299, 299)`, bit for bit torch-fidelity's.

    Pixel i of the result lies at i h / 299 of the original. torch-fidelity interpolates along a row anew for each of
    the result's rows that the row goes into; here once.
    """
    along = _positions(x.shape[3], x.device)
    low = x[:, :, :, along[0]]
    x = low + (x[:, :, :, along[1]] - low) * along[2]
    down = _positions(x.shape[2], x.device)
    low = x[:, :, down[0]]
    return low + (x[:, :, down[1]] - low) * down[2][:, None]


def _positions(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of the result the pixels before and after it, and its distance from the former in [0, 1)."""
    at = torch.arange(SIZE, dtype=torch.float32, device=device) * torch.tensor(size / SIZE, dtype=torch.float32)
    low = at.long()
    return low, (low + 1).clamp_max(size - 1), at - low.float()
