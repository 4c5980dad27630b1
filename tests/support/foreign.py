"""For tests: a fresh environment in which somebody else's distributions are installed, without network."""

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

Python = Callable[..., subprocess.CompletedProcess[str]]
"""`python(*arguments)` runs the environment's Python in its folder."""


def environment(folder: Path, *sources: Path) -> Python:
    """Build a wheel of each source folder, install all in a fresh environment that sees this one's packages too."""
    for needed in ("hatchling", "ensurepip"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: it builds or installs a wheel offline")
    wheels = [_wheel(folder, source) for source in sources]
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    installing = [python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", *wheels]
    subprocess.run(installing, check=True, capture_output=True)
    target = sysconfig.get_path("purelib", vars={"base": str(folder / "env")})
    # addsitedir, and not a bare path: it reads the .pth files in turn, of an editable genbench say
    seen = [path for path in {sysconfig.get_path("purelib"), *site.getsitepackages()} if Path(path) != Path(target)]
    Path(target, "ours.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in seen))
    variables = {**os.environ, "GENBENCH_CACHE": str(folder / "cache"), "COLUMNS": "160"}
    variables.pop("PYTHONPATH", None)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([python, *arguments], cwd=folder, env=variables, capture_output=True, text=True)

    return run


def _wheel(folder: Path, source: Path) -> Path:
    """The wheel of a copy of the source, so that building leaves nothing behind there."""
    copy = folder / "build" / source.name
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    made = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=copy, capture_output=True, text=True, check=True
    )
    return folder / made.stdout.split()[-1]
