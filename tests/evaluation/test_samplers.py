"""Samplers as an axis of the evaluation: nothing is trained anew, and protocols keep the numbers apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from torch import Generator, Tensor

from genbench.api import DataConfig, Noise, Prior, Sampler, TrainingStats
from genbench.errors import GenbenchError, MetricError
from genbench.evaluation.evaluation import RunEvaluation
from genbench.evaluation.measure import measure
from genbench.experiment.build import create_dataset, create_model
from genbench.experiment.plan import Plan
from genbench.experiment.run import split_sampler
from genbench.registry.loader import Registry
from genbench_priors import Normal
from genbench_samplers import MixtureSampler


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


def test_a_mixture_has_the_moments_of_the_codes_and_refuses_codes_that_are_not_finite() -> None:
    prior: Prior = Normal(3)
    codes = torch.randn(2000, 3, generator=Generator().manual_seed(0), dtype=torch.float64) * 2 + 5
    sampler = MixtureSampler(prior, components=2)
    sampler.fit(codes)
    drawn = sampler.sample(5000, Noise(Generator().manual_seed(1)))
    assert drawn.dtype == torch.float32
    assert torch.allclose(drawn.mean(0).double(), codes.mean(0), atol=0.15)
    assert torch.allclose(drawn.std(0).double(), codes.std(0), atol=0.15)
    assert torch.equal(drawn, sampler.sample(5000, Noise(Generator().manual_seed(1))))
    with pytest.raises(MetricError, match="1 codes are NaN or infinite"):
        sampler.fit(torch.full((1, 3), torch.nan, dtype=torch.float64))


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
