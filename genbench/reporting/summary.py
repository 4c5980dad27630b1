"""The report of run folders: the table on the console, the tidy formats, and the export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from genbench.analysis.selection import of_stage, select_options
from genbench.errors import StoreError, UsageError
from genbench.plotting.report import model_drawings, row_drawings
from genbench.reporting import export
from genbench.reporting.console import render
from genbench.reporting.csv_json import curves_csv
from genbench.storage.provenance import command_line
from genbench.storage.results import rows
from genbench.storage.rows import Row
from genbench.storage.run_dir import RunFolder, find, protocols, readable, uncollected
from genbench.utils.io import write_text

if TYPE_CHECKING:
    import torch

    from genbench.api import DataConfig
    from genbench.plotting.style import Drawing
    from genbench.registry.loader import Registry


@dataclass(frozen=True)
class FigureContext:
    """The registry, data and device that figures of trained models need."""

    registry: Registry
    data_config: DataConfig
    device: torch.device


def find_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """The readable run folders below the paths; a line on stderr for each that is left out."""
    return readable_runs(find(paths))


def readable_runs(folders: Sequence[RunFolder]) -> list[RunFolder]:
    """The folders whose records can be read; a line on stderr for each that is left out."""
    kept, problems = readable(folders)
    for problem in problems:
        click.echo(f"genbench: left out: {problem}", err=True)
    return kept


@uncollected()
def report_runs(
    paths: Sequence[Path],
    target: Path | None,
    form: str,
    sort: str | None,
    select_options_by: str | None = None,
    figure_context: FigureContext | None = None,
) -> None:
    """Show and export the runs below the paths.

    Of options that compete, those that are best by `select_options_by` are shown. With a `figure_context` the export
    has the figures that need the models.
    """
    if figure_context is not None and target is None:
        raise UsageError("--figures all is of an export: name its folder with --export DIR")
    folders = find_runs(paths)
    if not folders:
        raise StoreError("no run folder could be read")
    tidy, fields = rows(folders), protocols(folders)
    if select_options_by is not None:
        tidy, choices = select_options(tidy, select_options_by)
        for choice in choices:
            click.echo(choice.text, err=form != "table")
    if form == "table":
        render(Console(), tidy, sort=sort, protocols=fields)
    else:
        writers: dict[str, Callable[[], str]] = {
            "csv": lambda: export.tidy_csv(tidy),
            "json": lambda: export.tidy_json(tidy),
            "md": lambda: export.table_markdown(tidy, sort=sort),
            "tex": lambda: export.table_latex(tidy, sort=sort),
        }
        click.echo(writers[form](), nl=False)
    if target is not None:
        write_report(folders, tidy, fields, target, sort, figure_context)
        names = ", ".join(sorted(path.name for path in target.iterdir()))
        click.echo(f"Written to {target}/: {names}", err=form != "table")


def write_report(
    folders: Sequence[RunFolder],
    tidy: list[Row],
    fields: Mapping[str, Any],
    target: Path,
    sort: str | None,
    figure_context: FigureContext | None = None,
) -> None:
    """Export everything to a folder; `fields` are those of each protocol by its hash."""
    facts = {folder.name: export.RunFacts(folder.name, folder.path, folder.record()) for folder in folders}

    def draw() -> tuple[list[Drawing], list[str]]:
        drawings, problems = row_drawings(folders, tidy)
        if figure_context is None:
            needs = "they need the models: genbench report --figures all"
            return drawings, [*problems, f"reconstructions, interpolations, grid, codes: {needs}"]
        context = figure_context
        more, reasons = model_drawings(folders, context.registry, context.data_config, context.device)
        return [*drawings, *more], [*problems, *reasons]

    export.export(target, tidy, runs=facts, protocols=fields, command=command_line(), sort=sort, draw=draw)
    if curves := curves_csv(tidy):
        write_text(target / "curves.csv", curves)


@uncollected()
def show_table(
    console: Console,
    folders: Sequence[RunFolder],
    metrics: Sequence[str],
    sort: str | None,
    select: str | None = None,
) -> None:
    """Print the comparison of some runs by some metrics: at their ends, or at the snapshots that a metric selected."""
    folders = readable_runs(folders)
    shown, fields = of_stage(rows(folders), select), protocols(folders)
    for folder in folders:
        folder.forget()  # the records of 10,000 runs take more memory than their table
    tidy = [row for row in shown if not row.metric or row.metric.split(".")[0] in metrics]
    ranking = [row.metric for row in tidy if row.metric.split(".")[0] == sort and row.better != "neither"]
    if tidy:
        console.print()
        render(console, tidy, sort=next(iter(ranking), None), protocols=fields, brief=True)
