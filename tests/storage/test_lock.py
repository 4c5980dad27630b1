"""The lock on a run folder: one holder at a time, a dead process holds nothing, and no lock is refused in one line."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from genbench.errors import StoreError
from genbench.storage.lock import RunLockedError, lock_run

HOLD = """
import os, pathlib, sys, time
from genbench.storage.lock import lock_run
with lock_run(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), 9)
    sys.stdin.read()
"""


def test_one_holder_at_a_time_and_the_next_one_after_it(tmp_path: Path) -> None:
    with lock_run(tmp_path), pytest.raises(RunLockedError), lock_run(tmp_path):
        pass
    with lock_run(tmp_path):
        pass


def test_a_lock_of_another_process_is_refused_at_once_and_free_when_that_ends(tmp_path: Path) -> None:
    program = [sys.executable, "-c", HOLD, str(tmp_path / "run"), "wait"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunLockedError), lock_run(tmp_path / "run"):
            pass
        holder.stdin.close()
    with lock_run(tmp_path / "run"):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    program = [sys.executable, "-c", HOLD, str(tmp_path), "die"]
    assert subprocess.run(program, check=False, capture_output=True).returncode == -9
    with lock_run(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "not here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match=rf"{tmp_path} cannot be locked") as caught, lock_run(tmp_path):
        pass
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be locked"), lock_run(tmp_path / "file" / "run"):
        pass
