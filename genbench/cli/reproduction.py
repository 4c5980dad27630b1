"""What `genbench reproduce` does: plan all of a recipe, run it as any study is run, compare with what was published.

A recipe that trains nothing brings an experiment instead of cells; its findings are compared in the same table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genbench.analysis.formatting import format_estimate
from genbench.cli.engines import SERIAL, Chosen
from genbench.cli.run import INTERRUPTED, closing, conduct, make_bench, make_room, show_plan, stoppable, suited_engine
from genbench.cli.telling import BrokenPipeConsole
from genbench.errors import PluginError, UsageError, unknown
from genbench.execution.standing import standing
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, create_components, plan
from genbench.registry.options import complete, specs
from genbench.reporting.summary import write_report
from genbench.reproduction import comparison as reproduction
from genbench.reproduction.recipe import Cell, ParsedRecipe, parse
from genbench.storage.results import protocols, rows
from genbench.storage.run_dir import RUN, RunRecord, read_runs
from genbench.utils.io import write_json, write_text

if TYPE_CHECKING:
    from genbench.api import DataConfig, Finding, Recipe
    from genbench.registry.loader import Registry


@dataclass(frozen=True)
class RecipeOverrides:
    """What the command line asks of a recipe: its cells and models (none: all), a fraction of its budget, seeds."""

    cells: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    budget: float = 1.0
    seeds: int | None = None
    settings: tuple[str, ...] = ()


def reproduce(
    name: str,
    wish: RecipeOverrides,
    registry: Registry,
    place: DataConfig,
    device: str,
    out: Path,
    export: Path | None,
    *,
    dry_run: bool,
    engine: Chosen = SERIAL,
) -> int:
    """Run a recipe and show its table; the exit status as of `genbench run`."""
    from genbench.training.distributed import launched
    from genbench.utils.torch_state import pick_device

    if launched():
        raise UsageError("torchrun trains one model in several processes, with genbench run; reproduce in one process")
    own = tuple(setting for setting in wish.settings if setting.partition(".")[0] == name)
    offered, recipe = read_recipe(name, registry, own)
    rest = replace(wish, settings=tuple(setting for setting in wish.settings if setting not in own))
    if recipe.study == "experiment":
        return _experiment(offered, recipe, rest, export, of_recipe(name, registry, own), dry_run=dry_run)
    planned = [(cell, _plan(cell, rest, registry, place)) for cell in chosen_cells(recipe, wish.cells, wish.models)]
    console, chosen, status, outcome = BrokenPipeConsole(), pick_device(device), 0, None
    with stoppable() as stop:
        bench = make_bench(registry, out, place, chosen, stop)
        for cell, its in planned:
            console.print(f"[bold]{escape(cell.name)}[/]", highlight=False)
            show_plan(console, its, bench, standing(bench, its), brief=not dry_run)
        if dry_run:
            return 0
        make_room(out)
        if export is not None:
            make_room(export, "--export")
        for _, its in planned:
            stands = standing(bench, its)
            outcome = conduct(console, bench, its, suited_engine(console, bench, its, stands, engine), stands.done)
            status = max(status, INTERRUPTED if outcome.interrupted else int(bool(outcome.failed)))
            closing(console, outcome, out)
            if outcome.interrupted:
                break
    folders = {cell.name: [bench.folder(run) for run in its.runs] for cell, its in planned}
    there = {name: read_runs(f.path for f in its if f.has(RUN))[0] for name, its in folders.items()}
    everything = [record for its in there.values() for record in its]
    asked_for = {cell.name: {choice.key for choice in its.metrics} for cell, its in planned}
    measured = {name: rows(its, asked_for[name]) for name, its in there.items()}
    changed = {cell.name: (*changes(cell, rest, registry), *of_recipe(name, registry, own)) for cell, _ in planned}
    asked = {cell.name: cell.models for cell, _ in planned}
    published = tuple(it for it in recipe.published if not wish.models or it.model in asked.get(it.cell, ()))
    recipe = replace(recipe, published=published)
    lines = reproduction.compare(recipe, measured, protocols(everything), wish.budget, changed)
    told = reproduction.notes(recipe, [cell for cell, _ in planned], lines, wish.budget)
    console.print()
    reproduction.show(console, lines, told)
    if export is not None and everything:
        _export(recipe, lines, told, everything, export)
    return status


def read_recipe(name: str, registry: Registry, settings: Sequence[str] = ()) -> tuple[Recipe, ParsedRecipe]:
    """The offer's recipe and what its text says; `settings` are the recipe's own, `NAME.OPTION=VALUE`."""
    from genbench.api import Recipe

    spec = registry.get("recipe", name).spec
    offered = spec.factory(**complete(name, spec.factory, _texts(settings)))
    if not isinstance(offered, Recipe):
        raise PluginError(f"the recipe '{name}' made a {type(offered).__name__}, not a genbench.api.Recipe")
    recipe = parse(offered.text, offered.where)
    if recipe.name != name:
        raise PluginError(f"{offered.where}: key 'name': '{recipe.name}', and the plug-in offers it as '{name}'")
    if (recipe.study == "experiment") != (offered.experiment is not None):
        raise PluginError(f"{offered.where}: key 'study': '{recipe.study}', and the offer says otherwise")
    return offered, recipe


def _texts(settings: Sequence[str]) -> dict[str, str]:
    """The texts of `NAME.OPTION=VALUE` by option."""
    pairs = [setting.partition(".")[2].partition("=") for setting in settings]
    return {option.strip(): value.strip() for option, _, value in pairs}


def of_recipe(name: str, registry: Registry, settings: Sequence[str]) -> tuple[reproduction.Change, ...]:
    """The recipe's own options whose values are not its defaults."""
    make = registry.get("recipe", name).spec.factory
    usual, ours = complete(name, make, {}), complete(name, make, _texts(settings))
    return tuple(
        reproduction.Change("recipe", name, option.replace("_", "-"), usual[option], value)
        for option, value in ours.items()
        if value != usual[option]
    )


def changes(cell: Cell, wish: RecipeOverrides, registry: Registry) -> tuple[reproduction.Change, ...]:
    """The options of a cell's models, metrics and so on whose values are not what the recipe gives them."""
    usual = create_components(grid_of(cell, replace(wish, settings=())), registry)
    found = []
    for (kind, name), choice in create_components(grid_of(cell, wish), registry).items():
        known = specs(registry.get(kind, name).spec.factory)
        for option, value in choice.options:
            was, shown = usual[kind, name].values[option], option.replace("_", "-")
            if value != was:
                found.append(reproduction.Change(kind, name, shown, was, value, known[shown].meaning.file))
    return tuple(found)


def chosen_cells(recipe: ParsedRecipe, names: Sequence[str], models: Sequence[str] = ()) -> list[Cell]:
    """The cells of these names with these of their models; all where none is named."""
    by_name = {cell.name: cell for cell in recipe.cells}
    for name in names:
        if name not in by_name:
            raise unknown(f"cell of {recipe.name} called", name, by_name)
    chosen = [by_name[name] for name in dict.fromkeys(names)] if names else list(recipe.cells)
    there = {model for cell in chosen for model in cell.models}
    for model in models:
        if model not in there:
            raise unknown(f"model of {recipe.name} called", model, there)
    if not models:
        return chosen
    return [_narrowed(cell, models) for cell in chosen if set(cell.models) & set(models)]


def _narrowed(cell: Cell, models: Sequence[str]) -> Cell:
    """The cell with these of its models alone, and without what it sets of the others."""
    left_out = [model for model in cell.models if model not in models]
    settings = tuple(it for it in cell.settings if it.partition(".")[0].strip() not in left_out)
    return replace(cell, models=tuple(model for model in cell.models if model in models), settings=settings)


def grid_of(cell: Cell, wish: RecipeOverrides) -> ExperimentConfig:
    """The grid that a cell asks for, with the seeds and settings of the command line."""
    overridden = {setting.partition("=")[0].strip() for setting in wish.settings}
    kept = tuple(setting for setting in cell.settings if setting.partition("=")[0].strip() not in overridden)
    shared = {field.name for field in fields(Cell)} & {field.name for field in fields(ExperimentConfig)}
    same = {name: getattr(cell, name) for name in shared - {"seeds", "settings"}}
    return ExperimentConfig(**same, seeds=tuple(range(wish.seeds or cell.seeds)), settings=kept + tuple(wish.settings))


def _plan(cell: Cell, wish: RecipeOverrides, registry: Registry, place: DataConfig) -> Plan:
    """The checked plan of a cell at the wished fraction of the images of each run, at least one batch."""
    grid = grid_of(cell, wish)
    whole = plan(grid, registry, place)
    if wish.budget >= 1:
        return whole
    images = max(grid.batch, round(wish.budget * whole.runs[0].images))
    return plan(replace(grid, epochs=None, images=images), registry, place)


def _export(
    recipe: ParsedRecipe,
    lines: Sequence[reproduction.Line],
    told: Sequence[str],
    records: Sequence[RunRecord],
    target: Path,
) -> None:
    from genbench.storage.provenance import command_line

    ranking = next((line.published.metric for line in lines if line.seeds), None)
    write_report(records, rows(records), protocols(records), target, ranking)
    reproduction.write(target, recipe.name, lines, told, command_line())


# ---------------------------------------------------------------- experiments


def _experiment(
    offered: Recipe,
    recipe: ParsedRecipe,
    wish: RecipeOverrides,
    export: Path | None,
    own: Sequence[reproduction.Change],
    *,
    dry_run: bool,
) -> int:
    """Run an experiment under each seed and compare; nothing is kept but what is exported."""
    if wish.cells or wish.models or wish.settings:
        what = "--cells" if wish.cells else "--models" if wish.models else f"--set {wish.settings[0]}"
        raise UsageError(f"{what}: {recipe.name} is an experiment of its own, without cells; it has {recipe.name}.…")
    assert offered.experiment is not None, recipe.name
    console, seeds = Console(), range(wish.seeds or 1)
    if dry_run:
        console.print(f"experiment {recipe.name}, {len(seeds)} seed(s), {wish.budget:g} of its repeats", markup=False)
        return 0
    if export is not None:
        make_room(export, "--export")
    found = [finding for seed in seeds for finding in offered.experiment(seed, wish.budget)]
    if wish.budget < 1:
        own = [*own, reproduction.Change("recipe", recipe.name, "budget", 1, wish.budget)]
    lines = []
    for number in recipe.published:
        its = [f for f in found if (f.case, f.metric) == (number.case, number.metric)]
        stated = bool(its) and bool(its[0].protocol)  # then it tells of itself what options and budget made of it
        how, options = (its[0].protocol, ()) if stated else (number.protocol, own)
        lines.append(reproduction.judged(number, [(f.seed, f.value) for f in its], how, options))
    told = reproduction.notes(recipe, (), lines, wish.budget)
    _show_findings(console, found)
    reproduction.show(console, lines, told)
    if export is not None:
        from genbench.plotting.findings import findings
        from genbench.plotting.style import save
        from genbench.storage.provenance import command_line

        plain = [asdict(finding) for finding in found]
        write_json(export / "findings.json", plain)
        for line in plain:
            line["protocol"] = "; ".join(f"{name} {value}" for name, value in line["protocol"].items())
        out = io.StringIO()
        writer = csv.DictWriter(out, list(plain[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)
        write_text(export / "findings.csv", out.getvalue())
        reproduction.write(export, recipe.name, lines, told, command_line())
        drawing = findings(found)
        if drawing is not None:
            for form in ("pdf", "png"):
                save(drawing.figure, export / f"{drawing.name}.{form}")
    return 0


def _show_findings(console: Console, found: Sequence[Finding]) -> None:
    """A line for each case, a column for each metric, means over seeds."""
    from genbench.stats.intervals import estimate

    cases = dict.fromkeys(finding.case for finding in found)
    metrics = dict.fromkeys(finding.metric for finding in found)
    values: Mapping[tuple[str, str], list[float]] = {(case, metric): [] for case in cases for metric in metrics}
    for finding in found:
        values[finding.case, finding.metric].append(finding.value)
    table = Table("case", *map(escape, metrics), box=None, pad_edge=False, header_style="bold")
    for case in cases:
        numbers = (values[case, metric] for metric in metrics)
        table.add_row(escape(case), *(format_estimate(estimate(its)).plain if its else "" for its in numbers))
    console.print(table)
