r"""Tables as Markdown and as LaTeX (booktabs). Names are text: `\input{x}` or `<script>` is printed, never obeyed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from genbench.analysis import notes
from genbench.analysis.formatting import format_estimate
from genbench.analysis.notes import Legend, Protocols
from genbench.analysis.table import Cell, Column, Line, Section, Table

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "[": "{[}",  # after \\ a bracket or a star would be read as its argument
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
}
MARKDOWN = re.compile(r"[\\`*_$\[\]|~]|^[#+-]|(?<=^\d)[.)](?= )")
SECTIONS: tuple[Section, ...] = ("headline", "detail", "fact")


# ---------------------------------------------------------------- Markdown


def markdown(tables: Sequence[Table], protocols: Protocols | None = None) -> str:
    """The tables as GitHub's Markdown, with notes, failures and protocols below each; the set of bests in bold."""
    return "\n".join("\n".join(_markdown(table, protocols or {})) for table in tables)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = MARKDOWN.sub(r"\\\g<0>", _one_line(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _markdown(table: Table, protocols: Protocols) -> list[str]:
    lines = [f"## {escape_markdown(notes.title(table))}", ""]
    lines.append("| model | " + " | ".join(map(_markdown_head, table.columns)) + " |")
    lines.append("|:--" + "|--:" * len(table.columns) + "|")
    for title, members in notes.blocks(table.lines):
        lines += [f"| *{title}* | " + " | ".join("" for _ in table.columns) + " |"] * bool(title)
        lines += map(_markdown_line, members)
    lines += ["", *(f"- {escape_markdown(note)}" for note in notes.notes(table, best="bold:")), ""]
    if table.problems:
        lines += ["### failed or unfinished", ""]
        lines += [*(f"- {escape_markdown(failure.text)}" for failure in notes.failures(table)), ""]
    return [*lines, "### how it was measured", "", *_markdown_legend(notes.legend(table, protocols)), ""]


def _markdown_line(line: Line) -> str:
    label = escape_markdown(line.label)
    if behind := notes.progress(len(line.seeds), len(line.done)):
        label += f"<br>{escape_markdown(behind)}"
    cells = [_markdown_cell(cell) if cell else "" for cell in line.cells]
    if line.state and cells:
        cells[0] = line.state
    return f"| {label} | " + " | ".join(cells) + " |"


def _markdown_head(column: Column) -> str:
    parts = [escape_markdown(notes.head(column))]
    parts += map(escape_markdown, notes.below_head(column))
    parts += [f"`{_one_line(column.protocol).replace('`', '').replace('|', '')}`"] if column.protocol else []
    return "<br>".join(parts)


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(format_estimate(cell.estimate).plain)
    text = {"best": f"**{text}**", "lead": f"{text}\\*", "undecided": f"{text} ?", "": text}[cell.mark]
    return "<br>".join([text, *map(escape_markdown, notes.below_cell(cell))])


def _markdown_legend(legend: Legend) -> Iterable[str]:
    for entry in legend.entries:
        yield f"- `{entry.protocol}` " + escape_markdown(f"{entry.heads}: {notes.listed(entry.facts)}")
    if legend.common:
        yield "- all: " + escape_markdown(notes.listed(legend.common))


# ---------------------------------------------------------------- LaTeX


def latex(tables: Sequence[Table], protocols: Protocols | None = None) -> str:
    r"""The tables as LaTeX, `\usepackage{booktabs}`: one tabular per dataset and section; the set of bests in bold."""
    lines = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        legend = notes.legend(table, protocols or {})
        texts = [notes.title(table), *notes.notes(table, best="bold:")]
        texts += [failure.text for failure in notes.failures(table)]
        texts += [f"{entry.protocol} {entry.heads}: {notes.listed(entry.facts)}" for entry in legend.entries]
        texts += [f"all: {notes.listed(legend.common)}"] * bool(legend.common)
        lines += ["", *(f"% {_one_line(text)}" for text in texts)]
        for section in SECTIONS:
            lines += _tabular(table, [i for i, c in enumerate(table.columns) if c.section == section])
        if not table.columns:
            lines += _tabular(table, [])
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is, on one line."""
    return "".join(LATEX.get(c, c) for c in _one_line(text))


def _tabular(table: Table, columns: Sequence[int]) -> list[str]:
    if not columns and table.columns:
        return []
    chosen = [table.columns[i] for i in columns]
    heads = [["model", *(escape_latex(notes.head(column)) for column in chosen)]]
    below = [notes.below_head(column) for column in chosen]
    heads += [["", *map(escape_latex, texts)] for texts in zip_longest(*below, fillvalue="")]
    if any(column.protocol for column in chosen):
        heads.append(["", *(rf"\texttt{{{escape_latex(column.protocol)}}}" for column in chosen)])
    body: list[str] = []
    for title, lines in notes.blocks(table.lines):
        if title:
            body += [r"\midrule", rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\emph{{{escape_latex(title)}}}}} \\"]
        body += [" & ".join([_latex_label(line), *(_latex_cell(line, i) for i in columns)]) + r" \\" for line in lines]
    return [
        "",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        *(" & ".join(row) + r" \\" for row in heads),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _latex_label(line: Line) -> str:
    behind = line.state or notes.progress(len(line.seeds), len(line.done))
    return escape_latex(f"{line.label} ({behind})" if behind else line.label)


def _latex_cell(line: Line, i: int) -> str:
    cell = line.cells[i]
    if cell is None:
        return "--"
    body = format_estimate(cell.estimate).latex
    text = rf"$\mathbf{{{body}}}$" if cell.mark == "best" else f"${body}$"
    text += {"lead": r"$^{*}$", "undecided": r"$^{?}$"}.get(cell.mark, "")
    below = notes.below_cell(cell)
    return text + (f" ({escape_latex(', '.join(below))})" if below else "")


def _one_line(text: str) -> str:
    """Control characters and line ends become spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
