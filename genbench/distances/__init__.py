"""Distances between samples, between Gaussians and between distributions: pure functions of tensors.

Those that models descend (`sliced_wasserstein_cost`, `mmd`, `gaussian_kl`) are differentiable, run on any device in the
dtype of their inputs, never wait on the device and are means, so that they do not grow with the batch. Those that only
measure (`frechet_distance`, `wasserstein_distance`) compute in float64 on the CPU and return a Python number or raise.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from genbench.distances.kernels import InverseMultiquadratic
from genbench.distances.potentials import annealed, pays
from genbench.distances.sorting import sorted_rows
from genbench.errors import MetricError, UsageError

Kernel = Literal["imq", "rbf"]

WAE_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Multiples of the pairwise scale over which WAE's code sums its kernel (arXiv:1711.01558)."""

BLOCK = 512
"""Rows of a kernel matrix computed at once: memory stays bounded, and blocks of some MiB near the processor."""

SIMPLEX_STEPS = 100_000_000
"""Pivots granted to the network simplex. POT's default of 100,000 does not converge for 2,000 points in R^64."""


# ---------------------------------------------------------------- sliced Wasserstein


def random_projections(count: int, dim: int, generator: Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Independent uniform draws from the unit sphere in R^dim, `(count, dim)`, on the generator's device.

    Normalised Gaussian vectors, as in arXiv:1804.01947, algorithm 1.
    """
    if count < 1 or dim < 1:
        raise UsageError(f"directions: {count} of them in {dim} dimensions; both must be at least 1")
    gaussian = torch.randn(count, dim, generator=generator, device=generator.device, dtype=dtype)
    norm = torch.linalg.vector_norm(gaussian, dim=1, keepdim=True)
    return torch.where(norm > 0, gaussian / norm, torch.ones_like(gaussian) / math.sqrt(dim))


def sliced_wasserstein_cost(x: Tensor, y: Tensor, random_projections: Tensor, p: float = 2.0) -> Tensor:
    r"""Sliced Wasserstein distance between samples, to the power p: `(n, d), (m, d), (L, d) -> ()`.

    .. math:: SW_p^p = \frac1L \sum_{l=1}^L W_p^p(\theta_l \cdot x, \theta_l \cdot y), \qquad
              W_p^p(u, v) = \frac1n \sum_{i=1}^n |u_{(i)} - v_{(i)}|^p

    with sorted projections u_(i), v_(i) (arXiv:1804.01947, algorithm 1). Both sums are means. Where
    n != m the quantile functions are integrated exactly. In one dimension this is W_p^p itself.
    """
    _check_pair("sliced_wasserstein", x, y)
    if not p >= 1.0:
        raise UsageError(f"sliced_wasserstein: p = {p}; it must be at least 1")
    u, v = sorted_rows(random_projections @ x.T), sorted_rows(random_projections @ y.T)
    if len(x) == len(y):
        return _power(u - v, p).mean()
    rows_x, rows_y, widths = _common_quantiles(len(x), len(y))
    cost = _power(u[:, rows_x.to(u.device)] - v[:, rows_y.to(v.device)], p)
    return (cost @ widths.to(cost)).mean()


def _power(difference: Tensor, p: float) -> Tensor:
    """|difference|^p; the absolute value matters for every p that is not an even integer."""
    return difference.square() if p == 2.0 else difference.abs().pow(p)


def _common_quantiles(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """The steps on which two empirical quantile functions are both constant: index in n, index in m, width.

    In units of 1/(nm) the functions jump at multiples of m and of n, so that all of it is exact in integers.
    """
    ends = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))
    widths = torch.diff(ends, prepend=torch.zeros(1, dtype=ends.dtype))
    return (ends - 1) // m, (ends - 1) // n, widths.double() / (n * m)


# ---------------------------------------------------------------- maximum mean discrepancy


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2, `(n, d), (m, d) -> (n, m)`, never negative, with a gradient that is finite where x_i = y_j.

    Computed as |x|^2 + |y|^2 - 2 x.y about the common mean, since far from the origin that difference cancels.
    """
    _check_pair("squared_distances", x, y)
    centre = ((x.sum(0) + y.sum(0)) / (len(x) + len(y))).detach()
    x, y = x - centre, y - centre
    squares = x.square().sum(1)[:, None] + y.square().sum(1)[None, :]
    return torch.clamp(squares - 2.0 * (x @ y.T), min=0.0)


def imq_kernel(squared: Tensor, scale: float, scales: Sequence[float] = WAE_SCALES) -> Tensor:
    """Inverse multiquadratic kernel sum_s sC / (sC + r^2), elementwise in r^2 = `squared`, C = `scale`.

    arXiv:1711.01558, section 4, has s = 1; its code sums over `scales`.
    """
    _check_scales(scale, scales)
    total: Tensor = InverseMultiquadratic.apply(squared, [s * scale for s in scales])
    return total


def rbf_kernel(squared: Tensor, scale: float, scales: Sequence[float] = WAE_SCALES) -> Tensor:
    """Gaussian kernel sum_s exp(-r^2 / (sC)), elementwise in r^2 = `squared`, C = `scale`.

    With C = 2 d sigma^2 and s = 1 it is exp(-r^2 / (2 d sigma^2)): a bandwidth of sqrt(d) sigma.
    """
    _check_scales(scale, scales)
    total = torch.zeros_like(squared)
    for s in scales:
        total = total + torch.exp(-squared / (s * scale))
    return total


def mmd(x: Tensor, y: Tensor, *, kernel: Kernel = "imq", scale: float, scales: Sequence[float] = WAE_SCALES) -> Tensor:
    r"""Unbiased estimate of the squared maximum mean discrepancy, `(n, d), (m, d) -> ()`; it may be negative.

    .. math:: \frac1{n(n-1)} \sum_{i \ne j} k(x_i, x_j) + \frac1{m(m-1)} \sum_{i \ne j} k(y_i, y_j)
              - \frac2{nm} \sum_{i,j} k(x_i, y_j)

    arXiv:1711.01558, algorithm 2. `scale` is the prior's E|z - z'|^2 (2 d sigma^2 for a normal one): a kernel much
    wider or narrower than that is constant on the sample and has no gradient.
    """
    _check_pair("mmd", x, y)
    if len(x) < 2 or len(y) < 2:
        raise UsageError(f"mmd: {len(x)} and {len(y)} points; the unbiased estimate needs two of each")
    function = {"imq": imq_kernel, "rbf": rbf_kernel}[kernel]

    def summed(u: Tensor, v: Tensor, *, without_diagonal: bool) -> Tensor:
        total = u.new_zeros(())
        for block, rows in enumerate(u.split(BLOCK)):
            values = function(squared_distances(rows, v), scale, scales)
            total = total + values.sum()
            if without_diagonal:
                total = total - values.diagonal(block * BLOCK).sum()
        return total

    n, m = len(x), len(y)
    within_x = summed(x, x, without_diagonal=True) / (n * (n - 1))
    within_y = summed(y, y, without_diagonal=True) / (m * (m - 1))
    return within_x + within_y - 2.0 / (n * m) * summed(x, y, without_diagonal=False)


# ---------------------------------------------------------------- Gaussians


def gaussian_kl(mean: Tensor, log_variance: Tensor, sigma: float) -> Tensor:
    r"""KL(N(mean, diag exp log_variance) | N(0, sigma^2 I)) in nats, `(n, d), (n, d) -> (n,)`.

    .. math:: \tfrac12 \sum_i \left( e^{t_i} - 1 - t_i + \mu_i^2 / \sigma^2 \right), \quad
              t_i = \log(\sigma_i^2 / \sigma^2)

    arXiv:1312.6114, appendix B, for sigma = 1.
    """
    t = log_variance - 2.0 * math.log(sigma)
    return 0.5 * (torch.expm1(t) - t + (mean / sigma).square()).sum(1)


def frechet_distance(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> float:
    r"""Squared 2-Wasserstein distance between two Gaussians, `(d,), (d, d), (d,), (d, d)`, in float64.

    .. math:: |\mu_x - \mu_y|^2 + \operatorname{tr} \Sigma_x + \operatorname{tr} \Sigma_y
              - 2 \operatorname{tr} (\Sigma_x^{1/2} \Sigma_y \Sigma_x^{1/2})^{1/2}

    arXiv:1706.08500. The last trace is the sum of the singular values of F_x^T F_y for any factors
    F F^T = Sigma, which loses no digits where a covariance is singular: no square root of a rounding error is taken.
    """
    mean_x, cov_x, mean_y, cov_y = (t.detach().cpu().double() for t in (mean_x, cov_x, mean_y, cov_y))
    for name, tensor in (("mean_x", mean_x), ("cov_x", cov_x), ("mean_y", mean_y), ("cov_y", cov_y)):
        _check_finite("frechet", name, tensor)
    shift = (mean_x - mean_y).square().sum()
    overlap = torch.linalg.svdvals(_factor(cov_x).T @ _factor(cov_y)).sum()
    return max(0.0, float(shift + cov_x.trace() + cov_y.trace() - 2.0 * overlap))


def frechet_distance_of_samples(x: Tensor, y: Tensor) -> float:
    """`frechet_distance` of the Gaussians fitted to samples, `(n, d), (m, d)`, with unbiased covariances; in float64.

    Centred rows over the root of n - 1 are a factor of the covariance themselves: with fewer rows than dimensions on
    both sides no `(d, d)` matrix is decomposed (1,000 rows of 2,048 features: 1.3 s instead of 6.8 s on one thread).
    """
    _check_pair("frechet_of_samples", x, y)
    x, y = x.detach().cpu().double(), y.detach().cpu().double()
    _check_finite("frechet_of_samples", "x", x)
    _check_finite("frechet_of_samples", "y", y)
    mean_x, mean_y = x.mean(0), y.mean(0)
    if min(len(x), len(y)) < 2 or max(len(x), len(y)) >= x.shape[1]:
        return frechet_distance(mean_x, torch.cov(x.T), mean_y, torch.cov(y.T))
    u, v = ((z - mean) / math.sqrt(len(z) - 1) for z, mean in ((x, mean_x), (y, mean_y)))
    overlap = torch.linalg.svdvals(u @ v.T).sum()
    shift = (mean_x - mean_y).square().sum()
    return max(0.0, float(shift + u.square().sum() + v.square().sum() - 2.0 * overlap))


def _factor(covariance: Tensor) -> Tensor:
    """F, `(d, rank)`, with F F^T = covariance; directions whose variance is a rounding error are left out."""
    values, vectors = torch.linalg.eigh(0.5 * (covariance + covariance.T))
    keep = values > values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    factor: Tensor = vectors[:, keep] * values[keep].sqrt()
    return factor


# ---------------------------------------------------------------- optimal transport


def wasserstein_distance(x: Tensor, y: Tensor, device: torch.device | None = None) -> float:
    r"""2-Wasserstein distance between two samples, `(n, d), (m, d)`: exact, in float64.

    .. math:: W_2 = \Big( \min_{\pi \mathbf 1 = 1/n,\, \pi^T \mathbf 1 = 1/m} \sum_{ij} \pi_{ij} |x_i - y_j|^2
              \Big)^{1/2}

    by POT's network simplex; some 16 nm bytes. A solver that has not converged raises `MetricError`. It begins from
    `transport_start` on the `device` (by default that of x), which changes how long it takes, not the value.
    """
    return exact_transport(x, y, transport_start(x, y, device or x.device))


def exact_transport(x: Tensor, y: Tensor, start: Tensor | None) -> float:
    """`wasserstein_distance` begun from any finite potentials of y, `(m,)` in squared units, or from none."""
    _check_pair("exact_wasserstein", x, y)
    x, y = x.detach().cpu().double(), y.detach().cpu().double()
    _check_finite("exact_wasserstein", "x", x)
    _check_finite("exact_wasserstein", "y", y)
    cost = squared_distances(x, y)
    largest = float(cost.max())
    if largest == 0.0:
        return 0.0
    # The solver's tolerances are absolute: costs between 0 and 1 make the result the same at every scale.
    cost /= largest
    return math.sqrt(largest * _network_simplex(cost, None if start is None else start.cpu().double() / largest))


def transport_start(x: Tensor, y: Tensor, device: torch.device) -> Tensor | None:
    """Potentials of y, `(m,)`, near the optimal ones: an annealed Sinkhorn's on the device where that pays, or None."""
    _check_pair("exact_wasserstein", x, y)
    if not pays(len(x), len(y), x.shape[1], device):
        return None
    cost = squared_distances(*(z.detach().to(device).double() for z in (x, y)))
    largest = float(cost.max())
    if not 0.0 < largest < math.inf:
        return None  # nothing to transport, or what `exact_transport` refuses by name
    return largest * annealed(cost.div_(largest).float())[1].double()


def _network_simplex(cost: Tensor, g: Tensor | None) -> float:
    """The least mean cost between uniform weights, `(n, m) -> ()`, from potentials of the columns `(m,)` or none."""
    import ot  # a second to import, and only measurements need it

    potentials = None
    if g is not None:
        f = (cost - g).amin(1)
        potentials = (f.numpy(), (cost - f[:, None]).amin(0).numpy())
    # POT warns where it fails; here that is an error, below. (`catch_warnings` is not safe beside other threads.)
    warnings.filterwarnings("ignore", module=r"ot\.")
    value, log = ot.emd2([], [], cost.numpy(), numItermax=SIMPLEX_STEPS, log=True, potentials_init=potentials)
    if log["result_code"] != 1 or not math.isfinite(value):
        shape = " x ".join(map(str, cost.shape))
        raise MetricError(f"exact optimal transport of {shape} points did not converge: {log['warning'] or value}")
    return max(0.0, float(value))


# ---------------------------------------------------------------- checks


def _check_pair(function: str, x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise UsageError(f"{function}: samples of shape {tuple(x.shape)} and {tuple(y.shape)}; need (n, d) and (m, d)")


def _check_scales(scale: float, scales: Sequence[float]) -> None:
    if not 0.0 < scale < math.inf or not scales or min(scales) <= 0.0:
        raise UsageError(f"kernel of scale {scale} over {tuple(scales)}; all of them must be positive and finite")


def _check_finite(function: str, name: str, tensor: Tensor) -> None:
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise MetricError(
            f"{function}: {name} of shape {tuple(tensor.shape)} holds {bad} values that are NaN or infinite"
        )
