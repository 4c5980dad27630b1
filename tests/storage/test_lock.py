"""Claims on run folders: one holder, here and on other machines; the dead hold nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genbench.storage import lock as claims
from genbench.storage.lock import LEASE, STALE_SECONDS, RunLockedError, lock_run


def lease(folder: Path, machine: str, age: float) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / LEASE
    path.write_text(json.dumps({"machine": machine, "process": 1, "token": "t"}))
    now = path.stat().st_mtime
    os.utime(path, (now - age, now - age))
    return path


def test_one_holder_at_a_time_and_nothing_stays(tmp_path: Path) -> None:
    with lock_run(tmp_path):
        with pytest.raises(RunLockedError), lock_run(tmp_path):
            pass
        assert (tmp_path / LEASE).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    with lock_run(tmp_path):
        pass


def test_what_a_killed_process_held_is_taken_over_at_once(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; from genbench.storage.lock import lock_run\n"
        "with claimed(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    assert (tmp_path / LEASE).exists()
    with lock_run(tmp_path):
        pass


def test_a_lease_of_another_machine_is_respected_until_it_is_stale(tmp_path: Path) -> None:
    """As where locks do not reach other machines: the lock here is free."""
    path = lease(tmp_path, "elsewhere 1", 0.0)
    before = path.read_text()
    with pytest.raises(RunLockedError), lock_run(tmp_path):
        pass
    assert path.read_text() == before
    lease(tmp_path, "elsewhere 1", STALE_SECONDS + 1)
    with lock_run(tmp_path):
        assert json.loads(path.read_text())["machine"] == claims.machine()
    assert not path.exists()


def test_a_holder_touches_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.01)
    with lock_run(tmp_path):
        path = tmp_path / LEASE
        os.utime(path, (0, 0))
        for _ in range(500):
            if path.stat().st_mtime > 0:
                break
            claims.threading.Event().wait(0.01)
        assert path.stat().st_mtime > 0


def test_of_two_that_find_a_stale_lease_the_later_gives_the_other_its_lease_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lease(tmp_path, "elsewhere 1", STALE_SECONDS + 1)
    theirs = json.dumps({"machine": "elsewhere 2", "process": 2, "token": "u"})

    def overtaken(_: Path) -> float:
        path.write_text(theirs)  # between our look at the lease and our taking it away
        return STALE_SECONDS + 1

    monkeypatch.setattr(claims, "_age", overtaken)
    with pytest.raises(RunLockedError), lock_run(tmp_path):
        pass
    assert path.read_text() == theirs


def test_a_lease_that_cannot_be_read_is_respected_until_it_is_stale(tmp_path: Path) -> None:
    (tmp_path / LEASE).write_bytes(b"\xff{")
    with pytest.raises(RunLockedError), lock_run(tmp_path):
        pass
