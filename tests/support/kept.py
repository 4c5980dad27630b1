"""The rows of the studies in reports/, also of those that an earlier version wrote under other column names."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from genbench.analysis.compare import compare
from genbench.analysis.curves import curve_points, curve_sets
from genbench.analysis.formatting import format_estimate, p_value
from genbench.analysis.gather import ColumnValues, GatheredRows, gather
from genbench.api import Finding
from genbench.stats.comparison import holm_of_tests
from genbench.stats.intervals import Estimate
from genbench.storage.results import Row

REPORTS = Path(__file__).resolve().parents[2] / "reports"

RENAMED = {"p": "p_value", "detectable": "minimum_detectable_effect"}
"""Columns of version 0.1 by the names that they have since."""

BETTER = {"lower": False, "higher": True, "neither": None}
"""Values of version 0.1's column `better`, which is `higher_is_better` today."""

TYPES = get_type_hints(Row)


def kept_rows(file: str) -> list[Row]:
    """The rows of a CSV file in reports/, such as "swae-priors/rows.csv"."""
    with (REPORTS / file).open(encoding="utf-8", newline="") as stream:
        return list(_rows(csv.DictReader(stream)))


ROLES = {
    "fid": "sample quality",
    "ring-coverage": "latent fit",
    "latent-w2.excess": "latent fit",
    "reconstruction.pixel": "reconstruction",
}
"""The metrics of the tables on the first pages, by their roles, which version 0.1 did not keep."""


def headline_rows(study: str) -> list[Row]:
    """The final rows of a study's models in three metrics, without the plain autoencoder."""
    rows = (row for row in kept_rows(f"{study}/rows.csv") if (row.role, row.stage) == ("model", "final"))
    return [replace(row, metric_role=ROLES[row.metric]) for row in rows if row.metric in ROLES and row.model != "ae"]


def findings(file: str) -> list[Finding]:
    """The findings of an experiment in a CSV file in reports/."""
    with (REPORTS / file).open(encoding="utf-8", newline="") as stream:
        return [
            Finding(
                line["case"], line["metric"], float(line["value"]), int(line["n"]), line["unit"], int(line["seed"]), {}
            )
            for line in csv.DictReader(stream)
        ]


def _rows(lines: csv.DictReader[str]) -> Iterator[Row]:
    known = {field.name for field in fields(Row)}
    for line in lines:
        named = {RENAMED.get(name, name): text for name, text in line.items()}
        values: dict[str, Any] = {name: _value(name, text) for name, text in named.items() if name in known and text}
        if "better" in line:
            values["higher_is_better"] = BETTER[line["better"]]
        yield Row(**values)


def _value(name: str, text: str) -> object:
    """The text of a cell in the type of its column."""
    kind = str(TYPES[name])
    if "bool" in kind:
        return text == "True"
    if "Mapping" in kind:
        return {}
    return float(text) if "float" in kind else int(text) if "int" in kind else text


# ---------------------------------------------------------------- the tables of the pages


def means(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """Mean and interval of each group in the metrics of `columns`, which are named by their heads, as Markdown."""
    (gathered,) = gather(rows).values()
    lines = [
        [group.label, *(format_estimate(_column(gathered, metric).estimate(key)).plain for metric in columns.values())]
        for key, group in gathered.groups.items()
    ]
    return table(["", *columns], lines)


def differences(rows: Sequence[Row], a: str, b: str, columns: Mapping[str, str]) -> str:
    """The paired differences of two groups with Holm's p-values over the rows of the table, as Markdown."""
    compared = [compare(rows, a, b, metric)[2][0] for metric in columns.values()]
    tests = holm_of_tests([comparison.p for comparison in compared])
    return table(
        [f"{a} minus {b}", "difference", "p (Holm)"],
        [
            [head, format_estimate(comparison.difference).plain, "" if p is None else p_text(p)]
            for head, comparison, p in zip(columns, compared, tests, strict=True)
        ],
    )


def mean(rows: Sequence[Row], label: str, metric: str) -> str:
    """Mean and interval of a group over its seeds."""
    (gathered,) = gather(rows).values()
    (group,) = (key for key, group in gathered.groups.items() if group.label == label)
    return format_estimate(_column(gathered, metric).estimate(group)).plain


def difference(rows: Sequence[Row], a: str, b: str, metric: str) -> str:
    """The paired difference of two groups."""
    return format_estimate(compare(rows, a, b, metric)[2][0].difference).plain


def along_training(rows: Sequence[Row], metric: str) -> str:
    """Mean and interval of a metric at each snapshot, a column for each group, as Markdown."""
    (curves,) = (curve_set for curve_set in curve_sets(rows, metric) if curve_set.split == "validation")
    groups = {point.group: point.label for point in curve_points(curves)}
    by_images: dict[int, dict[str, str]] = {}
    for point in curve_points(curves):
        by_images.setdefault(point.images, {})[point.group] = format_estimate(point.estimate).plain
    lines = [[f"{images:,}", *(values[group] for group in groups)] for images, values in sorted(by_images.items())]
    return table(["images", *groups.values()], lines)


def p_text(p: float) -> str:
    """A p-value below a head that says p."""
    return p_value(p).removeprefix("p ").removeprefix("= ")


def single(rows: Sequence[Row], metric: str) -> dict[str, Row]:
    """The row of each run in a metric, by its prior, in a study of one seed."""
    return {row.prior: row for row in rows if row.metric == metric and row.stage == "final"}


def with_error(value: float, error: float) -> str:
    """A value and its standard error, or its standard deviation, as the tables print them."""
    return format_estimate(Estimate(value, 2, value - error, value + error)).plain


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column of text."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, [":--", *["--:"] * (len(head) - 1)], *lines])


def _column(gathered: GatheredRows, metric: str) -> ColumnValues:
    (column,) = (values for (name, _), values in gathered.columns.items() if name == metric)
    return column
