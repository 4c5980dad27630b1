"""Runs that are trained as an ensemble: each folder is that of a run trained alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from click.testing import Result

from genbench.api import DataConfig
from genbench.execution.executors.choice import ExecutorConfig
from genbench.execution.executors.process import ProcessExecutor
from genbench.execution.executors.serial import SerialExecutor
from genbench.execution.scheduler import Outcome, run_all, units
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, plan
from genbench.interface.config import StudyConfig
from genbench.interface.session import ensemble_size
from genbench.registry.loader import load
from genbench.storage.lock import lock_run
from genbench.storage.run_dir import RunFolder
from genbench.training.ensemble import Ensemble
from genbench.utils.io import load_tensors
from support.runners import runner_of
from support.studies import DOTS, TINY

FIXTURES = Path(__file__).parents[1] / "fixtures"
SMALL = ("mlp.width=20",)


class Store:
    """A folder of runs and the executor that fills it."""

    def __init__(self, folder: Path, data_config: DataConfig, grid: Callable[..., ExperimentConfig]) -> None:
        self.folder, self.data_config, self.grid = folder, data_config, grid
        self.registry = load([FIXTURES / "dots.py", FIXTURES / "faulty.py"])

    def plan(self, *models: str, **fields: object) -> Plan:
        return plan(
            self.grid(models, **{"settings": SMALL, "seeds": (0, 1, 2), **fields}), self.registry, self.data_config
        )

    def run(
        self,
        planned: Plan,
        store: str,
        ensemble: int | Literal["auto"],
        stop: Callable[[], bool] = lambda: False,
        jobs: int = 1,
    ) -> Outcome:
        runner = runner_of(planned, self.registry, self.folder / store, self.data_config, stop=stop, ensemble=ensemble)
        executor = ProcessExecutor(runner, jobs) if jobs > 1 else SerialExecutor(runner)
        try:
            return run_all(planned, executor, runner)
        finally:
            executor.shutdown()

    def record(self, store: str, name: str, file: str = "training.json") -> dict[str, object]:
        return dict(json.loads((self.folder / store / name / file).read_text()))

    def assert_close(self, planned: Plan, first: str, second: str) -> None:
        for run in planned.runs:
            expected, _ = load_tensors(self.folder / first / run.name / "weights.safetensors")
            actual, _ = load_tensors(self.folder / second / run.name / "weights.safetensors")
            for name, tensor in expected.items():
                assert float((actual[name] - tensor).abs().max()) < 1e-4, name


@pytest.fixture
def store(tmp_path: Path, data_config: DataConfig, grid: Callable[..., ExperimentConfig]) -> Store:
    return Store(tmp_path, data_config, grid)


def after(steps: int) -> Callable[[], bool]:
    asked = iter(range(1, 10**6))
    return lambda: next(asked) > steps


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_folder_is_that_of_a_run_trained_alone(store: Store, jobs: int) -> None:
    planned = store.plan("swae", snapshots=2, snapshot_metrics=("sharpness",))
    assert len(store.run(planned, "alone", 1).done) == 3
    outcome = store.run(planned, "stacked", 2, jobs=jobs)
    assert sorted(outcome.done) == sorted(run.name for run in planned.runs)
    store.assert_close(planned, "alone", "stacked")
    for run in planned.runs:
        alone, stacked = (RunFolder(store.folder / part / run.name) for part in ("alone", "stacked"))
        files = [sorted(str(p.relative_to(f.path)) for p in f.path.rglob("*")) for f in (alone, stacked)]
        assert files[0] == files[1]
        last = [json.loads((f.path / "log.jsonl").read_text().splitlines()[-1]) for f in (alone, stacked)]
        assert last[0].keys() == last[1].keys()
        assert last[1]["terms"] == pytest.approx(last[0]["terms"], rel=1e-3)
    assert [store.record("stacked", run.name)["ensemble"] for run in planned.runs] == [2, 2, 1]


def test_a_stop_saves_every_member_and_each_goes_on_alone_or_together(store: Store) -> None:
    planned = store.plan("swae")
    store.run(planned, "whole", 1)
    outcome = store.run(planned, "parts", 3, stop=after(8))
    assert outcome.interrupted
    assert {RunFolder(store.folder / "parts" / run.name).state for run in planned.runs} == {"interrupted"}
    first, *rest = planned.runs
    alone = store.plan("swae", seeds=(0,))
    assert store.run(alone, "parts", 1).done == [first.name]
    assert store.run(planned, "parts", 3).done == [run.name for run in rest]
    assert store.record("parts", rest[0].name)["ensemble"] == 2
    store.assert_close(planned, "whole", "parts")


def test_members_that_diverge_are_recorded_as_failed(store: Store) -> None:
    planned = store.plan("explodes", settings=())
    outcome = store.run(planned, "runs", 3)
    assert sorted(outcome.failed) == sorted(run.name for run in planned.runs)
    for run in planned.runs:
        failure = store.record("runs", run.name, "failure.json")
        assert failure["kind"] == "DivergenceError"
        assert "the loss is not finite (all)" in str(failure["message"])


def test_a_model_that_cannot_be_stacked_goes_one_by_one_and_says_why(store: Store) -> None:
    planned = store.plan("raises", settings=())
    outcome = store.run(planned, "runs", 3)
    assert len(outcome.failed) == 3
    failure = store.record("runs", planned.runs[0].name, "failure.json")
    assert failure["kind"] == "ZeroDivisionError"  # of the run's own training, as without ensembles


def test_a_member_that_another_command_works_on_is_left_to_it(store: Store) -> None:
    planned = store.plan("swae")
    first, *rest = (run.name for run in planned.runs)
    (store.folder / "runs" / first).mkdir(parents=True)
    with lock_run(store.folder / "runs" / first):
        outcome = store.run(planned, "runs", 3)
    assert (outcome.locked, outcome.done) == ([first], rest)


def test_units_hold_what_may_differ_in_seed_and_in_options_that_are_floats(store: Store) -> None:
    settings = ("swae.weight=1,10", "swae.cost=squared,bce-l1", "mlp.width=20")
    planned = store.plan("swae", "vae", settings=settings, seeds=(0, 1, 2))
    assert [len(unit) for unit in units(planned.runs, 1)] == [1] * 15
    assert sorted(len(unit) for unit in units(planned.runs, "auto")) == [3, 6, 6]
    assert sorted(len(unit) for unit in units(planned.runs, 4)) == [3, 3, 3, 3, 3]
    for unit in units(planned.runs, "auto"):
        assert len({run.model.values.get("cost") for run in unit}) == 1
    assert sorted(run.name for unit in units(planned.runs, 4) for run in unit) == sorted(r.name for r in planned.runs)


def test_options_that_cannot_be_stacked_leave_an_ensemble_for_each(store: Store) -> None:
    """The power of SWAE's distance is a float that decides which operation is done."""
    planned = store.plan("swae", settings=("swae.p=1,2", *SMALL), seeds=(0, 1))
    assert len(store.run(planned, "runs", 4).done) == 4
    assert {store.record("runs", run.name)["ensemble"] for run in planned.runs} == {2}


DROPOUT = """
from torch import nn
from genbench.api import ComponentSpec, Network
from genbench.hookspecs import hookimpl

class Dropping(Network):
    def __init__(self, shape):
        self.shape = shape

    def encoder(self, outputs):
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(144, outputs))

    def decoder(self, latent_dim):
        return nn.Sequential(nn.Linear(latent_dim, 144), nn.Unflatten(1, self.shape))

@hookimpl
def genbench_networks():
    return [ComponentSpec(name="dropping", description="For a test", factory=Dropping)]
"""


def test_the_command_tells_once_why_runs_go_alone(genbench: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "dropping.py").write_text(DROPOUT)
    words = ("--network", "dropping", "--plugin", "dropping.py", "--metrics", "reconstruction", "--seeds", "2")
    result = genbench("run", "ae", *DOTS, *TINY, *words, "--ensemble", "8")
    assert result.exit_code == 0, result.output
    reason = "it is not trained in an ensemble: it draws from torch's global random state"
    assert result.output.count(reason) == 1, result.output
    (log,) = (tmp_path / "runs").glob("*-s1-*/log.jsonl")
    assert reason.removeprefix("it is not trained in an ensemble: ") in log.read_text()


@pytest.mark.parametrize(("together", "how"), [(2.9, '"ensemble": 3'), (3.1, "no ensemble: a step of all takes")])
def test_auto_is_decided_by_measured_seconds(
    together: float, how: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "genbench.training.ensemble.step_seconds", lambda context: together if isinstance(context, Ensemble) else 1.0
    )
    planned = store.plan("ae", images=64)
    assert len(store.run(planned, "auto", "auto").done) == 3
    for run in planned.runs:
        folder = store.folder / "auto" / run.name
        assert how in (folder / "training.json").read_text() + (folder / "log.jsonl").read_text()


def test_auto_measures_on_a_gpu_alone_where_runs_go_one_after_another() -> None:
    gpu, study = torch.device("cuda"), StudyConfig(models=("ae",))
    assert ensemble_size(study, gpu, ExecutorConfig()) == "auto"
    assert ensemble_size(study, gpu, ExecutorConfig(jobs=2)) == 1
    assert ensemble_size(study, torch.device("cpu"), ExecutorConfig()) == 1
    assert ensemble_size(StudyConfig(models=("ae",), ensemble="off"), gpu, ExecutorConfig()) == 1
    assert ensemble_size(StudyConfig(models=("ae",), ensemble=7), torch.device("cpu"), ExecutorConfig()) == 7


def test_a_wrong_size_is_refused(genbench: Callable[..., Result]) -> None:
    result = genbench("run", "swae", "--ensemble", "0")
    assert result.exit_code == 2
    assert "--ensemble" in result.output
