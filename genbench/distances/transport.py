"""Exact optimal transport between samples, and the dual potentials from which its solver starts."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from genbench.distances.checks import check_finite, check_pair
from genbench.distances.mmd import squared_distances
from genbench.errors import MetricError

SIMPLEX_STEPS = 100_000_000
"""Pivots granted to the network simplex. POT's default of 100,000 does not converge for 2,000 points in R^64."""


def wasserstein_distance(x: Tensor, y: Tensor, device: torch.device | None = None) -> float:
    r"""2-Wasserstein distance between two samples: exact, in float64, by POT's network simplex on the CPU.

    .. math:: W_2 = \Big( \min_{\pi \mathbf 1 = 1/n,\, \pi^T \mathbf 1 = 1/m} \sum_{ij} \pi_{ij} |x_i - y_j|^2
              \Big)^{1/2}

    Takes some 16 nm bytes.

    Args:
        x: Sample, `(n, d)`.
        y: Sample, `(m, d)`.
        device: Computes the solver's start, by default the device of x; it changes the time, not the value.

    Returns:
        The distance, in the unit of the samples.

    Raises:
        UsageError: The shapes do not fit.
        MetricError: A sample holds NaN or infinities, or the solver has not converged.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> wasserstein_distance(x, x.flip(0) + torch.tensor([3.0, 4.0]))
        5.0
    """
    return exact_transport(x, y, transport_start(x, y, device or x.device))


def exact_transport(x: Tensor, y: Tensor, start: Tensor | None) -> float:
    """`wasserstein_distance` with a given start of the solver.

    Args:
        x: Sample, `(n, d)`.
        y: Sample, `(m, d)`.
        start: Any finite dual potentials of y, `(m,)` in squared units, or None.

    Returns:
        The distance, in the unit of the samples.

    Raises:
        UsageError: The shapes do not fit.
        MetricError: A sample holds NaN or infinities, or the solver has not converged.
    """
    check_pair("wasserstein_distance", x, y)
    x, y = x.detach().cpu().double(), y.detach().cpu().double()
    check_finite("wasserstein_distance", "x", x)
    check_finite("wasserstein_distance", "y", y)
    cost = squared_distances(x, y)
    largest = float(cost.max())
    if largest == 0.0:
        return 0.0
    # The solver's tolerances are absolute: costs between 0 and 1 make the result the same at every scale.
    cost /= largest
    return math.sqrt(largest * _network_simplex(cost, None if start is None else start.cpu().double() / largest))


def transport_start(x: Tensor, y: Tensor, device: torch.device) -> Tensor | None:
    """Dual potentials near the optimal ones, from an annealed Sinkhorn, for sizes at which they save time.

    Args:
        x: Sample, `(n, d)`.
        y: Sample, `(m, d)`.
        device: Computes them.

    Returns:
        Potentials of y, `(m,)` float64 in squared units, or None where a start does not pay.

    Raises:
        UsageError: The shapes do not fit.
    """
    check_pair("wasserstein_distance", x, y)
    if not start_pays(len(x), len(y), x.shape[1], device):
        return None
    cost = squared_distances(*(z.detach().to(device).double() for z in (x, y)))
    largest = float(cost.max())
    if not 0.0 < largest < math.inf:
        return None  # nothing to transport, or an input that `exact_transport` refuses by name
    return largest * annealed_potentials(cost.div_(largest).float())[1].double()


def _network_simplex(cost: Tensor, g: Tensor | None) -> float:
    """The least mean cost between uniform weights, `(n, m) -> ()`, from potentials of the columns `(m,)` or none."""
    import ot  # a second to import, and only measurements need it

    potentials = None
    if g is not None:
        f = (cost - g).amin(1)
        potentials = (f.numpy(), (cost - f[:, None]).amin(0).numpy())
    # POT warns of a failure; here that is an error, below. (`catch_warnings` is not safe beside other threads.)
    warnings.filterwarnings("ignore", module=r"ot\.")
    value, log = ot.emd2([], [], cost.numpy(), numItermax=SIMPLEX_STEPS, log=True, potentials_init=potentials)
    if log["result_code"] != 1 or not math.isfinite(value):
        shape = " x ".join(map(str, cost.shape))
        raise MetricError(f"exact optimal transport of {shape} points did not converge: {log['warning'] or value}")
    return max(0.0, float(value))


# ---------------------------------------------------------------- the start of the network simplex
#
# Potentials decide how long the simplex takes and never its result: it ends at the optimum from any start.

SINKHORN_STEPS = 4
"""Sinkhorn steps at each temperature. More gave better potentials and took longer than they saved."""

FIRST_TEMPERATURE, TEMPERATURE_RATIO, LAST_TEMPERATURE = 0.1, 4.0, 2e-3
"""Temperatures: from the first, times the mean cost, down by the ratio to the last, for costs in [0, 1]."""

CPU_POINTS, CPU_DIMENSIONS = 2000, 16
"""From what size and dimension on a start pays on a CPU, where it takes time from the simplex.

One thread, normal samples, cold time over start + simplex, five repeats: in R^16 1.20 (2,000 points) and 1.18 (4,000),
where the cold simplex was never faster; in R^8 1.02 and 1.00, in the plane 0.66. See reports/speed/evaluation.md.
"""

GPU_POINTS = 4000
"""From what size on it pays elsewhere. On an H200, cold time over start + simplex: 0.3 for 2,000 points in R^8, 3.3 for
4,000 in R^64, 1.9 for 10,000 in R^8 (reports/speed/gpu.md)."""


def start_pays(n: int, m: int, d: int, device: torch.device) -> bool:
    """Whether a start costs less time than it saves between n and m points in R^d, computed on the device."""
    if device.type == "cpu":
        return min(n, m) >= CPU_POINTS and d >= CPU_DIMENSIONS
    return min(n, m) >= GPU_POINTS


def annealed_potentials(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Feasible potentials f_i + g_j <= C_ij (to float32) near the optimal ones, on the device of the cost.

    Sinkhorn's scaling at falling temperatures (arXiv:1610.06519), each begun from feasible potentials in which every
    row and column has a tight entry (c-transforms): the kernel is then in [0, 1] and no logarithm has to be summed.
    Takes twice the memory of the cost.

    Args:
        cost: Costs, `(n, m)` float32 in [0, 1].

    Returns:
        f, `(n,)`, and g, `(m,)`.
    """
    n, m = cost.shape
    f = cost.amin(1)
    g = (cost - f[:, None]).amin(0)
    temperature = max(FIRST_TEMPERATURE * float(cost.mean()), LAST_TEMPERATURE)
    while True:
        kernel = torch.exp((f[:, None] + g - cost).div_(temperature))
        v = torch.ones_like(g)
        for _ in range(SINKHORN_STEPS):
            u = 1.0 / (n * (kernel @ v)).clamp(min=1e-30)
            v = 1.0 / (m * (kernel.T @ u)).clamp(min=1e-30)
        g = g + temperature * v.log()
        f = (cost - g).amin(1)
        g = (cost - f[:, None]).amin(0)
        if temperature <= LAST_TEMPERATURE:
            return f, g
        temperature = max(temperature / TEMPERATURE_RATIO, LAST_TEMPERATURE)
