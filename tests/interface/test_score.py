"""Results from elsewhere: rows like any other, with the numbers that the same images give wherever they come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors.torch import save_file

import genbench
from conftest import DOTS
from genbench.api import DataConfig, Images
from genbench.data.images import to_float
from genbench.experiment.build import create_dataset
from genbench.experiment.plan import named_components
from genbench.plotting.report import sample_strips
from genbench.registry.loader import Registry
from genbench.storage.results import ELSEWHERE, rows
from genbench.storage.run_dir import find_runs, read_runs

ON_DOTS = {"dataset": "dots", "plugins": DOTS}
METRICS = ("sharpness", "reconstruction", "latent-w2", "speed", "pixel-sw")
OPTIONS = {"sharpness.n": 64, "latent-w2.n": 40, "pixel-sw.n": 60}


@pytest.fixture
def images(registry: Registry, data_config: DataConfig) -> Images:
    """The tiny dataset."""
    (component,) = named_components(registry, "dataset", ["dots"], {})
    return create_dataset(registry, component).load(data_config)


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., genbench.Results]:
    """`genbench.score` on the tiny dataset, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))

    def call(name: str, samples: Any = None, **given: Any) -> genbench.Results:
        metrics = given.get("metrics", METRICS)
        options = {name: value for name, value in OPTIONS.items() if name.split(".")[0] in metrics}
        return genbench.score(name, samples, **{**ON_DOTS, "metrics": METRICS, "options": options, **given})

    return call


def values(results: genbench.Results) -> dict[str, float | None]:
    return {row.metric: row.value for row in results}


def test_a_row_has_what_was_given_and_no_more(score: Callable[..., genbench.Results], images: Images) -> None:
    results = score("my-gan", images.train)
    assert set(values(results)) == {"sharpness", "pixel-sw", "pixel-sw.excess"}
    assert {row.label for row in results} == {f"my-gan ({ELSEWHERE})"}
    assert {(row.role, row.seconds, row.prior, row.network) for row in results} == {("external", None, "none", "none")}
    (folder,) = Path("runs").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["provenance"]["results"] == {"samples": "array", "samples-n": 100}
    measured = json.loads((folder / "metrics.json").read_text())["measurements"].values()
    reasons = {entry["metric"]: entry["inapplicable"] for entry in measured if entry.get("inapplicable")}
    assert reasons == {
        "reconstruction": "no reconstructions were given",
        "latent-w2": "no codes were given",
        "speed": "the training of a model that was trained elsewhere is not known",
    }
    assert (folder / "samples.png").exists()
    assert not (folder / "training.json").exists()


def test_reconstructions_are_compared_with_their_own_images(
    score: Callable[..., genbench.Results], images: Images
) -> None:
    rebuilt = to_float(images.test).mul(0.9).numpy()
    numbers = values(score("my-ae", reconstructions=rebuilt, metrics="reconstruction"))
    assert numbers["reconstruction.pixel"] == pytest.approx(
        0.01 * float(to_float(images.test).square().mean()), rel=1e-4
    )
    shifted = values(score("shifted", reconstructions=np.roll(rebuilt, 1, 0), metrics="reconstruction"))
    assert (shifted["reconstruction.pixel"] or 0) > 5 * (numbers["reconstruction.pixel"] or 0)
    with pytest.raises(genbench.GenbenchError, match=r"59 images, and dots has 60 test images"):
        score("my-ae", reconstructions=rebuilt[:-1])


def test_codes_are_compared_with_the_prior(score: Callable[..., genbench.Results]) -> None:
    draws = np.random.default_rng(0).normal(size=(60, 3))
    metrics = ("latent-w2", "latent-sw", "latent-mmd")
    options = {f"{metric}.n": 60 for metric in metrics} | {f"{metric}.replicates": 2 for metric in metrics}
    options["latent-mmd.blocks"] = 15
    fit = values(score("fits", codes=draws, metrics=metrics, options=options))
    far = values(score("far", codes=draws + 3, metrics=metrics, options=options))
    for metric in metrics:
        name = next(name for name in (f"{metric}.excess", metric) if name in fit)
        assert (far[name] or 0) > 5 * abs(fit[name] or 0), metric


def test_seeds_are_one_row_and_changed_files_another_run(
    score: Callable[..., genbench.Results], images: Images
) -> None:
    for seed in (0, 1):
        score("my-gan", images.train.roll(seed, 0), seed=seed, metrics="pixel-sw")
    before = {path.name for path in Path("runs").iterdir()}
    again = score("my-gan", images.train.clone(), metrics="pixel-sw")
    assert {path.name for path in Path("runs").iterdir()} == before
    changed = score("my-gan", 255 - images.train, metrics="pixel-sw")
    assert values(changed) != values(again)
    assert len(list(Path("runs").iterdir())) == 3

    rows = [row for row in genbench.load_results("runs") if row.metric == "pixel-sw"]
    assert len({row.group for row in rows}) == 2  # both seeds, and apart from them the earlier files
    later = {row.run: row.label for row in rows}
    assert sorted(later.values())[0] == f"my-gan ({ELSEWHERE})"
    assert sum("earlier files" in label for label in later.values()) == 1


def test_the_command_ranks_it_among_trained_models(genbench: Callable[..., Result], images: Images) -> None:
    tiny = ("--plugin", str(DOTS), "--dataset", "dots", "--set", "pixel-sw.n=60")
    genbench(
        *("run", "swae", *tiny, "--network", "mlp", "--latent-dim", "2", "--images", "64", "--batch", "16"),
        *("--metrics", "pixel-sw", "--seeds", "2"),
    )
    np.savez("real.npz", samples=images.train.numpy())
    for seed in ("0", "1"):
        scored = genbench("score", "my-gan", *tiny, "--samples", "real.npz", "--seed", seed, "--metrics", "pixel-sw")
        assert scored.exit_code == 0, scored.output
    assert scored.output.index(ELSEWHERE) < scored.output.index("swae ")
    assert "trained elsewhere, on what and with which budget is not known: my-gan" in scored.output
    assert "mlp (depth 3, width 200) · normal prior · d = 2" in scored.output

    for command in (
        ("report", "runs", "--format", "md"),
        ("compare", "my-gan", "swae", "--metric", "pixel-sw.excess"),
        ("power", "runs", "--metric", "pixel-sw.excess"),
        ("list", "runs"),
        ("cite", "runs", "--plugin", str(DOTS)),
        ("diff", "dots-external-my-gan-s0", "dots-external-my-gan-s1"),
        ("show", "dots-external-my-gan-s0"),
        ("evaluate", "runs", "--plugin", str(DOTS), "--metrics", "sharpness", "--set", "sharpness.n=64"),
        ("bundle", "export", "runs", "--out", "b.tar"),
        ("bundle", "import", "b.tar", "--out", "copy"),
        ("evaluate", "copy", "--plugin", str(DOTS), "--metrics", "pixel-w2", "--set", "pixel-w2.n=60"),
        ("rm", "dots-external-my-gan-s1", "--yes"),
    ):
        done = genbench(*command)
        assert done.exit_code == 0, f"{command}: {done.output}"
        assert "--format" not in command or ELSEWHERE in done.output
    refused = genbench("sample", "dots-external-my-gan-s0", "--out", "x.png")
    assert refused.exit_code == 2
    assert "was trained elsewhere" in refused.output


def test_too_few_samples_or_codes_are_refused_before_any_work(
    score: Callable[..., genbench.Results], images: Images
) -> None:
    options = {"pixel-sw.n": 60, "sharpness.n": 2000}
    words = r"sharpness: 2,000 samples are needed and 100 were given: give 2,000, or set this metric's count"
    with pytest.raises(genbench.GenbenchError, match=words):
        score("my-gan", images.train, options=options)
    codes = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(genbench.GenbenchError, match="latent-w2: 60 codes are needed and 50 were given"):
        score("my-gan", codes=codes, metrics="latent-w2", options={"latent-w2.n": 60})
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_of_the_default_metrics_those_that_lack_samples_are_left_out_with_a_note(
    genbench: Callable[..., Result], images: Images
) -> None:
    np.savez("few.npz", samples=images.train[:40].numpy())
    tiny = ("--plugin", str(DOTS), "--dataset", "dots", "--samples", "few.npz", "--set", "dots.size=12")
    done = genbench("score", "my-gan", *tiny, "--set", "sharpness.n=40")
    assert done.exit_code == 0, done.output
    assert "nearest-train: 1,000 samples are needed and 40 were given" in " ".join(done.output.split())
    (folder,) = Path("runs").iterdir()
    measured = json.loads((folder / "metrics.json").read_text())["measurements"].values()
    assert [entry["metric"] for entry in measured if entry.get("numbers")] == ["sharpness"]
    assert not [entry for entry in measured if entry.get("error")]
    assert (folder / "samples.png").exists(), "of as many as there are"


def test_samples_from_elsewhere_stand_in_the_figure(genbench: Callable[..., Result], images: Images) -> None:
    np.savez("few.npz", samples=images.train[:11].numpy())
    tiny = ("--plugin", str(DOTS), "--dataset", "dots")
    scored = genbench(
        *("score", "my-gan", *tiny, "--samples", "few.npz", "--metrics", "sharpness", "--set", "sharpness.n=11")
    )
    assert scored.exit_code == 0, scored.output
    records, _ = read_runs(find_runs([Path("runs")]))
    (strip,) = sample_strips(records, rows(records))
    assert (strip.label, strip.block) == ("my-gan", "dots, trained elsewhere")
    expected = images.train[:11].permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    assert np.array_equal(strip.images, expected)
    drawn = genbench("plot", "samples", "runs", "--plugin", str(DOTS), "--out", "samples.png")
    assert drawn.exit_code == 0, drawn.output
    assert Path("samples.png").exists()


def test_wrong_calls_are_refused_and_leave_nothing(score: Callable[..., genbench.Results], images: Images) -> None:
    for given, words in (
        ({}, "nothing to score"),
        ({"samples": images.train[:1]}, "1 image; a distribution needs many"),
        ({"samples": "absent.npz"}, "there is no file or folder"),
        ({"samples": images.train, "metrics": "fidd"}, "there is no metric 'fidd'"),
        ({"samples": images.train, "options": {"swae.weight": 1}}, "swae"),
        ({"codes": np.random.default_rng(0).normal(size=(60, 3)), "prior": "ring"}, "ring"),
    ):
        with pytest.raises(genbench.GenbenchError, match=words):
            score("my-gan", **given)
    with pytest.raises(genbench.GenbenchError, match="'My GAN' is no name"):
        score("My GAN", images.train)
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_the_script_for_a_checkpoint_scores_it(genbench: Callable[..., Result]) -> None:
    assert "python ./my_net.py" in genbench("new", "external", "my-net").output
    text = Path("my_net.py").read_text()
    for word, tiny in (
        ('"glyphs"', '"dots"'),
        ("load_dataset(DATASET)", f"load_dataset(DATASET, plugins={str(DOTS)!r})"),
        ("dataset=DATASET,", f"dataset=DATASET, plugins={str(DOTS)!r}, metrics=['reconstruction', 'sharpness'],"),
        ("seed=SEED", "seed=SEED, options={'sharpness.n': 64}"),
        ("randn(len(test)", "randn(64"),
    ):
        assert word in text
        text = text.replace(word, tiny)
    script: dict[str, Any] = {"__name__": "my_net"}
    exec(compile(text, "my_net.py", "exec"), script)
    torch.manual_seed(0)
    modules = {"encoder": script["Encoder"](144), "decoder": script["Decoder"]((1, 12, 12))}
    save_file(torch.nn.ModuleDict(modules).state_dict(), "my_net.safetensors")
    script["main"]()
    (folder,) = Path("runs").iterdir()
    measured = json.loads((folder / "metrics.json").read_text())["measurements"].values()
    assert {entry["metric"] for entry in measured if entry.get("numbers")} == {"reconstruction", "sharpness"}
