"""What is compared: a run once however many copies lie about, and the newest code and data, with a word on the rest."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from genbench.errors import StoreError
from genbench.experiment.run import Component, Run
from genbench.storage.results import group_key, rows
from genbench.storage.run_dir import RunRecord, find_runs, read_runs
from genbench.storage.study import mixed_images, newest, without_copies
from support.studies import fake_run, store_run

OLD, NEW = "2026-11-24T16:02:00.000+00:00", "2026-11-25T09:10:00.000+00:00"


def read(*folders: Path) -> list[RunRecord]:
    records, problems = read_runs(find_runs(folders))
    assert not problems
    return records


# ---------------------------------------------------------------- one dataset


def of_files(run: Run, originals: str, path: str) -> Run:
    dataset = Component("folder", (("path", path), ("size", 64)), "source", originals, ("path",) if originals else ())
    return replace(run, dataset=dataset)


def test_files_are_one_dataset_under_every_path() -> None:
    spellings = ("x", "x/", "./x", "/data/x", "~/x")
    runs = [of_files(fake_run(), "abc", path) for path in spellings]
    assert len({run.name for run in runs}) == len({group_key(run) for run in runs}) == 1
    others = [of_files(fake_run(), "abd", "x"), *(of_files(fake_run(), "", path) for path in spellings)]
    assert len({run.name for run in [runs[0], *others]}) == 7
    assert len({group_key(run) for run in [runs[0], *others]}) == 7


def test_a_run_begun_under_another_path_goes_on(tmp_path: Path) -> None:
    first, second = (of_files(fake_run(), "abc", path) for path in ("x", "/data/x"))
    assert store_run(tmp_path, first) == store_run(tmp_path, second)
    (record,) = read(tmp_path)
    assert record.run == first


def test_records_of_the_schema_before_are_read_under_their_names(tmp_path: Path) -> None:
    path = store_run(tmp_path, of_files(fake_run(), "", "x"), fid=1.0)
    for file in path.glob("*.json"):
        file.write_text(file.read_text().replace('"schema": 4', '"schema": 3'))
    (record,) = read(tmp_path)
    assert record.run.name == path.name
    assert record.run.dataset.values == {"path": "x", "size": 64}


# ---------------------------------------------------------------- copies


def test_a_copy_counts_once_and_is_told(tmp_path: Path) -> None:
    for seed in (0, 1):
        store_run(tmp_path / "runs", fake_run(seed=seed), fid=3.0 + seed)
    shutil.copytree(tmp_path / "runs", tmp_path / "old")
    records, lines = without_copies(read(tmp_path / "runs", tmp_path / "old"))
    assert sorted(row.value for row in rows(records) if row.value is not None) == [3.0, 4.0]
    assert lines == [f"2 runs lie in {tmp_path}/runs and {tmp_path}/old: counted once"]
    shutil.rmtree(tmp_path / "old")
    shutil.copytree(records[0].path, tmp_path / "runs" / "copy")
    records, lines = without_copies(read(tmp_path / "runs"))
    assert len(records) == 2
    assert lines == [f"1 run lies twice in {tmp_path}/runs: counted once"]


def test_what_one_copy_lacks_the_other_gives(tmp_path: Path) -> None:
    run = fake_run()
    store_run(tmp_path / "runs", run, fid=3.0, kid=1.0)
    store_run(tmp_path / "old", run, fid=3.0, sharpness=2.0)
    begun = store_run(tmp_path / "third", run)
    (begun / "weights.safetensors").unlink()  # an interrupted attempt
    (record,), _ = without_copies(read(tmp_path / "third", tmp_path / "runs", tmp_path / "old"))
    assert {row.metric: row.value for row in rows([record])} == {"fid": 3.0, "kid": 1.0, "sharpness": 2.0}


def test_copies_with_different_numbers_are_refused(tmp_path: Path) -> None:
    run = fake_run()
    first, second = (store_run(tmp_path / name, run, fid=value) for name, value in (("runs", 3.0), ("old", 3.5)))
    with pytest.raises(StoreError, match=r"with different numbers \(fid 3 and 3\.5\).*--by-folder"):
        without_copies(read(tmp_path / "runs", tmp_path / "old"))
    shutil.move(second, first.parent / "copy")
    with pytest.raises(StoreError, match=r"different numbers.*: move .*/copy away"):
        without_copies(read(tmp_path / "runs"))


def test_diff_says_that_a_copy_has_different_numbers(genbench: Callable[..., Result]) -> None:
    first, copy, altered = (
        str(store_run(Path(name), fake_run(), OLD, fid=fid, kid=1.0))
        for name, fid in (("runs", 3.0), ("copy", 3.0), ("altered", 3.5))
    )
    assert genbench("diff", first, copy).output.startswith("no difference")
    assert genbench("diff", first, altered).output.startswith("the same run with different numbers: fid\n")


COMMANDS = ("report", "curves --metric fid", "power --metric fid", "plot ranks --metric fid --out x.svg")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_averages_copies(genbench: Callable[..., Result], tmp_path: Path, command: str) -> None:
    for model in ("swae", "vae"):
        for seed in range(3):
            run = fake_run(model, seed)
            store_run(tmp_path / "runs", run, fid=3.0 + seed)
            store_run(tmp_path / "old", run, fid=3.5 + seed * seed)
    name, *options = command.split()
    kind = [options.pop(0)] if name == "plot" else []
    result = genbench(name, *kind, "runs", "old", *options)
    assert result.exit_code == 2
    assert "with different numbers (fid 3 and 3.5)" in result.output


def test_the_advice_of_the_refusal_compares_the_folders(genbench: Callable[..., Result]) -> None:
    before, after = Path("the old ones"), Path("runs")
    for seed in range(3):
        store_run(before, fake_run(seed=seed), fid=3.0 + seed)
        store_run(after, fake_run(seed=seed), fid=1.0 + seed * 1.1)
    refusal = genbench("report", str(before), str(after)).output
    command = shlex.split(refusal.partition("genbench report ")[2].strip())
    assert command == ["--by-folder", "the old ones", "runs"]
    result = genbench("report", *command)
    assert result.exit_code == 0
    assert f"swae in {before}" in result.output
    assert f"swae in {after}" in result.output
    assert genbench("report", "--by-folder", str(before)).exit_code == 2


# ---------------------------------------------------------------- older code and data


def variant(run: Run, source: str) -> Run:
    return replace(run, prior=replace(run.prior, fingerprint=source))


def test_the_newest_source_is_shown_and_the_rest_is_named(tmp_path: Path) -> None:
    moons = fake_run(prior="moons")
    for seed in (0, 1):
        store_run(tmp_path, variant(replace(moons, seed=seed), "first"), OLD, fid=3.0)
    store_run(tmp_path, variant(moons, "second"), NEW, fid=2.0)
    store_run(tmp_path, fake_run("vae"), OLD, fid=5.0)
    records, lines = newest(read(tmp_path))
    assert sorted((row.label, row.value) for row in rows(records)) == [("swae", 2.0), ("vae", 5.0)]
    assert lines == ["not shown: 2 runs of an earlier source of the prior 'moons'; --all-sources shows them"]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((OLD, NEW), ["swae (moons of 24 Nov 16:02)", "swae (moons of 25 Nov 09:10)"]),
        ((OLD, OLD.replace("02:00", "02:30")), ["swae (moons of 24 Nov 16:02:00)", "swae (moons of 24 Nov 16:02:30)"]),
        ((OLD, ""), ["swae (moons first)", "swae (moons second)"]),
    ],
)
def test_rows_that_differ_by_source_are_named_by_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: tuple[str, str], expected: list[str]
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    for source, started in zip(("first", "second"), times, strict=True):
        store_run(tmp_path, variant(fake_run(prior="moons"), source), started, fid=3.0)
    assert sorted(row.label for row in rows(read(tmp_path))) == expected


def test_changed_files_of_a_dataset_are_older_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_run(tmp_path, of_files(fake_run(), "abc", "data/grow"), OLD, fid=3.0)
    store_run(tmp_path, of_files(fake_run(), "abd", "data/grow"), NEW, fid=2.0)
    store_run(tmp_path, of_files(fake_run(), "abe", "data/other"), OLD, fid=1.0)
    records, (line,) = newest(read(tmp_path))
    assert sorted((row.dataset, row.value) for row in rows(records)) == [
        ("folder: grow", 2.0),
        ("folder: other", 1.0),
    ]
    assert line == "not shown: 1 run of earlier files of the dataset 'folder' (path=data/grow); --all-sources shows it"
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert sorted(row.dataset for row in rows(read(tmp_path))) == [
        "folder: grow, data of 24 Nov 16:02",
        "folder: grow, data of 25 Nov 09:10",
        "folder: other",
    ]


def test_runs_without_a_time_stay_and_attempts_displace_nothing(tmp_path: Path) -> None:
    for source in ("first", "second"):
        store_run(tmp_path / "a", variant(fake_run(), source), fid=3.0)
    records, lines = newest(read(tmp_path / "a"))
    assert (len(records), lines) == (2, [])
    store_run(tmp_path / "b", variant(fake_run(), "first"), OLD, fid=3.0)
    attempt = store_run(tmp_path / "b", variant(fake_run(), "second"), NEW)
    (attempt / "weights.safetensors").unlink()
    records, lines = newest(read(tmp_path / "b"))
    assert (len(records), lines) == (2, [])


def test_commands_show_all_sources_on_request(genbench: Callable[..., Result], tmp_path: Path) -> None:
    for source, started, value in (("first", OLD, 3.0), ("second", NEW, 2.0)):
        store_run(tmp_path / "runs", variant(fake_run(prior="moons"), source), started, fid=value)
    newest_alone, everything = genbench("report"), genbench("report", "--all-sources")
    assert "--all-sources shows it" in newest_alone.output
    assert "moons of" not in newest_alone.output
    assert everything.output.count("moons of") >= 2
    assert "not shown" not in everything.output


def test_runs_of_one_dataset_on_different_images_are_told(tmp_path: Path) -> None:
    for seed, content in enumerate(("old", "new", "new")):
        store_run(tmp_path, fake_run(seed=seed), content=content, fid=3.0)
    store_run(tmp_path, of_files(fake_run(), "abc", "x"), content="another dataset's", fid=3.0)
    (line,) = mixed_images(read(tmp_path))
    assert line.startswith("1 of 3 runs on 'folder' were trained on other images")


def test_two_folders_of_pictures_are_two_tables_titled_by_folder_and_size(
    genbench: Callable[..., Result], tmp_path: Path
) -> None:
    for path, size in (("faces", 64), ("flat", 32)):
        for model in ("swae", "vae"):
            options = (("path", path), ("size", size))
            run = fake_run(model, options=options, originals=f"bytes of {path}", paths=("path",))
            store_run(tmp_path / "runs", run, fid=3.0)
    titles = [line for line in genbench("report").output.splitlines() if " · 2 models" in line]
    assert sorted(title.partition(" · ")[0] for title in titles) == ["folder: faces, size 64", "folder: flat, size 32"]
