"""Memory freed within `heap_kept` is used again without asking the system, and given back at the end."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import genbench.training.heap
from genbench.training.heap import heap_kept

BYTES = 80 << 20
"""In two blocks, each above the 32 MiB from which glibc maps every block for itself."""


def faults(steps: int) -> int:
    """Pages that the system had to hand out while blocks of a step's size came and went."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        blocks = [torch.zeros(BYTES // 2, dtype=torch.uint8) for _ in range(2)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:"))


def pages_are_kept() -> None:
    """Run by the test in a process of its own: what other tests left on the heap would count.

    The heap grows for some steps, until two gaps in it fit the two blocks. What it held is given back at the end; that
    later blocks are mapped anew is more than glibc promises, for it looks for a gap of the heap first.
    """
    outside, before = faults(10), resident()
    assert outside > 10 * BYTES // 8192
    with heap_kept():
        growing = [faults(1) for _ in range(30)]
        within, held = faults(10), resident()
    assert within < outside / 1000, (growing, within, outside)
    assert held > before + BYTES // 2
    assert resident() < before + BYTES // 8


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_pages_are_kept_within_and_given_back_after() -> None:
    command = [sys.executable, "-c", "import test_heap; test_heap.pages_are_kept()"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_an_error_within_gives_them_back_too() -> None:
    with pytest.raises(ZeroDivisionError), heap_kept():
        raise ZeroDivisionError
    assert faults(4) > 4 * BYTES // 8192


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert genbench.training.heap._glibc() is None
    with heap_kept():
        assert torch.zeros(BYTES, dtype=torch.uint8).sum() == 0
