"""The kit as a pytest suite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from genbench.registry.listing import Kind
from genbench.registry.loader import load
from genbench.testing.checks import CHECKED, check_names, check_plugin, unknown_name
from genbench.testing.results import Result


def suite(*names: str, kind: Kind | None = None, plugins: Sequence[Path] = ()) -> Callable[[Kind, str, str], None]:
    """A parametrized pytest test of some components: each check is a case, `prior-spiral-first_two_moments`.

    In a test module, `test_conformance = suite("spiral")`. A check that is skipped skips its case with the reason.
    Needs pytest.

    Args:
        *names: Names of components.
        kind: The kind of component; by default every kind that has the name.
        plugins: Files of plug-ins that are not installed, `[Path("spiral.py")]`.

    Raises:
        UsageError: No component has a name.
    """
    import pytest

    registry = load(plugins)
    known: dict[tuple[str, str], dict[str, Result]] = {}
    cases = []
    for name in names:
        kinds = [kind] if kind else [each for each in CHECKED if name in registry.registrations[each]]
        if not kinds:
            raise unknown_name(registry, name, CHECKED)
        for each in kinds:
            registry.get(each, name)
            cases += [pytest.param(each, name, check, id=f"{each}-{name}-{check}") for check in check_names(each)]

    @pytest.mark.parametrize(("kind", "name", "check"), cases)
    def conformance(kind: Kind, name: str, check: str) -> None:
        results = known.get((kind, name))
        if results is None:
            results = known[kind, name] = {r.check: r for r in check_plugin(registry, kind, name)}
        result = results.get(check) or next(iter(results.values()))  # not built: the only result
        if result.verdict == "skipped":
            pytest.skip(result.detail)
        assert result.verdict != "fails", f"{result.id}: {result.detail}; {result.advice}"

    return conformance
