"""A command loads its dataset once and decodes no file twice, whatever the grid; the next one decodes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

import genbench_folder
from genbench.api import DataConfig, Images
from genbench.execution.runner import Runner, RunOutcome
from genbench.experiment.run import Run

GRID = ("ae", "swae", "--prior", "normal,ring", "--latent-dim", "2", "--seeds", "2", "--network", "mlp")
TINY = ("--batch", "8", "--images", "32", "--metrics", "reconstruction", "--dataset", "folder")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Counter[str]:
    """How often the dataset is loaded, a file decoded, a run done; 24 pictures lie in `pictures/`."""
    counts: Counter[str] = Counter()
    load, decode, run = genbench_folder.Folder.load, genbench_folder.picture, Runner.run

    def counting_load(self: genbench_folder.Folder, data_config: DataConfig) -> Images:
        counts["loads"] += 1
        return load(self, data_config)

    def counting_decode(data: bytes, **options: object) -> object:
        counts["decodes"] += 1
        return decode(data, **options)  # type: ignore[arg-type]

    def counting_run(self: Runner, config: Run) -> RunOutcome:
        counts["runs"] += 1
        return run(self, config)

    monkeypatch.setattr(genbench_folder.Folder, "load", counting_load)
    monkeypatch.setattr(genbench_folder, "picture", counting_decode)
    monkeypatch.setattr(Runner, "run", counting_run)
    (tmp_path / "pictures").mkdir()
    for n in range(24):
        Image.new("RGB", (12, 12), (10 * n, n, 0)).save(tmp_path / "pictures" / f"{n}.png")
    return counts


def test_once_per_command(counted: Counter[str], genbench: Callable[..., Result]) -> None:
    options = ("--set", "dataset.path=pictures", "--set", "dataset.size=8")
    assert genbench("run", *GRID, *TINY, *options).exit_code == 0
    assert counted == {"loads": 1, "decodes": 24, "runs": 8}
    counted.clear()
    assert genbench("evaluate", "--metrics", "reconstruction,sharpness").exit_code == 0
    assert (counted["loads"], counted["decodes"]) == (1, 0)
    counted.clear()
    assert genbench("run", *GRID, *TINY, *options, "--seeds", "3").exit_code == 0
    assert counted == {"loads": 1, "runs": 4}
    counted.clear()
    assert genbench("run", *GRID, *TINY, *options).exit_code == 0  # nothing is left to do
    assert not counted
