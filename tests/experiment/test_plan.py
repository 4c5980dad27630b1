"""Planning: every name, option and pair is checked before anything trains, and the key covers what affects weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from conftest import DOTS
from genbench.api import DataConfig
from genbench.errors import GenbenchError, UnsupportedError, UsageError
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, changed_sources, create_components, plan
from genbench.experiment.run import Run, distinct_names, run_of_record
from genbench.registry.loader import Registry, load


@pytest.mark.parametrize(
    ("models", "fields", "message"),
    [
        (["swea"], {}, "there is no model 'swea': did you mean 'swae'?"),
        (["swae"], {"priors": ("rong",)}, "there is no prior 'rong': did you mean 'ring'?"),
        (["swae", "ring"], {}, "there is no model 'ring': it is a prior; several are given with commas: --prior"),
        (["swae"], {"dataset": "mnits"}, "did you mean 'mnist'?"),
        (["swae"], {"network": "mpl"}, "there is no network 'mpl'"),
        (["swae"], {"metrics": ("reconstructon",)}, "did you mean 'reconstruction'?"),
        (["swae", "swae"], {}, "the model 'swae' is named twice"),
        (["swae"], {"settings": ("swae.wieght=1",)}, "did you mean 'weight'?"),
        (["swae"], {"settings": ("swae.weight=heavy",)}, r"swae\.weight=heavy: not a float"),
        (["swae"], {"settings": ("swae.projections=0",)}, r"swae\.projections=0: must be at least 1"),
        (["swae"], {"settings": ("swae.weight=nan",)}, r"not a float"),
        (["swae"], {"settings": ("swae.weight",)}, r"it takes the form NAME\.OPTION=VALUE"),
        (["swae"], {"settings": ("vae.rate=1",)}, "the model 'vae' is no part of this study"),
        (["swae", "swae"], {}, "--set swae.OPTION=A,B"),
        (["swae"], {"settings": ("swae.weight=1", "swae.weight=1")}, "swae.weight has a value twice"),
        (["swae"], {"settings": ("swae.weight=1,1.0",)}, "two of these values are equal"),
        (["swae"], {"settings": ("swae.weight=1", "model.weight=2")}, "is set by swae.weight and by model.weight"),
        (["swae"], {"settings": ("swae.weight=1,x",)}, "swae.weight=x: not a float"),
        (["swae"], {"settings": ("dots.size=1,2",)}, "a study has one dataset"),
        (["swae", "ae"], {"settings": ("model.weight=1",)}, "ae has none called 'weight'"),
        (["swae"], {"batch": 101}, "has 100 training images"),
        (["swae"], {"priors": ("ring",), "latent_dims": (3,)}, "ring"),
        (["vae"], {"priors": ("uniform",)}, "(?i)kl"),
        (["swae"], {"network": "swae-mnist"}, "28"),
        (["swae"], {"metrics": ("latent-w2",)}, "2,?000"),
    ],
)
def test_impossible_grids_are_refused_in_one_line_before_training(
    planned: Callable[..., Plan], models: list[str], fields: dict[str, object], message: str
) -> None:
    with pytest.raises(GenbenchError, match=message) as caught:
        planned(*models, **fields)
    assert "\n" not in str(caught.value)


def test_every_impossible_pair_is_named_at_once(planned: Callable[..., Plan]) -> None:
    with pytest.raises(GenbenchError) as caught:
        planned("swae", "vae", priors=("normal", "uniform", "sphere"))
    assert "uniform" in str(caught.value).lower()
    assert "sphere" in str(caught.value).lower()


def test_the_grid_is_the_product_of_its_axes(planned: Callable[..., Plan]) -> None:
    study = planned("swae", "ae", priors=("normal", "uniform"), latent_dims=(2, 4), seeds=(0, 1, 2))
    assert len(study.runs) == 2 * 2 * 2 * 3
    assert len({run.key for run in study.runs}) == len(study.runs)
    assert [run.seed for run in study.runs] == sorted(run.seed for run in study.runs)  # balanced when interrupted


def test_values_of_an_option_are_an_axis(planned: Callable[..., Plan]) -> None:
    """Of a model, a prior and a network alike; the keys are those of studies with a single value."""
    settings = ("swae.weight=1,10", "uniform.high=2, 3", "mlp.width=8", "mlp.width=16")
    study = planned("swae", "ae", priors=("uniform",), settings=settings, seeds=(0, 1))
    assert len(study.runs) == (2 + 1) * 2 * 2 * 2
    assert len({run.key for run in study.runs}) == len(study.runs)
    single = planned("swae", priors=("uniform",), settings=("swae.weight=10", "uniform.high=3", "mlp.width=16"))
    assert single.runs[0].key in {run.key for run in study.runs}
    assert study.size(study.runs[0]) < study.size(next(run for run in study.runs if run.network.values["width"] == 16))


def test_values_of_a_metrics_option_are_measurements_of_one_run(planned: Callable[..., Plan]) -> None:
    study = planned("swae", metrics=("latent-w2",), settings=("latent-w2.n=20,40",))
    assert len(study.runs) == 1
    assert [metric.values["n"] for metric in study.metrics] == [20, 40]


def test_a_comma_within_a_text_is_part_of_it(registry: Registry, grid: Callable[..., ExperimentConfig]) -> None:
    """Several texts are given by a setting for each."""
    config = grid(("swae",), dataset="folder", settings=("folder.path=a,b",))
    assert create_components(config, registry)["dataset", "folder"][0].values["path"] == "a,b"
    config = grid(("swae",), metrics=("fid",), settings=("fid.weights=a,b", "fid.weights=c"))
    components = create_components(config, registry)["metric", "fid"]
    assert [component.values["weights"] for component in components] == ["a,b", "c"]


def test_components_of_one_name_are_named_by_the_options_that_differ(planned: Callable[..., Plan]) -> None:
    study = planned("swae", "ae", settings=("swae.weight=1,10",))
    assert [*distinct_names(run.model for run in study.runs).values()] == [
        "swae (weight=1.0)",
        "swae (weight=10.0)",
        "ae",
    ]


def test_the_key_covers_what_affects_the_weights_and_nothing_else(planned: Callable[..., Plan]) -> None:
    base = planned().runs[0]
    same = planned("swae", metrics=("sharpness",)).runs[0]
    assert same.key == base.key
    changes: list[dict[str, object]] = [
        {"settings": ("swae.weight=3",)},
        {"settings": ("normal.sigma=2",)},
        {"settings": ("mlp.width=20",)},
        {"batch": 17},
        {"images": 161},
        {"latent_dims": (3,)},
        {"seeds": (1,)},
    ]
    keys = {planned("swae", **change).runs[0].key for change in changes}
    assert len(keys | {base.key}) == len(changes) + 1
    other_source = replace(base, model=replace(base.model, fingerprint="another"))
    assert other_source.key != base.key


def test_a_record_describes_its_run_completely(planned: Callable[..., Plan]) -> None:
    run = planned("wae-gan", settings=("wae-gan.log-density=true",)).runs[0]
    assert run_of_record(run.record()) == run


def test_epochs_count_the_training_set(planned: Callable[..., Plan]) -> None:
    assert planned("swae", images=None, epochs=3).runs[0].images == 300


def test_a_setting_may_name_the_kind(planned: Callable[..., Plan]) -> None:
    study = planned("swae", "wae-mmd", settings=("model.weight=3", "prior.sigma=2"))
    assert {run.model.values["weight"] for run in study.runs} == {3.0}
    assert study.runs[0].prior.values["sigma"] == 2.0


def test_parameters_are_counted_without_training(planned: Callable[..., Plan]) -> None:
    study = planned("ae")
    run = study.runs[0]
    mlp = (
        144 * 200 + 200 + 2 * (200 * 200 + 200) + 200 * 2 + 2 + 2 * 200 + 200 + 2 * (200 * 200 + 200) + 200 * 144 + 144
    )
    assert study.size(run) == mlp


PRIOR = """
import torch
from genbench.api import ComponentSpec, Prior
from genbench.hookspecs import hookimpl
class P(Prior):
    def __init__(self, latent_dim):
        super().__init__()
        self.latent_dim = latent_dim
    def sample(self, n, noise): {body}
@hookimpl
def genbench_priors(): yield ComponentSpec(name="mine", description="a test", factory=P)
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return torch.randn(1, self.latent_dim)", r"draws \(1, 2\)"),
        ("return torch.randn(n, 5)", r"draws \(7, 5\)"),
        ("return torch.randn(n, 2).double()", "float64"),
        ("return torch.full((n, 2), float('nan'))", "NaN"),
        ("return [[0.0, 0.0]] * n", "draws a list"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_prior_that_breaks_the_contract_is_refused_before_training(
    grid: Callable[..., ExperimentConfig], data_config: DataConfig, tmp_path: Path, body: str, message: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PRIOR.format(body=body))
    with pytest.raises(GenbenchError, match=message):
        plan(grid(("swae",), priors=("mine",)), load([DOTS, path]), data_config)


@pytest.mark.parametrize("fields", [{"models": ()}, {"priors": ()}, {"latent_dims": ()}, {"latent_dims": (2, 2)}])
def test_an_empty_or_repeated_axis_is_refused(
    grid: Callable[..., ExperimentConfig],
    registry: Registry,
    data_config: DataConfig,
    fields: dict[str, tuple[int, ...]],
) -> None:
    with pytest.raises(UsageError):
        plan(replace(grid(), **fields), registry, data_config)  # type: ignore[arg-type]


def test_a_model_that_memory_cannot_hold_is_refused(planned: Callable[..., Plan]) -> None:
    with pytest.raises(UnsupportedError, match="GiB to train"):
        planned("ae", settings=("mlp.width=1000000",))


# ---------------------------------------------------------------- changed sources


def with_source(run: Run, **fingerprints: str) -> Run:
    parts = {field: replace(getattr(run, field), fingerprint=text) for field, text in fingerprints.items()}
    return replace(run, **parts)  # type: ignore[arg-type]


def test_a_new_run_is_explained_by_a_changed_source(planned: Callable[..., Plan]) -> None:
    runs = planned("swae", "ae", seeds=(0, 1), controls=("pca",)).runs
    swae, ae, control = runs[0], runs[1], runs[-1]
    assert changed_sources(runs, []) == {}
    assert changed_sources(runs, [with_source(swae, model="old")]) == {"an earlier source of the model 'swae'": 1}
    stored = [with_source(run, model="old") for run in runs[:4:2]]
    assert changed_sources(runs, stored) == {"an earlier source of the model 'swae'": 2}
    both = with_source(ae, model="old", network="older")
    assert changed_sources(runs, [*stored, both]) == {
        "an earlier source of the model 'swae'": 2,
        "an earlier source of the model 'ae' and an earlier source of the network 'mlp'": 1,
    }
    assert changed_sources(runs, [with_source(control, model="old")]) == {"an earlier source of the control 'pca'": 1}


def test_a_new_run_is_explained_by_changed_files(
    grid: Callable[..., ExperimentConfig], registry: Registry, data_config: DataConfig
) -> None:
    folder = data_config.data_root / "grow"
    folder.mkdir()

    def planned(count: int, path: str = "grow") -> Run:
        for i in range(count):
            Image.new("L", (12, 12), i).save(folder / f"{i}.png")
        options = (f"folder.path={path}", "folder.size=12")
        (run,) = plan(grid(dataset="folder", batch=4, settings=options), registry, data_config).runs
        return run

    before, after = planned(20), planned(30)
    assert planned(30, str(folder)).name == after.name != before.name
    assert changed_sources([after], [before]) == {"earlier files of the dataset 'folder' (path=grow)": 1}


def test_a_stored_run_of_other_options_explains_nothing(planned: Callable[..., Plan]) -> None:
    new = planned("swae").runs
    for fields in ({"settings": ("swae.weight=3",)}, {"seeds": (1,)}, {"images": 96}, {"latent_dims": (3,)}):
        (run,) = planned("swae", **fields).runs
        assert changed_sources(new, [with_source(run, model="old")]) == {}


PLUGIN = """
import torch
from genbench.api import ComponentSpec, Prior
from genbench.hookspecs import hookimpl
class Scaled(Prior):
    def __init__(self, latent_dim):
        super().__init__()
        self.latent_dim = latent_dim
    def sample(self, n, noise): return SCALE * noise.normal(n, self.latent_dim)
@hookimpl
def genbench_priors(): yield ComponentSpec(name="scaled", description="a test", factory=Scaled)
"""
STUDY = ("--dataset", "dots", "--network", "mlp", "--images", "32", "--batch", "16", "--latent-dim", "2")


def test_the_plan_names_the_changed_source(genbench: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.replace("SCALE", "1.0"))
    plugins = ("--plugin", str(DOTS), "--plugin", str(path))
    command = ("run", "ae", "--prior", "scaled", *STUDY, *plugins, "--metrics", "reconstruction")
    assert genbench(*command, "--seeds", "2").exit_code == 0
    path.write_text('"""A comment."""\n' + PLUGIN.replace("SCALE", "1.0"))
    unchanged = genbench(*command, "--dry-run")
    assert "source" not in unchanged.output
    assert "1 done" in unchanged.output
    path.write_text(PLUGIN.replace("SCALE", "2.0"))
    changed = genbench(*command, "--seeds", "3", "--dry-run")
    assert changed.exit_code == 0, changed.output
    (line,) = (line for line in changed.output.splitlines() if "source" in line)
    assert line.startswith("2 trained runs of an earlier source of the prior 'scaled' stay apart")
    assert "--all-sources" in line
    measure = ("evaluate", "runs", *plugins, "--metrics", "sharpness", "--set", "sharpness.n=50")
    refused = genbench(*measure)
    assert refused.exit_code == 2
    assert "with another source of the prior 'scaled'" in refused.output
    assert "train anew with genbench run, restore it, or add --allow-changed-source" in refused.output
    assert genbench(*measure, "--allow-changed-source").exit_code == 0


def test_applicability_that_depends_on_the_prior_alone_is_asked_once_for_all_models(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws and metrics know no model: a grid of many models asks them no more often than one of a single model."""
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(
        "genbench.experiment.plan.check_draws", lambda prior, run: asked.append((run.prior.name, run.latent_dim))
    )
    planned("ae", "swae", "vae", priors=("normal",), latent_dims=(2, 3))
    assert asked == [("normal", 2), ("normal", 3)]
