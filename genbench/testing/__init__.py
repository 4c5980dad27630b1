"""The conformance kit: the contract of every kind of plug-in as checks, for a command and for a test.

    genbench check --plugin ./spiral.py           from the command line
    from genbench.testing import suite            in a third party's tests/test_conformance.py:
    test_conformance = suite("spiral")            one case for each check: prior-spiral-first_two_moments

Everything is seeded: a result is the same at every call. Statistical checks raise a false alarm with a probability
below 1e-6 for a plug-in.
"""

from __future__ import annotations

from genbench.testing.checks import CHECKED, check, check_plugin, describe, suite
from genbench.testing.results import CheckStatus, Result

__all__ = ["CHECKED", "CheckStatus", "Result", "check", "check_plugin", "describe", "suite"]
