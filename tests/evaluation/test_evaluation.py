"""How images and codes are measured, against the errors of public code: each planted version gives another number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genbench.api import DataConfig, Images, TrainingStats
from genbench.data.images import to_float, to_uint8
from genbench.distances import wasserstein_distance
from genbench.errors import MetricError
from genbench.evaluation.evaluation import BATCH, RunEvaluation
from genbench.experiment.build import create_model
from genbench.experiment.plan import Plan
from genbench.registry.loader import Registry

Evaluate = Callable[..., RunEvaluation]
SPEED = TrainingStats(seconds=1.0, images=1, parameters=1, device="cpu", threads=1)


@pytest.fixture
def evaluate(registry: Registry, planned: Callable[..., Plan], tmp_path: Path) -> Evaluate:
    """The evaluation of an untrained model on 700 random test images: more than a block, and no multiple of it."""

    def make(model: str = "vae", network: str = "mlp", seed: int = 0) -> RunEvaluation:
        run = planned(model, network=network).runs[0]
        torch.manual_seed(0)
        built = create_model(registry, run, (1, 12, 12))
        drawn = torch.randint(0, 256, (700, 1, 12, 12), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
        return RunEvaluation(
            built,
            built.context,
            Images(drawn, drawn, drawn[:0]),
            seed=seed,
            device=torch.device("cpu"),
            training=SPEED,
            data_config=DataConfig(tmp_path, tmp_path),
            memory={},
        )

    return make


def test_rounding_is_that_of_a_file_and_knows_no_image_by_itself() -> None:
    """Public code rescales each image by its own minimum and maximum: grey then turns to black or white."""

    def rescaled(x: Tensor) -> Tensor:
        low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
        return to_uint8((x - low) / (high - low).clamp(min=1e-9))

    faint = 0.4 + 0.2 * torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (to_float(to_uint8(faint)) - faint).abs().max() <= 0.5 / 255 + 1e-6
    assert (to_float(rescaled(faint)) - faint).abs().max() > 0.3  # the planted error
    assert to_uint8(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


def test_samples_do_not_see_each_other(evaluate: Evaluate) -> None:
    """Batch norm in training mode while sampling makes each sample depend on its batch."""
    e = evaluate("ae", "normed")
    z = e.prior_draws(64, "samples")
    with torch.no_grad():
        alone = torch.cat([e.model.decode(row[None]) for row in z])
        together = e.model.decode(z)
        e.model.train()
        planted = e.model.decode(z)
    torch.testing.assert_close(alone, together)
    assert (planted - alone).abs().max() > 0.01


def test_a_latent_distance_is_of_all_codes_at_once(evaluate: Evaluate) -> None:
    """Averaged over batches of 128, a distance between equal laws is mostly the sampling floor."""
    e = evaluate("ae")
    x, y = e.prior_draws(1280, "one"), e.prior_draws(1280, "two")
    whole = wasserstein_distance(x, y)
    planted = sum(wasserstein_distance(u, v) for u, v in zip(x.split(128), y.split(128), strict=True)) / 10
    assert planted > 2 * whole


def test_nothing_depends_on_what_was_asked_before(evaluate: Evaluate) -> None:
    small_first, large_only = evaluate(), evaluate()
    for n in (3, 130, 600, 700):
        for name in ("codes", "samples", "reconstructions"):
            getattr(small_first, name)(n)
    for n in (700, 130):
        for name in ("codes", "samples", "reconstructions"):
            assert torch.equal(getattr(small_first, name)(n), getattr(large_only, name)(n)), name
    assert BATCH < 700


def test_draws_are_paired_across_models_and_differ_across_seeds(evaluate: Evaluate) -> None:
    assert torch.equal(evaluate("ae").prior_draws(50, "samples"), evaluate("vae").prior_draws(50, "samples"))
    assert not torch.equal(evaluate(seed=1).prior_draws(50, "samples"), evaluate().prior_draws(50, "samples"))
    assert not torch.equal(evaluate().prior_draws(50, "samples"), evaluate().prior_draws(50, "latent-w2"))
    assert torch.equal(evaluate(seed=1).held_out(9), evaluate().held_out(9))


def test_codes_are_draws_and_reconstructions_are_of_means(evaluate: Evaluate) -> None:
    e = evaluate("vae")
    x = to_float(e.held_out(BATCH))
    with torch.no_grad():
        assert not torch.equal(e.codes(BATCH), e.model.encode(x))
        assert torch.equal(e.reconstructions(BATCH), e.model.decode(e.model.encode(x)))


def test_more_held_out_images_than_there_are_is_an_error(evaluate: Evaluate) -> None:
    with pytest.raises(MetricError, match="the dataset has 700"):
        evaluate().codes(701)


def test_the_model_is_measured_in_eval_mode_and_global_randomness_is_left_alone(evaluate: Evaluate) -> None:
    e = evaluate("vae")
    assert not e.model.training
    before = torch.get_rng_state()
    e.codes(100), e.samples(100), e.reconstructions(100)
    assert torch.equal(before, torch.get_rng_state())
