"""The Sinkhorn divergence: entropic optimal transport between samples, without its bias."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genbench.distances.checks import check_pair
from genbench.distances.mmd import squared_distances
from genbench.errors import UsageError


def sinkhorn_divergence(x: Tensor, y: Tensor, epsilon: float, iterations: int = 50) -> Tensor:
    r"""The debiased Sinkhorn divergence between two samples for the cost |x - y|^2, differentiable.

    .. math:: S_\epsilon(x, y) = W_\epsilon(x, y) - \tfrac12 W_\epsilon(x, x) - \tfrac12 W_\epsilon(y, y), \qquad
              W_\epsilon = \min_\pi \sum_{ij} \pi_{ij} |x_i - y_j|^2 + \epsilon \, KL(\pi | 1/n \otimes 1/m)

    (arXiv:1810.01118, arXiv:1810.08278). W_epsilon is the dual value after a fixed number of
    averaged steps in the logarithmic domain, so that the divergence of equal samples is 0 after any number. Gradients
    are those of the last step at fixed potentials, which at convergence are exact (the envelope theorem). For epsilon
    -> 0 it tends to W_2^2, for epsilon -> infinity to |mean x - mean y|^2. Small epsilon needs many steps: some
    (largest cost) / epsilon.

    Args:
        x: Sample, `(n, d)`.
        y: Sample, `(m, d)`.
        epsilon: The entropic regularization, in the squared unit of the samples, above 0. Not checked: in an ensemble
            it is a number of each member.
        iterations: Steps, at least 1.

    Returns:
        The divergence, `()`, in the squared unit of the samples.

    Raises:
        UsageError: The shapes do not fit, or iterations is less than 1.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> round(sinkhorn_divergence(x, x + 3.0, 1.0).item(), 3)
        9.0
    """
    check_pair("sinkhorn_divergence", x, y)
    if iterations < 1:
        raise UsageError(f"sinkhorn_divergence: {iterations} iterations; at least 1 is needed")
    if len(x) == len(y):
        both = torch.cat([x, y])
        return epsilon * _equal_counts(squared_distances(both, both) / epsilon, iterations)
    pairs = [_dual_value(squared_distances(u, v) / epsilon, iterations) for u, v in ((x, x), (y, y), (x, y))]
    return epsilon * (pairs[2] - 0.5 * (pairs[0] + pairs[1]))


# Costs and potentials are in units of epsilon from here on.


def _equal_counts(costs: Tensor, iterations: int) -> Tensor:
    """The divergence from the costs of 2n points, the second sample's last, `(2n, 2n) -> ()`: all pairs in one tensor.

    The potentials of a sample against itself are one, since their cost is symmetric: a step has four soft minima, and
    not six.
    """
    n = len(costs) // 2
    cost = costs.view(2, n, 2, n).transpose(1, 2)  # [i, j]: points of sample i against those of sample j
    fixed = cost.detach().contiguous()
    potentials = fixed.new_zeros(2, 2, n)  # [i, j]: of sample i against sample j
    for _ in range(iterations):
        potentials = 0.5 * (potentials + _soft_minimum(fixed, potentials.transpose(0, 1)))
    partner = potentials.transpose(0, 1)
    values = (_soft_minimum(cost, partner) + partner).mean(2)
    return 0.5 * (values[0, 1] + values[1, 0] - values[0, 0] - values[1, 1])


def _dual_value(cost: Tensor, iterations: int) -> Tensor:
    """W_epsilon of a cost matrix, `(n, m) -> ()`: mean potential of the rows plus that of the columns."""
    fixed = cost.detach()
    f, g = fixed.new_zeros(fixed.shape[0]), fixed.new_zeros(fixed.shape[1])
    for _ in range(iterations):
        # Both from the old values, then averaged: in turns, x and y would play different parts.
        f, g = 0.5 * (f + _soft_minimum(fixed, g)), 0.5 * (g + _soft_minimum(fixed.T, f))
    # Each half has the whole value and the whole gradient: rows from fixed g, then columns from fixed f.
    rows = _soft_minimum(cost, g).mean() + g.mean()
    columns = _soft_minimum(cost.T, f).mean() + f.mean()
    return 0.5 * (rows + columns)


def _soft_minimum(cost: Tensor, potential: Tensor) -> Tensor:
    """-log of the mean over columns of exp(potential - cost), `(..., n, m), (..., m) -> (..., n)`."""
    return math.log(cost.shape[-1]) - torch.logsumexp(potential[..., None, :] - cost, dim=-1)
