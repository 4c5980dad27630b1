"""The Cramer-Wold distance: its closed forms against the definition, and what they are invariant to."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import hyp1f1
from torch import Generator, Tensor

from genbench_cwae import between, phi, silverman, to_normal

GAMMA = silverman(128)


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(x: Tensor, y: Tensor | None, sigma: float = 1.0) -> float:
    """2 sqrt(pi) times the mean over 512 angles of the integral of (smoothed density - smoothed density)^2, d = 2."""
    angles = math.pi * (torch.arange(512, dtype=torch.float64) + 0.5) / 512
    theta = torch.stack([angles.cos(), angles.sin()])
    t = torch.linspace(-12.0, 12.0, 1201, dtype=torch.float64)

    def density(points: Tensor, variance: float) -> Tensor:
        gap = t[:, None, None] - points[None]
        return torch.exp(-(gap**2) / (2 * variance)).mean(1) / math.sqrt(2 * math.pi * variance)

    reference = (
        density(torch.zeros(1, 512, dtype=torch.float64), sigma**2 + GAMMA) if y is None else density(y @ theta, GAMMA)
    )
    squares = (density(x @ theta, GAMMA) - reference).square()
    return 2 * math.sqrt(math.pi) * float(torch.trapezoid(squares, t, dim=0).mean())


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_the_closed_form_is_the_definition_in_the_plane(sigma: float) -> None:
    x = 0.7 * normal(12, 2, 0) + 0.5
    assert float(to_normal(x, GAMMA, sigma)) == pytest.approx(by_definition(x, None, sigma), rel=1e-6)


def test_the_two_sample_form_is_the_definition_in_the_plane() -> None:
    x, y = normal(12, 2, 0), 1.5 * normal(9, 2, 1)
    assert float(between(x, y, GAMMA)) == pytest.approx(by_definition(x, y), rel=1e-6)


@pytest.mark.parametrize(("d", "error"), [(1, 1e-12), (2, 1e-12), (3, 0.093), (8, 0.0222), (20, 0.0077), (64, 0.0023)])
def test_the_kernel_is_as_near_to_its_definition_as_it_says(d: int, error: float) -> None:
    s = torch.logspace(-3, 4, 400, dtype=torch.float64)
    assert float((phi(s, d) - torch.from_numpy(hyp1f1(0.5, d / 2, -s.numpy()))).abs().max()) <= error


@pytest.mark.parametrize("d", [2, 8, 64])
def test_it_is_zero_at_equality_and_grows_with_a_shift(d: int) -> None:
    x = normal(64, d, 0)
    assert float(between(x, x.flip(0), GAMMA)) == pytest.approx(0.0, abs=1e-12)
    far = [float(between(x, x + shift, GAMMA)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert far == sorted(far)
    assert far[1] > 1e-3


def test_the_law_itself_is_the_limit_of_its_samples() -> None:
    x, y = normal(200, 2, 0) + 0.5, normal(3000, 2, 1)
    assert float(between(x, y, GAMMA)) == pytest.approx(float(to_normal(x, GAMMA)), abs=0.01)


def test_a_batch_that_is_repeated_costs_the_same() -> None:
    x = normal(32, 8, 0)
    assert float(to_normal(x.repeat(3, 1), GAMMA)) == pytest.approx(float(to_normal(x, GAMMA)), rel=1e-12)


def test_the_scale_of_the_prior_is_a_unit() -> None:
    x = normal(32, 8, 0)
    scaled = 3.0 * float(to_normal(3.0 * x, 9.0 * GAMMA, 3.0))
    assert scaled == pytest.approx(float(to_normal(x, GAMMA)), rel=1e-9)
