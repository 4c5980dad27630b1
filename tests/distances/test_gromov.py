"""Fused Gromov-Wasserstein on the line: the closed form against its definition, POT, and all permutations."""

from __future__ import annotations

import itertools

import ot
import pytest
import torch
from torch import Generator, Tensor

from genbench.distances import fused_gromov_costs, wasserstein_costs
from genbench.errors import UsageError


def normal(rows: int, n: int, seed: int) -> Tensor:
    return torch.randn(rows, n, generator=Generator().manual_seed(seed), dtype=torch.float64)


def of_order(u: Tensor, v: Tensor, beta: float) -> float:
    """The cost of coupling u_i with v_i, by the double sum."""
    relations = ((u[:, None] - u).square() - (v[:, None] - v).square()).square().mean()
    return float((1 - beta) * (u - v).square().mean() + beta * relations)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.7, 1.0])
def test_the_closed_form_is_the_double_sum_of_the_better_order(beta: float) -> None:
    u, v = normal(6, 9, 1) + 5.0, 2.0 * normal(6, 9, 2)
    u[0] = -v[0] + 1.0  # reversed is better where relations count
    expected = [
        min(of_order(a.sort().values, b.sort(descending=down).values, beta) for down in (False, True))
        for a, b in zip(u, v, strict=True)
    ]
    assert fused_gromov_costs(u, v, beta).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_without_relations_it_is_the_wasserstein_cost() -> None:
    u, v = normal(4, 9, 1), normal(4, 9, 2)
    assert torch.allclose(fused_gromov_costs(u, v, 0.0), wasserstein_costs(u, v))


def test_equal_numbers_cost_nothing_and_relations_alone_ignore_reflection_and_shift() -> None:
    u = normal(3, 20, 1)
    assert torch.allclose(fused_gromov_costs(u, u.flip(1), 0.3), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(fused_gromov_costs(u, 4.0 - u, 1.0), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert (fused_gromov_costs(u, 4.0 - u, 0.5) > 1.0).all()


def least(u: Tensor, v: Tensor, beta: float) -> float:
    """The least cost over all orders."""
    return min(of_order(u, v[list(order)], beta) for order in itertools.permutations(range(len(v))))


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_it_is_the_least_over_all_orders_for_normal_numbers(beta: float) -> None:
    u, v = normal(12, 5, 1), normal(12, 5, 2)
    best = [least(a, b, beta) for a, b in zip(u, v, strict=True)]
    assert fused_gromov_costs(u, v, beta).tolist() == pytest.approx(best)


def test_neither_order_is_the_best_in_the_counterexample_of_the_literature() -> None:
    """Both ends far apart against two neighbors far from the rest (arXiv:2205.09006): the value is an upper bound."""
    step = 0.01
    u = torch.tensor([-1.0, *(step * k for k in range(-2, 3)), 1.0], dtype=torch.float64)
    v = torch.tensor([-1.0, -1.0 + step, *(step * k for k in range(1, 6))], dtype=torch.float64)
    better = v[[0, 4, 2, 3, 5, 6, 1]]
    for beta, excess in ((1.0, 1.05), (0.9, 1.02)):
        assert float(fused_gromov_costs(u[None], v[None], beta)) > excess * of_order(u, better, beta)
    assert float(fused_gromov_costs(u[None], v[None], 0.1)) < of_order(u, better, 0.1)


def test_pot_finds_the_same_where_the_closed_form_is_the_minimum() -> None:
    u = normal(1, 8, 1)[0].sort().values
    v = 1.5 * u + 0.2
    relations = [(w[:, None] - w).square().numpy() for w in (u, v)]
    places = (u[:, None] - v).square().numpy()
    value = ot.gromov.fused_gromov_wasserstein2(places, *relations, alpha=0.3, loss_fun="square_loss", symmetric=True)
    assert float(fused_gromov_costs(u[None], v[None], 0.3)) == pytest.approx(float(value), rel=1e-6)


def test_gradients_and_shapes() -> None:
    u, v = normal(2, 5, 1).requires_grad_(), normal(2, 5, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: fused_gromov_costs(a, b, 0.3), (u, v))
    with pytest.raises(UsageError, match=r"need \(L, n\)"):
        fused_gromov_costs(u, v[:, :3], 0.5)
