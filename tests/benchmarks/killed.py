"""Kills a study 50 times and writes what became of it.

    python tests/benchmarks/killed.py [--kills 50] [--seed 0]

Writes reports/reliability/killed.json and .md; takes some three minutes. The study and the deaths are those of
tests/support/killing.py. It counts without a goal and lists the differences.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from genbench.storage.provenance import commit
from genbench.utils.io import write_json, write_text

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "reports" / "reliability"


def main() -> None:
    """Kill, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, str(ROOT / "tests" / "support" / "killing.py")]
        options = ["--kills", str(asked.kills), "--seed", str(asked.seed), "--folder", f"{folder}/killed"]
        done = subprocess.run([*program, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    counts = json.loads(done.stdout)
    facts = {"command": f"python tests/benchmarks/killed.py --kills {asked.kills} --seed {asked.seed}"}
    facts |= {"commit": commit(), "minutes": f"{(time.perf_counter() - began) / 60:.1f}"}
    OUT.mkdir(parents=True, exist_ok=True)
    write_json(OUT / "killed.json", {**counts, **facts})
    write_text(OUT / "killed.md", words({**counts, **facts}))


def words(counts: dict[str, Any]) -> str:
    """The counts as a page."""
    lines = [f"| {phase} | {count} |" for phase, count in counts["deaths"].items()]
    return "\n".join(
        [
            "# Killed studies",
            "",
            f"`{counts['command']}`, commit {counts['commit']}, {counts['minutes']} minutes.",
            "",
            "A study of two models, two seeds, snapshots and a control was killed by SIGKILL and begun again by the",
            f"same command until it was whole; then the next one began with nothing. Deaths: {counts['kills']}.",
            f"Studies completed: {counts['completed']}. Studies that differ from an undisturbed one, that failed, or",
            f"that left a half-written file: {len(counts['wrong'])}.",
            "",
            "| killed while | times |",
            "|:--|--:|",
            *lines,
            "",
            *[f"* {wrong}" for wrong in counts["wrong"]],
        ]
    )


if __name__ == "__main__":
    main()
