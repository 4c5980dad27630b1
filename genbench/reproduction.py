"""The table of a reproduction: published, ours, difference, verdict; as text for a terminal and as files. No torch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genbench.files import write_text
from genbench.numerals import numeral, single
from genbench.recipes import Cell, ParsedRecipe, Published
from genbench.rows import Row
from genbench.verdicts import Verdict, differing, verdict


@dataclass(frozen=True)
class Line:
    """A published number, ours over seeds (empty where nothing was measured), and what follows."""

    published: Published
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    verdict: Verdict | None
    there: tuple[str, ...] = ()
    """What was measured instead, where nothing was of this name."""

    @property
    def whose(self) -> str:
        """Cell, model, prior and latent dimension, or the case of an experiment."""
        it = self.published
        dim = f"d = {it.latent_dim}" if it.latent_dim else ""
        return it.case or ", ".join(word for word in (it.cell, it.model, it.prior, dim) if word)


def compare(
    recipe: ParsedRecipe,
    measured: Mapping[str, Sequence[Row]],
    protocols: Mapping[str, Mapping[str, Any]],
    budget: float,
    changed: Sequence[str] = (),
) -> tuple[Line, ...]:
    """A line for each published number of the cells in `measured`, the tidy rows of each cell's runs.

    A `budget` below 1, and the settings `changed` on the command line, are fields of the protocol that differ.
    """
    lines = []
    for number in recipe.published:
        if number.cell not in measured:
            continue
        rows = [row for row in measured[number.cell] if _is_of(row, number)]
        rows.sort(key=lambda row: row.seed)
        how = protocols.get(rows[0].protocol, {}) if rows else {}
        fields = [*_budget(budget), *(f"--set {setting}" for setting in changed)]
        line = judged(number, [(row.seed, row.value or 0.0) for row in rows], how, fields)
        there = () if rows else tuple(dict.fromkeys(row.metric for row in measured[number.cell] if row.metric))
        lines.append(replace(line, there=there))
    return tuple(lines)


def judged(
    number: Published, values: Sequence[tuple[int, float]], how: Mapping[str, Any], fields: Sequence[str]
) -> Line:
    """The line of one published number: `values` are (seed, value), `how` our protocol."""
    numbers = tuple(value for _, value in values)
    differ = [*fields, *differing(number.protocol, how, tuple(number.tolerated))]
    found = verdict(numbers, number.value, number.margin, differ) if numbers else None
    return Line(number, tuple(seed for seed, _ in values), numbers, found)


def _is_of(row: Row, number: Published) -> bool:
    return (
        row.metric == number.metric
        and row.value is not None
        and row.stage == "final"
        and row.role == "model"
        and row.model == (number.model or row.model)
        and row.prior == (number.prior or row.prior)
        and row.latent_dim == (number.latent_dim or row.latent_dim)
    )


def _budget(budget: float) -> list[str]:
    return [f"budget: published 1, ours {budget:g}"] if budget < 1 else []


HEAD = ("whose", "metric", "published", "ours (mean, 95 %)", "seeds", "difference", "margin", "verdict")


def cells_of(line: Line) -> tuple[str, ...]:
    """A line in words, as `HEAD` names them."""
    it, found = line.published, line.verdict
    start = (line.whose, it.metric, single(it.value).plain)
    if found is None:
        return (*start, "not measured", "0", "", f"{it.margin:g}", "")
    told = f"{found.word}: {'; '.join(found.fields)}" if found.fields else found.word
    told += "" if found.p is None else " (p < 0.001)" if found.p < 0.001 else f" (p = {found.p:.2g})"
    difference = f"{'+' if found.difference > 0 else ''}{single(found.difference).plain}"
    return (*start, numeral(found.estimate).plain, str(len(line.seeds)), difference, f"{it.margin:g}", told)


def notes(recipe: ParsedRecipe, cells: Iterable[Cell], lines: Sequence[Line], budget: float) -> list[str]:
    """What a reader must know of the table."""
    found = [f"recipe {recipe.name}: {recipe.citation}"]
    if budget < 1:
        found.append(f"at {budget:.3g} of the recipe's budget: no verdict on the paper can follow")
    found += [f"lambda in {cell.name}: {cell.weighting}" for cell in cells]
    found += [f"differs from the paper: {deviation}" for deviation in recipe.deviations]
    for line in lines:
        if line.there:
            there = ", ".join(line.there)
            found.append(f"no run of {line.whose} has a number {line.published.metric}; these runs have {there}")
        for name, reason in line.published.tolerated.items():
            found.append(f"not held against {line.whose}, {line.published.metric}: {name} ({reason})")
    found += [f"source of {source}" for source in sorted({f"published: {line.published.source}" for line in lines})]
    if any(line.verdict and line.verdict.p is not None for line in lines):
        found.append("equivalent: two one-sided t-tests at 5 % within the margin; different: beyond it at 5 %")
    return list(dict.fromkeys(found))


def show(console: Console, lines: Sequence[Line], told: Sequence[str]) -> None:
    """Print the table and its notes."""
    if lines:
        table = Table(*HEAD, box=None, pad_edge=False, header_style="bold")
        for line in lines:
            table.add_row(*(escape(cell) for cell in cells_of(line)))
        console.print(table)
    for note in told:
        console.print(f" {note}", markup=False, highlight=False, soft_wrap=True)


def write(folder: Path, name: str, lines: Sequence[Line], told: Sequence[str], command: str) -> None:
    """Write reproduce.md, reproduce.csv and reproduce.json into `folder`."""
    rows = [cells_of(line) for line in lines]
    marks = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    marks += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    text = [f"# Reproduction of {name}", f"    {command}", "\n".join(marks), "\n".join(f"* {note}" for note in told)]
    write_text(folder / "reproduce.md", "\n\n".join(text) + "\n")
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([HEAD, *rows])
    write_text(folder / "reproduce.csv", out.getvalue())
    plain = {"recipe": name, "command": command, "lines": [asdict(line) for line in lines], "notes": list(told)}
    write_text(folder / "reproduce.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
