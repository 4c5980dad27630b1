"""For tests: a tiny dataset, one bright square on black (its class is the quadrant), and a network with batch norm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import torch
from torch import nn

from genbench.api import Dataset, Images, Network, Offer, Option, Place, Shape, Summary
from genbench.hookspecs import hookimpl
from genbench.images import with_content


class Dots(Dataset):
    def __init__(
        self,
        *,
        size: Annotated[int, Option("pixels a side", low=9)] = 12,
        channels: Annotated[int, Option("1 or 3", low=1, high=3)] = 1,
    ) -> None:
        self.shape = (channels, size, size)

    def inspect(self, place: Place) -> Summary:
        return Summary(shape=self.shape, train=100, test=60, validation=20, classes=4)

    def load(self, place: Place) -> Images:
        draws = torch.Generator().manual_seed(0)
        corner = torch.randint(0, self.shape[1] - 3, (180, 2), generator=draws)
        images = torch.zeros(180, *self.shape, dtype=torch.uint8)
        for image, (row, column) in zip(images, corner.tolist(), strict=True):
            image[:, row : row + 4, column : column + 4] = 255
        labels = (corner >= self.shape[1] // 2 - 1).long() @ torch.tensor([2, 1])
        splits = [(images[a:b], labels[a:b]) for a, b in ((0, 100), (100, 160), (160, 180))]
        (train, its), (test, of_test), (validation, of_validation) = splits
        return with_content(Images(train, test, validation, its, of_test, of_validation))


class Normed(Network):
    """Batch norm in both halves: its running statistics are state that a checkpoint must keep."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def encoder(self, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(self.shape), 20), nn.BatchNorm1d(20), nn.Linear(20, outputs)
        )

    def decoder(self, latent_dim: int) -> nn.Module:
        body = (nn.Linear(latent_dim, 20), nn.BatchNorm1d(20), nn.Linear(20, math.prod(self.shape)))
        return nn.Sequential(*body, nn.Unflatten(1, self.shape))


@hookimpl
def genbench_networks() -> Iterable[Offer[Network]]:
    yield Offer(name="normed", about="Linear layers with batch norm", make=Normed)


@hookimpl
def genbench_datasets() -> Iterable[Offer[Dataset]]:
    yield Offer(name="dots", about="One square", make=Dots)
