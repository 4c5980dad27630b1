"""Models that were tuned alike: one is worse only where fresh seeds and the trials of the searches both say so."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from rich.console import Console

from genbench.analysis.compare import compare
from genbench.analysis.headline import extractor_agreement, verdict
from genbench.analysis.notes import AT_CHOSEN_OPTIONS, all_notes, of_options
from genbench.analysis.table import Table, assemble
from genbench.reporting import html
from genbench.reporting.console import render_curves
from genbench.reporting.site.pages import site_pages
from genbench.reporting.site.submissions import collect
from genbench.storage.bundle import export_bundle
from genbench.storage.results import Row, rows
from genbench.storage.run_dir import RunFolder, read_runs, save_searches
from genbench.storage.schema import SCHEMA, SearchRecord, StoredRun, StoredSearch, TrialRecord, TunedFile
from genbench.utils.io import save_tensors
from support.studies import fake_run, row, store_run

TRIALS = 13
HOW = "random search by fid on validation images"


def search(model: str, best: float, **facts: object) -> SearchRecord:
    """A search whose trials, the default aside, are spread from `best` upwards."""
    trials = tuple(TrialRecord({"weight": 7.0 + k}, f"t{k}", best + 0.1 * (k * 7 % TRIALS)) for k in range(TRIALS))
    known = SearchRecord(
        model=model,
        run=msgspec.convert(fake_run(model).record(), StoredRun),
        algorithm="random",
        seed=10_000,
        by="trials",
        space={"weight": StoredSearch("log", 1.0, 100.0)},
        metric="fid",
        metric_options={},
        higher_is_better=False,
        protocol="p",
        trials=trials,
        chosen=0,
    )
    return msgspec.structs.replace(known, **facts)


def tuned(
    model: str, value: float, best: float | SearchRecord | None, metric: str = "fid", **facts: object
) -> list[Row]:
    """Five fresh seeds of a model's chosen options near `value`, and a search whose trials start at `best`."""
    record = search(model, best) if isinstance(best, float) else best
    by_search = {"searched": record, "like_trials": metric == "fid", "search": model}
    known = {"trials": TRIALS, "tuned_by": HOW, "tuned_metric": "fid", **by_search, **facts}
    return [row(model, seed, value + 0.1 * ((3 * seed + len(model)) % 5), metric, **known) for seed in range(5)]


def only(*groups: list[Row]) -> Table:
    (table,) = assemble([row for group in groups for row in group])
    return table


def marks(table: Table) -> dict[str, str]:
    return {row.label: cell.mark for row in table.rows if (cell := row.cells[0])}


def test_a_model_is_worse_where_fresh_seeds_and_searches_both_say_so() -> None:
    table = only(tuned("swae", 30.0, 30.0), tuned("vae", 35.0, 35.0))
    assert marks(table) == {"swae": "best", "vae": ""}
    said = verdict(table)
    assert said.text.startswith("swae is the best by fid; vae is worse by 5.00 ± 0.28 (p = 0.0")
    assert said.options_worse == ()
    assert (
        compare(tuned("swae", 30.0, 30.0) + tuned("vae", 35.0, 35.0), "swae", "vae")[2][0].conclusion == "A is better"
    )


@pytest.mark.parametrize("best", [(30.0, 30.05), (35.0, 30.0)])
def test_where_fresh_seeds_alone_say_so_the_chosen_options_are_worse_and_the_model_may_be_a_best(
    best: tuple[float, float],
) -> None:
    """In the second case the searches are for the other model."""
    groups = tuned("swae", 30.0, best[0]), tuned("vae", 35.0, best[1])
    table = only(*groups)
    assert marks(table) == {"swae": "best", "vae": "best"}
    said = verdict(table)
    assert said.worse == ()
    assert [behind.label for behind in said.options_worse] == ["vae"]
    assert said.text.startswith(
        "swae and vae cannot be told apart by fid. The chosen options of vae are worse by 5.00 ± 0.28 (p < 0.001);"
        " the searches do not show that the models differ."
    )
    assert compare([*groups[0], *groups[1]], "vae", "swae")[2][0].conclusion == "B's options are better"


def test_where_searches_alone_say_so_nothing_is_claimed() -> None:
    said = verdict(only(tuned("swae", 30.0, 30.0), tuned("vae", 30.0, 35.0)))
    assert (said.best, said.worse, said.options_worse) == (("swae", "vae"), (), ())
    assert "chosen options" not in said.text


def test_the_p_value_is_the_larger_of_both_tests_and_every_pair_counts_in_it() -> None:
    pair = [tuned("swae", 30.0, 30.0), tuned("vae", 35.0, 35.0)]
    (two,) = verdict(only(*pair)).worse
    more = verdict(only(*pair, tuned("ae", 35.1, 35.0), tuned("wae", 30.0, 30.0)))
    p = {behind.label: behind.p for behind in more.worse}
    assert p.keys() == {"ae", "vae"}
    assert two.p is not None
    # Six pairs, with finer permutations: by fresh seeds alone it would stay below 0.001.
    assert p["vae"] == pytest.approx(6 * two.p, rel=0.2)


WHY: Mapping[str, tuple[Mapping[str, object], str]] = {
    "tpe": ({"algorithm": "tpe"}, "trials of a TPE search depend on one another"),
    "gp": ({"algorithm": "gp"}, "trials of a GP search depend on one another"),
    "halving": ({"algorithm": "halving"}, "successive halving stops most trials before their end"),
    "few": ({"trials": search("swae", 1.0).trials[:6]}, "fewer than 6 random trials"),
    "failed": ({"trials": (TrialRecord({}, "t", None),) * TRIALS}, "every random trial failed"),
}


@pytest.mark.parametrize("case", WHY)
def test_searches_that_cannot_speak_leave_a_comparison_of_chosen_options(case: str) -> None:
    facts, why = WHY[case]
    groups = tuned("swae", 30.0, search("swae", 30.0, **facts)), tuned("vae", 35.0, search("vae", 35.0, **facts))
    table = only(*groups)
    assert marks(table) == {"swae": "best", "vae": "best"}
    assert f"fid compares chosen options, not models: {why}." in verdict(table).text
    (compared,) = compare([*groups[0], *groups[1]], "swae", "vae")[2]
    assert (compared.conclusion, compared.unproven) == ("A's options are better", why)


def test_searches_that_are_missing_or_of_other_measurements_cannot_speak() -> None:
    lost = only(tuned("swae", 30.0, None), tuned("vae", 35.0, None))
    assert (
        "fid compares chosen options, not models: no tuning.json has the trials of the searches." in verdict(lost).text
    )
    half = only(tuned("swae", 30.0, 30.0), tuned("ae", 31.0, 32.0), tuned("vae", 35.0, None))
    assert "no tuning.json has the trials of the searches (vae)" in verdict(half).text
    assert marks(half) == {"swae": "best", "ae": "", "vae": "best"}
    by_kid = [tuned(model, value, value, "kid") for model, value in (("swae", 30.0), ("vae", 35.0))]
    assert "kid compares chosen options, not models: the searches are by fid." in verdict(only(*by_kid)).text
    options = [tuned(model, value, value, like_trials=False) for model, value in (("swae", 30.0), ("vae", 35.0))]
    assert "the searches measured fid by other options" in verdict(only(*options)).text
    cost: dict[str, object] = {"tuned_by": f"{HOW} at equal seconds"}
    seconds = [
        tuned(model, value, search(model, value, by="seconds"), **cost)
        for model, value in (("swae", 30.0), ("vae", 35.0))
    ]
    assert "the searches have their seconds alike, and not their trials" in verdict(only(*seconds)).text
    assert marks(only(*seconds)) == {"swae": "best", "vae": "best"}
    ways = [tuned("swae", 30.0, 30.0), tuned("vae", 35.0, search("vae", 35.0, protocol="q"))]
    assert marks(only(*ways)) == {"swae": "best", "vae": "best"}


def test_models_that_were_not_tuned_alike_are_compared_by_seeds_as_ever() -> None:
    table = only(tuned("swae", 30.0, 30.0), tuned("vae", 35.0, 30.0, trials=0))
    assert marks(table) == {"swae": "best", "vae": ""}
    assert "Not tuned alike: the ranks may be owed to that alone" in verdict(table).sentences
    assert of_options(table) == ""


def test_other_columns_keep_their_marks_and_the_notes_say_what_they_compare() -> None:
    groups = [
        [*tuned(model, value, 30.0), *tuned(model, value, 30.0, "kid")]
        for model, value in (("swae", 30.0), ("vae", 35.0))
    ]
    table = only(*groups)
    assert [cell.mark for cell in table.rows[1].cells if cell] == ["best", ""]
    said = "fid: worse only where the searches show it too; other columns: of the chosen options"
    assert any(said in note for note in all_notes(table, "•"))


def test_pairs_and_curves_say_that_they_compare_chosen_options() -> None:
    both = [*tuned("swae", 30.0, 30.0), *tuned("vae", 35.0, 35.0)]
    untuned = [row(model, seed, value + seed) for model, value in (("swae", 30.0), ("vae", 35.0)) for seed in range(5)]
    for of_study, says in ((both, True), (untuned, False)):
        page = html.render(html.Page("", assemble(of_study), {}, {}, {}, of_study, ""))
        assert "after Holm, over the pairs" in page
        assert (AT_CHOSEN_OPTIONS in page) is says
        snapshots = [replace(each, stage="snapshot", images=100, split="validation") for each in of_study]
        file = io.StringIO()
        render_curves(Console(file=file, width=200), snapshots, "fid", "images", [100])
        assert (AT_CHOSEN_OPTIONS in file.getvalue()) is says


def test_extractors_agree_on_models_only_where_the_searches_do() -> None:
    fields = {"a": {"extractor": "grey28"}, "b": {"extractor": "clip"}}
    groups = [
        tuned(model, value, value, protocol=key, head=f"FID ({fields[key]['extractor']})", like_trials=key == "a")
        for model, value in (("swae", 30.0), ("vae", 35.0))
        for key in fields
    ]
    text = extractor_agreement(only(*groups), fields)
    assert text.startswith("Extractors: FID: cannot tell whether grey28 and clip agree on the best: swae by grey28")


def test_runs_find_the_searches_beside_them_and_so_does_a_site_of_bundles(tmp_path: Path) -> None:
    best = {"swae": 30.0, "vae": 35.0}
    save_searches(tmp_path / "runs", {model: search(model, value) for model, value in best.items()})
    for model, value in best.items():
        for seed in range(5):
            run = fake_run(model, seed)
            chosen = replace(run, model=replace(run.model, options=(("weight", 7.0),)))
            folder = store_run(tmp_path / "runs", chosen, fid=value + 0.1 * ((3 * seed + len(model)) % 5))
            options = {"weight": StoredSearch("log", 1.0, 100.0)}
            RunFolder(folder).save_tuned(
                TunedFile(SCHEMA, model, "random", "trials", TRIALS, "fid", value, value, {"weight": 7.0}, options)
            )
    records, _ = read_runs((tmp_path / "runs").glob("*-*"))
    (table,) = assemble(rows(records))
    assert marks(table) == {"swae": "best", "vae": ""}

    (tmp_path / "site").mkdir()
    for record in records:
        save_tensors(record.path / "weights.safetensors", {"w": torch.zeros(1)}, {"key": record.run.key})
    export_bundle(records, tmp_path / "ann.tar")
    submissions, _ = collect([tmp_path / "ann.tar"], tmp_path / "site")
    _, pages = site_pages(submissions, "", {})
    assert "swae is the best by fid; vae is worse by 5.00" in pages["index.html"]
    (board,) = (text for name, text in pages.items() if name != "index.html")
    assert "which options matter is not known" not in board

    (tmp_path / "runs" / "tuning.json").unlink()
    (without,) = assemble(rows(records))
    assert marks(without) == {"swae": "best", "vae": "best"}
