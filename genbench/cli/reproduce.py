"""The command `genbench reproduce`: plan all of a recipe, run it as any study, compare with the published numbers.

A recipe that trains nothing brings an experiment instead of cells; its findings are compared in the same table. Heavy
modules are imported inside the functions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genbench.cli.completion import complete_names
from genbench.cli.options import (
    FilePath,
    Finite,
    Whole,
    data_options,
    device_option,
    installed_names,
    load_registry,
    names,
    out_option,
    plugin_option,
    set_option,
)
from genbench.cli.study import executor_options, read_executor_config
from genbench.errors import UsageError
from genbench.interface.context import make_data_config

if TYPE_CHECKING:
    from rich.console import Console

    from genbench.api import DataConfig, Finding, Recipe
    from genbench.execution.executors.choice import ExecutorConfig
    from genbench.experiment.plan import Plan
    from genbench.registry.loader import Registry
    from genbench.reproduction.comparison import OptionChange, ReproducedNumber
    from genbench.reproduction.plan import RecipeOverrides
    from genbench.reproduction.recipe import ParsedRecipe, RecipeCell
    from genbench.storage.run_dir import RunFolder


@click.command(short_help="Run a paper's RECIPE beside its published numbers.")
@click.argument("name", metavar="RECIPE", shell_complete=complete_names("recipe"))
@click.option("--cells", multiple=True, callback=names, metavar="C,...", help="These parts of the recipe. [all]")
@click.option("--models", multiple=True, callback=names, metavar="M,...", help="These models of the cells. [all]")
@click.option(
    "--budget",
    type=Finite(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    metavar="F",
    help="Fraction of each run's images, or of an experiment's repeats; marked in the table.",
)
@click.option("--seeds", type=Whole(1, 10_000), metavar="K", help="Training seeds, instead of the recipe's.")
@click.option(
    "--export",
    type=FilePath(file_okay=False),
    metavar="DIR",
    help="Write the table and the study there.",
)
@set_option("the recipe or of a component, e.g. fid.count=5000; repeatable.")
@device_option
@data_options
@out_option
@executor_options
@plugin_option
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
def reproduce(
    name: str,
    cells: tuple[str, ...],
    models: tuple[str, ...],
    budget: float,
    seeds: int | None,
    export: Path | None,
    settings: tuple[str, ...],
    device: str,
    data_root: Path | None,
    download: bool,
    skip_corrupt: bool,
    out: Path,
    plugins: tuple[Path, ...],
    dry_run: bool,
) -> None:
    """Run a paper's RECIPE and compare its published numbers with ours.

    All its cells are planned before anything trains; the runs are ordinary ones in --out, skipped where they are done.
    """
    if installed := installed_names(plugins):
        installed.get("recipe", name)
    from genbench.reproduction.plan import RecipeOverrides, read_recipe, recipe_changes, refuse_overrides
    from genbench.training.distributed import launched

    if launched():
        raise UsageError("torchrun trains one model in several processes, with genbench run; reproduce in one process")
    executor = read_executor_config()
    registry, data_config = (
        load_registry(plugins),
        make_data_config(data_root, download=download, skip_corrupt=skip_corrupt),
    )
    of_recipe = tuple(setting for setting in settings if setting.partition(".")[0] == name)
    of_cells = tuple(setting for setting in settings if setting not in of_recipe)
    overrides = RecipeOverrides(cells, models, budget, seeds, of_cells)
    recipe, parsed = read_recipe(name, registry, of_recipe)
    changes = recipe_changes(name, registry, of_recipe)
    if parsed.study == "experiment":
        refuse_overrides(parsed, overrides)
        run_experiment(recipe, parsed, overrides, export, changes, dry_run=dry_run)
        return
    sys.exit(
        run_cells(parsed, overrides, registry, data_config, changes, device, out, export, executor, dry_run=dry_run)
    )


def run_cells(
    recipe: ParsedRecipe,
    overrides: RecipeOverrides,
    registry: Registry,
    data_config: DataConfig,
    recipe_changes: Sequence[OptionChange],
    device: str,
    out: Path,
    export: Path | None,
    executor_config: ExecutorConfig,
    *,
    dry_run: bool,
) -> int:
    """Train and evaluate the cells of a recipe and show the table; the exit status as of `genbench run`."""
    from rich.markup import escape

    from genbench.cli.run import INTERRUPTED, closing, show_plan, working
    from genbench.execution.scheduler import run_all, run_status
    from genbench.interface.context import make_room, stoppable
    from genbench.interface.session import make_runner
    from genbench.reporting.console import BrokenPipeConsole
    from genbench.reproduction.plan import chosen_cells, plan_cell
    from genbench.storage.provenance import command_line
    from genbench.storage.run_dir import RunFolder
    from genbench.utils.torch_state import pick_device

    # Plan.
    chosen = chosen_cells(recipe, overrides.cells, overrides.models)
    plans = [(cell, plan_cell(cell, overrides, registry, data_config)) for cell in chosen]
    console, torch_device, status = BrokenPipeConsole(), pick_device(device), 0
    with stoppable(lambda text: click.echo(text, err=True)) as stop:
        for cell, planned in plans:
            console.print(f"[bold]{escape(cell.name)}[/]", highlight=False)
            show_plan(console, planned, out, torch_device, run_status(planned, out), brief=not dry_run)
        if dry_run:
            return 0

        # Train and evaluate.
        make_room(out)
        if export is not None:
            make_room(export, "--export")
        for _, planned in plans:
            runner = make_runner(registry, planned, out, data_config, torch_device, command_line(), stop)
            progress = run_status(planned, out)
            with working(console, runner, planned, progress, executor_config) as executor:
                outcome = run_all(planned, executor, runner, progress.done)
            status = max(status, INTERRUPTED if outcome.interrupted else int(bool(outcome.failed)))
            closing(console, outcome, out)
            if outcome.interrupted:
                break
    folders = {cell.name: [RunFolder(out / run.name) for run in planned.runs] for cell, planned in plans}
    show_cells(console, recipe, overrides, registry, recipe_changes, plans, folders, export)
    return status


def show_cells(
    console: Console,
    recipe: ParsedRecipe,
    overrides: RecipeOverrides,
    registry: Registry,
    recipe_changes: Sequence[OptionChange],
    plans: Sequence[tuple[RecipeCell, Plan]],
    folders: dict[str, list[RunFolder]],
    export: Path | None,
) -> None:
    """Compare the runs of the cells with the published numbers; print the table and export it."""
    from genbench.reporting.summary import write_report
    from genbench.reproduction import comparison
    from genbench.reproduction.plan import cell_changes
    from genbench.storage.provenance import command_line
    from genbench.storage.results import protocols, rows
    from genbench.storage.run_dir import RUN, read_runs

    existing = {
        name: read_runs(folder.path for folder in of_cell if folder.has(RUN))[0] for name, of_cell in folders.items()
    }
    everything = [record for of_cell in existing.values() for record in of_cell]
    keys = {cell.name: {component.key for component in planned.metrics} for cell, planned in plans}
    measured = {name: rows(of_cell, keys[name]) for name, of_cell in existing.items()}
    changed = {cell.name: (*cell_changes(cell, overrides, registry), *recipe_changes) for cell, _ in plans}
    models = {cell.name: cell.models for cell, _ in plans}
    published = tuple(n for n in recipe.published if not overrides.models or n.model in models.get(n.cell, ()))
    recipe = replace(recipe, published=published)
    numbers = comparison.compare(recipe, measured, protocols(everything), overrides.budget, changed)
    notes = comparison.notes(recipe, [cell for cell, _ in plans], numbers, overrides.budget)
    console.print()
    show_numbers(console, numbers, notes)
    if export is not None and everything:
        ranking = next((number.published.metric for number in numbers if number.seeds), None)
        write_report(everything, rows(everything), protocols(everything), export, ranking)
        comparison.write(export, recipe.name, numbers, notes, command_line())


def show_numbers(console: Console, numbers: Sequence[ReproducedNumber], notes: Sequence[str]) -> None:
    """Print the table, the differences from the published protocols once for all numbers, and the notes."""
    from rich.markup import escape
    from rich.table import Column, Table

    from genbench.reproduction.comparison import HEAD, numbered, reasons, table_cells

    if numbers:
        table = Table(*(Column(head, overflow="fold") for head in HEAD), box=None, pad_edge=False, header_style="bold")
        footnotes, subjects = numbered(numbers), dict[str, list[str]]()
        for number in numbers:
            table.add_row(*(escape(cell) for cell in table_cells(number, footnotes, brief=True)))
            if reason := reasons(number):
                conclusion = number.result.conclusion if number.result else ""
                subjects.setdefault(f"{conclusion}: {reason}", []).append(number.subject)
        console.print(table)
        for reason, names_ in subjects.items():
            suffix = "" if len(subjects) == 1 else f" ({'; '.join(names_)})"
            console.print(f" {reason}{suffix}", markup=False, highlight=False, soft_wrap=True)
    for note in notes:
        console.print(f" {note}", markup=False, highlight=False, soft_wrap=True)


# ---------------------------------------------------------------- experiments


def run_experiment(
    recipe: Recipe,
    parsed: ParsedRecipe,
    overrides: RecipeOverrides,
    export: Path | None,
    changes: Sequence[OptionChange],
    *,
    dry_run: bool,
) -> None:
    """Run an experiment under each seed and compare its findings; only an export keeps them."""
    from rich.console import Console

    from genbench.interface.context import make_room
    from genbench.reproduction import comparison

    assert recipe.experiment is not None, parsed.name
    console, seeds = Console(), range(overrides.seeds or 1)
    if dry_run:
        text = f"experiment {parsed.name}, {len(seeds)} seed(s), {overrides.budget:g} of its repeats"
        console.print(text, markup=False)
        return
    if export is not None:
        make_room(export, "--export")
    findings = [finding for seed in seeds for finding in recipe.experiment(seed, overrides.budget)]
    if overrides.budget < 1:
        changes = [*changes, comparison.OptionChange("recipe", parsed.name, "budget", 1, overrides.budget)]
    numbers = []
    for published in parsed.published:
        ours = [f for f in findings if (f.case, f.metric) == (published.case, published.metric)]
        stated = bool(ours) and bool(ours[0].protocol)  # then the findings state the effect of options and budget
        fields, options = (ours[0].protocol, ()) if stated else (published.protocol, changes)
        values = [(finding.seed, finding.value) for finding in ours]
        n, unit = (ours[0].n, ours[0].unit) if ours else (None, "")
        numbers.append(comparison.compare_number(published, values, fields, options, n=n, unit=unit))
    notes = comparison.notes(parsed, (), numbers, overrides.budget)
    show_findings(console, findings)
    show_numbers(console, numbers, notes)
    if export is not None:
        from genbench.storage.provenance import command_line

        export_findings(findings, export)
        comparison.write(export, parsed.name, numbers, notes, command_line())


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print a line for each case, a column for each metric, means over seeds."""
    from rich.markup import escape
    from rich.table import Table

    from genbench.analysis.formatting import format_estimate
    from genbench.stats.equivalence import estimate_findings

    metrics, estimates = dict.fromkeys(finding.metric for finding in findings), estimate_findings(findings)
    table = Table("case", *map(escape, metrics), box=None, pad_edge=False, header_style="bold")
    for case in dict.fromkeys(finding.case for finding in findings):
        measured = (estimates.get((case, metric)) for metric in metrics)
        table.add_row(escape(case), *(format_estimate(each).plain if each else "" for each in measured))
    console.print(table)


def export_findings(findings: Sequence[Finding], folder: Path) -> None:
    """Write findings.json, findings.csv and, where the cases are numbers, findings.pdf and findings.png."""
    from genbench.plotting.curves import findings as findings_figure
    from genbench.plotting.style import save
    from genbench.reporting.csv_json import records_csv
    from genbench.utils.io import write_json, write_text

    plain = [asdict(finding) for finding in findings]
    write_json(folder / "findings.json", plain)
    for record in plain:
        record["protocol"] = "; ".join(f"{name} {value}" for name, value in record["protocol"].items())
    write_text(folder / "findings.csv", records_csv(plain))
    if drawing := findings_figure(findings):
        for form in ("pdf", "png"):
            save(drawing.figure, folder / f"{drawing.name}.{form}")
