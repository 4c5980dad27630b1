"""Measuring beside the next training: the same numbers, each in its run's folder, and nothing lost on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import genbench_latent
from genbench.api import DataConfig, TrainingStats
from genbench.distances import exact_transport
from genbench.errors import MetricError
from genbench.evaluation.evaluation import RunEvaluation
from genbench.execution.runner import Runner
from genbench.execution.scheduler import Outcome
from genbench.experiment.build import create_context, create_dataset, create_model
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, plan
from genbench.experiment.run import Run
from genbench.registry.loader import load
from genbench.storage.lock import RunLockedError, lock_run
from genbench.storage.results import rows
from genbench.storage.run_dir import find_runs, read_runs
from genbench.training.callbacks import NullCallback
from genbench.training.loop import TrainState
from genbench_latent import LatentW2

PLUGINS = [Path(__file__).parents[1] / "fixtures" / name for name in ("dots.py", "faulty.py")]
METRICS = ("latent-w2", "reconstruction", "latent-sw")
SETTINGS = ("latent-w2.n=40", "latent-w2.replicates=2", "latent-sw.n=40", "latent-sw.replicates=2")


class Ears(NullCallback):
    """Notes what it is told, and calls `when` at each of it."""

    def __init__(self, when: Callable[[str, str], None] = lambda what, run: None) -> None:
        self.heard: list[tuple[str, str]] = []
        self.name, self.when = "", when

    def note(self, what: str) -> None:
        self.heard.append((what, self.name))
        self.when(what, self.name)

    def about(self, run: Run) -> None:
        self.name = run.name

    def began(self, index: int, total: int, run: Run, state: str) -> None:
        self.note("began")

    def trained(self, moment: TrainState) -> None:
        self.note("trained")

    def ended(self, run: Run, problem: str) -> None:
        self.note("ended")


class Study:
    """Commands on stores in one temporary folder, all on a CPU."""

    def __init__(self, folder: Path, place: DataConfig, grid: Callable[..., ExperimentConfig]) -> None:
        self.folder, self.place, self.grid = folder, place, grid
        self.registry = load(PLUGINS)

    def plan(self, *models: str, metrics: tuple[str, ...] = METRICS, **fields: object) -> Plan:
        settings = tuple(text for text in SETTINGS if text.split(".")[0] in metrics)
        return plan(self.grid(models, metrics=metrics, settings=settings, **fields), self.registry, self.place)

    def run(
        self, store: str, planned: Plan, beside: bool, ears: Ears | None = None, stop: Callable[[], bool] | None = None
    ) -> Outcome:
        bench = Runner(
            *(self.registry, self.folder / store, self.place, torch.device("cpu"), {"command": "a test"}),
            *(ears or Ears(), stop or (lambda: False)),
            beside=beside,
        )
        return bench.conduct(planned)

    def rows(self, store: str) -> list[tuple[str, str, float | None]]:
        found = rows(read_runs(find_runs([self.folder / store]))[0])
        return [(row.run, row.metric, row.value) for row in found if not row.metric.startswith("speed")]

    def entries(self, store: str) -> dict[str, object]:
        return {folder.name: folder.measurements for folder in read_runs(find_runs([self.folder / store]))[0]}


@pytest.fixture
def study(tmp_path: Path, place: DataConfig, grid: Callable[..., ExperimentConfig]) -> Study:
    return Study(tmp_path, place, grid)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Open, or whole samples are not transported on any thread but this one."""
    event, here = threading.Event(), threading.current_thread()

    def gated(*given: object) -> object:
        assert threading.current_thread() is here or event.wait(60)
        return exact_transport(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(genbench_latent, "exact_transport", gated)
    yield event
    event.set()


def test_the_numbers_are_those_of_the_foreground_and_the_next_run_trains_meanwhile(
    study: Study, gate: threading.Event
) -> None:
    planned = study.plan("vae", "ae", seeds=(0, 1), controls=("noise", "pca"))
    first, second = planned.runs[0].name, planned.runs[1].name

    def open_gate(what: str, run: str) -> None:
        if what == "trained" and run == second:
            with pytest.raises(RunLockedError), lock_run(study.folder / "beside" / first):
                pass  # it stays claimed until its numbers are written
            gate.set()

    ears = Ears(open_gate)
    outcome = study.run("beside", planned, True, ears)
    assert gate.is_set()
    assert sorted(outcome.done) == sorted(run.name for run in planned.runs)
    assert ears.heard.index(("trained", second)) < ears.heard.index(("ended", first))
    study.run("before", planned, False)
    assert study.entries("beside") == study.entries("before")
    assert study.rows("beside") == study.rows("before")
    with lock_run(study.folder / "beside" / first):
        pass


def test_a_failing_run_loses_no_number_of_the_one_before(study: Study, gate: threading.Event) -> None:
    planned = study.plan("ae", "raises")
    ears = Ears(lambda what, run: gate.set() if (what, run) == ("ended", planned.runs[1].name) else None)
    threading.Timer(20.0, gate.set).start()
    outcome = study.run("beside", planned, True, ears)
    assert (outcome.done, list(outcome.failed)) == ([planned.runs[0].name], [planned.runs[1].name])
    assert len(study.entries("beside")[planned.runs[0].name]) == len(METRICS)


def test_what_fails_beside_is_recorded_as_it_would_be(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> object:
        raise MetricError("no transport today")

    monkeypatch.setattr(genbench_latent, "exact_transport", fails)
    planned = study.plan("ae", "vae", metrics=("latent-w2", "broken-metric"))
    outcome = [study.run(store, planned, store == "beside") for store in ("beside", "before")]
    both = [{run: set(problem.split("; ")) for run, problem in each.failed.items()} for each in outcome]
    assert both[0] == both[1]
    assert all(len(problems) == 2 for problems in both[0].values())
    assert all(problem.count("latent-w2: no transport today") == 1 for problem in outcome[0].failed.values())
    assert study.entries("beside") == study.entries("before")


def test_an_interrupted_study_keeps_what_was_measured_beside(study: Study, gate: threading.Event) -> None:
    planned = study.plan("ae", "vae")
    stopped = threading.Event()

    def interrupt(what: str, run: str) -> None:
        if what == "trained" and run == planned.runs[1].name:
            stopped.set()
            gate.set()

    outcome = study.run("beside", planned, True, Ears(interrupt), stopped.is_set)
    assert outcome.interrupted
    assert outcome.done == [planned.runs[0].name]
    assert len(study.entries("beside")[planned.runs[0].name]) == len(METRICS)
    assert not study.run("beside", planned, True).interrupted
    study.run("before", planned, False)
    assert study.entries("beside") == study.entries("before")


def test_an_error_that_ends_the_command_gives_the_folders_free(study: Study, gate: threading.Event) -> None:
    planned = study.plan("ae", "vae")

    def interrupt(what: str, run: str) -> None:
        if what == "trained" and run == planned.runs[1].name:
            gate.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupted:  # bound: what its frames hold is not freed by chance
        study.run("beside", planned, True, Ears(interrupt))
    for run in planned.runs:
        with lock_run(study.folder / "beside" / run.name):
            pass
    assert interrupted.tb
    study.run("beside", planned, True)
    study.run("before", planned, False)
    assert study.entries("beside") == study.entries("before")


def test_a_detached_measurement_cannot_have_the_model(study: Study) -> None:
    run = study.plan("ae").runs[0]
    images = create_dataset(study.registry, run.dataset).load(study.place)
    record = TrainingStats(0.0, 0, 0, "cpu", 1)
    evaluation = RunEvaluation(
        *(create_model(study.registry, run, images.shape), create_context(study.registry, run, images.shape), images),
        seed=0,
        device=torch.device("cpu"),
        training=record,
        place=study.place,
        memory={},
    )
    expected = [number.value for number in LatentW2(n=40, replicates=2).measure(evaluation)]
    rest = LatentW2(n=40, replicates=2).detached(evaluation)
    evaluation.forget()
    assert [number.value for number in rest()] == expected
    with pytest.raises(MetricError, match="asks for the model"):
        evaluation.codes(40)
