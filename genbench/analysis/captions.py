"""The caption of a table in print: what was trained, what ± and bold mean. Plain text; the caller escapes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from genbench.analysis import notes
from genbench.analysis.headline import counted_models, join_words, options_words, tuning_lines
from genbench.analysis.table import Table, TableRow

LISTED = 4
"""Values of a field that a caption lists; of more it gives the number."""


@dataclass(frozen=True)
class Caption:
    """A caption's sentences: what was trained, how to read the table, and what is missing."""

    trained: str
    reading: tuple[str, ...]
    missing: tuple[str, ...] = ()

    def text(self, pm: str = "±", bold: str = "Bold") -> str:
        """The whole caption; `pm` and `bold` are how the format shows them."""
        reading = [sentence.replace("{pm}", pm).replace("{bold}", bold) for sentence in self.reading]
        return " ".join([self.trained, *reading, *self.missing])


def caption(table: Table) -> Caption:
    """The caption of a table."""
    return Caption(trained(table), tuple(_reading(table)), tuple(_missing(table)))


def trained(table: Table) -> str:
    """What was trained: images, networks, latent sizes, priors, seeds, and the options that are off their defaults."""
    models = [row for row in table.rows if row.role != "control"] or list(table.rows)
    elsewhere = len([row for row in models if row.elsewhere])
    beside = f" {elsewhere} model{'' if elsewhere == 1 else 's'} trained elsewhere." if elsewhere else ""
    models = [row for row in models if not row.elsewhere]
    if not models:
        return beside.strip() or "Nothing was trained."
    budgets = _alternatives(f"{row.images:,}" for row in models if row.stage == "final")
    batches = _alternatives(f"{row.batch:,}" for row in models if row.batch)
    precisions = _alternatives(row.precision for row in models)
    parts = [
        f"{budgets} training images each" + (f" in batches of {batches}" if batches else "") if budgets else "",
        f"network {_alternatives(row.network for row in models)}",
        f"latent size {_alternatives(str(row.latent_dim) for row in models)}",
        f"prior {_alternatives(row.prior for row in models)}",
        precisions if precisions != "float32" else "",
        _counted_seeds(models),
    ]
    sentence = (
        f"{counted_models(models)} trained on {table.dataset}: {', '.join(part for part in parts if part)}.{beside}"
    )
    options = options_words(models)
    sentences = [*([options] if options else []), *tuning_lines(table)]
    return " ".join([sentence, *(f"{text[:1].upper()}{text[1:]}." for text in sentences)])


def _alternatives(values: Iterable[str]) -> str:
    """Distinct values in words; many are counted: `conv or mlp`, `7 values`."""
    distinct = list(dict.fromkeys(values))
    return join_words(distinct, "or") if len(distinct) <= LISTED else f"{len(distinct)} values"


def _counted_seeds(models: Sequence[TableRow]) -> str:
    counts = sorted({len(row.done) for row in models if row.done})
    if not counts:
        return "no training seed done"
    text = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{text} training seed{'' if counts == [1] else 's'}"


def _reading(table: Table) -> Iterable[str]:
    """Sentences on ±, bold, the perfect model's row and counts; `{pm}` and `{bold}` stand for the format's own."""
    cells = [cell for row in table.rows for cell in row.cells if cell]
    kinds = [name for kind, name in notes.INTERVALS.items() if kind in {cell.estimate.kind for cell in cells}]
    if any(cell.estimate.half_width is not None for cell in cells):
        yield (f"Mean over the seeds {{pm}} half the width of its 95% {' or '.join(kinds)}.")
    elif cells and all(cell.estimate.n == 1 for cell in cells):
        yield "One training seed: the differences may be noise."
    marks = {cell.mark for cell in cells}
    if "best" in marks:
        yield (
            "{bold}: not distinguishable from the best of the column (paired one-sided tests over shared seeds,"
            " Holm's correction, family-wise error 5%)."
        )
        if limits := notes.of_options(table):
            yield f"Models that were tuned alike: {limits}."
    elif sum(row.role == "model" for row in table.rows) > 1:
        yield "The seeds are too few to tell which models may be the best."
    if "undecided" in marks and "best" in marks:
        yield "?: not tested."
    heads: dict[int, list[str]] = {}
    for column in table.columns:
        if column.counts:
            heads.setdefault(max(column.counts), []).append(column.head)
    if len(heads) == 1:
        yield f"Measured on {next(iter(heads)):,} images or codes of each run."
    elif heads:
        listed = "; ".join(f"{n:,} for {' and '.join(dict.fromkeys(names))}" for n, names in heads.items())
        yield f"Images or codes of each run: {listed}."
    yield from (f"{text[0].upper()}{text[1:]}." for text in notes.fits(table))
    yield from (f"{text.removeprefix(notes.CAUTION).strip()}." for text in notes.cautions(table))
    if any(column.floor is not None for column in table.columns):
        yield "Perfect: what a perfect model would score with as many."


def _missing(table: Table) -> Iterable[str]:
    for row in table.rows:
        if row.role == "model" and len(row.done) < len(row.seeds):
            yield f"{row.label}: {len(row.done)} of {len(row.seeds)} seeds done."
