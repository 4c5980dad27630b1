"""The order of training images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genbench.utils.rng import generator


class BatchOrder:
    """Batches of training images: random permutations of the training set, concatenated and cut into equal batches.

    A batch may span two epochs, so every batch is full and every image is shown once in an epoch. There are `total`
    images and `batch` <= `total` images a step; permutations are drawn on the CPU. With several seeds there is an order
    for each.
    """

    def __init__(self, total: int, batch: int, seed: int | Sequence[int], device: torch.device) -> None:
        self.total, self.batch, self.seed, self.device = total, batch, seed, device
        self._epochs: dict[int, Tensor] = {}

    def indices(self, step: int) -> Tensor:
        """The images of a step, `(batch,)` or `(seeds, batch)` int64 on the device: a function of seed and step."""
        epoch, offset = divmod(step * self.batch, self.total)
        head = self._permutation(epoch)[..., offset : offset + self.batch]
        lacking = self.batch - head.shape[-1]
        return torch.cat([head, self._permutation(epoch + 1)[..., :lacking]], dim=-1) if lacking else head

    def _permutation(self, epoch: int) -> Tensor:
        """The permutation of an epoch; this one and the one before are kept."""
        if epoch not in self._epochs:
            if isinstance(self.seed, int):
                drawn = self._draw(self.seed, epoch)
            else:
                drawn = torch.stack([self._draw(seed, epoch) for seed in self.seed])
            self._epochs = {e: p for e, p in self._epochs.items() if e == epoch - 1} | {epoch: drawn.to(self.device)}
        return self._epochs[epoch]

    def _draw(self, seed: int, epoch: int) -> Tensor:
        return torch.randperm(self.total, generator=generator("cpu", seed, "order", epoch))
