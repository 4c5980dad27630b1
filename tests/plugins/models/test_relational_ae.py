"""The relational autoencoder: its objective, its mixture, and what it cannot tell apart."""

from __future__ import annotations

import pytest
import torch
from scipy import integrate

from genbench.distances import power_spherical
from genbench_relational_ae import EqualMixture, RelationalAE
from support.models import batch, build, losses, seeded, squares, train


def order_cost(u: torch.Tensor, v: torch.Tensor, beta: float) -> float:
    relations = ((u[:, None] - u).square() - (v[:, None] - v).square()).square().mean()
    return float((1 - beta) * (u - v).square().mean() + beta * relations)


@pytest.mark.parametrize("learn_prior", [True, False])
def test_objective(learn_prior: bool) -> None:
    model = build(RelationalAE, learn_prior=learn_prior, weight=3.0, beta=0.4, projections=7)
    x, z = batch(model)
    code, noise = model.encode(x).detach(), seeded(5)
    if learn_prior:
        z = model.mixture.sample_batch(len(x), noise).detach()
    theta = power_spherical(model.location.detach(), 10, 7, noise)
    each = []
    for t in theta.double():
        u, v = ((points.double() @ t).sort().values for points in (code, z))
        each.append(min(order_cost(u, v, 0.4), order_cost(u, v.flip(0), 0.4)))
    distance = sum(each) / 7
    both = losses(model, x, batch(model)[1])
    assert float(both["autoencoder"].value.detach()) == pytest.approx(squares(model, x) + 3.0 * distance, rel=1e-4)
    assert float(both["slices"].value.detach()) == pytest.approx(-distance, rel=1e-4)


def test_equal_mixtures_have_distance_zero() -> None:
    model = build(RelationalAE)
    draws = model.mixture.sample(400, seeded(0)).detach()
    theta = power_spherical(model.location.detach(), 10, 50, seeded(1))
    assert float(model.discrepancy(draws, draws.flip(0), theta).detach()) == pytest.approx(0.0, abs=1e-5)
    again = model.mixture.sample(400, seeded(2)).detach()
    moved = model.mixture.sample(400, seeded(2)).detach() + 3.0
    near, far = (float(model.discrepancy(draws, points, theta).detach()) for points in (again, moved))
    assert near < 0.3 * far


def test_the_mixture_is_trained_and_is_the_prior() -> None:
    model = build(RelationalAE)
    x, z = batch(model, n=64)
    assert model.prior is model.mixture
    values = [float(loss.logs["sliced-fgw"]) for loss in train(model, 200, x, z) if loss.optimizer == "autoencoder"]
    assert sum(values[-20:]) < 0.5 * sum(values[:20])
    fixed = build(RelationalAE, learn_prior=False, kappa=0)
    assert fixed.prior is fixed.context.prior
    assert list(fixed.configure_optimizers()) == ["autoencoder"]


def test_the_mixture_has_the_density_and_the_moments_of_its_draws() -> None:
    torch.manual_seed(0)
    mixture = EqualMixture(2, 3)
    draws = mixture.sample(50_000, seeded(0)).detach()
    assert torch.allclose(draws.mean(0), mixture.mean, atol=0.05)
    assert torch.allclose(draws.var(0), mixture.variance, rtol=0.05)

    def density(y: float, x: float) -> float:
        with torch.no_grad():
            return float(mixture.log_prob(torch.tensor([[x, y]])).exp())

    grid = torch.linspace(-12, 12, 600)
    points = torch.cartesian_prod(grid, grid)
    total = mixture.log_prob(points).detach().exp().sum() * (24 / 599) ** 2
    assert float(total) == pytest.approx(1.0, rel=1e-3)
    inside, _ = integrate.dblquad(density, -1, 1, -1, 1, epsabs=1e-3)
    assert float((draws.abs() < 1).all(1).double().mean()) == pytest.approx(inside, abs=0.01)


def test_a_batch_has_the_components_in_equal_numbers() -> None:
    torch.manual_seed(0)
    mixture = EqualMixture(2, 4)
    with torch.no_grad():
        mixture.means.copy_(100.0 * torch.arange(4.0)[:, None].expand(4, 2))
    drawn = (mixture.sample_batch(10, seeded(0)).detach()[:, 0] / 100.0).round().long()
    assert sorted(torch.bincount(drawn, minlength=4).tolist()) == [2, 2, 3, 3]
