"""Results on the console: tables that fit the width, what the numbers mean, how they were measured, what failed."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as ExperimentConfig
from rich.text import Text

from genbench.analysis import notes
from genbench.analysis.formatting import format_estimate
from genbench.analysis.notes import Failure, Legend, Protocols
from genbench.analysis.table import Column, Line, Section, Table, assemble
from genbench.storage.results import Row

HEAD_WIDTH = 14
"""Characters after which a column's head is broken."""

LABEL_WIDTH = 30
LINES_SHOWN = 200
"""Groups shown on the console; an export holds them all."""

CAUSE_LENGTH = 300
FAILURES_SHOWN = 20
GAP = 2
NOTHING = "-"

SECTIONS: dict[Section, str] = {"headline": "", "detail": "more parts", "fact": "not ranked"}
STYLES = {"failed": "red", "unfinished": "yellow"}
ASCII = {"±": "+-", "↓": "(low)", "↑": "(high)", "·": "-", "…": "...", "─": "-"}


def render(
    console: Console,
    rows: Sequence[Row],
    *,
    sort: str | None = None,
    protocols: Protocols | None = None,
    brief: bool = False,
) -> None:
    """Print a ranked table for each dataset with its notes, legend and failures.

    `sort` names the metric that ranks; `protocols` holds the fields of each protocol by its hash, for the legend. In
    brief, only the headline columns and what failed.
    """
    if not rows:
        console.print("no runs to report")
        return
    paper = _Paper(console)
    for table in assemble(rows, sort):
        _render_table(paper, table, protocols or {}, brief)


class _Paper:
    """The console with what its encoding cannot show replaced."""

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


def _render_table(paper: _Paper, table: Table, protocols: Protocols, brief: bool) -> None:
    paper.console.print()
    paper.line(notes.title(table), "bold")
    for section, columns in _pages(paper, table, brief):
        paper.console.print()
        if SECTIONS[section] and columns[0] != 0:
            paper.line(SECTIONS[section], "italic")
        for title, lines in notes.blocks(table.lines[:LINES_SHOWN]):
            if title:
                paper.console.print()
                paper.line(title, "italic")
            paper.console.print(_grid(paper, table, columns, lines, headed=not title))
    paper.console.print()
    if len(table.lines) > LINES_SHOWN:
        paper.line(f"{len(table.lines) - LINES_SHOWN:,} more groups: --export writes them all", indent=1)
    for note in notes.notes(table):
        paper.line(note, "dim", indent=1)
    _render_failures(paper, notes.failures(table))
    if not brief:
        _render_legend(paper, notes.legend(table, protocols))


def _render_failures(paper: _Paper, found: Sequence[Failure]) -> None:
    if not found:
        return
    paper.console.print()
    paper.line("failed or unfinished", "bold")
    for failure in found[:FAILURES_SHOWN]:
        text = " ".join(failure.text.split())
        text = text if len(text) <= CAUSE_LENGTH else text[: CAUSE_LENGTH - 1] + "…"
        paper.line(text, STYLES.get(failure.status, "red"), indent=1)
    if len(found) > FAILURES_SHOWN:
        paper.line(f"and {len(found) - FAILURES_SHOWN:,} more: --export writes them all", "dim", indent=1)


def _render_legend(paper: _Paper, legend: Legend) -> None:
    if not legend.entries:
        return
    paper.console.print()
    paper.line("how it was measured", "bold")
    for entry in legend.entries:
        paper.line(f"{entry.protocol or 'unknown'}  {entry.heads}: {notes.listed(entry.facts)}", "dim", indent=1)
    if legend.common:
        paper.line(f"all  {notes.listed(legend.common)}", "dim", indent=1)


# ---------------------------------------------------------------- the grid


def _pages(paper: _Paper, table: Table, brief: bool) -> list[tuple[Section, list[int]]]:
    """Column numbers of each stacked table: all in one where they fit, else section by section, as many as fit."""
    shown = [i for i, column in enumerate(table.columns) if i == 0 or not brief or column.section == "headline"]
    widths = {i: _column_width(paper, table, i) + GAP for i in shown}
    room = paper.width - min(LABEL_WIDTH, max((_label_width(line) for line in table.lines), default=0))
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


def _label_width(line: Line) -> int:
    return max(len("model"), cell_len(line.label), len(notes.progress(len(line.seeds), len(line.done))))


def _column_width(paper: _Paper, table: Table, i: int) -> int:
    cells = [text for line in table.lines[:LINES_SHOWN] for text in [_cell_text(line, i), *_below(line, i)]]
    return max(cell_len(paper.plain(text)) for text in [*_head_lines(table.columns[i]), *cells])


def _head_lines(column: Column) -> list[str]:
    """The head broken after spaces, dots and hyphens, then n, the floor, and the protocol's hash."""
    lines = [""]
    for word in notes.head(column).replace("-", "-\0").replace(".", ".\0").replace(" ", " \0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(word.rstrip()) > HEAD_WIDTH and word not in notes.ARROWS.values():
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines] + notes.below_head(column) + [column.protocol[: notes.HASH_LENGTH]]


def _grid(
    paper: _Paper, table: Table, columns: Sequence[int], lines: Sequence[Line], *, headed: bool
) -> ExperimentConfig:
    """Some lines of a table; a grid without a head has the widths of the one above it."""
    plain = bool(paper.replacements)
    style = box.ASCII_DOUBLE_HEAD if plain else box.SIMPLE_HEAD
    grid = ExperimentConfig(
        box=style, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="", show_header=headed
    )
    label = min(LABEL_WIDTH, max(_label_width(line) for line in table.lines[:LINES_SHOWN]))
    head = paper.text("model", "bold")
    grid.add_column(head, overflow="fold", min_width=label, max_width=LABEL_WIDTH, vertical="top")
    for i in columns:
        parts = _head_lines(table.columns[i])
        named = len(parts) - 1 - len(notes.below_head(table.columns[i]))
        head = Text("\n").join(paper.text(part, "bold" if k < named else "dim") for k, part in enumerate(parts))
        several = len(columns) > 1  # one column alone may fold, so that it fits any terminal
        width = _column_width(paper, table, i) if several else None
        grid.add_column(head, justify="right", no_wrap=several, overflow="fold", min_width=width, vertical="top")
    for line in lines:
        grid.add_row(_label(paper, line), *(_cell(paper, line, i) for i in columns))
    return grid


def _label(paper: _Paper, line: Line) -> Text:
    behind = notes.progress(len(line.seeds), len(line.done))
    return Text("\n").join([paper.text(line.label), *([paper.text(behind, "dim")] if behind else [])])


def _below(line: Line, i: int) -> list[str]:
    """The lines under a cell, with room for its mark."""
    cell = line.cells[i]
    return [f"{text}  " for text in notes.below_cell(cell)] if cell else []


def _cell_text(line: Line, i: int) -> str:
    """A cell with room for its mark, so that the digits stand in line."""
    cell = line.cells[i]
    if cell is None:
        return (line.state if i == 0 else "") or NOTHING
    return f"{format_estimate(cell.estimate).plain} {notes.SIGNS[cell.mark] or ' '}"


def _cell(paper: _Paper, line: Line, i: int) -> Text:
    cell = line.cells[i]
    if cell is None:
        return paper.text(_cell_text(line, i), STYLES.get(line.state, "dim"))
    text = paper.text(_cell_text(line, i), "bold" if cell.mark in {"best", "lead"} else "")
    return Text("\n").join([text, *(paper.text(below, "dim") for below in _below(line, i))])
