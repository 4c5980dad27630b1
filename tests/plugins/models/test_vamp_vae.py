"""The VampPrior: log p(z) by brute force, the frozen mixture, trained pseudo-inputs (arXiv:1705.07120)."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Generator, Tensor

from genbench.api import ModelContext, Noise
from genbench.errors import UnsupportedError
from genbench.nn import GaussianMixture
from genbench_mlp import MLP
from genbench_priors import Normal
from genbench_vamp_vae import VampVAE

SHAPE = (1, 6, 6)


def made(pseudo_inputs: int = 7, sigma: float = 1.0) -> VampVAE:
    torch.manual_seed(0)
    return VampVAE(ModelContext(SHAPE, 3, Normal(3, sigma=sigma), MLP(SHAPE)), pseudo_inputs=pseudo_inputs, spread=0.5)


def noise(seed: int = 0) -> Noise:
    return Noise(Generator().manual_seed(seed))


def brute_force(model: VampVAE, z: Tensor) -> Tensor:
    """log mean over k of q(z | u_k), by torch's own distributions, one pseudo-input after another."""
    logs = [model.posterior(u.clamp(0, 1)[None]).log_prob(z) for u in model.vamp_prior.pseudo_inputs]
    return torch.stack(logs).double().exp().mean(0).log().float()


def test_the_density_is_the_mean_of_the_encoder_s_at_the_pseudo_inputs() -> None:
    model = made()
    z = noise().normal(20, 3)
    assert torch.allclose(model.prior.log_prob(z), brute_force(model, z), atol=1e-4)


def test_the_frozen_prior_is_the_mixture_and_needs_no_encoder() -> None:
    model = made()
    frozen = model.prior.frozen()
    assert isinstance(frozen, GaussianMixture)
    z = noise().normal(20, 3)
    mean, log_variance = model.posterior_parameters(model.vamp_prior.pseudo_inputs.clamp(0, 1))
    assert torch.equal(frozen.components().means, mean)
    assert torch.equal(frozen.components().log_variances, log_variance)
    density = frozen.log_prob(z)
    assert torch.allclose(density, model.prior.log_prob(z))
    assert torch.equal(frozen.sample(20, noise()), model.prior.sample(20, noise()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    assert torch.equal(frozen.log_prob(z), density)
    assert not torch.allclose(model.prior.log_prob(z), density)


def test_batches_and_draws_have_the_moments_of_the_mixture() -> None:
    prior = made().prior
    with torch.no_grad():
        for z in (prior.sample(20_000, noise()), prior.sample_batch(20_000, noise(1))):
            assert ((z.mean(0) - prior.mean).abs() < 0.05 * prior.variance.sqrt()).all()
            assert (z.var(0) / prior.variance - 1).abs().max() < 0.06


def test_the_loss_is_the_negative_bound_and_reaches_every_pseudo_input() -> None:
    model, x = made(), torch.rand(16, *SHAPE, generator=Generator().manual_seed(0))
    (loss,) = model.training_step(x, torch.zeros(16, 3), noise(5))
    draw = model.draw(x, noise(5))
    log_q = model.posterior(x).log_prob(draw.code)
    bound = model.log_likelihood(x, draw.code) + brute_force(model, draw.code) - log_q
    assert float(loss.value.detach()) == pytest.approx(-float(bound.detach().mean()), rel=1e-4)
    (grad,) = torch.autograd.grad(loss.value, model.vamp_prior.pseudo_inputs)
    inside = (model.vamp_prior.pseudo_inputs > 0) & (model.vamp_prior.pseudo_inputs < 1)
    assert (grad[inside] != 0).float().mean() > 0.9
    assert not grad[~inside].any()  # the cut to [0, 1]


def test_pseudo_inputs_are_parameters_that_are_saved_and_copied_with_the_model() -> None:
    model, twin = made(), copy.deepcopy(made())
    assert "vamp_prior.pseudo_inputs" in model.state_dict()
    assert not [name for name in model.state_dict() if name.startswith("vamp_prior.") and "encode" in name]
    with torch.no_grad():
        twin.encoder[1].bias.add_(1.0)  # type: ignore[index, union-attr]
    z = noise().normal(4, 3)
    assert not torch.allclose(
        model.prior.log_prob(z), twin.prior.log_prob(z)
    )  # the copy's prior has the copy's encoder
    assert torch.allclose(twin.prior.log_prob(z), brute_force(twin, z), atol=1e-4)


def test_a_prior_that_would_not_be_used_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="leave --prior at normal"):
        made(sigma=2.0)
