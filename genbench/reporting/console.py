"""Tables on the console that fit its width, with notes, protocols and failures, and curves at equal budgets."""

from __future__ import annotations

import math
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from genbench.analysis import notes
from genbench.analysis.curves import BudgetResult, By, CurveSet, at_budgets, compare_at
from genbench.analysis.formatting import format_estimate
from genbench.analysis.headline import extractor_agreement, setup_lines, tuning_lines
from genbench.analysis.notes import FailureNote, ProtocolLegend, Protocols
from genbench.analysis.table import Column, Section, Table, TableRow, choose_tables
from genbench.analysis.tuning import TuningReport, WordTable, word_tables
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

SECTIONS: dict[Section, str] = {"headline": "", "detail": "further parts of these metrics", "fact": "facts, not ranked"}
SPLITS = {"validation": "snapshots on the validation split", "test": "the ends of the runs on the test split"}
UNITS: dict[By, str] = {"images": "images", "seconds": "seconds", "flops": "FLOPs"}
STYLES = {"failed": "red", "unfinished": "yellow"}
ASCII = {"±": "+-", "•": "*", "↓": "(low)", "↑": "(high)", "·": "-", "…": "...", "─": "-"}


NO_BREAK = "\N{NO-BREAK SPACE}"
UNBROKEN = re.compile(
    r"\S+ ·|genbench [^();,:·]*|--[a-z-]+ \S+|\S+ (±|\+-) \S+|\bp [=<] \S+|\b\d[\d,]* images\b|\S+ = \S+( \(\S+\))?"
)
"""What a line is not broken within: commands, flags with their values, estimates, p-values, options."""


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
    tuning: Sequence[TuningReport] = (),
    brief: bool = False,
    noted: bool = False,
) -> None:
    """Print a ranked table for each dataset: what was trained, the numbers, the verdict, failures.

    `sort` names the metric that ranks, `columns` those shown, in their order. In brief only the headline columns.
    `noted` adds counts, p-values and protocols' hashes to the numbers, and below them all notes and the legend of the
    protocols, of which `protocols` holds the fields by hash. `tuning` says what is known of tuned models.
    """
    if not rows:
        console.print("no runs to report")
        return
    writer = ConsoleWriter(console)
    for table in choose_tables(rows, sort, columns):
        _TableView(writer, table, protocols or {}, brief=brief, noted=noted).print()
        for words in word_tables(tuning, table.dataset):
            _render_words(writer, words)


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
        """Print a paragraph, wrapped at words; where it is indented, its further lines are by two more.

        Commands, estimates and p-values stay on one line where that is wide enough.
        """
        hanging = 2 if indent else 0
        width = max(20, self.width - indent - hanging)
        joined = UNBROKEN.sub(lambda match: match.group().replace(" ", NO_BREAK), self.plain(text))
        lines = textwrap.wrap(joined, width, break_long_words=False, break_on_hyphens=False) or [""]
        for i, part in enumerate(lines):
            start = " " * (indent + hanging * (i > 0))
            self.console.print(Text(start + part.replace(NO_BREAK, " "), style), soft_wrap=True)


def _encodes(console: Console, text: str) -> bool:
    try:
        text.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class _TableView:
    """One table on the console."""

    def __init__(self, writer: ConsoleWriter, table: Table, protocols: Protocols, *, brief: bool, noted: bool) -> None:
        self.writer, self.table, self.protocols = writer, table, protocols
        self.brief, self.noted = brief, noted
        self.rows = table.rows[:ROWS_SHOWN]
        labels = [_label_width(row) for row in self.rows]
        labels += [len(notes.PERFECT)] * any(map(notes.perfect, table.columns))
        self.label_width = min(LABEL_WIDTH, max(labels, default=0))

    def print(self) -> None:
        """Print the head, the numbers and what is said of them."""
        writer, table = self.writer, self.table
        writer.console.print()
        writer.line(notes.title(table), "bold")
        for line in filter(None, [" · ".join(setup_lines(table)), *tuning_lines(table)]):
            writer.line(line, "dim")
        for caution in notes.head_cautions(table):
            writer.line(caution, "yellow")
        for section, columns, rows in self._pages():
            writer.console.print()
            if SECTIONS[section] and columns[0] != 0:
                writer.line(SECTIONS[section], "italic")
            for title, members in notes.blocks(rows):
                if title:
                    members = [
                        row for row in members if any(row.cells[i] for i in columns) or (row.state and 0 in columns)
                    ]
                    if not members:  # nothing of them in these columns
                        continue
                    writer.console.print()
                    writer.line(title, "italic")
                writer.console.print(self._grid(columns, members, headed=not title))
        writer.console.print()
        self._notes()
        _render_failures(writer, notes.failures(table))
        if self.noted:
            _render_legend(writer, notes.legend(table, self.protocols))
        if agreement := extractor_agreement(table, self.protocols):
            writer.console.print()
            writer.line(agreement)

    def _notes(self) -> None:
        writer = self.writer
        if len(self.table.rows) > ROWS_SHOWN:
            writer.line(f"{len(self.table.rows) - ROWS_SHOWN:,} more groups: --export writes them all", indent=1)
        written = notes.all_notes if self.noted else notes.short_notes
        for note in written(self.table, notes.SIGNS["best"]):
            writer.line(note, indent=1)

    # ------------------------------------------------------------ the grid

    def _pages(self) -> list[tuple[Section, list[int], list[TableRow]]]:
        """The columns and rows of each stacked grid: all in one where they fit, else by section, as many as fit.

        Columns that belong to one prior stand in grids without the rows of other priors.
        """
        table, shown = self.table, self._shown()
        room = self.writer.width - self.label_width
        widths = {i: self._column_width(i) + GAP for i in shown}
        priors = {table.columns[i].prior for i in shown if i}
        if len(priors) < 2 and sum(widths.values()) <= room:
            return [("headline", shown, list(self.rows))]
        pages: list[tuple[Section, list[int], list[TableRow]]] = []
        for section in SECTIONS:
            for prior in sorted(priors, key=bool):
                used = 0
                for i in shown:
                    column = table.columns[i]
                    if column.section != section or (column.prior if i else "") != prior:
                        continue
                    if not used or used + widths[i] > room:
                        rows = [row for row in self.rows if not prior or row.cells[i] is not None]
                        pages.append((section, [], rows))
                        used = 0
                    pages[-1][1].append(i)
                    used += widths[i]
        return pages

    def _shown(self) -> list[int]:
        """The columns of a brief table or of the whole one."""
        columns = self.table.columns
        return [i for i, column in enumerate(columns) if i == 0 or not self.brief or column.section == "headline"]

    def _head_lines(self, column: Column) -> list[str]:
        """The head broken after spaces, dots and hyphens."""
        lines = [""]
        for word in notes.head(column).replace("-", "-\0").replace(".", ".\0").replace(" ", " \0").split("\0"):
            if lines[-1] and len(lines[-1]) + len(word.rstrip()) > HEAD_WIDTH and word not in notes.ARROWS.values():
                lines.append("")
            lines[-1] += word
        return [line.rstrip() for line in lines]

    def _below_head(self, column: Column) -> list[str]:
        """The lines under a column's head: with notes its counts, MDE and protocol, else only what tells it apart."""
        facts = notes.below_head(column) if self.noted else []
        return [*facts, column.protocol[: notes.HASH_LENGTH]] if self.noted or column.shared else facts

    def _below(self, row: TableRow, i: int) -> list[str]:
        """The lines under a cell, with room for its mark."""
        cell = row.cells[i]
        return [f"{text}  " for text in notes.below_cell(cell)] if cell and self.noted else []

    def _column_width(self, i: int) -> int:
        column = self.table.columns[i]
        texts = [*self._head_lines(column), *self._below_head(column), f"{notes.perfect(column)}  "]
        for row in self.rows:
            texts += [_cell_text(row, i), *self._below(row, i)]
        return max(cell_len(self.writer.plain(text)) for text in texts)

    def _grid(self, columns: Sequence[int], rows: Sequence[TableRow], *, headed: bool) -> RichTable:
        """Some rows of a table; a grid without a head has the widths of the one above it."""
        writer, table = self.writer, self.table
        style = box.ASCII_DOUBLE_HEAD if writer.replacements else box.SIMPLE_HEAD
        grid = RichTable(
            box=style, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="", show_header=headed
        )
        perfect = [notes.perfect(table.columns[i]) for i in columns] if headed else []
        head = writer.text("model", "bold")
        grid.add_column(head, overflow="fold", min_width=self.label_width, max_width=LABEL_WIDTH, vertical="top")
        for i in columns:
            column = table.columns[i]
            parts = [writer.text(part, "bold") for part in self._head_lines(column)]
            parts += [writer.text(part, "dim") for part in self._below_head(column)]
            several = len(columns) > 1  # one column alone may fold, so that it fits any terminal
            width = self._column_width(i) if several else None
            text = Text("\n").join(parts)
            grid.add_column(text, justify="right", no_wrap=several, overflow="fold", min_width=width, vertical="top")
        for row in rows:
            grid.add_row(_label(writer, row), *(self._cell(row, i) for i in columns))
        if any(perfect):
            grid.add_row(writer.text(notes.PERFECT, "dim"), *(writer.text(f"{text}  ", "dim") for text in perfect))
        return grid

    def _cell(self, row: TableRow, i: int) -> Text:
        writer, cell = self.writer, row.cells[i]
        if cell is None:
            return writer.text(_cell_text(row, i), STYLES.get(row.state, "dim"))
        text = writer.text(_cell_text(row, i), "bold" if cell.mark == "best" else "")
        return Text("\n").join([text, *(writer.text(below, "dim") for below in self._below(row, i))])


def _label_width(row: TableRow) -> int:
    return max(len("model"), cell_len(row.label), len(notes.progress(len(row.seeds), len(row.done))))


def _label(writer: ConsoleWriter, row: TableRow) -> Text:
    progress = notes.progress(len(row.seeds), len(row.done))
    return Text("\n").join([writer.text(row.label), *([writer.text(progress, "dim")] if progress else [])])


def _cell_text(row: TableRow, i: int) -> str:
    """A cell with room for its mark, so that digits are aligned."""
    cell = row.cells[i]
    if cell is None:
        return f"{(row.state if i == 0 else '') or NOTHING}  "
    return f"{format_estimate(cell.estimate).plain} {notes.SIGNS[cell.mark] or ' '}"


def _render_words(writer: ConsoleWriter, words: WordTable) -> None:
    """A table of words with its notes; where it is too wide, numbers stand in stacked grids, and other cells fold."""
    columns = list(zip(words.heads, *words.rows, strict=True))
    heads = [[head] if i < words.texts else head.split(" ", 1) for i, (head, *_) in enumerate(columns)]
    widths = [
        max(cell_len(writer.plain(text)) for text in (*head, *cells)) + 1
        for head, (_, *cells) in zip(heads, columns, strict=True)
    ]
    stacks = words.texts == 1
    blocks: list[list[int]] = [[0]]
    for i in range(1, len(columns)):
        if stacks and len(blocks[-1]) > 1 and sum(widths[k] for k in (*blocks[-1], i)) > writer.width:
            blocks.append([0])
        blocks[-1].append(i)
    writer.console.print()
    writer.line(words.title, "italic")
    style = box.ASCII_DOUBLE_HEAD if writer.replacements else box.SIMPLE_HEAD
    for block in blocks:
        table = RichTable(box=style, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
        for i in block:
            text = Text("\n").join(map(writer.text, heads[i]))
            side: Literal["left", "right"] = "left" if i < words.texts else "right"
            whole = i > 0 and (stacks or " " not in "".join(columns[i][1:]))
            table.add_column(text, justify=side, no_wrap=whole, overflow="fold", vertical="top")
        for row in words.rows:
            table.add_row(*(writer.text(row[i]) for i in block))
        writer.console.print(table)
        writer.console.print()
    for note in words.notes:
        writer.line(note, "dim", indent=1)


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
        last = {group: result.estimate.mean for (group, budget), result in results.items() if budget == budgets[-1]}
        sign = 1.0 if curve_set.lower else -1.0
        ranks = {
            curve.group: sign * last[curve.group] if curve.group in last else math.inf for curve in curve_set.curves
        }
        ranked = sorted(curve_set.curves, key=lambda curve: ranks[curve.group])
        lines = [
            (curve.label, [_budget_cell(writer, results.get((curve.group, b))) for b in budgets]) for curve in ranked
        ]
        heads = [f"{budget:,.0f}" if by == "images" else f"{budget:.3g}" for budget in budgets]
        _render_budgets(writer, heads, lines)
        for note in _curve_notes(curve_set, by, list(results.values()), len(budgets) * len(curve_set.curves)):
            writer.line(note, "dim", indent=1)


def _render_budgets(writer: ConsoleWriter, heads: Sequence[str], lines: Sequence[tuple[str, Sequence[Text]]]) -> None:
    """Print stacked grids of as many budgets as fit, a number never being broken."""
    labels = min(LABEL_WIDTH, max(cell_len(writer.plain(label)) for label, _ in lines))
    widths = [max(cell_len(head), *(cell_len(cells[k].plain) for _, cells in lines)) for k, head in enumerate(heads)]
    style = box.ASCII_DOUBLE_HEAD if writer.replacements else box.SIMPLE_HEAD
    blocks: list[list[int]] = [[]]
    for k in range(len(widths)):
        if blocks[-1] and labels + sum(widths[i] + GAP for i in (*blocks[-1], k)) > writer.width:
            blocks.append([])
        blocks[-1].append(k)
    for block in blocks:
        table = RichTable(box=style, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
        table.add_column("at", overflow="fold", min_width=labels, max_width=LABEL_WIDTH)
        for k in block:
            several = len(block) > 1  # one column alone may fold, so that it fits any terminal
            table.add_column(heads[k], justify="right", no_wrap=several, overflow="fold", min_width=widths[k] * several)
        for label, cells in lines:
            table.add_row(writer.text(label), *(cells[k] for k in block))
        writer.console.print()
        writer.console.print(table)
    writer.console.print()


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
    snapshots = [row for curve in curve_set.curves for at in curve.snapshots.values() for row in at.values()]
    if results and any(row.trials for row in snapshots):
        texts.append(notes.AT_CHOSEN_OPTIONS)
    return texts
