"""The HTML report: the data of its template. Everything is text to the template, which escapes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from genbench import __version__
from genbench.analysis import notes
from genbench.analysis.formatting import format_estimate
from genbench.analysis.headline import setup_lines
from genbench.analysis.notes import FailureNote, ProtocolLegend, Protocols
from genbench.analysis.table import Column, Table, TableRow
from genbench.storage.results import Row

RUNS_SHOWN = 500
"""Runs listed one by one in the plan; rows.csv holds all."""

SECTIONS = {"headline": "", "detail": "More parts", "fact": "Not ranked"}
ABSENT = ""


@dataclass(frozen=True)
class Picture:
    """A picture of a run: its caption, its data: URI ("" where it is left out) and its file beside the report.

    `inches` is a figure's width on paper, 0 of a picture.
    """

    caption: str
    uri: str
    file: str
    inches: float = 0.0


@dataclass(frozen=True)
class Page:
    """All that the report is made from; `pictures` and `records` (parsed run.json) are by run.

    `problems` has a line for each figure that could not be drawn.
    """

    name: str
    tables: Sequence[Table]
    protocols: Protocols
    pictures: Mapping[str, Sequence[Picture]]
    records: Mapping[str, Mapping[str, object]]
    rows: Sequence[Row]
    command: str
    figures: Sequence[Picture] = ()
    problems: Sequence[str] = ()


@dataclass(frozen=True)
class CellView:
    """A cell: its text and half-width, its mark, the key that sorts it ("" is last), lines below, a hint on
    hovering, and a drawn interval.
    """

    text: str
    half: str = ""
    mark: str = ""
    key: str = ""
    below: Sequence[str] = ()
    hint: str = ""
    interval: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class RowView:
    """A row of a table; `pictures` are in its last cells, `title` above the first row of copies and of controls."""

    label: str
    progress: str
    state: str
    cells: Sequence[CellView]
    pictures: Sequence[Picture | None]
    title: str = ""


@dataclass(frozen=True)
class GridView:
    """One section of a dataset's table; `captions` are the heads of the pictures' columns."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[RowView]
    captions: Sequence[str]


@dataclass(frozen=True)
class TableView:
    """A dataset's results: its grids, and the texts below them."""

    title: str
    grids: Sequence[GridView]
    notes: Sequence[str]
    failures: Sequence[FailureNote]
    legend: ProtocolLegend


@dataclass(frozen=True)
class RunList:
    """The runs: facts that all share, and a table of those that differ."""

    common: Sequence[tuple[str, str]]
    heads: Sequence[str]
    runs: Sequence[Sequence[str]]
    hidden: int


def render(page: Page) -> str:
    """The report as one HTML file that requests nothing."""
    environment = Environment(
        loader=PackageLoader("genbench.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["below"] = _below_head
    environment.filters["head"] = _head
    return environment.get_template("report.html").render(
        name=page.name,
        tables=[_table(page, table) for table in page.tables],
        run_list=_run_list(page),
        command=page.command,
        figures=page.figures,
        problems=page.problems,
        left_out=sum(not picture.uri for group in (page.figures, *page.pictures.values()) for picture in group),
        version=__version__,
    )


def _head(column: Column) -> str:
    """The head with its arrow, which is not broken off."""
    name, space, arrow = notes.head(column).rpartition(" ")
    return f"{name}\N{NO-BREAK SPACE}{arrow}" if arrow in notes.ARROWS.values() else f"{name}{space}{arrow}"


def _below_head(column: Column) -> list[str]:
    """The counts, the MDE and the value of a perfect model."""
    perfect = notes.perfect(column)
    return [*notes.below_head(column), *([f"floor {perfect}"] if perfect else [])]


def _table(page: Page, table: Table) -> TableView:
    captions = list(dict.fromkeys(p.caption for row in table.rows for p in page.pictures.get(row.first_run, ())))
    grids, span = [], _range(table)
    for section, title in SECTIONS.items():
        chosen = [i for i, column in enumerate(table.columns) if column.section == section]
        main = section == "headline"
        if chosen or main:
            shown = captions if main else []
            rows = [
                _row(page, row, chosen, shown, span, above if k == 0 else "")
                for above, members in notes.blocks(table.rows)
                for k, row in enumerate(members)
            ]
            grids.append(GridView(title, [table.columns[i] for i in chosen], rows, shown))
    return TableView(
        title=notes.title(table),
        grids=grids,
        notes=[" · ".join(setup_lines(table)), *notes.all_notes(table, best="bold:")],
        failures=notes.failures(table),
        legend=notes.legend(table, page.protocols),
    )


def _row(
    page: Page,
    row: TableRow,
    columns: Sequence[int],
    captions: Iterable[str],
    span: tuple[float, float],
    title: str,
) -> RowView:
    pictures = {picture.caption: picture for picture in page.pictures.get(row.first_run, ())}
    return RowView(
        label=row.label,
        progress=notes.progress(len(row.seeds), len(row.done)),
        state=row.state,
        cells=[_cell(row, i, span) for i in columns],
        pictures=[pictures.get(caption) for caption in captions],
        title=title,
    )


def _cell(row: TableRow, i: int, span: tuple[float, float]) -> CellView:
    cell = row.cells[i]
    if cell is None:
        return CellView(ABSENT)
    estimate = cell.estimate
    hint = f"mean of {estimate.n} seed{'' if estimate.n == 1 else 's'}"
    if estimate.low is not None and estimate.high is not None:
        hint += f", 95 % interval {estimate.low:.4g} to {estimate.high:.4g}"
    if cell.behind is not None:
        hint += f"; minus the best, over {cell.behind.n} shared: {format_estimate(cell.behind).plain}"
    digits = format_estimate(estimate)
    text, half = (digits.plain, "") if digits.exponent else (digits.mean, digits.half)
    return CellView(
        text=text + (" ?" if cell.mark == "undecided" else ""),
        half=half,
        mark=cell.mark,
        key=repr(estimate.mean),
        below=notes.below_cell(cell),
        hint=hint,
        interval=_interval(row, *span) if i == 0 else None,
    )


def _range(table: Table) -> tuple[float, float]:
    """The range of the models' intervals in the ranking column; equal bounds where nothing is drawn."""
    spans = [_span(row) for row in table.rows if row.role == "model" and row.cells and row.cells[0]]
    if len(spans) < 2:
        return 0.0, 0.0
    return min(low for low, _, _ in spans), max(high for _, _, high in spans)


def _interval(row: TableRow, left: float, right: float) -> tuple[float, float, float] | None:
    """Low, mean and high of the ranking column as percentages of the range; a control would dwarf the others."""
    if not left < right or row.role != "model":
        return None
    low, mean, high = (round(100 * (x - left) / (right - left), 1) for x in _span(row))
    return low, mean, high


def _span(row: TableRow) -> tuple[float, float, float]:
    cell = row.cells[0]
    if cell is None:
        return math.nan, math.nan, math.nan
    e = cell.estimate
    return (e.mean if e.low is None else e.low), e.mean, (e.mean if e.high is None else e.high)


# ---------------------------------------------------------------- the runs and their provenance


def _run_list(page: Page) -> RunList:
    """Every run with the fields of its record; fields that all share are listed once."""
    first = {row.run: row for row in reversed(page.rows)}
    runs = dict.fromkeys(row.run for row in page.rows)
    records = {run: dict(_flat("", page.records.get(run, {}))) for run in runs}
    known = [record for record in records.values() if record]
    keys = list(dict.fromkeys(key for record in known for key in record))
    same = [key for key in keys if all(record.get(key) == known[0].get(key) for record in known)]
    heads = [key for key in keys if key not in set(same)]
    shown = list(runs)[:RUNS_SHOWN]
    lines = [[run, first[run].label, first[run].status, *(records[run].get(key, "") for key in heads)] for run in shown]
    common = [*_origin(page), *((key, known[0][key]) for key in same)]
    return RunList(common, ["run", "group", "status", *heads], lines, len(runs) - len(shown))


def _origin(page: Page) -> list[tuple[str, str]]:
    """The command that made the report, and the content hash of each dataset, from the protocols."""
    facts = [("report made by", page.command)] if page.command else []
    data: dict[str, dict[str, None]] = {}
    for row in page.rows:
        how = page.protocols.get(row.protocol, {})
        if how.get("dataset"):
            prepared = f", prepared: {how['preparation']}" if how.get("preparation") not in (None, "", "none") else ""
            data.setdefault(row.dataset, {})[f"SHA-256 {how['dataset']}\N{HORIZONTAL ELLIPSIS}{prepared}"] = None
    return facts + [(f"data of {dataset}", "; ".join(texts)) for dataset, texts in data.items()]


def _flat(name: str, value: object) -> Iterable[tuple[str, str]]:
    """Nested data as dotted names and texts; what is empty is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value))
    elif value is not None and value != "":
        yield name, str(value)
