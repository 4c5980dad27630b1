"""The checks of recipes (that they can be read, planned and cited) and of trackers. Nothing is trained."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from genbench.api import Finding, Recipe, TrackedRun, Tracker
from genbench.errors import PluginError, UnsupportedError, UsageError
from genbench.registry.loader import Registry, load
from genbench.registry.options import complete
from genbench.reproduction.recipe import ParsedRecipe, RecipeCell, parse
from genbench.testing.results import ConformanceCheck, Skipped, expect, global_state

# ---------------------------------------------------------------- recipes


@dataclass(frozen=True)
class Read:
    """A recipe, its component's name, and its parsed text."""

    name: str
    recipe: Recipe
    parsed: ParsedRecipe


def build(make: Callable[[], Recipe]) -> Read:
    """The subject of the checks; a text that cannot be read fails here, with the key that is wrong."""
    recipe = make()
    try:
        parsed = parse(recipe.text, recipe.where)
    except UsageError as error:  # of the author; the kit takes a UsageError for an option that has no default
        raise PluginError(str(error)) from None
    return Read(getattr(make, "spec").name, recipe, parsed)  # noqa: B009


def named_as_offered(subject: Read) -> str:
    """The text's name is the component's, and its study is the one that the component has."""
    expect(subject.parsed.name == subject.name, f"the text says '{subject.parsed.name}'")
    brings = subject.recipe.experiment is not None
    expect((subject.parsed.study == "experiment") == brings, f"study = '{subject.parsed.study}'")
    return subject.parsed.study


def parts_are_offered(subject: Read) -> str:
    """Every model, prior, network, dataset and metric of every cell is recipe, with the options that are set."""
    if not subject.parsed.cells:
        raise Skipped("an experiment has no cells")
    registry = load([Path(subject.recipe.where)] if Path(subject.recipe.where).is_file() else [])
    for cell in subject.parsed.cells:
        _check_options(cell, registry)
    return f"{len(subject.parsed.cells)} cells"


def _check_options(cell: RecipeCell, registry: Registry) -> None:
    parts = [
        *(("model", name) for name in cell.models),
        *(("prior", name) for name in cell.priors),
        *(("metric", name) for name in (*cell.metrics, *cell.snapshot_metrics)),
        ("network", cell.network),
        ("dataset", cell.dataset),
    ]
    known = {name for part in parts for name in part}
    texts: dict[str, dict[str, str]] = {}
    for setting in cell.settings:
        target, equals, value = setting.partition("=")
        owner, dot, option = target.partition(".")
        expect(bool(equals and dot), f"cell {cell.name}: set: '{setting}' is not NAME.OPTION=VALUE")
        expect(owner in known, f"cell {cell.name}: set: '{owner}' is no part of the cell")
        texts.setdefault(owner, {})[option] = value
    for kind, name in parts:
        spec = registry.get(kind, name).spec  # type: ignore[arg-type]  # mypy widens the kinds to str
        complete(name, spec.factory, {**texts.get(kind, {}), **texts.get(name, {})})


def numbers_are_cited(subject: Read) -> str:
    """Every published number has a source and states at least one field of the protocol it was measured by."""
    for number in subject.parsed.published:
        whose = f"{number.cell or number.case} {number.model} {number.metric}"
        expect(bool(number.protocol), f"{whose}: its protocol states no field")
    expect(bool(re.search(r"\w", subject.parsed.citation)), "no citation")
    return f"{len(subject.parsed.published)} numbers"


def experiment_yields_findings(subject: Read) -> str:
    """An experiment at its least budget yields findings first of all, and the same ones under the same seed."""
    if subject.recipe.experiment is None:
        raise Skipped("a grid has no experiment")
    first, again = (list(islice(subject.recipe.experiment(0, 1e-9), 3)) for _ in range(2))
    expect(bool(first) and all(isinstance(finding, Finding) for finding in first), f"{first!r}")
    expect(first == again, "two calls with one seed differ")
    return f"{first[0].metric} of {first[0].case}"


CHECKS: tuple[ConformanceCheck[Read], ...] = (
    ConformanceCheck(named_as_offered, "give the TOML's `name` and `study` as they are offered"),
    ConformanceCheck(
        parts_are_offered, "name what `genbench list` shows; `genbench reproduce NAME --dry-run` plans with the data"
    ),
    ConformanceCheck(
        numbers_are_cited, "give each [[published]] a source and a [protocols.…] with what the paper says"
    ),
    ConformanceCheck(experiment_yields_findings, "yield genbench.api.Finding; take all randomness from the seed"),
)


# ---------------------------------------------------------------- trackers

RUNS = ("glyphs-swae-normal-2d-s0-0123456789", "glyphs-vae-normal-2d-s0-9876543210")


@dataclass(frozen=True)
class Trackers:
    """One tracker with its default options."""

    make: Callable[[], Tracker]


def build_tracker(make: Callable[[], Tracker]) -> Trackers:
    """The subject; skipped where the tracker lacks a package."""
    try:
        make()
    except UnsupportedError as reason:
        raise Skipped(str(reason)) from None
    return Trackers(make)


def started(subject: Trackers, store: Path, name: str, *, resumed: bool = False) -> Tracker:
    """A tracker that follows a run of a folder of runs."""
    config: dict[str, str | float] = {
        "model": "swae",
        "model.weight": 10.0,
        "prior": "normal",
        "latent_dim": 2,
        "seed": 0,
    }
    (store / name).mkdir(exist_ok=True)
    tracker = subject.make()
    tracker.on_run_start(TrackedRun(name, store / name, config, resumed))
    return tracker


def goes_on(tracker: Tracker, step: int) -> None:
    """A log point."""
    tracker.on_log(step, 128 * step, {"autoencoder": 1.0 / step, "images_per_second": 5000.0})


def follows_a_run(subject: Trackers) -> str:
    """The events of a run raise nothing, and leave the global random state alone."""
    with tempfile.TemporaryDirectory() as folder:
        before = global_state()
        tracker = started(subject, Path(folder), RUNS[0])
        for step in (1, 2):
            goes_on(tracker, step)
        tracker.on_metrics(256, "validation", {"fid": 30.5})
        tracker.on_metrics(256, "test", {"fid": 31.5, "reconstruction.pixel": 0.02})
        tracker.on_run_end("done", "")
        expect(global_state() == before, "it changes the global random state, and with it the runs of this command")
    return "start, log points, measurements and end"


def follows_several_runs(subject: Trackers) -> str:
    """The events of two runs may alternate, and each run has a tracker."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = (started(subject, Path(folder), name) for name in RUNS)
        for step in (1, 2):
            goes_on(first, step)
            goes_on(second, step)
        first.on_run_end("done", "")
        goes_on(second, 3)
        second.on_run_end("failed", "DivergenceError: the loss is not finite")
    return "two runs in turns"


def follows_a_resumed_run(subject: Trackers) -> str:
    """A run that was interrupted is followed again by a new tracker, from an earlier step on."""
    with tempfile.TemporaryDirectory() as folder:
        first = started(subject, Path(folder), RUNS[0])
        goes_on(first, 2)
        first.on_run_end("interrupted", "")
        second = started(subject, Path(folder), RUNS[0], resumed=True)
        goes_on(second, 2)
        second.on_run_end("done", "")
    return "interrupted and resumed"


TRACKER_CHECKS: tuple[ConformanceCheck[Trackers], ...] = (
    ConformanceCheck(follows_a_run, "override the methods of genbench.api.Tracker with their arguments"),
    ConformanceCheck(follows_several_runs, "keep what belongs to a run in `self`, nothing in globals or in the class"),
    ConformanceCheck(follows_a_resumed_run, "open in `on_run_start` what may be there already; append, do not replace"),
)
