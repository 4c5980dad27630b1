"""Rows, tables and curves as CSV and JSON: plain numbers, no marks, nothing that a spreadsheet would execute."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter

from genbench.analysis.curves import curve_points, curve_sets
from genbench.analysis.table import Column, Table, TableRow
from genbench.storage.results import COLUMNS, Row

FIRST = (
    *("run", "dataset", "model", "prior", "network", "latent_dim", "seed", "images", "metric", "value", "floor"),
    *("unit", "higher_is_better", "n", "protocol", "seconds", "status", "error"),
)
LAST = ("group", "label", "head")
TIDY = (*FIRST, *(name for name in COLUMNS if name not in (*FIRST, *LAST)), *LAST)
"""The columns of the tidy files: the fixed ones, in the order of all versions, then later ones, then the names."""

FORMULA = ("=", "+", "-", "@", "\t", "\n")
"""Characters that a spreadsheet may take for the start of a formula, before or after trimming."""


def tidy_csv(rows: Iterable[Row]) -> str:
    """The rows as CSV: one line per run, metric and protocol; what is absent or not finite is empty."""
    return "".join(tidy_csv_lines(rows))


def tidy_csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """The lines of `tidy_csv`: those of 10,000 runs would take more memory at once than all their rows."""
    yield _csv([TIDY])
    for row in rows:
        yield _csv([[_csv_cell(value) for value in _values(row)]])


def tidy_json(rows: Iterable[Row]) -> str:
    """The rows as a JSON array with an object on each line; what is absent or not finite is null."""
    return "".join(tidy_json_lines(rows))


def tidy_json_lines(rows: Iterable[Row]) -> Iterator[str]:
    """The lines of `tidy_json`."""
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    before = "[\n"
    for row in rows:
        yield before + encode(dict(zip(TIDY, map(_finite, _values(row)), strict=True)))
        before = ",\n"
    yield "\n]\n" if before != "[\n" else "[]\n"


_values: Callable[[Row], tuple[object, ...]] = attrgetter(*TIDY)


def table_csv(tables: Sequence[Table]) -> str:
    """The tables as one CSV: a line per dataset and group with its role, and for each column the mean, the interval and
    its kind, seeds, mark, p, and standard deviations over seeds: all, of the training, of the sampling draw.
    """
    names = {_name(column): None for table in tables for column in table.columns}
    parts = ("mean", "low", "high", "seeds", "mark", "interval", "p", "sd", "sd training", "sd draw")
    head = ["dataset", "model", "group", "role", "seeds", "seeds done", "state"]
    lines = [[*head, *(f"{name} {part}" for name in names for part in parts)]]
    for table in tables:
        for row in table.rows:
            cells = _cells(table, row)
            start = [
                table.dataset,
                row.label,
                row.group,
                row.role,
                len(row.seeds),
                len(row.done),
                row.state or "done",
            ]
            values = (value for name in names for value in cells.get(name, [""] * len(parts)))
            lines.append([_csv_cell(value) for value in (*start, *values)])
    return _csv(lines)


def _cells(table: Table, row: TableRow) -> dict[str, list[object]]:
    """The values of each cell, by the column's name; the draw's part is the standard error where there is one seed."""
    by_column: dict[str, list[object]] = {}
    for column, cell in zip(table.columns, row.cells, strict=True):
        if cell:
            e, parts = cell.estimate, cell.spread
            sds = [parts.total, parts.training, parts.draw] if parts else [None, None, cell.se]
            by_column[_name(column)] = [e.mean, e.low, e.high, e.n, cell.mark, e.kind, cell.p, *sds]
    return by_column


def _name(column: Column) -> str:
    return f"{column.metric} {column.protocol}".rstrip()


def records_csv(records: Sequence[Mapping[str, object]]) -> str:
    """Records of the same fields as CSV."""
    return _csv([list(records[0]), *([_csv_cell(value) for value in record.values()] for record in records)])


CURVE_FIELDS = (
    *("dataset", "metric", "protocol", "split", "group", "label", "images", "seconds", "flops", "seeds"),
    *("mean", "low", "high"),
)


def curves_csv(rows: Sequence[Row]) -> str:
    """Every ranking metric at the snapshots of the runs, on validation images, as CSV; "" where there are none."""
    snapshots = [
        row for row in rows if row.stage == "snapshot" and row.value is not None and row.higher_is_better is not None
    ]
    lines = []
    for metric in dict.fromkeys(row.metric for row in snapshots):
        for curve_set in curve_sets(rows, metric):
            start = (curve_set.dataset, curve_set.metric, curve_set.protocol, curve_set.split)
            for point in curve_points(curve_set) if curve_set.split == "validation" else ():
                cost, e = (point.images, point.seconds, point.flops), point.estimate
                values = (*start, point.group, point.label, *cost, e.n, e.mean, e.low, e.high)
                lines.append([_csv_cell(value) for value in values])
    return _csv([CURVE_FIELDS, *lines]) if lines else ""


def _csv(lines: Iterable[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()


def _csv_cell(value: object) -> str:
    """A CSV cell; text that a spreadsheet would take for a formula gets an apostrophe before it, a mapping is JSON."""
    if isinstance(value, str):
        value = value.replace("\r\n", "\n").replace("\r", "\n")  # readers disagree on a lone carriage return
        return f"'{value}" if value.startswith(FORMULA) and not _is_number(value) else value
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    value = _finite(value)
    return "" if value is None else repr(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
