"""What `compare` and `power` print: two groups against each other, and what a number of seeds can show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genbench.analysis.compare import Comparison, Forecast, compare, forecast
from genbench.analysis.formatting import format_estimate, format_value
from genbench.analysis.notes import p_value
from genbench.reporting.summary import readable_runs
from genbench.storage.results import Row, rows


def show_comparison(places: Sequence[Path], a: str, b: str, metric: str | None, form: str) -> None:
    """Print A against B."""
    label_a, label_b, found = compare(_rows(places), a, b, metric)
    if form == "json":
        told = [asdict(one) for one in found]
        click.echo(json.dumps({"a": label_a, "b": label_b, "comparisons": told}, indent=2))
        return
    console = Console()
    console.print(f"A = {label_a}, B = {label_b}, paired by training seed", style="bold", markup=False, highlight=False)
    table = Table("metric", box=None, pad_edge=False, header_style="bold")
    for head in ("A", "B", "A - B", "seeds", "p", *(["p (Holm)"] if len(found) > 1 else []), "d_z"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict")
    for one in found:
        numbers = [
            format_value(one.a).plain,
            format_value(one.b).plain,
            format_estimate(one.difference).plain,
            str(one.difference.n),
        ]
        p_values = [one.p, one.p_holm] if len(found) > 1 else [one.p]
        effect = "" if one.effect is None else f"{one.effect:.2f}"
        tests = [p_value(p).removeprefix("p ").removeprefix("= ") for p in p_values]
        table.add_row(escape(one.head), *numbers, *tests, effect, escape(verdict(one, label_a, label_b)))
    console.print(table)
    kind = "studentised bootstrap" if any(one.difference.kind == "bootstrap" for one in found) else "Student's t"
    console.print(
        f" A - B: mean paired difference ± half its 95 % interval ({kind}); p: two-sided paired t-test; d_z: mean over"
        " standard deviation of the differences, with Hedges' correction; more seeds: for a power of 80 % at 5 %, if"
        " the observed difference and deviation are the true ones",
        style="dim",
        highlight=False,
    )


def verdict(one: Comparison, a: str, b: str) -> str:
    """A comparison in words."""
    if one.verdict != "undecided":
        return f"{a if one.verdict == 'A is better' else b} is better"
    if one.more_seeds is None:
        return "undecided; the difference is too uncertain to say how many seeds would settle it"
    return f"undecided; about {one.more_seeds:,} more seed{'s' * (one.more_seeds > 1)} would settle it"


def show_power(places: Sequence[Path], metric: str, difference: float | None, seeds: Sequence[int], form: str) -> None:
    """Print what numbers of seeds can show, by a pilot's runs."""
    found = forecast(_rows(places), metric, seeds, difference)
    if form == "json":
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    console = Console()
    for one in found:
        _print_forecast(console, one)


def _print_forecast(console: Console, one: Forecast) -> None:
    pilot = one.pilot
    console.print(
        f"{one.dataset} · {one.metric} {one.protocol} · pilot of {pilot.models} models, {pilot.seeds} seeds",
        style="bold",
        markup=False,
        highlight=False,
    )
    sd, low, high = (format_value(x, digits=3).plain for x in (pilot.sd, pilot.low, pilot.high))
    console.print(f"sd of paired differences {sd}, 95 % interval {low} to {high} ({pilot.df} df)", highlight=False)
    table = Table("seeds", "smallest difference found", box=None, pad_edge=False, header_style="bold")
    if one.difference is not None:
        table.add_column(f"power for {one.difference:g}", justify="right")
    for at in one.table:
        row = [str(at.seeds), format_value(at.minimum_detectable_effect, digits=3).plain]
        table.add_row(*row, *([] if at.power is None else [f"{at.power:.0%}"]))
    console.print(table)
    if one.needed is not None:
        needed, least, most = ("more than 10,000" if n is None else f"{n:,}" for n in one.needed)
        console.print(
            f"a difference of {one.difference:g} needs {needed} seeds ({least} to {most} over the interval of the sd)",
            highlight=False,
        )
    console.print(" two-sided paired t-test at 5 %, found with a power of 80 %", style="dim", highlight=False)


def _rows(places: Sequence[Path]) -> list[Row]:
    return rows(readable_runs(places))
