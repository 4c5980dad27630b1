"""Columns of a table chosen and ordered by their names. Data only, no text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from genbench.analysis.table import Column, Table, assemble, resolve_metric
from genbench.storage.results import Row

SPEED = "speed"
"""The role of metrics that say as much of the machine as of the model."""


def choose_tables(rows: Sequence[Row], sort: str | None = None, columns: Sequence[str] = ()) -> tuple[Table, ...]:
    """The tables of `assemble` with some columns alone, in their order; all of them where none is named.

    A name is a column's label ("FID (grey28)") or any that `resolve_metric` knows ("latent-w2", "latent-w2.excess").
    Without `sort` the first of the columns that has a better direction ranks.
    Raises `UsageError` for a name that no table has.
    """
    tables = assemble(rows, sort)
    if not columns:
        return tables
    possible = [column for table in tables for column in table.columns]
    matches = [match for name in columns for match in _named(rows, possible, name)]
    if sort is None:
        ranking = next((column.metric for column in matches if column.higher_is_better is not None), None)
        tables = assemble(rows, ranking)
    return tuple(_restricted(table, matches) for table in tables)


def of_columns(rows: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """The rows of these columns, and those that name a run alone; all rows where none is named."""
    if not columns:
        return list(rows)
    tables = choose_tables(rows, columns=columns)
    metrics = {column.metric for table in tables for column in table.columns}
    return [row for row in rows if not row.metric or row.metric in metrics]


def headlines(table: Table) -> Table:
    """The main number of each metric, speed left out: the columns of a table in print where none are named."""
    chosen = [column for column in table.columns if column.section == "headline" and column.role != SPEED]
    return _restricted(table, chosen or table.columns)


def _named(rows: Iterable[Row], possible: Sequence[Column], name: str) -> list[Column]:
    """The columns that a name means: several where a metric was measured under several protocols."""
    wanted, metrics = name.strip().casefold(), {column.metric for column in possible}
    if wanted not in {metric.casefold() for metric in metrics}:
        labelled = [column for column in possible if column.head.casefold() == wanted]
        if labelled:  # also where the label names the prior of its column
            return labelled
    metric = resolve_metric((row for row in rows if row.metric in metrics), name, "column")
    return [column for column in possible if column.metric == metric]


def split_protocols(table: Table) -> tuple[Table, ...]:
    """The table with one protocol of each metric, the one of most groups; the others in further tables, likewise.

    A further table has the rows that were measured so.
    """
    protocols: dict[str, list[str]] = {}
    parts: dict[int, list[int]] = {}
    for i, column in enumerate(table.columns):
        known = protocols.setdefault(column.metric, [])
        if column.protocol not in known:
            known.append(column.protocol)
        parts.setdefault(known.index(column.protocol), []).append(i)
    first, *others = (_of(table, kept) for _, kept in sorted(parts.items())) if parts else [table]
    return first, *(replace(part, rows=tuple(row for row in part.rows if any(row.cells))) for part in others)


def _restricted(table: Table, chosen: Iterable[Column]) -> Table:
    """A table with the chosen columns that it has, each once, as headlines."""
    keys = dict.fromkeys((column.metric, column.protocol) for column in chosen)
    places = {(column.metric, column.protocol): i for i, column in enumerate(table.columns)}
    kept = _of(table, [places[key] for key in keys if key in places])
    return replace(kept, columns=tuple(replace(column, section="headline") for column in kept.columns))


def _of(table: Table, places: Sequence[int]) -> Table:
    """A table with the columns of these places."""
    return replace(
        table,
        columns=tuple(table.columns[i] for i in places),
        rows=tuple(replace(row, cells=tuple(row.cells[i] for i in places)) for row in table.rows),
    )
