"""The list of runs, the names of runs, their removal, and the estimate of a study."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from click.testing import Result
from rich.console import Console

from genbench.errors import StoreError, UsageError
from genbench.execution.estimate import in_time
from genbench.experiment.run import Run
from genbench.registry.loader import load
from genbench.reporting.run_list import COLUMNS, render_runs
from genbench.storage.inventory import changed_components, list_runs, match_run, remove_run
from genbench.storage.lock import RunLockedError, is_locked, lock_run
from genbench.storage.run_dir import CHECKPOINT, FAILURE, RUN, WEIGHTS, RunFolder, find_runs
from support.mutations import sample_run
from support.studies import DOTS, TINY, study

Genbench = Callable[..., Result]
MODEL = "swae"


def begun(store: Path, file: str = "", **fields: object) -> tuple[Path, Run]:
    """The folder of a run that was begun; `file` makes its state, `fields` replace those of the run."""
    run = sample_run()
    run = replace(run, model=replace(run.model, name=MODEL), **fields)  # type: ignore[arg-type]
    folder = RunFolder(store / run.name)
    folder.path.mkdir(parents=True)
    folder.begin(run.record(), {"command": "genbench run"})
    if file:
        (folder.path / file).write_bytes(b"{}" * 50)
    return folder.path, run


@pytest.mark.parametrize(
    ("file", "state"), [("", "new"), (CHECKPOINT, "interrupted"), (WEIGHTS, "trained"), (FAILURE, "failed")]
)
def test_a_run_is_listed_with_its_state_and_size(tmp_path: Path, file: str, state: str) -> None:
    path, run = begun(tmp_path, file)
    (entry,) = list_runs([path])
    assert (entry.state, entry.run, entry.differs) == (state, run, ())
    assert entry.size == sum(each.stat().st_size for each in path.iterdir())


def test_runs_of_one_label_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    first, run = begun(tmp_path)
    second, _ = begun(tmp_path, images=run.images * 2)
    begun(tmp_path, seed=7)
    listed = {entry.path: entry.differs for entry in list_runs(find_runs([tmp_path]))}
    assert listed[first] == (f"images={run.images}",)
    assert listed[second] == (f"images={run.images * 2}",)
    assert sum(not differs for differs in listed.values()) == 1


@pytest.mark.parametrize(("spare", "dated"), [(0, True), (-1, False)])
def test_where_names_would_be_broken_the_list_leaves_out_the_dates(tmp_path: Path, spare: int, dated: bool) -> None:
    path, _ = begun(tmp_path)
    console = Console(width=len(path.name) + COLUMNS + spare, file=StringIO())
    with console.capture() as capture:
        render_runs(console, list_runs([path]))
    head, line, *_ = capture.get().splitlines()
    assert ("written" in head) is dated
    assert line.startswith(f"{path.name} ")


def test_a_run_at_work_is_listed_as_such_and_never_removed(tmp_path: Path, genbench: Genbench) -> None:
    path, _ = begun(tmp_path / "runs", CHECKPOINT)
    with lock_run(path):
        assert is_locked(path)
        assert list_runs([path])[0].state == "at work"
        with pytest.raises(RunLockedError):
            remove_run(path)
        result = genbench("rm", path.name, "--yes")
        assert result.exit_code == 1
        assert "a process works on it" in result.output
    assert path.is_dir()
    assert not is_locked(path)
    assert genbench("rm", path.name, "--yes").exit_code == 0
    assert list((tmp_path / "runs").iterdir()) == []


def test_nothing_is_removed_unless_somebody_agrees(tmp_path: Path, genbench: Genbench) -> None:
    path, _ = begun(tmp_path / "runs")
    result = genbench("rm", path.name)
    assert result.exit_code == 2
    assert "--yes" in result.output
    assert path.is_dir()


def test_only_a_run_folder_is_removed(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(StoreError, match="no run folder"):
        remove_run(tmp_path / "photos")
    assert (tmp_path / "photos").is_dir()


def test_a_damaged_run_is_listed_and_can_be_removed(tmp_path: Path, genbench: Genbench) -> None:
    path, _ = begun(tmp_path / "runs", WEIGHTS)
    (path / RUN).write_text("{")
    (entry,) = list_runs([path])
    assert (entry.state, entry.run) == ("damaged", None)
    assert "cannot be read" in entry.problem
    assert genbench("list", "runs").exit_code == 0
    assert genbench("rm", path.name, "--yes").exit_code == 0


def test_a_run_is_named_by_beginning_model_or_key_where_that_is_unique(tmp_path: Path) -> None:
    first, run = begun(tmp_path)
    second, _ = begun(tmp_path, images=run.images * 2)
    third, _ = begun(tmp_path, seed=7)
    assert match_run(third.name, tmp_path) == third
    assert match_run(third.name[:-3], tmp_path) == third
    assert match_run("s7", tmp_path) == third
    assert match_run(second.name.rpartition("-")[2][:6], tmp_path) == second
    assert match_run(str(first), tmp_path / "elsewhere") == first
    with pytest.raises(UsageError, match=f"'{MODEL}' fits 3 runs"):
        match_run(MODEL, tmp_path)
    with pytest.raises(UsageError, match="there is no run"):
        match_run("nothing", tmp_path)


def test_runs_of_another_source_are_pruned_and_those_of_absent_plugins_kept(tmp_path: Path, genbench: Genbench) -> None:
    registry, run = load(), sample_run()
    known = replace(
        run,
        dataset=replace(run.dataset, name="of-a-file-not-loaded"),
        **{
            kind: replace(
                getattr(run, kind),
                name=name,
                fingerprint=registry.get(kind, name).plugin.fingerprint,  # type: ignore[arg-type]
            )
            for kind, name in (("model", MODEL), ("prior", "normal"), ("network", "mlp"))
        },
    )
    older = replace(known, model=replace(known.model, fingerprint="0" * 12))
    assert changed_components(known, registry) == ()
    assert changed_components(older, registry) == (f"model {MODEL}",)
    for each in (known, older):
        folder = RunFolder(tmp_path / "runs" / each.name)
        folder.path.mkdir(parents=True)
        folder.begin(each.record(), {})
    result = genbench("prune", "--yes")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [known.name]


def test_the_plan_estimates_time_and_disk_from_done_runs_or_timed_steps(genbench: Genbench) -> None:
    fresh = study(genbench, "--dry-run").output.splitlines()[-1]
    assert fresh.startswith("estimate for 2 runs, one after another: training ")
    assert "latent-w2" in fresh
    study(genbench)
    more = study(genbench, "--seeds", "2", "--dry-run").output.splitlines()[-1]
    assert more.startswith("estimate for 2 runs, one after another: training 1 s and evaluation ")
    assert "not measured here yet" not in more
    assert "estimate" not in study(genbench, "--dry-run").output  # all are done


def test_the_list_as_json_says_what_the_table_says(tmp_path: Path, genbench: Genbench) -> None:
    genbench("run", "ae", *DOTS, *TINY, "--metrics", "reconstruction")
    (entry,) = (each.plain() for each in list_runs(find_runs([tmp_path / "runs"])))
    assert json.loads(json.dumps(entry)) == entry
    row = genbench("list", "runs").output.splitlines()[1]
    assert entry["run"] in row
    assert entry["state"] == "trained"
    assert "trained" in row


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.1, "1 s"), (59.6, "1 min"), (3600, "1 h"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")]
)
def test_a_duration_has_two_units(seconds: float, words: str) -> None:
    assert in_time(seconds) == words
