"""FID's standard error, its extrapolation, its ladder, and that no number depends on how it is computed."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Generator, Tensor
from torch_fidelity import metric_kid

import genbench.evaluation.evaluation
import genbench.features.extractor
from genbench.analysis.ladder import verdict
from genbench.api import DataConfig, DatasetInfo, Evaluation, Images, Noise, TrainingStats
from genbench.distances import frechet_distance
from genbench.errors import MetricError, NotApplicableError, UsageError
from genbench.evaluation.evaluation import RunEvaluation
from genbench.experiment.build import create_dataset, create_model
from genbench.experiment.plan import Plan
from genbench.registry.loader import Registry
from genbench.utils.io import load_tensors
from genbench_fid import FID, KID, FIDInfinity, FIDInterpolation, FIDLadder, cache, kid
from genbench_fid.frechet import caution, distance, extrapolated, gaussian, influence, standard_error
from genbench_fid.interpolation import midpoints
from genbench_fid.ladder import gaussian_draws
from genbench_priors import Normal
from genbench_samplers import MixtureSampler

WIDTH = 6
pytestmark = pytest.mark.usefixtures("registry")  # which registers the extractors


def mixture_draws(codes: Tensor, n: int, components: int, draws: Generator) -> Tensor:
    sampler = MixtureSampler(Normal(codes.shape[1]), components=components)
    sampler.fit(codes)
    return sampler.draw(n, Noise(draws))


def law(seed: int) -> Tensor:
    return torch.randn(WIDTH, WIDTH, generator=Generator().manual_seed(seed), dtype=torch.float64)


def drawn(n: int, seed: int, root: Tensor, shift: float = 0.0) -> Tensor:
    return torch.randn(n, WIDTH, generator=Generator().manual_seed(seed), dtype=torch.float64) @ root + shift


# ---------------------------------------------------------------- standard errors


def test_the_influence_is_the_derivative_of_the_distance_in_the_weight_of_a_sample() -> None:
    real, made = drawn(200, 0, law(0)), drawn(60, 1, law(1), 0.5)
    influences = influence(real, made)
    mean, cov = made.mean(0), (made - made.mean(0)).T @ (made - made.mean(0)) / len(made)
    step = 1e-5
    for i in (0, 7, 59):
        away = made[i] - mean
        moved = frechet_distance(
            *gaussian(real), mean + step * away, (1 - step) * (cov + step * torch.outer(away, away))
        )
        slope = (moved - frechet_distance(*gaussian(real), mean, cov)) / step
        assert slope == pytest.approx(float(influences[i]), rel=0.03, abs=0.3)  # cov divides by n - 1 in one of them
    assert float(influences.mean()) == pytest.approx(0.0, abs=1e-9)


def test_the_standard_error_is_the_spread_over_redrawn_samples() -> None:
    real, root = drawn(400, 0, law(0)), law(1)
    values = [distance(real, drawn(300, seed, root, 0.3)) for seed in range(10, 130)]
    errors = [standard_error(real, drawn(300, seed, root, 0.3)) for seed in range(10, 20)]
    assert statistics.fmean(error for error in errors if error) == pytest.approx(statistics.stdev(values), rel=0.25)


def test_no_standard_error_where_the_covariance_is_singular() -> None:
    assert standard_error(drawn(50, 0, law(0)), drawn(WIDTH + 1, 1, law(0))) is None


def test_a_distance_of_fewer_images_than_twice_the_features_is_marked_on_either_side() -> None:
    few, enough = drawn(2 * WIDTH - 1, 0, law(0)), drawn(2 * WIDTH, 1, law(0))
    assert caution(enough, enough) == ""
    for real, made in ((few, enough), (enough, few)):
        assert "11 images for 6 features" in caution(real, made)
        assert "--metrics kid" in caution(real, made)


def test_the_standard_error_of_kid_is_the_spread_over_redrawn_samples() -> None:
    real, root = drawn(200, 0, law(0)), law(1)

    def complete(made: Tensor) -> float:
        m, n = len(made), len(real)
        within = kid._row_sums(made, made).sum() - kid._kernel_diagonal(made).sum()
        return float(within / (m * (m - 1)) - 2.0 * kid._row_sums(made, real).sum() / (m * n))

    values = [complete(drawn(150, seed, root)) for seed in range(10, 130)]
    errors = [kid.standard_error(real, drawn(150, seed, root)) for seed in range(10, 40)]
    assert statistics.fmean(errors) == pytest.approx(statistics.stdev(values), rel=0.25)


def test_the_jackknife_of_kid_equals_the_one_by_leaving_out() -> None:
    real, made = drawn(9, 0, law(0)), drawn(7, 1, law(1))

    def complete(x: Tensor) -> float:
        within = (x @ x.T / WIDTH + 1) ** 3
        across = (x @ real.T / WIDTH + 1) ** 3
        return float((within.sum() - within.trace()) / (len(x) * (len(x) - 1)) - 2 * across.mean())

    left = torch.tensor([complete(torch.cat([made[:i], made[i + 1 :]])) for i in range(7)], dtype=torch.float64)
    expected = math.sqrt(6 / 7 * float((left - left.mean()).square().sum()))
    assert kid.standard_error(real, made) == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------- extrapolation


def test_the_extrapolated_distance_is_unbiased_where_the_plain_one_is_not_and_its_interval_covers() -> None:
    real, root = drawn(300, 0, law(0)), law(0) + 0.1 * law(1)
    truth = frechet_distance(*gaussian(real), torch.zeros(WIDTH, dtype=torch.float64), root.T @ root)
    plain, limits = [], []
    for seed in range(10, 60):
        made = drawn(120, seed, root)
        plain.append(distance(real, made))
        limits.append(extrapolated(real, made, 4))
    values = [limit.value for limit in limits]
    error = statistics.stdev(values) / math.sqrt(len(values))
    assert statistics.fmean(values) == pytest.approx(truth, abs=4 * error)
    assert statistics.fmean(plain) - truth > 8 * error
    covered = sum(abs(limit.value - truth) < 1.96 * limit.se for limit in limits)
    assert covered >= 43  # of 50: 95 % but for 4 standard deviations


def test_a_quarter_of_the_samples_must_exceed_the_features(data_config: DataConfig) -> None:
    with pytest.raises(MetricError, match="no more images than the 6 features"):
        extrapolated(drawn(50, 0, law(0)), drawn(27, 1, law(0)), 2)
    with pytest.raises(UsageError, match=r"400 samples.*--set fid-infinity.count=516"):
        FIDInfinity().validate(DatasetInfo((1, 28, 28), 1000, 400), cast(Any, None), data_config)


# ---------------------------------------------------------------- ladder


def test_a_fitted_gaussian_has_the_mean_and_the_covariance_of_the_codes_singular_or_not() -> None:
    codes = drawn(500, 0, law(0), 2.0)
    codes[:, 0] = 3.0
    made = gaussian_draws(codes, 200_000, Generator().manual_seed(0))
    torch.testing.assert_close(made.mean(0), codes.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(made.T), torch.cov(codes.T), atol=0.15, rtol=0.02)
    assert float((made[:, 0] - 3.0).abs().max()) < 1e-6


def test_a_fitted_mixture_finds_the_modes_that_one_gaussian_blurs() -> None:
    modes = torch.tensor([[-5.0, 0.0], [5.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    codes = modes[torch.arange(600) % 3] + 0.1 * drawn(600, 0, law(0))[:, :2]
    made = mixture_draws(codes, 900, 3, Generator().manual_seed(0))
    nearest = torch.cdist(made, modes).min(1)
    assert float(nearest.values.max()) < 3.0
    assert nearest.indices.bincount(minlength=3).tolist() == pytest.approx([300, 300, 300], abs=60)


def test_constant_codes_are_fitted_by_a_point() -> None:
    codes = torch.full((200, 3), 1.5, dtype=torch.float64)
    for made in (
        gaussian_draws(codes, 50, Generator().manual_seed(0)),
        mixture_draws(codes, 50, 10, Generator().manual_seed(0)),
    ):
        torch.testing.assert_close(made, torch.full((50, 3), 1.5, dtype=torch.float64), atol=0.01, rtol=0)


def test_codes_that_no_mixture_fits_are_refused_in_one_line() -> None:
    codes = 1e28 * drawn(200, 0, law(0))[:, :1].expand(-1, 2)  # singular, and far above the ridge
    with pytest.raises(MetricError, match="gmm: no mixture fits the codes"):
        mixture_draws(codes, 10, 5, Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("rungs", "cause"),
    [
        ({"real": 1.0, "reconstructions": 20.0, "mixture": 22.0, "gaussian": 23.0, "prior": 24.0}, "the decoder"),
        ({"real": 1.0, "reconstructions": 3.0, "mixture": 5.0, "gaussian": 30.0, "prior": 31.0}, "latent mismatch"),
        ({"real": 1.0, "reconstructions": 3.0, "mixture": 30.0, "gaussian": 31.0, "prior": 32.0}, "holes between"),
        ({"real": 1.0, "reconstructions": 1.0, "mixture": 1.0, "prior": 0.9}, "nothing is lost"),
        ({"real": 5.0, "reconstructions": 0.0, "mixture": 5.0, "prior": 5.5}, "latent mismatch (0.500 of 0.500)"),
    ],
)
def test_the_ladder_names_the_step_that_costs_most(rungs: dict[str, float], cause: str) -> None:
    assert cause in verdict(rungs)


# ---------------------------------------------------------------- a real run, however it is computed


@pytest.fixture
def run(registry: Registry, planned: Callable[..., Plan], data_config: DataConfig) -> Callable[..., Evaluation]:
    """An evaluation of an untrained model on the tiny dataset at a size that grey28 takes."""

    def make(model: str = "vae", **changes: Images) -> Evaluation:
        plan = planned(model, settings=("dots.size=28",))
        torch.manual_seed(3)
        made = create_model(registry, plan.runs[0], (1, 28, 28))
        images = changes.get("images") or create_dataset(registry, plan.runs[0].dataset).load(data_config)
        record = TrainingStats(1.0, 1, 1, "cpu", 1)
        return RunEvaluation(
            made,
            made.context,
            images,
            seed=0,
            device=torch.device("cpu"),
            training=record,
            data_config=data_config,
            memory={},
        )

    return make


METRICS: list[Callable[[], Any]] = [
    lambda: FID(count=700),
    lambda: KID(count=700, subsets=5, subset_size=50),
    lambda: FIDInfinity(count=700, partitions=2),
    lambda: FIDLadder(count=700, codes=100),
    lambda: FIDInterpolation(count=700),
]


@pytest.mark.parametrize("metric", METRICS, ids=["fid", "kid", "fid-infinity", "fid-ladder", "fid-interpolation"])
def test_no_number_depends_on_the_batch_of_the_evaluation_or_on_what_was_measured_before(
    metric: Callable[[], Any], run: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [m.value for m in metric().measure(run())]
    monkeypatch.setattr(genbench.evaluation.evaluation, "BATCH", 37)
    monkeypatch.setattr(genbench.features.extractor, "BATCH", 11)
    evaluation = run()
    evaluation.samples(900), evaluation.codes(7), list(FID(count=300).measure(evaluation))
    assert [m.value for m in metric().measure(evaluation)] == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_the_ladder_has_a_rung_for_each_cause_and_its_last_one_is_fid(run: Callable[..., Evaluation]) -> None:
    evaluation = run("ae")
    rungs = {m.component: m for m in FIDLadder(count=60, codes=100).measure(evaluation)}
    assert list(rungs) == ["real", "reconstructions", "mixture", "gaussian", "prior"]
    (plain,) = FID(count=60).measure(evaluation)
    assert rungs["prior"].value == plain.value
    assert rungs["real"].value == plain.floor
    assert len({m.protocol.key for m in rungs.values()}) == 5


def test_a_spherical_midpoint_keeps_the_length_and_halves_the_angle() -> None:
    a, b = drawn(50, 0, law(0)), drawn(50, 1, law(1))
    a, b = a / a.norm(dim=1, keepdim=True) * 2.0, b / b.norm(dim=1, keepdim=True) * 2.0
    half = midpoints(a, b, "spherical")
    torch.testing.assert_close(half.norm(dim=1), torch.full((50,), 2.0, dtype=a.dtype))
    torch.testing.assert_close((half * a).sum(1), (half * b).sum(1))
    torch.testing.assert_close(midpoints(a, a, "spherical"), a)
    torch.testing.assert_close(midpoints(a, b, "linear"), (a + b) / 2)


@pytest.mark.parametrize("path", ["spherical", "linear"])
def test_midpoints_on_a_line_through_the_origin_are_means(path: Any) -> None:
    a, b = torch.tensor([[1.0], [1.0], [0.0], [0.0]]).double(), torch.tensor([[3.0], [-3.0], [4.0], [0.0]]).double()
    torch.testing.assert_close(midpoints(a, b, path), (a + b) / 2)


def test_interpolations_of_equal_codes_are_their_image_and_nan_is_refused(run: Callable[..., Evaluation]) -> None:
    evaluation, seen = run("ae"), []
    code = evaluation.codes(1).clone()
    metric = FIDInterpolation(count=60)
    plain = metric.extracted

    def extracted(extractor: Any, images: Tensor, name: str) -> Tensor:
        seen.append(images)
        return plain(extractor, images, name)

    metric.extracted = extracted  # type: ignore[method-assign]
    evaluation.codes = lambda n: code.expand(500, -1)  # type: ignore[method-assign]
    (measured,) = metric.measure(evaluation)
    assert torch.equal(seen[-1], evaluation.decode(code).expand(60, -1, -1, -1))
    assert measured.n == 60
    assert measured.protocol.detail == "spherical midpoints of pairs of held-out codes"
    evaluation.codes = lambda n: code.expand(500, -1) * torch.nan  # type: ignore[method-assign]
    with pytest.raises(MetricError, match="500 of 500 codes are NaN or infinite"):
        list(FIDInterpolation(count=60).measure(evaluation))


def test_reconstructions_draw_nothing_and_have_no_standard_error(
    run: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genbench_fid.ladder.standard_error", lambda real, made: 1.0)
    errors = {m.component: m.se for m in FIDLadder(count=60, codes=100).measure(run("ae"))}
    assert {component for component, se in errors.items() if se is None} == {"reconstructions"}


def test_codes_that_cannot_be_had_leave_the_ladder_out(run: Callable[..., Evaluation]) -> None:
    evaluation = run("ae")

    def no_codes(n: int) -> Tensor:
        raise NotApplicableError("no encoder")

    evaluation.training_codes = no_codes  # type: ignore[method-assign]
    with pytest.raises(NotApplicableError):
        list(FIDLadder(count=60, codes=100).measure(evaluation))


def test_kid_compares_whole_samples_once_and_parts_as_often_as_asked(
    run: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subsets of all the images differ in their order alone, so that one has the mean of many."""
    calls: list[tuple[Any, dict[str, Any]]] = []
    compare = metric_kid.kid_features_to_metric

    def noted(*features: Tensor, **options: Any) -> Any:
        calls.append((features, options))
        return compare(*features, **options)

    monkeypatch.setattr(metric_kid, "kid_features_to_metric", noted)
    for size in (60, 59):
        (measured,) = KID(count=60, subsets=7, subset_size=size).measure(run())
        features, options = calls[-1]
        many = compare(*features, **{**options, "kid_subsets": 7})
        assert measured.value == pytest.approx(many["kernel_inception_distance_mean"], rel=1e-9)
    assert [options["kid_subsets"] for _, options in calls] == [1, 7]


def test_a_validation_evaluation_never_looks_at_test_images(run: Callable[..., Evaluation]) -> None:
    images = run().images
    blind = replace(images, test=images.test[:0])
    for metric in (FID(split="held-out", count=60), FID(count=60), KID(count=60, subsets=2)):
        evaluation = run(images=blind)
        evaluation.split = "validation"
        (measured, *_) = metric.measure(evaluation)
        assert (measured.protocol.split, measured.protocol.references) == ("validation", 20)


def test_one_class_missing_and_equal_images_have_a_number(run: Callable[..., Evaluation]) -> None:
    images = run().images
    for test in (images.test[images.test_labels != 0], images.test[:1].expand(60, -1, -1, -1)):
        (measured,) = FID(count=60).measure(run(images=replace(images, test=test)))
        assert measured.value > 0
        assert math.isfinite(measured.value)


def test_features_that_are_nan_are_refused_by_name(
    run: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genbench_fid.base.extract", lambda extractor, images: torch.full((len(images), 3), math.nan))
    with pytest.raises(MetricError, match=r"features of the real images \(fid\) are not finite"):
        list(FID(count=60).measure(run()))


def test_the_protocol_is_complete_and_the_same_for_every_seed_and_model(run: Callable[..., Evaluation]) -> None:
    protocols = set()
    for model, seed in (("vae", 0), ("ae", 1)):
        evaluation = run(model)
        evaluation.seed = seed
        protocols |= {m.protocol for m in FID(count=60).measure(evaluation)}
    (protocol,) = protocols
    assert protocol.resize == "none"
    assert "rounded to uint8" in protocol.values
    assert protocol.weights.startswith("shipped ")
    assert SimpleNamespace(**vars(protocol)).dtype == "float32"


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the extractor was given."""
    counts: list[int] = []

    def extract(extractor: Any, images: Tensor) -> Tensor:
        counts.append(len(images))
        return genbench.features.extractor.extract(extractor, images)

    monkeypatch.setattr("genbench_fid.base.extract", extract)
    return counts


def test_a_second_command_extracts_no_feature_of_a_real_image(
    run: Callable[..., Evaluation], extracted: list[int]
) -> None:
    metrics = (FID(count=70), KID(count=70, subsets=2))
    first = [m.value for metric in metrics for m in metric.measure(run())]
    real = len(run().images.test)
    assert sorted(extracted) == sorted([real, 70, 70, 70])
    extracted.clear()
    assert [m.value for metric in metrics for m in metric.measure(run())] == first
    assert extracted == [70, 70]  # samples of each of two evaluations alone


def test_features_on_disk_are_those_of_the_very_images(run: Callable[..., Evaluation], extracted: list[int]) -> None:
    (plain,) = FID(count=70, floor=False).measure(run())
    images = run().images
    (measurement,) = FID(count=70, floor=False).measure(run(images=replace(images, test=255 - images.test)))
    assert measurement.value != plain.value


def test_damaged_features_are_extracted_anew_with_a_line(
    run: Callable[..., Evaluation], extracted: list[int], data_config: DataConfig
) -> None:
    (plain,) = FID(count=70, floor=False).measure(run())
    (path,) = (data_config.cache / "features").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\0\1\2\3")
    extracted.clear()
    evaluation, lines = run(), []
    evaluation.data_config = replace(data_config, report=lambda progress: lines.append(progress.what))
    (again,) = FID(count=70, floor=False).measure(evaluation)
    assert again.value == plain.value
    assert extracted[0] == len(evaluation.images.test)
    test = len(evaluation.images.test)
    once = f"grey28 features of {test} real images, extracted once and kept"
    assert lines == [f"features anew, since {path} is damaged", once]
    assert len(load_tensors(path)[0]["features"]) == len(evaluation.images.test)  # it is whole again


def test_the_features_on_disk_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 25)
    paths = [tmp_path / f"{i}.safetensors" for i in range(4)]
    for age, path in enumerate(paths):
        path.write_bytes(bytes(10))
        os.utime(path, (age, age))
    cache.bound(tmp_path, paths[0])
    assert sorted(tmp_path.iterdir()) == [paths[0], paths[3]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_number_is_the_same_on_a_gpu(run: Callable[..., Evaluation], tmp_path: Path) -> None:
    here, there = run(), run()
    there.device = torch.device("cuda")
    there.model.to("cuda")
    values = [[m.value for m in FID(count=700).measure(e)] for e in (here, there)]
    assert values[1] == pytest.approx(values[0], rel=1e-3)


STATED: dict[str, tuple[str, dict[str, int]]] = {
    "fid": ("samples", {"count": 60}),
    "kid": ("samples", {"count": 60, "subsets": 2, "subset_size": 20}),
    "density-coverage": ("samples", {"count": 40}),
    "inception-score": ("samples", {"n": 40, "splits": 2}),
    "sharpness": ("samples", {"n": 30}),
    "pixel-sw": ("samples", {"n": 40, "blocks": 4, "projections": 5}),
    "nearest-train": ("samples", {"n": 20}),
    "latent-sw": ("codes", {"n": 40, "blocks": 4, "replicates": 2, "projections": 5}),
}


@pytest.mark.parametrize("name", STATED)
def test_a_metric_asks_for_as_many_samples_and_codes_as_it_states(
    name: str, registry: Registry, run: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    piece, options = STATED[name]
    evaluation, asked = run(), []
    plain = getattr(evaluation, piece)
    monkeypatch.setattr(evaluation, piece, lambda n: asked.append(n) or plain(n))
    metric = registry.get("metric", name).spec.factory(**options)
    list(metric.measure(evaluation))
    images = evaluation.images
    assert metric.counts_needed(DatasetInfo(images.shape, len(images.train), len(images.test))) == {piece: max(asked)}
