"""The mass that a density puts into the cells of a grid, by quadrature on cells that follow the draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.api import Prior

BASE = 64
"""Cells a side of the box to begin with; a multiple of every number of bins used."""

ROUNDS = 7
POINTS = 400_000
NODES = (0.0694318442, 0.3300094782, 0.6699905218, 0.9305681558)
WEIGHTS = (0.1739274226, 0.3260725774, 0.3260725774, 0.1739274226)
"""Gauss-Legendre on [0, 1], exact to degree 7."""


AROUND = 2
"""Boxes on every side of the draws' box that are searched for mass that no draw shows."""

SHELL = 16
"""Cells a side of each of these to begin with."""


@dataclass(frozen=True)
class Masses:
    """Of a density: its mass per bin of a regular grid over a box of draws, and around that box.

    `low` and `high` are the box's corners, `(d,)`; `draws` counts the draws of each bin.
    """

    density: Tensor
    draws: Tensor
    around: float
    low: Tensor
    high: Tensor

    def beyond(self, z: Tensor) -> float:
        """The share of draws, `(n, d)`, that lie outside of everything integrated over."""
        reach = AROUND * (self.high - self.low)
        return 1.0 - float(_within(z, self.low - reach, self.high + reach).double().mean())


def masses(prior: Prior, z: Tensor, bins: int) -> Masses:
    """Masses in bins^d cells over a box of draws z, `(n, d)`, d = 1 or 2, and in the 5^d - 1 boxes around it.

    The box holds the draws and a quarter of their range more on each side, but is no wider than three times the range
    of the central 99.8 %: a heavy tail would make the cells too wide for the law's body.
    """
    low, high = _box(z)
    side, d = (high - low) / BASE, z.shape[1]
    middle, mass = _integrate(prior, low + _lattice(BASE, d) * side, side)
    density = torch.zeros(bins**d, dtype=torch.float64).index_add_(0, _bin(middle, low, high, bins), mass)
    inner = z[_within(z, low, high)]
    boxes = _lattice(2 * AROUND + 1, d) - AROUND
    corners = low + boxes[boxes.abs().sum(1) > 0] * (high - low)
    side = (high - low) / SHELL
    shell = (corners[:, None] + _lattice(SHELL, d) * side).flatten(0, 1)
    around = float(_integrate(prior, shell, side)[1].sum())
    return Masses(density, torch.bincount(_bin(inner, low, high, bins), minlength=bins**d), around, low, high)


def _box(z: Tensor) -> tuple[Tensor, Tensor]:
    least, most = z.min(0).values, z.max(0).values
    room = 0.25 * (most - least) + 1e-3
    tails = torch.quantile(z, torch.tensor([0.001, 0.999], dtype=z.dtype), dim=0)
    body = tails[1] - tails[0] + 1e-3
    return torch.maximum(least - room, tails[0] - body), torch.minimum(most + room, tails[1] + body)


def _within(z: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return ((z >= low) & (z < high)).all(1)


def _lattice(count: int, d: int) -> Tensor:
    """The count^d points of a lattice, `(count^d, d)` int64."""
    return torch.cartesian_prod(*[torch.arange(count)] * d).view(-1, d)


def _integrate(prior: Prior, corner: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    """Middles `(m, d)` and masses `(m,)` of the cells at `corner`, `(n, d)`, halved where that is needed.

    Cells are halved in each coordinate where two rules (4 and 2 points a side) disagree most, at most seven times.
    """
    d = corner.shape[1]
    size, budget = side.expand_as(corner), POINTS // 4**d
    cells: list[tuple[Tensor, Tensor]] = []
    for level in range(ROUNDS + 1):
        fine = _rule(prior, corner, size, NODES, WEIGHTS)
        coarse = _rule(prior, corner, size, (0.2113248654, 0.7886751346), (0.5, 0.5))
        error = (fine - coarse).abs()
        rough = error > 1e-7
        if int(rough.sum()) * 2**d > budget:
            rough = error >= error.topk(budget // 2**d).values[-1].clamp(min=1e-12)
        if level == ROUNDS:
            rough = torch.zeros_like(rough)
        cells.append((corner[~rough] + size[~rough] / 2, fine[~rough]))
        if not rough.any():
            break
        half = size[rough] / 2
        corner = (corner[rough][:, None] + _lattice(2, d) * half[:, None]).flatten(0, 1)
        size = half.repeat_interleave(2**d, 0)
    return torch.cat([middle for middle, _ in cells]), torch.cat([mass for _, mass in cells])


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
