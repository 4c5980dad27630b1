"""The kit as a pytest suite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from genbench.registry.listing import Kind
from genbench.registry.loader import load
from genbench.testing.checks import CHECKED, check_names, check_plugin, unknown_name
from genbench.testing.results import Result


def suite(*names: str, kind: Kind | None = None, plugins: Sequence[Path] = ()) -> Callable[[Kind, str, str], None]:
    """A parametrised pytest test of the offers called `names`, of one kind or of every kind that has the name.

    In a test module, `test_conformance = suite("spiral")`; a plug-in that is not installed is loaded by its file,
    `suite("spiral", plugins=[Path("spiral.py")])`. Each check is a case with the id `prior-spiral-first_two_moments`; a
    check that is skipped skips its case with the reason. Raises `UsageError` for a name that nothing offers. Needs
    pytest.
    """
    import pytest

    registry = load(plugins)
    found: dict[tuple[str, str], dict[str, Result]] = {}
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
        results = found.get((kind, name))
        if results is None:
            results = found[kind, name] = {r.check: r for r in check_plugin(registry, kind, name)}
        result = results.get(check) or next(iter(results.values()))  # one that stops the others: not built
        if result.verdict == "skipped":
            pytest.skip(result.detail)
        assert result.verdict != "fails", f"{result.id}: {result.detail}; {result.advice}"

    return conformance
