"""Executors: the same numbers wherever a run is done; what dies, hangs or is stopped costs itself alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import Result

from genbench.api import DataConfig
from genbench.errors import UsageError
from genbench.execution.executors.process import gpu, last_words, local
from genbench.execution.executors.ray_connection import answered
from genbench.execution.executors.serial import serial
from genbench.execution.messages import choice_of, choice_record
from genbench.execution.runner import Runner
from genbench.execution.scheduler import Engine, Outcome, RunEvent, carry_out
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, plan
from genbench.experiment.run import Run
from genbench.registry.loader import load
from genbench.storage.results import rows
from genbench.storage.run_dir import find_runs, read_runs
from genbench.training.callbacks import NullCallback
from genbench.training.loop import TrainState
from genbench.utils.io import load_tensors

PLUGINS = [Path(__file__).parents[1] / "fixtures" / f"{name}.py" for name in ("dots", "slow")]


class Ears(NullCallback):
    """Notes what it is told: who began, who trained, who ended."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.name = ""

    def about(self, run: Run) -> None:
        self.name = run.name

    def began(self, index: int, total: int, run: Run, state: str) -> None:
        self.heard.append(("began", run.name))

    def trained(self, moment: TrainState) -> None:
        self.heard.append(("trained", self.name))

    def ended(self, run: Run, problem: str) -> None:
        self.heard.append(("ended", run.name))

    def paused(self, run: Run) -> None:
        self.heard.append(("paused", run.name))


class Studies:
    """Commands on stores in one temporary folder."""

    def __init__(self, folder: Path, place: DataConfig, grid: Callable[..., ExperimentConfig]) -> None:
        self.folder, self.place, self.grid = folder, place, grid
        self.registry, self.ears = load(PLUGINS), Ears()

    def plan(self, *models: str, **fields: object) -> Plan:
        return plan(self.grid(models, **fields), self.registry, self.place)

    def run(self, store: str, planned: Plan, engine: Engine, stop: Callable[[], bool] = lambda: False) -> Outcome:
        facts = {"command": "a test"}
        bench = Runner(self.registry, self.folder / store, self.place, torch.device("cpu"), facts, self.ears, stop)
        return bench.conduct(planned, engine)

    def numbers(self, store: str) -> list[tuple[str, str, float | None]]:
        return [
            (row.run, row.metric, row.value)
            for row in rows(read_runs(find_runs([self.folder / store]))[0])
            if not row.error
        ]

    def weights(self, store: str) -> dict[str, dict[str, torch.Tensor]]:
        return {
            folder.name: load_tensors(folder.path / "weights.safetensors")[0]
            for folder in read_runs(find_runs([self.folder / store]))[0]
        }


@pytest.fixture
def studies(tmp_path: Path, place: DataConfig, grid: Callable[..., ExperimentConfig]) -> Studies:
    return Studies(tmp_path, place, grid)


def same(one: dict[str, dict[str, torch.Tensor]], two: dict[str, dict[str, torch.Tensor]]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[r][k], two[r][k]) for r in one for k in one[r])


def test_workers_give_the_numbers_of_one_process_and_those_that_die_or_hang_cost_themselves(studies: Studies) -> None:
    outcome = studies.run("local", studies.plan("doomed", "stuck", "swae", "vae"), local(2, limit=4.0))
    studies.run("serial", studies.plan("swae", "vae"), serial)
    assert len(outcome.done) == 2
    problems = {name.split("-")[1]: problem for name, problem in outcome.failed.items()}
    assert problems["doomed"].startswith("worker died: the worker process was ended by SIGKILL")
    assert problems["stuck"].startswith("timeout: no end within 4 s (--run-timeout)")
    recorded = {folder.name.split("-")[1]: folder for folder in read_runs(find_runs([studies.folder / "local"]))[0]}
    assert {name: folder.state for name, folder in recorded.items()} == {
        **dict.fromkeys(("doomed", "stuck"), "failed"),
        **dict.fromkeys(("swae", "vae"), "trained"),
    }
    assert recorded["doomed"].failure == problems["doomed"]
    assert studies.numbers("local") == studies.numbers("serial")


def test_a_stopped_study_saves_every_run_at_work_and_goes_on_to_the_same_weights(studies: Studies) -> None:
    planned = studies.plan("sleeper", seeds=(0, 1, 2), images=320)
    outcome = studies.run(
        "stopped", planned, local(2), stop=lambda: len({n for what, n in studies.ears.heard if what == "trained"}) == 2
    )
    heard = studies.ears.heard
    assert outcome.interrupted
    assert (outcome.done, outcome.failed) == ([], {})
    assert [what for what, _ in heard if what != "trained"] == ["began", "began", "paused", "paused"]  # at once
    assert [folder.state for folder in read_runs(find_runs([studies.folder / "stopped"]))[0]] == ["interrupted"] * 2
    assert not studies.run("stopped", planned, serial).failed
    assert not studies.run("whole", planned, serial).failed
    assert same(studies.weights("stopped"), studies.weights("whole"))
    assert studies.numbers("stopped") == studies.numbers("whole")


def test_two_commands_on_one_store_do_no_run_twice(studies: Studies) -> None:
    planned = studies.plan("sleeper", seeds=(0, 1, 2), images=96)
    outcomes: list[Outcome] = []
    other = threading.Thread(target=lambda: outcomes.append(studies.run("one", planned, local(1))))
    other.start()
    outcomes.append(studies.run("one", planned, local(1)))
    other.join()
    names = {run.name for run in planned.runs}
    assert {name for outcome in outcomes for name in outcome.done} == names
    assert not [outcome.failed for outcome in outcomes if outcome.failed]
    for folder in read_runs(find_runs([studies.folder / "one"]))[0]:
        lines = (folder.path / "log.jsonl").read_text().splitlines()
        assert sum('"images": 96,' in line for line in lines) == 1


class Fake:
    """Takes two runs at once and does none before it is waited for."""

    capacity = 2

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.most = 0
        self.cancelled = 0

    def submit(self, run: Run) -> None:
        self.runs.append(run)
        self.most = max(self.most, len(self.runs))

    def wait(self, seconds: float) -> list[RunEvent]:
        run = self.runs.pop(0)
        return [
            RunEvent(run.name, "began"),
            RunEvent(run.name, "ended", {"problem": "", "interrupted": bool(self.cancelled)}),
        ]

    def cancel(self) -> None:
        self.cancelled += 1


def test_an_engine_gets_as_many_runs_as_it_takes_and_none_after_a_stop(studies: Studies) -> None:
    runs = studies.plan("ae", seeds=(0, 1, 2, 3, 4)).runs
    fake, outcome = Fake(), Outcome()
    carry_out(fake, runs, lambda run: "new", NullCallback(), lambda: False, outcome)
    assert (fake.most, len(outcome.done), outcome.interrupted) == (2, 5, False)
    fake, outcome, ears = Fake(), Outcome(), Ears()
    carry_out(fake, runs, lambda run: "new", ears, lambda: ("ended", runs[0].name) in ears.heard, outcome)
    assert (outcome.done, outcome.interrupted, fake.cancelled) == ([runs[0].name], True, 1)


def test_choices_survive_the_way_to_a_worker(studies: Studies) -> None:
    planned = studies.plan("swae", metrics=("latent-w2",), settings=("swae.weight=3.5", "latent-w2.n=40"))
    for choice in (*planned.metrics, planned.runs[0].model):
        assert choice_of(choice_record(choice)) == choice


def test_gpus_are_dealt_out_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [gpu({"device": "cuda"}, slot)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["3", "5", "3", "5"]
    assert gpu({"device": "cuda:1"}, 0) == {"CUDA_VISIBLE_DEVICES": "5"}
    assert gpu({"device": "cpu"}, 0) == {}


def test_how_a_worker_ended_is_one_line() -> None:
    assert last_words(-15, "") == "the worker process was ended by SIGTERM"
    assert last_words(1, "Traceback\n  ...\nImportError: no such thing\n\n") == (
        "the worker process ended with status 1: ImportError: no such thing"
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--executor", "serial", "--jobs", "2"), "does one run at a time"),
        (("--executor", "serial", "--run-timeout", "9"), "cannot end a run that is stuck"),
        (("--gpus-per-run", "0.5"), "say --executor ray"),
        (("--address", "auto", "--executor", "local"), "say --executor ray"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    genbench: Callable[..., Result], options: tuple[str, ...], told: str
) -> None:
    result = genbench("run", "ae", *options)
    assert (result.exit_code, told in result.output) == (2, True)


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "auto"])
def test_a_cluster_that_does_not_answer_is_told_of_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself tries for minutes. An address that Ray refuses by itself is left to it."""
    ray = SimpleNamespace(util=SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        with pytest.raises(UsageError, match="nothing answers at"):
            answered(ray, address.format(port))  # type: ignore[arg-type]
        listening.listen()
        answered(ray, address.format(port))  # type: ignore[arg-type]
    monkeypatch.delenv("RAY_ADDRESS")
    for other in ("auto", "local", "nonsense"):
        answered(ray, other)  # type: ignore[arg-type]
