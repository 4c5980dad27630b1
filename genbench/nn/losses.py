"""Reconstruction losses: one number for each image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class ReconstructionLoss(Protocol):
    """A reconstruction loss: logits and images in [0, 1], both `(n, c, h, w)`, -> one number for each image, `(n,)`."""

    def __call__(self, logits: Tensor, x: Tensor) -> Tensor:
        """The loss of each image, `(n, c, h, w), (n, c, h, w) -> (n,)`."""


def squared_error(logits: Tensor, x: Tensor) -> Tensor:
    """Sum over the pixels of (sigmoid(logits) - x)^2, `(n, c, h, w), (n, c, h, w) -> (n,)`.

    Example:
        >>> squared_error(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
        tensor([1.])
    """
    return (torch.sigmoid(logits) - x).square().flatten(1).sum(1)


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Sum over the pixels of -x log y - (1 - x) log(1 - y) in nats, y = sigmoid(logits).

    Shapes `(n, c, h, w), (n, c, h, w) -> (n,)`.

    Example:
        >>> cross_entropy(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))  # log 2
        tensor([0.6931])
    """
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def bce_l1(logits: Tensor, x: Tensor) -> Tensor:
    """Mean over the pixels of cross entropy plus |sigmoid(logits) - x|, `(n, c, h, w), (n, c, h, w) -> (n,)`.

    The loss of the notebooks that accompany arXiv:1804.01947.

    Example:
        >>> bce_l1(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))  # log 2 + 1/2
        tensor([1.1931])
    """
    absolute = (torch.sigmoid(logits) - x).abs().flatten(1).mean(1)
    return cross_entropy(logits, x) / math.prod(x.shape[1:]) + absolute


COSTS: Mapping[str, ReconstructionLoss] = {"squared": squared_error, "bce-l1": bce_l1}
"""Reconstruction losses by the names that options have for them."""
