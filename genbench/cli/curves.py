"""The command `genbench curves`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genbench.cli.finite import Finite

if TYPE_CHECKING:
    from genbench.analysis.curves import By


@click.command(short_help="Show a metric against the compute spent.")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--metric", metavar="METRIC", help="The metric. [the first one measured at snapshots]")
@click.option(
    "--by",
    type=click.Choice(["images", "seconds", "flops"]),
    default="images",
    show_default=True,
    help="What compute is counted in.",
)
@click.option(
    "--at",
    multiple=True,
    type=Finite(min=0, min_open=True),
    metavar="VALUE",
    help="Compare at this much compute; repeatable. [up to five values that all runs have]",
)
@click.option(
    "--best-of-run", "extremes", is_flag=True, help="Also show the best moment of each run, which is optimistic."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="csv and json hold the snapshots and the comparisons.",
)
def curves(
    runs: tuple[Path, ...], metric: str | None, by: By, at: tuple[float, ...], extremes: bool, form: str
) -> None:
    """Show a metric against the compute of RUNS that were trained with --snapshots. [runs]

    Groups are compared at equal images, seconds or floating point operations, and the Pareto set is told.
    """
    from genbench.reporting.summary import curve_runs

    curve_runs(runs or (Path("runs"),), metric, by, at, form, extremes=extremes)
