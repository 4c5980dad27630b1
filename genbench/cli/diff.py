"""`genbench explain`. No torch."""

from __future__ import annotations

import json
from pathlib import Path

import click

from genbench.cli.options import run_folder


@click.command(short_help="Say how two runs and their protocols differ.")
@click.argument("run_a", metavar="RUN_A")
@click.argument("run_b", metavar="RUN_B")
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of the runs."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="json holds every value in full.",
)
def explain(run_a: str, run_b: str, runs: Path, form: str) -> None:
    """Say in which fields two runs and their protocols differ, and which of those make them incomparable."""
    from rich.console import Console

    from genbench.analysis.diff import as_plain
    from genbench.analysis.diff import explain as compare
    from genbench.cli.explainview import show
    from genbench.storage.run_dir import read_run

    explanation = compare(read_run(run_folder(run_a, runs)), read_run(run_folder(run_b, runs)))
    if form == "json":
        click.echo(json.dumps(as_plain(explanation), indent=1))
    else:
        show(Console(), explanation)
