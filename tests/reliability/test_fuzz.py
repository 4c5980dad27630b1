"""Damaged files end in an error of ours, in one line, or are read as sound; nothing else, and nothing outside."""

from __future__ import annotations

import pytest

from support.mutations import TARGETS, fuzz


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_refused_or_read(name: str) -> None:
    counts = fuzz(name, 600)
    assert counts.crashes == []
    assert counts.refused > 200
    assert counts.refused + counts.read == 600
