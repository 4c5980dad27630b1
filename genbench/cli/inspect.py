"""The commands on finished runs. Heavy modules are imported inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genbench.cli.completion import complete_metrics_of_runs
from genbench.cli.options import (
    FilePath,
    Finite,
    Whole,
    all_sources_option,
    changed_source_option,
    counts_within,
    data_options,
    device_option,
    form_option,
    load_listing,
    load_registry,
    names,
    out_option,
    plugin_option,
    run_folder,
    run_paths,
    runs_option,
)
from genbench.errors import StoreError, UsageError
from genbench.interface.context import make_data_config
from genbench.utils.io import shell_path

if TYPE_CHECKING:
    from genbench.analysis.curves import By

columns_option = click.option(
    "--columns",
    multiple=True,
    callback=names,
    metavar="NAME,...",
    shell_complete=complete_metrics_of_runs,
    help="Columns in this order: labels, metrics, or first parts of metrics. [all; in print the main ones]",
)


@click.command(short_help="Show and export the comparison of RUNS.")
@click.argument("runs", nargs=-1, type=FilePath(), callback=run_paths)
@click.option(
    "--export",
    type=FilePath(file_okay=False),
    metavar="DIR",
    help="Write csv, json, md, tex and html to this folder.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "md", "tex"]),
    default="table",
    show_default=True,
    help="csv and json print the tidy rows alone.",
)
@click.option(
    "--sort", metavar="METRIC", shell_complete=complete_metrics_of_runs, help="Rank by this metric. [the first one]"
)
@click.option("--notes", "noted", is_flag=True, help="Add counts, p-values, protocols and all notes to the table.")
@columns_option
@click.option("--title", default="", metavar="TEXT", help="Title of report.html. [what was compared]")
@click.option(
    "--anonymous", is_flag=True, help="Leave commands, commits and paths out of report.html, for double-blind review."
)
@click.option(
    "--select-options-by",
    metavar="METRIC",
    help="Of models trained with several options, show the best by this metric on validation images.",
)
@click.option(
    "--figures",
    type=click.Choice(["numbers", "all"]),
    default="numbers",
    show_default=True,
    help="Figures of --export; all: also those that need the models and their data.",
)
@click.option("--by-folder", is_flag=True, help="Compare the folders RUNS with each other: each is a group of its own.")
@all_sources_option
@device_option
@data_options
@plugin_option
@changed_source_option
def report(
    runs: tuple[Path, ...],
    export: Path | None,
    form: str,
    sort: str | None,
    noted: bool,
    columns: tuple[str, ...],
    title: str,
    anonymous: bool,
    select_options_by: str | None,
    figures: str,
    by_folder: bool,
    all_sources: bool,
    device: str,
    data_root: Path | None,
    download: bool,
    skip_corrupt: bool,
    plugins: tuple[Path, ...],
    allow_changed_source: bool,
) -> None:
    """Show and export the comparison of RUNS: run folders, or folders of them. [runs]"""
    from genbench.reporting.summary import FigureContext, PageOptions, report_runs
    from genbench.reproduction.recipe import published_values

    figure_context = None
    if figures == "all":
        from genbench.utils.torch_state import pick_device

        data_config = make_data_config(data_root, download=download, skip_corrupt=skip_corrupt)
        figure_context = FigureContext(load_registry(plugins, allow_changed_source), data_config, pick_device(device))
    page = PageOptions(title, anonymous)
    report_runs(
        runs or (Path("runs"),),
        export,
        form,
        sort,
        select_options_by,
        figure_context,
        columns,
        page,
        all_sources=all_sources,
        by_folder=by_folder,
        noted=noted,
        published=lambda: published_values(load_listing(plugins).recipes),
    )


@click.command(short_help="Compare RUNS at equal compute.")
@click.argument("runs", nargs=-1, type=FilePath(), callback=run_paths)
@click.option("--metric", metavar="METRIC", help="The metric. [the first one measured at snapshots]")
@click.option(
    "--by",
    type=click.Choice(["images", "seconds", "flops"]),
    default="images",
    show_default=True,
    help="The unit of compute.",
)
@click.option(
    "--at",
    "budgets",
    multiple=True,
    type=Finite(min=0, min_open=True),
    metavar="VALUE",
    help="Compare at this much compute; repeatable. [up to five values that all runs have]",
)
@all_sources_option
def curves(runs: tuple[Path, ...], metric: str | None, by: By, budgets: tuple[float, ...], all_sources: bool) -> None:
    """Compare RUNS that were trained with --snapshots at equal images, seconds or FLOPs. [runs]

    `genbench plot curves` draws the curves, and `genbench report --export DIR` writes them to curves.csv.
    """
    from genbench.reporting.views import show_curves

    show_curves(runs or (Path("runs"),), metric, by, budgets, all_sources)


@click.command(short_help="Compare groups A and B, paired by training seed.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--metric", metavar="M", help="One metric, as report names it. [all that have a better direction]")
@runs_option
@all_sources_option
@form_option
def compare(a: str, b: str, metric: str | None, runs: Path, all_sources: bool, form: str) -> None:
    """Compare two groups A and B of the table, paired by training seed.

    A and B are labels of the table, models that one group has, or names of runs. Prints the mean difference with its
    interval, a p-value, an effect size, a conclusion, and how many more seeds an undecided comparison needs.
    """
    from genbench.reporting.views import show_comparison

    show_comparison((runs,), a, b, metric, form, all_sources)


@click.command(short_help="Estimate the differences that numbers of seeds can detect.")
@click.argument("pilot", nargs=-1, required=True, type=FilePath(), callback=run_paths)
@click.option("--metric", metavar="M", help="The metric, as report names it. [the one that ranks the report]")
@click.option("--difference", type=Finite(0, min_open=True), metavar="X", help="A difference to be detected.")
@click.option(
    "--seeds",
    multiple=True,
    callback=counts_within(2, 10_000),
    default=("3,5,10",),
    show_default=True,
    metavar="K,...",
    help="Numbers of seeds.",
)
@all_sources_option
@form_option
def power(
    pilot: tuple[Path, ...],
    metric: str | None,
    difference: float | None,
    seeds: tuple[int, ...],
    all_sources: bool,
    form: str,
) -> None:
    """Estimate the differences that numbers of seeds can detect, from the runs of a PILOT study."""
    from genbench.reporting.views import show_power

    show_power(pilot, metric, difference, seeds, form, all_sources)


@click.command(short_help="Show how two runs and their protocols differ.")
@click.argument("run_a", metavar="RUN_A")
@click.argument("run_b", metavar="RUN_B")
@runs_option
@form_option
def diff(run_a: str, run_b: str, runs: Path, form: str) -> None:
    """Show the fields in which two runs and their protocols differ, and which metrics may be compared."""
    from genbench.reporting.views import show_diff

    show_diff(run_folder(run_a, runs), run_folder(run_b, runs), form)


@click.command()
@click.argument("run_", metavar="RUN")
@out_option
@form_option
def show(run_: str, out: Path, form: str) -> None:
    """Show one RUN: its options, provenance, state and numbers."""
    from genbench.reporting.views import show_run

    show_run(run_folder(run_, out), form)


@click.command()
@click.argument("run_", metavar="RUN")
@click.option("--count", type=Whole(1, 100_000), default=64, show_default=True, metavar="N", help="How many samples.")
@click.option("--seed", type=Whole(0), default=0, show_default=True, metavar="K", help="Seed of the prior draws.")
@click.option(
    "--out",
    "target",
    type=FilePath(dir_okay=False),
    required=True,
    metavar="FILE.png",
    help="The picture.",
)
@runs_option
@device_option
@plugin_option
@changed_source_option
def sample(
    run_: str,
    count: int,
    seed: int,
    target: Path,
    runs: Path,
    device: str,
    plugins: tuple[Path, ...],
    allow_changed_source: bool,
) -> None:
    """Decode prior draws of a trained RUN into a picture."""
    from genbench.storage.run_dir import SAMPLES, read_run

    path = run_folder(run_, runs)
    record = read_run(path)
    if not record.run.trains:
        reason = "is a control, not a model" if record.run.role == "control" else "was trained elsewhere"
        raise UsageError(f"{path} {reason}: its samples are in {path / SAMPLES}")
    if target.suffix.lower() != ".png":
        raise UsageError(f"--out {target}: the picture is a PNG; name a file that ends in .png")
    registry = load_registry(plugins, allow_changed_source)

    from genbench.data.images import save_grid, to_uint8
    from genbench.interface.model import TrainedModel
    from genbench.utils.torch_state import pick_device

    data_config = make_data_config(None, download=False, skip_corrupt=False)
    images = to_uint8(TrainedModel(record, registry, data_config, pick_device(device)).sample(count, seed=seed))
    save_grid(target, images, columns=max(1, round(count**0.5)))
    click.echo(f"{count} samples of {record.name}: {target}")


@click.command(short_help="Print the BibTeX of everything that RUNS used.")
@click.argument("runs", nargs=-1, type=FilePath(), callback=run_paths)
@plugin_option
def cite(runs: tuple[Path, ...], plugins: tuple[Path, ...]) -> None:
    """Print the BibTeX of everything that RUNS used; without RUNS, that of genbench.

    The entries are those of the plug-ins. A reference without one becomes an entry from its text, which says so.
    """
    from genbench.reporting.bibliography import bibliography, genbench_entry, used_parts
    from genbench.reporting.summary import readable_runs

    if not runs:
        click.echo(genbench_entry())
        return
    listing, records = load_listing(plugins), readable_runs(runs)
    if not records:
        raise StoreError("no run folder could be read")
    cited = bibliography(records, listing, used_parts(records, listing))
    click.echo(cited.text(), nl=False)
    for reason in cited.missing:
        click.echo(f"genbench: {reason}", err=True)


@click.command(short_help="Write a paper of RUNS in LaTeX.")
@click.argument("runs", nargs=-1, type=FilePath(), callback=run_paths)
@click.option(
    "--out",
    "target",
    type=FilePath(file_okay=False),
    required=True,
    metavar="DIR",
    help="The folder to write to.",
)
@click.option("--sort", metavar="METRIC", shell_complete=complete_metrics_of_runs, help="Rank by this metric.")
@columns_option
@plugin_option
def paper(
    runs: tuple[Path, ...], target: Path, sort: str | None, columns: tuple[str, ...], plugins: tuple[Path, ...]
) -> None:
    """Write a paper of RUNS in LaTeX: methods, tables, figures, options, protocols, checklist, bibliography. [runs]

    main.tex is written once and then yours; the files that it inputs are written anew at every call.
    """
    from genbench.reporting.paper import write_paper
    from genbench.reporting.summary import compared_runs, known_tuning
    from genbench.reproduction.recipe import published_values
    from genbench.storage.results import protocols, rows

    listing, records = load_listing(plugins), compared_runs(runs or (Path("runs"),))
    if not records:
        raise StoreError("no run folder could be read")
    tidy, fields = rows(records), protocols(records)
    tuning = known_tuning(tidy, fields, lambda: published_values(listing.recipes))
    files, problems = write_paper(target, records, tidy, fields, listing, tuning, sort=sort, columns=columns)
    for problem in problems:
        click.echo(f"  {problem}")
    click.echo(f"Written to {target}/: {', '.join(str(path.relative_to(target)) for path in files)}")
    click.echo(f"cd {shell_path(target)} && pdflatex main && bibtex main && pdflatex main && pdflatex main")


COMMANDS: tuple[click.Command, ...] = (report, curves, compare, power, diff, show, sample, cite, paper)
