"""The extractor `my-extractor`: averages of pixels over a grid. Change `MyNetwork` and the layers."""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from genbench.api import ComponentSpec, DataConfig, Extractor
from genbench.hookspecs import hookimpl

GRIDS = {"4x4": 4, "8x8": 8}
"""The layers: cells a side of the grid."""


class MyNetwork(nn.Module):
    """Means of square cells. One with weights loads them here (`genbench.data.tensor_files.load_tensors`)."""

    def __init__(self, side: int) -> None:
        """`side` cells a side."""
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """Images `(n, 3, h, w)` uint8, grey repeated, to features `(n, f)` float32; each image alone."""
        return F.adaptive_avg_pool2d(images.float() / 255, self.side).flatten(1)


class MyExtractor(Extractor):
    """For every metric on features alike: `--set fid.features=my-extractor`."""

    layers = tuple(GRIDS)
    default_layer = "8x8"

    def __init__(self, data_config: DataConfig) -> None:
        """Read no file here: a plan only asks for the layers. `data_config` says where weights are kept."""

    @property
    def weights_label(self) -> str:
        """The weights in protocols; with a file of weights, the start of its SHA-256."""
        return "none"

    def network(self, layer: str) -> nn.Module:
        """The network up to a layer, in evaluation mode."""
        return MyNetwork(GRIDS[layer]).eval()


@hookimpl
def genbench_extractors() -> Iterable[ComponentSpec[Extractor]]:
    """The extractor. `reference` is the paper that it comes from."""
    yield ComponentSpec(
        name="my-extractor", description="Averages of pixels over a grid", factory=MyExtractor, reference=""
    )
