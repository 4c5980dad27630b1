"""What tables promise: nothing is ranked that was not measured alike, failures are shown, any terminal will do."""

from __future__ import annotations

import io
import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from genbench.analysis import notes
from genbench.analysis.table import Table, assemble
from genbench.errors import UsageError
from genbench.reporting.console import render, render_curves
from genbench.reporting.export import export, table_latex, table_markdown
from genbench.storage.results import Row
from support.studies import row


def failed(model: str, seed: int = 0, error: str = "DivergenceError: loss is NaN", **facts: object) -> Row:
    return row(
        model,
        seed,
        None,
        "",
        higher_is_better=None,
        n=None,
        protocol="",
        **{"status": "failed", "error": error, **facts},
    )


def shown(
    rows: list[Row], width: int = 100, sort: str | None = None, encoding: str = "utf-8", *, noted: bool = False
) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    protocols = {"aaaa1111": {"method": "Frechet distance"}}
    render(Console(file=file, width=width), rows, sort=sort, protocols=protocols, noted=noted)
    file.seek(0)
    return file.read()


def only(rows: list[Row], sort: str | None = None) -> Table:
    (table,) = assemble(rows, sort)
    return table


def three(model: str, centre: float, **facts: object) -> list[Row]:
    """Seeds about a centre; the spread is a little different for each model, or all differences would be equal."""
    half = 0.1 + 1e-4 * (ord(model[0]) % 8)
    return [row(model, seed, centre + offset, **facts) for seed, offset in enumerate((-half, 0.0, half))]


# ---------------------------------------------------------------- columns


def test_identical_protocols_share_a_column_and_different_ones_never_do() -> None:
    table = only([row("swae"), row("vae"), row("ae", protocol="bbbb2222")])
    assert [(c.metric, c.protocol, c.shared) for c in table.columns] == [
        ("fid", "aaaa1111", True),
        ("fid", "bbbb2222", True),
    ]
    filled = {line.label: [cell is not None for cell in line.cells] for line in table.rows}
    assert filled == {"swae": [True, False], "vae": [True, False], "ae": [False, True]}


def test_better_number_of_another_protocol_ranks_nowhere() -> None:
    table = only([*three("swae", 30.0), *three("vae", 90.0), *three("ae", 1.0, protocol="bbbb2222")])
    assert [line.label for line in table.rows] == ["swae", "vae", "ae"]
    assert [cell.mark if cell else None for cell in table.rows[0].cells] == ["best", None]
    assert "aaaa1111" in shown([row("swae"), row("ae", protocol="bbbb2222")])
    assert "2 ways" in shown([row("swae"), row("ae", protocol="bbbb2222")])


def test_datasets_are_never_ranked_together() -> None:
    tables = assemble([row("swae"), row("vae", value=0.1, dataset="celeba"), row("ae")])
    assert [(t.dataset, [line.label for line in t.rows]) for t in tables] == [
        ("glyphs", ["ae", "swae"]),
        ("celeba", ["vae"]),
    ]


@given(
    st.permutations([row(m, s, v) for (m, v), s in itertools.product([("a", 1.0), ("b", 2.0), ("c", 3.0)], range(2))])
)
def test_order_of_rows_does_not_matter(rows: list[Row]) -> None:
    table = only(rows)
    assert [(line.label, line.cells[0].estimate.mean if line.cells[0] else None) for line in table.rows] == [
        ("a", 1.0),
        ("b", 2.0),
        ("c", 3.0),
    ]


def test_ranking_metric_comes_first() -> None:
    rows = [row(metric="kid"), row(metric="fid"), row(metric="speed.seconds", higher_is_better=None)]
    rows += [row(metric="latent-w2"), row(metric="latent-w2.excess")]
    assert [c.metric for c in only(rows).columns] == ["fid", "kid", "latent-w2.excess", "latent-w2", "speed.seconds"]
    assert only(rows, "latent-w2").columns[0].metric == "latent-w2"
    assert [c.section for c in only(rows).columns] == ["headline", "headline", "headline", "detail", "fact"]


def test_higher_is_ranked_downwards() -> None:
    rows = [
        row("a", value=0.2, metric="recall", higher_is_better=True),
        row("b", value=0.9, metric="recall", higher_is_better=True),
    ]
    assert [line.label for line in only(rows).rows] == ["b", "a"]
    assert "↑" in shown(rows)


def test_unknown_metric_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'fid'"):
        assemble([row()], "fidd")


def test_facts_are_never_marked() -> None:
    rows = [r for m, v in (("a", 1.0), ("b", 50.0)) for r in three(m, v, metric="speed.seconds", higher_is_better=None)]
    assert {cell.mark for line in only(rows).rows for cell in line.cells if cell} == {""}


def test_repeats_of_a_seed_are_not_further_seeds() -> None:
    table = only([row(value=1.0), row(value=3.0, run="elsewhere")])
    cell = table.rows[0].cells[0]
    assert cell is not None
    assert (cell.estimate.mean, cell.estimate.n) == (2.0, 1)


def test_equal_labels_of_different_groups_stay_distinguishable() -> None:
    labels = {line.label for line in only([row(group="one"), row(group="two", value=2.0)]).rows}
    assert labels == {"swae [one]", "swae [two]"}


# ---------------------------------------------------------------- marks, floors, seeds


def test_set_of_bests_is_marked_and_the_worse_is_not() -> None:
    worse = [row("worse", seed, value) for seed, value in enumerate((90.0, 90.2, 90.1))]
    table = only([*three("a", 1.0), *three("copy", 1.0), *worse])
    marks = {line.label: line.cells[0].mark for line in table.rows if line.cells[0]}
    assert marks == {"a": "best", "copy": "best", "worse": ""}


def test_one_seed_has_no_mark_and_the_notes_say_so() -> None:
    text = shown([row("a", value=1.5), row("b", value=2.5)])
    assert notes.SIGNS["best"] not in text
    assert "One seed: differences may be noise" in text
    assert notes.ONE_SEED in " ".join(shown([row("a", value=1.5), row("b", value=2.5)], noted=True).split())
    assert "±" not in text


def test_floor_is_a_row_where_shared_and_under_values_where_not() -> None:
    same = only([row("a", floor=0.41), row("b", floor=0.41)])
    assert same.columns[0].floor == pytest.approx(0.41)
    last = shown([row("a", floor=0.41), row("b", floor=0.41)]).split("a perfect model")[1]
    assert last.split()[0] == "0.410"
    apart = only([row("a", floor=0.41), row("b", floor=0.9)])
    assert apart.columns[0].floor is None
    assert "a perfect model" not in shown([row("a", floor=0.41), row("b", floor=0.9)])
    assert sorted(cell.floor or 0 for line in apart.rows for cell in line.cells if cell) == [0.41, 0.9]


def test_partial_failure_counts_its_seeds() -> None:
    rows = [row("a", 0), row("a", 1), failed("a", 2, "out of memory")]
    text = shown(rows)
    assert "2 of 3 seeds" in text
    assert "out of memory" in text


def test_failed_and_unfinished_groups_come_last_with_the_cause() -> None:
    rows = [failed("bad"), failed("half", status="unfinished", error=""), *three("good", 5.0)]
    assert [(line.label, line.state) for line in only(rows).rows] == [
        ("good", ""),
        ("bad", "failed"),
        ("half", "unfinished"),
    ]
    text = shown(rows)
    assert "bad, seed 0, failed: DivergenceError: loss is NaN" in text
    assert "half, seed 0, unfinished" in text


def test_a_metric_that_failed_is_reported_and_the_run_counts_as_done() -> None:
    rows = [row("a"), row("a", value=None, metric="kid", status="failed", error="too few images")]
    assert only(rows).rows[0].state == ""
    assert "kid not measured: too few images" in shown(rows)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_values_that_are_not_numbers_are_no_cells(value: float | None) -> None:
    table = only([row("a", value=value), row("b")])
    assert {line.label: line.cells[0] is None for line in table.rows} == {"a": True, "b": False}
    assert len(table.problems) == 1


def test_unequal_budgets_are_reported() -> None:
    assert "differ in images trained on (1,000, 2,000)" in shown([row("a"), row("b", images=2000)])


def test_only_failures_still_report() -> None:
    assert "loss is NaN" in shown([failed("a")])


# ---------------------------------------------------------------- controls, copies, what never enters


@pytest.mark.parametrize("lower", [True, False])
def test_a_control_is_never_ranked_marked_or_compared_with(lower: bool) -> None:
    better = not lower
    models = [*three("a", 5.0, higher_is_better=better), *three("b", 9.0, higher_is_better=better)]
    controls = three("replayed", 0.0 if lower else 99.0, higher_is_better=better, role="control")
    table, alone = only([*controls, *models]), only(models)
    assert [line.role for line in table.rows] == ["model", "model", "control"]
    assert table.rows[:2] == alone.rows
    assert [cell.mark for cell in table.rows[2].cells if cell] == [""]
    text = " ".join(shown([*controls, *models]).split())
    assert text.index("controls: scale only, not ranked") < text.index("replayed")
    assert "2 models" in text


def test_a_copycat_cannot_win() -> None:
    shares = [(m, s, v) for m, v in (("memory", 0.9), ("honest", 0.01)) for s in range(3)]
    rows = [row(m, s, v, "theirs.share", metric_role="memorization", protocol="c") for m, s, v in shares]
    table = only([*three("memory", 0.1), *three("honest", 9.0), *rows])
    assert [(line.label, line.role) for line in table.rows] == [("honest", "model"), ("memory", "copy")]
    assert {cell.mark for cell in table.rows[1].cells if cell} == {""}
    assert "copies training images" in shown([*three("memory", 0.1), *three("honest", 9.0), *rows])


def test_snapshots_and_validation_numbers_never_enter() -> None:
    rows = three("a", 5.0)
    more = [
        *three("a", 1.0, stage="snapshot"),
        *three("a", 1.0, split="validation"),
        *three("c", 1.0, stage="snapshot"),
    ]
    assert only([*rows, *more]) == only(rows)
    assert only(three("a", 5.0, stage="selected")).rows[0].cells[0] == only(rows).rows[0].cells[0]


def test_the_statistics_of_a_single_run_stand_under_its_value() -> None:
    rows = [row("a", se=0.25, p_value=0.0001, floor=1.47, floor_sd=0.012, minimum_detectable_effect=0.05, n=10_000)]
    text, noted = shown(rows), shown(rows, noted=True)
    assert not any(phrase in text for phrase in ("se 0.25", "MDE", "n = ", "aaaa1111"))
    assert "aaaa1111" in noted
    for phrase in ("se 0.25", "p < 0.001", "1.470 ± 0.012", "MDE 0.05", "n = 10,000"):
        assert phrase in noted
    seeds = [row("a", seed, p_value=p) for seed, p in enumerate((0.004, 0.5, 0.9))]
    cell = only(seeds).rows[0].cells[0]
    assert cell is not None
    assert cell.p == pytest.approx(0.012)  # three times the smallest


def test_the_spread_over_seeds_is_split() -> None:
    rows = [row(m, seed, 10 + value, se=0.5) for m in "ab" for seed, value in enumerate((-1.0, 0.0, 1.0))]
    text = " ".join(shown(rows, noted=True).split())
    assert "fid: sd over training seeds 1, of which sampling draw at most 0.50 (more seeds" in text
    loud = " ".join(shown([replace(r, se=5.0) for r in rows], noted=True).split())
    assert "set to 0" in loud


def test_the_notes_name_the_interval() -> None:
    few = three("a", 5.0)
    many = [row("b", seed, 5 + seed**0.5) for seed in range(10)]
    assert "95 % t-interval of the mean over 3 training seeds" in " ".join(shown(few, noted=True).split())
    assert "95 % studentised bootstrap interval of the mean" in " ".join(shown(many, noted=True).split())


def test_columns_of_priors_are_named_by_them_and_stand_without_the_rows_of_others() -> None:
    def fit(model: str, prior: str, metric: str = "w2", **facts: object) -> list[Row]:
        group = {"label": f"{model} ({prior})", "group": f"{model}-{prior}", "prior": prior}
        return three(f"{model}-{prior}", 3.0, metric=metric, **{"protocol": f"w{prior}", **group, **facts})

    rows = [r for m in ("swae", "vae") for prior in ("ring", "uniform") for r in fit(m, prior)]
    rows += [r for m in ("swae", "vae") for prior in ("ring", "uniform") for r in fit(m, prior, "fid", protocol="f")]
    table = only(rows, "fid")
    assert [(c.head, c.prior, c.shared) for c in table.columns] == [
        ("fid", "", False),
        ("w2 (ring)", "ring", False),
        ("w2 (uniform)", "uniform", False),
    ]
    text = shown(rows, sort="fid")
    assert " - " not in text
    ring = text.split("w2 (ring)")[1].split("\n\n")[0]
    assert "swae (ring)" in ring
    assert "swae (uniform)" not in ring
    only_dims = [replace(r, prior="normal", latent_dim=2 if "ring" in r.label else 8) for r in rows]
    assert [c.head for c in only(only_dims, "fid").columns] == ["fid", "w2 (d = 2)", "w2 (d = 8)"]


@pytest.mark.parametrize("width", [80, 100])
def test_what_is_said_below_a_table_has_five_lines_at_most_and_breaks_at_words(width: int) -> None:
    study = [r for k, m in enumerate(("wae-mmd", "swae", "vae", "wae-gan")) for r in three(m, 30.0 + k % 3 * 5)]
    study = [replace(r, value=(r.value or 0.0) + len(r.model) * r.seed % 3 / 9) for r in study]
    study = [replace(r, batch=128, defaults={}, minimum_detectable_effect=0.1, se=0.05) for r in study]
    said = shown(study, width).split("\n\n")[-1].splitlines()
    assert 2 <= len(said) <= 5
    assert max(map(len, said)) <= width
    assert any("genbench power RUNS" in line for line in said)  # a command is never broken
    assert len(shown(study, width, noted=True).split("\n\n")[-2].splitlines()) > len(said)


def test_two_priors_and_what_differs_have_five_lines_at_most_and_all_notes_say_nothing_twice() -> None:
    def fit(model: str, prior: str, metric: str, **facts: object) -> list[Row]:
        group = {"label": f"{model} ({prior})", "group": f"{model}-{prior}", "prior": prior}
        return three(f"{model}-{prior}", 3.0, metric=metric, **{"protocol": f"{metric}-{prior}", **group, **facts})

    metrics = ("fid", "kid", "w2", "sw", "sharpness", "pixel")
    rows = [r for m in ("swae", "vae") for p in ("ring", "bowl") for metric in metrics for r in fit(m, p, metric)]
    rows += [r for p in ("ring", "bowl") for r in fit("ae", p, "fid", protocol="x", network="mlp", images=9)]
    rows = [replace(r, caution="few images" if r.metric == "fid" else "") for r in rows]
    table = only(rows, "fid")
    assert len(notes.short_notes(table, "•")) <= notes.SHORT
    crowded = replace(table, rows=(*table.rows, *(replace(r, data=f"{k} left out") for k, r in enumerate(table.rows))))
    assert len(notes.short_notes(crowded, "•")) == notes.SHORT
    assert notes.short_notes(crowded, "•")[-1].endswith("more notes: --notes")
    noted = " ".join(shown(rows, noted=True).split())
    assert noted.count("± half") == noted.count("• not distinguishable") == 1


def test_models_priors_and_latent_sizes_are_counted_apart() -> None:
    def grid(priors: tuple[str, ...], dims: tuple[int, ...], models: str = "abcd") -> list[Row]:
        combinations = itertools.product(models, priors, dims)
        return [row(m, group=f"{m}{p}{d}", prior=p, latent_dim=d) for m, p, d in combinations]

    for rows, words in (
        (grid(("normal",), (8,)), "4 models"),
        (grid(("normal", "ring"), (8,)), "4 models x 2 priors"),
        (grid(("normal", "ring"), (2, 4, 8), "a"), "1 model x 2 priors x 3 latent sizes"),
        ([*grid(("normal", "ring"), (8,)), *grid(("ring",), (8,), "e")], "9 combinations of model and prior"),
    ):
        assert f"glyphs · {words} · 1 seed" in shown(rows, 120)


def test_what_a_metric_warns_of_is_marked_in_the_head_and_said_once() -> None:
    rows = [*three("a", 5.0), *three("b", 6.0)]
    few = [replace(r, caution="biased upwards: use KID") for r in rows]
    others = [replace(r, metric="w2") for r in rows]
    for text in (shown([*few, *others]), shown([*few, *others], noted=True), table_markdown([*few, *others])):
        assert " ".join(text.split()).count("! fid: biased upwards: use KID") == 1
        assert "fid !" in " ".join(text.split())
        assert "w2 !" not in text
        assert text.index("biased") < text.index("w2")  # the number that ranks: in the head, before all columns
    for text in (shown([*few, *others], sort="w2"), table_markdown([*few, *others], sort="w2")):
        assert " ".join(text.split()).count("! fid: biased upwards: use KID") == 1
        assert text.index("biased") > text.index("w2")
    assert "biased" not in shown([*rows, *others])
    assert "fid: biased upwards: use KID." in table_latex([*few, *others])


def test_each_of_several_cautions_is_said_once_with_the_groups_that_it_is_said_of() -> None:
    rows = [
        replace(
            r, metric=metric, caution="; ".join(["no density", *["not converged"] * (r.label == "b" and r.seed > 0)])
        )
        for metric in ("nll", "bits")
        for r in (*three("a", 5.0), *three("b", 6.0))
    ]
    for text in (shown(rows), table_markdown(rows), table_latex(rows)):
        words = " ".join(text.split())
        assert words.count("nll, bits: no density") == words.count("nll, bits of b: not converged") == 1
    assert "q(z) of {a} and {0}" in table_latex([replace(r, caution="q(z) of {a} and {0}") for r in rows]).replace(
        "\\", ""
    )


# ---------------------------------------------------------------- the terminal


METRICS = ("fid", "kid", "reconstruction.pixel", "latent-w2", "latent-w2.excess", "latent-sw", "latent-mmd")


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_every_number_is_whole_at_any_width(width: int) -> None:
    study = [r for k, metric in enumerate(METRICS) for m in "abc" for r in three(m, 11.0 + k, metric=metric)]
    text = shown(study, width)
    assert max(map(len, text.splitlines())) <= width
    assert all(text.count(f"{11 + k}.00 ± 0.25") == 3 for k in range(len(METRICS)))
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [60, 80, 100])
def test_curves_break_no_number_and_cut_no_label(width: int) -> None:
    models = ("swae", "my-model-of-a-long-name", "vae (sigma=0.1, likelihood=gaussian)")
    rows = [
        row("m", s, 50.123 + k + s**2 / 7, label=m, group=m, images=images, stage="snapshot", split="validation")
        for k, m in enumerate(models)
        for s in range(3)
        for images in (1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000)
    ]
    file = io.StringIO()
    render_curves(Console(file=file, width=width), rows, "fid", "images", [1000, 2000, 4000, 8000, 16000, 128000])
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert all(len(re.findall(rf"\b{50 + k}\.\d+ ± 0\.\d+", text)) == 6 for k in range(3))


def test_controls_stand_only_where_they_have_numbers() -> None:
    study = [r for k, metric in enumerate(METRICS) for m in "ab" for r in three(m, 11.0 + k, metric=metric)]
    text = shown([*study, row("noise", value=90.0, role="control", metric="fid")], 60)
    assert text.count("model ") > 1  # several grids
    assert text.count("controls: scale only") == text.count("noise") == 1


@pytest.mark.parametrize("higher", [False, True])
def test_a_model_is_never_said_to_be_worse_than_one_that_is_worse_still(higher: bool) -> None:
    sign = -1.0 if higher else 1.0
    rows = [
        replace(r, value=sign * (r.value or 0.0), higher_is_better=higher)
        for m, centre in (("best", 20.0), ("middle", 23.0), ("last", 90.0))
        for r in three(m, centre)
    ]
    cells = {line.label: line.cells[0] for line in only(rows).rows}
    middle = cells["middle"]
    assert middle is not None
    assert middle.worse_than is not None
    assert middle.worse_than[0] == "g-best"
    assert "middle is worse than last" not in " ".join(shown(rows).split())


def test_names_are_text_and_not_markup() -> None:
    text = shown([row("[red]x[/red]"), row("b\x1b[31m", value=2.0)])
    assert "[red]x[/red]" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_poor_encoding_is_no_error(encoding: str) -> None:
    text = shown([*three("größe→", 1.0), *three("b", 2.0, higher_is_better=True, metric="x")], encoding=encoding)
    assert "+-" in text


def test_no_rows_is_said() -> None:
    assert "no runs" in shown([])


def test_of_thousands_of_runs_a_part_is_shown() -> None:
    models = [f"m{i}" for i in range(1000)]
    rows = [
        replace(row(model, seed, 10.0 + i % 7 + seed / 10), metric=metric)
        for i, model in enumerate(models)
        for seed in range(3)
        for metric in ("fid", "kid")
    ]
    assert "800 more groups" in shown(rows)


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_mark_nothing_and_the_notes_say_so(seeds: int) -> None:
    rows = [row(m, s, v + s * v / 50) for m, v in (("a", 1.0), ("b", 9.0), ("c", 1.0)) for s in range(seeds)]
    table = only(rows)
    assert {cell.mark for line in table.rows for cell in line.cells if cell} == {""}
    assert any("no marks" in text for text in notes.notes(table))


def test_one_sentence_explains_the_marks_and_that_they_need_not_follow_the_means() -> None:
    """swae is worse in every seed by nearly the same; gan's seeds vary more, so it may be the best."""
    values = {"vae": (1.0, 1.1, 0.9), "swae": (1.2, 1.31, 1.1), "gan": (0.9, 2.1, 1.5)}
    table = only([row(model, s, v) for model, vs in values.items() for s, v in enumerate(vs)])
    assert [(line.label, cell.mark) for line in table.rows for cell in line.cells if cell] == [
        ("vae", "best"),
        ("swae", ""),
        ("gan", "best"),
    ]
    (sentence,) = (text for text in notes.notes(table) if text.startswith(notes.SIGNS["best"]))
    assert "worse mean than an unmarked one because its seeds vary more" in sentence


def test_the_notes_count_models_and_not_controls() -> None:
    models = [
        row(m, s, v + s / 10, seconds=2.0 + s, flops=v * 1e9) for m, v in (("a", 1.0), ("b", 9.0)) for s in (0, 1)
    ]
    control = row("held-out", 0, 0.0, role="control", seconds=0.000155, flops=None)
    text = " ".join(notes.notes(only([*models, control])))
    assert "over 2 training seeds" in text
    assert "0.000155" not in text


def test_a_row_with_fewer_seeds_is_named() -> None:
    rows = [row(m, s, v + s * v / 50) for m, v in (("vae", 1.0), ("ae", 2.0)) for s in range(5)]
    table = only([*rows, row("swae", 0, 1.5)])
    assert "seeds: 5 seeds (swae 1)" in notes.notes(table)
    marks = {line.label: cell.mark for line in table.rows for cell in line.cells if cell}
    assert marks == {"vae": "best", "ae": "", "swae": "undecided"}


def test_a_standard_error_of_rounding_is_not_shown() -> None:
    (table,) = assemble([row("held-out", value=0.0, se=1.6e-13), row("a", value=2.0, se=9.996e-4)])
    texts = [below for line in table.rows for cell in line.cells if cell for below in notes.below_cell(cell)]
    assert texts == ["se 0.0010"]


def test_chance_stands_below_its_value_and_is_no_perfect_model() -> None:
    rows = [row("a", s, value=0.7 + s / 100, chance=0.1 + s / 50, chance_sd=0.01) for s in range(2)]
    (table,) = assemble([*rows, row("b", value=0.5)])
    texts = {
        line.label: [below for cell in line.cells if cell for below in notes.below_cell(cell)] for line in table.rows
    }
    assert texts == {"a": ["chance 0.11"], "b": []}
    assert table.columns[0].floor is None
    assert "chance: what codes or samples that know nothing of the images score" in notes.notes(table)


def test_values_that_are_equal_in_every_seed_have_no_spread_to_split() -> None:
    same = [row(m, s, 0.1 + 0.2 - 1e-17 * s, se=0.01) for m in "ab" for s in range(3)]
    (text,) = notes.spreads(only(same))
    assert "sd over training seeds 0," in text


def test_a_report_ends_with_whether_the_extractors_agree_in_every_format(tmp_path: Path) -> None:
    protocols = {name: {"method": "distance", "extractor": name} for name in ("grey28", "inception")}
    heads = {name: {"protocol": name, "head": f"FID ({name})"} for name in protocols}
    rows = [r for facts in heads.values() for m, at in (("a", 5.0), ("b", 9.0)) for r in three(m, at, **facts)]
    console = Console(file=io.StringIO(), width=100)
    render(console, rows, protocols=protocols, noted=True)
    export(tmp_path, rows, protocols=protocols)
    texts = [console.file.getvalue(), table_markdown(rows, protocols=protocols)]  # type: ignore[attr-defined]
    sentence = "Extractors: FID: grey28 and inception "
    for text in texts:
        assert " ".join(text.rstrip().splitlines()[-1].split()).startswith(sentence)
    assert sentence in " ".join((tmp_path / "report.html").read_text().split())
    render(console, rows[:6], protocols=protocols)
    assert console.file.getvalue().count("Extractors:") == 1  # type: ignore[attr-defined]
