"""Peak memory of one command by the number of runs it has done: flat beyond the dataset and the network.

`pytest tests/benchmarks/test_memory.py` starts `genbench run` on tiny runs, asks the system for the process's resident
memory every 5 ms, and writes the highest until 5, 20 and 60 runs were done to reports/speed/memory.json and .md; and
the highest until its end, where the table is made, beside that of a command of 6 runs. Linux.
"""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ratio import OUT, machine

from conftest import DOTS
from genbench.utils.io import read_json, write_json, write_text

COUNTS = (5, 20, 60)
REPEATS = 3
GROWTH = 8.0
"""MiB that the peak may grow by from the first count to the last: caches that fill, not runs that stay."""
STUDIES = {
    "conv": ("swae", "wae-mmd", "vae", "--network", "conv"),
    "mlp, two optimizers": ("swae", "wae-gan", "cwae", "--network", "mlp"),
}


def resident(process: int) -> float:
    """MiB of memory that a process holds now; 0 when it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS:")), 0.0)


def peaks(arguments: tuple[str, ...], at: Path) -> tuple[list[float], float]:
    """The highest resident memory until each count of runs was done, and until the command's end; MiB."""
    command = [sys.executable, "-m", "genbench", "run", *arguments, "--plugin", str(DOTS), "--out", str(at / "runs")]
    highest, reached = 0.0, list[float]()
    at.mkdir()
    with (at / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        while process.poll() is None:
            highest = max(highest, resident(process.pid))
            done = sum(1 for _ in (at / "runs").glob("*/metrics.json"))
            reached += [highest for count in COUNTS[len(reached) :] if done >= count]
            time.sleep(0.005)
    assert process.returncode == 0, (at / "log").read_text()[-2000:]
    return reached, highest


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell a process's memory")
@pytest.mark.parametrize("study", list(STUDIES))
def test_memory_is_flat_in_the_number_of_runs(study: str, tmp_path: Path) -> None:
    grid = ("--prior", "normal,ring", "--latent-dim", "2", "--seeds", "10", "--dataset", "dots", "--device", "cpu")
    size = ("--batch", "32", "--images", "640", "--metrics", "reconstruction,latent-sw,sharpness,speed")
    fits = ("--set", "latent-sw.n=60")
    arguments = (*STUDIES[study], *grid, *size, *fits)
    measured = [peaks(arguments, tmp_path / str(repeat)) for repeat in range(REPEATS)]
    few = [peaks((*arguments, "--seeds", "1"), tmp_path / f"few {repeat}")[1] for repeat in range(REPEATS)]
    growth = [peak_values[-1] - peak_values[0] for peak_values, _ in measured]
    entry = {
        "command": shlex.join(["genbench", "run", *arguments]),
        "runs": COUNTS,
        "peaks": [
            statistics.median(column) for column in zip(*(peak_values for peak_values, _ in measured), strict=True)
        ],
        "growth": {"median": statistics.median(growth), "low": min(growth), "high": max(growth)},
        "end": statistics.median(highest for _, highest in measured),
        "end_of_6_runs": statistics.median(few),
        "goal": GROWTH,
        "repeats": REPEATS,
        "machine": machine(),
    }
    path = OUT / "memory.json"
    entries: dict[str, Any] = {**(read_json(path) if path.exists() else {}), study: entry}
    write_json(path, entries)
    write_text(OUT / "memory.md", table(entries))
    assert statistics.median(growth) <= GROWTH


def table(entries: dict[str, Any]) -> str:
    """The studies as one markdown table."""
    counts = " | ".join(f"{count} runs" for count in COUNTS)
    lines = [
        f"| peak resident memory, MiB | {counts} | growth, median (lowest to highest) | goal | end of 60 runs | of 6 |"
    ]
    lines.append("|:--|" + "--:|" * (len(COUNTS) + 4))
    for name, entry in entries.items():
        columns = " | ".join(f"{peak:.1f}" for peak in entry["peaks"])
        grown = "{median:.1f} ({low:.1f} to {high:.1f})".format(**entry["growth"])
        lines.append(
            f"| {name} | {columns} | {grown} | at most {entry['goal']:g} |"
            f" {entry['end']:.1f} | {entry['end_of_6_runs']:.1f} |"
        )
    notes = [f"* {name}: {entry['repeats']} repeats of `{entry['command']}`" for name, entry in entries.items()]
    return "\n".join([*lines, "", *notes, ""])
