"""Distances between Gaussians and exact optimal transport: references, closed forms and refusals."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from scipy import integrate, stats
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from genbench.api import Noise
from genbench.distances import (
    exact_transport,
    frechet_distance,
    frechet_distance_of_samples,
    gaussian_kl,
    random_projections,
    sliced_wasserstein_cost,
    squared_distances,
    transport,
    wasserstein_distance,
)
from genbench.distances.transport import annealed_potentials, start_pays
from genbench.errors import MetricError


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=dtype)


# ---------------------------------------------------------------- Gaussians


def test_gaussian_kl_equals_the_integral() -> None:
    mean, log_variance, sigma = torch.tensor([[0.7]]), torch.tensor([[-0.9]]), 1.3
    q, p = stats.norm(0.7, math.exp(-0.45)), stats.norm(0, sigma)
    expected = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -8, 8)[0]
    assert float(gaussian_kl(mean, log_variance, sigma)) == pytest.approx(expected, rel=1e-5)


def test_gaussian_kl_equals_torch_and_vanishes_at_the_prior() -> None:
    mean, log_variance, sigma = normal(9, 4, 1), normal(9, 4, 2), 0.7
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    p = torch.distributions.Normal(torch.zeros(4), sigma)
    assert torch.allclose(gaussian_kl(mean, log_variance, sigma), torch.distributions.kl_divergence(q, p).sum(1))
    prior = torch.full((1, 4), 2 * math.log(sigma), dtype=torch.float64)
    assert float(gaussian_kl(torch.zeros(1, 4), prior, sigma)) == pytest.approx(0.0, abs=1e-12)


def moments(sample: Tensor) -> tuple[Tensor, Tensor]:
    return sample.mean(0), torch.cov(sample.T)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_frechet_equals_torch_fidelity(scale: float) -> None:
    x, y = scale * normal(400, 30, 1) @ normal(30, 30, 3), scale * (normal(300, 30, 2) + 0.2)
    reference = fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), False)
    assert frechet_distance(*moments(x), *moments(y)) == pytest.approx(
        reference["frechet_inception_distance"], rel=1e-6
    )


def test_frechet_of_commuting_covariances_is_closed() -> None:
    x, y = torch.tensor([4.0, 9.0, 0.0]), torch.tensor([1.0, 0.0, 16.0])
    assert frechet_distance(torch.zeros(3), x.diag(), torch.ones(3), y.diag()) == pytest.approx(
        3 + 1 + 9 + 16, rel=1e-12
    )


def test_frechet_of_a_singular_covariance_with_itself_is_zero() -> None:
    mean, covariance = moments(normal(20, 60, 1) * 30.0)
    assert frechet_distance(mean, covariance, mean, covariance) == pytest.approx(0.0, abs=1e-8)
    zero = torch.zeros(60, 60)
    assert frechet_distance(mean, zero, mean, zero) == 0.0
    assert frechet_distance(mean, covariance, mean, zero) == pytest.approx(float(covariance.trace()))


def test_frechet_names_what_is_not_finite() -> None:
    bad = torch.full((2, 2), math.nan)
    with pytest.raises(MetricError, match=r"cov_y of shape \(2, 2\) holds 4"):
        frechet_distance(torch.zeros(2), torch.eye(2), torch.zeros(2), bad)


@pytest.mark.parametrize("d", [5, 60])
def test_frechet_of_samples_is_that_of_their_moments(d: int) -> None:
    x, y = 30.0 * normal(20, d, 1) + 7.0, normal(30, d, 2)
    assert frechet_distance_of_samples(x, y) == pytest.approx(frechet_distance(*moments(x), *moments(y)), rel=1e-10)
    assert frechet_distance_of_samples(x, x) == pytest.approx(0.0, abs=1e-8)


# ---------------------------------------------------------------- exact optimal transport


@pytest.mark.parametrize("d", [1, 2, 8, 64])
def test_exact_equals_the_assignment(d: int) -> None:
    x, y = normal(150, d, 1), 1.5 * normal(150, d, 2)
    cost = (x[:, None] - y[None]).square().sum(2).numpy()
    assert wasserstein_distance(x, y) == pytest.approx(math.sqrt(cost[linear_sum_assignment(cost)].mean()), rel=1e-10)


def test_exact_of_unequal_counts_equals_repeated_rows() -> None:
    x, y = normal(20, 3, 1), normal(30, 3, 2)
    repeated = wasserstein_distance(x.repeat_interleave(3, 0), y.repeat_interleave(2, 0))
    assert wasserstein_distance(x, y) == pytest.approx(repeated, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_exact_scales_and_translates(scale: float) -> None:
    x, y = normal(100, 4, 1), normal(100, 4, 2)
    assert wasserstein_distance(scale * x, scale * y) == pytest.approx(scale * wasserstein_distance(x, y), rel=1e-9)
    t = scale * torch.tensor([1.0, 2.0, 0.0, -1.0], dtype=torch.float64)
    assert wasserstein_distance(scale * x + t, scale * x) == pytest.approx(scale * math.sqrt(6), rel=1e-9)


def test_translation_adds_its_square_to_exact() -> None:
    """W2^2(x + t, y) = W2^2(x, y) + |t|^2 + 2 t.(mean x - mean y): the last term is removed by centring both."""
    x, y = normal(100, 4, 1), normal(100, 4, 2)
    x, y, t = x - x.mean(0), y - y.mean(0), torch.tensor([1.0, 2.0, 0.0, -1.0])
    assert wasserstein_distance(x + t, y) ** 2 == pytest.approx(wasserstein_distance(x, y) ** 2 + 6.0, rel=1e-9)


def test_exact_does_not_see_the_order() -> None:
    x, y = normal(100, 4, 1), normal(100, 4, 2)
    assert wasserstein_distance(x[torch.randperm(100, generator=seeded())], y) == pytest.approx(
        wasserstein_distance(x, y)
    )
    assert wasserstein_distance(x, x.flip(0)) == pytest.approx(0.0, abs=1e-7)
    assert wasserstein_distance(torch.zeros(5, 2), torch.zeros(7, 2)) == 0.0


def test_exact_approaches_the_closed_form_of_normals() -> None:
    """W2^2(N(0, I), N(t, 4 I)) = |t|^2 + d in the plane, where 2,000 points have a small floor."""
    x, y = normal(2000, 2, 1), 2 * normal(2000, 2, 2) + 3.0
    assert wasserstein_distance(x, y) ** 2 == pytest.approx(18.0 + 2.0, rel=0.05)
    assert frechet_distance(*moments(x), *moments(y)) == pytest.approx(wasserstein_distance(x, y) ** 2, rel=0.01)


def test_exact_converges_where_pot_s_default_does_not() -> None:
    """2,000 points in R^64: more pivots than POT grants by default, which then returns a number and a warning."""
    x, y = normal(2000, 64, 0), normal(2000, 64, 1)
    cost = squared_distances(x, y)
    with pytest.warns(UserWarning, match="numItermax"):
        too_early = ot.emd2([], [], cost.numpy() / float(cost.max())) * float(cost.max())
    assert wasserstein_distance(x, y) ** 2 < float(too_early)


def test_exact_that_does_not_converge_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "SIMPLEX_STEPS", 10)
    with pytest.raises(MetricError, match="300 x 200 points did not converge: numItermax"):
        wasserstein_distance(normal(300, 4, 1), normal(200, 4, 2))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_exact_names_what_is_not_finite(bad: float) -> None:
    x, y = normal(10, 2, 1), normal(10, 2, 2)
    y[3, 1] = bad
    with pytest.raises(MetricError, match=r"y of shape \(10, 2\) holds 1 values that are NaN or infinite"):
        wasserstein_distance(x, y)


def test_exact_is_above_sliced() -> None:
    """SW2^2 <= W2^2 / d on average over directions, since a plan projects to a plan."""
    x, y = normal(100, 6, 1), normal(100, 6, 2) * torch.linspace(0.1, 2, 6)
    sliced = float(sliced_wasserstein_cost(x, y, random_projections(5000, 6, Noise(seeded()), torch.float64)))
    assert 0 < sliced < wasserstein_distance(x, y) ** 2 / 6
    assert np.isfinite(sliced)


SAMPLES = {
    "normal": (normal(150, 8, 1), 1.5 * normal(150, 8, 2)),
    "line": (normal(80, 1, 1), normal(80, 1, 2)),
    "unequal counts": (normal(70, 3, 1), normal(45, 3, 2) + 1.0),
    "equal": (normal(60, 3, 1), normal(60, 3, 1)),
    "duplicates": (normal(10, 2, 1).repeat(8, 1), normal(8, 2, 2).repeat(10, 1)),
    "one point": (normal(1, 4, 1), normal(9, 4, 2)),
    "two points": (normal(2, 2, 1), normal(2, 2, 2)),
    "huge": (1e150 * normal(50, 2, 1), 1e150 * normal(50, 2, 2)),
    "tiny": (1e-150 * normal(50, 2, 1), 1e-150 * normal(50, 2, 2)),
    "outlier": (torch.cat([normal(60, 2, 1), torch.full((1, 2), 1e6, dtype=torch.float64)]), normal(61, 2, 2)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_where_the_simplex_starts_does_not_change_the_distance(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = SAMPLES[name]
    cold = wasserstein_distance(x, y)
    begun = []
    monkeypatch.setattr(transport, "start_pays", lambda *_: True)
    monkeypatch.setattr(
        transport, "annealed_potentials", lambda cost: begun.append(annealed_potentials(cost)) or begun[-1]
    )
    assert wasserstein_distance(x, y) == pytest.approx(cold, rel=1e-9, abs=1e-9 * float(x.abs().max()))
    assert len(begun) == 1


@pytest.mark.parametrize("name", SAMPLES)
def test_no_potentials_whatever_change_the_distance(name: str) -> None:
    x, y = SAMPLES[name]
    cold, scale = exact_transport(x, y, None), float(x.abs().max()) ** 2
    for start in (torch.zeros(len(y)), scale * normal(len(y), 1, 9)[:, 0]):
        assert exact_transport(x, y, start) ** 2 == pytest.approx(cold**2, rel=1e-9, abs=1e-14 * scale)


def test_annealed_potentials_are_feasible_and_near_the_optimum() -> None:
    x, y = normal(300, 8, 1), normal(200, 8, 2)
    cost = squared_distances(x, y)
    f, g = annealed_potentials((cost / cost.max()).float())
    assert float((f[:, None] + g - cost / cost.max()).max()) < 1e-6
    optimum = wasserstein_distance(x, y) ** 2 / float(cost.max())
    assert 0.97 * optimum < float(f.mean() + g.mean()) <= optimum + 1e-6


def test_a_start_is_used_where_it_was_measured_to_pay() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [start_pays(n, n, d, cpu) for n, d in ((1999, 64), (2000, 16), (10_000, 15))] == [False, True, False]
    assert [start_pays(n, n, 2, gpu) for n in (3999, 4000)] == [False, True]
