"""Console views of finished runs: one run, two groups against each other, the power of seeds, two runs' fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genbench.analysis.compare import Comparison, Forecast, compare, forecast
from genbench.analysis.curves import By, requested_metric
from genbench.analysis.diff import COMPARABLE, diff_runs
from genbench.analysis.formatting import format_estimate, format_value, p_value
from genbench.analysis.gather import CAUTIONS
from genbench.analysis.headline import join_words, tuning_words
from genbench.evaluation.selection import describe_selection
from genbench.reporting.console import ConsoleWriter, render_curves
from genbench.reporting.cost import Cost, cost, cost_notes, cost_rows
from genbench.reporting.summary import compared_runs
from genbench.storage.results import rows
from genbench.storage.run_dir import RECONSTRUCTIONS, SAMPLES, RunRecord, read_run
from genbench.storage.schema import StoredMeasurement

TRAINING_FIELDS = ("device", "threads", "precision", "memory_format", "step", "ensemble")
"""The fields of a training's record that `show` prints."""

WIDE = 100
"""The width of a terminal from which comparisons show the uncorrected p-value and the effect size."""

METRIC_WIDTH = 16
"""Characters of a metric's label that a narrow terminal does not break."""

FIELD_WIDTH = 32
"""Characters of a field's name that a narrow terminal does not break."""


def printable(text: str) -> str:
    """Text of a run's files without control characters, escaped for rich: runs may come from anyone."""
    return escape("".join(c if c.isprintable() else " " for c in text))


# ---------------------------------------------------------------- one run


def run_plain(record: RunRecord) -> dict[str, Any]:
    """A run's record, state, provenance, training and numbers as JSON data."""
    return {
        "name": record.name,
        "path": str(record.path),
        "state": record.state,
        "failure": record.failure,
        "run": record.run.record(),
        "provenance": record.provenance,
        "training": msgspec.to_builtins(record.training),
        "tuned": msgspec.to_builtins(record.tuned),
        "validation": {images: msgspec.to_builtins(taken.measurements) for images, taken in record.snapshots.items()},
        "numbers": [row.as_dict() for row in rows([record]) if row.metric],
        "cost": asdict(cost([record])),
        "traces": {e.metric: e.trace for e in record.measurements.values() if e.trace},
        "inapplicable": {e.metric: e.inapplicable for e in record.measurements.values() if e.inapplicable},
        "pictures": [str(record.path / picture) for picture in (SAMPLES, RECONSTRUCTIONS) if record.has(picture)],
    }


def show_run(path: Path, form: str = "table") -> None:
    """Print a run's options, provenance, state, numbers and pictures."""
    console, record = Console(), read_run(path)
    if form == "json":
        click.echo(json.dumps(run_plain(record), indent=1))
        return

    # State and configuration.
    imported = "  imported" if record.imported else ""
    console.print(f"[bold]{printable(record.name)}[/]  {record.state}{imported}", highlight=False)
    if record.failure:
        console.print(f"[red]{printable(record.failure)}[/]", highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in {**record.run.record(), **record.provenance}.items():
        if words := _words(value):
            table.add_row(f"[dim]{printable(name)}[/]", printable(words))
    if record.training is not None:
        fields = {name: getattr(record.training, name) for name in TRAINING_FIELDS}
        words = ", ".join(f"{name} {value}" for name, value in fields.items() if value)
        table.add_row("[dim]training[/]", printable(words))
    if record.tuned is not None:
        table.add_row("[dim]tuned[/]", printable(_tuned_words(record)))
    console.print(table)
    for selection in record.selections.values():
        console.print(printable(describe_selection(selection)), highlight=False, soft_wrap=True)

    # Numbers, and what is to be known of them.
    numbers = Table("metric", "value", "floor", "n", "protocol", box=None, pad_edge=False, header_style="bold")
    for row in rows([record]):
        if row.metric and row.stage != "snapshot":
            value = "failed: " + row.error if row.value is None else f"{row.value:.6g} {row.unit}"
            value += "" if row.chance is None else f" (chance {row.chance:.4g})"
            floor = "" if row.floor is None else f"{row.floor:.4g}"
            numbers.add_row(
                printable(row.metric), printable(value), floor, f"{row.n:,}" if row.n else "", printable(row.protocol)
            )
    for images, number in _trial_numbers(record):
        value = f"{number.value:.6g} {number.unit} on validation images, after {int(images):,} images"
        numbers.add_row(
            printable(number.label or number.component), printable(value), "", f"{number.n:,}", number.protocol
        )
    for entry in record.measurements.values():
        if entry.inapplicable:
            reason = printable(f"does not apply: {entry.inapplicable}")
            numbers.add_row(printable(entry.metric), reason, "", "", "")
    console.print(numbers)
    if record.run.role == "trial":
        console.print("a trial of a search: its value chooses options, and is no result", highlight=False)
    show_cost(console, cost([record]))
    cautions: dict[str, list[str]] = {}
    for row in rows([record]):
        for caution in filter(None, row.caution.split(CAUTIONS)):
            cautions.setdefault(caution, []).append(row.metric)
    for caution, metrics in cautions.items():
        console.print(printable(f"! {', '.join(dict.fromkeys(metrics))}: {caution}"), highlight=False, soft_wrap=True)

    # The traces of failures, last, where they are looked for.
    failure = record.folder.failure()
    traces = {"": failure.trace if failure is not None else ""}
    traces |= {f"{entry.metric}: {entry.error}": entry.trace for entry in record.measurements.values()}
    for title, trace in traces.items():
        if trace and title:
            console.print(printable(title), style="red", highlight=False, soft_wrap=True)
        for line in trace.rstrip().splitlines():
            console.print(printable(line), style="dim", highlight=False, soft_wrap=True)

    # Pictures.
    for picture in (SAMPLES, RECONSTRUCTIONS):
        if record.has(picture):
            console.print(str(path / picture), markup=False, highlight=False, soft_wrap=True)


def _tuned_words(record: RunRecord) -> str:
    """How the options of a run were chosen."""
    (row,) = rows([record])[:1]
    value, default = row.validation, row.default_validation
    words = f"{row.trials} trials, {row.tuned_by}; searched {row.space or 'nothing'}; validation value"
    words += f" {value:.4g}" if value is not None else " unknown"
    words += "" if default is None else f" (default {default:.4g})"
    return f"{words}, the best of {row.trials}: no result"


def _trial_numbers(record: RunRecord) -> list[tuple[str, StoredMeasurement]]:
    """The numbers of a trial, each with the count of images shown."""
    return [
        (images, number)
        for images, taken in record.snapshots.items()
        for entry in taken.measurements.values()
        for number in entry.numbers
        if record.run.role == "trial"
    ]


def show_cost(console: Console, spent: Cost) -> None:
    """Print the seconds of training, fits and metrics; nothing where none were recorded."""
    if not spent.words:
        return
    table = Table("cost", box=None, pad_edge=False, header_style="bold")
    table.add_column("time", justify="right")
    shares = bool(spent.shared)
    if shares:
        table.add_column("once", justify="right")
    for what, seconds, once in cost_rows(spent):
        table.add_row(printable(what), seconds, *[once] * shares)
    console.print()
    console.print(table)
    writer = ConsoleWriter(console)
    for line in cost_notes(spent):
        writer.line(line, "dim", indent=1)


def _words(value: Any) -> str:
    """A component with its options, a nested record, or a plain value, in one line."""
    if isinstance(value, dict) and "name" in value:
        options = ", ".join(f"{name.replace('_', '-')}={option}" for name, option in value.get("options", {}).items())
        return f"{value['name']}" + (f" ({options})" if options else "")
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items() if inner not in ("", [], {}, None))
    return str(value)


# ---------------------------------------------------------------- metric against compute


def show_curves(
    paths: Sequence[Path], metric: str | None, by: By, budgets: Sequence[float], all_sources: bool = False
) -> None:
    """Print the groups below the paths at equal budgets, by default in the first metric of snapshots."""
    tidy = rows(compared_runs(paths, all_sources))
    at_snapshots = next((row.metric for row in tidy if row.stage == "snapshot" and row.metric), None)
    render_curves(Console(), tidy, requested_metric(tidy, metric or at_snapshots), by, budgets)


# ---------------------------------------------------------------- two groups, and the power of seeds


def show_comparison(
    paths: Sequence[Path], a: str, b: str, metric: str | None, form: str, all_sources: bool = False
) -> None:
    """Print group A against group B."""
    tidy = rows(compared_runs(paths, all_sources))
    label_a, label_b, comparisons = compare(tidy, a, b, metric)
    tuning = tuning_words(
        next(row for row in tidy if row.label == label_a), next(r for r in tidy if r.label == label_b)
    )
    if form == "json":
        plain = [asdict(comparison) for comparison in comparisons]
        click.echo(json.dumps({"a": label_a, "b": label_b, "tuning": tuning, "comparisons": plain}, indent=2))
        return
    console = Console()
    writer, wide = ConsoleWriter(console), console.width >= WIDE
    counts = sorted({n for each in comparisons for n in (each.difference.n, each.seeds_a, each.seeds_b)})
    seeds = f"{counts[0]} training seeds" if len(counts) == 1 else "training seeds"
    writer.line(f"A = {label_a}, B = {label_b}, paired by {seeds}", "bold")
    several = len(comparisons) > 1
    table = Table("metric", box=None, pad_edge=False, header_style="bold")
    table.columns[0].min_width = min(METRIC_WIDTH, max(len(comparison.head) for comparison in comparisons))
    heads = ["A", "B", "A - B", *(["seeds"] * (len(counts) > 1)), *(["p"] if wide or not several else [])]
    for head in [*heads, *(["p (Holm)"] * several), *(["d_z"] * wide)]:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("conclusion", no_wrap=True)
    table.add_column("more\nseeds", justify="right", no_wrap=True)
    for comparison in comparisons:
        difference = comparison.difference
        values = [format_value(comparison.a).plain, format_value(comparison.b).plain, format_estimate(difference).plain]
        values += [_seeds(comparison)] * (len(counts) > 1)
        values += [_bare_p(comparison.p)] * (wide or not several) + [_bare_p(comparison.p_holm)] * several
        values += [_effect(comparison)] * wide
        more = "-" if comparison.more_seeds is None else f"{comparison.more_seeds:,}"
        table.add_row(
            escape(comparison.head), *values, comparison.conclusion.replace(" is ", " ").replace(" are ", " "), more
        )
    console.print(table)
    for sentence in (*conclusion_words(comparisons, label_a, label_b), *filter(None, [tuning])):
        writer.line(sentence, indent=1)
    kinds = {comparison.difference.kind for comparison in comparisons}
    interval = "studentised bootstrap" if "bootstrap" in kinds else "Student's t"
    words = f"A - B: mean paired difference ± half its 95 % interval ({interval}); p: two-sided paired t-test"
    words += "; shares of n draws: no narrower and no smaller than their sampling error allows" * ("sampling" in kinds)
    words += "; Holm: corrected for the number of metrics" * several
    words += "; d_z: mean over standard deviation of the differences, with Hedges' correction" * wide
    words += "; more seeds: for a power of 80 % at 5 %, if the observed difference and deviation are the true ones"
    words += " (-: too uncertain to estimate)" * any(comparison.more_seeds is None for comparison in comparisons)
    conclusions = {comparison.conclusion for comparison in comparisons}
    words += "; equal: in every seed" * ("equal" in conclusions)
    words += "; no test: all differences are equal, and have no spread" * ("no test" in conclusions)
    writer.line(words, "dim", indent=1)


def _bare_p(p: float | None) -> str:
    return "-" if p is None else p_value(p).removeprefix("p ").removeprefix("= ")


def _effect(comparison: Comparison) -> str:
    return "" if comparison.effect is None else f"{comparison.effect:.2f}"


def _seeds(comparison: Comparison) -> str:
    """The seeds that both have; `3 (of 5 and 3)` where one has more."""
    n, a, b = comparison.difference.n, comparison.seeds_a, comparison.seeds_b
    return str(n) if a == b == n else f"{n} (of {a} and {b})"


def conclusion_words(comparisons: Sequence[Comparison], a: str, b: str) -> list[str]:
    """The comparisons in words: by what each group is better, or why they cannot be told apart."""
    heads: dict[str, list[str]] = {}
    for comparison in comparisons:
        heads.setdefault(comparison.conclusion, []).append(comparison.head)
    names = {
        "A is better": f"{a} is better",
        "B is better": f"{b} is better",
        "A's options are better": f"the chosen options of {a} are better",
        "B's options are better": f"the chosen options of {b} are better",
    }
    sentences = [
        f"{name} by {join_words(heads[conclusion])}" for conclusion, name in names.items() if conclusion in heads
    ]
    options = [comparison for comparison in comparisons if "options" in comparison.conclusion]
    reasons = dict.fromkeys(comparison.unproven for comparison in options if comparison.unproven)
    if options:
        more = f" ({'; '.join(reasons)})" * bool(reasons)
        sentences.append(f"the searches do not show that the models differ{more}")
    if sentences or len(comparisons) > 1:
        return sentences or [f"{a} and {b} cannot be told apart"]
    head = comparisons[0].head
    if comparisons[0].conclusion == "equal":
        return [f"{a} and {b} are equal in every seed by {head}"]
    why = ": all differences are equal" if comparisons[0].conclusion == "no test" else ""
    return [f"{a} and {b} cannot be told apart by {head}{why}"]


def show_power(
    paths: Sequence[Path],
    metric: str | None,
    difference: float | None,
    seeds: Sequence[int],
    form: str,
    all_sources: bool = False,
) -> None:
    """Print the differences that numbers of seeds can detect, estimated from a pilot's runs."""
    tidy = rows(compared_runs(paths, all_sources))
    forecasts = forecast(tidy, requested_metric(tidy, metric), seeds, difference)
    if form == "json":
        click.echo(json.dumps([asdict(each) for each in forecasts], indent=2))
        return
    console = Console()
    for each in forecasts:
        _print_forecast(console, each)
    if any(row.trials for row in tidy):
        words = "seeds tell the chosen options apart: the luck of a search stays, however many there are"
        console.print(f" {words}", style="dim", highlight=False, soft_wrap=True)


def _print_forecast(console: Console, forecast: Forecast) -> None:
    pilot = forecast.pilot
    console.print(
        f"{forecast.dataset} · {forecast.metric} {forecast.protocol} · pilot of {len(pilot.members)} models,"
        f" {pilot.seeds} seeds",
        style="bold",
        markup=False,
        highlight=False,
    )
    sd, low, high = (format_value(x, digits=3).plain for x in (pilot.sd, pilot.low, pilot.high))
    console.print(f"sd of paired differences {sd}, 95 % interval {low} to {high} ({pilot.df} df)", highlight=False)
    if forecast.left_out:
        names = ", ".join(map(printable, forecast.left_out))
        console.print(f"left out: {names}: fewer than two seeds shared with other models", highlight=False)
    if pilot.known is not None:
        known = format_value(pilot.known, digits=3).plain
        console.print(f"shares of n draws: their sampling error alone gives an sd of {known}", highlight=False)
    table = Table("seeds", "smallest detectable difference", box=None, pad_edge=False, header_style="bold")
    if forecast.difference is not None:
        table.add_column(f"power for {forecast.difference:g}", justify="right")
    for at in forecast.table:
        row = [str(at.seeds), format_value(at.minimum_detectable_effect, digits=3).plain]
        table.add_row(*row, *([] if at.power is None else [f"{at.power:.0%}"]))
    console.print(table)
    if forecast.needed is not None:
        needed, least, most = ("more than 10,000" if n is None else f"{n:,}" for n in forecast.needed)
        console.print(
            f"a difference of {forecast.difference:g} needs {needed} seeds ({least} to {most} over the interval of the"
            " sd)",
            highlight=False,
        )
    console.print(" two-sided paired t-test at 5 %, with a power of 80 %", style="dim", highlight=False)


# ---------------------------------------------------------------- two runs, field by field


def show_diff(path_a: Path, path_b: Path, form: str) -> None:
    """Print the fields in which two runs differ, by group, and whether each metric may be compared."""
    diff = diff_runs(read_run(path_a), read_run(path_b))
    if form == "json":
        click.echo(json.dumps(asdict(diff), indent=1))
        return
    console = Console()
    console.print(printable(diff.conclusion), style="bold", highlight=False)
    for letter, path, state in (("A", path_a, diff.state_a), ("B", path_b, diff.state_b)):
        console.print(f"{letter}  {printable(str(path))}  {state}", highlight=False, soft_wrap=True)
    for group in dict.fromkeys(difference.group for difference in diff.fields):
        console.print()
        table = Table(group, "A", "B", "meaning", box=None, pad_edge=False, header_style="bold")
        for column in table.columns:
            column.overflow = "fold"
        names = [difference.field for difference in diff.fields if difference.group == group]
        table.columns[0].no_wrap = max(map(len, names)) <= FIELD_WIDTH
        for difference in diff.fields:
            if difference.group == group:
                values = (difference.field, difference.a, difference.b, difference.meaning)
                table.add_row(*map(printable, values))
        console.print(table)
    if diff.metrics:
        console.print()
        table = Table("metric", "protocol in A", "in B", "conclusion", box=None, pad_edge=False, header_style="bold")
        for metric in diff.metrics:
            style = "green" if metric.conclusion == COMPARABLE else "red"
            protocols = (" ".join(metric.a) or "-", " ".join(metric.b) or "-")
            conclusion = f"[{style}]{metric.conclusion}[/]"
            table.add_row(printable(metric.metric), *map(printable, protocols), conclusion)
        console.print(table)
