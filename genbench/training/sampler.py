"""The order of training images."""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.utils.rng import generator


class BatchOrder:
    """Batches of training images: random permutations of the training set, concatenated and cut into equal batches.

    A batch may span two epochs, so every batch is full and every image is shown once in an epoch. There are `total`
    images and `batch` <= `total` images a step; permutations are drawn on the CPU.
    """

    def __init__(self, total: int, batch: int, seed: int, device: torch.device) -> None:
        self.total, self.batch, self.seed, self.device = total, batch, seed, device
        self._epochs: dict[int, Tensor] = {}

    def indices(self, step: int) -> Tensor:
        """The images of a step, `(batch,)` int64 on the device; a function of seed and step alone."""
        epoch, offset = divmod(step * self.batch, self.total)
        head = self._permutation(epoch)[offset : offset + self.batch]
        if len(head) == self.batch:
            return head
        return torch.cat([head, self._permutation(epoch + 1)[: self.batch - len(head)]])

    def _permutation(self, epoch: int) -> Tensor:
        """The permutation of an epoch; this one and the one before are kept."""
        if epoch not in self._epochs:
            drawn = torch.randperm(self.total, generator=generator("cpu", self.seed, "order", epoch))
            self._epochs = {e: p for e, p in self._epochs.items() if e == epoch - 1} | {epoch: drawn.to(self.device)}
        return self._epochs[epoch]
