"""The variational family: each objective against its paper's formula, computed independently, and a planted error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Independent, Normal, kl_divergence

from genbench.api import Loss, Model, ModelContext, Noise, Prior
from genbench.distances import mmd
from genbench.errors import UnsupportedError
from genbench.nn import GaussianDraw
from genbench_beta_tc_vae import BetaTCVAE, batch_densities
from genbench_dip_vae import DIPVAE
from genbench_factor_vae import FactorVAE, permute_dimensions
from genbench_infovae import InfoVAE
from genbench_iwae import IWAE
from genbench_mlp import MLP
from genbench_priors import Mixture, Sphere, Uniform
from genbench_priors import Normal as NormalPrior
from genbench_vae import VAE
from genbench_vmf_vae import VMFVAE

SHAPE = (1, 6, 6)
Make = Callable[..., Model]


def seeded(seed: int) -> Noise:
    return Noise(Generator().manual_seed(seed))


def build(make: Make, prior: Prior | None = None, **options: object) -> Model:
    """A model of float64, whose encoder's outputs are spread as after some training."""
    torch.manual_seed(7)
    prior = prior or NormalPrior(2)
    model = make(ModelContext(SHAPE, prior.latent_dim, prior, MLP(SHAPE, width=16)), **options).double()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    model.on_epoch_start(0)
    return model


def images(n: int = 12, seed: int = 3) -> Tensor:
    return torch.rand(n, *SHAPE, generator=Generator().manual_seed(seed), dtype=torch.float64)


def step(model: Model, x: Tensor, seed: int = 5) -> Loss:
    """The first loss of a step."""
    z = model.context.prior.sample(len(x), seeded(4)).double()
    return next(iter(model.training_step(x, z, seeded(seed))))


def value(model: Model, x: Tensor, seed: int = 5) -> Tensor:
    return step(model, x, seed).value.detach()


def gradients(model: Model, x: Tensor, seed: int = 5) -> list[Tensor]:
    return list(torch.autograd.grad(step(model, x, seed).value, model.autoencoder_parameters()))


def terms(model: Model, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The negative log-likelihood and the exact KL per dimension at the draw of seed 5, and the draw's codes."""
    q = model.posterior(x)
    code = q.base_dist.mean + q.base_dist.stddev * torch.randn(
        len(x), 2, generator=Generator().manual_seed(5), dtype=torch.float64
    )
    y = model.decode(code)
    fit = -(x * y.log() + (1 - x) * (1 - y).log()).sum((1, 2, 3))
    return fit.detach(), kl_divergence(q.base_dist, Normal(0.0, 1.0)).detach(), code.detach()


def holds(check: Callable[..., None], make: Make) -> bool:
    try:
        check(make)
    except AssertionError:
        return False
    return True


# ---------------------------------------------------------------- vae: beta, warm-up, free bits


def check_beta_weighs_the_divergence(make: Make) -> None:
    x = images()
    plain, strong = build(make), build(make, beta=4.0)
    fit, kl, _ = terms(plain, x)
    assert float(value(plain, x)) == pytest.approx(float(fit.mean() + kl.sum(1).mean()), rel=1e-12)
    assert float(value(strong, x)) == pytest.approx(float(fit.mean() + 4.0 * kl.sum(1).mean()), rel=1e-12)


def check_free_bits_are_of_the_batchs_mean(make: Make) -> None:
    x = images()
    fit, kl, _ = terms(build(make), x)
    least = float(kl.mean(0).mean())  # a dimension on either side, and images on either side of both
    assert (kl > least).any(0).all()
    assert (kl < least).any(0).all()
    expected = fit.mean() + kl.mean(0).clamp(min=least).sum()
    assert float(value(build(make, free_bits=least), x)) == pytest.approx(float(expected), rel=1e-12)


class Squared(VAE):
    """beta on the whole loss."""

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        for loss in super().training_step(x, z, noise):
            yield Loss(loss.optimizer, loss.value * self.strength)


class FreeForEachImage(VAE):
    """max(l, KL) of each image, then the mean: not the paper's."""

    def free(self, draw: GaussianDraw) -> Tensor:
        q = Normal(draw.mean, (0.5 * draw.log_variance).exp())
        return kl_divergence(q, Normal(0.0, 1.0)).clamp(min=self.free_bits).mean(0).sum()


@pytest.mark.parametrize(
    ("check", "planted"),
    [(check_beta_weighs_the_divergence, Squared), (check_free_bits_are_of_the_batchs_mean, FreeForEachImage)],
)
def test_vae_options(check: Callable[..., None], planted: Make) -> None:
    check(VAE)
    assert not holds(check, planted)


def test_beta_one_without_free_bits_is_the_vae_bit_for_bit() -> None:
    x, model = images(), build(VAE)
    draw = model.draw(x, seeded(5))
    plain = model.negative_log_likelihood(model.logits(draw.code), x).mean() + model.divergence(draw).mean()
    assert torch.equal(value(model, x), plain.detach())
    expected = torch.autograd.grad(plain, model.autoencoder_parameters())
    assert all(torch.equal(a, b) for a, b in zip(gradients(model, x), expected, strict=True))


def test_warm_up_is_linear_and_a_function_of_the_epoch_alone() -> None:
    model = build(VAE, beta=2.0, warmup=4)
    seen = {}
    for epoch in (9, 0, 1, 2, 4, 9):
        model.on_epoch_start(epoch)
        seen[epoch] = float(model.strength)
    assert seen == {0: 0.0, 1: 0.5, 2: 1.0, 4: 2.0, 9: 2.0}
    assert "strength" not in model.state_dict()


def test_free_bits_leave_no_gradient_below_them_and_need_a_normal_prior() -> None:
    x, free, without = images(), build(VAE, free_bits=100.0), build(VAE, beta=0.0)
    for a, b in zip(gradients(free, x), gradients(without, x), strict=True):
        assert torch.allclose(a, b, atol=1e-14)
    with pytest.raises(UnsupportedError, match="free-bits need a prior N"):
        build(VAE, Mixture(2), free_bits=0.1)


# ---------------------------------------------------------------- infovae


def check_is_the_vae_at_alpha_zero_and_weight_one(make: Make) -> None:
    x = images()
    assert torch.equal(value(build(make, alpha=0.0, weight=1.0), x), value(build(VAE), x))


class Lambda(InfoVAE):
    """lambda before the MMD, instead of alpha + lambda - 1."""

    def __init__(self, context: ModelContext, *, alpha: float = 1.0, weight: float = 10.0) -> None:
        super().__init__(context, alpha=alpha, weight=weight)
        self.mmd_weight = weight


def test_infovae_is_the_vae_at_alpha_zero_and_weight_one() -> None:
    check_is_the_vae_at_alpha_zero_and_weight_one(InfoVAE)
    assert not holds(check_is_the_vae_at_alpha_zero_and_weight_one, Lambda)


@pytest.mark.parametrize(("alpha", "weight"), [(1.0, 3.0), (0.5, 2.0), (-1.0, 5.0), (0.0, 0.0 + 1.5)])
@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_infovae_objective(alpha: float, weight: float, kernel: str) -> None:
    x, model = images(), build(InfoVAE, alpha=alpha, weight=weight, kernel=kernel)
    fit, kl, code = terms(model, x)
    z = model.prior.sample(len(x), seeded(4)).double()
    apart = mmd(code, z, kernel=kernel, scale=4.0)
    expected = fit.mean() + (1 - alpha) * kl.sum(1).mean() + (alpha + weight - 1) * apart
    assert float(value(model, x)) == pytest.approx(float(expected), rel=1e-10)
    assert ("kl" in step(model, x).logs) == (alpha != 1)


def test_infovae_needs_a_density_only_for_its_kl_and_never_ascends_the_mmd() -> None:
    build(InfoVAE, Uniform(2))
    with pytest.raises(UnsupportedError, match="Gaussian encoder of infovae"):
        build(InfoVAE, Uniform(2), alpha=0.9)
    with pytest.raises(UnsupportedError, match=r"weight of at least 1\.5"):
        build(InfoVAE, alpha=-0.5, weight=1.0)


# ---------------------------------------------------------------- iwae


class NormalByDensity(NormalPrior):
    """N(0, I) that does not say what it is, so that the VAE takes the estimate of the KL."""

    normal_sigma = None


def check_one_sample_is_the_vae(make: Make) -> None:
    x = images()
    one_sample, estimated = build(make, samples=1), build(VAE, NormalByDensity(2))
    assert float(value(one_sample, x)) == pytest.approx(float(value(estimated, x)), rel=1e-12)
    for a, b in zip(gradients(one_sample, x), gradients(estimated, x), strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    # The closed form of the KL is the expectation of its estimate, in value and in gradient.
    exact, gaps = build(VAE), []
    for seed in range(200):
        pairs = zip(gradients(one_sample, x, seed), gradients(exact, x, seed), strict=True)
        gaps.append(torch.cat([(a - b).flatten() for a, b in pairs]))
    all_gaps = torch.stack(gaps)
    error = all_gaps.std(0) / math.sqrt(len(gaps))
    assert bool((all_gaps.mean(0).abs() <= 5.0 * error + 1e-12).all())


def check_the_bound_rises_with_the_count(make: Make) -> None:
    x = images(3).repeat(700, 1, 1, 1)
    bounds = [-float(value(build(make, samples=k), x, seed=k)) for k in (1, 5, 50)]
    assert bounds[0] + 0.02 < bounds[1]
    assert bounds[1] + 0.02 < bounds[2]


def check_the_estimate_is_the_log_of_the_mean_weight(make: Make) -> None:
    x, k = images(4), 6
    model = build(make, samples=k)
    q = model.posterior(x).base_dist
    z = q.mean + q.stddev * torch.randn(k, 4, 2, generator=Generator().manual_seed(5), dtype=torch.float64)
    z, weights = z.detach(), torch.zeros(k, 4, dtype=torch.float64)
    for i in range(k):
        y = model.decode(z[i]).detach()
        likelihood = (x * y.log() + (1 - x) * (1 - y).log()).sum((1, 2, 3))
        prior = Normal(0.0, 1.0).log_prob(z[i]).sum(1)
        weights[i] = (likelihood + prior - q.log_prob(z[i]).sum(1)).exp().detach()
    assert float(value(model, x)) == pytest.approx(-float(weights.mean(0).log().mean()), rel=1e-10)


class MeanOfLogs(IWAE):
    """The mean of k bounds of the VAE."""

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        draw = self.draw(x, noise, self.samples)
        fit = self.negative_log_likelihood(self.logits(draw.code), x.repeat(self.samples, 1, 1, 1))
        yield Loss("autoencoder", (fit + draw.log_density - self.log_prior(draw.code)).mean())


class Transposed(IWAE):
    """The draws in the images' order: weights of one image are taken for those of others."""

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        draw = self.draw(x, noise, self.samples)
        fit = self.negative_log_likelihood(self.logits(draw.code), x.repeat(self.samples, 1, 1, 1))
        log_weights = -(fit + draw.log_density - self.log_prior(draw.code)).view(len(x), self.samples)
        yield Loss("autoencoder", math.log(self.samples) - torch.logsumexp(log_weights, 1).mean())


@pytest.mark.parametrize(
    ("check", "planted"),
    [
        (check_one_sample_is_the_vae, None),
        (check_the_bound_rises_with_the_count, MeanOfLogs),
        (check_the_estimate_is_the_log_of_the_mean_weight, MeanOfLogs),
        (check_the_estimate_is_the_log_of_the_mean_weight, Transposed),
    ],
)
def test_iwae(check: Callable[..., None], planted: Make | None) -> None:
    check(IWAE)
    assert planted is None or not holds(check, planted)


# ---------------------------------------------------------------- beta-tc-vae


def posterior_draw(mean: Tensor, variance: float, seed: int) -> GaussianDraw:
    epsilon = torch.randn(mean.shape, generator=Generator().manual_seed(seed), dtype=mean.dtype)
    return GaussianDraw(mean, torch.full_like(mean, math.log(variance)), epsilon, mean + math.sqrt(variance) * epsilon)


def correlated(n: int, rho: float, seed: int = 0) -> Tensor:
    """Gaussian points of variance 0.9 with a covariance of rho: with noise of 0.1 a law of variance 1."""
    root = torch.linalg.cholesky(torch.tensor([[0.9, rho], [rho, 0.9]], dtype=torch.float64))
    return torch.randn(n, 2, generator=Generator().manual_seed(seed), dtype=torch.float64) @ root.T


def test_the_decomposition_adds_up_to_the_divergence_at_each_draw() -> None:
    for prior in (NormalPrior(2), Mixture(2)):
        model = build(BetaTCVAE, prior)
        draw = model.draw(images(), seeded(5))
        whole = sum(model.decomposition(draw))
        assert torch.allclose(whole, draw.log_density - prior.log_prob(draw.code), atol=1e-12)


def check_densities_are_those_of_the_batchs_mixture(densities: Callable[[GaussianDraw], tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        draw = build(BetaTCVAE).draw(images(5), seeded(5))
        joint, marginals = densities(draw)
    deviation = (0.5 * draw.log_variance).exp()
    for i in range(5):
        each = [Normal(draw.mean[j], deviation[j]).log_prob(draw.code[i]).exp() for j in range(5)]
        assert float(joint[i]) == pytest.approx(math.log(sum(float(p.prod()) for p in each) / 5), abs=1e-12)
        assert torch.allclose(marginals[i], torch.stack(each).mean(0).log(), atol=1e-12)


def swapped(draw: GaussianDraw) -> tuple[Tensor, Tensor]:
    """The mean over draws in place of the mean over images."""
    q = Normal(draw.mean[None], (0.5 * draw.log_variance).exp()[None])
    pairs, log_n = q.log_prob(draw.code[:, None]), math.log(len(draw.code))
    return torch.logsumexp(pairs.sum(2), 0) - log_n, torch.logsumexp(pairs, 0) - log_n


def first_column(draw: GaussianDraw) -> tuple[Tensor, Tensor]:
    """rtqichen/beta-tcvae's stratified weights: that of an image itself lies in the first column, not the diagonal."""
    n, size = len(draw.code), 1000
    q = Normal(draw.mean[None], (0.5 * draw.log_variance).exp()[None])
    weights = torch.full((n, n), 1.0 / (n - 1), dtype=torch.float64)
    weights.view(-1)[::n] = 1.0 / size
    pairs = q.log_prob(draw.code[:, None])
    log_weights = weights.log()
    return torch.logsumexp(log_weights + pairs.sum(2), 1), torch.logsumexp(log_weights[..., None] + pairs, 1)


def test_minibatch_densities_are_those_of_the_batchs_mixture() -> None:
    check_densities_are_those_of_the_batchs_mixture(batch_densities)
    for planted in (swapped, first_column):
        with pytest.raises(AssertionError):
            check_densities_are_those_of_the_batchs_mixture(planted)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_terms_are_those_of_a_gaussian_whose_are_known(rho: float) -> None:
    draw = posterior_draw(correlated(1500, rho), 0.1, seed=1)
    information, correlation, dimensions = (float(part.mean()) for part in build(BetaTCVAE).decomposition(draw))
    assert information == pytest.approx(0.5 * math.log((1 - rho**2) / 0.1**2), abs=0.12)
    assert correlation == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.06)
    assert dimensions == pytest.approx(0.0, abs=0.06)


def test_beta_tc_vae_objective_is_the_vaes_and_a_part_of_the_total_correlation() -> None:
    x = images()
    assert torch.equal(value(build(BetaTCVAE, beta=1.0), x), value(build(VAE), x))
    model = build(BetaTCVAE, beta=6.0)
    with torch.no_grad():
        joint, marginals = batch_densities(model.draw(x, seeded(5)))
    expected = value(build(VAE), x) + 5.0 * (joint - marginals.sum(1)).mean()
    assert float(value(model, x)) == pytest.approx(float(expected), rel=1e-12)


# ---------------------------------------------------------------- factor-vae


def test_each_coordinate_is_permuted_by_itself() -> None:
    code = torch.arange(12.0).view(4, 3)
    counts = torch.zeros(3, 4, 4)
    joint = torch.zeros(4, 4)
    for seed in range(1500):
        permuted = permute_dimensions(code, seeded(seed))
        assert torch.equal(permuted.sort(0).values, code)
        rows = ((permuted - torch.arange(3.0)) / 3).long()  # the row each number came from
        counts[torch.arange(3)[None], torch.arange(4)[:, None], rows] += 1
        joint[rows[0, 0], rows[0, 1]] += 1
    assert float((counts / 1500 - 1 / 4).abs().max()) < 0.06
    assert float((joint / 1500 - 1 / 16).abs().max()) < 0.03


class OnePermutation(FactorVAE):
    """All coordinates permuted alike: the same law, and nothing to tell apart."""

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        code = super().sample_codes(x, noise)
        yield Loss("autoencoder", code.sum())
        rows = code.detach()[noise.permutation(len(code))]
        tell = torch.nn.functional.softplus
        yield Loss("critic", (tell(-self.critic_logits(code.detach())) + tell(self.critic_logits(rows))).mean())


def check_the_critic_learns_the_total_correlation(make: Make) -> None:
    """The encoder is replaced by given codes, whose total correlation is -log(1 - (8/9)^2) / 2 = 0.78."""
    model = build(make, width=32, depth=2, critic_rate=5e-3)
    config = model.configure_optimizers()["critic"]
    optimizer = config.optimizer(config.parameters)
    for k in range(120):
        means = correlated(128, 0.8, seed=k)
        spread = torch.full_like(means, math.log(1e-4))
        model.posterior_parameters = lambda x, given=(means, spread): given  # type: ignore[method-assign,misc]
        _, loss = model.training_step(images(128), means, seeded(k))
        optimizer.zero_grad()
        loss.value.backward(inputs=list(config.parameters))
        optimizer.step()
    estimate = float(model.critic_logits(correlated(2000, 0.8, seed=999)).detach().mean())
    assert 0.5 < estimate < 1.1


def test_the_critic_learns_the_total_correlation() -> None:
    check_the_critic_learns_the_total_correlation(FactorVAE)
    assert not holds(check_the_critic_learns_the_total_correlation, OnePermutation)


def test_factor_vae_objective() -> None:
    x = images()
    assert torch.equal(value(build(FactorVAE, gamma=0.0, width=16), x), value(build(VAE), x))
    model = build(FactorVAE, gamma=3.0, width=16)
    _, _, code = terms(model, x)
    probability = torch.sigmoid(model.critic_logits(code)).detach()
    expected = value(build(VAE), x) + 3.0 * (probability / (1 - probability)).log().mean()
    assert float(value(model, x)) == pytest.approx(float(expected), rel=1e-10)
    (_, critic) = model.training_step(x, code, seeded(5))
    assert all(g is None for g in torch.autograd.grad(critic.value, model.autoencoder_parameters(), allow_unused=True))


# ---------------------------------------------------------------- dip-vae


def check_penalty_is_the_papers(make: Make) -> None:
    for variant in ("i", "ii"):
        model = build(make, variant=variant, off_diagonal=2.0, diagonal=3.0)
        draw = model.draw(images(), seeded(5))
        mean, variance = draw.mean.detach().numpy(), draw.log_variance.exp().detach().numpy()
        c = np.cov(mean.T, bias=True) + (np.diag(variance.mean(0)) if variant == "ii" else 0.0)
        expected = 2.0 * (c[0, 1] ** 2 + c[1, 0] ** 2) + 3.0 * ((np.diag(c) - 1.0) ** 2).sum()
        assert float(model.penalty(draw).detach()) == pytest.approx(float(expected), rel=1e-10)


class SecondMoments(DIPVAE):
    """E mu mu^T without the product of the means."""

    def penalty(self, draw: GaussianDraw) -> Tensor:
        moments = draw.mean.T @ draw.mean / len(draw.mean)
        if self.variant == "ii":
            moments = moments + torch.diag(draw.log_variance.exp().mean(0))
        error = (moments.diagonal() - self.prior_variance).square().sum()
        return self.off_diagonal * 2.0 * moments[0, 1].square() + self.diagonal * error


def test_dip_vae_penalty() -> None:
    check_penalty_is_the_papers(DIPVAE)
    assert not holds(check_penalty_is_the_papers, SecondMoments)


def test_dip_vae_objective_and_its_scale() -> None:
    x = images()
    assert torch.equal(value(build(DIPVAE, off_diagonal=0.0, diagonal=0.0), x), value(build(VAE), x))
    model = build(DIPVAE)
    expected = value(build(VAE), x) + model.penalty(model.draw(x, seeded(5))).detach()
    assert float(value(model, x)) == pytest.approx(float(expected), rel=1e-12)
    assert build(DIPVAE, NormalPrior(2, sigma=2.0)).prior_variance == pytest.approx(4.0)
    with torch.no_grad():
        alone, twice = (model.penalty(model.draw(images, seeded(5))) for images in (x, x.repeat(2, 1, 1, 1)))
    assert float(twice) == pytest.approx(float(alone), rel=1e-12)


# ---------------------------------------------------------------- many models in one program


class Given(Noise):
    """Draws that were made before, one after another."""

    def __init__(self, draws: list[Tensor]) -> None:
        super().__init__(Generator())
        self.draws = list(draws)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.draws.pop(0)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.draws.pop(0)


class Recorded(Noise):
    """Keeps what it draws."""

    def __init__(self, seed: int) -> None:
        super().__init__(Generator().manual_seed(seed))
        self.draws: list[Tensor] = []

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        self.draws.append(super().normal(*shape, dtype=dtype))
        return self.draws[-1]

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        self.draws.append(super().uniform(*shape, dtype=dtype))
        return self.draws[-1]


@pytest.mark.parametrize("make", [VAE, IWAE, BetaTCVAE, FactorVAE, DIPVAE, VMFVAE])
def test_three_seeds_as_one_program_have_the_losses_of_each(make: Make) -> None:
    prior = Sphere(2) if make is VMFVAE else NormalPrior(2)
    x, z = images(), prior.sample(12, seeded(4)).double()
    models, alone, noises = [], [], [Recorded(seed) for seed in range(3)]
    for seed, noise in enumerate(noises):
        model = build(make, prior)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=Generator().manual_seed(seed)))
        models.append(model)
        alone.append([loss.value.detach() for loss in model.training_step(x, z, noise)])
    parameters, buffers = torch.func.stack_module_state(models)

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = models[0]

        def forward(self, draws: list[Tensor]) -> list[Tensor]:
            return [loss.value for loss in self.model.training_step(x, z, Given(draws))]

    def stacked(parameters: dict[str, Tensor], buffers: dict[str, Tensor], draws: list[Tensor]) -> list[Tensor]:
        state = {f"model.{name}": tensor for name, tensor in {**parameters, **buffers}.items()}
        return torch.func.functional_call(Step(), state, (draws,))

    draws = [torch.stack(each) for each in zip(*(noise.draws for noise in noises), strict=True)]
    together = torch.func.vmap(stacked)(parameters, buffers, draws)
    for k, losses in enumerate(alone):
        for all_runs, single in zip(together, losses, strict=True):
            assert float(all_runs[k].detach()) == pytest.approx(float(single), rel=1e-10)


def test_posterior_of_the_family_is_the_law_of_its_draws() -> None:
    model = build(IWAE)
    x = images(3)
    draw = model.draw(x, seeded(5), 4)
    law = model.posterior(x)
    assert isinstance(law, Independent)
    assert torch.allclose(law.log_prob(draw.code.view(4, 3, 2)).flatten(), draw.log_density, atol=1e-12)
