"""A study whose dataset has changed since: nothing old passes for done, and nothing old is mixed in without a word."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

RUN = ("run", "ae", "--dataset", "folder", "--network", "mlp", "--latent-dim", "2", "--batch", "8", "--images", "16")
OPTIONS = ("--metrics", "reconstruction", "--set", "folder.size=8")


def pictures(folder: Path, count: int, seed: int = 0) -> None:
    draws = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for i in range(count):
        Image.fromarray(draws.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i:03d}.png")


@pytest.fixture
def study(genbench: Callable[..., Result]) -> Callable[..., str]:
    """The output of the same command with a path of the images."""

    def run(path: str, *more: str) -> str:
        result = genbench(*RUN, *OPTIONS, "--set", f"folder.path={path}", *more)
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_a_run_is_done_while_its_files_are_the_same(
    study: Callable[..., str], genbench: Callable[..., Result], tmp_path: Path
) -> None:
    pictures(tmp_path / "grow", 40)
    (tmp_path / "link").symlink_to(tmp_path / "grow")
    assert ": 1 new" in study("grow")
    (old,) = (tmp_path / "runs").iterdir()
    assert ": 1 done" in study(str(tmp_path / "link"), "--dry-run")

    # The folder grows: the plan says so, and trains anew.
    pictures(tmp_path / "grow", 60, seed=7)
    word = "1 trained run of earlier files of the dataset 'folder' (path=grow) stays apart"
    planned = study("grow", "--dry-run")
    assert ": 1 new" in planned
    assert word in planned
    assert word in study("grow")

    # One table never mixes both, and what needs the old files refuses.
    report, both = genbench("report").output, genbench("report", "--all-sources").output
    assert "not shown: 1 run of earlier files of the dataset 'folder' (path=grow)" in report
    # The files are named by the time of their first run, or by a hash where both began in the same second.
    files = re.compile(r"folder: grow, size 8, (data [^·]+) ·")
    assert not files.findall(report)
    assert len(set(files.findall(both))) == 2
    refusal = genbench("evaluate", str(old), "--metrics", "psnr")
    assert refusal.exit_code == 2
    assert "the files of the dataset 'folder' (path=grow) are not those of the run: restore them" in refusal.output

    # Restored, it goes on.
    for path in (tmp_path / "grow").iterdir():
        path.unlink()
    pictures(tmp_path / "grow", 40)
    assert genbench("evaluate", str(old), "--metrics", "psnr").exit_code == 0
