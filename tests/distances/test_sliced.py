"""Directions and sliced Wasserstein: references, theorems, and the errors found in public implementations.

An error is planted as a small faulty function; the theorem that ours satisfies must fail for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import ot
import pytest
import torch
from torch import Generator, Tensor

from genbench.api import Noise
from genbench.distances import (
    mmd,
    random_projections,
    sliced_wasserstein_cost,
    squared_distances,
    wasserstein_distance,
)
from genbench.errors import UsageError


def seeded(seed: int = 0) -> Noise:
    return Noise(Generator().manual_seed(seed))


def normal(n: int, d: int, seed: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed).generator, dtype=dtype)


# ---------------------------------------------------------------- directions


def unnormalised(count: int, dim: int, noise: Noise, dtype: torch.dtype) -> Tensor:
    return noise.normal(count, dim, dtype=dtype)


def isotropic(make: Callable[..., Tensor]) -> bool:
    """Unit norm, and second moments I/d within five standard errors."""
    theta = make(20_000, 5, seeded(), torch.float64)
    unit = torch.allclose(theta.norm(dim=1), torch.ones(20_000, dtype=torch.float64))
    return unit and bool((theta.T @ theta / 20_000 - torch.eye(5) / 5).abs().max() < 5 * 0.25 / math.sqrt(20_000))


def test_directions_are_uniform_on_the_sphere() -> None:
    assert isotropic(random_projections)
    assert not isotropic(unnormalised)


def test_directions_come_from_the_noise() -> None:
    assert torch.equal(random_projections(7, 3, seeded(1)), random_projections(7, 3, seeded(1)))
    assert not torch.equal(random_projections(7, 3, seeded(1)), random_projections(7, 3, seeded(2)))
    assert set(random_projections(100, 1, seeded()).flatten().tolist()) == {-1.0, 1.0}
    assert random_projections(1, 2, seeded()).dtype == torch.float32


@pytest.mark.parametrize(("count", "dim"), [(0, 2), (2, 0)])
def test_no_directions_are_refused(count: int, dim: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        random_projections(count, dim, seeded())


# ---------------------------------------------------------------- sliced Wasserstein


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize(("n", "m"), [(64, 64), (30, 47), (10, 40), (1, 5)])
def test_sliced_equals_pot(n: int, m: int, p: float) -> None:
    x, y, theta = normal(n, 5, 1), 2 * normal(m, 5, 2) + 1, random_projections(40, 5, seeded(3), torch.float64)
    pot = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=theta.T.numpy(), p=p)
    assert float(sliced_wasserstein_cost(x, y, theta, p)) == pytest.approx(pot**p, rel=1e-9)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("m", [50, 35])
def test_sliced_in_one_dimension_is_exact(p: float, m: int) -> None:
    x, y = normal(50, 1, 1), normal(m, 1, 2) + 0.5
    exact = ot.wasserstein_1d(x.numpy()[:, 0], y.numpy()[:, 0], p=p)
    assert float(sliced_wasserstein_cost(x, y, random_projections(9, 1, seeded(), torch.float64), p)) == pytest.approx(
        exact
    )
    if p == 2.0:
        assert wasserstein_distance(x, y) ** 2 == pytest.approx(float(exact))


def test_sliced_is_zero_only_between_equal_samples() -> None:
    x, theta = normal(64, 4, 1), random_projections(30, 4, seeded(), torch.float64)
    shuffled = x[torch.randperm(64, generator=seeded(2).generator)]
    assert float(sliced_wasserstein_cost(x, shuffled, theta)) == pytest.approx(0.0, abs=1e-25)
    assert float(sliced_wasserstein_cost(x, x + 1e-3, theta)) > 0.0


def test_sliced_of_repeated_samples_is_that_of_the_samples() -> None:
    x, y, theta = normal(20, 3, 1), normal(20, 3, 2), random_projections(30, 3, seeded(), torch.float64)
    once = float(sliced_wasserstein_cost(x, y, theta))
    assert float(sliced_wasserstein_cost(x.repeat(4, 1), y.repeat(4, 1), theta)) == pytest.approx(once)
    assert float(sliced_wasserstein_cost(x, y.repeat(3, 1), theta)) == pytest.approx(once)


Sliced = Callable[[Tensor, Tensor, Tensor], Tensor]


def sum_over_directions(x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
    return sliced_wasserstein_cost(x, y, theta) * len(theta)


def divided_by_pairs(x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
    squares = ((theta @ x.T).sort(1).values - (theta @ y.T).sort(1).values).square()
    return squares.sum() / len(theta) / (len(x) * (len(x) - 1))


def over_unnormalised(x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
    return sliced_wasserstein_cost(x, y, unnormalised(len(theta), x.shape[1], seeded(5), torch.float64))


def translation_adds_its_square(distance: Sliced) -> bool:
    """SW2^2(x + t, x) = |t|^2 / d on average over directions, whatever the batch size and the number of directions."""
    t = torch.tensor([1.0, -2.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    expected, tight = float(t.square().sum()) / 5, []
    for n, count in ((16, 4000), (128, 4000), (16, 8000)):
        x, theta = normal(n, 5, 1), random_projections(count, 5, seeded(2), torch.float64)
        tight.append(float(distance(x + t, x, theta)) == pytest.approx(expected, rel=0.1))
    return all(tight)


def test_translation_adds_its_square() -> None:
    assert translation_adds_its_square(sliced_wasserstein_cost)


@pytest.mark.parametrize("faulty", [sum_over_directions, divided_by_pairs, over_unnormalised])
def test_translation_tells_faulty_means(faulty: Sliced) -> None:
    assert not translation_adds_its_square(faulty)


def odd_power_without_absolute_value(x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
    return ((theta @ x.T).sort(1).values - (theta @ y.T).sort(1).values).pow(3).mean()


def positive_for_every_order(distance: Sliced) -> bool:
    """A distance to the third power is positive and the same in both directions."""
    x, y, theta = normal(50, 3, 1), normal(50, 3, 2) + 1, random_projections(50, 3, seeded(), torch.float64)
    there, back = float(distance(x, y, theta)), float(distance(y, x, theta))
    return there > 0 and there == pytest.approx(back)


def test_odd_powers_take_the_absolute_value() -> None:
    assert positive_for_every_order(lambda x, y, theta: sliced_wasserstein_cost(x, y, theta, 3.0))
    assert not positive_for_every_order(odd_power_without_absolute_value)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("m", [12, 9])
def test_sliced_gradient(p: float, m: int) -> None:
    x, y = normal(12, 3, 1).requires_grad_(), normal(m, 3, 2).requires_grad_()
    theta = random_projections(5, 3, seeded(), torch.float64)
    assert torch.autograd.gradcheck(lambda u, v: sliced_wasserstein_cost(u, v, theta, p), (x, y))


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_sliced_gradient_is_finite_where_samples_meet(p: float) -> None:
    x = normal(6, 3, 1).requires_grad_()
    sliced_wasserstein_cost(x, x.detach(), random_projections(5, 3, seeded(), torch.float64), p).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_sliced_keeps_the_dtype() -> None:
    x = normal(8, 3, 1, dtype=torch.float32)
    assert sliced_wasserstein_cost(x, x, random_projections(5, 3, seeded())).dtype == torch.float32
    assert sliced_wasserstein_cost(x, x[:5], random_projections(5, 3, seeded())).dtype == torch.float32


@pytest.mark.parametrize("p", [0.5, 0.0, -1.0, math.nan])
def test_sliced_refuses_orders_below_one(p: float) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        sliced_wasserstein_cost(normal(4, 2, 1), normal(4, 2, 2), random_projections(3, 2, seeded(), torch.float64), p)


@pytest.mark.parametrize("function", [squared_distances, wasserstein_distance, lambda x, y: mmd(x, y, scale=1.0)])
@pytest.mark.parametrize(("x", "y"), [((4, 2), (4, 3)), ((4,), (4,)), ((0, 2), (4, 2)), ((4, 2, 1), (4, 2, 1))])
def test_shapes_that_do_not_fit_are_named(
    function: Callable[[Tensor, Tensor], object], x: tuple[int, ...], y: tuple[int, ...]
) -> None:
    with pytest.raises(UsageError, match=r"need \(n, d\) and \(m, d\)"):
        function(torch.zeros(x), torch.zeros(y))
