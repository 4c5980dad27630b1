"""A third party's distribution, built and installed without network, is part of every command."""

from __future__ import annotations

import importlib.util
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from genbench.cli import main

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line of a fresh environment that has the specimen's wheel and sees this one's packages."""
    for needed in ("hatchling", "ensurepip"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: it builds or installs the specimen's wheel offline")
    folder = tmp_path_factory.mktemp("specimen")
    shutil.copytree(HERE / "specimen", folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    made = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=folder / "source", capture_output=True, text=True, check=True
    )
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    wheel = folder / made.stdout.split()[-1]
    installing = [python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel]
    subprocess.run(installing, check=True, capture_output=True)
    target = sysconfig.get_path("purelib", vars={"base": str(folder / "env")})
    # addsitedir, and not a bare path: it reads the .pth files in turn, of an editable genbench say
    seen = [path for path in {sysconfig.get_path("purelib"), *site.getsitepackages()} if Path(path) != Path(target)]
    Path(target, "ours.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in seen))
    environment = {**os.environ, "GENBENCH_CACHE": str(folder / "cache"), "COLUMNS": "160"}
    environment.pop("PYTHONPATH", None)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-m", "genbench", *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )

    return run


def test_the_specimen_is_listed_with_its_distribution(theirs: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = theirs("list", "plugins")
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("specimen"))
    assert all(word in row for word in ("loaded", "genbench-specimen 1.2.3", "models", "priors", "metrics")), row


def test_the_specimen_runs_and_is_reported(theirs: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    dots = ("--plugin", str(HERE / "plugins" / "dots.py"), "--dataset", "dots", "--network", "mlp")
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


@pytest.mark.skipif("check" not in main.commands, reason="this build has no `genbench check`")
def test_the_specimen_keeps_the_contract(theirs: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = theirs("check", "specimen-spiral", "info-vae", "radius")
    assert done.returncode == 0, done.stdout + done.stderr
