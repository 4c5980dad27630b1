"""The table of a reproduction: published numbers, ours, difference and conclusion, as data and as files. No torch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from genbench.analysis.formatting import format_estimate, format_value
from genbench.reproduction.recipe import ParsedRecipe, Published, RecipeCell
from genbench.stats.equivalence import EquivalenceResult, assess_equivalence, differing
from genbench.stats.intervals import estimate
from genbench.storage.results import Row
from genbench.utils.io import write_text

HEAD = ("whose", "metric", "published", "ours (mean, 95 %)", "seeds", "difference", "margin", "verdict")


@dataclass(frozen=True)
class OptionChange:
    """An option of a cell's component whose value is not the recipe's; `file` as in `genbench.api.Option`."""

    kind: str
    name: str
    option: str
    recipe: object
    ours: object
    file: bool = False

    @property
    def text(self) -> str:
        """The change in words."""
        return f"{self.name}.{self.option}: recipe {self.recipe}, ours {self.ours}"


@dataclass(frozen=True)
class ReproducedNumber:
    """A published number, our values over seeds (empty where nothing was measured), and their comparison, if any.

    `deviations` are known differences from the paper that do not prevent the test: of the recipe's training, and fields
    of the protocol that the recipe tolerates and that differ. `measured_instead` are the metrics of the runs where none
    has this name.
    """

    published: Published
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    result: EquivalenceResult | None
    measured_instead: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """Cell, model, prior and latent dimension, or the case of an experiment."""
        number = self.published
        dim = f"d = {number.latent_dim}" if number.latent_dim else ""
        return number.case or ", ".join(word for word in (number.cell, number.model, number.prior, dim) if word)


def compare(
    recipe: ParsedRecipe,
    measured: Mapping[str, Sequence[Row]],
    protocols: Mapping[str, Mapping[str, Any]],
    budget: float,
    changed: Mapping[str, Sequence[OptionChange]] | None = None,
) -> tuple[ReproducedNumber, ...]:
    """Compare each published number of the cells in `measured`, the tidy rows of each cell's runs.

    `changed` are the options of each cell that are not the recipe's. Those of a model, and a `budget` below 1, make
    another training of that model's numbers; those of a metric make another protocol of its own numbers.
    """
    numbers, cells = [], {cell.name: cell for cell in recipe.cells}
    for published in recipe.published:
        if published.cell not in measured:
            continue

        # Our values, of one protocol: two protocols never share a mean.
        rows = sorted((row for row in measured[published.cell] if _matches(row, published)), key=lambda row: row.seed)
        left_out = [row for row in rows if row.protocol != rows[0].protocol]
        rows = [row for row in rows if row.protocol == rows[0].protocol]
        fields = protocols.get(rows[0].protocol, {}) if rows else {}
        values = [(row.seed, row.value or 0.0) for row in rows]

        # What was changed of the metric and of the training.
        cell = cells[published.cell]
        changes = [change for change in (changed or {}).get(cell.name, ()) if _concerns(change, published, cell)]
        options = [change for change in changes if change.kind == "metric"]
        training = [f"budget: published 1, ours {budget:g}"] if budget < 1 else []
        training += [change.text for change in changes if change.kind != "metric"]

        counts = {row.n for row in rows}
        n = counts.pop() if len(counts) == 1 else None
        number = compare_number(
            published, values, fields, options, training, cell.training, n, rows[0].unit if rows else ""
        )
        metrics = () if rows else tuple(dict.fromkeys(row.metric for row in measured[published.cell] if row.metric))
        if left_out:
            seeds = ", ".join(str(row.seed) for row in left_out)
            text = f"left out: seed {seeds} of {number.subject}, measured by another protocol: measure all runs anew"
            number = replace(number, deviations=(*number.deviations, text))
        numbers.append(replace(number, measured_instead=metrics))
    return tuple(numbers)


def compare_number(
    published: Published,
    values: Sequence[tuple[int, float]],
    fields: Mapping[str, Any],
    options: Sequence[OptionChange] = (),
    training: Sequence[str] = (),
    deviations: Sequence[str] = (),
    n: int | None = None,
    unit: str = "",
) -> ReproducedNumber:
    """Compare one published number: `values` are (seed, value) of `n` images and in a unit, `fields` our protocol.

    `options` are its changed options.

    Where the published protocol states the effect of an option, its fields decide: a file's path is never held against
    a number whose weights are stated.
    """
    differ = differing(published.protocol, fields, tuple(published.tolerated))
    unstated = [change for change in options if not (change.file and "weights" in published.protocol)]
    differ += [
        change.text for change in unstated if not any(field.endswith(f", ours {change.ours}") for field in differ)
    ]
    ours = tuple(value for _, value in values)
    result = None
    if ours and published.value is not None:
        result = assess_equivalence(ours, published.value, published.margin, differ, training, n, unit)
    tolerated = [
        f"{name}: {reason}"
        for name, reason in published.tolerated.items()
        if differing({name: published.protocol[name]}, fields)
    ]
    known = tuple(f"training: {text}" for text in (*deviations, *published.training))
    seeds = tuple(seed for seed, _ in values)
    return ReproducedNumber(published, seeds, ours, result, deviations=(*known, *tolerated) if ours else ())


def _concerns(change: OptionChange, published: Published, cell: RecipeCell) -> bool:
    """Whether a number depends on the component of a changed option."""
    names = {
        "metric": published.metric.split(".")[0],
        "model": published.model or cell.models[0],
        "prior": published.prior or cell.priors[0],
    }
    return change.name == names.get(change.kind, change.name)


def _matches(row: Row, published: Published) -> bool:
    return (
        row.metric == published.metric
        and row.value is not None
        and row.stage == "final"
        and row.role == "model"
        and row.model == (published.model or row.model)
        and row.prior == (published.prior or row.prior)
        and row.latent_dim == (published.latent_dim or row.latent_dim)
    )


# ---------------------------------------------------------------- words and files


def numbered(numbers: Iterable[ReproducedNumber]) -> dict[str, int]:
    """The deviations of all numbers, with the footnote of each."""
    texts = dict.fromkeys(text for number in numbers for text in number.deviations)
    return {text: footnote for footnote, text in enumerate(texts, start=1)}


def reasons(number: ReproducedNumber) -> str:
    """The differences from the published protocol and training; "" where there are none."""
    result = number.result
    return "" if result is None else "; ".join((*result.fields, *(f"training: {text}" for text in result.training)))


def table_cells(number: ReproducedNumber, footnotes: Mapping[str, int], *, brief: bool = False) -> tuple[str, ...]:
    """A number in words, in the columns of `HEAD`; in brief without the reasons."""
    published, result = number.published, number.result
    if published.value is None:
        ours = format_estimate(estimate(number.values)).plain if number.values else "not measured"
        return (number.subject, published.metric, "unknown", ours, str(len(number.seeds)), "", "", "nothing to test")
    start = (number.subject, published.metric, format_value(published.value).plain)
    if result is None:
        return (*start, "not measured", "0", "", f"{published.margin:g}", "")
    marks = ", ".join(str(footnotes[text]) for text in number.deviations)
    words = result.conclusion + (f", with deviations [{marks}]" if marks else "")
    words += f": {reasons(number)}" if reasons(number) and not brief else ""
    words += "" if result.p is None else " (p < 0.001)" if result.p < 0.001 else f" (p = {result.p:.2g})"
    difference = f"{'+' if result.difference > 0 else ''}{format_value(result.difference).plain}"
    ours = format_estimate(result.estimate).plain
    return (*start, ours, str(len(number.seeds)), difference, f"{published.margin:g}", words)


def notes(
    recipe: ParsedRecipe, cells: Iterable[RecipeCell], numbers: Sequence[ReproducedNumber], budget: float
) -> list[str]:
    """The notes below the table."""
    texts = [f"recipe {recipe.name}: {recipe.citation}"]
    if budget < 1:
        texts.append(f"at {budget:.3g} of the recipe's budget: no verdict on the paper can follow")
    texts += [f"lambda in {cell.name}: {cell.weighting}" for cell in cells]
    texts += [f"differs from the paper: {deviation}" for deviation in recipe.deviations]
    for number in numbers:
        if number.measured_instead:
            metrics = ", ".join(number.measured_instead)
            texts.append(
                f"no run of {number.subject} has a number {number.published.metric}; these runs have {metrics}"
            )
    texts += [f"[{footnote}] {text}" for text, footnote in numbered(numbers).items()]
    sources = sorted({f"published: {number.published.source}" for number in numbers})
    texts += [f"source of {source}" for source in sources]
    if any(number.result and number.result.p is not None for number in numbers):
        texts.append("equivalent: two one-sided t-tests at 5 % within the margin; different: beyond it at 5 %")
    return list(dict.fromkeys(texts))


def write(folder: Path, name: str, numbers: Sequence[ReproducedNumber], texts: Sequence[str], command: str) -> None:
    """Write reproduce.md, reproduce.csv and reproduce.json into `folder`; `texts` are the notes."""
    footnotes = numbered(numbers)
    rows = [table_cells(number, footnotes) for number in numbers]
    table = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    table += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    parts = [f"# Reproduction of {name}", f"    {command}", "\n".join(table), "\n".join(f"* {text}" for text in texts)]
    write_text(folder / "reproduce.md", "\n\n".join(parts) + "\n")
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([HEAD, *rows])
    write_text(folder / "reproduce.csv", buffer.getvalue())
    plain = {"recipe": name, "command": command, "numbers": [asdict(n) for n in numbers], "notes": list(texts)}
    write_text(folder / "reproduce.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
