"""Columns of a table by their names: a label, a metric's name, or the metric's first part. Data only, no text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from genbench.analysis.table import Column, Table, assemble
from genbench.errors import unknown
from genbench.storage.results import Row

SPEED = "speed"
"""The role of metrics that say as much of the machine as of the model."""


def choose_tables(rows: Sequence[Row], sort: str | None = None, columns: Sequence[str] = ()) -> tuple[Table, ...]:
    """The tables of `assemble` with some columns alone, in their order; all of them where none is named.

    A name is a metric ("latent-w2.excess"), a column's label ("FID (grey28)"), or a metric's first part ("latent-w2"),
    which means its main number. Without `sort` the first of the columns that has a better direction ranks.
    Raises `UsageError` for a name that no table has.
    """
    tables = assemble(rows, sort)
    if not columns:
        return tables
    possible = [column for table in tables for column in table.columns]
    matches = [match for name in columns for match in _named(possible, name)]
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


def _named(possible: Sequence[Column], name: str) -> list[Column]:
    """The columns that a name means: several where a metric was measured under several protocols."""
    wanted = name.strip().casefold()
    for matches in (
        [column for column in possible if column.metric.casefold() == wanted],
        [column for column in possible if column.head.casefold() == wanted],
        [column for column in _main(possible) if column.metric.casefold().split(".")[0] == wanted],
    ):
        if matches:
            return matches
    raise unknown("column", name, dict.fromkeys(column.metric for column in possible))


def _main(possible: Sequence[Column]) -> list[Column]:
    """The columns of the main number of each metric: its headline, else its first part."""
    main: dict[str, Column] = {}
    for column in sorted(possible, key=lambda column: column.section != "headline"):
        main.setdefault(column.metric.split(".")[0], column)
    metrics = {column.metric for column in main.values()}
    return [column for column in possible if column.metric in metrics]


def _restricted(table: Table, chosen: Iterable[Column]) -> Table:
    """A table with the chosen columns that it has, each once."""
    keys = dict.fromkeys((column.metric, column.protocol) for column in chosen)
    places = {(column.metric, column.protocol): i for i, column in enumerate(table.columns)}
    kept = [places[key] for key in keys if key in places]
    return replace(
        table,
        columns=tuple(replace(table.columns[i], section="headline") for i in kept),
        rows=tuple(replace(row, cells=tuple(row.cells[i] for i in kept)) for row in table.rows),
    )
