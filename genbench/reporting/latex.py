r"""Tables as LaTeX with booktabs. Names are text: `\input{x}` is printed, never obeyed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from genbench.analysis import notes
from genbench.analysis.formatting import format_estimate, one_line_text
from genbench.analysis.notes import Protocols
from genbench.analysis.table import Section, Table, TableRow

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
SECTIONS: tuple[Section, ...] = ("headline", "detail", "fact")


def latex(tables: Sequence[Table], protocols: Protocols | None = None) -> str:
    r"""The tables as LaTeX, `\usepackage{booktabs}`: one tabular per dataset and section; the set of bests in bold."""
    lines = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        legend = notes.legend(table, protocols or {})
        texts = [notes.title(table), *notes.all_notes(table, best="bold:")]
        texts += [failure.text for failure in notes.failures(table)]
        texts += [f"{entry.protocol} {entry.heads}: {notes.listed(entry.facts)}" for entry in legend.entries]
        texts += [f"all: {notes.listed(legend.common)}"] * bool(legend.common)
        lines += ["", *(f"% {one_line_text(text)}" for text in texts)]
        for section in SECTIONS:
            lines += _tabular(table, [i for i, c in enumerate(table.columns) if c.section == section])
        if not table.columns:
            lines += _tabular(table, [])
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is, on one line."""
    return "".join(LATEX.get(c, c) for c in one_line_text(text))


def _tabular(table: Table, columns: Sequence[int]) -> list[str]:
    if not columns and table.columns:
        return []
    chosen = [table.columns[i] for i in columns]
    heads = [["model", *(escape_latex(notes.head(column)) for column in chosen)]]
    below = [[*notes.below_head(column), notes.perfect(column)] for column in chosen]
    heads += [["", *map(escape_latex, texts)] for texts in zip_longest(*below, fillvalue="")]
    if any(column.protocol for column in chosen):
        heads.append(["", *(rf"\texttt{{{escape_latex(column.protocol)}}}" for column in chosen)])
    body: list[str] = []
    for title, rows in notes.blocks(table.rows):
        if title:
            body += [r"\midrule", rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\emph{{{escape_latex(title)}}}}} \\"]
        body += [" & ".join([_latex_label(row), *(_latex_cell(row, i) for i in columns)]) + r" \\" for row in rows]
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


def _latex_label(row: TableRow) -> str:
    progress = row.state or notes.progress(len(row.seeds), len(row.done))
    return escape_latex(f"{row.label} ({progress})" if progress else row.label)


def _latex_cell(row: TableRow, i: int) -> str:
    cell = row.cells[i]
    if cell is None:
        return "--"
    body = format_estimate(cell.estimate).latex
    text = rf"$\mathbf{{{body}}}$" if cell.mark == "best" else f"${body}$"
    text += {"lead": r"$^{*}$", "undecided": r"$^{?}$"}.get(cell.mark, "")
    below = notes.below_cell(cell)
    return text + (f" ({escape_latex(', '.join(below))})" if below else "")
