"""What commands cost over 10,000 finished runs: each at most 10 s and 1 GiB.

`pytest tests/benchmarks/test_scale.py` makes the two stores of synthetic.py (a minute each) and measures each command
in a process of its own, its files read once before: wall time, and the highest resident memory by the system's
count, mapped libraries included. A plan of one run is measured beside them: the cost of torch and the plug-ins before
any run is read. `-k deep` or `-k wide` measures one store. Writes reports/speed/scale.json and .md, also where a goal
is missed, which fails at the end. Linux.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ratio import OUT, machine
from synthetic import DEEP, WIDE, Shape, fill

from genbench.utils.io import read_json, write_json, write_text

SECONDS, MIB = 10.0, 1024.0
REPEATS = 3
ONE = replace(DEEP, name="one run", models=("swae",), latent_dims=(8,), seeds=1)
SHAPES = {"deep": DEEP, "wide": WIDE}
COMMANDS = ("report", "export", "fresh plan", "resumed plan", "resumed run")
DATA = "table.tex"
"""The last of an export's data files; pictures, figures and the page come after it."""

MEASURED = """
import json, os, subprocess, sys, time
command, last = sys.argv[2:], sys.argv[1]
began, there = time.time(), None
process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
while last and process.poll() is None and not os.path.exists(last):
    time.sleep(0.01)
if last and os.path.exists(last):
    seconds = time.time() - began
    status = open(f"/proc/{process.pid}/status").read().split()
    peak = int(status[status.index("VmHWM:") + 1])
    process.kill()
    process.wait()
    code = 0
else:
    _, status, used = os.wait4(process.pid, 0)
    seconds, peak, code = time.time() - began, used.ru_maxrss, os.waitstatus_to_exitcode(status)
print(json.dumps({"seconds": seconds, "mib": peak / 1024, "code": code}))
"""
"""Started without torch, whose memory the system would count as the command's: a process begins as a copy of another.
Where a file is named, until it is there.
"""


@pytest.fixture(scope="module", params=list(SHAPES))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Shape, Path]:
    shape = SHAPES[request.param]
    runs = tmp_path_factory.mktemp(request.param) / "runs"
    fill(runs, shape)
    return shape, runs


def arguments(what: str, shape: Shape, runs: Path) -> list[str]:
    """The command line of one measurement."""
    if what == "report":
        return ["report", str(runs)]
    if what == "export":
        return ["report", str(runs), "--export", str(runs.parent / "export")]
    where = runs.parent / "none" if what == "fresh plan" else runs
    dry = [] if what == "resumed run" else ["--dry-run"]
    return ["run", *shape.arguments, "--device", "cpu", "--out", str(where), *dry]


def measured(command: list[str], cache: Path, last: Path | None = None) -> dict[str, float]:
    """Seconds and MiB of one process."""
    if last is not None:
        last.unlink(missing_ok=True)
    whole = [sys.executable, "-S", "-c", MEASURED, str(last or ""), sys.executable, "-m", "genbench", *command]
    environment = {**os.environ, "GENBENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(whole, capture_output=True, text=True, check=True, env=environment)
    usage: dict[str, float] = json.loads(done.stdout)
    assert usage["code"] == 0, done.stderr[-2000:]
    return usage


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell a process's memory")
@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_over_ten_thousand_runs(what: str, store: tuple[Shape, Path]) -> None:
    shape, runs = store
    command = arguments(what, shape, runs)
    last = runs.parent / "export" / DATA if what == "export" else None
    cache = runs.parent / "cache"
    usages = [measured(command, cache, last) for _ in range(1 + REPEATS)][1:]
    bare = measured(arguments("fresh plan", ONE, runs), cache) if command[0] == "run" else None
    entry = {
        "command": shlex.join(["genbench", *command]).replace(str(runs.parent), "FOLDER"),
        "seconds": spread([each["seconds"] for each in usages]),
        "mib": spread([each["mib"] for each in usages]),
        "of_one_run": bare and {name: bare[name] for name in ("seconds", "mib")},
        "goal": {"seconds": SECONDS, "mib": MIB},
        "repeats": REPEATS,
        "machine": machine(),
    }
    path = OUT / "scale.json"
    entries: dict[str, Any] = {**(read_json(path) if path.exists() else {}), f"{shape.name}: {what}": entry}
    write_json(path, entries)
    write_text(OUT / "scale.md", table(entries))
    assert entry["seconds"]["median"] <= SECONDS
    assert entry["mib"]["median"] <= MIB


def spread(values: list[float]) -> dict[str, float]:
    """The median, the lowest and the highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def table(entries: Mapping[str, Any]) -> str:
    """The commands as one markdown table."""
    lines = [
        "| 10,000 runs | seconds (lowest to highest) | goal | peak memory, MiB | goal | a plan of one run: s, MiB |",
        "|:--|--:|:--|--:|:--|--:|",
    ]
    for name, entry in sorted(entries.items()):
        seconds, mib, goal, bare = entry["seconds"], entry["mib"], entry["goal"], entry["of_one_run"]
        met = [
            "met" if values["median"] <= goal[what] else "missed"
            for what, values in (("seconds", seconds), ("mib", mib))
        ]
        lines.append(
            f"| {name} | {seconds['median']:.1f} ({seconds['low']:.1f} to {seconds['high']:.1f})"
            f" | at most {goal['seconds']:g}: {met[0]} | {mib['median']:,.0f} | at most {goal['mib']:,.0f}: {met[1]}"
            f" | {'' if bare is None else '{seconds:.1f}, {mib:,.0f}'.format(**bare)} |"
        )
    notes = [f"* {name}: {entry['repeats']} repeats of `{entry['command']}`" for name, entry in sorted(entries.items())]
    remark = (
        "An export is measured until its last data file stands (rows and tables): its pictures and page come after."
    )
    return "\n".join([*lines, "", remark, "", *notes, ""])
