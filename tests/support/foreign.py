"""For tests: a fresh environment in which somebody else's distributions are installed, without network."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

Python = Callable[..., subprocess.CompletedProcess[str]]
"""`python(*arguments)` runs the environment's Python in its folder."""

DO = """
import json, sys
from click.testing import CliRunner
from genbench.cli.main import main

results = {name: CliRunner().invoke(main, words) for name, words in json.loads(sys.argv[1]).items()}
print(json.dumps({name: (result.exit_code, result.stdout, result.stderr) for name, result in results.items()}))
"""


def environment(folder: Path, *sources: Path) -> Python:
    """Build a wheel of each source folder, install all in a fresh environment that sees this one's packages too."""
    for needed in ("hatchling", "pip"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: it builds or installs a wheel offline")
    wheels = _wheels(folder, sources)
    venv.create(folder / "env", with_pip=False)  # this environment's pip does it, which takes seconds less
    python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    installing = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps", *wheels]
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


def commands(python: Python, lines: Mapping[str, Sequence[str]]) -> dict[str, subprocess.CompletedProcess[str]]:
    """What each command of genbench comes to, one after another in one process: torch is imported once for all."""
    done = python("-c", DO, json.dumps(lines))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    return {name: subprocess.CompletedProcess(lines[name], *result) for name, result in results.items()}


def _wheels(folder: Path, sources: Sequence[Path]) -> list[Path]:
    """The wheels of copies of the sources, so that building leaves nothing behind there."""
    copies = [folder / "build" / source.name for source in sources]
    for source, copy in zip(sources, copies, strict=True):
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import os, sys; from hatchling.build import build_wheel\n"
    build += "for source in sys.argv[2:]: os.chdir(source); print(build_wheel(sys.argv[1]))"
    made = subprocess.run(
        [sys.executable, "-c", build, str(folder), *map(str, copies)], capture_output=True, text=True, check=True
    )
    return [folder / word for word in made.stdout.split() if word.endswith(".whl")]
