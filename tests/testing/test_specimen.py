"""Distributions of third parties, built and installed without network, are part of every command.

One is the specimen, the others are what `genbench new --package` writes; all share one environment.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from genbench.registry.scaffold import TRY, write_plugin
from support.foreign import Python, environment

HERE = Path(__file__).parents[1]
NAMES = {kind: f"their-{kind}" for kind in TRY}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("theirs")


@pytest.fixture(scope="module")
def python(folder: Path) -> Python:
    """The Python of a fresh environment that has the specimen and a new package of each kind."""
    for kind, name in NAMES.items():
        write_plugin(kind, name, folder / "sources", package=True)
    return environment(folder, HERE / "specimen", *(folder / "sources" / name for name in NAMES.values()))


@pytest.fixture(scope="module")
def theirs(python: Python) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line of that environment."""
    return lambda *arguments: python("-m", "genbench", *arguments)


def test_the_specimen_is_listed_with_its_distribution(theirs: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = theirs("list", "plugins")
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("specimen"))
    assert all(word in row for word in ("loaded", "genbench-specimen 1.2.3", "models", "priors", "metrics")), row


def test_the_specimen_runs_and_is_reported(theirs: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    dots = ("--plugin", str(HERE / "fixtures" / "dots.py"), "--dataset", "dots", "--network", "mlp")
    tiny = ("--images", "64", "--batch", "16", "--latent-dim", "2", "--metrics", "reconstruction,radius")
    spiral = ("--prior", "specimen-spiral", "--set", "info-vae.alpha=1")
    done = theirs("run", "info-vae", "wae-mmd", *dots, *tiny, *spiral)
    assert done.returncode == 0, done.stderr
    done = theirs("report", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert "info-vae" in done.stdout
    assert "radius" in done.stdout


def test_a_combination_that_the_specimen_refuses_is_one_line(
    theirs: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = theirs("run", "info-vae", "--prior", "specimen-spiral", "--latent-dim", "2", "--dry-run")
    assert done.returncode == 2
    assert "--set info-vae.alpha=1" in done.stderr


def test_the_specimen_keeps_the_contract(theirs: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = theirs("check", "specimen-spiral", "info-vae", "radius")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d\d holds, 0 fails, ", done.stdout.splitlines()[-1])
    heads = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert heads[:-1] == ["prior specimen-spiral", "model info-vae", "metric radius"]


def test_every_command_knows_what_is_installed(python: Python) -> None:
    done = python("-m", "genbench", "list", "plugins")
    assert (done.returncode, done.stderr) == (0, "")
    for kind, name in NAMES.items():
        (row,) = (line for line in done.stdout.splitlines() if line.startswith(f"{name} "))
        assert all(word in row for word in ("loaded", f"genbench-{name} 0.1.0", f"{kind}s")), row
    done = python("-m", "genbench", "list", "priors")
    assert "  their-prior  " in done.stdout


def test_the_tests_that_were_written_pass_and_are_the_kits(folder: Path, python: Python) -> None:
    places = [str(folder / "sources" / name / "tests") for name in NAMES.values()]
    done = python("-m", "pytest", "-v", "-p", "no:cacheprovider", *places)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.findall(r"\[(\w+)-(their-\w+)-\w+\] PASSED", done.stdout)
    for kind, name in NAMES.items():
        assert passed.count((kind, name)) >= 3, kind
