"""Controls: what each must score by theorem, and that a study plans, records, skips and reports them like runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result
from PIL import Image
from torch import Tensor

from conftest import DOTS
from genbench.api import DataConfig, Images, Noise, TrainingStats
from genbench.data.images import to_float
from genbench.distances import frechet_distance, random_projections, sliced_wasserstein_cost
from genbench.errors import GenbenchError, MetricError, NotApplicableError, UnsupportedError
from genbench.evaluation.controls import ControlEvaluation, fit_control
from genbench.execution.executors.serial import SerialExecutor
from genbench.execution.scheduler import Outcome, run_all
from genbench.experiment.build import create_context, create_control, create_model
from genbench.experiment.plan import Plan
from genbench.experiment.run import Run, run_of_record
from genbench.registry.loader import Registry, load
from genbench.storage.results import rows
from genbench.storage.run_dir import RunFolder, find_runs, read_run, read_runs
from genbench.utils.rng import derive_seed
from support.runners import runner_of

Genbench = Callable[..., Result]
NAMES = ("held-out", "replay", "pca", "untrained", "mean-image", "noise")
TINY = ("--plugin", str(DOTS), "--dataset", "dots", "--network", "mlp", "--images", "32", "--batch", "16")
NORMAL = ("--metrics", "reconstruction,sharpness,latent-sw", "--set", "latent-sw.n=60", "--set", "sharpness.n=60")
FAULTY_CONTROL = """
from genbench.api import Control, ComponentSpec
from genbench.hookspecs import hookimpl
class Broken(Control):
    def fit(self, images, setting):
        raise ZeroDivisionError("no reason")
    def sample(self, n, evaluation):
        raise NotImplementedError
@hookimpl
def genbench_controls():
    yield ComponentSpec(name="{name}", description="a test", factory=Broken)
"""


@pytest.fixture(scope="module")
def images() -> Images:
    """1,300 correlated training images, 700 test images of 6 x 6 pixels: several blocks, and no multiple of one."""
    draws = torch.Generator().manual_seed(3)
    mixing = torch.randn(36, 36, generator=draws) * torch.linspace(1.0, 0.05, 36)[:, None]
    pixels = 128 + 14 * torch.randn(2000, 36, generator=draws) @ mixing
    drawn = pixels.round().clamp(0, 255).to(torch.uint8).view(2000, 1, 6, 6)
    return Images(drawn[:1300], drawn[1300:], drawn[:0], sha256="c" * 64)


Evaluate = Callable[..., ControlEvaluation]


@pytest.fixture
def evaluate(registry: Registry, planned: Callable[..., Plan], images: Images, tmp_path: Path) -> Evaluate:
    """The evaluation of a fitted control on those images."""

    def make(
        name: str,
        d: int = 4,
        prior: str = "normal",
        seed: int = 0,
        data: Images = images,
        settings: tuple[str, ...] = (),
    ) -> ControlEvaluation:
        chosen = planned("ae", controls=(name,), latent_dims=(d,), priors=(prior,), settings=settings).runs
        (run,) = (run for run in chosen if run.role == "control")
        control, setting = create_control(registry, run), create_context(registry, run, (1, 6, 6))
        torch.manual_seed(seed)
        control.fit(data, setting)
        record = TrainingStats(1.0, 0, control.parameters, "cpu", 1)
        data_config, cpu = DataConfig(tmp_path, tmp_path), torch.device("cpu")
        return ControlEvaluation(
            control, setting, data, seed=seed, device=cpu, training=record, data_config=data_config, memory={}
        )

    return make


def gaussian_distance(x: Tensor, y: Tensor) -> float:
    """The Frechet distance of pixels."""
    x, y = (images.flatten(1).double() / 255 for images in (x, y))
    return frechet_distance(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())


def exact(x: Tensor) -> Tensor:
    return x.flatten(1).double() / 255


# ---------------------------------------------------------------- theorems


def test_held_out_images_are_at_no_distance_from_themselves(evaluate: Evaluate) -> None:
    e = evaluate("held-out")
    assert gaussian_distance(e.samples(700), e.references) < 1e-9
    assert torch.equal(e.reconstructions(0), to_float(e.held_out(0)))


def test_replay_hands_out_training_images_each_once(evaluate: Evaluate) -> None:
    e = evaluate("replay")
    made = e.samples(900).flatten(1).tolist()
    training = {tuple(image) for image in e.images.train.flatten(1).tolist()}
    assert {tuple(image) for image in made} <= training
    assert sorted(map(tuple, e.samples(1300).flatten(1).tolist())) == sorted(
        map(tuple, e.images.train.flatten(1).tolist())
    )


def test_the_mean_image_errs_by_the_spread_of_held_out_images_about_the_training_mean(evaluate: Evaluate) -> None:
    e = evaluate("mean-image")
    mean = exact(e.images.train).mean(0)
    error = (e.reconstructions(0) - to_float(e.held_out(0))).square().double().mean()
    test = exact(e.images.test)
    assert float(error) == pytest.approx(float((test - mean).square().mean()), rel=1e-5)
    bias = (test.mean(0) - mean).square().mean()
    assert float(error) == pytest.approx(float(test.var(0, correction=0).mean() + bias), rel=1e-5)
    assert len(e.samples(50).unique(dim=0)) == 1


@pytest.mark.parametrize("d", [1, 4, 20])
def test_pca_errs_by_the_sum_of_the_variances_it_discards(evaluate: Evaluate, d: int) -> None:
    e = evaluate("pca", d)
    x = to_float(e.images.train)
    control = e._control
    error = (control.linear(control.encode(x)) - x).square().flatten(1).sum(1).double().mean()
    spectrum = torch.linalg.eigvalsh(torch.cov(exact(e.images.train).T, correction=0))
    assert float(error) == pytest.approx(float(spectrum[:-d].sum()), rel=1e-4)
    cut = (control.reconstruct(x) - x).square().flatten(1).sum(1).double().mean()
    assert cut <= error  # [0, 1] is convex and holds x


def test_pca_of_fewer_images_than_pixels_is_the_same_pca(evaluate: Evaluate, images: Images) -> None:
    """The n x n products have the spectrum of the p x p covariance; 30 images of 36 pixels."""
    few = replace(images, train=images.train[:30])
    e = evaluate("pca", 5, data=few)
    values, vectors = torch.linalg.eigh(torch.cov(exact(few.train).T, correction=0))
    axes = e._control.axes.double()
    torch.testing.assert_close(
        (axes @ vectors[:, -5:].flip(1)).abs(), torch.eye(5, dtype=torch.float64), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(e._control.deviations.double().square(), values[-5:].flip(0), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("prior", "setting"), [("normal", "normal.sigma=3"), ("uniform", "uniform.low=0"), ("sphere", "pca.images=0")]
)
def test_pca_codes_of_training_images_have_the_moments_of_the_prior(
    evaluate: Evaluate, prior: str, setting: str
) -> None:
    e = evaluate("pca", prior=prior, settings=(setting,))
    codes, law = e.training_codes(0).double(), e.context.prior
    torch.testing.assert_close(codes.mean(0), law.mean.double(), atol=1e-3, rtol=0)
    expected = torch.diag(law.variance.double())
    torch.testing.assert_close(codes.T.cov(correction=0), expected, atol=1e-3, rtol=1e-3)


def test_pca_codes_of_a_gaussian_follow_the_prior_and_untrained_ones_do_not(evaluate: Evaluate) -> None:
    theta = random_projections(50, 4, Noise(torch.Generator().manual_seed(0)), torch.float64)
    apart = {}
    for name in ("pca", "untrained"):
        e = evaluate(name)
        draws = e.prior_draws(700, "test").double()
        apart[name] = float(sliced_wasserstein_cost(e.codes(0).double(), draws, theta))
    assert apart["pca"] < 0.05 < apart["untrained"]


def test_pca_reconstructs_better_the_more_axes_it_has_and_better_than_the_mean(evaluate: Evaluate) -> None:
    def error(e: ControlEvaluation) -> float:
        return float((e.reconstructions(0) - to_float(e.held_out(0))).square().mean())

    errors = [error(evaluate("mean-image"))] + [error(evaluate("pca", d)) for d in (1, 4, 16, 32)]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == 5


def test_noise_is_further_from_the_images_than_anything_fitted_to_them(evaluate: Evaluate) -> None:
    far = {name: gaussian_distance(evaluate(name).samples(700), evaluate(name).references) for name in NAMES}
    assert max(far, key=lambda name: far[name]) == "noise"
    assert far["held-out"] < far["replay"] < far["pca"] < far["noise"]
    pixels = evaluate("noise").samples(1000).double()
    assert abs(float(pixels.mean()) - 127.5) < 1.5
    assert abs(float(pixels.var()) - (256**2 - 1) / 12) < 60


# ---------------------------------------------------------------- as metrics see them


@pytest.mark.parametrize("name", NAMES)
def test_nothing_depends_on_what_was_asked_before_and_all_is_the_same_again(evaluate: Evaluate, name: str) -> None:
    small_first, large_only = evaluate(name), evaluate(name)
    for n in (3, 130, 600, 700):
        for piece in ("codes", "samples", "reconstructions", "training_codes"):
            try:
                block = getattr(small_first, piece)(n)
            except NotApplicableError:
                continue
            assert torch.equal(block, getattr(large_only, piece)(700)[:n]), piece
    assert torch.equal(small_first.samples(9), evaluate(name).samples(9))


def test_a_control_without_codes_or_model_raises_not_applicable(evaluate: Evaluate) -> None:
    for name in ("held-out", "replay", "mean-image", "noise"):
        for ask in ("codes", "training_codes"):
            with pytest.raises(NotApplicableError, match="no codes"):
                getattr(evaluate(name), ask)(10)
        with pytest.raises(NotApplicableError):
            _ = evaluate(name).model
    for name in ("replay", "noise"):
        with pytest.raises(NotApplicableError):
            evaluate(name).reconstructions(10)
    for name in ("held-out", "replay"):
        with pytest.raises(NotApplicableError, match="1301 samples"):
            evaluate(name).samples(1301)
    with pytest.raises(MetricError, match="700"):
        evaluate("pca").codes(701)


def test_draws_are_those_of_the_models_and_noise_follows_the_seed(evaluate: Evaluate) -> None:
    e = evaluate("pca")
    assert torch.equal(e.samples(40), e.decode(e.prior_draws(500, "samples"))[:40])
    for name in ("replay", "noise", "untrained"):
        assert not torch.equal(evaluate(name).samples(40), evaluate(name, seed=1).samples(40))


def test_untrained_has_the_weights_that_an_autoencoder_of_the_seed_begins_with(
    registry: Registry, planned: Callable[..., Plan], images: Images, tmp_path: Path
) -> None:
    model, control = planned("ae", controls=("untrained",), seeds=(7,)).runs
    torch.manual_seed(99)  # whatever went before
    refitted = fit_control(registry, control, RunFolder(tmp_path), images, torch.device("cpu"))
    torch.manual_seed(derive_seed(7, "weights"))
    begun = create_model(registry, model, images.shape).eval()
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(refitted.decode(z), begun.decode(z))  # type: ignore[attr-defined]
    assert refitted.parameters == sum(p.numel() for p in begun.parameters())


# ---------------------------------------------------------------- as a study plans them


def controls_of(plan: Plan) -> list[Run]:
    return [run for run in plan.runs if run.role == "control"]


def test_controls_come_once_at_the_first_seed_and_those_with_codes_for_each_cell(planned: Callable[..., Plan]) -> None:
    study = planned("ae", "swae", controls=("all",), priors=("normal", "uniform"), latent_dims=(2, 4), seeds=(3, 4))
    controls = controls_of(study)
    counts = {name: sum(run.model.name == name for run in controls) for name in NAMES}
    assert counts == {"held-out": 1, "replay": 1, "pca": 4, "untrained": 4, "mean-image": 1, "noise": 1}
    assert {run.seed for run in controls} == {3}
    assert list(study.runs[-len(controls) :]) == controls
    assert len({run.name for run in study.runs}) == len(study.runs)
    assert all("-control-" in run.name for run in controls)
    for run in study.runs:
        assert run_of_record(json.loads(json.dumps(run.record()))) == run


def test_a_control_is_the_same_whatever_budget_the_models_have(planned: Callable[..., Plan]) -> None:
    short, long = planned("ae", controls=("pca",)), planned("swae", controls=("pca",), images=320, batch=32)
    assert controls_of(short) == controls_of(long)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"controls": ("nois",)}, "there is no control 'nois': did you mean 'noise'?"),
        ({"controls": ("swae",)}, "it is a model; put the models first, or write --controls=all"),
        ({"controls": ("noise", "noise")}, "the control 'noise' is named twice"),
        (
            {"controls": ("pca",), "latent_dims": (100,)},
            "'pca': 100 images of 144 values have at most 99",
        ),
        ({"controls": ("pca",), "settings": ("pca.images=2",)}, "at most 1 principal axes, not 2"),
        ({"controls": ("noise",), "settings": ("pca.images=2",)}, "the control 'pca' is no part of this study"),
    ],
)
def test_impossible_controls_are_refused_while_planning(
    planned: Callable[..., Plan], fields: dict[str, object], message: str
) -> None:
    with pytest.raises(GenbenchError, match=message.replace("?", r"\?")) as caught:
        planned("ae", **fields)
    assert "\n" not in str(caught.value)


def test_a_control_may_not_be_called_like_a_model_of_the_study(genbench: Genbench, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FAULTY_CONTROL.format(name="ae"))
    result = genbench("run", "ae", "--plugin", "mine.py", *TINY, "--controls", "noise,ae")
    assert result.exit_code == 2
    assert "'ae' names a model and a control of this study" in result.output
    assert "--controls noise" in result.output


def test_images_of_too_low_a_rank_are_refused_when_pca_is_fitted(evaluate: Evaluate, images: Images) -> None:
    flat = replace(images, train=images.train[:40].clone())
    flat.train[:, :, 1:] = 0  # six pixels vary
    with pytest.raises(UnsupportedError, match="vary along 6 axes, not 8"):
        evaluate("pca", 8, data=flat)
    with pytest.raises(UnsupportedError, match="vary along 6 axes, not 8"):
        evaluate("pca", 8, data=replace(flat, train=flat.train[:20]))


# ---------------------------------------------------------------- as a store keeps them


def test_a_study_with_controls_shows_records_and_skips_them(genbench: Genbench) -> None:
    command = ("run", "ae", *TINY, *NORMAL, "--latent-dim", "2", "--controls")
    dry = genbench(*command, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "1 run and 6 controls on dots" in dry.output
    assert all(f"control {name}" in dry.output for name in NAMES)
    result = genbench(*command)
    assert result.exit_code == 0, result.output
    table = list(csv.DictReader(io.StringIO(genbench("report", "--format", "csv").stdout)))
    roles = {row["model"]: row["role"] for row in table}
    assert roles == {"ae": "model", **dict.fromkeys(NAMES, "control")}
    numbers = {(row["model"], row["metric"]): row["value"] for row in table}
    assert float(numbers["held-out", "reconstruction.pixel"]) == 0.0
    assert ("pca", "latent-sw.excess") in numbers
    assert ("held-out", "latent-sw.excess") not in numbers
    assert {row["status"] for row in table} == {"done"}
    folder = next(Path("runs").glob("dots-control-pca-*"))
    assert {path.name for path in folder.iterdir()} >= {"run.json", "training.json", "metrics.json", "samples.png"}
    assert not list(Path("runs").glob("dots-control-*/weights.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in Path("runs").glob("*/*.json")}
    assert "7 done" in genbench(*command).output
    assert before == {path: path.stat().st_mtime_ns for path in Path("runs").glob("*/*.json")}
    with Image.open(next(Path("runs").glob("dots-control-held-out-*")) / "reconstructions.png") as picture:
        assert picture.size[0] == 8 * 14 + 2


def test_controls_are_measured_again_shown_and_exported(genbench: Genbench) -> None:
    assert genbench("run", "ae", *TINY, *NORMAL, "--latent-dim", "2", "--controls=pca,noise").exit_code == 0
    measured = genbench(
        "evaluate",
        "runs",
        "--metrics",
        "latent-mmd",
        "--set",
        "latent-mmd.n=50",
        "--set",
        "latent-mmd.blocks=5",
        *TINY[:2],
    )
    assert measured.exit_code == 0, measured.output
    measured_metrics = {
        row.model: row.metric for row in rows(read_runs(find_runs([Path("runs")]))[0]) if row.metric == "latent-mmd"
    }
    assert set(measured_metrics) == {"ae", "pca"}
    shown = genbench("show", "dots-control-noise")
    assert "does not apply: this control has no codes" in shown.output
    refused = genbench("sample", "dots-control-pca", "--out", "x.png", *TINY[:2])
    assert refused.exit_code == 2
    assert "is a control, not a model" in refused.output
    assert genbench("report", "--export", "out").exit_code == 0
    assert "control-pca" in Path("out/report.html").read_text()


def test_controls_that_nothing_applies_to_have_a_row(genbench: Genbench) -> None:
    result = genbench("run", "ae", *TINY, "--metrics", "speed", "--latent-dim", "2", "--controls", "noise")
    assert result.exit_code == 0, result.output
    (row,) = (row for row in rows(read_runs(find_runs([Path("runs")]))[0]) if row.role == "control")
    assert (row.metric, row.status, row.images) == ("", "done", 0)


def test_held_out_images_have_an_fid_of_zero(genbench: Genbench) -> None:
    words = ("--metrics", "fid", "--set", "dots.size=28", "--latent-dim", "2", "--controls")
    result = genbench("run", "ae", *TINY, *words)
    assert result.exit_code == 0, result.output
    fid = {row.model: row.value for row in rows(read_runs(find_runs([Path("runs")]))[0]) if row.metric == "fid"}
    assert fid["held-out"] is not None
    assert fid["held-out"] < 1e-4
    assert all(fid["held-out"] < fid[name] / 1000 for name in fid if name != "held-out")
    assert fid["replay"] < min(fid[name] for name in ("pca", "untrained", "mean-image", "noise", "ae"))


def test_a_control_that_fails_is_recorded_and_the_others_go_on(
    tmp_path: Path, data_config: DataConfig, grid: Callable[..., object]
) -> None:
    from genbench.experiment.plan import plan

    (tmp_path / "mine.py").write_text(FAULTY_CONTROL.format(name="broken"))
    registry = load([DOTS, tmp_path / "mine.py"])
    made = plan(grid(("ae",), controls=("broken", "mean-image")), registry, data_config)  # type: ignore[arg-type]

    def run() -> Outcome:
        runner = runner_of(made, registry, tmp_path / "runs", data_config)
        return run_all(made, SerialExecutor(runner), runner)

    outcome = run()
    assert len(outcome.done) == 2
    (name,) = outcome.failed
    assert read_run(tmp_path / "runs" / name).failure.endswith("in fit: ZeroDivisionError: no reason")
    again = run()
    assert (len(again.skipped), list(again.failed)) == (2, [name])
