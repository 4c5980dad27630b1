"""Slices beyond uniform linear ones: closed forms, brute force in the plane, and the order mean <= energy <= max."""

from __future__ import annotations

import math

import ot
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from genbench.api import Noise
from genbench.distances import (
    circular_slices,
    energy_weighted,
    monomials,
    power_spherical,
    random_projections,
    sliced_wasserstein_cost,
    wasserstein_costs,
)
from genbench.errors import UsageError


def seeded(seed: int = 0) -> Noise:
    return Noise(Generator().manual_seed(seed))


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed).generator, dtype=torch.float64)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("m", [12, 9])
def test_costs_are_those_of_an_exact_solver_row_by_row(p: float, m: int) -> None:
    u, v = normal(5, 12, 1), normal(5, m, 2)
    exact = [ot.wasserstein_1d(a.numpy(), b.numpy(), p=p) for a, b in zip(u, v, strict=True)]
    assert wasserstein_costs(u, v, p).tolist() == pytest.approx(exact)


def test_their_mean_over_linear_slices_is_the_sliced_distance() -> None:
    x, y, theta = normal(20, 4, 1), normal(20, 4, 2), random_projections(30, 4, seeded(), torch.float64)
    costs = wasserstein_costs(theta @ x.T, theta @ y.T)
    assert float(costs.mean()) == pytest.approx(float(sliced_wasserstein_cost(x, y, theta)))
    with pytest.raises(UsageError, match="at least 1"):
        wasserstein_costs(x, y, 0.5)


def test_mean_energy_and_maximum_are_ordered_as_the_paper_says() -> None:
    x, y, theta = normal(20, 4, 1), normal(20, 4, 2) + 1.0, random_projections(30, 4, seeded(), torch.float64)
    costs = wasserstein_costs(theta @ x.T, theta @ y.T)
    weights = [math.exp(float(cost)) for cost in costs]
    expected = sum(w * float(cost) for w, cost in zip(weights, costs, strict=True)) / sum(weights)
    assert float(energy_weighted(costs)) == pytest.approx(expected)
    assert float(costs.mean()) < float(energy_weighted(costs)) < float(costs.max())
    assert float(energy_weighted(torch.tensor([1000.0, 1.0]))) == pytest.approx(1000.0)  # no overflow


# ---------------------------------------------------------------- defining functions


def test_the_linear_defining_function_is_the_plain_one() -> None:
    x = normal(6, 3, 0)
    assert torch.equal(monomials(x, 1), x)


@pytest.mark.parametrize("degree", [3, 5])
def test_monomials_are_all_products_once(degree: int) -> None:
    x = normal(4, 3, 0)
    powers = [(i, j, degree - i - j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    expected = torch.stack([x[:, 0] ** i * x[:, 1] ** j * x[:, 2] ** k for i, j, k in powers], 1)
    ours = monomials(x, degree)
    assert ours.shape == (4, math.comb(3 + degree - 1, degree))
    assert torch.allclose(ours.sort(1).values, expected.sort(1).values)


def test_even_degrees_cannot_distinguish_reflections_and_odd_ones_can() -> None:
    x = normal(30, 2, 0) + 1.0
    theta = random_projections(10, 3, seeded(), torch.float64)
    assert torch.allclose(theta @ monomials(x, 2).T, theta @ monomials(-x, 2).T)
    theta = random_projections(10, 4, seeded(), torch.float64)
    assert float(wasserstein_costs(theta @ monomials(x, 3).T, theta @ monomials(-x, 3).T).mean()) > 1.0


def test_monomials_have_a_gradient_at_zero() -> None:
    assert torch.autograd.gradcheck(
        lambda x: monomials(x, 3), torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    )


def test_circular_slices_are_distances_from_points_on_the_sphere() -> None:
    x, theta = normal(7, 3, 0), random_projections(4, 3, seeded(), torch.float64)
    expected = [[float((a - 2.0 * t).norm()) for a in x] for t in theta]
    assert torch.allclose(circular_slices(x, theta, 2.0), torch.tensor(expected, dtype=torch.float64))
    far = circular_slices(x, theta, 1e6) - 1e6  # a circle of a large radius is a line
    assert torch.allclose(far, -theta @ x.T, atol=1e-4)
    meeting = (2.0 * theta).requires_grad_()
    circular_slices(meeting, theta, 2.0).sum().backward()
    assert meeting.grad.isfinite().all()


# ---------------------------------------------------------------- directions


@pytest.mark.parametrize(("d", "kappa"), [(2, 5), (5, 0), (5, 10), (16, 40)])
def test_power_spherical_has_its_law(d: int, kappa: int) -> None:
    location = normal(1, d, 3)[0] * 4.0
    theta = power_spherical(location, kappa, 4000, seeded())
    assert torch.allclose(theta.norm(dim=1), torch.ones(4000, dtype=torch.float64))
    unit = location / location.norm()
    cosine = theta @ unit
    law = stats.beta((d - 1) / 2 + kappa, (d - 1) / 2)
    assert stats.kstest(((cosine + 1) / 2).numpy(), law.cdf).pvalue > 1e-3
    # Around the location every direction is alike.
    tangent = theta - cosine[:, None] * unit
    spread = tangent.T @ tangent / tangent.square().sum() * (d - 1)
    assert torch.allclose(spread, torch.eye(d) - unit[:, None] * unit, atol=0.15)


def test_power_spherical_has_a_gradient_and_exists_on_a_line() -> None:
    draw = lambda location: power_spherical(location, 3, 4, seeded(1))  # noqa: E731
    assert torch.autograd.gradcheck(draw, normal(1, 3, 0)[0].requires_grad_())
    assert power_spherical(torch.tensor([-3.0]), 2, 4, seeded()).tolist() == [[-1.0]] * 4
    axis = torch.tensor([1.0, 0.0, 0.0], requires_grad=True)
    power_spherical(axis, 3, 4, seeded()).sum().backward()
    assert axis.grad.isfinite().all()


def test_ascending_a_direction_finds_the_largest_slice_of_the_plane() -> None:
    x, y = normal(40, 2, 1) * torch.tensor([1.0, 3.0]), normal(40, 2, 2) + 0.3
    angles = math.pi * torch.arange(2000, dtype=torch.float64) / 2000
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    brute = float(wasserstein_costs(circle @ x.T, circle @ y.T).max())
    theta = random_projections(8, 2, seeded(), torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=0.03)
    for _ in range(200):
        unit = torch.nn.functional.normalize(theta, dim=1)
        costs = wasserstein_costs(unit @ x.T, unit @ y.T)
        optimizer.zero_grad()
        (-costs.mean()).backward()
        optimizer.step()
    assert float(costs.detach().max()) == pytest.approx(brute, rel=1e-3)
    assert brute > 1.5 * float(wasserstein_costs(circle @ x.T, circle @ y.T).mean())
