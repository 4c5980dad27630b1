"""Each prior's own law, its refusals, and each published error in a prior, distinguished from ours."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from genbench.api import Noise, Prior
from genbench.errors import UnsupportedError, UsageError
from genbench_plane import Bowl, Circle, Disk, Ring
from genbench_plane import genbench_priors as plane_priors
from genbench_priors import Mixture, Normal, Sphere, Uniform, genbench_priors


def seeded(seed: int = 0) -> Noise:
    return Noise(Generator().manual_seed(seed))


def near(estimates: Tensor, truth: Tensor, errors: float = 5.0) -> bool:
    """Whether the column means of `(n, k)` lie within so many standard errors of the truth, `(k,)`."""
    standard_error = estimates.std(0) / math.sqrt(len(estimates))
    return bool(((estimates.mean(0) - truth).abs() <= errors * standard_error + 1e-6).all())


def has_declared_moments(prior: Prior, draws: Tensor) -> bool:
    return near(draws, prior.mean) and near((draws - prior.mean).square(), prior.variance)


def test_normal_density_is_scipy_s() -> None:
    z = torch.randn(50, 3, generator=seeded().generator, dtype=torch.float64)
    expected = stats.norm(0, 0.5).logpdf(z.numpy()).sum(1)
    assert torch.allclose(Normal(3, sigma=0.5).log_prob(z), torch.from_numpy(expected))
    assert Normal(3, sigma=0.5).normal_sigma == 0.5
    assert Normal(8).pairwise_scale == 16.0


def test_mixture_density_is_scipy_s() -> None:
    prior = Mixture(3, components=4)
    z = prior.sample(50, seeded()).double()
    means = prior.means(torch.device("cpu")).double().numpy()
    density = sum(stats.multivariate_normal(mean, 0.04).pdf(z.numpy()) for mean in means) / 4
    assert torch.allclose(prior.log_prob(z).exp(), torch.from_numpy(density))


def radius_law(name: str) -> Callable[[float], float]:
    """P(|z| <= r) on the unit disk."""
    return {"circle": lambda r: r, "disk": lambda r: r**2, "bowl": lambda r: r**4}[name]


def has_radius_law(name: str, draws: Tensor) -> bool:
    """Kolmogorov-Smirnov for the radius and for the angle, at 0.1 %."""
    radius = stats.kstest(draws.norm(dim=1).numpy(), radius_law(name)).pvalue
    turns = torch.atan2(draws[:, 1], draws[:, 0]).numpy() / math.tau + 0.5
    return bool(min(radius, stats.kstest(turns, "uniform").pvalue) > 1e-3)


@pytest.mark.parametrize("prior", [Circle(2), Disk(2), Bowl(2)], ids=repr)
def test_radii_follow_their_law(prior: Prior) -> None:
    name = type(prior).__name__.lower()
    draws = prior.sample(5000, seeded())
    assert [law for law in ("circle", "disk", "bowl") if has_radius_law(law, draws)] == [name]


def test_a_disk_without_the_square_root_is_detected() -> None:
    u, turns = torch.rand(2, 5000, generator=seeded().generator)
    planted = u[:, None] * torch.stack([(math.tau * turns).cos(), (math.tau * turns).sin()], 1)
    assert not has_radius_law("disk", planted)
    assert not has_declared_moments(Disk(2), planted)


def test_sphere_draws_lie_on_it_and_are_uniform() -> None:
    draws = Sphere(3, radius=2.0).sample(5000, seeded())
    assert torch.allclose(draws.norm(dim=1), torch.tensor(2.0))
    assert stats.kstest(draws[:, 2].numpy(), stats.uniform(-2, 4).cdf).pvalue > 1e-3  # Archimedes


def test_ring_follows_the_notebooks() -> None:
    draws = Ring(2).sample(20_000, seeded())
    assert float(draws.norm(dim=1).std()) == pytest.approx(0.01, rel=0.05)
    turns = torch.atan2(draws[:, 1], draws[:, 0]).numpy() / math.tau + 0.5
    assert stats.kstest(turns, "uniform").pvalue > 1e-3


def test_ring_batches_are_evenly_spaced_shuffled_and_turned() -> None:
    ring = Ring(2, noise=1e-6)
    starts = []
    for seed in range(300):
        batch = ring.sample_batch(20, seeded(seed))
        turns = (torch.atan2(batch[:, 1], batch[:, 0]) / math.tau) % 1.0
        gaps = torch.diff(turns.sort().values)
        assert torch.allclose(gaps, torch.tensor(1 / 20), atol=1e-5)
        assert not torch.equal(turns, turns.sort().values)
        starts.append(float(turns[0]))
    assert stats.kstest(starts, "uniform").pvalue > 1e-3
    within_a_step = [20 * start % 1.0 for start in starts]
    assert stats.kstest(within_a_step, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("components", [2, 3, 5, 7, 10, 16])
def test_mixture_means_are_centred_and_stay_apart(components: int) -> None:
    nearest = []
    for d in [*range(2, 25), 32, 64, 128]:
        prior = Mixture(d, components=components)
        means = prior.means(torch.device("cpu")).double()
        assert torch.allclose(means.mean(0), torch.zeros(d, dtype=torch.float64), atol=1e-6)
        assert torch.allclose(means.square().mean(0), torch.tensor(1.4**2 / 2, dtype=torch.float64))
        nearest.append(float(torch.pdist(means).min()))
    assert min(nearest) == nearest[0] == pytest.approx(2 * 1.4 * math.sin(math.pi / components), rel=1e-6)


def test_mixture_without_modes_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"nearest means 0\.\d+ sigma apart, 2 needed.*fewer components"):
        Mixture(1)
    with pytest.raises(UnsupportedError, match="no separate modes"):
        Mixture(2, sigma=2.0)
    Mixture(1, components=2)


# ---------------------------------------------------------------- published errors, planted


def test_a_variance_of_two_instead_of_1_is_detected() -> None:
    planted = math.sqrt(2.0) * torch.randn(5000, 8, generator=seeded().generator)
    assert has_declared_moments(Normal(8), Normal(8).sample(5000, seeded()))
    assert not has_declared_moments(Normal(8), planted)


def test_a_unit_cube_instead_of_the_symmetric_cube_is_detected() -> None:
    planted = torch.rand(5000, 2, generator=seeded().generator)
    assert has_declared_moments(Uniform(2), Uniform(2).sample(5000, seeded()))
    assert not has_declared_moments(Uniform(2), planted)
    assert Uniform(2).bounds == (-1.0, 1.0)


# ---------------------------------------------------------------- refusals and registration


@pytest.mark.parametrize("make", [Ring, Circle, Disk, Bowl])
@pytest.mark.parametrize("latent_dim", [1, 3, 64])
def test_the_plane_is_two_dimensional(make: Callable[[int], Prior], latent_dim: int) -> None:
    with pytest.raises(UnsupportedError, match=f"latent dimension is {latent_dim}.*normal, uniform, sphere, mixture"):
        make(latent_dim)


def test_a_sphere_on_the_line_and_an_empty_cube_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="at least 2"):
        Sphere(1)
    with pytest.raises(UsageError, match=r"\[1, 1\]: low must be below high"):
        Uniform(2, low=1.0, high=1.0)


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.2), (0.1, 0.7), (-3.3, -1.1)])
def test_uniform_draws_never_leave_their_support(low: float, high: float) -> None:
    prior = Uniform(1, low=low, high=high)
    assert torch.isfinite(prior.log_prob(prior.sample(200_000, seeded()))).all()


def test_all_eight_priors_are_registered() -> None:
    specs = [*genbench_priors(), *plane_priors()]
    names = "normal uniform sphere mixture ring circle disk bowl"
    assert " ".join(spec.name for spec in specs) == names
    assert all(spec.factory(2).latent_dim == 2 and spec.description and spec.reference for spec in specs)
