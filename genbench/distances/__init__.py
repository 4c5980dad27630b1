"""Distances between samples, between Gaussians and between distributions: pure functions of tensors.

Those that models descend (sliced costs, `mmd`, `sinkhorn_divergence`, `gaussian_kl`) are differentiable, run on any
device in the dtype of their inputs, never wait on the device and are means, so that they do not grow with the batch.
Those that only measure (`frechet_distance`, `wasserstein_distance`) compute in float64 on the CPU and return a Python
number or raise.
"""

from __future__ import annotations

from genbench.distances.gaussian import frechet_distance, frechet_distance_of_samples, gaussian_kl
from genbench.distances.gromov import fused_gromov_costs
from genbench.distances.mmd import WAE_SCALES, Kernel, imq_kernel, mmd, rbf_kernel, squared_distances
from genbench.distances.sinkhorn import sinkhorn_divergence
from genbench.distances.sliced import (
    circular_slices,
    energy_weighted,
    monomials,
    power_spherical,
    random_projections,
    sliced_wasserstein_cost,
    sorted_rows,
    wasserstein_costs,
)
from genbench.distances.transport import exact_transport, transport_start, wasserstein_distance

__all__ = [
    "WAE_SCALES",
    "Kernel",
    "circular_slices",
    "energy_weighted",
    "exact_transport",
    "frechet_distance",
    "frechet_distance_of_samples",
    "fused_gromov_costs",
    "gaussian_kl",
    "imq_kernel",
    "mmd",
    "monomials",
    "power_spherical",
    "random_projections",
    "rbf_kernel",
    "sinkhorn_divergence",
    "sliced_wasserstein_cost",
    "sorted_rows",
    "squared_distances",
    "transport_start",
    "wasserstein_costs",
    "wasserstein_distance",
]
