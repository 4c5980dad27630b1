"""`genbench new`: every template works as it stands, and nothing of the author's is ever overwritten."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from genbench.registry.loader import load
from genbench.registry.scaffold import TRY, next_steps, template
from genbench.testing import describe
from genbench.testing.checks import deeper

DOTS = ("--plugin", str(Path(__file__).parents[1] / "fixtures" / "dots.py"))
TINY = ("--images", "64", "--batch", "16", "--latent-dim", "2")


@pytest.mark.parametrize("kind", TRY)
def test_every_template_is_short_and_runs_as_printed(kind: str, genbench: Callable[..., Result]) -> None:
    made = genbench("new", kind, "my-own")
    assert made.exit_code == 0, made.output
    assert len(Path("my-own.py").read_text().splitlines()) < 60
    check, run, report = next_steps(kind, "my-own", Path(), package=False)
    assert all(command in made.output for command in (check, run, report))
    dots = () if kind == "dataset" else (*DOTS, "--dataset", "dots")
    small = () if kind == "network" else ("--network", "mlp")
    measured = {"sampler": "sharpness", "extractor": "fid"}.get(kind, "reconstruction")  # of samples, of features
    metrics = () if kind == "metric" else ("--metrics", measured)
    sizes = ("--budget", "0.05") if kind == "recipe" else (*dots, *small, *metrics, *TINY)
    result = genbench(*shlex.split(run)[1:], *sizes)
    assert result.exit_code == 0, result.output
    result = genbench(*shlex.split(report)[1:])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("kind", TRY)
def test_every_template_keeps_the_contract_and_imports_public_modules(
    kind: str, genbench: Callable[..., Result]
) -> None:
    genbench("new", kind, "my-own")
    check, *_ = next_steps(kind, "my-own", Path(), package=False)
    result = genbench(*shlex.split(check)[1:], "--format", "json")
    assert result.exit_code == 0, result.output
    verdicts = {(check["kind"], check["check"]): check["status"] for check in json.loads(result.stdout)}
    assert {check for of, check in verdicts if of == kind} == set(describe(kind))
    assert "fails" not in verdicts.values()
    assert not set(deeper(Path("my-own.py").read_text())) - {"genbench.data.images"}


@pytest.mark.parametrize("kind", TRY)
def test_a_package_has_the_entry_point_of_its_module(kind: str, genbench: Callable[..., Result]) -> None:
    assert genbench("new", kind, "my-own", "--package").exit_code == 0
    project = tomllib.loads(Path("my-own/pyproject.toml").read_text())
    assert project["project"]["entry-points"]["genbench"] == {"my-own": "my_own"}
    assert "license" not in project["project"]
    assert load([Path("my-own/my_own.py")]).get(kind, "my-own")  # type: ignore[arg-type]
    test = Path("my-own/tests/test_my_own.py").read_text()
    assert f'suite("my-own", kind="{kind}")' in test
    written = "".join(path.read_text() for path in Path("my-own").rglob("*.*") if path.is_file())
    assert "{{" not in written
    assert "plugin" not in template(f"{kind}.py")


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("My-Own", "lower case letters"),
        ("a--b", "single hyphens"),
        ("../x", "lower case letters"),
        ("3d", "cannot name a Python module"),
        ("class", "cannot name a Python module"),
        ("ring", "there is a prior 'ring' already"),
        ("swae", "a plug-in is named 'swae'"),
        ("random", "would hide the installed Python module"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, cause: str, genbench: Callable[..., Result]) -> None:
    result = genbench("new", "prior", name)
    assert result.exit_code == 2
    assert cause in result.output
    assert not list(Path().glob("*.py"))


def test_an_existing_file_is_never_overwritten(genbench: Callable[..., Result]) -> None:
    Path("mine.py").write_text("precious")
    result = genbench("new", "prior", "mine")
    assert result.exit_code == 2
    assert "mine.py exists already" in result.output
    assert Path("mine.py").read_text() == "precious"
    Path("mine").mkdir()
    assert genbench("new", "model", "mine", "--package").exit_code == 2
    assert not list(Path("mine").iterdir())


def test_files_written_elsewhere_are_named_by_their_path(genbench: Callable[..., Result]) -> None:
    result = genbench("new", "prior", "mine", "--to", "deep/down")
    assert "--plugin ./deep/down/mine.py" in result.output
    assert Path("deep/down/mine.py").is_file()
