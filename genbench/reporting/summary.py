"""The report of run folders: the table on the console, the tidy formats, and the export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from genbench.analysis.selection import of_stage, select_options
from genbench.analysis.table import of_columns
from genbench.analysis.tuning import PublishedValue, TuningReport, tuning_reports
from genbench.errors import StoreError, UsageError
from genbench.plotting.report import loss_drawings, model_drawings, row_drawings, search_drawings
from genbench.reporting import export
from genbench.reporting.console import ConsoleWriter, render
from genbench.reporting.cost import cost
from genbench.reporting.csv_json import curves_csv
from genbench.storage.provenance import command_line
from genbench.storage.results import Row, protocols, rows
from genbench.storage.run_dir import Protocols, RunRecord, find_runs, read_runs
from genbench.storage.study import mixed_images, newest, without_copies, without_trials
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


@dataclass(frozen=True)
class PageOptions:
    """The title of report.html, "" for what was compared, and whether it leaves out commands, commits and paths."""

    title: str = ""
    anonymous: bool = False


def readable_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """The records of the runs at or below the paths; a line on stderr for each that cannot be read."""
    records, problems = read_runs(find_runs(paths))
    for problem in problems:
        click.echo(f"genbench: left out: {problem}", err=True)
    return records


def compared_runs(paths: Sequence[Path], all_sources: bool = False) -> list[RunRecord]:
    """The records to compare: each run once, of the newest code and data unless all are asked for.

    A line on stderr says what was left out.
    """
    records, lines = without_copies(readable_runs(paths))
    records, trials = without_trials(records)
    if trials and not records:
        raise StoreError(f"{trials[0]}; re-run the command of the search to have its results")
    lines += trials
    if not all_sources:
        records, older = newest(records)
        lines += older
    for line in (*lines, *mixed_images(records)):
        click.echo(f"genbench: {line}", err=True)
    return records


def report_runs(
    paths: Sequence[Path],
    target: Path | None,
    form: str,
    sort: str | None,
    select_options_by: str | None = None,
    figure_context: FigureContext | None = None,
    columns: Sequence[str] = (),
    page: PageOptions = PageOptions(),
    *,
    noted: bool = False,
    all_sources: bool = False,
    by_folder: bool = False,
    published: Callable[[], Sequence[PublishedValue]] | None = None,
) -> None:
    """Show and export the runs below the paths, with all columns or the named ones in their order.

    `noted` shows all notes and protocols on the console. With `by_folder` the runs of each path are groups apart.

    Of options that compete, those that are best by `select_options_by` are shown. With a `figure_context` the export
    has the figures that need the models. `published` is asked for published numbers where runs were tuned.
    """
    if figure_context is not None and target is None:
        raise UsageError("--figures all needs --export DIR, the folder to draw into")
    if by_folder and (target is not None or len(paths) < 2):
        raise UsageError(
            "--by-folder compares two folders or more in one table, and is not exported: leave --export out"
        )
    parts = [compared_runs([path], all_sources) for path in paths] if by_folder else [compared_runs(paths, all_sources)]
    records = [record for part in parts for record in part]
    if not records:
        raise StoreError("no run folder could be read")
    folders = [str(path) for path, part in zip(paths, parts, strict=True) for _ in part] if by_folder else None
    tidy, fields = rows(records, folders=folders), protocols(records)
    if select_options_by is not None:
        tidy, choices = select_options(tidy, select_options_by)
        for choice in choices:
            click.echo(choice.text, err=form != "table")
    tuning = known_tuning(tidy, fields, published)
    if form == "table":
        render(Console(), tidy, sort=sort, columns=columns, protocols=fields, tuning=tuning, noted=noted)
        if noted:
            show_time(Console(), records)
    else:
        writers: dict[str, Callable[[], str]] = {
            "csv": lambda: export.tidy_csv(of_columns(tidy, columns)),
            "json": lambda: export.tidy_json(of_columns(tidy, columns)),
            "md": lambda: export.table_markdown(tidy, sort=sort, columns=columns, protocols=fields, tuning=tuning),
            "tex": lambda: export.table_latex(tidy, sort=sort, columns=columns, protocols=fields, tuning=tuning),
        }
        click.echo(writers[form](), nl=False)
    if target is not None:
        write_report(records, tidy, fields, target, sort, figure_context, columns, page, tuning)
        names = ", ".join(sorted(path.name for path in target.iterdir()))
        click.echo(f"Written to {target}/: {names}", err=form != "table")


def write_report(
    records: Sequence[RunRecord],
    tidy: list[Row],
    fields: Mapping[str, Any],
    target: Path,
    sort: str | None,
    figure_context: FigureContext | None = None,
    columns: Sequence[str] = (),
    page: PageOptions = PageOptions(),
    tuning: Sequence[TuningReport] = (),
) -> None:
    """Export everything to a folder; `fields` are those of each protocol by its hash."""
    facts = {
        record.name: export.RunFacts(
            record.name, record.path, {"run": record.run.record(), "provenance": record.provenance}
        )
        for record in records
    }

    def draw() -> tuple[list[Drawing], list[str]]:
        drawings, problems = row_drawings(records, tidy)
        for more, without in (loss_drawings(records), search_drawings(records)):
            drawings, problems = [*drawings, *more], [*problems, *without]
        if figure_context is None:
            needs = "they need the models: genbench report --figures all"
            return drawings, [*problems, f"reconstructions, interpolations, grid, codes: {needs}"]
        context = figure_context
        more, reasons = model_drawings(records, context.registry, context.data_config, context.device)
        return [*drawings, *more], [*problems, *reasons]

    export.export(
        target,
        tidy,
        runs=facts,
        protocols=fields,
        command=command_line(),
        sort=sort,
        columns=columns,
        title=page.title,
        anonymous=page.anonymous,
        tuning=tuning,
        spent=cost(records),
        draw=draw,
    )
    if curves := curves_csv(tidy):
        write_text(target / "curves.csv", curves)


def known_tuning(
    tidy: Sequence[Row], fields: Protocols, published: Callable[[], Sequence[PublishedValue]] | None = None
) -> tuple[TuningReport, ...]:
    """What is known of the tuned models among some rows; `published` is asked where there are any."""
    if not any(row.trials for row in tidy):
        return ()
    return tuning_reports(tidy, None if published is None else published(), fields)


def show_time(console: Console, records: Sequence[RunRecord]) -> None:
    """Print what training and evaluation of some runs took, in one line; nothing where it was not recorded."""
    if words := cost(records).words:
        ConsoleWriter(console).line(f"Time of these runs: {words}", "dim")


def show_table(
    console: Console,
    records: Sequence[RunRecord],
    metrics: Sequence[str],
    sort: str | None,
    select: str | None = None,
    published: Callable[[], Sequence[PublishedValue]] | None = None,
) -> None:
    """Print the comparison of some runs by some metrics: at their ends, or at the snapshots that a metric selected."""
    tidy, ranking = rows_of_study(records, metrics, sort, select)
    if tidy:
        console.print()
        fields = protocols(records)
        tuning = known_tuning(tidy, fields, published)
        render(console, tidy, sort=ranking, protocols=fields, tuning=tuning, brief=True)


def rows_of_study(
    records: Sequence[RunRecord], metrics: Sequence[str], sort: str | None, select: str | None
) -> tuple[list[Row], str | None]:
    """The rows of some metrics, and the number of the metric `sort` that ranks: of the ends of the runs, or of the
    snapshots that a metric selected.
    """
    shown = of_stage(rows(records), select)
    tidy = [row for row in shown if not row.metric or row.metric.split(".")[0] in metrics]
    ranking = [row.metric for row in tidy if row.metric.split(".")[0] == sort and row.higher_is_better is not None]
    return tidy, next(iter(ranking), None)
