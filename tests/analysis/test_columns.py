"""Columns by their names: labels, metrics, first parts; the order asked for; and who ranks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from genbench.analysis.captions import caption
from genbench.analysis.headline import verdict
from genbench.analysis.table import Table, assemble, choose_tables, headlines, of_columns
from genbench.errors import UsageError
from genbench.storage.results import Row
from support.studies import row


def study() -> list[Row]:
    """Two models; the first is better by fid, the second by recall and by the excess."""
    values = {
        "fid": (1.0, 2.0),
        "recall": (0.2, 0.9),
        "latent-w2": (3.0, 3.0),
        "latent-w2.excess": (5.0, 4.0),
        "speed.step": (7.0, 8.0),
    }
    facts = {
        "fid": {"head": "FID (grey28)"},
        "recall": {"higher_is_better": True},
        "latent-w2": {"higher_is_better": None},
        "speed.step": {"higher_is_better": True, "metric_role": "speed"},
    }
    return [
        row(model, seed, value[k] + seed / 100, metric, protocol=metric[:4], **facts.get(metric, {}))
        for k, model in enumerate(("swae", "vae"))
        for seed in range(2)
        for metric, value in values.items()
    ]


def chosen(*names: str, sort: str | None = None) -> Table:
    (table,) = choose_tables(study(), sort, names)
    return table


def test_columns_stand_in_the_order_asked_for_with_their_cells() -> None:
    table = chosen("latent-w2.excess", "FID (grey28)", "recall")
    assert [column.metric for column in table.columns] == ["latent-w2.excess", "fid", "recall"]
    means = {line.label: [round(cell.estimate.mean) for cell in line.cells if cell] for line in table.rows}
    assert means == {"swae": [5, 1, 0], "vae": [4, 2, 1]}


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("fid", "fid"),
        ("FID", "fid"),
        ("fid (GREY28)", "fid"),
        ("latent-w2", "latent-w2"),
        ("latent-w2.excess", "latent-w2.excess"),
        ("speed", "speed.step"),
        ("fid (g", "fid"),
    ],
)
def test_a_column_has_three_names(name: str, metric: str) -> None:
    assert [column.metric for column in chosen(name).columns] == [metric]


def test_a_first_part_means_the_main_number() -> None:
    rows = [r for r in study() if r.metric != "latent-w2"] + [row(metric="latent-w2.mean", protocol="m")]
    (table,) = choose_tables(rows, None, ["latent-w2"])
    assert [column.metric for column in table.columns] == ["latent-w2.excess"]


def test_a_column_named_twice_stands_once() -> None:
    assert len(chosen("fid", "FID (grey28)", "fid").columns) == 1


def test_the_first_column_with_a_better_direction_ranks_unless_sort_is_given() -> None:
    assert [line.label for line in chosen("fid").rows] == ["swae", "vae"]
    table = chosen("latent-w2", "recall", "fid")
    assert [line.label for line in table.rows] == ["vae", "swae"]
    assert table.ranked_by == "recall"
    table = chosen("recall", "fid", sort="fid")
    assert [line.label for line in table.rows] == ["swae", "vae"]
    assert table.ranked_by == "fid"


def test_where_no_number_has_a_better_direction_nothing_ranks() -> None:
    """Speed is a fact: the models are in the order of their labels, whatever their numbers."""
    rates = {"vae": 3.0, "swae": 1.0, "ae": 2.0}
    rows = [
        replace(row(model, 0, rate), metric="speed.images-per-second", higher_is_better=None)
        for model, rate in rates.items()
    ]
    (table,) = assemble(rows)
    assert table.ranked_by == ""
    assert [line.label for line in table.rows] == ["ae", "swae", "vae"]


def test_the_verdict_is_on_the_column_that_ranks_wherever_it_stands() -> None:
    table = chosen("latent-w2", "recall", "fid", sort="fid")
    assert table.ranking == 2
    assert verdict(table).metric == "fid"
    assert chosen("latent-w2").ranking is None
    assert verdict(chosen("latent-w2")).metric == ""


def test_an_unknown_column_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'recall'"):
        chosen("fid", "recoll")


def test_protocols_of_a_metric_stay_columns_of_their_own() -> None:
    (table,) = choose_tables([*study(), row("ae", protocol="other")], None, ["fid"])
    assert [column.protocol for column in table.columns] == ["fid", "other"]


def test_a_column_of_one_dataset_is_no_error_for_the_others() -> None:
    rows = [*study(), row("swae", dataset="celeba", metric="kid"), row("vae", dataset="celeba", metric="kid")]
    tables = choose_tables(rows, None, ["kid", "fid"])
    assert [[column.metric for column in table.columns] for table in tables] == [["fid"], ["kid"]]


def test_tidy_rows_are_those_of_the_columns() -> None:
    rows = [*study(), row("bad", metric="", value=None, status="failed", protocol="")]
    assert {r.metric for r in of_columns(rows, ["recall"])} == {"recall", ""}
    assert of_columns(rows, []) == rows


def test_the_main_columns_leave_speed_and_details_out() -> None:
    (table,) = choose_tables(study())
    assert [column.metric for column in headlines(table).columns] == ["fid", "recall", "latent-w2.excess"]


def test_a_caption_says_what_was_trained_and_how_to_read_it() -> None:
    rows = [*study(), row("ae", prior="ring", network="mlp", images=2000), row("ae", 1, None, "", status="failed")]
    (table,) = choose_tables(rows)
    text = caption(table).text(pm="+-", bold="In bold")
    for words in (
        "3 models trained on glyphs",
        "1,000 or 2,000 training images each",
        "network conv or mlp",
        "latent size 8",
        "prior normal or ring",
        "+- half the width of its 95% t-interval",
        "500 images or codes",
        "ae: 1 of 2 seeds",
    ):
        assert words in text
