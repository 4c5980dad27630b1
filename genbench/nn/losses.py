"""Reconstruction losses, one number for each image, and the loss of a critic."""

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


def critic_loss(large: Tensor, small: Tensor) -> Tensor:
    """Cross entropy of a critic between two samples, mean softplus(-large) + mean softplus(small), in nats.

    Args:
        large: The critic's logits of points of the first sample, `(n,)`, which it learns to make large.
        small: Its logits of points of the second sample, `(m,)`, which it learns to make small.

    Returns:
        The loss, `()`. A critic that descends it tends to log(density of the first / density of the second).

    Example:
        >>> critic_loss(torch.zeros(3), torch.zeros(2))  # 2 log 2
        tensor(1.3863)
    """
    return F.softplus(-large).mean() + F.softplus(small).mean()


COSTS: Mapping[str, ReconstructionLoss] = {"squared": squared_error, "bce-l1": bce_l1}
"""Reconstruction losses by the names that options have for them."""
