"""An explanation on the console: the verdict, the fields that differ, a line for each metric. No torch."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from genbench.analysis.consequences import Consequence
from genbench.analysis.diff import Explanation, Word, full_name
from genbench.analysis.differences import ABSENT, Difference, Side
from genbench.analysis.findings import Finding

STYLES = {
    "incomparable": "red",
    "with care": "yellow",
    "what is compared": "cyan",
    "replicate": "green",
    "harmless": "dim",
    "same": "green",
    "other": "red",
    "only": "yellow",
    "failed": "red",
    "inapplicable": "dim",
}
"""Styles of consequences and of findings."""

VERDICTS: dict[Word, str] = {"incomparable": "bold red", "comparable": "bold green", "no difference": "bold green"}
SHOWN = 40
"""Characters of a value that are shown: those around where the two values part."""
BEFORE = 16
INDENT = 2
GAP = 2


def show(console: Console, explanation: Explanation) -> None:
    """Print an explanation."""
    verdict = explanation.verdict
    for i, sentence in enumerate(verdict.sentences):
        console.print(_text(sentence, "" if i else VERDICTS.get(verdict.word, "bold yellow")))
    console.print()
    for letter, side in (("A", explanation.a), ("B", explanation.b)):
        console.print(_text(f"{letter}  {side.path}  {_state(side)}"), soft_wrap=True)
    if explanation.differences:
        console.print()
        _show_fields(console, explanation.differences)
    if explanation.findings and verdict.word != "same run":
        console.print()
        allowed = all(difference.consequence != "incomparable" for difference in explanation.differences)
        console.print(_metrics(explanation.findings, allowed=allowed))
    _show_commands(console, explanation.findings)


def _state(side: Side) -> str:
    return f"{side.state}: {side.failure}" if side.failure else side.state


def _show_fields(console: Console, differences: tuple[Difference, ...]) -> None:
    """The fields that differ with both values, below what it means; columns of one width throughout."""
    groups: dict[tuple[Consequence, str], list[Difference]] = {}
    for difference in differences:
        groups.setdefault((difference.consequence, difference.reason), []).append(difference)
    width = min(max(len(difference.field) for difference in differences), console.width * 2 // 5)
    heads = _columns(console, width)
    heads.add_row(*(_text(head, "bold") for head in ("field", "A", "B")))
    console.print(Padding(heads, (0, 0, 0, INDENT)))
    for (consequence, reason), members in groups.items():
        console.print(_text(consequence, STYLES[consequence]) + _text(f": {reason}"))
        table = _columns(console, width)
        for difference in members:
            table.add_row(_text(difference.field), *map(_text, values(difference)))
        console.print(Padding(table, (0, 0, 0, INDENT)))


def _columns(console: Console, width: int) -> Table:
    """A table without rows: a column for the field and two equal ones for the values."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
    each = min(SHOWN + 2, (console.width - INDENT - width) // 2 - GAP)  # two for the signs of what is left out
    for size in (width, each, each):
        table.add_column(overflow="fold", width=size)
    return table


def _metrics(findings: tuple[Finding, ...], *, allowed: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric", overflow="fold")
    table.add_column("finding", overflow="fold")
    for finding in findings:
        word, rest = told(finding, allowed=allowed)
        style = STYLES[finding.status if allowed else "other"]
        table.add_row(_text(_name(finding)), _text(word, style) + _text(rest))
        for field in finding.fields:
            one, other = values(field)
            table.add_row("", _text(f"  {field.field}: {one} in A, {other} in B ({field.reason})"))
    return table


def told(finding: Finding, *, allowed: bool = True) -> tuple[str, str]:
    """What holds for a metric: the word, and the rest; `allowed` says whether the runs' records allow a comparison."""
    where = {"a": "A", "b": "B", "both": "A and in B", "": ""}[finding.where]
    note = f": {finding.note}" if finding.note else ""
    if finding.status == "same" and not allowed:
        return "incomparable", f" though the protocol is the same, {finding.a}{note}"
    if finding.status == "same":
        return ("comparable with care" if note else "comparable"), f", same protocol {finding.a}{note}"
    if finding.status == "other":
        return "incomparable", f", protocol {finding.a} in A, {finding.b} in B{note}"
    if finding.status == "only":
        return f"measured in {where} alone", f", protocol {finding.a or finding.b}{note}"
    return f"{finding.status} in {where}", note


def _name(finding: Finding) -> str:
    """The metric with its parts, the first in full: `fid`, `latent-w2.excess, .excess-sd`."""
    first, *more = finding.parts or ("",)
    return ", ".join([full_name(finding.metric, first), *(f".{part}" for part in more)])


def _show_commands(console: Console, findings: tuple[Finding, ...]) -> None:
    """The commands that measure what is missing, each on one line of its own, to be copied."""
    commands = dict.fromkeys(finding.mend for finding in findings if finding.mend)
    if commands:
        console.print()
        console.print(_text("to measure them alike:"))
    for command in commands:
        console.print(_text(f"  {command}"), soft_wrap=True)


# ---------------------------------------------------------------- values


def values(difference: Difference) -> tuple[str, str]:
    """Both values in words: numbers to six digits where these differ, of long texts what surrounds the parting."""
    a, b = _words(difference.a), _words(difference.b)
    if isinstance(difference.a, float) and isinstance(difference.b, float):
        short = f"{difference.a:.6g}", f"{difference.b:.6g}"
        return short if short[0] != short[1] else (a, b)
    if max(len(a), len(b)) <= SHOWN:
        return a, b
    parted = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, parted - BEFORE)
    return _excerpt(a, start), _excerpt(b, start)


def _excerpt(text: str, start: int) -> str:
    before, after = "…" * (start > 0), "…" * (len(text) > start + SHOWN)
    return f"{before}{text[start : start + SHOWN]}{after}"


def _words(value: Any) -> str:
    if value is ABSENT:
        return "-"
    if isinstance(value, str):
        return value or '""'
    return json.dumps(value, ensure_ascii=False)


def _text(text: str, style: str = "") -> Text:
    """Text that is never taken for markup, its control characters blank."""
    return Text("".join(c if c.isprintable() else " " for c in text), style=style)
