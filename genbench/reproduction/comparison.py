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
from rich.table import Column, Table

from genbench.analysis.formatting import format_estimate, format_value
from genbench.reproduction.recipe import Cell, ParsedRecipe, Published
from genbench.stats.equivalence import Verdict, differing, verdict
from genbench.storage.results import Row
from genbench.utils.io import write_text


@dataclass(frozen=True)
class Change:
    """An option of something that a cell names whose value is not the recipe's; `file` as in `genbench.api.Option`."""

    kind: str
    name: str
    option: str
    recipe: object
    ours: object
    file: bool = False

    @property
    def text(self) -> str:
        """As it stands in a verdict."""
        return f"{self.name}.{self.option}: recipe {self.recipe}, ours {self.ours}"


@dataclass(frozen=True)
class Line:
    """A published number, ours over seeds (empty where nothing was measured), and what follows.

    `deviations` are known differences from the paper that no test is refused for: of the recipe's training, and fields
    of the protocol that the recipe tolerates and that differ.
    """

    published: Published
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    verdict: Verdict | None
    there: tuple[str, ...] = ()
    """What was measured instead, where nothing was of this name."""
    deviations: tuple[str, ...] = ()

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
    changed: Mapping[str, Sequence[Change]] | None = None,
) -> tuple[Line, ...]:
    """A line for each published number of the cells in `measured`, the tidy rows of each cell's runs.

    `changed` are the options of each cell that are not the recipe's. Those of a model, and a `budget` below 1, make
    another training of that model's numbers; those of a metric make another protocol of its own numbers.
    """
    lines, cells = [], {cell.name: cell for cell in recipe.cells}
    for number in recipe.published:
        if number.cell not in measured:
            continue
        rows = [row for row in measured[number.cell] if _is_of(row, number)]
        rows.sort(key=lambda row: row.seed)
        other = [row for row in rows if row.protocol != rows[0].protocol]  # never two protocols in one mean
        rows = [row for row in rows if row.protocol == rows[0].protocol]
        how = protocols.get(rows[0].protocol, {}) if rows else {}
        cell = cells[number.cell]
        its = [change for change in (changed or {}).get(cell.name, ()) if _concerns(change, number, cell)]
        options = [change for change in its if change.kind == "metric"]
        training = [*_budget(budget), *(change.text for change in its if change.kind != "metric")]
        values = [(row.seed, row.value or 0.0) for row in rows]
        line = judged(number, values, how, options, training, cell.training)
        there = () if rows else tuple(dict.fromkeys(row.metric for row in measured[number.cell] if row.metric))
        if other:
            seeds = ", ".join(str(row.seed) for row in other)
            told = f"left out: seed {seeds} of {line.whose}, measured by another protocol: measure all runs anew"
            line = replace(line, deviations=(*line.deviations, told))
        lines.append(replace(line, there=there))
    return tuple(lines)


def judged(
    number: Published,
    values: Sequence[tuple[int, float]],
    how: Mapping[str, Any],
    options: Sequence[Change] = (),
    training: Sequence[str] = (),
    deviations: Sequence[str] = (),
) -> Line:
    """The line of one published number: `values` are (seed, value), `how` our protocol, `options` what changed of it.

    Where the published protocol states what an option changes, its fields tell: a file's place is never held against a
    number whose weights are stated.
    """
    numbers = tuple(value for _, value in values)
    differ = differing(number.protocol, how, tuple(number.tolerated))
    unstated = [change for change in options if not (change.file and "weights" in number.protocol)]
    differ += [change.text for change in unstated if not any(it.endswith(f", ours {change.ours}") for it in differ)]
    found = verdict(numbers, number.value, number.margin, differ, training) if numbers else None
    let_pass = [
        f"{name}: {reason}"
        for name, reason in number.tolerated.items()
        if differing({name: number.protocol[name]}, how)
    ]
    told = tuple(f"training: {text}" for text in (*deviations, *number.training))
    seeds = tuple(seed for seed, _ in values)
    return Line(number, seeds, numbers, found, deviations=(*told, *let_pass) if numbers else ())


def _concerns(change: Change, number: Published, cell: Cell) -> bool:
    """Whether a changed option is of something that a number depends on."""
    of = {
        "metric": number.metric.split(".")[0],
        "model": number.model or cell.models[0],
        "prior": number.prior or cell.priors[0],
    }
    return change.name == of.get(change.kind, change.name)


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


def numbered(lines: Iterable[Line]) -> dict[str, int]:
    """The deviations of all lines with the numbers that verdicts point at them by."""
    texts = dict.fromkeys(text for line in lines for text in line.deviations)
    return {text: number for number, text in enumerate(texts, start=1)}


HEAD = ("whose", "metric", "published", "ours (mean, 95 %)", "seeds", "difference", "margin", "verdict")


def reasons(line: Line) -> str:
    """What differs from the published number's protocol and training; "" where nothing does."""
    found = line.verdict
    return "" if found is None else "; ".join((*found.fields, *(f"training: {text}" for text in found.training)))


def cells_of(line: Line, numbers: Mapping[str, int], *, brief: bool = False) -> tuple[str, ...]:
    """A line in words, as `HEAD` names them; `numbers` are those of `numbered`. A brief one leaves the reasons out."""
    it, found = line.published, line.verdict
    start = (line.whose, it.metric, format_value(it.value).plain)
    if found is None:
        return (*start, "not measured", "0", "", f"{it.margin:g}", "")
    marks = ", ".join(str(numbers[text]) for text in line.deviations)
    told = found.word + (f", with deviations [{marks}]" if marks else "")
    told += f": {reasons(line)}" if reasons(line) and not brief else ""
    told += "" if found.p is None else " (p < 0.001)" if found.p < 0.001 else f" (p = {found.p:.2g})"
    difference = f"{'+' if found.difference > 0 else ''}{format_value(found.difference).plain}"
    return (*start, format_estimate(found.estimate).plain, str(len(line.seeds)), difference, f"{it.margin:g}", told)


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
    found += [f"[{number}] {text}" for text, number in numbered(lines).items()]
    found += [f"source of {source}" for source in sorted({f"published: {line.published.source}" for line in lines})]
    if any(line.verdict and line.verdict.p is not None for line in lines):
        found.append("equivalent: two one-sided t-tests at 5 % within the margin; different: beyond it at 5 %")
    return list(dict.fromkeys(found))


def show(console: Console, lines: Sequence[Line], told: Sequence[str]) -> None:
    """Print the table, once for all lines what differs from what was published, and the notes."""
    if lines:
        heads = [Column(head, overflow="fold") for head in HEAD]
        table = Table(*heads, box=None, pad_edge=False, header_style="bold")
        numbers, whose = numbered(lines), dict[str, list[str]]()
        for line in lines:
            table.add_row(*(escape(cell) for cell in cells_of(line, numbers, brief=True)))
            if why := reasons(line):
                whose.setdefault(f"{line.verdict.word if line.verdict else ''}: {why}", []).append(line.whose)
        console.print(table)
        for why, its in whose.items():
            of = "" if len(whose) == 1 else f" ({'; '.join(its)})"
            console.print(f" {why}{of}", markup=False, highlight=False, soft_wrap=True)
    for note in told:
        console.print(f" {note}", markup=False, highlight=False, soft_wrap=True)


def write(folder: Path, name: str, lines: Sequence[Line], told: Sequence[str], command: str) -> None:
    """Write reproduce.md, reproduce.csv and reproduce.json into `folder`."""
    numbers = numbered(lines)
    rows = [cells_of(line, numbers) for line in lines]
    marks = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    marks += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    text = [f"# Reproduction of {name}", f"    {command}", "\n".join(marks), "\n".join(f"* {note}" for note in told)]
    write_text(folder / "reproduce.md", "\n\n".join(text) + "\n")
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([HEAD, *rows])
    write_text(folder / "reproduce.csv", out.getvalue())
    plain = {"recipe": name, "command": command, "lines": [asdict(line) for line in lines], "notes": list(told)}
    write_text(folder / "reproduce.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
