"""The mass that a density puts into the cells of a grid, by quadrature on cells that follow the draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.api import Prior

BASE = 64
"""Cells a side to begin with; a multiple of every number of bins used."""

ROUNDS = 7
POINTS = 400_000
NODES = (0.0694318442, 0.3300094782, 0.6699905218, 0.9305681558)
WEIGHTS = (0.1739274226, 0.3260725774, 0.3260725774, 0.1739274226)
"""Gauss-Legendre on [0, 1], exact to degree 7."""


@dataclass(frozen=True)
class Masses:
    """Per bin of a regular grid over the box of the draws: the density's mass and how many draws fell there."""

    density: Tensor
    draws: Tensor


def masses(prior: Prior, z: Tensor, bins: int) -> Masses:
    """Masses in bins^d cells over the box of draws z, `(n, d)`, d = 1 or 2, widened by half its size where unbounded.

    Cells are halved in each coordinate where two rules (4 and 2 points a side) disagree most, at most seven times.
    """
    low, high = z.min(0).values, z.max(0).values
    low, high = low - 0.25 * (high - low) - 1e-3, high + 0.25 * (high - low) + 1e-3
    d = z.shape[1]
    side = (high - low) / BASE
    axes = torch.meshgrid(*[torch.arange(BASE)] * d, indexing="ij")
    corner = low + torch.stack([axis.flatten() for axis in axes], 1) * side
    size = side.expand_as(corner)
    total = torch.zeros(bins**d, dtype=torch.float64)
    budget = POINTS // 4**d
    for level in range(ROUNDS + 1):
        fine = _rule(prior, corner, size, NODES, WEIGHTS)
        coarse = _rule(prior, corner, size, (0.2113248654, 0.7886751346), (0.5, 0.5))
        error = (fine - coarse).abs()
        rough = error > 1e-7
        if int(rough.sum()) * 2**d > budget:
            rough = error >= error.topk(budget // 2**d).values[-1].clamp(min=1e-12)
        if level == ROUNDS:
            rough = torch.zeros_like(rough)
        done = ~rough
        total.index_add_(0, _bin(corner[done] + size[done] / 2, low, high, bins), fine[done])
        if not rough.any():
            break
        half = size[rough] / 2
        shifts = torch.cartesian_prod(*[torch.arange(2)] * d).view(-1, d)
        corner = (corner[rough][:, None] + shifts * half[:, None]).flatten(0, 1)
        size = half.repeat_interleave(2**d, 0)
    return Masses(total, torch.bincount(_bin(z, low, high, bins), minlength=bins**d))


def _rule(prior: Prior, corner: Tensor, size: Tensor, nodes: tuple[float, ...], weights: tuple[float, ...]) -> Tensor:
    """The tensor-product rule on every cell, `(m, d) -> (m,)` float64."""
    d = corner.shape[1]
    at = torch.cartesian_prod(*[torch.tensor(nodes)] * d).view(-1, d)
    weight = torch.cartesian_prod(*[torch.tensor(weights, dtype=torch.float64)] * d).view(-1, d).prod(1)
    points = (corner[:, None] + at * size[:, None]).flatten(0, 1)
    density = torch.cat([prior.log_prob(block).double().exp() for block in points.split(200_000)])
    return density.view(len(corner), -1) @ weight * size.double().prod(1)


def _bin(z: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """The flat index of the bin of each point, `(n, d) -> (n,)` int64."""
    index = ((z - low) / (high - low) * bins).long().clamp(0, bins - 1)
    flat = index[:, 0]
    for j in range(1, z.shape[1]):
        flat = flat * bins + index[:, j]
    return flat
