"""Tables on the console that fit its width, with notes, protocols and failures, and curves at equal budgets."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from genbench.analysis import notes
from genbench.analysis.columns import choose_tables
from genbench.analysis.curves import BudgetResult, By, CurveSet, at_budgets, compare_at
from genbench.analysis.formatting import format_estimate
from genbench.analysis.notes import FailureNote, ProtocolLegend, Protocols
from genbench.analysis.table import Column, Section, Table, TableRow
from genbench.storage.results import Row

HEAD_WIDTH = 14
"""Characters after which a column's head is broken."""

LABEL_WIDTH = 30
ROWS_SHOWN = 200
"""Groups shown on the console; an export holds them all."""

CAUSE_LENGTH = 300
FAILURES_SHOWN = 20
GAP = 2
NOTHING = "-"

SECTIONS: dict[Section, str] = {"headline": "", "detail": "more parts", "fact": "not ranked"}
SPLITS = {"validation": "snapshots on the validation split", "test": "the ends of the runs on the test split"}
UNITS: dict[By, str] = {"images": "images", "seconds": "seconds", "flops": "FLOPs"}
STYLES = {"failed": "red", "unfinished": "yellow"}
ASCII = {"±": "+-", "↓": "(low)", "↑": "(high)", "·": "-", "…": "...", "─": "-"}


class BrokenPipeConsole(Console):
    """A console that becomes quiet where its reader is gone (`| head`, a `tee` that was killed), while the runs go on.

    rich would raise `SystemExit` within a step, which counts as that run's failure. Results are files, and
    `genbench report` prints them again.
    """

    def on_broken_pipe(self) -> None:
        """Discard all further output."""
        self.quiet = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def render(
    console: Console,
    rows: Sequence[Row],
    *,
    sort: str | None = None,
    columns: Sequence[str] = (),
    protocols: Protocols | None = None,
    brief: bool = False,
) -> None:
    """Print a ranked table for each dataset with its notes, legend and failures.

    `sort` names the metric that ranks, `columns` those shown, in their order; `protocols` holds the fields of each
    protocol by its hash, for the legend. In brief, only the headline columns and the failures.
    """
    if not rows:
        console.print("no runs to report")
        return
    writer = ConsoleWriter(console)
    for table in choose_tables(rows, sort, columns):
        _render_table(writer, table, protocols or {}, brief)


class ConsoleWriter:
    """Writes to a console; characters that its encoding lacks are replaced."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = console.width
        self.replacements = {} if _encodes(console, "".join(ASCII)) else ASCII

    def plain(self, text: str) -> str:
        """Text as it can be shown: no control characters, nothing that the encoding lacks."""
        for sign, plain in self.replacements.items():
            text = text.replace(sign, plain)
        text = "".join(c if c.isprintable() else " " for c in text)
        if not _encodes(self.console, text):
            text = text.encode(self.console.encoding, "replace").decode(self.console.encoding)
        return text

    def text(self, text: str, style: str = "") -> Text:
        """Text that is never taken for markup."""
        return Text(self.plain(text), style=style)

    def line(self, text: str, style: str = "", indent: int = 0) -> None:
        """Print a paragraph; where it is indented, its further lines are by two more."""
        hanging = 2 if indent else 0
        wrapped = self.text(text, style).wrap(self.console, max(20, self.width - indent - hanging))
        for i, part in enumerate(wrapped):
            part.rstrip()
            part.pad_left(indent + hanging * (i > 0))
            self.console.print(part)


def _encodes(console: Console, text: str) -> bool:
    try:
        text.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _render_table(writer: ConsoleWriter, table: Table, protocols: Protocols, brief: bool) -> None:
    writer.console.print()
    writer.line(notes.title(table), "bold")
    for section, columns in _pages(writer, table, brief):
        writer.console.print()
        if SECTIONS[section] and columns[0] != 0:
            writer.line(SECTIONS[section], "italic")
        for title, rows in notes.blocks(table.rows[:ROWS_SHOWN]):
            if title:
                writer.console.print()
                writer.line(title, "italic")
            writer.console.print(_grid(writer, table, columns, rows, headed=not title))
    writer.console.print()
    if len(table.rows) > ROWS_SHOWN:
        writer.line(f"{len(table.rows) - ROWS_SHOWN:,} more groups: --export writes them all", indent=1)
    for note in notes.notes(table):
        writer.line(note, "dim", indent=1)
    _render_failures(writer, notes.failures(table))
    if not brief:
        _render_legend(writer, notes.legend(table, protocols))


def _render_failures(writer: ConsoleWriter, failures: Sequence[FailureNote]) -> None:
    if not failures:
        return
    writer.console.print()
    writer.line("failed or unfinished", "bold")
    for failure in failures[:FAILURES_SHOWN]:
        text = " ".join(failure.text.split())
        text = text if len(text) <= CAUSE_LENGTH else text[: CAUSE_LENGTH - 1] + "…"
        writer.line(text, STYLES.get(failure.status, "red"), indent=1)
    if len(failures) > FAILURES_SHOWN:
        writer.line(f"and {len(failures) - FAILURES_SHOWN:,} more: --export writes them all", "dim", indent=1)


def _render_legend(writer: ConsoleWriter, legend: ProtocolLegend) -> None:
    if not legend.entries:
        return
    writer.console.print()
    writer.line("how it was measured", "bold")
    for entry in legend.entries:
        writer.line(f"{entry.protocol or 'unknown'}  {entry.heads}: {notes.listed(entry.facts)}", "dim", indent=1)
    if legend.common:
        writer.line(f"all  {notes.listed(legend.common)}", "dim", indent=1)


# ---------------------------------------------------------------- the grid


def _pages(writer: ConsoleWriter, table: Table, brief: bool) -> list[tuple[Section, list[int]]]:
    """Column numbers of each stacked table: all in one where they fit, else section by section, as many as fit."""
    shown = [i for i, column in enumerate(table.columns) if i == 0 or not brief or column.section == "headline"]
    widths = {i: _column_width(writer, table, i) + GAP for i in shown}
    room = writer.width - min(LABEL_WIDTH, max((_label_width(row) for row in table.rows), default=0))
    if not table.columns or sum(widths.values()) <= room:
        return [("headline", shown)]
    pages: list[tuple[Section, list[int]]] = []
    used = 0
    for i in shown:
        column = table.columns[i]
        if not pages or pages[-1][0] != column.section or used + widths[i] > room:
            pages.append((column.section, []))
            used = 0
        pages[-1][1].append(i)
        used += widths[i]
    return pages


def _label_width(row: TableRow) -> int:
    return max(len("model"), cell_len(row.label), len(notes.progress(len(row.seeds), len(row.done))))


def _column_width(writer: ConsoleWriter, table: Table, i: int) -> int:
    cells = [text for row in table.rows[:ROWS_SHOWN] for text in [_cell_text(row, i), *_below(row, i)]]
    return max(cell_len(writer.plain(text)) for text in [*_head_lines(table.columns[i]), *cells])


def _head_lines(column: Column) -> list[str]:
    """The head broken after spaces, dots and hyphens, then n, the floor, and the protocol's hash."""
    lines = [""]
    for word in notes.head(column).replace("-", "-\0").replace(".", ".\0").replace(" ", " \0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(word.rstrip()) > HEAD_WIDTH and word not in notes.ARROWS.values():
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines] + notes.below_head(column) + [column.protocol[: notes.HASH_LENGTH]]


def _grid(
    writer: ConsoleWriter, table: Table, columns: Sequence[int], rows: Sequence[TableRow], *, headed: bool
) -> RichTable:
    """Some rows of a table; a grid without a head has the widths of the one above it."""
    plain = bool(writer.replacements)
    style = box.ASCII_DOUBLE_HEAD if plain else box.SIMPLE_HEAD
    grid = RichTable(
        box=style, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="", show_header=headed
    )
    label = min(LABEL_WIDTH, max(_label_width(row) for row in table.rows[:ROWS_SHOWN]))
    head = writer.text("model", "bold")
    grid.add_column(head, overflow="fold", min_width=label, max_width=LABEL_WIDTH, vertical="top")
    for i in columns:
        parts = _head_lines(table.columns[i])
        named = len(parts) - 1 - len(notes.below_head(table.columns[i]))
        head = Text("\n").join(writer.text(part, "bold" if k < named else "dim") for k, part in enumerate(parts))
        several = len(columns) > 1  # one column alone may fold, so that it fits any terminal
        width = _column_width(writer, table, i) if several else None
        grid.add_column(head, justify="right", no_wrap=several, overflow="fold", min_width=width, vertical="top")
    for row in rows:
        grid.add_row(_label(writer, row), *(_cell(writer, row, i) for i in columns))
    return grid


def _label(writer: ConsoleWriter, row: TableRow) -> Text:
    progress = notes.progress(len(row.seeds), len(row.done))
    return Text("\n").join([writer.text(row.label), *([writer.text(progress, "dim")] if progress else [])])


def _below(row: TableRow, i: int) -> list[str]:
    """The lines under a cell, with room for its mark."""
    cell = row.cells[i]
    return [f"{text}  " for text in notes.below_cell(cell)] if cell else []


def _cell_text(row: TableRow, i: int) -> str:
    """A cell with room for its mark, so that digits are aligned."""
    cell = row.cells[i]
    if cell is None:
        return (row.state if i == 0 else "") or NOTHING
    return f"{format_estimate(cell.estimate).plain} {notes.SIGNS[cell.mark] or ' '}"


def _cell(writer: ConsoleWriter, row: TableRow, i: int) -> Text:
    cell = row.cells[i]
    if cell is None:
        return writer.text(_cell_text(row, i), STYLES.get(row.state, "dim"))
    text = writer.text(_cell_text(row, i), "bold" if cell.mark == "best" else "")
    return Text("\n").join([text, *(writer.text(below, "dim") for below in _below(row, i))])


# ---------------------------------------------------------------- curves


def render_curves(console: Console, rows: Sequence[Row], metric: str, by: By, requested: Sequence[float]) -> None:
    """Print the groups at equal budgets of compute, a table for each dataset, protocol and split."""
    writer = ConsoleWriter(console)
    for curve_set, budgets in at_budgets(rows, metric, by, requested):
        counted = notes.seed_counts([(curve.label, len(curve.snapshots)) for curve in curve_set.curves])
        head = f"{curve_set.head or curve_set.metric} {notes.ARROWS[curve_set.higher_is_better]}"
        writer.console.print()
        writer.line(f"{curve_set.dataset} · {head} by {UNITS[by]} · {SPLITS[curve_set.split]} · {counted}", "bold")
        if not budgets:
            writer.line(f"no count of {UNITS[by]} lies within every run: name one by --at", "dim")
            continue
        results = {(r.group, budget): r for budget in budgets for r in compare_at(curve_set, by, budget)}
        style = box.ASCII_DOUBLE_HEAD if writer.replacements else box.SIMPLE_HEAD
        table = RichTable("at", box=style, pad_edge=False)
        for budget in budgets:
            text = f"{budget:,.0f}" if by == "images" else f"{budget:.3g}"
            table.add_column(text, justify="right", overflow="fold")
        last = {group: result.estimate.mean for (group, budget), result in results.items() if budget == budgets[-1]}
        sign = 1.0 if curve_set.lower else -1.0
        ranks = {
            curve.group: sign * last[curve.group] if curve.group in last else math.inf for curve in curve_set.curves
        }
        for curve in sorted(curve_set.curves, key=lambda curve: ranks[curve.group]):
            cells = (_budget_cell(writer, results.get((curve.group, budget))) for budget in budgets)
            table.add_row(writer.text(curve.label), *cells)
        writer.console.print(table)
        for note in _curve_notes(curve_set, by, list(results.values()), len(budgets) * len(curve_set.curves)):
            writer.line(note, "dim", indent=1)


def _budget_cell(writer: ConsoleWriter, result: BudgetResult | None) -> Text:
    if result is None:
        return writer.text(f"{NOTHING}  ", "dim")
    text = f"{format_estimate(result.estimate).plain} {notes.SIGNS[result.mark] or ' '}"
    return writer.text(text, "bold" if result.mark == "best" else "")


def _curve_notes(curve_set: CurveSet, by: By, results: Sequence[BudgetResult], cells: int) -> list[str]:
    marks = {result.mark for result in results}
    texts = ["± half the 95 % interval over training seeds"] * any(result.estimate.n > 1 for result in results)
    texts += notes.marks(marks, [len(curve.snapshots) for curve in curve_set.curves])
    if len(results) < cells:
        texts.append("- beyond the snapshots of a seed: never extrapolated")
    if by == "seconds":
        texts.append("seconds depend on the machine and on its load")
    trajectories = [points for curve in curve_set.curves for points in curve.trajectories(by).values()]
    if any(result.budget not in {cost for cost, _ in points} for result in results for points in trajectories):
        texts.append("between two snapshots of a run: linear in the logarithm of the compute")
    return texts
