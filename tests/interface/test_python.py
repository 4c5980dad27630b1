"""`import genbench`: what it costs, what it offers, and that its examples run on one tiny study."""

from __future__ import annotations

import doctest
import importlib
import inspect
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import Result
from rich.console import Console

import genbench
from conftest import DOTS
from genbench.interface.config import StudyConfig
from support.studies import DOTS as DOTS_FLAGS
from support.studies import TINY

TINY_STUDY = {
    "dataset": "dots",
    "network": "mlp",
    "latent_dims": 2,
    "images": 64,
    "batch": 16,
    "metrics": "reconstruction",
    "plugins": DOTS,
}


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with a cache of its own, which the tests of this module share."""
    path = tmp_path_factory.mktemp("python")
    before = Path.cwd(), os.environ.get("GENBENCH_CACHE")
    os.chdir(path)
    os.environ["GENBENCH_CACHE"] = str(path / "cache")
    yield path
    os.chdir(before[0])
    if before[1] is None:
        del os.environ["GENBENCH_CACHE"]
    else:
        os.environ["GENBENCH_CACHE"] = before[1]


@pytest.fixture(scope="module")
def study(folder: Path) -> genbench.Study:
    """Two models, one with two values of an option."""
    return genbench.run(["swae", "ae"], options={"swae.weight": [1, 10]}, out="tiny", seeds=2, **TINY_STUDY)


def test_a_study_has_the_numbers_of_every_sampler(folder: Path) -> None:
    options = {"gmm.components": 1, "gmm.codes": 32, "sharpness.n": 16}
    arguments = {**TINY_STUDY, "metrics": ["sharpness", "reconstruction"], "options": options, "out": "sampled"}
    sampled = genbench.run("ae", samplers=["prior", "gmm"], **arguments)
    names = {"reconstruction.pixel", "reconstruction.image"}
    assert {row.metric for row in sampled} == {"sharpness", "sharpness@gmm", *names}
    assert {row.metric for row in genbench.run("ae", samplers="gmm", **arguments)} == {"sharpness@gmm", *names}


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import genbench, sys; dir(genbench); genbench.GenbenchError;"
        "print({'torch', 'numpy', 'click', 'rich', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_name_is_there_and_no_other() -> None:
    assert all(getattr(genbench, name) is not None for name in genbench.__all__)
    assert set(genbench.__all__) <= set(dir(genbench))
    with pytest.raises(AttributeError, match="has no attribute 'runs'"):
        genbench.runs  # noqa: B018


def test_the_defaults_of_run_are_those_of_the_command() -> None:
    """One declaration holds for both; a signature has to repeat it, so that an editor shows it."""
    defaults = StudyConfig(models=("swae",))
    parameters = inspect.signature(genbench.run).parameters
    assert set(parameters) - {"models", "options", "progress"} == set(StudyConfig.__struct_fields__) - {
        "models",
        "settings",
    }
    for name, parameter in parameters.items():
        if name not in ("models", "options", "progress", "executor_options"):
            declared = getattr(defaults, name)
            listed = isinstance(declared, tuple) and not isinstance(parameter.default, tuple)
            assert ((parameter.default,) if listed else parameter.default) == declared, name


@pytest.mark.parametrize("name", ["study", "results", "model", "components"])
def test_examples_run(folder: Path, name: str) -> None:
    module = importlib.import_module(f"genbench.interface.{name}")
    if not Path("runs").exists():
        genbench.run(
            ["swae", "vae"],
            seeds=2,
            images=256,
            batch=32,
            latent_dims=2,
            network="mlp",
            metrics=["reconstruction"],
            options={"mlp.width": 16},
        )
    assert doctest.testmod(module, raise_on_error=False).failed == 0


def test_nothing_is_printed_unless_asked(study: genbench.Study, capfd: pytest.CaptureFixture[str]) -> None:
    genbench.run("ae", out="silent", **TINY_STUDY)
    assert capfd.readouterr() == ("", "")
    genbench.run("ae", out="loud", progress=True, **TINY_STUDY)
    assert "[1/1] ae" in capfd.readouterr().out


def test_python_and_the_command_make_the_same_runs(
    genbench_command: Callable[..., Result], study: genbench.Study
) -> None:
    result = genbench_command(
        *("run", "swae", "ae", "--set", "swae.weight=1,10", "--out", "tiny", "--seeds", "2"),
        *(*DOTS_FLAGS, *TINY, "--images", "64", "--metrics", "reconstruction"),
    )
    assert result.exit_code == 0, result.output
    assert "6 done" in result.output


@pytest.fixture
def genbench_command() -> Callable[..., Result]:
    """The command line in the module's folder."""
    from click.testing import CliRunner

    from genbench.cli.main import main

    return lambda *arguments: CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_results_are_rows_a_table_and_a_notebooks_html(study: genbench.Study) -> None:
    assert len(study.runs) == 6
    assert {row.options["swae.weight"] for row in study if row.model == "swae"} == {1.0, 10.0}
    text = str(study)
    assert "swae (weight=1" in text
    assert "MSE per pixel" in text
    assert study.table("md").startswith("##")
    assert study.table("csv").startswith("run,")
    html = study._repr_html_()
    assert "<table>" in html
    assert html.count("<tr>") == 4
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(study)
    assert max(map(len, console.export_text().splitlines())) <= 60
    with pytest.raises(genbench.GenbenchError, match="did you mean 'md'"):
        study.table("mdx")  # type: ignore[arg-type]


def test_names_of_anyone_are_text_in_html(study: genbench.Study) -> None:
    from dataclasses import replace

    from genbench.interface.results import Results

    results = Results((), [replace(row, label="<script>") for row in study])
    assert "<script>" not in results._repr_html_()


def test_pandas_has_a_column_for_each_option(study: genbench.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(genbench.GenbenchError, match=r"pip install 'genbench\[pandas\]'"):
        study.to_pandas()
    monkeypatch.delitem(sys.modules, "pandas")
    pandas = pytest.importorskip("pandas")
    frame = study.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert set(frame["swae.weight"].dropna()) == {1.0, 10.0}


def test_a_figure_is_shown_and_saved(study: genbench.Study) -> None:
    figure = study.plot("ranks")
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.save("ranks.svg")
    assert "<svg" in Path("ranks.svg").read_text()
    with pytest.raises(genbench.GenbenchError, match="did you mean 'ranks'"):
        study.plot("rank")


def test_a_model_encodes_decodes_and_samples(study: genbench.Study) -> None:
    model = genbench.load_model(study.runs[0], plugins=DOTS)
    images = model.dataset.test[:20]
    codes = model.encode(images)
    assert torch.equal(codes, model.encode(images.float() / 255))
    assert model.decode(codes).shape == images.shape
    assert torch.equal(model.reconstruct(images), model.decode(codes))
    assert torch.equal(model.sample(3, seed=1), model.sample(3, seed=1))
    assert not torch.equal(model.sample(3, seed=1), model.sample(3, seed=2))
    for wrong in (lambda: model.encode(images[:, :, 1:]), lambda: model.decode(images), lambda: model.sample(0)):
        with pytest.raises(genbench.GenbenchError):
            wrong()
    before = Path(study.runs[0], "weights.safetensors").read_bytes()
    results = model.evaluate("sharpness", options={"sharpness.n": 20})
    assert "sharpness" in {row.metric for row in results}
    assert Path(study.runs[0], "weights.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": "swea"}, "did you mean 'swae'"),
        ({"models": []}, "key 'models'"),
        ({"batch": 1}, r"genbench.run: key 'batch': 1: expected int >= 2"),
        ({"seeds": "3"}, "key 'seeds'"),
        ({"precision": "float8"}, "possible are bfloat16, float32, tf32"),
        ({"options": {"swae.wieght": 1}}, "did you mean 'weight'"),
        ({"options": {"swae.weight": []}}, "swae.weight: no value"),
        ({"options": {"swae.weight": object()}}, "neither a text, a number"),
        ({"epochs": 1, "images": 5}, "give one of them"),
        ({"executor": "serial", "jobs": 2}, "does one run at a time"),
        ({"plugins": "absent.py"}, "there is no such file"),
    ],
)
def test_mistakes_are_one_line_before_any_training(folder: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(genbench.GenbenchError, match=message) as caught:
        genbench.run(**{"models": "swae", "out": "never", **TINY_STUDY, **arguments})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not Path("never").exists()


def test_a_run_that_fails_is_a_warning_and_the_others_go_on(folder: Path) -> None:
    faulty = DOTS.parent / "faulty.py"
    with pytest.warns(UserWarning, match="raises.*ZeroDivisionError"):
        study = genbench.run(["raises", "ae"], out="failing", **{**TINY_STUDY, "plugins": [DOTS, faulty]})
    assert len(study.failed) == 1
    assert any(row.model == "ae" and row.value is not None for row in study)


def test_an_interrupted_study_goes_on_when_it_is_repeated(folder: Path) -> None:
    """The state is saved, and `KeyboardInterrupt` stops the notebook's further cells."""

    def interrupt() -> None:
        while not list(Path("stopped").glob("*/run.json")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    arguments = {**TINY_STUDY, "images": 10_000}
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="call it again to resume"):
        genbench.run("ae", out="stopped", seeds=2, **arguments)
    thread.join()
    study = genbench.run("ae", out="stopped", seeds=2, **arguments)
    assert len(study.runs) == 2
