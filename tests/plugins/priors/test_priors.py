"""What holds for every prior: draws, densities and declared facts agree."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import integrate, stats
from torch import Generator, Tensor

from genbench.api import Noise, Prior
from genbench.errors import UnsupportedError
from genbench_plane import Bowl, Circle, Disk, Ring
from genbench_priors import Mixture, Normal, Sphere, Uniform

EVERYWHERE = [
    Normal(1),
    Normal(5, sigma=0.5),
    Uniform(1),
    Uniform(3, low=0.0, high=4.0),
    Sphere(2),
    Sphere(6, radius=3.0),
    Mixture(2),
    Mixture(3, components=4),
    Mixture(64),
]
PLANE = [Ring(2), Ring(2, radius=2.0, noise=0.3), Circle(2), Disk(2), Disk(2, radius=3.0), Bowl(2)]
ALL = EVERYWHERE + PLANE
DENSE = [Normal(2), Uniform(2), Mixture(2), *PLANE]


def seeded(seed: int = 0) -> Noise:
    return Noise(Generator().manual_seed(seed))


def near(estimates: Tensor, truth: Tensor, errors: float = 5.0) -> bool:
    """Whether the column means of `(n, k)` lie within so many standard errors of the truth, `(k,)`."""
    standard_error = estimates.std(0) / math.sqrt(len(estimates))
    return bool(((estimates.mean(0) - truth).abs() <= errors * standard_error + 1e-6).all())


# ---------------------------------------------------------------- what holds for every prior


def has_declared_moments(prior: Prior, draws: Tensor) -> bool:
    return near(draws, prior.mean) and near((draws - prior.mean).square(), prior.variance)


@pytest.mark.parametrize("prior", ALL, ids=repr)
def test_draws_have_the_declared_moments(prior: Prior) -> None:
    draws = prior.sample(20_000, seeded())
    assert draws.shape == (20_000, prior.latent_dim)
    assert draws.dtype == torch.float32
    assert has_declared_moments(prior, draws)
    assert prior.mean.shape == prior.variance.shape == (prior.latent_dim,)
    squares = (draws[::2] - draws[1::2]).square().sum(1, keepdim=True)
    assert near(squares, torch.tensor([prior.pairwise_scale]))


@pytest.mark.parametrize("prior", ALL, ids=repr)
def test_batches_have_the_declared_moments(prior: Prior) -> None:
    draws = torch.cat([prior.sample_batch(5, seeded(seed))[seed % 5][None] for seed in range(1500)])
    assert has_declared_moments(prior, draws)


@pytest.mark.parametrize("prior", ALL, ids=repr)
def test_draws_come_from_the_noise(prior: Prior) -> None:
    for draw in (prior.sample, prior.sample_batch):
        assert torch.equal(draw(9, seeded(1)), draw(9, seeded(1)))
        assert not torch.equal(draw(9, seeded(1)), draw(9, seeded(2)))
    state = torch.get_rng_state()
    prior.sample(9, seeded())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("prior", ALL, ids=repr)
def test_draws_are_independent(prior: Prior) -> None:
    """Squares of neighbouring rows are uncorrelated: |r| < 5 / sqrt(n)."""
    first = prior.sample(20_000, seeded())[:, 0].square()
    assert abs(float(torch.corrcoef(torch.stack([first[:-1], first[1:]]))[0, 1])) < 5 / math.sqrt(20_000)


@pytest.mark.parametrize("prior", ALL, ids=repr)
def test_the_density_covers_the_draws_and_the_bounds_hold(prior: Prior) -> None:
    draws = prior.sample(20_000, seeded())
    if prior.bounds is not None:
        low, high = prior.bounds
        assert low - 1e-6 <= float(draws.min())
        assert float(draws.max()) <= high + 1e-6
    assert prior.has_density == (not isinstance(prior, Sphere))
    if prior.has_density:
        assert prior.log_prob(draws).shape == (20_000,)
        assert torch.isfinite(prior.log_prob(draws)).all()
        far = prior.log_prob(torch.full((1, prior.latent_dim), 7.0))
        assert bool(torch.isfinite(far)) == prior.full_support
    else:
        with pytest.raises(UnsupportedError, match="no density"):
            prior.log_prob(draws)


@pytest.mark.parametrize("prior", [p for p in ALL if p.has_density], ids=repr)
def test_the_density_has_a_finite_gradient_and_keeps_the_dtype(prior: Prior) -> None:
    z = torch.cat([prior.sample(200, seeded()), torch.zeros(1, prior.latent_dim)]).double().requires_grad_()
    density = prior.log_prob(z)
    assert density.dtype == torch.float64
    density[density.isfinite()].sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def density_integral(prior: Prior, power: int) -> float:
    """Integral of |z|^power p(z) over the plane, in polar coordinates or in squares as suits the prior."""

    def p(*coordinates: float) -> float:
        return math.exp(float(prior.log_prob(torch.tensor([coordinates], dtype=torch.float64))))

    if isinstance(prior, Ring | Disk):
        edges = [0.0, prior.radius]
        if isinstance(prior, Ring):
            edges = [0.0, *(prior.radius + k * prior.noise for k in (-6, 0, 6) if prior.radius + k * prior.noise > 0)]
        rings = itertools.pairwise(edges)
        return sum(
            integrate.quad(lambda r: math.tau * r ** (1 + power) * p(r, 0.0), *ring, limit=200)[0] for ring in rings
        )
    grid = torch.linspace(-6, 6, 601, dtype=torch.float64)[:-1] + 0.01
    points = torch.cartesian_prod(grid, grid)
    weights = points.square().sum(1) ** (power / 2)
    return float((prior.log_prob(points).exp() * weights).sum()) * 0.02**2


@pytest.mark.parametrize("prior", DENSE, ids=repr)
def test_the_density_in_the_plane_integrates_to_one_and_to_its_variance(prior: Prior) -> None:
    assert density_integral(prior, 0) == pytest.approx(1.0, rel=1e-5)
    assert density_integral(prior, 2) == pytest.approx(float(prior.variance.sum()), rel=2e-4)


@pytest.mark.parametrize("prior", DENSE, ids=repr)
def test_the_density_is_that_of_the_draws(prior: Prior) -> None:
    """Counts in the cells of a grid against the density integrated over them (chi-squared at 0.1 %)."""
    reach, cells, fine = 1.3 * float(prior.sample(5000, seeded(9)).abs().max()), 8, 60
    draws = prior.sample(40_000, seeded())
    counts = torch.histogramdd(draws.double(), bins=[cells, cells], range=[-reach, reach] * 2).hist.flatten()
    steps = (torch.arange(cells * fine, dtype=torch.float64) + 0.5) / (cells * fine) * 2 * reach - reach
    density = prior.log_prob(torch.cartesian_prod(steps, steps)).exp() * (2 * reach / (cells * fine)) ** 2
    expected = density.reshape(cells, fine, cells, fine).sum((1, 3)).flatten() * 40_000
    if (isinstance(prior, Ring) and prior.noise < 0.1) or isinstance(prior, Circle):
        expected = expected * (40_000 / expected.sum())  # thin or singular: the grid's own error, removed
    keep = expected > 8
    statistic = float(((counts - expected).square() / expected)[keep].sum())
    assert stats.chi2.sf(statistic, int(keep.sum()) - 1) > 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("prior", ALL, ids=repr)
def test_draws_are_made_on_the_generator_s_device(prior: Prior) -> None:
    generator = Generator("cuda").manual_seed(0)
    draws = prior.sample(20_000, generator)
    assert draws.device.type == prior.sample_batch(8, generator).device.type == "cuda"
    assert has_declared_moments(prior, draws.cpu())
    if prior.has_density:
        assert torch.allclose(prior.log_prob(draws).cpu(), prior.log_prob(draws.cpu()), rtol=1e-3, atol=1e-3)
