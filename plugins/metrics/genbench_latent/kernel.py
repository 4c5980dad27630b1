"""The squared MMD by blocks, and how noisy it is where the codes are the prior moved."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from genbench.api import Noise, Prior
from genbench.distances import imq_kernel, random_projections, squared_distances
from genbench_latent.blocks import Distance

SLOPE_SEED = 1205_02367
SLOPE_POINTS = 1000
SLOPE_DIRECTIONS = 8

SMALL = 0.05
"""Length of the translation, in standard deviations of the prior along a direction: small, so that the ratio of the
variance to the mean is that of the limit."""


def kernel_distance(scale: float) -> Distance:
    """-2 times the mean kernel between two blocks, and between two points of one block."""

    def between(u: Tensor, v: Tensor) -> float:
        return -2.0 * float(imq_kernel(squared_distances(u, v), scale).mean())

    def inside(u: Tensor) -> float:
        kernel = imq_kernel(squared_distances(u, u), scale)
        return -2.0 * float(kernel.sum() - kernel.diagonal().sum()) / (len(u) * (len(u) - 1))

    return Distance(lambda block: block, between, inside)


def unbiased(table: Tensor, members: Tensor, sizes: Tensor) -> Tensor:
    """The unbiased squared MMD of splits of blocks, `(2B, 2B), (s, 2B), (2B,) -> (s,)` (arXiv:1711.01558, algorithm 2).

    `table` holds -2 times the mean kernel of each pair of blocks, `sizes` their counts of points.
    """
    pairs = sizes[:, None] * sizes[None, :] - torch.diag(sizes)
    pair_sums = -0.5 * table * pairs
    rest = 1.0 - members
    n, m = members @ sizes, rest @ sizes
    first = ((members @ pair_sums) * members).sum(1) / (n * (n - 1.0))
    second = ((rest @ pair_sums) * rest).sum(1) / (m * (m - 1.0))
    return first + second - 2.0 * ((members @ pair_sums) * rest).sum(1) / (n * m)


def translation_slope(prior: Prior) -> float:
    r"""n times the variance of the squared MMD per unit of its mean, as the prior is moved by a small t.

    The kernel depends on differences alone, so MMD^2 = 2 E k(z - z') - 2 E k(z - z' + t). Its noise to first order is
    that of the means of 2 f over both samples, f(z) = E k(z - z' - t) - E k(z - z') (arXiv:1205.02367's witness): a
    variance of 8 Var f / n. Over `SLOPE_DIRECTIONS` directions of t; the expectations over z' are means of two
    halves that share no draw, so that Var f is estimated without bias.
    """
    noise = Noise(Generator().manual_seed(SLOPE_SEED))
    z, z_prime = prior.sample(SLOPE_POINTS, noise).double(), prior.sample(SLOPE_POINTS, noise).double()
    scale, d = prior.pairwise_scale, prior.latent_dim
    plain = imq_kernel(squared_distances(z, z_prime), scale)
    mean = variance = 0.0
    for direction in random_projections(SLOPE_DIRECTIONS, d, noise, torch.float64):
        t = SMALL * (scale / (2.0 * d)) ** 0.5 * direction
        ahead = imq_kernel(squared_distances(z - t, z_prime), scale)
        behind = imq_kernel(squared_distances(z + t, z_prime), scale)
        mean += float((2.0 * plain - ahead - behind).mean())
        first, second = ((ahead - behind) / 2.0).tensor_split(2, dim=1)
        f, g = first.mean(1), second.mean(1)
        variance += float(((f - f.mean()) * (g - g.mean())).mean())
    return 8.0 * variance / mean if mean > 0.0 else 0.0
