"""What a plug-in says at import reaches neither our standard output nor, unmarked, our standard error."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from genbench.registry.quiet import captured

NOISY = """
import os, subprocess, sys
print("by Python")
os.write(1, b"by descriptor")
subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
if os.name == "posix":
    import ctypes
    ctypes.CDLL(None).printf(b"by C")
"""
SAID = ("by Python", "by descriptor", "by a child", *(["by C"] if os.name == "posix" else []))
DOTS = ("--plugin", str(Path(__file__).parents[1] / "fixtures" / "dots.py"), "--dataset", "dots", "--network", "mlp")
TINY = ("--images", "64", "--batch", "16", "--latent-dim", "2", "--metrics", "reconstruction")


@pytest.fixture
def noisy(tmp_path: Path, genbench: Callable[..., Result]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own, where a noisy plug-in is installed."""
    site = tmp_path / "site"
    (site / "noisy-1.0.dist-info").mkdir(parents=True)
    (site / "noisy.py").write_text(NOISY)
    (site / "noisy-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy\nVersion: 1.0\n")
    (site / "noisy-1.0.dist-info" / "entry_points.txt").write_text("[genbench]\nnoisy = noisy\n")
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "genbench", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_what_can_be_parsed_stays_clean(
    noisy: Callable[..., subprocess.CompletedProcess[str]], genbench: Callable[..., Result]
) -> None:
    done = noisy("check", "normal", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert {result["kind"] for result in json.loads(done.stdout)} == {"prior"}
    (line,) = done.stderr.splitlines()
    assert line.startswith("genbench: plug-in 'noisy' of noisy 1.0 prints at import: ")
    assert all(words in line for words in SAID)


def test_a_report_is_clean_and_a_run_says_it_once(
    noisy: Callable[..., subprocess.CompletedProcess[str]], genbench: Callable[..., Result]
) -> None:
    done = noisy("run", "ae", *DOTS, *TINY)
    assert done.returncode == 0, done.stderr
    assert not [words for words in SAID if words in done.stdout]
    assert done.stderr.count("prints at import") == 1
    done = noisy("report", "--format", "csv")
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert rows
    assert {row["metric"].split(".")[0] for row in rows} == {"reconstruction"}


def test_the_descriptor_is_given_back_and_standard_error_is_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        os.write(1, b"hidden")
        os.write(2, b"last words")
        raise KeyError

    with pytest.raises(KeyError), captured():
        fail()
    os.write(1, b"shown")
    assert capfd.readouterr() == ("shown", "last words")


def test_more_than_a_pipe_holds_does_not_block(capfd: pytest.CaptureFixture[str]) -> None:
    with captured() as said:
        os.write(1, b"x" * 1_000_000)
    assert len("".join(said)) == 1_000_000


def test_a_closed_standard_output_is_no_hindrance() -> None:
    code = "import os; os.close(1)\nfrom genbench.registry.quiet import captured\nwith captured() as said: print('x')\n"
    code += "import sys; sys.stderr.write(repr(said)); sys.stderr.flush(); os._exit(0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "['x\\n']"
