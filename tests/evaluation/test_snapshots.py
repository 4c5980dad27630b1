"""Snapshots change nothing, survive interruption, see no test image; a selection is made on validation images alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from genbench.api import DataConfig, TrainingStats
from genbench.errors import GenbenchError, MetricError, UsageError
from genbench.evaluation.selection import select_snapshot
from genbench.evaluation.snapshots import check_stored_snapshots
from genbench.execution.executors.serial import SerialExecutor
from genbench.execution.scheduler import Outcome, run_all
from genbench.experiment.build import create_dataset, create_model
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, plan
from genbench.registry.loader import load
from genbench.storage.results import Row, protocols, rows
from genbench.storage.run_dir import find_runs, read_runs
from genbench.storage.schema import SnapshotRecord
from genbench.utils.io import load_tensors
from support.runners import runner_of

PLUGINS = [Path(__file__).parents[1] / "fixtures" / name for name in ("dots.py", "planted.py", "faulty.py")]


class Study:
    """A store in a temporary folder, and commands on it."""

    def __init__(self, store: Path, data_config: DataConfig, grid: Callable[..., ExperimentConfig]) -> None:
        self.store, self.data_config, self.grid = store, data_config, grid
        self.registry = load(PLUGINS)

    def plan(self, *models: str, **fields: object) -> Plan:
        return plan(self.grid(models, **fields), self.registry, self.data_config)

    def run(self, *models: str, stop: Callable[[], bool] = lambda: False, **fields: object) -> Outcome:
        planned = self.plan(*models, **fields)
        runner = runner_of(planned, self.registry, self.store, self.data_config, stop=stop)
        return run_all(planned, SerialExecutor(runner), runner)

    def rows(self, stage: str = "snapshot") -> list[Row]:
        return [row for row in rows(read_runs(find_runs([self.store]))[0]) if row.stage == stage]


@pytest.fixture
def study(tmp_path: Path, data_config: DataConfig, grid: Callable[..., ExperimentConfig]) -> Study:
    return Study(tmp_path / "runs", data_config, grid)


@pytest.fixture
def second_study(tmp_path: Path, data_config: DataConfig, grid: Callable[..., ExperimentConfig]) -> Study:
    return Study(tmp_path / "other", data_config, grid)


SNAPSHOT_80 = Path("snapshots", "0000000080.safetensors")


def weights(path: Path) -> dict[str, Tensor]:
    return load_tensors(path)[0]


def equal(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def plain(row: Row) -> tuple[object, ...]:
    """A row without what depends on the clock."""
    return row.run, row.stage, row.split, row.metric, row.images, row.flops, row.value, row.protocol, row.status


def after(steps: int) -> Callable[[], bool]:
    asked: Iterator[int] = iter(range(10**6))
    return lambda: next(asked) >= steps


@pytest.mark.parametrize("model", ["wae-gan", "vae"])
def test_snapshots_change_neither_the_run_nor_its_weights(model: str, study: Study, second_study: Study) -> None:
    study.run(model, network="normed")
    second_study.run(model, network="normed", snapshots=5)
    (bare,), (followed,) = find_runs([study.store]), find_runs([second_study.store])
    assert bare.name == followed.name
    assert equal(bare / "weights.safetensors", followed / "weights.safetensors")
    ends = [[row.value for row in s.rows("final") if row.metric] for s in (study, second_study)]
    assert ends[0] == ends[1]


def test_a_snapshot_is_what_a_run_of_so_many_images_ends_with(study: Study, second_study: Study) -> None:
    study.run("swae", snapshots=5)
    second_study.run("swae", images=64)
    (long,), (short,) = read_runs(find_runs([study.store]))[0], read_runs(find_runs([second_study.store]))[0]
    assert [path.name for path in sorted((long.path / "snapshots").iterdir())] == [
        f"{images:010}.safetensors" for images in (32, 64, 96, 128)
    ]
    assert equal(long.folder.snapshot_weights(64), short.path / "weights.safetensors")


def test_rows_of_snapshots_say_what_they_cost_and_stand_in_no_table(study: Study) -> None:
    study.run("ae", snapshots=4, metrics=("reconstruction", "latent-sw"), settings=("latent-sw.n=20",))
    snapshot_rows = [row for row in study.rows() if row.metric == "reconstruction.pixel"]
    assert [row.images for row in snapshot_rows] == [32, 80, 128, 160]  # 10 steps, a quarter of them each
    assert {row.split for row in study.rows()} == {"validation"}
    per_image = {(row.flops or 0.0) / row.images for row in snapshot_rows}
    assert len(per_image) == 1
    (end,) = (row for row in study.rows("final") if row.metric == "reconstruction.pixel")
    assert (end.split, end.images, end.flops, end.seconds) == (
        "test",
        160,
        snapshot_rows[-1].flops,
        snapshot_rows[-1].seconds,
    )
    seconds = [row.seconds or 0.0 for row in snapshot_rows]
    assert seconds == sorted(seconds)
    assert not [row for row in study.rows() if row.metric.startswith("latent")]  # the first metric alone
    assert {row.protocol for row in study.rows()} <= protocols(read_runs(find_runs([study.store]))[0]).keys()


@pytest.mark.parametrize("stop", [3, 9, 14, 17])
def test_an_interrupted_study_ends_with_the_same_snapshots_and_rows(
    stop: int, study: Study, second_study: Study
) -> None:
    options: dict[str, object] = {"snapshots": 5, "select": "planted", "metrics": ("reconstruction",)}
    study.run("wae-gan", **options)
    assert second_study.run("wae-gan", stop=after(stop), **options).interrupted
    assert second_study.run("wae-gan", **options).done
    (first,), (second,) = read_runs(find_runs([study.store]))[0], read_runs(find_runs([second_study.store]))[0]
    for images in (32, 64, 96, 128):
        assert equal(first.folder.snapshot_weights(images), second.folder.snapshot_weights(images))
    everything = [[plain(row) for row in rows(read_runs(find_runs([s.store]))[0])] for s in (study, second_study)]
    assert everything[0] == everything[1]
    assert second_study.run("wae-gan", **options).skipped


def test_a_new_metric_is_measured_on_old_snapshots(study: Study) -> None:
    study.run("ae", snapshots=2)
    before = (find_runs([study.store])[0] / SNAPSHOT_80).stat().st_mtime_ns
    assert study.run("ae", snapshots=2, snapshot_metrics=("planted",)).done
    assert (find_runs([study.store])[0] / SNAPSHOT_80).stat().st_mtime_ns == before
    assert {row.metric for row in study.rows()} == {"reconstruction.pixel", "reconstruction.image", "planted"}
    assert study.run("ae", snapshots=2, snapshot_metrics=("planted",)).skipped


# ---------------------------------------------------------------- selection


def test_the_planted_best_is_selected_without_a_look_at_the_test_images(study: Study) -> None:
    study.run("ae", seeds=(0, 1), snapshots=5, metrics=("reconstruction", "planted"), select="planted")
    assert {row.n for row in study.rows() if row.metric == "planted"} == {0}  # no test image was in reach
    chosen = study.rows("selected")
    assert {row.images for row in chosen} == {64}
    assert {row.split for row in chosen} == {"test"}
    assert [row.value for row in chosen if row.metric == "planted"] == [96, 96]  # the end, 0, would be the best on test
    assert not [row for row in study.rows("final") if row.metric]  # the test value is shown once
    selection = next(iter(read_runs(find_runs([study.store]))[0][0].selections.values()))
    assert (selection.by, selection.images, selection.value, selection.candidates) == ("planted", 64, 0.0, 5)


def test_the_selected_numbers_are_those_of_the_selected_weights(study: Study, second_study: Study) -> None:
    study.run("swae", snapshots=5, select="planted")
    second_study.run("swae", images=64)
    (chosen,) = (row.value for row in study.rows("selected") if row.metric == "reconstruction.pixel")
    (end,) = (row.value for row in second_study.rows("final") if row.metric == "reconstruction.pixel")
    assert chosen == end


def test_ends_and_selections_of_one_training_are_two_groups(study: Study) -> None:
    study.run("ae", snapshots=5)
    study.run("ae", snapshots=5, select="planted")
    groups = {row.stage: (row.group, row.label) for row in rows(read_runs(find_runs([study.store]))[0])}
    assert groups["selected"] != groups["final"]
    assert groups["selected"][1].endswith("selected by planted")


def snapshot(images: int, value: float | None) -> SnapshotRecord:
    """A snapshot measured by the metric `k`; None: it failed."""
    number = {
        "value": value,
        "higher_is_better": True,
        "unit": "",
        "n": 1,
        "protocol": "p",
        "component": "",
        "role": "",
        "label": "",
    }
    known = number | dict.fromkeys(("floor", "floor_sd", "se", "low", "high", "p_value", "minimum_detectable_effect"))
    entry = {"metric": "k", "options": {}, "split": "validation"}
    entry |= {"error": "not finite"} if value is None else {"numbers": [known | {"how": {}}]}
    cost = {"step": 1, "images": images, "seconds": 1.0, "flops": None}
    return msgspec.convert(cost | {"measurements": {"k": entry}}, SnapshotRecord)


def test_the_earliest_of_equals_is_selected_and_a_lacking_number_selects_nothing() -> None:
    snapshots = [snapshot(images, 1.0) for images in (20, 10, 30)]
    assert select_snapshot(snapshots, "k", "m").images == 10
    snapshots[2] = snapshot(30, 2.0)
    assert select_snapshot(snapshots, "k", "m").images == 30
    snapshots[1] = snapshot(10, None)
    with pytest.raises(MetricError, match="after 10 images: not finite"):
        select_snapshot(snapshots, "k", "m")


def test_a_metric_that_fails_at_a_snapshot_selects_nothing_and_is_reported(study: Study) -> None:
    (problem,) = study.run("ae", snapshots=2, select="not-a-number").failed.values()
    assert "not-a-number after 80 images" in problem
    assert "nothing is selected" in problem
    assert not read_runs(find_runs([study.store]))[0][0].selections


# ---------------------------------------------------------------- refusals


def test_a_run_trained_without_snapshots_is_not_trained_anew(study: Study) -> None:
    study.run("ae")
    planned = study.plan("ae", snapshots=4)
    (line,) = check_stored_snapshots(study.store, planned.runs, planned.snapshots)
    assert "1 of 1 runs were trained" in line
    before = (find_runs([study.store])[0] / "weights.safetensors").stat().st_mtime_ns
    assert study.run("ae", snapshots=4).done
    assert (find_runs([study.store])[0] / "weights.safetensors").stat().st_mtime_ns == before
    assert list(read_runs(find_runs([study.store]))[0][0].snapshots) == ["160"]  # its end alone
    planned = study.plan("ae", snapshots=4, select="planted")
    with pytest.raises(UsageError, match="another folder"):
        check_stored_snapshots(study.store, planned.runs, planned.snapshots)
    (problem,) = study.run("ae", snapshots=4, select="planted").failed.values()
    assert "1 of 4 snapshots were kept" in problem


def test_snapshots_that_an_interrupted_run_passed_are_reported_as_missing(study: Study) -> None:
    study.run("ae", stop=after(6))
    planned = study.plan("ae", snapshots=5)
    assert len(check_stored_snapshots(study.store, planned.runs, planned.snapshots)) == 1
    assert study.run("ae", snapshots=5).done
    assert list(read_runs(find_runs([study.store]))[0][0].snapshots) == ["96", "128", "160"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"select": "planted"}, "--select planted: needs snapshots"),
        ({"snapshot_metrics": ("planted",)}, "--snapshot-metrics: needs snapshots"),
        ({"snapshots": 1, "select": "planted"}, "one snapshot leaves no choice"),
        ({"snapshots": 11}, "a run has 10 steps"),
        ({"snapshots": 2, "metrics": ()}, "nothing to measure"),
        ({"snapshots": 2, "select": "nothing"}, "no metric 'nothing'"),
        ({"snapshots": 2, "snapshot_metrics": ("latent-sw",)}, "on the 20 validation images"),
        ({"snapshots": 2, "dataset": "unsplit"}, "--set unsplit.validation=10"),
    ],
)
def test_impossible_snapshots_are_refused_while_planning(fields: dict[str, object], words: str, study: Study) -> None:
    with pytest.raises(GenbenchError, match=words):
        study.plan("ae", **fields)


def test_training_images_set_aside_make_another_run_that_can_have_snapshots(study: Study) -> None:
    planned = study.plan("ae", snapshots=2, dataset="unsplit", settings=("unsplit.validation=10",))
    assert planned.runs[0].key != study.plan("ae", dataset="unsplit").runs[0].key
    assert study.plan("ae", snapshots=2).runs == study.plan("ae").runs


def test_a_damaged_snapshot_is_refused_by_name(study: Study) -> None:
    study.run("ae", snapshots=2)
    path = find_runs([study.store])[0] / SNAPSHOT_80
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    (problem,) = study.run("ae", snapshots=2, snapshot_metrics=("planted",)).failed.values()
    assert "0000000080.safetensors is damaged" in problem


def test_the_draws_of_a_choice_are_not_those_of_its_result(study: Study) -> None:
    """A snapshot that was selected for lucky samples must not be measured by the same samples."""
    planned = study.plan("ae")
    run, runner = planned.runs[0], runner_of(planned, study.registry, study.store, study.data_config)
    runner.images = images = create_dataset(study.registry, run.dataset).load(study.data_config)
    model, cost = create_model(study.registry, run, images.shape), TrainingStats(1.0, 160, 1, "cpu", 1)
    test, validation, again = (
        runner.evaluation(run, model, cost, split).prior_draws(9, "samples")
        for split in ("test", "validation", "validation")
    )
    assert not torch.equal(test, validation)
    assert torch.equal(validation, again)
