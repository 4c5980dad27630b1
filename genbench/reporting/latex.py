r"""Tables for print with booktabs, and text as LaTeX prints it: `\input{x}` in a name is printed, never obeyed.

A table fits the column of a two-column article where it can, else its full width. Hashes, standard errors and p-values
are in rows.csv and in the protocols.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from genbench.analysis import notes
from genbench.analysis.captions import caption
from genbench.analysis.formatting import FormattedEstimate, format_estimate, format_value, one_line_text
from genbench.analysis.notes import Protocols
from genbench.analysis.table import Column, Table, TableCell, TableRow, headlines
from genbench.analysis.tuning import TuningReport, WordTable, word_tables
from genbench.stats.intervals import Estimate

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
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "²": r"\textsuperscript{2}",
    "\N{EN DASH}": "--",
    "…": "...",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
}
LETTERS = frozenset("ßæøåœłÆØÅŒŁ")
ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327")
"""Combining marks that LaTeX sets over a letter in any font encoding."""

COLUMN_WIDTH, TEXT_WIDTH = 229.0, 469.0
"""Points of a column and of both in LaTeX's two-column article, the narrowest of the usual ones."""

LABEL_WIDTH = 150.0
CHARACTER, SMALL_CHARACTER, SIGN, GAP = 4.7, 4.0, 6.0, 5.0
r"""Points of a character at \small and at \scriptsize, of ±, and between two columns."""

PUNCTUATION = ("", *" /-_.,:;=@")
PART = 12
"""Characters of a long word between two places where it may break."""

SMALLEST, LARGEST = 1e-2, 1e5
"""A column whose largest number is below or from these is given in a power of ten that stands in its head."""

PERFECT = "perfect"
"""The label of the row of floors."""

NOTHING = "--"


def latex(
    tables: Sequence[Table],
    protocols: Protocols | None = None,
    tuning: Sequence[TuningReport] = (),
    *,
    chosen: bool = False,
) -> str:
    r"""The tables for print, each in a `table` environment with its caption and label; `\usepackage{booktabs}`.

    Tables of the tuning follow those of tuned models.

    Where the columns were not `chosen`, a table has the main number of each metric.
    """
    lines = ["% needs \\usepackage{booktabs} in the preamble"]
    for table in tables:
        shown = table if chosen else headlines(table)
        hidden = [column for column in table.columns if column.metric not in {c.metric for c in shown.columns}]
        lines += ["", *_comments(shown, hidden, protocols or {}), *environment(shown)]
        for words in word_tables(tuning, table.dataset):
            lines += ["", *words_environment(words, word_label(table, words))]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is, on one line; a character that its usual fonts lack as `U+4E2D`.

    A word too long for a column may break.
    """
    return " ".join(_broken(word) for word in one_line_text(text).split(" "))


def _broken(word: str) -> str:
    """A word as LaTeX prints it; a long one may break anywhere in steps."""
    parts = [word[k : k + PART] for k in range(0, len(word), PART)] if len(word) > 2 * PART else [word]
    return r"\allowbreak{}".join(map(_escaped, parts))


def _escaped(text: str) -> str:
    return "".join(LATEX.get(c) or _letter(c) for c in text)


def breakable(text: str) -> str:
    r"""Text in typewriter type that may break after punctuation and within long words: commands, paths, hashes."""
    pieces = []
    tokens = re.findall(r"[^ /\-_.,:;=@]+|.", one_line_text(text))
    for before, token in zip(["", *tokens], tokens, strict=False):
        pieces.append(_broken(token))
        if token == "-":
            pieces.append("{}")  # no ligature with the next one
        if token != " " and token in PUNCTUATION and before not in PUNCTUATION:
            pieces.append(r"\allowbreak{}")
    return rf"\texttt{{{''.join(pieces)}}}"


def _letter(c: str) -> str:
    if c.isascii() or c in LETTERS:
        return c
    parts = unicodedata.normalize("NFD", c)
    if len(parts) == 2 and parts[1] in ACCENTS and parts[0].isascii() and parts[0].isalpha():
        return c
    return f"U+{ord(c):04X}"


# ---------------------------------------------------------------- one table


def environment(table: Table) -> list[str]:
    """The lines of a table environment; columns that do not fit side by side stand in further environments."""
    label_width = min(LABEL_WIDTH, _longest(table))
    printed = [_printed(table, i) for i in range(len(table.columns))]
    total = label_width + sum(column.width + GAP for column in printed)
    wide = total > COLUMN_WIDTH
    room = (TEXT_WIDTH if wide else COLUMN_WIDTH) - label_width
    blocks: list[list[PrintedColumn]] = [[]]
    for column in printed:
        if blocks[-1] and sum(each.width + GAP for each in (*blocks[-1], column)) > room:
            blocks.append([])
        blocks[-1].append(column)
    name, label = "table*" if wide else "table", label_of(table)
    lines: list[str] = []
    for number, block in enumerate(blocks, start=1):
        more = rf"Further columns of Table~\ref{{{label}}}."
        lines += [
            rf"\begin{{{name}}}[tbp]",
            r"\centering",
            r"\small",
            r"\setlength{\tabcolsep}{" + f"{GAP / 2:g}pt" + "}",
            rf"\caption{{{_caption(table) if number == 1 else more}}}",
            rf"\label{{{label if number == 1 else f'{label}-{number}'}}}",
            r"\smallskip",
            *_tabular(table, block, label_width),
            rf"\end{{{name}}}",
        ]
    return lines


@dataclass(frozen=True)
class PrintedColumn:
    """A column as it is printed: two lines of its head, and its cells by the row's place, in `10**exponent`."""

    head: tuple[str, str]
    cells: tuple[str, ...]
    floor: str
    width: float


def width(text: str) -> float:
    r"""Estimated points of a plain text at \small.

    >>> width("swae") < width("wae-gan")
    True
    """
    return CHARACTER * len(text)


def _printed(table: Table, i: int) -> PrintedColumn:
    column, cells = table.columns[i], [row.cells[i] for row in _rows(table)]
    exponent = _exponent([cell.estimate.mean for cell in cells if cell])
    numbers = [_scaled(cell.estimate, exponent) if cell else None for cell in cells]
    floor = "" if column.floor is None else _floor(column.floor, exponent)
    first, second = _two_lines(column.head + _way(table, column))
    scale = f"(in $10^{{{exponent}}}$)" if exponent else ""
    arrow = notes.ARROWS.get(column.higher_is_better, "")
    above = scale if len(first) < len(second) else ""  # beside the shorter of the two lines
    below = scale if not above else ""
    head = (
        " ".join(part for part in (escape_latex(first), above, escape_latex(arrow)) if part),
        " ".join(part for part in (escape_latex(second), below) if part),
    )
    head_width = max(width(first) + (10 if arrow else 0) + (45 if above else 0), width(second) + (45 if below else 0))
    widths = [_number_width(number) for number in numbers if number] + [width(floor)]
    states = [row.state if i == 0 else "" for row in _rows(table)]
    texts = [_cell(cell, number, state) for cell, number, state in zip(cells, numbers, states, strict=True)]
    return PrintedColumn(head, tuple(texts), _number(floor, "") if floor else "", max(head_width, *widths))


def _tabular(table: Table, columns: Sequence[PrintedColumn], label_width: float) -> list[str]:
    label = f"p{{{label_width:.0f}pt}}" if _longest(table) > label_width else "l"
    body: list[str] = []
    places = {row.group: place for place, row in enumerate(_rows(table))}
    for title, rows in notes.blocks(table.rows):
        if title:
            body += [
                r"\midrule",
                rf"\multicolumn{{{2 * len(columns) + 1}}}{{@{{}}l}}{{\emph{{{escape_latex(title)}}}}} \\",
            ]
        for row in rows:
            text = escape_latex(_label(row))
            text = rf"\raggedright {text}" if label != "l" else text
            body.append(" & ".join([text, *(column.cells[places[row.group]] for column in columns)]) + r" \\")
    if any(column.floor for column in columns):
        floors = (column.floor or rf"\multicolumn{{2}}{{c}}{{{NOTHING}}}" for column in columns)
        body += [r"\midrule", " & ".join([rf"\emph{{{PERFECT}}}", *floors]) + r" \\"]
    heads = [[rf"\multicolumn{{2}}{{c}}{{{column.head[line]}}}" for column in columns] for line in (0, 1)]
    last = any(column.head[1] for column in columns)
    return [
        rf"\begin{{tabular}}{{@{{}}{label}{'r@{}l' * len(columns)}@{{}}}}",
        r"\toprule",
        *([" & ".join(["", *heads[0]]) + r" \\"] if last else []),
        " & ".join(["model", *heads[1 if last else 0]]) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _rows(table: Table) -> list[TableRow]:
    return [row for _, rows in notes.blocks(table.rows) for row in rows]


def _label(row: TableRow) -> str:
    progress = notes.progress(len(row.seeds), len(row.done))
    return f"{row.label} ({progress})" if progress else row.label


def _longest(table: Table) -> float:
    """Points of the longest label."""
    return max(width(text) for text in (PERFECT, *map(_label, _rows(table))))


def _two_lines(head: str) -> tuple[str, str]:
    """A head in two lines of the least width, broken at a space.

    >>> _two_lines("FID (grey28)"), _two_lines("sharpness")
    (('FID', '(grey28)'), ('sharpness', ''))
    """
    words = head.split()
    breaks = [(" ".join(words[:k]), " ".join(words[k:])) for k in range(1, len(words) + 1)]
    return min(breaks, key=lambda lines: max(map(len, lines)), default=("", ""))


def _way(table: Table, column: Column) -> str:
    """A letter for each protocol of a metric that was measured in several ways."""
    ways = [each.protocol for each in table.columns if each.head == column.head and each.metric == column.metric]
    return f" ({chr(ord('a') + ways.index(column.protocol) % 26)})" if len(ways) > 1 else ""


# ---------------------------------------------------------------- tables of words


def words_environment(words: WordTable, label: str) -> list[str]:
    """The lines of a table of words over both columns; its notes stand in the caption."""
    caption = " ".join(f"{text[:1].upper()}{text[1:]}." for text in (words.title, *words.notes))
    first = [max(map(width, head.split())) for head in words.heads]  # a head may stand in two lines
    sizes = [
        max(low, max(map(width, column))) for low, column in zip(first, zip(*words.rows, strict=True), strict=True)
    ]
    wide = sum(size + 2 * GAP for size in sizes) > COLUMN_WIDTH
    name, columns = "table*" if wide else "table", "l" * words.texts + "r" * (len(words.heads) - words.texts)
    return [
        rf"\begin{{{name}}}[tbp]",
        r"\centering",
        r"\small",
        r"\setlength{\tabcolsep}{" + f"{GAP:g}pt" + "}",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\label{{{label}}}",
        r"\smallskip",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        *(
            " & ".join(map(escape_latex, line)) + r" \\"
            for line in zip(*map(_two_lines, words.heads), strict=True)
            if any(line)
        ),
        r"\midrule",
        *(" & ".join(map(escape_latex, row)) + r" \\" for row in words.rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\end{{{name}}}",
    ]


def word_label(table: Table, words: WordTable) -> str:
    """The label of a table of words that belongs to a table of results."""
    return f"{label_of(table)}-{re.sub(r'[^a-z0-9]+', '-', words.title.lower())[:24].strip('-')}"


# ---------------------------------------------------------------- numbers


def _exponent(means: Iterable[float]) -> int:
    """The power of ten of a whole column, by its largest number; 0 where the numbers are read as they are."""
    largest = max((abs(mean) for mean in means), default=0.0)
    if not largest or SMALLEST <= largest < LARGEST:
        return 0
    return int(f"{largest:e}".partition("e")[2])


def _scaled(estimate: Estimate, exponent: int) -> FormattedEstimate:
    if not exponent:
        return format_estimate(estimate)
    parts = (None if x is None else x / 10.0**exponent for x in (estimate.mean, estimate.low, estimate.high))
    mean, low, high = parts
    return format_estimate(replace(estimate, mean=mean or 0.0, low=low, high=high))


def _floor(value: float, exponent: int) -> str:
    return format_value(value / 10.0**exponent, digits=3).plain


def _number_width(number: FormattedEstimate) -> float:
    if number.exponent:  # far below the column's largest: with a power of ten
        return width(number.plain) + 14
    half = SIGN + SMALL_CHARACTER * len(number.half) if number.half else 0.0
    return width(number.mean) + half


def _number(mean: str, half: str, *, bold: bool = False, mark: str = "") -> str:
    """A number in its two columns: the mean, and ± with the half-width in small type."""
    sign, digits = ("$-$", mean[1:]) if mean.startswith("-") else ("", mean)
    text = rf"\textbf{{{sign}{digits}}}" if bold else f"{sign}{digits}"
    return f"{text} & " + (rf"{{\scriptsize$\pm${half}}}" if half else "") + mark


def _cell(cell: TableCell | None, number: FormattedEstimate | None, state: str) -> str:
    if cell is None or number is None:
        return rf"\multicolumn{{2}}{{c}}{{{state or NOTHING}}}"
    mark = r"$^{?}$" if cell.mark == "undecided" else ""
    if number.exponent:
        body = rf"\mathbf{{{number.latex}}}" if cell.mark == "best" else number.latex
        return rf"\multicolumn{{2}}{{c}}{{${body}${mark}}}"
    return _number(number.mean, number.half, bold=cell.mark == "best", mark=mark)


# ---------------------------------------------------------------- words around it


def _caption(table: Table) -> str:
    return escape_latex(caption(table).text())


def label_of(table: Table) -> str:
    """The label of a table, of characters that any package accepts: letters, digits and hyphens."""
    return "tab:" + (re.sub(r"[^a-z0-9]+", "-", table.dataset.lower()).strip("-") or "results")


def _comments(table: Table, hidden: Sequence[Column], protocols: Protocols) -> list[str]:
    legend = notes.legend(table, protocols)
    texts = [notes.title(table)]
    if hidden:
        names = ",".join(dict.fromkeys(column.metric for column in hidden))
        texts.append(f"the main number of each metric; name others and their order by --columns, from {names}")
    texts += [failure.text for failure in notes.failures(table)]
    texts += [f"{entry.protocol} {entry.heads}: {notes.listed(entry.facts)}" for entry in legend.entries]
    texts += [f"all: {notes.listed(legend.common)}"] * bool(legend.common)
    return [f"% {one_line_text(text)}" for text in texts]
