"""Results of finished runs: reports and exports, one run in full, pictures drawn from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genbench.analysis.curves import By
from genbench.analysis.selection import of_stage
from genbench.errors import StoreError, UsageError
from genbench.evaluation.selection import describe_selection
from genbench.plotting.stored import drawn
from genbench.reporting.curves_table import export_csv
from genbench.storage.results import Row, protocols, rows
from genbench.storage.run_dir import (
    RECONSTRUCTIONS,
    SAMPLES,
    RunRecord,
    find_runs,
    read_run,
    read_runs,
)
from genbench.utils.io import write_text

if TYPE_CHECKING:
    from genbench.api import DataConfig
    from genbench.plotting.style import Drawing
    from genbench.registry.loader import Registry


@dataclass(frozen=True)
class FigureContext:
    """What figures of trained models are made with."""

    registry: Registry
    place: DataConfig
    device: str


def readable_runs(places: Sequence[Path]) -> list[RunRecord]:
    """The records of the runs at or below the places; a line on stderr names each run that cannot be read."""
    records, problems = read_runs(find_runs(places))
    for problem in problems:
        click.echo(f"genbench: left out: {problem}", err=True)
    return records


def report_runs(
    places: Sequence[Path],
    target: Path | None,
    form: str,
    sort: str | None,
    picked_by: str | None = None,
    workshop: FigureContext | None = None,
) -> None:
    """Show and export the runs below the places; of options that compete, those that `picked_by` picks.

    With a `workshop` the export has the figures that need the models.
    """
    if workshop is not None and target is None:
        raise UsageError("--figures all is of an export: name its folder with --export DIR")
    from genbench.reporting import export
    from genbench.reporting.console import render

    records = readable_runs(places)
    if not records:
        raise StoreError("no run folder could be read")
    tidy, how = rows(records), protocols(records)
    if picked_by is not None:
        from genbench.analysis.selection import pick

        tidy, picks = pick(tidy, picked_by)
        for choice in picks:
            click.echo(choice.text, err=form != "table")
    if form == "table":
        render(Console(), tidy, sort=sort, protocols=how)
    else:
        writers: dict[str, Callable[[], str]] = {
            "csv": lambda: export.tidy_csv(tidy),
            "json": lambda: export.tidy_json(tidy),
            "md": lambda: export.table_markdown(tidy, sort=sort),
            "tex": lambda: export.table_latex(tidy, sort=sort),
        }
        click.echo(writers[form](), nl=False)
    if target is not None:
        write_report(records, tidy, how, target, sort, workshop)
        click.echo(
            f"Written to {target}/: {', '.join(sorted(path.name for path in target.iterdir()))}", err=form != "table"
        )


def write_report(
    records: Sequence[RunRecord],
    tidy: list[Row],
    how: Mapping[str, Any],
    target: Path,
    sort: str | None,
    workshop: FigureContext | None = None,
) -> None:
    """Export everything to a folder."""
    from genbench.reporting import export
    from genbench.storage.provenance import command_line

    facts = {
        record.name: export.RunFacts(
            record.name, record.path, {"run": record.run.record(), "provenance": record.provenance}
        )
        for record in records
    }

    def draw() -> tuple[list[Drawing], list[str]]:
        drawings, told = drawn(records, tidy)
        if workshop is None:
            needs = "they need the models: genbench report --figures all"
            return drawings, [*told, f"reconstructions, interpolations, grid, codes: {needs}"]
        from genbench.plotting.report import model_drawings
        from genbench.utils.torch_state import pick_device

        more, why = model_drawings(records, workshop.registry, workshop.place, pick_device(workshop.device))
        return [*drawings, *more], [*told, *why]

    export.export(target, tidy, runs=facts, protocols=how, command=command_line(), sort=sort, draw=draw)
    curves = export_csv(tidy)
    if curves:
        write_text(target / "curves.csv", curves)


def curve_runs(
    places: Sequence[Path], metric: str | None, by: By, at: Sequence[float], form: str, *, extremes: bool
) -> None:
    """Show the metric against compute of the runs below the places."""
    from genbench.reporting import curves_table as curveview

    tidy = rows(readable_runs(places))
    name = metric or next((row.metric for row in tidy if row.stage == "snapshot" and row.metric), "fid")
    if form == "table":
        curveview.show(Console(), tidy, name, by, at, extremes=extremes)
        return
    found = curveview.records(tidy, name, by, at)
    click.echo({"csv": curveview.as_csv, "json": curveview.as_json}[form](found), nl=False)


def show_table(
    console: Console,
    records: Sequence[RunRecord],
    metrics: Sequence[str],
    sort: str | None,
    select: str | None = None,
) -> None:
    """The comparison of some runs by some metrics: of their ends, or of the moments that a metric selected."""
    from genbench.reporting.console import render

    shown, how = of_stage(rows(records), select), protocols(records)
    tidy = [row for row in shown if not row.metric or row.metric.split(".")[0] in metrics]
    ranking = [row.metric for row in tidy if row.metric.split(".")[0] == sort and row.higher_is_better is not None]
    if tidy:
        console.print()
        render(console, tidy, sort=next(iter(ranking), None), protocols=how, brief=True)


HOW = ("device", "threads", "precision", "memory_format", "step")
"""Of a training's record, what says how it was done."""


def show_run(path: Path) -> None:
    """A run's options, provenance, state, numbers and pictures."""
    console, record = Console(), read_run(path)
    came = "  imported" if record.imported else ""
    console.print(f"[bold]{_shown(record.name)}[/]  {record.state}{came}", highlight=False)
    if record.failure:
        console.print(f"[red]{_shown(record.failure)}[/]", highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in {**record.run.record(), **record.provenance}.items():
        table.add_row(f"[dim]{_shown(name)}[/]", _shown(_words(value)))
    if record.training is not None:
        training = msgspec.to_builtins(record.training)
        how = {name: training[name] for name in HOW if training.get(name)}
        table.add_row("[dim]training[/]", _shown(", ".join(f"{name} {value}" for name, value in how.items())))
    console.print(table)
    for selection in record.selections.values():
        console.print(_plain(describe_selection(selection)), markup=False, highlight=False, soft_wrap=True)
    numbers = Table("metric", "value", "floor", "n", "protocol", box=None, pad_edge=False, header_style="bold")
    for row in rows([record]):
        if row.metric and row.stage != "snapshot":
            value = "failed: " + row.error if row.value is None else f"{row.value:.6g} {row.unit}"
            floor = "" if row.floor is None else f"{row.floor:.4g}"
            numbers.add_row(_shown(row.metric), _shown(value), floor, str(row.n or ""), _shown(row.protocol))
    for entry in record.measurements.values():
        if entry.inapplicable:
            numbers.add_row(_shown(entry.metric), _shown(f"does not apply: {entry.inapplicable}"), "", "", "")
    console.print(numbers)
    for picture in (SAMPLES, RECONSTRUCTIONS):
        if record.has(picture):
            console.print(str(path / picture), markup=False, highlight=False, soft_wrap=True)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _shown(text: str) -> str:
    """Text of a run's files, never taken for markup or for a terminal's control codes: runs may come from anyone."""
    return escape(_plain(text))


def _words(value: Any) -> str:
    if isinstance(value, dict) and "name" in value:
        options = ", ".join(f"{name.replace('_', '-')}={it}" for name, it in value.get("options", {}).items())
        return f"{value['name']}" + (f" ({options})" if options else "")
    if isinstance(value, dict):
        return ", ".join(f"{name} {it}" for name, it in value.items())
    return str(value)


def sample_run(path: Path, registry: Registry, count: int, seed: int, target: Path, device: str) -> None:
    """Decode prior draws of a trained run into a picture."""
    from genbench.api import Noise
    from genbench.data.images import save_grid, to_uint8
    from genbench.evaluation.evaluation import finite
    from genbench.evaluation.snapshots import trained_model
    from genbench.utils.rng import generator
    from genbench.utils.torch_state import pick_device

    record = read_run(path)
    run = record.run
    if run.role == "control":
        raise UsageError(f"{path} is a control, not a model: its samples are in {path / SAMPLES}")
    if target.suffix.lower() != ".png":
        raise UsageError(f"--out {target}: the picture is a PNG; name a file that ends in .png")
    chosen = pick_device(device)
    model = trained_model(registry, run, record.folder, chosen).eval()
    noise = Noise(generator("cpu", seed, "sample"))
    import torch

    with torch.no_grad():
        blocks = (model.prior.sample(min(500, count - start), noise).to(chosen) for start in range(0, count, 500))
        images = torch.cat([to_uint8(finite(model.decode(z), "samples")) for z in blocks])
    save_grid(target, images, columns=max(1, round(count**0.5)))
    click.echo(f"{count} samples of {record.name}: {target}")
