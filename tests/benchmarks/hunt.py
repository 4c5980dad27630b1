"""Surroundings that a process has to be started in: limits, closed streams, encodings, a sparse file of 5 GiB.

python tests/benchmarks/hunt.py RUNS     RUNS is a folder of finished runs; prints a line for each case, exit status 1
                                         where one ends in a traceback, hangs, or has another status than it should.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

GENBENCH = f"{sys.executable} -m genbench"
CASES: tuple[tuple[str, int], ...] = (
    *((f"COLUMNS={width} {GENBENCH} report $RUNS", 0) for width in ("1", "5", "-1", "abc", "10000")),
    (f"{GENBENCH} report $RUNS >&-", 0),
    (f"{GENBENCH} report $RUNS <&-", 0),
    (f"{GENBENCH} report $RUNS 2>&-", 0),
    (f"{GENBENCH} report $RUNS >/dev/full", 2),
    (f"LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii {GENBENCH} report $RUNS", 0),
    (f"PYTHONIOENCODING=utf-16 {GENBENCH} report $RUNS", 0),
    (f"TMPDIR=/nonexistent {GENBENCH} report $RUNS --export export", 0),
    (f"GENBENCH_CACHE=/dev/null {GENBENCH} list models", 0),
    (f"SOURCE_DATE_EPOCH=abc {GENBENCH} report $RUNS --export dated", 0),
    (f"ulimit -f 8; {GENBENCH} report $RUNS --export limited", 2),
    (f"ulimit -n 12; {GENBENCH} report $RUNS", 0),
    (
        "mkdir sparse; printf BM > sparse/s.dat; truncate -s 5G sparse/s.dat; "
        f"{GENBENCH} run ae --dataset folder --set dataset.path=sparse --dry-run",
        2,
    ),
)


def main() -> int:
    """Run every case in an empty folder."""
    runs, wrong = Path(sys.argv[1]).resolve(), 0
    for command, expected in CASES:
        with tempfile.TemporaryDirectory() as folder:
            script = f"RUNS={str(runs)!r}; {command}"
            ended = subprocess.run(
                ["bash", "-c", script], cwd=folder, capture_output=True, text=True, errors="replace", timeout=120
            )
        failed = ended.returncode != expected or "Traceback" in ended.stderr
        wrong += failed
        last = ended.stderr.strip().splitlines()[-1:] or [""]
        shown = command.replace(GENBENCH, "genbench")
        print(f"{'WRONG' if failed else 'right'}  status {ended.returncode}  {shown}  {last[0][:160]}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
