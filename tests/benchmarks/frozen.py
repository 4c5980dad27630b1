"""Train and measure the whole frozen grid again and compare every number: `python tests/benchmarks/frozen.py`.

Some five minutes on one core. One of its runs is killed once its checkpoint stands, and resumed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.frozen import STUDIES, differences, measured, same_machine

GENBENCH = [sys.executable, "-m", "genbench"]


def run(arguments: list[str], folder: Path, *, kill: bool) -> None:
    """One study in a folder of its own; killed once a checkpoint stands, and run again, if asked."""
    command = [*GENBENCH, *arguments, "--jobs", "1", "--out", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if kill:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while not list(folder.glob("*/checkpoint.safetensors")):
            time.sleep(0.5)
            if process.poll() is not None:
                raise SystemExit(f"{folder.name} ended before it could be killed")
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)


def main() -> int:
    """Compare all studies; the exit status is 1 where a number differs."""
    exact, wrong = same_machine(), 0
    print(
        "equal to the last digit is asked for" if exact else "another processor or library: values are close, not equal"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for study, arguments in STUDIES.items():
            folder = Path(scratch) / study
            run(arguments, folder, kill=study == "killed")
            export = [*GENBENCH, "report", str(folder), "--export", f"{scratch}/export-{study}"]
            subprocess.run(export, stdout=subprocess.DEVNULL, check=True)
            rows = json.loads((Path(scratch) / f"export-{study}" / "rows.json").read_text())
            rows = rows["rows"] if isinstance(rows, dict) else rows
            lines = differences(study, rows, exact=exact)
            wrong += len(lines)
            print(f"{study}: {len(measured(rows))} numbers, {len(lines)} differ", *lines[:20], sep="\n  ", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
