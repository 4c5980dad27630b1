"""The checks of each kind, the check of a plug-in's imports, and both for a command and for pytest."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench.errors import GenbenchError, UsageError, one_line, unknown
from genbench.registry.listing import KINDS, Kind
from genbench.registry.loader import Plugin, Registry, load
from genbench.registry.options import complete
from genbench.testing import controls, datasets, metrics, models, networks, objectives, priors, recipes
from genbench.testing.results import BoundFactory, ConformanceCheck, Failed, Result, Skipped, check_subject
from genbench.utils.plugin_code import describe_error

Checks = tuple[Callable[..., Any], tuple[ConformanceCheck[Any], ...]]

_KINDS: Mapping[str, Checks] = {
    "model": (models.build, models.CHECKS + objectives.CHECKS),
    "prior": (priors.build, priors.CHECKS),
    "network": (networks.build_network, networks.NETWORK_CHECKS),
    "metric": (metrics.build, metrics.CHECKS),
    "dataset": (datasets.build, datasets.CHECKS),
    "extractor": (networks.build_extractor, networks.EXTRACTOR_CHECKS),
    "sampler": (controls.build_sampler, controls.SAMPLER_CHECKS),
    "control": (controls.build_control, controls.CONTROL_CHECKS),
    "recipe": (recipes.build, recipes.CHECKS),
    "tracker": (recipes.build_tracker, recipes.TRACKER_CHECKS),
}
"""Per kind: a function from a factory whose options are bound to the subject, and the checks of that subject."""


CHECKED: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind in _KINDS)
BUILT = "built_with_its_defaults"


def check_names(kind: str) -> tuple[str, ...]:
    """The names of the checks of a kind, in the order in which they run."""
    return tuple(check.name for check in _KINDS[kind][1])


def describe(kind: str) -> dict[str, str]:
    """The assertion of each check of a kind, by name."""
    return {check.name: check.asserts for check in _KINDS[kind][1]}


def check_plugin(registry: Registry, kind: Kind, name: str) -> Iterator[Result]:
    """Results of all checks of one component with its default options, one after another.

    A component that cannot be built fails `built_with_its_defaults`. A component with an option that has no default,
    and a kind without checks, yield one result that is skipped.

    Raises:
        GenbenchError: No plug-in has the name.
    """
    spec = registry.get(kind, name).spec
    if kind not in _KINDS:
        yield Result(kind, name, "none", "skipped", f"the kit has no checks for a {kind}")
        return
    build, checks = _KINDS[kind]
    try:
        options = complete(name, spec.factory, {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subject = build(BoundFactory(spec, options))
    except (UsageError, Skipped) as reason:
        yield Result(kind, name, BUILT, "skipped", one_line(reason))
        return
    except (GenbenchError, Failed, Exception) as error:
        advice = "factory(...) must work with the default options"
        detail = one_line(error) if isinstance(error, Failed) else describe_error(error)
        yield Result(kind, name, BUILT, "fails", detail, advice)
        return
    yield from check_subject(kind, name, checks, subject)


def check(*names: str, kind: Kind | None = None, plugins: tuple[Path, ...] = ()) -> Iterator[Result]:
    """Results for the components called `names`.

    Args:
        *names: Names of components; without any, those of `plugins` are checked, or else everything installed.
        kind: The kind of component; by default every kind that has the name.
        plugins: Files of plug-ins that are not installed.

    Raises:
        UsageError: No component has a name.

    Example:
        >>> {result.status for result in check("mlp")}
        {'holds'}
    """
    registry = load(plugins)
    for each, name in selected(registry, names, kind, plugins):
        yield from check_plugin(registry, each, name)


def unknown_name(registry: Registry, name: str, kinds: Iterable[Kind]) -> UsageError:
    """The error for a name that no kind has, with the nearest name of any kind."""
    return unknown("plug-in", name, sorted({each for kind in kinds for each in registry.registrations[kind]}))


def selected(
    registry: Registry, names: tuple[str, ...], kind: Kind | None, plugins: tuple[Path, ...]
) -> list[tuple[Kind, str]]:
    """Kind and name of each component to check."""
    kinds = (kind,) if kind else KINDS
    if not names:
        origins = {str(path) for path in plugins}
        return [
            (each, name)
            for each in kinds
            for name, entry in sorted(registry.registrations[each].items())
            if not origins or entry.plugin.origin in origins
        ]
    matches = []
    for name in names:
        having = [each for each in kinds if name in registry.registrations[each]]
        if not having:
            raise unknown_name(registry, name, kinds)
        matches += [(each, name) for each in having]
    return matches


# ---------------------------------------------------------------- imports of a plug-in file

PUBLIC = ("api", "data", "distances", "errors", "features", "hookspecs", "nn", "testing")
"""Public packages: a plug-in may import `genbench.NAME`. Anything else may change without notice."""


def deeper(source: str) -> list[str]:
    """The modules of genbench below the public surface that a source imports, sorted, without repeats."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names if alias.name.startswith("genbench.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "genbench" and not node.level:
            modules |= {f"genbench.{alias.name}" for alias in node.names if not alias.name.startswith("__")}
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("genbench."):
            modules.add(node.module or "")
    return sorted(name for name in modules if name.split(".")[1] not in PUBLIC)


def check_imports(path: Path, name: str) -> Result:
    """One result for a plug-in's file: `reported` where it imports from a deeper module, which is a warning."""
    modules = deeper(path.read_text(encoding="utf-8"))
    if not modules:
        return Result("plugin", name, "imports_the_public_surface", "holds", "genbench's public modules alone")
    detail = f"imports {', '.join(modules)}, which may change: public are genbench.{{{', '.join(PUBLIC)}}}"
    return Result("plugin", name, "imports_the_public_surface", "reported", detail)


def warnings_of(registry: Registry, files: tuple[Path, ...]) -> Iterator[Result]:
    """Results for some plug-in files."""
    loaded: dict[str, Plugin] = {plugin.origin: plugin for plugin in registry.plugins}
    for path in files:
        if str(path) in loaded:
            yield check_imports(path, loaded[str(path)].name)


# ---------------------------------------------------------------- as a pytest suite


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
        if result.status == "skipped":
            pytest.skip(result.detail)
        assert result.status != "fails", f"{result.id}: {result.detail}; {result.advice}"

    return conformance
