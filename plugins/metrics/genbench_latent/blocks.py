"""A squared distance between samples without their own sampling share, by blocks: its value, splits and variances.

Two samples of n points in B blocks each. A *table* is the symmetric `(2B, 2B)` float64 matrix of the squared distances
D between blocks, those of the first sample before those of the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Generator, Tensor

MOST_SPLITS = 500
"""Splits of one table that are looked at: all of them up to six blocks a side, a random choice of more."""

SPLITS_SEED = 2203_11627


@dataclass(frozen=True)
class Distance:
    """A squared distance between blocks, `between(prepare(x), prepare(y))`, and within a block where it has one.

    `prepare` computes the part that is used again for each partner of a block, `(m, d) -> (...)`.
    """

    prepare: Callable[[Tensor], Tensor]
    between: Callable[[Tensor, Tensor], float]
    inside: Callable[[Tensor], float] = lambda _: 0.0


def within(distance: Distance, blocks: Sequence[Tensor]) -> Tensor:
    """Distances between the blocks of one sample, `(B, B)`, symmetric; the diagonal is `inside`."""
    ready = [distance.prepare(block) for block in blocks]
    table = torch.diag(torch.tensor([distance.inside(block) for block in ready], dtype=torch.float64))
    for i, j in combinations(range(len(ready)), 2):
        table[i, j] = table[j, i] = distance.between(ready[i], ready[j])
    return table


def across(distance: Distance, x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
    """Distances from the blocks of one sample to those of another, `(B, B)`."""
    us, vs = [distance.prepare(block) for block in x], [distance.prepare(block) for block in y]
    return torch.tensor([[distance.between(u, v) for v in vs] for u in us], dtype=torch.float64)


def block_table(xx: Tensor, xy: Tensor, yy: Tensor) -> Tensor:
    """The table of two samples, `(B, B)` three times -> `(2B, 2B)`."""
    return torch.cat([torch.cat([xx, xy], 1), torch.cat([xy.T, yy], 1)])


def as_given(count: int) -> Tensor:
    """The split into the two samples themselves, `(1, 2B)`: ones for the first, zeros for the second."""
    return torch.cat([torch.ones(1, count), torch.zeros(1, count)], 1).double()


def splits(count: int) -> Tensor:
    """Splits of 2B blocks into two samples of B, `(s, 2B)` of ones and zeros; that of block 0 is always the first.

    All of them, or `MOST_SPLITS` of a fixed random choice where there are more.
    """
    if math.comb(2 * count, count) // 2 <= MOST_SPLITS:
        chosen = torch.tensor([(0, *rest) for rest in combinations(range(1, 2 * count), count - 1)])
    else:
        generator = Generator().manual_seed(SPLITS_SEED)
        keys = torch.rand(MOST_SPLITS, 2 * count - 1, generator=generator)
        partners = keys.argsort(1)[:, : count - 1] + 1
        chosen = torch.cat([torch.zeros(MOST_SPLITS, 1, dtype=torch.long), partners], 1)
    return torch.zeros(len(chosen), 2 * count, dtype=torch.float64).scatter_(1, chosen, 1.0)


def excess(table: Tensor, members: Tensor) -> Tensor:
    r"""The squared distance without the sampling share of either sample, `(2B, 2B), (s, 2B) -> (s,)`; may be negative.

    .. math:: T = \frac1{B^2} \sum_{ij} D(x_i, y_j) - \frac1{B(B-1)} \sum_{i<j} \left( D(x_i, x_j) + D(y_i, y_j) \right)

    Its mean is exactly 0 where both samples have one law, and it does not reward codes that are too narrow. A
    translation by t adds |t|^2 to it for W2^2, in every dimension and at every n. The centring of arXiv:2203.11627, as
    in the debiased Sinkhorn divergence (arXiv:1810.08278), over all pairs of blocks.
    """
    rest = 1.0 - members
    off = table - torch.diag(table.diagonal())
    count = table.shape[0] // 2
    crossing = ((members @ off) * rest).sum(1) / count**2
    inner = ((members @ off) * members).sum(1) + ((rest @ off) * rest).sum(1)  # each pair twice
    return crossing - inner / (2.0 * count * (count - 1))


@dataclass(frozen=True)
class Variances:
    """Variances of `excess` and of a distance between the whole samples, estimated from the blocks.

    Written as D_ij = mean + a_i + b_j + e_ij, blockwise. `first`: of the excess, from those main effects that do not
    cancel in it, 0 under a perfect fit (an unbiased estimate: it may be negative). `second`: of the excess, from the
    residuals e. `mains`: of a_i and b_j together, for one block of each sample.
    """

    first: float
    second: float
    mains: float

    @property
    def total(self) -> float:
        """The variance of the excess; at least half of `second`, since `first` may be negative."""
        return max(self.first + self.second, self.second / 2.0)


def variances(table: Tensor) -> Variances:
    """The variances of a table of B >= 4 blocks a side by the moments of its main effects and residuals.

    The excess is a U-statistic of degree two in the blocks of each sample; `first` and `second` are the terms of its
    Hoeffding decomposition.
    """
    count = table.shape[0] // 2
    cross = table[:count, count:]
    rows, columns = cross.mean(1), cross.mean(0)
    residual = cross - rows[:, None] - columns[None, :] + cross.mean()
    noise = float(residual.square().sum()) / (count - 1) ** 2
    first, second, mains = 0.0, noise / count**2, 0.0
    for effects, inner in ((rows, table[:count, :count]), (columns, table[count:, count:])):
        inner_effects, inner_noise = _inner_effects(inner)
        mains += float(effects.var()) - noise / count
        first += (float((effects - inner_effects).var()) - noise / count - inner_noise / (count - 2)) / count
        second += inner_noise / (2.0 * count * (count - 1))
    return Variances(first, second, mains)


def _inner_effects(table: Tensor) -> tuple[Tensor, float]:
    """Main effects `(B,)` of the distances within one sample, about 0, and the variance of their residuals."""
    count = len(table)
    off = table - torch.diag(table.diagonal())
    mean = off.sum() / (count * (count - 1))
    effects = (off.sum(1) / (count - 1) - mean) * (count - 1) / (count - 2)
    residual = off - mean - effects[:, None] - effects[None, :]
    residual = residual - torch.diag(residual.diagonal())
    return effects, float(residual.square().sum()) / (count * (count - 3))
