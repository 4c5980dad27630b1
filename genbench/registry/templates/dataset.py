"""The dataset `my-dataset`: discs of random position and size. Change `load` to read your own images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import ComponentSpec, DataConfig, Dataset, DatasetInfo, Images, Option
from genbench.data.images import with_content
from genbench.hookspecs import hookimpl

SIZE = 28
TRAIN, TEST, VALIDATION = 4000, 1000, 1000


class MyDataset(Dataset):
    """Grey discs, 28 x 28. Your own files lie under `data_config.data_root`; raise `DataError` where they do not."""

    # Keyword-only parameters are the options: `--set my-dataset.largest=9`.
    def __init__(self, *, largest: Annotated[float, Option("largest radius in pixels", low=3, high=13)] = 8.0) -> None:
        """Keep the options; read nothing."""
        self.largest = largest

    def info(self, data_config: DataConfig) -> DatasetInfo:
        """Shape and counts before anything is decoded: plans are checked against it, so it must be cheap.

        A dataset that reads files states `originals`, a hash of their bytes, here and in `load`: it identifies runs.
        """
        return DatasetInfo(shape=(1, SIZE, SIZE), train=TRAIN, test=TEST, validation=VALIDATION)

    def load(self, data_config: DataConfig) -> Images:
        """`(n, c, h, w)` uint8 per split, disjoint, and the same bytes at every call; `with_content` hashes them."""
        images = discs(TRAIN + TEST + VALIDATION, self.largest, torch.Generator().manual_seed(0))
        train, test, validation = images.split([TRAIN, TEST, VALIDATION])
        return with_content(Images(train, test, validation, preprocessing="none"))


def discs(n: int, largest: float, generator: torch.Generator) -> Tensor:
    """n discs with soft edges, `(n, 1, 28, 28)` uint8."""
    radius = 2 + (largest - 2) * torch.rand(n, 1, 1, generator=generator)
    row, column = (radius + (SIZE - 1 - 2 * radius) * torch.rand(n, 1, 1, generator=generator) for _ in range(2))
    pixels = torch.arange(SIZE, dtype=torch.float32)
    distance = ((pixels.view(1, SIZE, 1) - row).square() + (pixels.view(1, 1, SIZE) - column).square()).sqrt()
    return ((radius - distance + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).unsqueeze(1)


@hookimpl
def genbench_datasets() -> Iterable[ComponentSpec[Dataset]]:
    """The dataset. `reference` is where the images come from."""
    yield ComponentSpec(name="my-dataset", description="Grey discs, 28 x 28", factory=MyDataset, reference="")
