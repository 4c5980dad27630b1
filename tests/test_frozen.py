"""A rebuild changes no number: a part of a grid that was measured before it, trained and measured again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from genbench.api import DataConfig
from support.frozen import PART, differences, measured, same_machine


def test_numbers_are_those_of_before_the_rebuild(genbench: Callable[..., Result], drawn: DataConfig) -> None:
    shutil.copytree(drawn.cache / "images", Path("cache") / "images")
    assert genbench(*PART).exit_code == 0
    assert genbench("report", "--export", "out").exit_code == 0
    rows = json.loads(Path("out/rows.json").read_text())
    rows = rows["rows"] if isinstance(rows, dict) else rows
    assert len(measured(rows)) == 54
    assert not differences("grid", rows, exact=same_machine())


def test_a_changed_number_is_seen(genbench: Callable[..., Result]) -> None:
    row = {"role": "model", "model": "swae", "prior": "normal", "seed": 0, "stage": "final", "split": "test"}
    row |= {"images": 12800, "metric": "reconstruction", "value": 0.5, "floor": 0.0, "se": None}
    assert len(differences("grid", [row], exact=False)) == 1
