"""Tables as GitHub's Markdown. Names are text: `<script>` is printed, never obeyed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from genbench.analysis import notes
from genbench.analysis.formatting import format_estimate, one_line_text
from genbench.analysis.headline import extractor_agreement, setup_lines, tuning_lines
from genbench.analysis.notes import ProtocolLegend, Protocols
from genbench.analysis.table import Column, Table, TableCell, TableRow
from genbench.analysis.tuning import TuningReport, WordTable, word_tables

MARKDOWN = re.compile(r"[\\`*_$\[\]|~]|^[#+-]|(?<=^\d)[.)](?= )")


def markdown(tables: Sequence[Table], protocols: Protocols | None = None, tuning: Sequence[TuningReport] = ()) -> str:
    """The tables as GitHub's Markdown, with notes, failures, tuning and protocols below each; the bests in bold."""
    return "\n".join("\n".join(_lines(table, protocols or {}, tuning)) for table in tables)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = MARKDOWN.sub(r"\\\g<0>", one_line_text(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _lines(table: Table, protocols: Protocols, tuning: Sequence[TuningReport]) -> list[str]:
    lines = [f"## {escape_markdown(notes.title(table))}", "", escape_markdown(" · ".join(setup_lines(table))), ""]
    lines += [
        line for text in (*tuning_lines(table), *notes.head_cautions(table)) for line in (escape_markdown(text), "")
    ]
    lines.append("| model | " + " | ".join(map(_head, table.columns)) + " |")
    lines.append("|:--" + "|--:" * len(table.columns) + "|")
    for title, members in notes.blocks(table.rows):
        lines += [f"| *{title}* | " + " | ".join("" for _ in table.columns) + " |"] * bool(title)
        lines += map(_row, members)
    if any(map(notes.perfect, table.columns)):
        floors = (escape_markdown(notes.perfect(column)) for column in table.columns)
        lines.append(f"| *{notes.PERFECT}* | " + " | ".join(floors) + " |")
    lines += ["", *(f"- {escape_markdown(note)}" for note in notes.all_notes(table, best="bold:")), ""]
    if table.problems:
        lines += ["### failed or unfinished", ""]
        lines += [*(f"- {escape_markdown(failure.text)}" for failure in notes.failures(table)), ""]
    for words in word_tables(tuning, table.dataset):
        lines += [f"### {escape_markdown(words.title)}", "", *_words(words), ""]
    lines += ["### how it was measured", "", *_legend(notes.legend(table, protocols)), ""]
    agreement = extractor_agreement(table, protocols)
    return [*lines, escape_markdown(agreement), ""] if agreement else lines


def _words(words: WordTable) -> Iterable[str]:
    yield f"| {' | '.join(map(escape_markdown, words.heads))} |"
    yield f"|{':--|' * words.texts}{'--:|' * (len(words.heads) - words.texts)}"
    for row in words.rows:
        yield f"| {' | '.join(map(escape_markdown, row))} |"
    yield ""
    yield from (f"- {escape_markdown(note)}" for note in words.notes)


def _row(row: TableRow) -> str:
    label = escape_markdown(row.label)
    if progress := notes.progress(len(row.seeds), len(row.done)):
        label += f"<br>{escape_markdown(progress)}"
    cells = [_cell(cell) if cell else "" for cell in row.cells]
    if row.state and cells:
        cells[0] = row.state
    return f"| {label} | " + " | ".join(cells) + " |"


def _head(column: Column) -> str:
    """The column's name; with the protocol's hash where the metric was measured in several ways."""
    parts = [escape_markdown(notes.head(column))]
    parts += [_code(column.protocol)] if column.shared and column.protocol else []
    return "<br>".join(parts)


def _code(text: str) -> str:
    return f"`{one_line_text(text).replace('`', '').replace('|', '')}`"


def _cell(cell: TableCell) -> str:
    text = escape_markdown(format_estimate(cell.estimate).plain)
    return {"best": f"**{text}**", "undecided": f"{text} ?", "": text}[cell.mark]


def _legend(legend: ProtocolLegend) -> Iterable[str]:
    for entry in legend.entries:
        yield f"- {_code(entry.protocol or 'unknown')} " + escape_markdown(
            f"{entry.heads}: {notes.listed(entry.facts)}"
        )
    if legend.common:
        yield "- all: " + escape_markdown(notes.listed(legend.common))
