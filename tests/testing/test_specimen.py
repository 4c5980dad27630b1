"""Distributions of third parties, built and installed without network, are part of every command.

One is the specimen, the others are what `genbench new --package` writes; all share one environment.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from genbench.registry.scaffold import TRY, write_plugin
from support.foreign import Python, commands, environment

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


DOTS = ("--plugin", str(HERE / "fixtures" / "dots.py"), "--dataset", "dots", "--network", "mlp")
TINY = ("--images", "64", "--batch", "16", "--latent-dim", "2", "--metrics", "reconstruction,radius")
SPIRAL = ("--prior", "specimen-spiral", "--set", "info-vae.alpha=1")
COMMANDS = {
    "plugins": ("list", "plugins"),
    "priors": ("list", "priors"),
    "run": ("run", "info-vae", "wae-mmd", *DOTS, *TINY, *SPIRAL),
    "report": ("report", "--format", "csv"),
    "refused": ("run", "info-vae", "--prior", "specimen-spiral", "--latent-dim", "2", "--dry-run"),
    "check": ("check", "specimen-spiral", "info-vae", "radius"),
}


@pytest.fixture(scope="module")
def theirs(python: Python) -> dict[str, subprocess.CompletedProcess[str]]:
    """What the commands come to in that environment."""
    return commands(python, COMMANDS)


def test_the_specimen_is_listed_with_its_distribution(theirs: dict[str, subprocess.CompletedProcess[str]]) -> None:
    (row,) = (line for line in theirs["plugins"].stdout.splitlines() if line.startswith("specimen"))
    assert all(word in row for word in ("loaded", "genbench-specimen 1.2.3", "models", "priors", "metrics")), row


def test_the_specimen_runs_and_is_reported(theirs: dict[str, subprocess.CompletedProcess[str]]) -> None:
    assert theirs["run"].returncode == 0, theirs["run"].stderr
    done = theirs["report"]
    assert done.returncode == 0, done.stderr
    assert "info-vae" in done.stdout
    assert "radius" in done.stdout


def test_a_combination_that_the_specimen_refuses_is_one_line(
    theirs: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    assert theirs["refused"].returncode == 2
    assert "--set info-vae.alpha=1" in theirs["refused"].stderr


def test_the_specimen_keeps_the_contract(theirs: dict[str, subprocess.CompletedProcess[str]]) -> None:
    done = theirs["check"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d\d holds, 0 fails, ", done.stdout.splitlines()[-1])
    heads = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert heads[:-1] == ["prior specimen-spiral", "model info-vae", "metric radius"]


def test_every_command_knows_what_is_installed(theirs: dict[str, subprocess.CompletedProcess[str]]) -> None:
    done = theirs["plugins"]
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if not line.endswith(" s to import")] == []  # on a busy machine
    for kind, name in NAMES.items():
        (row,) = (line for line in done.stdout.splitlines() if line.startswith(f"{name} "))
        assert all(word in row for word in ("loaded", f"genbench-{name} 0.1.0", f"{kind}s")), row
    assert "  their-prior  " in theirs["priors"].stdout


def test_the_tests_that_were_written_pass_and_are_the_kits(folder: Path, python: Python) -> None:
    places = [str(folder / "sources" / name / "tests") for name in NAMES.values()]
    done = python("-m", "pytest", "-v", "-p", "no:cacheprovider", *places)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.findall(r"\[(\w+)-(their-\w+)-\w+\] PASSED", done.stdout)
    for kind, name in NAMES.items():
        assert passed.count((kind, name)) >= 3, kind
