"""Likelihood and collapse: a linear Gaussian model, all of which is known in closed form, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from genbench.api import (
    DataConfig,
    DatasetInfo,
    Images,
    Loss,
    Measurement,
    Metric,
    Model,
    ModelContext,
    Noise,
    OptimizerConfig,
    Prior,
    TrainingStats,
)
from genbench.data.images import to_float, to_uint8
from genbench.errors import MetricError, NotApplicableError, UsageError
from genbench.evaluation.evaluation import RunEvaluation
from genbench.testing.fixtures import Cube, Gauss, Small
from genbench_ae import AE
from genbench_likelihood.bounds import ELBO, NLL, bounds, log_weights
from genbench_likelihood.codes import ActiveUnits, CodeNLL, MutualInformation, log_aggregated
from genbench_priors import Sphere, Uniform
from genbench_vae import VAE
from genbench_vmf_vae import VMFVAE, kl_to_uniform

SHAPE = (1, 4, 4)
PIXELS = 16


class LinearGaussian(Model):
    """p(z) = N(0, I), p(x | z) = N(1/2 + W z, noise^2 I), W with orthogonal columns, so that p(z | x) is diagonal.

    q(z | x) is p(z | x) with its standard deviations times `stretch`, moved by `shift` of them; for a column of zeros
    it is the prior.
    """

    likelihood_law = "Gaussian"

    def __init__(
        self, columns: tuple[float, ...] = (0.1, 0.05), noise: float = 0.1, stretch: float = 1.0, shift: float = 0.0
    ) -> None:
        super().__init__()
        d = len(columns)
        self.context = ModelContext(SHAPE, d, Gauss(d), Small(SHAPE))
        axes = torch.linalg.qr(torch.randn(PIXELS, d, generator=Generator().manual_seed(0))).Q
        self.matrix, self.noise, self.stretch, self.shift = axes * torch.tensor(columns) * 2.0, noise, stretch, shift
        self.precision = 1.0 + self.matrix.square().sum(0) / noise**2

    def posterior(self, x: Tensor) -> Distribution:
        sd = self.precision.rsqrt()
        mean = (x.flatten(1) - 0.5) @ self.matrix / self.noise**2 / self.precision + self.shift * sd
        return Independent(Normal(mean, (self.stretch * sd).expand_as(mean)), 1)

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x).mean

    def sample_codes(self, x: Tensor, noise: Noise) -> Tensor:
        mean = self.encode(x)
        return mean + self.stretch * self.precision.rsqrt() * noise.normal(*mean.shape)

    def decode(self, z: Tensor) -> Tensor:
        return (0.5 + z @ self.matrix.T).view(-1, *SHAPE)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return Independent(Normal(self.decode(z), self.noise), 3).log_prob(x)

    def exact(self, x: Tensor) -> Tensor:
        """log p(x), `(n,)` float64."""
        matrix = self.matrix.double()
        covariance = matrix @ matrix.T + self.noise**2 * torch.eye(PIXELS, dtype=torch.float64)
        return MultivariateNormal(torch.full((PIXELS,), 0.5).double(), covariance).log_prob(x.flatten(1).double())

    def images(self, n: int) -> Tensor:
        """Images of the model, `(n, 1, 4, 4)` uint8."""
        noise = Noise(Generator().manual_seed(1))
        drawn = self.decode(noise.normal(n, self.context.latent_dim)) + self.noise * noise.normal(n, *SHAPE)
        return to_uint8(drawn)

    @property
    def information(self) -> float:
        """I(x; z) of the model itself, in nats."""
        return float(0.5 * self.precision.log().sum())

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        return {}

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        yield from ()


def evaluation(model: Model, test: Tensor) -> RunEvaluation:
    images = Images(test, test, test[:0], sha256="0" * 64)
    stats, data_config = TrainingStats(1.0, 1, 1, "cpu", 1), DataConfig(Path(), Path())
    return RunEvaluation(
        model,
        model.context,
        images,
        seed=0,
        device=torch.device("cpu"),
        training=stats,
        data_config=data_config,
        memory={},
    )


@torch.no_grad()
def measured(metric: Metric, model: Model, test: Tensor) -> dict[str, Measurement]:
    return {number.component: number for number in metric.measure(evaluation(model, test))}


def near(value: float, truth: float, se: float | None) -> bool:
    """Within three standard errors."""
    assert se is not None
    return abs(value - truth) <= 3.0 * se


# ---------------------------------------------------------------- -log p(x)


def test_draws_of_the_exact_posterior_give_the_exact_likelihood_with_any_number_of_them() -> None:
    model = LinearGaussian()
    test = model.images(60)
    numbers = measured(NLL(n=60, samples=7), model, test)
    truth = -model.exact(to_float(test))
    assert numbers[""].value == pytest.approx(float(truth.mean()), abs=1e-3)
    assert numbers[""].se == pytest.approx(float(truth.std()) / math.sqrt(60), rel=1e-3)
    assert numbers["gain"].value == pytest.approx(0.0, abs=1e-4)
    assert numbers["effective"].value == pytest.approx(7.0, rel=1e-4)
    assert numbers["bits"].value == pytest.approx((numbers[""].value / PIXELS + math.log(256)) / math.log(2))
    assert "Gaussian, density of pixels in [0, 1], not dequantized" in numbers[""].protocol.detail
    few = measured(NLL(n=60, samples=4), model, test)[""]  # four draws cannot count for five
    assert few.caution == "not converged in 4 draws, an upper bound: raise nll.samples"
    assert numbers[""].caution == ""


@pytest.mark.parametrize("seed", range(3))
def test_the_estimate_is_the_known_likelihood_to_three_standard_errors(seed: int) -> None:
    model = LinearGaussian(stretch=1.4, shift=0.5)
    x = to_float(model.images(300))
    noise = Noise(Generator().manual_seed(seed))
    few, many = (bounds(log_weights(model, model.prior, x, draws, noise)) for draws in (4, 1000))
    exact = model.exact(x)
    ratio = (few.log_p - exact).exp()  # the weights are unbiased for p(x), with any number of draws
    assert near(float(ratio.mean()), 1.0, float(ratio.std()) / math.sqrt(len(x)))
    error = many.log_p - exact
    assert near(float(error.mean()), 0.0, float(error.std()) / math.sqrt(len(x)))
    assert float((few.log_p - exact).mean()) < -0.02  # a bound of the logarithm
    assert bool((few.half <= few.log_p + 1e-9).all())
    remaining = float((exact - few.log_p).mean())
    assert 0.3 < float((few.log_p - few.half).mean()) / remaining < 3.0  # the gain says how much is missing


def test_a_proposal_that_misses_the_posterior_is_called_not_converged() -> None:
    model = LinearGaussian(shift=4.0)
    numbers = measured(NLL(n=100, samples=64), model, model.images(100))
    assert "not converged in 64 draws" in numbers[""].caution
    assert numbers["gain"].value > 0.1
    assert numbers["effective"].value < 5.0


def test_the_first_images_do_not_depend_on_how_many_follow_nor_memory_on_the_draws() -> None:
    model = LinearGaussian(stretch=1.2)
    x = to_float(model.images(50))
    noise = Noise(Generator().manual_seed(0))
    assert torch.equal(
        log_weights(model, model.prior, x[:25], 30, Noise(Generator().manual_seed(0))),
        log_weights(model, model.prior, x[:25], 30, noise),
    )
    seen: list[int] = []
    model.log_likelihood = lambda images, z: seen.append(len(images)) or torch.zeros(len(images))  # type: ignore[method-assign, func-returns-value]
    assert log_weights(model, model.prior, x[:25], 1000, noise).shape == (1000, 25)
    assert max(seen) == 500


# ---------------------------------------------------------------- rate, distortion, bound


@pytest.mark.parametrize("closed", [True, False])
def test_rate_and_distortion_are_those_of_the_linear_model(closed: bool) -> None:
    model = LinearGaussian()
    model.context = ModelContext(SHAPE, 2, Gauss(2, closed=closed), Small(SHAPE))
    test = model.images(3000)
    numbers = measured(ELBO(), model, test)
    assert near(numbers["rate"].value, model.information, numbers["rate"].se)  # averaged over its own images
    truth = float(model.exact(to_float(test)).mean())
    errors = [numbers[name].se or 0.0 for name in ("rate", "distortion")]
    assert numbers[""].value == pytest.approx(-numbers["rate"].value - numbers["distortion"].value)
    assert abs(numbers[""].value - truth) <= 3.0 * math.hypot(*errors)  # an exact posterior leaves no gap
    assert numbers[""].n == 3000
    assert numbers[""].caution == ""


# ---------------------------------------------------------------- laws


def spotted(n: int) -> Tensor:
    """Random grey images."""
    return torch.randint(0, 256, (n, 1, 8, 8), generator=Generator().manual_seed(2), dtype=torch.uint8)


def vae(**options: Any) -> VAE:
    torch.manual_seed(0)
    return VAE(ModelContext((1, 8, 8), 2, Gauss(2), Small((1, 8, 8))), **options)


def test_likelihoods_of_different_laws_share_no_column_and_those_of_one_do() -> None:
    test = spotted(20)
    metric = NLL(n=20, samples=4)
    bernoulli, gaussian, learned = (
        measured(metric, vae(likelihood=law), test)[""] for law in ("bernoulli", "gaussian", "learned-sigma")
    )
    assert bernoulli.protocol.key != gaussian.protocol.key
    assert gaussian.protocol.key == learned.protocol.key
    assert bernoulli.label == "NLL (Bernoulli)"
    unnamed = LinearGaussian()
    unnamed.__class__ = type("Other", (LinearGaussian,), {"likelihood_law": Model.likelihood_law})
    assert unnamed.likelihood_law == "the law of Other"


def test_a_bernoulli_likelihood_is_marked_of_grey_values_and_not_of_black_and_white() -> None:
    grey, binary = spotted(60), (spotted(60) > 127).to(torch.uint8) * 255
    marked = "a Bernoulli likelihood of grey values is no density: compare it with its own kind alone"
    for metric, component in ((NLL(n=60, samples=32), "bits"), (ELBO(), "distortion")):
        assert marked in measured(metric, vae(), grey)[component].caution
        assert marked not in measured(metric, vae(), binary)[component].caution
        assert marked not in measured(metric, vae(likelihood="gaussian"), grey)[component].caution


# ---------------------------------------------------------------- collapse, information


def test_collapse_is_named_wherever_a_number_of_it_stands() -> None:
    model = LinearGaussian((0.0, 0.0, 0.0))
    test = model.images(200)
    named = "collapsed: 0 of 3 units active"
    assert measured(ActiveUnits(), model, test)[""].caution == named
    assert measured(MutualInformation(n=200), model, test)[""].caution == named
    elbo = measured(ELBO(), model, test)
    assert elbo[""].caution == elbo["rate"].caution == named
    assert elbo["rate"].value == pytest.approx(0.0, abs=1e-6)
    information = measured(MutualInformation(n=200), model, test)
    assert information[""].value == pytest.approx(0.0, abs=1e-5)
    assert information["marginal-kl"].value == pytest.approx(0.0, abs=1e-5)


def test_active_units_are_those_whose_mean_varies_with_the_image() -> None:
    model = LinearGaussian((0.2, 0.0, 0.1, 0.0, 0.3))
    number = measured(ActiveUnits(), model, model.images(400))[""]
    assert (number.value, number.unit, number.se, number.caution) == (3, "of 5 units", 0.0, "")
    barely = LinearGaussian((0.2, 0.0051))  # of a variance at the threshold
    assert 0.1 < (measured(ActiveUnits(), barely, barely.images(400))[""].se or 0.0) < 1.0


def test_information_and_the_aggregated_posteriors_kl_are_those_of_the_linear_model() -> None:
    model = LinearGaussian((0.05, 0.05))
    numbers = measured(MutualInformation(n=2000), model, model.images(2000))
    assert numbers[""].value < 0.5 * math.log(2000)
    assert near(numbers[""].value, model.information, numbers[""].se)
    assert near(numbers["marginal-kl"].value, 0.0, numbers["marginal-kl"].se)
    assert numbers["marginal-kl"].floor == 0.0
    assert numbers[""].caution == numbers["marginal-kl"].caution == ""


def test_information_beyond_log_n_is_marked_and_the_kl_has_its_floor() -> None:
    model = LinearGaussian((0.15,) * 6, noise=0.01)
    numbers = measured(MutualInformation(n=100), model, model.images(100))
    limit = math.log(100)
    assert model.information > 4 * limit
    assert numbers[""].value == pytest.approx(limit, abs=0.01)
    assert "at its limit, log 100 = 4.6 nats" in numbers[""].caution
    assert "too large" in numbers["marginal-kl"].caution
    assert numbers["marginal-kl"].value == pytest.approx(numbers["marginal-kl"].floor, abs=0.01)


def test_the_aggregated_posterior_is_the_mean_over_all_images_whatever_the_blocks() -> None:
    model = LinearGaussian()
    x, z = to_float(model.images(90)), torch.randn(40, 2, generator=Generator().manual_seed(3))
    direct = model.posterior(x).log_prob(z[:, None]).double().exp().mean(1).log()
    assert torch.allclose(log_aggregated(model, x.split(37), z), direct, atol=1e-5)


# ---------------------------------------------------------------- codes under the prior


def test_codes_of_the_prior_have_the_prior_s_entropy_and_narrow_codes_less() -> None:
    model = LinearGaussian((0.2, 0.2))
    number = measured(CodeNLL(n=2000), model, model.images(2000))[""]
    entropy = 2 * 0.5 * (math.log(math.tau) + 1.0)
    assert number.floor is not None
    assert near(number.value, entropy, number.se)
    assert near(number.floor, entropy, number.floor_sd)
    narrow = LinearGaussian((0.2, 0.2), stretch=0.1, noise=1.0)
    assert measured(CodeNLL(n=500), narrow, model.images(500))[""].value < number.floor - 0.5


def test_codes_without_a_density_or_outside_of_it_do_not_apply() -> None:
    model = LinearGaussian()
    test = model.images(80)
    with pytest.raises(NotApplicableError, match="the prior Cube has no density"):
        measured(CodeNLL(n=80), with_prior(model, Cube(2)), test)
    with pytest.raises(NotApplicableError, match=r"density is 0 at \d+ of 80 codes: their NLL is infinite"):
        measured(CodeNLL(n=80), with_prior(model, Uniform(2)), test)
    information = measured(MutualInformation(n=80), with_prior(model, Cube(2)), test)
    assert information.keys() == {""}
    for metric in (NLL(n=80, samples=4), ELBO(), CodeNLL(n=80)):
        with pytest.raises(NotApplicableError, match="the prior Sphere has no density"):
            measured(metric, with_prior(model, Sphere(2)), test)  # whose codes lie not on the sphere


def test_on_a_sphere_densities_are_those_of_its_area() -> None:
    torch.manual_seed(0)
    model, test = VMFVAE(ModelContext((1, 8, 8), 3, Sphere(3, radius=2.0), Small((1, 8, 8)))), spotted(60)
    with torch.no_grad():
        exact = kl_to_uniform(model.posterior_parameters(to_float(test))[1], 3)
    rate = measured(ELBO(), model, test.repeat(50, 1, 1, 1))["rate"]
    assert near(rate.value, float(exact.mean()), rate.se)
    code = measured(CodeNLL(n=60), model, test)[""]
    assert code.value == code.floor == pytest.approx(math.log(4.0 * math.pi * 4.0))
    assert measured(NLL(n=60, samples=64), model, test)[""].value < -measured(ELBO(), model, test)[""].value + 0.5


def with_prior(model: LinearGaussian, prior: Prior) -> LinearGaussian:
    model.context = ModelContext(SHAPE, 2, prior, Small(SHAPE))
    return model


# ---------------------------------------------------------------- what cannot be measured

ALL = (NLL(n=20, samples=4), ELBO(), ActiveUnits(), MutualInformation(n=20), CodeNLL(n=20))


@pytest.mark.parametrize("metric", ALL[:4], ids=lambda metric: metric.name)
def test_a_deterministic_encoder_has_none_of_it(metric: Metric) -> None:
    model = AE(ModelContext((1, 8, 8), 2, Gauss(2), Small((1, 8, 8))))
    with pytest.raises(NotApplicableError, match="the encoder is deterministic"):
        measured(metric, model, spotted(20))


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_weights_that_are_not_finite_are_refused_in_one_line(metric: Metric) -> None:
    model = vae()
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(MetricError, match=r"NaN or infinite$"):
        measured(metric, model, spotted(20))


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_too_many_images_and_a_single_one_are_refused_while_planning(metric: Any) -> None:
    none, data_config = cast(Any, None), DataConfig(Path(), Path())
    small = DatasetInfo(SHAPE, 100, 10)
    if metric.n:
        with pytest.raises(UsageError, match=rf"--set {metric.name}.n=10$"):
            metric.validate(small, none, data_config)
        assert metric.fit_to(small) == {"n": 10}
    with pytest.raises(UsageError, match="needs 2 held-out images and the dataset has 1"):
        metric.validate(DatasetInfo(SHAPE, 100, 1), none, data_config)
    metric.validate(DatasetInfo(SHAPE, 100, 20), none, data_config)


def test_constant_images_have_a_likelihood_and_no_active_unit() -> None:
    model, test = LinearGaussian(), torch.full((40, *SHAPE), 128, dtype=torch.uint8)
    assert math.isfinite(measured(NLL(n=40, samples=8), model, test)[""].value)
    assert measured(ActiveUnits(), model, test)[""].caution == "collapsed: 0 of 2 units active"
