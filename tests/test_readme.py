"""What the README shows works as printed: its plug-in, its commands, its options."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from conftest import SHARED
from genbench.cli.main import main
from genbench.registry.loader import load

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    part.strip()
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
    for part in line.split("&&")
    if part.strip().startswith("genbench ")
]


def test_the_readme_is_short_and_its_first_screen_has_the_two_commands() -> None:
    assert len(README.splitlines()) < 200
    installs = [line for line in README.splitlines() if line.startswith("pip install")]
    assert installs == ["pip install . && genbench run swae wae-gan wae-mmd vae", "pip install '.[test]' && pytest"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("genbench run") and "--plugin" not in c])
def test_every_study_of_the_readme_can_be_planned(command: str, genbench: Callable[..., Result]) -> None:
    words = shlex.split(command, comments=True)[1:]
    if "ray" in words and importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed")
    if "DATA" in words:
        if not SHARED.is_dir():
            pytest.skip(f"no data at {SHARED}")
        words[words.index("DATA")] = str(SHARED)
    result = genbench(*words, "--dry-run")
    assert result.exit_code == 0, result.output


def test_the_plugin_of_the_readme_runs_as_printed(genbench: Callable[..., Result]) -> None:
    (text,) = (text for language, text in BLOCKS if language == "python" and "# spiral.py" in text)
    Path("spiral.py").write_text(text)
    (command,) = (c for c in COMMANDS if "spiral.py" in c)
    dots = ("--plugin", str(Path(__file__).parent / "fixtures" / "dots.py"), "--dataset", "dots", "--network", "mlp")
    tiny = ("--images", "200", "--batch", "16", "--metrics", "reconstruction", "--set", "spiral.turns=3")
    result = genbench(*shlex.split(command, comments=True)[1:], *dots, *tiny)
    assert result.exit_code == 0, result.output
    assert genbench("report", "--export", "reports/mine/").exit_code == 0


def test_what_the_readme_makes_anew_runs_as_printed(genbench: Callable[..., Result]) -> None:
    made, run = (c.split("  #")[0] for c in COMMANDS if "laplace" in c and "check" not in c)
    assert genbench(*shlex.split(made)[1:]).exit_code == 0
    result = genbench(*shlex.split(run)[1:], "--dry-run")
    assert result.exit_code == 0, result.output


def test_the_plugin_of_the_readme_is_installed_and_tested_by_what_is_printed(
    tmp_path: Path, genbench: Callable[..., Result]
) -> None:
    """With the entry point as printed, in a process that finds the distribution on its path."""
    (plugin,) = (text for language, text in BLOCKS if language == "python" and "# spiral.py" in text)
    (points,) = (text for language, text in BLOCKS if language == "toml")
    (test,) = (text for language, text in BLOCKS if language == "python" and "suite(" in text)
    ((name, module),) = tomllib.loads(points)["project"]["entry-points"]["genbench"].items()
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[genbench]\n{name} = {module}\n")
    (tmp_path / f"{module}.py").write_text(plugin)
    (tmp_path / "test_spiral.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_spiral.py"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed", done.stdout, flags=re.MULTILINE)
    assert genbench("list", "--disable-plugin", "glyphs").exit_code == 0


def test_what_the_readme_makes_anew_keeps_the_contract(genbench: Callable[..., Result]) -> None:
    made, check = (c.split("  #")[0] for c in COMMANDS if "laplace" in c and "run" not in c)
    assert genbench(*shlex.split(made)[1:]).exit_code == 0
    result = genbench(*shlex.split(check)[1:])
    assert result.exit_code == 0, result.output


def test_every_option_and_command_that_the_readme_names_exists() -> None:
    flags = {flag for command in main.commands.values() for option in command.params for flag in option.opts}
    assert set(re.findall(r"`(--[a-z-]+)", README)) <= flags
    assert set(re.findall(r"`genbench (\w+)", README)) <= set(main.commands)


def test_every_name_in_the_options_table_is_offered() -> None:
    registry = load()
    for flag, kind in (("--dataset", "dataset"), ("--network", "network"), ("--metrics", "metric")):
        (row,) = (line for line in README.splitlines() if line.startswith(f"| `{flag}"))
        names = set(re.findall(r"`([a-z0-9-]+)`", row.split("|")[2]))
        assert names == set(registry.registrations[kind]), flag  # type: ignore[index]
