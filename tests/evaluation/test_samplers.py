"""Samplers as an axis of the evaluation: nothing is trained anew, and protocols keep the numbers apart."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from torch import Generator, Tensor

from genbench.analysis.captions import caption
from genbench.analysis.notes import all_notes
from genbench.analysis.table import assemble
from genbench.api import DataConfig, Noise, Prior, Sampler, TrainingStats
from genbench.errors import GenbenchError, MetricError
from genbench.evaluation.evaluation import RunEvaluation
from genbench.evaluation.measure import measure
from genbench.experiment.build import create_dataset, create_model
from genbench.experiment.plan import Plan
from genbench.experiment.run import split_sampler
from genbench.registry.loader import Registry
from genbench_learned_samplers import FlowSampler, SecondVAE, TwoStageSampler
from genbench_priors import Normal
from genbench_samplers import MixtureSampler
from support.studies import row


class Constant(Sampler):
    """Always the mean of the training codes."""

    training_codes = 30

    def fit(self, codes: Tensor) -> None:
        self.shape, self.mean = codes.shape, codes.mean(0)

    def sample(self, n: int, noise: Noise) -> Tensor:
        return self.mean.float().expand(n, -1)


@pytest.fixture
def evaluation(registry: Registry, planned: Callable[..., Plan], data_config: DataConfig) -> RunEvaluation:
    run = planned("vae").runs[0]
    images = create_dataset(registry, run.dataset).load(data_config)
    torch.manual_seed(0)
    model = create_model(registry, run, images.shape)
    return RunEvaluation(
        model,
        model.context,
        images,
        seed=0,
        device=torch.device("cpu"),
        training=TrainingStats(1.0, 100, 1, "cpu", 1),
        data_config=data_config,
        memory={},
    )


def test_samples_are_the_samplers_and_all_else_is_shared(evaluation: RunEvaluation) -> None:
    prior_samples, codes = evaluation.samples(20), evaluation.codes(20)
    sampler = Constant()
    sampled = evaluation.with_sampler("constant()", sampler)
    assert sampler.shape == (30, 2)
    expected = evaluation.decode(sampler.mean.float()[None])
    assert torch.equal(sampled.samples(20), expected.expand(20, -1, -1, -1))
    assert torch.equal(evaluation.samples(20), prior_samples)
    assert torch.equal(sampled.codes(20), codes)
    assert evaluation.with_sampler("constant()", Constant()) is sampled, "fitted once"


def test_a_fit_that_failed_is_not_repeated(evaluation: RunEvaluation) -> None:
    fits = []

    class Failing(Constant):
        def fit(self, codes: Tensor) -> None:
            fits.append(len(codes))
            raise MetricError("no density")

    for _ in range(2):
        with pytest.raises(MetricError, match="no density"):
            evaluation.with_sampler("failing()", Failing())
    assert len(fits) == 1


def test_only_protocols_of_samples_name_the_sampler(evaluation: RunEvaluation) -> None:
    sampled = evaluation.with_sampler("constant()", Constant())
    stated = {"method": "m", "references": 3}
    assert evaluation.protocol(**stated, generated=5).detail == ""
    assert sampled.protocol(**stated, generated=5).detail == "sampler constant()"
    assert sampled.protocol(**stated, generated=5, detail="k = 3").detail == "k = 3; sampler constant()"
    assert sampled.protocol(**stated, generated=0) == evaluation.protocol(**stated, generated=0)


def test_a_plan_measures_each_metric_of_samples_for_each_sampler_and_any_other_once(
    planned: Callable[..., Plan],
) -> None:
    metrics = ("sharpness", "reconstruction")
    both = planned("vae", metrics=metrics, samplers=("prior", "gmm"), settings=("gmm.components=3",)).metrics
    assert [component.name for component in both] == ["sharpness", "sharpness@gmm", "reconstruction"]
    metric, sampler = split_sampler(both[1])
    assert metric == both[0]
    assert sampler is not None
    assert (sampler.name, sampler.values["components"]) == ("gmm", 3)
    alone = planned("vae", metrics=metrics, samplers=("gmm",)).metrics
    assert [component.name for component in alone] == ["sharpness@gmm", "reconstruction"]
    with pytest.raises(GenbenchError, match="there is no sampler 'gm': did you mean 'gmm'"):
        planned("vae", metrics=metrics, samplers=("gm",))


def test_a_measurement_by_a_sampler_has_another_protocol_and_label(
    registry: Registry, planned: Callable[..., Plan], evaluation: RunEvaluation
) -> None:
    by_prior, by_mixture = planned("vae", metrics=("sharpness",), samplers=("prior", "gmm")).metrics
    (first,) = measure(registry, by_prior, evaluation).numbers
    (second,) = measure(registry, by_mixture, evaluation).numbers
    assert first.protocol != second.protocol
    assert first.value != second.value
    assert second.label == "sharpness @gmm"
    assert "sampler gmm(" in str(second.how["detail"])


def normal_codes(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=Generator().manual_seed(seed), dtype=torch.float64) * 2 + 5


def test_a_mixture_has_the_moments_of_the_codes() -> None:
    prior: Prior = Normal(3)
    codes = normal_codes(2000, 3)
    sampler = MixtureSampler(prior, components=2)
    sampler.fit(codes)
    drawn = sampler.sample(5000, Noise(Generator().manual_seed(1)))
    assert drawn.dtype == torch.float32
    assert torch.allclose(drawn.mean(0).double(), codes.mean(0), atol=0.15)
    assert torch.allclose(drawn.std(0).double(), codes.std(0), atol=0.15)
    assert torch.equal(drawn, sampler.sample(5000, Noise(Generator().manual_seed(1))))


def ring_codes(n: int, d: int = 2) -> Tensor:
    """Codes on a ring of radius 3 around (5, 5), which no Gaussian is near to; further coordinates are 7."""
    angle = torch.rand(n, generator=Generator().manual_seed(0), dtype=torch.float64) * math.tau
    ring = 5 + torch.stack([angle.cos(), angle.sin()], 1) * 3 + 0.05 * normal_codes(n, 2, 1)
    return torch.cat([ring, torch.full((n, d - 2), 7.0, dtype=torch.float64)], 1)


@pytest.mark.parametrize(("kind", "inside"), [(FlowSampler, 0.05), (TwoStageSampler, 0.2)])
def test_a_network_finds_a_ring_and_leaves_the_global_state(kind: type[Sampler], inside: float) -> None:
    codes, threads = ring_codes(1500, 3), torch.get_num_threads()
    centre = codes[:, :2].mean(0).float()
    sampler = kind(Normal(3))  # type: ignore[call-arg]
    before = torch.get_rng_state()
    sampler.fit(codes)
    drawn = sampler.sample(2000, Noise(Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert (drawn.shape, drawn.dtype) == ((2000, 3), torch.float32)
    assert (drawn[:, 2] == 7.0).all(), "a constant coordinate is left as it is"
    radius = (drawn[:, :2] - centre).norm(dim=1)
    assert float((radius < 1.5).float().mean()) < inside, "of a Gaussian with these moments 22 % lie there"
    assert float(radius.median()) == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize("kind", [FlowSampler, TwoStageSampler])
def test_equal_codes_are_refused_and_one_coordinate_is_fitted(kind: type[Sampler]) -> None:
    with pytest.raises(MetricError, match="all 150 codes are equal"):
        kind(Normal(3)).fit(torch.full((150, 3), 0.1, dtype=torch.float64))  # type: ignore[call-arg]
    sampler = kind(Normal(1), epochs=3)  # type: ignore[call-arg]
    sampler.fit(normal_codes(150, 1))
    assert sampler.sample(5, Noise(Generator().manual_seed(1))).shape == (5, 1)


def test_the_second_vae_bounds_the_likelihood_of_codes() -> None:
    """The loss is an upper bound of -log p(z), here by numerical integration over one latent coordinate."""
    torch.manual_seed(0)
    vae, z = SecondVAE(1, 8), torch.tensor([[0.3], [-1.2]])
    u = torch.linspace(-8, 8, 4001)[:, None]
    with torch.no_grad():
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(u[:, 0])
        likelihood = torch.distributions.Normal(vae.decode(u)[:, 0], vae.log_gamma.exp()).log_prob(z)
        exact = -torch.logsumexp(prior + likelihood, 1) - math.log(16 / 4000)
        draws = Generator().manual_seed(1)
        bound = torch.stack([vae.loss(z, draws) for _ in range(2000)]).mean(0)
    assert (bound > exact - 0.01).all()


def test_too_few_codes_and_codes_that_are_not_finite_are_refused_before_any_fit() -> None:
    sampler = MixtureSampler(Normal(3), components=5)
    with pytest.raises(MetricError, match=r"^the sampler needs 20 codes for its fit and has 19$"):
        sampler.check_codes(normal_codes(19, 3))
    sampler.check_codes(normal_codes(20, 3))
    broken = normal_codes(20, 3)
    broken[1, 2] = torch.nan
    with pytest.raises(MetricError, match="1 of 20 codes are NaN or infinite"):
        sampler.check_codes(broken)


def test_a_plan_refuses_samplers_that_need_more_codes(planned: Callable[..., Plan]) -> None:
    settings, words = ("gmm.components=30", "gmm.codes=50"), "needs 90 codes .* and would be fitted to 50; its options"
    with pytest.raises(GenbenchError, match=f"the sampler 'gmm' {words}"):
        planned("vae", metrics=("sharpness",), samplers=("gmm",), settings=settings)


def test_the_seconds_of_a_fit_stand_with_every_number_of_the_sampler(
    registry: Registry, planned: Callable[..., Plan], evaluation: RunEvaluation
) -> None:
    settings = ("sharpness.n=50,60",)
    metrics = planned("vae", metrics=("sharpness",), samplers=("prior", "gmm"), settings=settings).metrics
    began = time.perf_counter()
    entries = [(component.name, measure(registry, component, evaluation)) for component in metrics]
    elapsed = time.perf_counter() - began
    assert all(entry.fit_seconds is None for name, entry in entries if name == "sharpness")
    first, second = (entry for name, entry in entries if name == "sharpness@gmm")
    assert first.fit_seconds == second.fit_seconds, "fitted once"
    assert first.fit_seconds is not None
    assert first.fit_seconds > 0
    assert sum(entry.seconds or 0.0 for _, entry in entries) + first.fit_seconds <= elapsed + 0.01, "counted once"
    (table,) = assemble([row(metric="fid@gmm.x", fit_seconds=2.0), row(metric="fid@gmm.x", seed=1, fit_seconds=4.0)])
    assert "samplers (@) were fitted to training codes: gmm 3 s a run" in all_notes(table, "*")
    assert "Samplers (@) were fitted to training codes: gmm 3 s a run." in caption(table).reading


def test_the_samplers_of_a_metric_stand_side_by_side() -> None:
    names = ("fid", "kid", "kid@gmm", "density-coverage.density", "fid@gmm", "density-coverage@gmm.density", "fid@flow")
    (table,) = assemble([row(metric=name, metric_role="", protocol=name) for name in names], sort="kid")
    assert [column.metric for column in table.columns] == [
        *("kid", "fid", "fid@gmm", "fid@flow", "kid@gmm", "density-coverage.density", "density-coverage@gmm.density")
    ]


def test_a_trained_run_is_measured_by_another_sampler_without_training(
    genbench: Callable[..., Result], tmp_path: Path
) -> None:
    common = ("--metrics", "sharpness,reconstruction", "--set", "sharpness.n=50")
    assert genbench("run", "vae", "--images", "256", "--latent-dim", "2", *common, "--jobs", "1").exit_code == 0
    (path,) = (tmp_path / "runs").glob("*/metrics.json")
    weights = path.with_name("weights.safetensors").read_bytes()
    before = json.loads(path.read_text())["measurements"]
    done = genbench("evaluate", "runs", *common, "--sampler", "prior,gmm", "--set", "gmm.codes=200", "--jobs", "1")
    assert done.exit_code == 0, done.output
    after = json.loads(path.read_text())["measurements"]
    assert before.items() <= after.items()
    assert [after[key]["metric"] for key in after.keys() - before.keys()] == ["sharpness@gmm"]
    assert path.with_name("weights.safetensors").read_bytes() == weights
