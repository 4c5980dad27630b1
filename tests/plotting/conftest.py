"""Pictures are rendered here."""

from __future__ import annotations

import pytest


@pytest.fixture
def laid_out() -> None:
    """Takes the place of the fixture that renders nothing."""
