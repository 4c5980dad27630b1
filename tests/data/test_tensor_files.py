"""What is kept on disk is computed once, by one of several threads or processes, and again after a failure."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genbench.data.tensor_files import compute_once

SLOW = """
import sys, time
from pathlib import Path
from genbench.data.tensor_files import compute_once
path, log = Path(sys.argv[1]), Path(sys.argv[2])
def make():
    with log.open("a") as file:
        file.write("made\\n")
    time.sleep(1)
    path.write_text("1")
    return 1
print(compute_once(path, lambda: int(path.read_text()) if path.exists() else None, make))
"""


def test_two_processes_compute_one_thing_once(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", SLOW, str(tmp_path / "kept" / "value"), str(tmp_path / "log")]
    started = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in started] == ["1", "1"]
    assert (tmp_path / "log").read_text() == "made\n"
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["value"], "no lock is left"


def test_threads_wait_for_the_first(tmp_path: Path) -> None:
    path, made = tmp_path / "value", list[int]()

    def make() -> int:
        made.append(1)
        time.sleep(0.2)
        path.write_text("1")
        return 1

    def read() -> int | None:
        return int(path.read_text()) if path.exists() else None

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: compute_once(path, read, make), range(4))) == [1] * 4
    assert made == [1]


def test_a_failure_is_raised_and_leaves_no_lock(tmp_path: Path) -> None:
    def fail() -> int:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            compute_once(tmp_path / "value", lambda: None, fail)
    assert not list(tmp_path.iterdir())
