"""Divergences and distances between Gaussian distributions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genbench.distances.checks import check_finite, check_pair


def gaussian_kl(mean: Tensor, log_variance: Tensor, sigma: float) -> Tensor:
    r"""KL(N(mean, diag exp log_variance) | N(0, sigma^2 I)), differentiable.

    .. math:: \tfrac12 \sum_i \left( e^{t_i} - 1 - t_i + \mu_i^2 / \sigma^2 \right), \quad
              t_i = \log(\sigma_i^2 / \sigma^2)

    arXiv:1312.6114, appendix B, for sigma = 1.

    Args:
        mean: Means, `(n, d)`.
        log_variance: Logarithms of the variances, `(n, d)`.
        sigma: Standard deviation of the second distribution.

    Returns:
        The divergence in nats, `(n,)`.

    Example:
        >>> gaussian_kl(torch.tensor([[1.0, 1.0]]), torch.zeros(1, 2), 1.0)
        tensor([1.])
    """
    t = log_variance - 2.0 * math.log(sigma)
    return 0.5 * (torch.expm1(t) - t + (mean / sigma).square()).sum(1)


def frechet_distance(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> float:
    r"""Squared 2-Wasserstein distance between two Gaussians, in float64 on the CPU.

    .. math:: |\mu_x - \mu_y|^2 + \operatorname{tr} \Sigma_x + \operatorname{tr} \Sigma_y
              - 2 \operatorname{tr} (\Sigma_x^{1/2} \Sigma_y \Sigma_x^{1/2})^{1/2}

    arXiv:1706.08500, equation 6. The last trace is the sum of the singular values of F_x^T F_y for any factors
    F F^T = Sigma, which loses no digits for a singular covariance: no square root of a rounding error is taken.

    Args:
        mean_x: Mean, `(d,)`.
        cov_x: Covariance, `(d, d)`.
        mean_y: Mean, `(d,)`.
        cov_y: Covariance, `(d, d)`.

    Returns:
        The squared distance, in the squared unit of the means; never negative.

    Raises:
        MetricError: An argument holds NaN or infinities.

    Example:
        >>> frechet_distance(torch.zeros(2), torch.eye(2), torch.ones(2), torch.eye(2))
        2.0
    """
    mean_x, cov_x, mean_y, cov_y = (t.detach().cpu().double() for t in (mean_x, cov_x, mean_y, cov_y))
    for name, tensor in (("mean_x", mean_x), ("cov_x", cov_x), ("mean_y", mean_y), ("cov_y", cov_y)):
        check_finite("frechet_distance", name, tensor)
    shift = (mean_x - mean_y).square().sum()
    overlap = torch.linalg.svdvals(_factor(cov_x).T @ _factor(cov_y)).sum()
    return max(0.0, float(shift + cov_x.trace() + cov_y.trace() - 2.0 * overlap))


def frechet_distance_of_samples(x: Tensor, y: Tensor) -> float:
    """`frechet_distance` of the Gaussians fitted to two samples, with unbiased covariances; in float64.

    Moments are computed on the device of the samples, and decomposed on the CPU.
    Centred rows over the root of n - 1 are a factor of the covariance themselves: with fewer rows than dimensions on
    both sides no `(d, d)` matrix is decomposed (1,000 rows of 2,048 features: 1.3 s instead of 6.8 s on one thread).

    Args:
        x: Sample, `(n, d)`.
        y: Sample, `(m, d)`.

    Returns:
        The squared distance, in the squared unit of the samples.

    Raises:
        UsageError: The shapes do not fit.
        MetricError: A sample holds NaN or infinities.

    Example:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> frechet_distance_of_samples(x, x + 3.0)
        9.0
    """
    check_pair("frechet_distance_of_samples", x, y)
    x, y = x.detach().double(), y.detach().double().to(x.device)
    check_finite("frechet_distance_of_samples", "x", x)
    check_finite("frechet_distance_of_samples", "y", y)
    mean_x, mean_y = x.mean(0), y.mean(0)
    if min(len(x), len(y)) < 2 or max(len(x), len(y)) >= x.shape[1]:
        cov_x, cov_y = (torch.atleast_2d(torch.cov(z.T)) for z in (x, y))
        return frechet_distance(mean_x, cov_x, mean_y, cov_y)
    u, v = ((z - mean) / math.sqrt(len(z) - 1) for z, mean in ((x, mean_x), (y, mean_y)))
    overlap = torch.linalg.svdvals((u @ v.T).cpu()).sum()
    spread = (mean_x - mean_y).square().sum() + u.square().sum() + v.square().sum()
    return max(0.0, float(spread.cpu() - 2.0 * overlap))


def _factor(covariance: Tensor) -> Tensor:
    """F, `(d, rank)`, with F F^T = covariance; directions whose variance is a rounding error are left out."""
    values, vectors = torch.linalg.eigh(0.5 * (covariance + covariance.T))
    keep = values > values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    factor: Tensor = vectors[:, keep] * values[keep].sqrt()
    return factor
