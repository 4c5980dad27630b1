"""Learned priors: their densities by independent computations, their draws, moments, and who may train them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from genbench.api import ModelContext, Noise, Prior
from genbench.experiment.plan import Plan, PlanError
from genbench.nn import GaussianMixture
from genbench_latent import LatentSW
from genbench_learned import Flow, LearnedMixture
from genbench_mlp import MLP
from genbench_vae import VAE
from support.latents import Codes, drawn, measured

LEARNED = [LearnedMixture, Flow]
SIDE, REACH = 300, 7.0


def learned(make: Callable[..., Prior], d: int = 2, steps: int = 40) -> Prior:
    """Fitted to a crescent, so that no parameter is at its start."""
    torch.manual_seed(0)
    prior = make(d)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.03)
    for step in range(steps):
        z = torch.randn(256, d, generator=Generator().manual_seed(step))
        z[:, 0] += 0.7 * z[:, -1] ** 2
        optimizer.zero_grad()
        (-prior.log_prob(z).mean()).backward()
        optimizer.step()
    return prior.frozen()


def grid() -> tuple[Tensor, float]:
    """The middles of square cells, and the area of one."""
    line = (torch.arange(SIDE) + 0.5) / SIDE * 2 * REACH - REACH
    return torch.cartesian_prod(line, line), (2 * REACH / SIDE) ** 2


@pytest.mark.parametrize("make", LEARNED)
def test_the_density_integrates_to_one_and_has_the_mass_of_the_draws(make: Callable[..., Prior]) -> None:
    prior = learned(make)
    z, area = grid()
    density = (prior.log_prob(z) + math.log(area)).exp().double()
    assert float(density.sum()) == pytest.approx(1.0, abs=0.01)
    draws = drawn(prior, 20_000)
    for line in (torch.tensor([1.0, 0.0]), torch.tensor([0.6, -0.8])):
        for offset in (-1.0, 0.0, 0.7):
            mass = float(density[z @ line > offset].sum())
            share = float((draws @ line > offset).double().mean())
            assert share == pytest.approx(mass, abs=5 * math.sqrt(0.25 / len(draws)) + 0.005)


@pytest.mark.parametrize("make", LEARNED)
@pytest.mark.parametrize("d", [1, 3, 16])
def test_moments_are_those_of_the_draws_and_block_size_changes_nothing(make: Callable[..., Prior], d: int) -> None:
    prior = learned(make, d, steps=5)
    draws = drawn(prior, 20_000)
    spread = prior.variance.sqrt()
    assert ((draws.mean(0) - prior.mean).abs() < 0.06 * spread).all()
    assert (draws.var(0) / prior.variance - 1.0).abs().max() < 0.12
    assert torch.allclose(
        prior.log_prob(draws[:50]), torch.cat([prior.log_prob(row[None]) for row in draws[:50]]), atol=1e-4
    )


def test_the_mixture_is_scipy_s_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = learned(LearnedMixture, 3)
    assert isinstance(prior, GaussianMixture)
    mixture = prior.components()
    z = drawn(prior, 50)
    density = sum(
        float(w.exp()) * stats.multivariate_normal(m.numpy(), v.exp().diag().numpy()).pdf(z.numpy())
        for m, v, w in zip(mixture.means, mixture.log_variances.double(), mixture.log_weights, strict=True)
    )
    assert torch.allclose(prior.log_prob(z).double().exp(), torch.as_tensor(density), rtol=1e-3)
    whole = prior.log_prob(z)
    monkeypatch.setattr("genbench.nn.priors.MIXTURE_ELEMENTS", 90)
    assert torch.allclose(prior.log_prob(z), whole)


@pytest.mark.parametrize("make", LEARNED)
def test_a_vae_trains_saves_and_loads_its_prior(make: Callable[..., Prior]) -> None:
    def model() -> VAE:
        return VAE(ModelContext((1, 8, 8), 2, make(2), MLP((1, 8, 8))))

    torch.manual_seed(0)
    first, second = model(), model()
    names = {name for name, _ in first.named_parameters() if name.startswith("learned_prior.")}
    assert len(names) == len(list(first.prior.parameters())) > 0
    before = {name: p.clone() for name, p in first.named_parameters()}
    (config,) = first.configure_optimizers().values()
    optimizer = config.optimizer(config.parameters)
    noise = Noise(Generator().manual_seed(0))
    for loss in first.training_step(torch.rand(16, 1, 8, 8), torch.zeros(16, 2), noise):
        loss.value.backward()
        optimizer.step()
    moved = {name for name, p in first.named_parameters() if not torch.equal(p, before[name])}
    assert names <= moved
    second.load_state_dict(first.state_dict())
    assert torch.equal(drawn(first.prior, 9), drawn(second.prior, 9))


def test_frozen_priors_keep_their_moments_and_do_not_follow_the_training() -> None:
    prior = LearnedMixture(2)
    frozen = prior.frozen()
    flow = Flow(2).frozen()
    assert flow.mean is flow.mean
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(1.0)
    assert not torch.equal(drawn(prior, 5), drawn(frozen, 5))


REFUSED = [
    (("swae",), {}, "the model 'swae' does not train the parameters of the prior 'flow'"),
    (("vae", "wae-mmd"), {}, "the model 'wae-mmd' does not train"),
    (("vamp-vae",), {}, "the model 'vamp-vae' learns its prior"),
    (("vae",), {"controls": ("pca",)}, "a control has no training in which the prior 'flow' could be learned"),
]


@pytest.mark.parametrize(("models", "fields", "words"), REFUSED, ids=[words for *_, words in REFUSED])
def test_what_trains_no_prior_is_refused_before_training(
    planned: Callable[..., Plan], models: tuple[str, ...], fields: dict[str, tuple[str, ...]], words: str
) -> None:
    with pytest.raises(PlanError) as refusal:
        planned(*models, priors=("flow",), **fields)
    (problem,) = refusal.value.problems
    assert words in problem


def test_the_latent_fit_of_two_trainings_has_one_protocol_and_two_nulls(tmp_path: Path) -> None:
    metric = LatentSW(n=40, blocks=5, replicates=2)
    keys, made = set(), []
    for steps in (5, 20):
        prior = learned(LearnedMixture, 2, steps)
        evaluation = Codes(drawn(prior, 40), prior, tmp_path)
        row = measured(metric, evaluation)["excess"]
        assert "LearnedMixture(latent_dim=2, count=10) learned in training" in row.protocol.detail
        keys.add(row.protocol.key)
        made += [key for key in evaluation.made if key.startswith("null")]
    assert len(keys) == 1
    assert len(set(made)) == 2
