"""What tuning gained: validation and test apart, gains paired by seed, published numbers of the same protocol alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from click.testing import Result

from genbench.analysis.headline import tuning_words
from genbench.analysis.tuning import PublishedValue, WordTable, tuning_records, tuning_reports, word_tables
from genbench.reproduction.recipe import published_values
from genbench.storage.bundle import export_bundle, import_bundle
from genbench.storage.results import Row, protocols, rows
from genbench.storage.run_dir import RunFolder, read_runs, read_searches, save_searches, searches_of
from genbench.storage.schema import SCHEMA, SearchRecord, StoredRun, StoredSearch, TrialRecord, TunedFile
from genbench.utils.io import save_tensors
from support.studies import RECIPE_TEXT, fake_run, row, store_run

SPACE = {"weight": StoredSearch("log", 1.0, 100.0)}


def search(model: str) -> SearchRecord:
    """Eight trials, of which the fourth is the best; one failed and one was stopped."""
    values = [5.0, 4.0, 4.5, 2.0, 3.0, 6.0, None, None]
    trials = [TrialRecord({"weight": 2.0 * k + 1}, f"t{k}", value) for k, value in enumerate(values)]
    trials[6] = msgspec.structs.replace(trials[6], problem="diverged")
    trials[7] = msgspec.structs.replace(trials[7], stopped=48, early=9.0)
    run = msgspec.convert(fake_run(model).record(), StoredRun)
    return SearchRecord(model, run, "random", 10_000, "trials", SPACE, "fid", {}, False, "p", tuple(trials), chosen=3)


def store_study(folder: Path, *, defaults: bool) -> list[Row]:
    """Tuned runs of one model, and where asked for those of its default, with a better and a worse seed."""
    save_searches(folder, {"k": search("swae")})
    for seed, offset in enumerate((0.0, 1.0, 2.0)):
        run = fake_run("swae", seed)
        chosen = replace(run, model=replace(run.model, options=(("weight", 7.0),)))
        tuned = store_run(folder, chosen, fid=3.0 + offset)
        RunFolder(tuned).save_tuned(
            TunedFile(SCHEMA, "k", "random", "trials", 8, "fid", 2.0, 5.0, {"weight": 7.0}, SPACE, 1, 1)
        )
        if defaults:
            default = replace(run, model=replace(run.model, options=(("weight", 1.0),)))
            store_run(folder, default, fid=4.0 + 1.1 * offset)
    for path in folder.glob("*/run.json"):
        text = path.read_text().replace('"content": "images"', '"content": "images", "defaults": {}')
        if '"weight": 7.0' in text:
            text = text.replace('"defaults": {}', '"defaults": {"swae.weight": 1.0}')
        path.write_text(text)
    return rows(read_runs(path.parent for path in folder.glob("*/run.json"))[0])


def gain_table(tables: list[WordTable]) -> dict[str, str]:
    return dict(zip(tables[0].heads, tables[0].rows[0], strict=True))


def test_a_default_that_was_run_is_compared_seed_by_seed_and_the_validation_value_is_no_test_value(
    tmp_path: Path,
) -> None:
    (report,) = tuning_reports(store_study(tmp_path, defaults=True))
    (model,) = report.models
    assert (model.default_validation, model.validation) == (5.0, 2.0)
    assert model.tuned is not None
    assert model.default is not None
    assert model.gain is not None
    assert (model.tuned.mean, model.default.mean) == (4.0, pytest.approx(5.1))
    assert model.gain.mean == pytest.approx(1.1)
    assert model.remark == "1 failed, 1 stopped early (of 8)"
    (option,) = model.options
    assert (option.option, option.searched, option.default, option.chosen) == ("weight", "1 to 100 (log)", 1.0, 7.0)
    (plain,) = tuning_records([report])
    assert (plain["validation_chosen"], plain["test_tuned"], plain["published"]) == (2.0, 4.0, None)


def test_without_the_default_nothing_is_gained_and_the_table_says_why(tmp_path: Path) -> None:
    reports = tuning_reports(store_study(tmp_path, defaults=False))
    cells = gain_table(word_tables(reports, "folder"))
    assert cells["test default"] == "not run"
    assert "gain" not in cells
    assert "published" not in cells  # nobody has looked
    assert any("winner's curse" in note for note in word_tables(reports, "folder")[0].notes)


def test_a_published_number_counts_by_the_same_protocol_alone(tmp_path: Path) -> None:
    tidy = store_study(tmp_path, defaults=False)
    records, _ = read_runs(path.parent for path in tmp_path.glob("*/run.json"))
    known = PublishedValue("folder", "swae", "normal", 2, "fid", 3.5, "a paper", {"method": "m"})
    for published, shown in (
        (known, "3.50"),
        (replace(known, protocol={"method": "another"}), None),
        (replace(known, protocol={"method": "another"}, tolerated=("method",)), "3.50"),
        (replace(known, latent_dim=64), None),
        (replace(known, dataset="mnist"), None),
    ):
        tables = word_tables(tuning_reports(tidy, [published], protocols(records)), "folder")
        assert gain_table(tables).get("published") == shown
        assert any("no recipe has a number" in note for note in tables[0].notes) == (shown is None)


def test_the_numbers_of_recipes_are_known_and_a_broken_recipe_has_none() -> None:
    (number,) = published_values({"r": RECIPE_TEXT, "broken": "name ="})
    assert (number.dataset, number.model, number.metric, number.value) == ("dots", "swae", "reconstruction.pixel", 1.0)
    assert number.source == "s (r: network mlp, 64 images)"
    assert published_values({"r": RECIPE_TEXT.replace("value = 1\nmargin = 0.5\n", "")}) == []


def test_searches_travel_in_a_bundle_without_their_trials(tmp_path: Path) -> None:
    store_study(tmp_path / "a", defaults=False)
    trial = store_run(tmp_path / "a", replace(fake_run("swae", 10_000), role="trial"), fid=1.0)
    records, _ = read_runs(path.parent for path in (tmp_path / "a").glob("*/run.json"))
    for record in records:
        save_tensors(record.path / "weights.safetensors", {"w": torch.zeros(1)}, {"key": record.run.key})
    assert export_bundle(records, tmp_path / "b.tar", weights=False) == ()
    imported = import_bundle(tmp_path / "b.tar", tmp_path / "c")
    assert len(imported.new) == 3
    assert trial.name not in imported.new
    assert read_searches(tmp_path / "c") == read_searches(tmp_path / "a")
    there, _ = read_runs(tmp_path / "c" / name for name in imported.new)
    assert searches_of(there) == {"k": search("swae")}


def test_pages_and_files_have_the_tables(genbench: Callable[..., Result], tmp_path: Path) -> None:
    store_study(tmp_path / "runs", defaults=True)
    for form in ("table", "md", "tex"):
        text = genbench("report", "runs", "--format", form).output
        assert "What tuning gained by fid" in text
        assert "winner" in text
    tuned = next((tmp_path / "runs").glob("*/tuned.json")).parent.name
    shown = " ".join(genbench("show", tuned, "--out", "runs").output.split())
    assert "8 trials, random search by fid on validation images; searched weight 1 to 100 (log)" in shown
    assert "validation value 2 (default 5), the best of 8: no result" in shown


def test_a_comparison_says_how_both_were_tuned() -> None:
    tuned, untuned = row(trials=8, tuned_by="random search by fid on validation images"), row("vae")
    assert tuning_words(untuned, untuned) == ""
    assert tuning_words(tuned, tuned).startswith("both tuned, 8 trials")
    assert "B not tuned: the difference may be owed to that alone" in tuning_words(tuned, untuned)
