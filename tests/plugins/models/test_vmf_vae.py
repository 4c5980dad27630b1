"""The von Mises-Fisher law of `vmf-vae`: Bessel functions, KL, density, draws and gradient, each by other means."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, special
from torch import Generator, Tensor

from genbench.api import ModelContext, Noise
from genbench.errors import UnsupportedError
from genbench_mlp import MLP
from genbench_priors import Normal, Sphere, Uniform
from genbench_vmf_vae import (
    PROPOSALS,
    VMFVAE,
    VonMisesFisher,
    angle_slope,
    bessel,
    draw_angles,
    draw_directions,
    gauss_legendre,
    kl_to_uniform,
    log_area,
)

SHAPE = (1, 6, 6)
KAPPAS = torch.logspace(-3, 5, 60, dtype=torch.float64)
LAWS = [(2, 1.0), (2, 30.0), (3, 4.0), (8, 1.0), (8, 50.0), (64, 2.0), (64, 2000.0)]


def seeded(seed: int) -> Noise:
    return Noise(Generator().manual_seed(seed))


def repeated(kappa: float, n: int = 1) -> Tensor:
    return torch.full((n,), kappa, dtype=torch.float64)


def shape(angle: float, kappa: float, d: int) -> float:
    """The angle's density, unnormalized."""
    return math.exp(kappa * (math.cos(angle) - 1.0)) * math.sin(angle) ** (d - 2)


def over_angles(function: Callable[[float], float], near: float) -> float:
    """The integral from 0 to pi by adaptive quadrature of a function that is largest near an angle."""
    return integrate.quad(function, 0, math.pi, points=[near, min(3.0, 4 * near)], limit=500, epsabs=0.0)[0]


@pytest.mark.parametrize("d", [2, 3, 4, 8, 31, 64, 128, 300])
def test_bessel_functions_are_scipys(d: int) -> None:
    v, kappa = d / 2 - 1, KAPPAS.numpy()
    log_value, ratio = bessel(KAPPAS, d)
    scaled, above = special.ive(v, kappa), special.ive(v + 1, kappa)
    known = (scaled > 1e-250) & (above > 1e-250)
    assert known.sum() > 10
    expected = np.log(scaled[known]) + kappa[known] - v * np.log(kappa[known] / 2) + special.gammaln(v + 1)
    assert np.allclose(log_value.numpy()[known], expected, rtol=1e-7, atol=1e-7)
    assert np.allclose(ratio.numpy()[known], above[known] / scaled[known], rtol=1e-6)


@pytest.mark.parametrize("d", [2, 3, 8, 64, 300])
def test_derivatives_are_those_of_the_bessel_functions(d: int) -> None:
    kappa = KAPPAS.clone().requires_grad_()
    log_value, ratio = bessel(kappa, d)
    (slope,) = torch.autograd.grad(log_value.sum(), kappa, retain_graph=True)
    assert torch.allclose(slope, ratio.detach(), atol=1e-7)
    (slope,) = torch.autograd.grad(kl_to_uniform(kappa, d).sum(), kappa)
    a, k = ratio.detach(), KAPPAS
    small = k < 1e3  # the terms of the identity cancel where kappa is large, and (d - 1) / (2 kappa) is left
    assert torch.allclose(slope[small], (k * (1 - a.square()) - (d - 1) * a)[small], atol=1e-5, rtol=1e-4)
    assert torch.allclose(slope[-1], (d - 1) / (2 * k[-1]), rtol=1e-2)


def check_the_divergence_is_the_integral(divergence: Callable[[Tensor, int], Tensor]) -> None:
    for d, kappa in LAWS:
        near = math.atan2(math.sqrt(d), kappa)
        area = over_angles(lambda a, d=d: math.sin(a) ** (d - 2), math.pi / 2)
        mass = over_angles(lambda a, k=kappa, d=d: shape(a, k, d), near)
        mean = over_angles(lambda a, k=kappa, d=d: (math.cos(a) - 1.0) * shape(a, k, d), near) / mass
        expected = kappa * mean + math.log(area / mass)
        assert float(divergence(repeated(kappa), d)) == pytest.approx(expected, rel=1e-6)


def test_the_divergence_is_the_integral() -> None:
    check_the_divergence_is_the_integral(kl_to_uniform)
    with pytest.raises(AssertionError):  # the sign of the normalizer
        check_the_divergence_is_the_integral(lambda kappa, d: kappa * bessel(kappa, d)[1] + bessel(kappa, d)[0])
    assert float(kl_to_uniform(torch.zeros(1), 8)) == 0.0
    near, far = kl_to_uniform(torch.tensor([1e4]), 8), kl_to_uniform(repeated(1e4), 8)
    assert near.dtype == torch.float32
    assert float(near) == pytest.approx(float(far), rel=1e-6)


@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_the_density_integrates_to_one_over_the_sphere(radius: float) -> None:
    turns = torch.arange(2000, dtype=torch.float64) * (math.tau / 2000)
    circle = radius * torch.stack([turns.cos(), turns.sin()], 1)
    mu = torch.nn.functional.normalize(torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=torch.float64), dim=1)
    law = VonMisesFisher(mu, torch.tensor([3.0, 40.0], dtype=torch.float64), radius)
    density = law.log_prob(circle[:, None]).exp()
    assert density.shape == (2000, 2)
    assert torch.allclose(density.sum(0) * radius * math.tau / 2000, torch.ones(2, dtype=torch.float64), atol=1e-7)
    moment = (density[..., None] * circle[:, None]).sum(0) * radius * math.tau / 2000
    assert torch.allclose(moment, law.mean, atol=1e-7)
    # On the sphere in R^3 an area of 2 pi r^2 du lies at the height u r.
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(200))
    points = radius * torch.stack([(1 - nodes.square()).sqrt(), torch.zeros(200), nodes], 1).double()
    law = VonMisesFisher(torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64), repeated(20.0), radius)
    mass = (law.log_prob(points[:, None]).exp()[:, 0] * weights).sum() * math.tau * radius**2
    assert float(mass) == pytest.approx(1.0, abs=1e-6)
    assert log_area(3) == pytest.approx(math.log(4 * math.pi))


@pytest.mark.parametrize(("d", "kappa"), LAWS)
def test_angles_follow_their_law(d: int, kappa: float) -> None:
    n = 8_000
    angles = draw_angles(repeated(kappa, n), d, seeded(1)).sort().values.numpy()
    grid = np.linspace(0.0, math.pi, 20_001)
    density = np.exp(kappa * (np.cos(grid) - 1.0)) * np.sin(grid) ** (d - 2)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    expected = np.interp(angles, grid, mass / mass[-1])
    distance = np.abs(expected - (np.arange(n) + 0.5) / n).max()
    assert distance < 2.2 / math.sqrt(n)  # Kolmogorov: exceeded with a probability of 1.2e-4


def test_all_proposals_are_rejected_as_rarely_as_it_says() -> None:
    worst = 1.0
    t = np.linspace(0.0, math.pi, 5_001)
    for d in (2, 3, 4, 8, 64, 256):
        base = np.sin(t) ** (d - 2)
        for kappa in np.logspace(-2, 6, 25):
            b = (d - 1) / (2 * kappa + math.sqrt(4 * kappa**2 + (d - 1) ** 2))
            a = 2 * np.arctan2(math.sqrt(b) * np.sin(t / 2), np.cos(t / 2))
            log_ratio = kappa * np.cos(a) + (d - 1) * np.log(2 * b + (1 - b) * 2 * np.sin(a / 2) ** 2)
            worst = min(worst, float((base * np.exp(log_ratio - log_ratio.max())).sum() / base.sum()))
    assert worst > 0.65
    assert (1 - worst) ** PROPOSALS < 6e-8


@pytest.mark.parametrize(("d", "kappa"), [*LAWS, (2, 1e4), (3, 0.01), (256, 10.0), (256, 1e4)])
def test_the_slope_of_an_angle_keeps_its_distribution_function(d: int, kappa: float) -> None:
    """Against the difference quotient of F, by quadrature on a fine grid."""
    angles = draw_angles(repeated(kappa, 40), d, seeded(2))
    slope = angle_slope(angles, repeated(kappa, 40), d, gauss_legendre())
    grid, h = np.linspace(0.0, math.pi, 400_001), 1e-4 * kappa
    sines = (d - 2) * np.log(np.maximum(np.sin(grid), 1e-300))

    def distribution(k: float) -> tuple[np.ndarray, np.ndarray]:
        density = np.exp(k * (np.cos(grid) - 1.0) + sines - (sines + k * (np.cos(grid) - 1.0)).max())
        mass = integrate.cumulative_simpson(density, x=grid, initial=0.0)
        return np.interp(angles, grid, mass / mass[-1]), np.interp(angles, grid, density / mass[-1])

    density = distribution(kappa)[1]
    expected = -(distribution(kappa + h)[0] - distribution(kappa - h)[0]) / (2 * h) / density
    assert np.allclose(slope.numpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def check_the_gradient_is_without_bias(draw: Callable[[Tensor, Tensor, Noise], Tensor]) -> None:
    """Of E f(z) for f = (z_1 + 2)^2, in kappa and in mu."""
    n, d, kappa = 30_000, 3, 5.0
    concentration = repeated(kappa, n).requires_grad_()
    start = torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64)
    mu = start.expand(n, 3).clone().requires_grad_()
    f = (draw(mu, concentration, seeded(3))[:, 0] + 2.0).square()
    in_kappa, in_mu = torch.autograd.grad(f.sum(), (concentration, mu))
    a, error = 1 / math.tanh(kappa) - 1 / kappa, math.sqrt(n)
    slope = 1 - a**2 - (d - 1) / kappa * a  # of a in kappa; E z z^T = (1 - 3 a / kappa) mu mu^T + a / kappa I for d = 3
    share = a / kappa
    slope_share = slope / kappa - a / kappa**2
    expected = 4 * slope * 0.6 + slope_share - 3 * slope_share * 0.6**2
    assert float(in_kappa.mean()) == pytest.approx(expected, abs=4.5 * float(in_kappa.std()) / error)
    turn = torch.tensor([0.8, -0.6, 0.0], dtype=torch.float64)  # a direction along the sphere at mu
    along = (in_mu * turn).sum(1)
    expected = 4 * a * 0.8 + (1 - 3 * share) * 2 * 0.6 * 0.8
    assert float(along.mean()) == pytest.approx(expected, abs=4.5 * float(along.std()) / error)


def test_the_gradient_is_without_bias() -> None:
    check_the_gradient_is_without_bias(lambda mu, k, noise: draw_directions(mu, k, noise, gauss_legendre()))
    with pytest.raises((AssertionError, RuntimeError)):  # a draw that does not depend on kappa
        check_the_gradient_is_without_bias(
            lambda mu, k, noise: draw_directions(mu, k.detach(), noise, gauss_legendre()) + 0.0 * k[:, None]
        )


def test_draws_lie_on_the_sphere_around_their_direction() -> None:
    torch.manual_seed(7)
    model = VMFVAE(ModelContext(SHAPE, 3, Sphere(3, radius=2.0), MLP(SHAPE, width=16)))
    x = torch.rand(4, *SHAPE, generator=Generator().manual_seed(0))
    codes = model.sample_codes(x.repeat(3000, 1, 1, 1), seeded(0)).detach()
    assert torch.allclose(codes.norm(dim=1), torch.full((12_000,), 2.0), atol=1e-5)
    law = model.posterior(x)
    assert torch.allclose(codes.view(3000, 4, 3).mean(0), law.mean.detach(), atol=0.12)
    assert torch.allclose(model.encode(x).norm(dim=1), torch.full((4,), 2.0), atol=1e-5)
    assert law.log_prob(codes[:8].view(2, 4, 3).view(8, 1, 3)).shape == (8, 4)


@pytest.mark.parametrize("raw", [1e4, -1e4])
def test_extreme_outputs_of_the_encoder_stay_finite(raw: float) -> None:
    torch.manual_seed(7)
    model = VMFVAE(ModelContext(SHAPE, 8, Sphere(8), MLP(SHAPE, width=16)))
    with torch.no_grad():
        list(model.encoder.parameters())[-1][-1] = raw
    x = torch.rand(4, *SHAPE, generator=Generator().manual_seed(0))
    (loss,) = model.training_step(x, x, seeded(0))
    gradients = torch.autograd.grad(loss.value, list(model.parameters()))
    assert torch.isfinite(loss.value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_it_refuses_every_law_but_the_uniform_one_on_a_sphere() -> None:
    for prior in (Normal(3), Uniform(3)):
        with pytest.raises(UnsupportedError, match="states no sphere_radius: take the prior sphere") as refusal:
            VMFVAE(ModelContext(SHAPE, 3, prior, MLP(SHAPE, width=16)))
        assert "\n" not in str(refusal.value)
