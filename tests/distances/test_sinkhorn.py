"""The Sinkhorn divergence: zero, limits, invariances, and an independent solver."""

from __future__ import annotations

import ot
import pytest
import torch
from torch import Generator, Tensor

from genbench.distances import sinkhorn_divergence, squared_distances, wasserstein_distance
from genbench.errors import UsageError


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_it_is_zero_between_equal_samples_after_any_number_of_steps(iterations: int) -> None:
    x = normal(12, 3, 0)
    assert float(sinkhorn_divergence(x, x.flip(0), 0.3, iterations)) == pytest.approx(0.0, abs=1e-12)
    assert float(sinkhorn_divergence(x, x + 1.0, 0.3, iterations)) > 0.1


def entropic(x: Tensor, y: Tensor, epsilon: float) -> float:
    """W_epsilon by POT: transport cost + epsilon KL(plan | product)."""
    n, m = len(x), len(y)
    cost = squared_distances(x, y).numpy()
    plan = ot.sinkhorn([], [], cost, epsilon, method="sinkhorn", numItermax=20_000, stopThr=1e-9)
    plan = torch.from_numpy(plan)
    return float((plan * torch.from_numpy(cost)).sum() + epsilon * (plan * (plan * n * m).log()).sum())


def test_it_is_what_an_independent_solver_finds() -> None:
    x, y = normal(9, 2, 1), normal(7, 2, 2) + 0.5
    biased = entropic(x, y, 0.5)
    expected = biased - 0.5 * entropic(x, x, 0.5) - 0.5 * entropic(y, y, 0.5)
    assert float(sinkhorn_divergence(x, y, 0.5, 500)) == pytest.approx(expected, rel=1e-5)
    assert biased != pytest.approx(expected, rel=0.05)  # the bias that is left out


def test_small_epsilon_tends_to_exact_transport_and_large_to_the_distance_of_means() -> None:
    x, y = normal(8, 2, 1), normal(8, 2, 2) + 0.5
    exact = wasserstein_distance(x, y) ** 2
    limits = ((1.0, 200), (0.1, 600), (0.02, 2000))
    gaps = [abs(float(sinkhorn_divergence(x, y, eps, steps)) - exact) for eps, steps in limits]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 2e-3 * exact
    means = float((x.mean(0) - y.mean(0)).square().sum())
    assert float(sinkhorn_divergence(x, y, 1e5, 50)) == pytest.approx(means, rel=5e-3)


def test_a_translation_adds_its_square_and_repetition_changes_nothing() -> None:
    x, y = normal(10, 3, 1), normal(10, 3, 2)
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    assert float(sinkhorn_divergence(x, x + shift, 2.0, 400)) == pytest.approx(float(shift.square().sum()), rel=1e-6)
    once = float(sinkhorn_divergence(x, y, 0.5, 30))
    assert float(sinkhorn_divergence(x.repeat(3, 1), y.repeat(3, 1), 0.5, 30)) == pytest.approx(once)


def test_the_gradient_at_convergence_is_that_of_the_value() -> None:
    x, y = normal(4, 2, 1).requires_grad_(), normal(4, 2, 2)
    assert torch.autograd.gradcheck(lambda u: sinkhorn_divergence(u, y, 2.0, 120), x, atol=1e-5)


def test_equal_counts_are_done_in_one_tensor_with_the_same_numbers() -> None:
    """Samples of equal counts against the same samples with each point of one twice, which are pair by pair."""
    x, y = normal(6, 3, 1).requires_grad_(), normal(6, 3, 2) + 0.5
    for steps in (1, 2, 30):
        values = sinkhorn_divergence(x, y, 0.7, steps), sinkhorn_divergence(x, y.repeat(2, 1), 0.7, steps)
        assert torch.allclose(*values, rtol=1e-10)
        gradients = [torch.autograd.grad(value, x)[0] for value in values]
        assert torch.allclose(*gradients, rtol=1e-9, atol=1e-12)


def test_bounds_and_shapes_are_checked() -> None:
    x = normal(4, 2, 0)
    with pytest.raises(UsageError, match="at least 1"):
        sinkhorn_divergence(x, x, 1.0, 0)
    with pytest.raises(UsageError, match=r"need \(n, d\)"):
        sinkhorn_divergence(x, normal(4, 3, 0), 1.0)
