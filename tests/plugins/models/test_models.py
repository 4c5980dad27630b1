"""The bundled models: objectives against independent arithmetic, and errors of public code, each planted once."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from genbench.api import Loss, Model, ModelContext, Network, Noise, Prior
from genbench.distances import WAE_SCALES, mmd, random_projections
from genbench.errors import UnsupportedError
from genbench.experiment.build import create_model
from genbench.experiment.plan import Plan, PlanError
from genbench.nn import GaussianDraw, cross_entropy, squared_error
from genbench.registry.loader import Registry, load
from genbench_ae import AE
from genbench_beta_tc_vae import BetaTCVAE
from genbench_cwae import CWAE
from genbench_dip_vae import DIPVAE
from genbench_factor_vae import FactorVAE
from genbench_infovae import InfoVAE
from genbench_iwae import IWAE
from genbench_mlp import MLP
from genbench_plane import Bowl, Circle, Disk, Ring
from genbench_priors import Mixture, Normal, Sphere, Uniform
from genbench_rae import RAE
from genbench_relational_ae import RelationalAE
from genbench_sinkhorn_ae import SinkhornAE
from genbench_swae import SWAE
from genbench_vae import VAE
from genbench_vamp_vae import VampVAE
from genbench_vmf_vae import VMFVAE
from genbench_vq_vae import VQVAE
from genbench_wae_gan import WAEGAN
from genbench_wae_mmd import WAEMMD

Make = Callable[..., Model]
Check = Callable[..., None]
Floats = NDArray[np.float64]

SHAPE = (1, 6, 6)
PRIORS = {
    "normal": Normal(2),
    "wide": Normal(2, sigma=2.0),
    "uniform": Uniform(2),
    "sphere": Sphere(2),
    "mixture": Mixture(2),
    "ring": Ring(2),
    "circle": Circle(2),
    "disk": Disk(2),
    "bowl": Bowl(2),
}
MODELS = {
    "ae": (AE, {}),
    "cwae": (CWAE, {}),
    "swae": (SWAE, {}),
    "swae-notebooks": (SWAE, {"cost": "bce-l1", "weight": 10.0, "annealing": 1.1, "optimizer": "rmsprop"}),
    "swae-p1": (SWAE, {"p": 1.0}),
    "swae-max": (SWAE, {"slices": "max"}),
    "swae-distributional": (SWAE, {"slices": "distributional"}),
    "swae-energy": (SWAE, {"slices": "energy"}),
    "swae-circular": (SWAE, {"function": "circular"}),
    "swae-cubic": (SWAE, {"function": "cubic"}),
    "swae-max-cubic": (SWAE, {"slices": "max", "function": "cubic"}),
    "wae-mmd": (WAEMMD, {}),
    "wae-mmd-rbf": (WAEMMD, {"kernel": "rbf"}),
    "wae-gan": (WAEGAN, {}),
    "wae-gan-density": (WAEGAN, {"log_density": True}),
    "rae": (RAE, {}),
    "rae-gradient": (RAE, {"regularizer": "gradient"}),
    "rae-spectral": (RAE, {"regularizer": "spectral"}),
    "sinkhorn-ae": (SinkhornAE, {}),
    "relational-ae": (RelationalAE, {}),
    "relational-ae-fixed": (RelationalAE, {"learn_prior": False, "kappa": 0}),
    "vq-vae": (VQVAE, {}),
    "vq-vae-ema": (VQVAE, {"codebook": "ema"}),
    "vae": (VAE, {}),
    "vae-gaussian": (VAE, {"likelihood": "gaussian"}),
    "vae-learned": (VAE, {"likelihood": "learned-sigma"}),
    "infovae": (InfoVAE, {}),
    "infovae-kl": (InfoVAE, {"alpha": 0.5, "likelihood": "learned-sigma"}),
    "iwae": (IWAE, {"likelihood": "learned-sigma"}),
    "beta-tc-vae": (BetaTCVAE, {"likelihood": "learned-sigma"}),
    "factor-vae": (FactorVAE, {"likelihood": "learned-sigma", "width": 16}),
    "dip-vae": (DIPVAE, {}),
    "dip-vae-ii": (DIPVAE, {"variant": "ii", "likelihood": "learned-sigma"}),
    "vamp-vae": (VampVAE, {"likelihood": "learned-sigma", "pseudo_inputs": 5, "start": 0.5}),
    "vmf-vae": (VMFVAE, {"likelihood": "learned-sigma"}),
}
NEED_DENSITY = {
    "wae-gan-density",
    "vae",
    "vae-gaussian",
    "vae-learned",
    "infovae-kl",
    "iwae",
    "beta-tc-vae",
    "factor-vae",
}
NEED_DENSITY |= {"dip-vae", "dip-vae-ii"}
NEED_SPHERE = {"vmf-vae"}
LEARN_THEIRS = {"vamp-vae", "vq-vae", "vq-vae-ema", "relational-ae"}
POSITIVE_EVERYWHERE = {"normal", "wide", "mixture", "ring"}


REGISTERED = load([]).names("model")
ON_SPHERE = {"vmf-vae"}
"""Registered models that refuse the normal prior, and take the sphere."""

SIZES: dict[tuple[int, int, int], tuple[str, str]] = {
    (1, 28, 28): ("conv", "conv.width=4"),
    (3, 32, 32): ("conv", "conv.width=4"),
    (3, 64, 64): ("resnet", "resnet.width=8"),
}
"""A network for each shape of images, and an option that makes it small."""

FEWER = {"vamp-vae": ("vamp-vae.pseudo-inputs=3",)}
"""Options without which a step takes seconds."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors are tiny here, and threads that wait for each other are most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Normed(Network):
    """A tiny network with batch norm, which behaves differently in training and in use."""

    shape = SHAPE

    def encoder(self, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))

    def decoder(self, latent_dim: int) -> nn.Module:
        layers = nn.Linear(latent_dim, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 36), nn.Unflatten(1, SHAPE)
        return nn.Sequential(*layers)


def accepted(model: str, prior: str) -> bool:
    if model in NEED_SPHERE:
        return prior == "sphere"
    if model in LEARN_THEIRS:
        return prior == "normal"
    return model not in NEED_DENSITY or prior in POSITIVE_EVERYWHERE


PAIRS = [(model, prior) for model in MODELS for prior in PRIORS if accepted(model, prior)]
REFUSALS = [(model, prior) for model in MODELS for prior in PRIORS if not accepted(model, prior)]


def seeded(seed: int) -> Noise:
    return Noise(Generator().manual_seed(seed))


def build(make: Make, prior: Prior | None = None, network: Network | None = None, **options: object) -> Model:
    torch.manual_seed(7)
    prior = (Sphere(2) if make is VMFVAE else Normal(2)) if prior is None else prior
    return make(ModelContext(SHAPE, prior.latent_dim, prior, network or MLP(SHAPE, width=16)), **options)


def batch(model: Model, n: int = 12, seed: int = 3) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, *SHAPE, generator=seeded(seed).generator)
    return x, model.prior.sample(n, seeded(seed + 1))


def shaped_batch(model: Model, shape: tuple[int, int, int], n: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, *shape, generator=seeded(3).generator)
    return x, model.context.prior.sample(n, seeded(4))


def losses(model: Model, x: Tensor, z: Tensor, seed: int = 5) -> dict[str, Tensor]:
    """The loss of each optimizer, without any step between them."""
    return {loss.optimizer: loss.value for loss in model.training_step(x, z, seeded(seed))}


def objectives(model: Model, x: Tensor, z: Tensor, seed: int = 5) -> dict[str, Tensor]:
    return {optimizer: loss.detach() for optimizer, loss in losses(model, x, z, seed).items()}


def objective(model: Model, x: Tensor, z: Tensor, seed: int = 5) -> Tensor:
    return objectives(model, x, z, seed)["autoencoder"]


def train(model: Model, steps: int, x: Tensor, z: Tensor) -> Iterator[Loss]:
    """The training loop in ten lines; yields each loss after its optimizer's step."""
    configs = model.configure_optimizers()
    optimizers = {name: config.optimizer(config.parameters) for name, config in configs.items()}
    for step in range(steps):
        for loss in model.training_step(x, z, seeded(step)):
            optimizers[loss.optimizer].zero_grad()
            loss.value.backward(inputs=list(configs[loss.optimizer].parameters))
            optimizers[loss.optimizer].step()
            yield loss


# ---------------------------------------------------------------- every model under every prior


@pytest.mark.parametrize(("model", "prior"), PAIRS)
def test_trains_under_every_prior_that_it_accepts(model: str, prior: str) -> None:
    make, options = MODELS[model]
    trained = build(make, PRIORS[prior], **options)
    trained.on_epoch_start(0)
    before = copy.deepcopy(trained.state_dict())
    for loss in train(trained, 3, *batch(trained)):
        assert loss.value.shape == ()
        assert torch.isfinite(loss.value)
        assert all(term.shape == () and not term.requires_grad for term in loss.logs.values())
        gradients = [parameter.grad for parameter in trained.configure_optimizers()[loss.optimizer].parameters]
        assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
        assert all(gradient.any() for gradient in gradients)
    assert all(not torch.equal(before[name], value) for name, value in trained.state_dict().items())


@pytest.mark.parametrize(("model", "prior"), REFUSALS)
def test_refuses_at_construction_with_the_reason(model: str, prior: str) -> None:
    make, options = MODELS[model]
    lack = f"{type(PRIORS[prior]).__name__} (does not state|states no)"
    reason = f"'{model.removesuffix('-ema')}' learns its prior" if model in LEARN_THEIRS else lack
    with pytest.raises(UnsupportedError, match=reason) as refusal:
        build(make, PRIORS[prior], **options)
    assert "\n" not in str(refusal.value)


def test_every_registered_model_is_tried_here() -> None:
    registry = load([])
    assert {registry.get("model", name).spec.factory for name in REGISTERED} == {make for make, _ in MODELS.values()}


@pytest.mark.parametrize("model", REGISTERED)
def test_every_registered_prior_is_refused_in_one_line_or_trained(
    model: str, registry: Registry, planned: Callable[..., Plan]
) -> None:
    fields = {"priors": registry.names("prior"), "settings": ("mlp.width=8",)}
    problems: tuple[str, ...] = ()
    try:
        study = planned(model, **fields)
    except PlanError as refusal:  # an UnsupportedError
        problems = refusal.problems
        study = planned(model, **fields, skip_impossible=True)
    assert not any("\n" in problem for problem in problems)
    for run in study.runs:
        trained = create_model(registry, run, SHAPE)
        trained.on_epoch_start(0)
        assert all(torch.isfinite(loss.value) for loss in train(trained, 2, *shaped_batch(trained, SHAPE)))


@pytest.mark.parametrize("shape", SIZES, ids=["28-grey", "32-color", "64-color"])
@pytest.mark.parametrize("model", REGISTERED)
def test_every_registered_model_trains_at_every_usual_size(
    model: str, shape: tuple[int, int, int], registry: Registry, planned: Callable[..., Plan]
) -> None:
    network, small = SIZES[shape]
    prior = "sphere" if model in ON_SPHERE else "normal"
    sizes = (small, f"dots.size={shape[1]}", f"dots.channels={shape[0]}", *FEWER.get(model, ()))
    run = planned(model, priors=(prior,), network=network, latent_dims=(4,), settings=sizes).runs[0]
    trained = create_model(registry, run, shape)
    assert all(torch.isfinite(loss.value) for loss in train(trained, 2, *shaped_batch(trained, shape)))
    assert trained.decode(trained.prior.sample(3, seeded(0))).shape == (3, *shape)


@pytest.mark.parametrize("model", MODELS)
def test_optimizers_are_disjoint_and_together_all(model: str) -> None:
    make, options = MODELS[model]
    trained = build(make, **options)
    owned = [id(parameter) for config in trained.configure_optimizers().values() for parameter in config.parameters]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(parameter) for parameter in trained.parameters()}


@pytest.mark.parametrize("model", MODELS)
def test_learns_to_reconstruct(model: str) -> None:
    make, options = MODELS[model]
    trained = build(make, **options)
    x, z = batch(trained, n=4)
    fits = [loss.logs["reconstruction"] for loss in train(trained, 100, x, z) if loss.optimizer == "autoencoder"]
    assert fits[-1] < fits[0]


@pytest.mark.parametrize("model", MODELS)
def test_is_built_without_memory_while_planning(model: str) -> None:
    make, options = MODELS[model]
    with torch.device("meta"):
        planned = build(make, **options)
    assert all(parameter.is_meta for parameter in planned.parameters())


@pytest.mark.parametrize("model", MODELS)
def test_keeps_float64(model: str) -> None:
    make, options = MODELS[model]
    trained = build(make, **options).double()
    x, z = batch(trained)
    assert all(loss.dtype == torch.float64 for loss in losses(trained, x.double(), z.double()).values())


def test_on_epoch_start_is_the_notebooks_schedule_and_a_function_of_the_epoch_alone() -> None:
    model = build(SWAE, weight=10.0, annealing=1.1)
    seen = {}
    for epoch in (29, 0, 10, 11, 29):
        model.on_epoch_start(epoch)
        seen[epoch] = float(model.strength)
    assert seen[0] == seen[10] == 10.0
    assert seen[11] == pytest.approx(11.0)
    assert seen[29] == pytest.approx(61.2, abs=0.05)
    assert "strength" not in model.state_dict()


def test_rates_follow_the_published_schedule() -> None:
    for model in (build(WAEMMD), build(WAEGAN)):
        for config in model.configure_optimizers().values():
            assert [config.schedule(epoch) for epoch in (0, 29, 30, 49, 50, 99, 100)] == [
                1,
                1,
                0.5,
                0.5,
                0.1,
                0.1,
                0.01,
            ]
    assert build(WAEMMD, schedule="constant").configure_optimizers()["autoencoder"].schedule(100) == 1.0


def test_optimizers_are_the_published_ones() -> None:
    gan = {
        name: config.optimizer(config.parameters).defaults
        for name, config in build(WAEGAN).configure_optimizers().items()
    }
    assert (gan["autoencoder"]["lr"], gan["autoencoder"]["betas"]) == (1e-3, (0.5, 0.999))
    assert (gan["critic"]["lr"], gan["critic"]["betas"]) == (5e-4, (0.5, 0.999))
    config = build(SWAE, optimizer="rmsprop").configure_optimizers()["autoencoder"]
    keras = config.optimizer(config.parameters)
    assert isinstance(keras, torch.optim.RMSprop)
    assert (keras.defaults["lr"], keras.defaults["alpha"], keras.defaults["eps"]) == (1e-3, 0.9, 1e-7)


# ---------------------------------------------------------------- objectives against numpy


def numbers(model: Model, x: Tensor) -> tuple[Floats, Floats, Floats]:
    """Images, codes and reconstructions in float64."""
    code = model.encode(x).detach()
    return x.double().numpy(), code.double().numpy(), model.decode(code).detach().double().numpy()


def squares(x: Floats, y: Floats) -> float:
    return ((x - y) ** 2).sum(axis=(1, 2, 3)).mean()


def test_ae_objective() -> None:
    model = build(AE)
    x, z = batch(model)
    images, _, decoded = numbers(model, x)
    assert float(objective(model, x, z)) == pytest.approx(squares(images, decoded), rel=1e-5)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("cost", ["squared", "bce-l1"])
def test_swae_objective(p: float, cost: str) -> None:
    model = build(SWAE, p=p, cost=cost, weight=3.0, projections=7)
    x, z = batch(model)
    images, code, decoded = numbers(model, x)
    theta = random_projections(7, 2, seeded(5)).double().numpy()
    apart = np.mean([np.abs(np.sort(code @ t) - np.sort(z.numpy() @ t)) ** p for t in theta])
    if cost == "squared":
        fit = squares(images, decoded)
    else:
        entropy = -(images * np.log(decoded) + (1 - images) * np.log(1 - decoded))
        fit = (entropy + np.abs(images - decoded)).mean()
    assert float(objective(model, x, z)) == pytest.approx(fit + 3.0 * apart, rel=1e-5)


@pytest.mark.parametrize("prior", ["normal", "wide", "uniform"])
@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_wae_mmd_objective(kernel: str, prior: str) -> None:
    model = build(WAEMMD, PRIORS[prior], kernel=kernel, weight=3.0)
    c = {"normal": 4.0, "wide": 16.0, "uniform": 4.0 / 3.0}[prior]
    x, z = batch(model)
    images, code, decoded = numbers(model, x)

    def k(a: Floats, b: Floats) -> float:
        r = ((a - b) ** 2).sum()
        return sum(s * c / (s * c + r) if kernel == "imq" else math.exp(-r / (s * c)) for s in WAE_SCALES)

    draws, n = z.double().numpy(), len(z)
    within = sum(k(s[i], s[j]) for s in (code, draws) for i, j in itertools.permutations(range(n), 2)) / (n * (n - 1))
    cross = sum(k(a, b) for a in code for b in draws) / n**2
    expected = squares(images, decoded) + 3.0 * (within - 2.0 * cross)
    assert float(objective(model, x, z)) == pytest.approx(expected, rel=1e-5)


def test_wae_gan_objective() -> None:
    model = build(WAEGAN, weight=3.0)
    x, z = batch(model)
    images, code, decoded = numbers(model, x)
    fake, real = (
        1.0 / (1.0 + np.exp(-model.critic_logits(torch.as_tensor(points).float()).detach().double().numpy()))
        for points in (code, z)
    )
    values = objectives(model, x, z)
    assert list(values) == ["autoencoder", "critic"]
    expected = squares(images, decoded) - 3.0 * np.log(fake).mean()
    assert float(values["autoencoder"]) == pytest.approx(expected, rel=1e-5)
    assert float(values["critic"]) == pytest.approx(-np.log(real).mean() - np.log(1.0 - fake).mean(), rel=1e-5)


def test_the_critics_loss_does_not_reach_the_encoder() -> None:
    model = build(WAEGAN)
    losses(model, *batch(model))["critic"].backward()
    assert all(parameter.grad is None for parameter in model.autoencoder_parameters())


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "learned-sigma"])
@pytest.mark.parametrize("prior", ["normal", "wide", "mixture"])
def test_vae_objective(likelihood: str, prior: str) -> None:
    model = build(VAE, PRIORS[prior], likelihood=likelihood, sigma=0.4)
    x, z = batch(model)
    mean, log_variance = (t.detach().double() for t in model.posterior_parameters(x))
    epsilon = torch.randn(len(x), 2, generator=seeded(5).generator).double()
    code = mean + (log_variance / 2).exp() * epsilon
    decoded = torch.distributions.Independent
    images, y = x.double(), model.decode(code.float()).detach().double()
    if likelihood == "bernoulli":
        fit = -(images * y.log() + (1 - images) * (1 - y).log()).sum((1, 2, 3))
    else:
        fit = -torch.distributions.Normal(y, 0.4).log_prob(images).sum((1, 2, 3))
    q = decoded(torch.distributions.Normal(mean, (log_variance / 2).exp()), 1)
    if prior == "mixture":
        divergence = q.log_prob(code) - PRIORS[prior].log_prob(code)
    else:
        p = decoded(torch.distributions.Normal(torch.zeros(2).double(), PRIORS[prior].sigma), 1)
        divergence = torch.distributions.kl_divergence(q, p.expand([len(x)]))
    assert float(objective(model, x, z)) == pytest.approx(float((fit + divergence).mean()), rel=1e-5)


def test_vae_estimator_of_the_divergence_is_unbiased() -> None:
    class Unknown(Normal):
        """N(0, I) that does not say what it is."""

        normal_sigma = None

    exact, estimated = build(VAE), build(VAE, Unknown(2))
    mean, log_variance = torch.tensor([[0.7, -0.3]]), torch.tensor([[-1.0, 0.5]])
    noise = torch.randn(200_000, 2, generator=seeded(0).generator)
    wide = mean.expand(200_000, 2), log_variance.expand(200_000, 2)
    draws = estimated.divergence(GaussianDraw(*wide, noise, mean + (0.5 * log_variance).exp() * noise))
    error = float(draws.std()) / math.sqrt(len(draws))
    assert abs(float(draws.mean() - exact.divergence(GaussianDraw(mean, log_variance, noise[:1], mean)))) < 4.0 * error


def test_learned_sigma_is_optimal_where_it_is_the_root_mean_square_error() -> None:
    model = build(VAE, likelihood="learned-sigma")
    x, _ = batch(model)
    logits = torch.zeros_like(x)
    best = 0.5 * math.log(float((x - 0.5).square().mean()))
    with torch.no_grad():
        model.log_sigma.fill_(best)
    model.negative_log_likelihood(logits, x).mean().backward()
    assert float(model.log_sigma.grad) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "learned-sigma"])
def test_vae_states_the_likelihood_that_it_is_trained_by(likelihood: str) -> None:
    model = build(VAE, likelihood=likelihood, sigma=0.4)
    x, z = batch(model)
    y = model.decode(z)
    law = (
        torch.distributions.ContinuousBernoulli(y) if likelihood == "bernoulli" else torch.distributions.Normal(y, 0.4)
    )
    expected = law.log_prob(x)
    if likelihood == "bernoulli":  # without the continuous law's constant
        expected = expected - law._cont_bern_log_norm()
    assert torch.allclose(model.log_likelihood(x, z), expected.sum((1, 2, 3)), rtol=1e-4)
    assert model.has_likelihood
    assert not build(AE).has_likelihood
    with pytest.raises(UnsupportedError, match="no likelihood"):
        build(AE).log_likelihood(x, z)


class Learned(AE):
    """Decodes draws of a prior that it has learned."""

    def __init__(self, context: ModelContext) -> None:
        super().__init__(context)
        self.learned = Normal(context.latent_dim, sigma=3.0)

    @property
    def prior(self) -> Prior:
        return self.learned


def test_the_prior_is_the_contexts_unless_the_model_learned_one() -> None:
    wide = Normal(2, sigma=2.0)
    assert build(AE, wide).prior is wide
    assert isinstance(build(Learned, wide).prior, Normal)
    assert build(Learned, wide).prior.sigma == 3.0


def test_vae_encodes_to_the_mean_and_samples_around_it() -> None:
    model = build(VAE)
    x, _ = batch(model)
    draws = torch.stack([model.sample_codes(x, seeded(seed)) for seed in range(2000)]).detach()
    mean, log_variance = model.posterior_parameters(x)
    assert torch.equal(model.encode(x), mean)
    assert torch.allclose(draws.mean(0), mean, atol=0.12)
    assert torch.allclose(draws.std(0), (0.5 * log_variance).exp(), atol=0.12)


def test_vae_stays_finite_for_extreme_outputs_of_the_encoder() -> None:
    model = build(VAE)
    with torch.no_grad():
        model.encoder[-1].bias[2:] += torch.tensor([1e4, -1e4])
    loss = objective(model, *batch(model))
    assert torch.isfinite(loss)


# ---------------------------------------------------------------- errors found in public code, each planted


def holds(check: Check, *arguments: object, **options: object) -> bool:
    """Whether a check passes."""
    try:
        check(*arguments, **options)
    except AssertionError:
        return False
    return True


def check_far_codes_cost_more(make: Make) -> None:
    model = build(make, weight=50.0)
    x, _ = batch(model, n=32)
    near = model.encode(x).detach()
    assert objective(model, x, near + 3.0) > objective(model, x, near)


def check_weight_counts(make: Make) -> None:
    costs = []
    for weight in (0.0, 50.0, 100.0):
        model = build(make, weight=weight)
        costs.append(float(objective(model, *batch(model))))
    assert abs(costs[1] - costs[0]) > 1e-2
    assert costs[2] - costs[1] == pytest.approx(costs[1] - costs[0], rel=1e-3)


def check_repeated_batch_costs_the_same(make: Make) -> None:
    """W(x + x, z + z) = W(x, z) for sorted samples, and a mean is a mean."""
    model = build(make)
    x, z = batch(model)
    twice = objective(model, x.repeat(2, 1, 1, 1), z.repeat(2, 1))
    assert float(twice) == pytest.approx(float(objective(model, x, z)), rel=1e-4)


def check_mean_over_small_batches_is_the_large_batch(make: Make) -> None:
    """A mean and an unbiased U-statistic equal their own mean over every choice of 2 of 4 images and 2 of 4 draws."""
    model = build(make)
    x, z = batch(model, n=4)
    pairs = [list(pair) for pair in itertools.combinations(range(4), 2)]
    small = [objectives(model, x[i], z[j]) for i in pairs for j in pairs]
    for optimizer, loss in objectives(model, x, z).items():
        mean = sum(float(each[optimizer]) for each in small) / len(small)
        assert mean == pytest.approx(float(loss), rel=1e-4)


def check_logits_stand_alone(make: Make) -> None:
    model = build(make, log_density=True)
    _, z = batch(model)
    whole = model.critic_logits(z)
    assert whole.shape == (len(z),)
    assert torch.allclose(whole, torch.cat([model.critic_logits(point[None]) for point in z]), atol=1e-5)


def check_log_density_is_the_priors(make: Make) -> None:
    with_density, without = build(make, Mixture(2), log_density=True), build(make, Mixture(2))
    _, z = batch(without)
    difference = with_density.critic_logits(z) - without.critic_logits(z)
    assert torch.allclose(difference, Mixture(2).log_prob(z), atol=1e-4)


def check_decoded_images_are_what_was_fitted(make: Make) -> None:
    model = build(make)
    x, z = batch(model)
    decoded = model.decode(model.encode(x)).detach()
    (loss, *_) = model.training_step(x, z, seeded(5))
    assert 0.0 <= float(decoded.min()) <= float(decoded.max()) <= 1.0
    assert float(loss.logs["reconstruction"]) == pytest.approx(squares(x.numpy(), decoded.numpy()), rel=1e-4)


def check_samples_do_not_see_each_other(make: Make) -> None:
    model = build(make, network=Normed())
    for _ in train(model, 3, *batch(model)):
        pass
    model.eval()
    z = model.prior.sample(5, seeded(0))
    assert torch.allclose(model.decode(z)[:2], model.decode(z[:2]), atol=1e-6)


def check_randomness_is_the_noise(make: Make, **options: object) -> None:
    model = build(make, **options)
    x, z = batch(model)
    state = torch.get_rng_state()
    first = objective(model, x, z, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(objective(model, x, z, seed=1), first)


class WrongSign(WAEMMD):
    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        code = self.encode(x)
        fit = squared_error(self.logits(code), x).mean()
        yield Loss("autoencoder", fit - self.weight * mmd(code, z, scale=self.pairwise_scale))


class Unweighted(WAEMMD):
    def __init__(self, context: ModelContext, *, weight: float = 200.0) -> None:
        super().__init__(context)


class ShardedNetwork(SWAE):
    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        for loss in super().training_step(x, z, noise):
            apart = loss.logs["sliced-w"] * self.strength
            yield Loss("autoencoder", loss.value - apart + apart / (len(x) * (len(x) - 1)))


class Biased(WAEMMD):
    """The diagonal left in."""

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        for loss in super().training_step(x, z, noise):
            yield Loss("autoencoder", loss.value + self.weight * 2 * len(WAE_SCALES) / len(x))


class Summed(WAEGAN):
    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        for loss in super().training_step(x, z, noise):
            yield Loss(loss.optimizer, loss.value * len(x))


class Broadcast(WAEGAN):
    def critic_logits(self, z: Tensor) -> Tensor:
        return self.critic(z) + self.prior.log_prob(z)


class AssumesNormal(WAEGAN):
    def critic_logits(self, z: Tensor) -> Tensor:
        logit = self.critic(z).squeeze(1)
        return logit - 0.5 * z.square().sum(1) if self.log_density else logit


class Tanh(AE):
    def decode(self, z: Tensor) -> Tensor:
        return torch.tanh(self.logits(z))


class Standardised(AE):
    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        yield from super().training_step((x - 0.1307) / 0.3081, z, noise)


class AlwaysTraining(AE):
    def train(self, mode: bool = True) -> AlwaysTraining:
        return super().train(True)


class Global(SWAE):
    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        return super().training_step(x, z, Noise(torch.default_generator))


@pytest.mark.parametrize(
    ("check", "ours", "planted"),
    [
        (check_far_codes_cost_more, [WAEMMD, SWAE, SinkhornAE], WrongSign),
        (check_weight_counts, [WAEMMD, SWAE, WAEGAN, SinkhornAE, RAE], Unweighted),
        (check_repeated_batch_costs_the_same, [SWAE, AE, WAEGAN, SinkhornAE, VQVAE, RAE], ShardedNetwork),
        (check_mean_over_small_batches_is_the_large_batch, [WAEMMD, WAEGAN, AE], Biased),
        (check_mean_over_small_batches_is_the_large_batch, [WAEMMD, WAEGAN, AE], Summed),
        (check_logits_stand_alone, [WAEGAN], Broadcast),
        (check_log_density_is_the_priors, [WAEGAN], AssumesNormal),
        (check_decoded_images_are_what_was_fitted, [AE, SWAE, WAEMMD, WAEGAN], Tanh),
        (check_decoded_images_are_what_was_fitted, [AE, SWAE, WAEMMD, WAEGAN], Standardised),
        (check_samples_do_not_see_each_other, [AE, RAE, SWAE, SinkhornAE, VQVAE, WAEMMD, WAEGAN, VAE], AlwaysTraining),
        (check_randomness_is_the_noise, [AE, RAE, SWAE, RelationalAE, WAEMMD, WAEGAN, VAE], Global),
    ],
)
def test_error_of_public_code(check: Check, ours: list[Make], planted: Make) -> None:
    for make in ours:
        check(make)
    assert not holds(check, planted)


def test_costs_vanish_on_a_perfect_reconstruction() -> None:
    x = torch.rand(5, *SHAPE, generator=seeded(0).generator).clamp(0.01, 0.99)
    assert torch.allclose(squared_error(torch.logit(x), x), torch.zeros(5), atol=1e-6)
    entropy = -(x * x.log() + (1 - x) * (1 - x).log()).sum((1, 2, 3))
    assert torch.allclose(cross_entropy(torch.logit(x), x), entropy, rtol=1e-5)
