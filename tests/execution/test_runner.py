"""A study: what is done is skipped, what fails is recorded and costs nothing else, a new metric needs no training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from PIL import Image

from genbench.api import DataConfig
from genbench.evaluation.measure import save_pictures
from genbench.execution.executors.serial import SerialExecutor
from genbench.execution.scheduler import Outcome, run_all
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, plan
from genbench.registry.loader import load
from genbench.storage.lock import lock_run
from genbench.storage.results import protocols, rows
from genbench.storage.run_dir import RunFolder, find_runs, read_runs
from genbench.utils.io import load_tensors
from support.runners import runner_of

FAULTY = Path(__file__).parents[1] / "fixtures" / "faulty.py"
DOTS = Path(__file__).parents[1] / "fixtures" / "dots.py"


class Study:
    """A store in a temporary folder, and commands on it."""

    def __init__(self, store: Path, data_config: DataConfig, grid: Callable[..., ExperimentConfig]) -> None:
        self.store, self.data_config, self.grid = store, data_config, grid
        self.registry = load([DOTS, FAULTY])

    def plan(self, *models: str, **fields: object) -> Plan:
        return plan(self.grid(models, **fields), self.registry, self.data_config)

    def run(self, *models: str, stop: Callable[[], bool] = lambda: False, **fields: object) -> Outcome:
        planned = self.plan(*models, **fields)
        runner = runner_of(planned, self.registry, self.store, self.data_config, stop=stop)
        return run_all(planned, SerialExecutor(runner), runner)


@pytest.fixture
def study(tmp_path: Path, data_config: DataConfig, grid: Callable[..., ExperimentConfig]) -> Study:
    return Study(tmp_path / "runs", data_config, grid)


def test_a_run_folder_holds_all_of_the_run(study: Study) -> None:
    assert len(study.run("swae", "vae").done) == 2
    for folder in read_runs(find_runs([study.store]))[0]:
        names = {path.name for path in folder.path.iterdir()}
        assert {"run.json", "log.jsonl", "weights.safetensors", "training.json", "metrics.json"} <= names
        assert {"samples.png", "reconstructions.png"} <= names
        assert "checkpoint.safetensors" not in names
        assert not [name for name in names if name.endswith(".part")]
        log = [json.loads(line) for line in (folder.path / "log.jsonl").read_text().splitlines()]
        assert log[-1]["images"] == 160


def test_finished_runs_are_skipped_and_a_new_metric_needs_no_training(study: Study) -> None:
    study.run("swae")
    before = (find_runs([study.store])[0] / "weights.safetensors").stat().st_mtime_ns
    again = study.run("swae")
    assert (len(again.skipped), again.done) == (1, [])
    measured = study.run("swae", metrics=("reconstruction", "sharpness"))
    assert len(measured.done) == 1
    (folder,) = read_runs(find_runs([study.store]))[0]
    assert (folder.path / "weights.safetensors").stat().st_mtime_ns == before
    assert {entry.metric for entry in folder.measurements.values()} == {"reconstruction", "sharpness"}


def test_numbers_do_not_depend_on_which_metrics_are_measured_together(study: Study, tmp_path: Path) -> None:
    apart, together = study, Study(tmp_path / "together", study.data_config, study.grid)
    settings = ("latent-w2.n=23", "latent-sw.n=60")
    for name in ("latent-w2", "latent-sw", "reconstruction"):
        chosen = tuple(s for s in settings if s.startswith(name))
        apart.run("vae", metrics=(name,), settings=chosen)
    together.run("vae", metrics=("reconstruction", "latent-sw", "latent-w2"), settings=settings)
    values = [{row.metric: row.value for row in rows(read_runs(find_runs([s.store]))[0])} for s in (apart, together)]
    assert values[0] == values[1]


def test_an_interrupted_study_goes_on_to_the_same_weights(study: Study, tmp_path: Path) -> None:
    study.run("wae-gan", seeds=(0, 1))
    second_study = Study(tmp_path / "other", study.data_config, study.grid)
    asked = iter(range(10**6))
    outcome = second_study.run("wae-gan", seeds=(0, 1), stop=lambda: next(asked) >= 7)
    assert outcome.interrupted
    assert read_runs(find_runs([second_study.store]))[0][0].state == "interrupted"
    assert not second_study.run("wae-gan", seeds=(0, 1)).interrupted
    for whole, resumed in zip(
        read_runs(find_runs([study.store]))[0], read_runs(find_runs([second_study.store]))[0], strict=True
    ):
        weights, _ = load_tensors(resumed.path / "weights.safetensors")
        expected, _ = load_tensors(whole.path / "weights.safetensors")
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        without_cost = [[r for r in rows([folder]) if not r.metric.startswith("speed")] for folder in (whole, resumed)]
        assert [row.value for row in without_cost[0]] == [row.value for row in without_cost[1]]


@pytest.mark.parametrize(
    ("model", "kind"),
    [("explodes", "DivergenceError"), ("raises", "ZeroDivisionError"), ("hungry", "out of memory")],
)
def test_a_run_that_fails_is_recorded_and_the_others_go_on(study: Study, model: str, kind: str) -> None:
    outcome = study.run(model, "ae")
    assert len(outcome.done) == 1
    (problem,) = outcome.failed.values()
    assert kind in problem.partition(": ")[0] or problem.partition(": ")[2].startswith(kind)  # after its place
    failed = next(row for row in rows(read_runs(find_runs([study.store]))[0]) if row.model == model)
    assert (failed.status, failed.value) == ("failed", None)
    assert kind in failed.error
    assert "\n" not in failed.error
    assert study.run(model, "ae").failed  # it is tried again, and what is done is not
    assert len(study.run(model, "ae").skipped) == 1
    if kind == "out of memory":
        assert "batch 16" in problem


def test_a_metric_that_fails_costs_no_other_number(study: Study) -> None:
    outcome = study.run("ae", metrics=("reconstruction", "broken-metric", "not-a-number"))
    (problem,) = outcome.failed.values()
    assert "broken-metric" in problem
    assert "not-a-number" in problem
    values = {row.metric: row for row in rows(read_runs(find_runs([study.store]))[0])}
    assert values["reconstruction.pixel"].value is not None
    assert values["broken-metric"].status == "failed"
    assert "not finite" in values["not-a-number"].error


def test_a_metric_that_yields_what_cannot_be_kept_costs_no_other_number(study: Study) -> None:
    outcome = study.run("ae", metrics=("reconstruction", "mute", "twice", "uncountable"))
    (problem,) = outcome.failed.values()
    assert "mute: it yields no number" in problem
    assert "twice: it yields two numbers" in problem
    assert "uncountable: the n is -1" in problem
    (value,) = {
        row.value for row in rows(read_runs(find_runs([study.store]))[0]) if row.metric == "reconstruction.pixel"
    }
    assert value is not None


def test_images_that_are_not_finite_are_no_black_images(study: Study) -> None:
    """Cast to uint8, NaN is 0: an FID of such samples would be a number like any other."""
    (problem,) = study.run("blind", metrics=("sharpness", "reconstruction")).failed.values()
    assert "not finite" in problem
    assert not [row for row in rows(read_runs(find_runs([study.store]))[0]) if row.value is not None]


def test_a_decoder_that_raises_costs_its_picture_and_nothing_else(tmp_path: Path) -> None:
    def raises(n: int) -> torch.Tensor:
        raise IndexError("no colour")

    image = torch.zeros(2, 1, 4, 4)
    evaluation = SimpleNamespace(
        samples=raises,
        most_samples=None,
        references=image,
        held_out=lambda n: image.to(torch.uint8),
        reconstructions=lambda n: image,
    )
    assert save_pictures(cast(Any, evaluation), RunFolder(tmp_path)) == ["pictures: IndexError: no colour"]
    assert (tmp_path / "reconstructions.png").exists()


def test_half_written_files_of_a_killed_process_are_removed(study: Study) -> None:
    study.run("ae")
    (folder,) = read_runs(find_runs([study.store]))[0]
    left = [folder.path / ".weights.safetensors.0a1b2c3d.part", folder.path / "snapshots" / ".1.safetensors.x.part"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    (folder.path / "metrics.json").unlink()
    study.run("ae")
    assert not [path for path in left if path.exists()]
    assert (folder.path / "metrics.json").exists()


def test_the_cost_of_a_training_is_facts_and_a_cpu_has_no_peak_memory(study: Study) -> None:
    """On a CPU only the process's memory is known, with whatever earlier runs left in it."""
    study.run("ae", metrics=("speed",))
    measured = {row.metric: row for row in rows(read_runs(find_runs([study.store]))[0])}
    assert {"speed.seconds", "speed.images-per-second", "speed.parameters"} <= measured.keys()
    assert "speed.peak-memory" not in measured
    assert {row.higher_is_better for row in measured.values()} == {None}


def test_global_state_set_by_a_plugin_does_not_reach_other_runs(study: Study, tmp_path: Path) -> None:
    study.run("ae")
    second_study = Study(tmp_path / "other", study.data_config, study.grid)
    second_study.run("vandal", "ae")
    assert torch.get_default_dtype() == torch.float32
    (alone,) = (
        row.value for row in rows(read_runs(find_runs([study.store]))[0]) if row.metric == "reconstruction.pixel"
    )
    beside = [
        row
        for row in rows(read_runs(find_runs([second_study.store]))[0])
        if row.model == "ae" and row.metric == "reconstruction.pixel"
    ]
    assert beside[0].value == alone


def test_a_run_in_work_elsewhere_is_left_alone(study: Study) -> None:
    run = study.plan("ae").runs[0]
    with lock_run(study.store / run.name):
        outcome = study.run("ae")
    assert (len(outcome.locked), outcome.failed) == (1, {})
    assert study.run("ae").done


def test_data_that_changed_under_a_run_are_refused(study: Study) -> None:
    study.run("ae")
    path = find_runs([study.store])[0] / "run.json"
    record = json.loads(path.read_text())
    record["provenance"]["content"] = "0" * 64
    path.write_text(json.dumps(record))
    (problem,) = study.run("ae", metrics=("sharpness",)).failed.values()
    assert "other data" in problem


def test_damaged_weights_are_refused_by_name(study: Study) -> None:
    study.run("ae")
    path = find_runs([study.store])[0] / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    (problem,) = study.run("ae", metrics=("sharpness",)).failed.values()
    assert "weights.safetensors is damaged" in problem


def test_every_number_has_a_protocol_that_says_how_it_was_measured(study: Study) -> None:
    study.run("ae", metrics=("reconstruction", "sharpness", "latent-sw"), settings=("latent-sw.n=50",))
    how = protocols(read_runs(find_runs([study.store]))[0])
    for row in rows(read_runs(find_runs([study.store]))[0]):
        assert how[row.protocol]["dataset"]
        assert row.n
        assert row.unit


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 32, 64])
def test_grey_and_colour_of_every_size(study: Study, size: int, channels: int) -> None:
    outcome = study.run(
        "wae-gan",
        network="conv",
        images=32,
        latent_dims=(4,),
        settings=(f"dots.size={size}", f"dots.channels={channels}"),
        metrics=("reconstruction", "sharpness"),
    )
    assert not outcome.failed
    with Image.open(find_runs([study.store])[0] / "samples.png") as picture:
        assert picture.size == (8 * (size + 2) + 2, 8 * (size + 2) + 2)


def test_seeds_are_paired_across_models(study: Study) -> None:
    """The same seed shows every model the same images and the same prior draws in the same order."""
    study.run("recorder-a", "recorder-b", seeds=(0, 1))
    seen = {
        (row.model, row.seed): row.value
        for row in rows(read_runs(find_runs([study.store]))[0])
        if row.metric == "reconstruction.pixel"
    }
    assert seen["recorder-a", 0] == seen["recorder-b", 0]
    assert seen["recorder-a", 0] != seen["recorder-a", 1]
