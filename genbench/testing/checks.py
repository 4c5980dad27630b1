"""The checks of each kind, and how a component becomes their subject."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from genbench.errors import GenbenchError, UsageError, one_line, unknown
from genbench.registry.listing import KINDS, Kind
from genbench.registry.loader import Registry, load
from genbench.registry.options import complete
from genbench.testing import (
    controls,
    datasets,
    extractors,
    metrics,
    models,
    networks,
    objectives,
    priors,
    projections,
    recipes,
    samplers,
)
from genbench.testing.results import BoundFactory, ConformanceCheck, Failed, Result, Skipped, verdicts

Checks = tuple[Callable[..., Any], tuple[ConformanceCheck[Any], ...]]

_KINDS: Mapping[str, Checks] = {
    "model": (models.build, models.CHECKS + objectives.CHECKS + projections.CHECKS),
    "prior": (priors.build, priors.CHECKS),
    "network": (networks.build, networks.CHECKS),
    "metric": (metrics.build, metrics.CHECKS),
    "dataset": (datasets.build, datasets.CHECKS),
    "extractor": (extractors.build, extractors.CHECKS),
    "sampler": (samplers.build, samplers.CHECKS),
    "control": (controls.build, controls.CHECKS),
    "recipe": (recipes.build, recipes.CHECKS),
}
"""Per kind: a function from a factory whose options are bound to the subject, and the checks of that subject."""


CHECKED: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind in _KINDS)
BUILT = "built_with_its_defaults"


def check_names(kind: str) -> tuple[str, ...]:
    """The names of the checks of a kind, in the order in which they run."""
    return tuple(check.name for check in _KINDS[kind][1])


def describe(kind: str) -> dict[str, str]:
    """What each check of a kind asserts, by name."""
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
        yield Result(kind, name, BUILT, "fails", f"{type(error).__name__}: {one_line(error)}", advice)
        return
    yield from verdicts(kind, name, checks, subject)


def check(*names: str, kind: Kind | None = None, plugins: tuple[Path, ...] = ()) -> Iterator[Result]:
    """Results for the components called `names`.

    Args:
        *names: Names of components; without any, those of `plugins` are checked, or else everything installed.
        kind: The kind of component; by default every kind that has the name.
        plugins: Files of plug-ins that are not installed.

    Raises:
        UsageError: No component has a name.

    Example:
        >>> {result.verdict for result in check("mlp")}
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
    """Kind and name of what is to be checked."""
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
