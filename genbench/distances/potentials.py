"""Where the network simplex starts: dual potentials of optimal transport from an annealed Sinkhorn.

They decide how long the simplex takes and never what it finds: it ends at the optimum from any start.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 4
"""Sinkhorn steps at each temperature. More gave better potentials and took longer than they saved."""

FIRST, RATIO, LAST = 0.1, 4.0, 2e-3
"""Temperatures from `FIRST` times the mean cost down by `RATIO` to `LAST`, for costs in [0, 1]."""

CPU_POINTS, CPU_DIMENSIONS = 2000, 16
"""From what size and dimension on a start pays on a CPU, where it takes time from the simplex.

One thread, normal samples, cold time over start + simplex, five repeats: in R^16 1.20 (2,000 points) and 1.18 (4,000),
where the cold simplex was never faster; in R^8 1.02 and 1.00, in the plane 0.66. See reports/speed/evaluation.md.
"""

GPU_POINTS = 1000
"""From what size on it pays elsewhere. Not measured: below it the simplex takes 0.1 s in any case."""


def pays(n: int, m: int, d: int, device: torch.device) -> bool:
    """Whether a start costs less than it saves between n and m points in R^d, its Sinkhorn being on the device."""
    if device.type == "cpu":
        return min(n, m) >= CPU_POINTS and d >= CPU_DIMENSIONS
    return min(n, m) >= GPU_POINTS


def annealed(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Feasible potentials f_i + g_j <= C_ij (to float32), `(n, m)` float32 in [0, 1] -> `(n,), (m,)`, near optimal.

    Sinkhorn's scaling at falling temperatures (arXiv:1610.06519), each begun from feasible potentials in which every
    row and column has a tight entry (c-transforms): the kernel is then in [0, 1] and no logarithm has to be summed.
    On the device of the cost; takes as much memory again as the cost, twice.
    """
    n, m = cost.shape
    f = cost.amin(1)
    g = (cost - f[:, None]).amin(0)
    temperature = max(FIRST * float(cost.mean()), LAST)
    while True:
        kernel = torch.exp((f[:, None] + g - cost).div_(temperature))
        v = torch.ones_like(g)
        for _ in range(STEPS):
            u = 1.0 / (n * (kernel @ v)).clamp(min=1e-30)
            v = 1.0 / (m * (kernel.T @ u)).clamp(min=1e-30)
        g = g + temperature * v.log()
        f = (cost - g).amin(1)
        g = (cost - f[:, None]).amin(0)
        if temperature <= LAST:
            return f, g
        temperature = max(temperature / RATIO, LAST)
