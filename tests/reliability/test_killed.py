"""kill -9 at random times: the same command again ends with the rows of an undisturbed study."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import genbench
from support.killing import PHASES

KILLING = Path(__file__).parents[1] / "support" / "killing.py"


def test_the_phases_are_functions_of_the_package() -> None:
    sources = [path.read_text() for path in Path(genbench.__file__).parent.rglob("*.py")]
    assert [name for name, _ in PHASES if not any(re.search(rf"def {name}\b", source) for source in sources)] == []


def test_a_killed_study_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(KILLING), "--kills", "3", "--folder", str(tmp_path / "killed")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["kills"] == 3
    assert counts["completed"] >= 1
    assert counts["wrong"] == []
