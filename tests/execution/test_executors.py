"""Executors: the same numbers wherever a run is done; what dies, hangs or is stopped costs itself alone."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import Result

from genbench.api import DataConfig
from genbench.errors import UsageError
from genbench.execution.executors import ray as ray_executor
from genbench.execution.executors import slurm
from genbench.execution.executors.choice import SERIAL, ExecutorConfig, create_executor
from genbench.execution.executors.process import how_it_ended, visible_gpus
from genbench.execution.executors.ray import check_address
from genbench.execution.runner import RunOutcome
from genbench.execution.scheduler import Outcome, WorkerError, run_all
from genbench.execution.worker import component_record, worker_spec
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, plan
from genbench.experiment.run import Run, component_of_record
from genbench.registry.loader import load
from genbench.storage.results import rows
from genbench.storage.run_dir import RunRecord, find_runs, read_run, read_runs
from genbench.training.callbacks import NullCallback
from genbench.training.loop import TrainState
from genbench.utils.io import load_tensors
from support.runners import runner_of

PLUGINS = [Path(__file__).parents[1] / "fixtures" / f"{name}.py" for name in ("dots", "slow")]
SLURM = {"cluster": "local"}


class Recorder(NullCallback):
    """Notes who began, who trained, who ended and how."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def on_run_start(self, run: Run, state: str) -> None:
        self.calls.append(("start", run.name))

    def on_log(self, run: Run, state: TrainState) -> None:
        self.calls.append(("log", run.name))

    def on_run_end(self, run: Run, status: str, problem: str) -> None:
        self.calls.append((status, run.name))


class Studies:
    """Commands on stores in one temporary folder."""

    def __init__(self, folder: Path, data_config: DataConfig, grid: Callable[..., ExperimentConfig]) -> None:
        self.folder, self.data_config, self.grid = folder, data_config, grid
        self.registry, self.recorder = load(PLUGINS), Recorder()

    def plan(self, *models: str, **fields: object) -> Plan:
        return plan(self.grid(models, **fields), self.registry, self.data_config)

    def run(
        self, store: str, planned: Plan, config: ExecutorConfig, stop: Callable[[], bool] = lambda: False
    ) -> Outcome:
        fields = {"callback": self.recorder, "stop": stop}
        runner = runner_of(planned, self.registry, self.folder / store, self.data_config, **fields)
        with create_executor(config, runner, len(planned.runs)) as executor:
            return run_all(planned, executor, runner)

    def records(self, store: str) -> list[RunRecord]:
        return read_runs(find_runs([self.folder / store]))[0]

    def numbers(self, store: str) -> list[tuple[str, str, float | None]]:
        return [(row.run, row.metric, row.value) for row in rows(self.records(store)) if not row.error]

    def weights(self, store: str) -> dict[str, dict[str, torch.Tensor]]:
        return {record.name: load_tensors(record.path / "weights.safetensors")[0] for record in self.records(store)}


@pytest.fixture
def studies(tmp_path: Path, data_config: DataConfig, grid: Callable[..., ExperimentConfig]) -> Studies:
    return Studies(tmp_path, data_config, grid)


def equal(a: dict[str, dict[str, torch.Tensor]], b: dict[str, dict[str, torch.Tensor]]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[run][name], b[run][name]) for run in a for name in a[run])


def test_workers_give_the_numbers_of_one_process_and_those_that_die_or_hang_cost_themselves(studies: Studies) -> None:
    planned = studies.plan("doomed", "stuck", "swae", "vae")
    outcome = studies.run("process", planned, ExecutorConfig(jobs=2, timeout=12.0))
    assert len(outcome.done) == 2
    problems = {name.split("-")[1]: problem for name, problem in outcome.failed.items()}
    assert problems["doomed"].startswith("worker died: the worker process was ended by SIGKILL")
    assert problems["stuck"].startswith("timeout: no end within 12 s (--run-timeout)")
    recorded = {folder.name.split("-")[1]: folder for folder in studies.records("process")}
    assert {name: folder.state for name, folder in recorded.items()} == {
        **dict.fromkeys(("doomed", "stuck"), "failed"),
        **dict.fromkeys(("swae", "vae"), "trained"),
    }
    assert recorded["doomed"].failure == problems["doomed"]
    assert "these are its last words" in (recorded["doomed"].path / "failure.json").read_text()
    ends = {name.split("-")[1]: what for what, name in studies.recorder.calls if what in ("done", "failed")}
    assert ends == {"doomed": "failed", "stuck": "failed", "swae": "done", "vae": "done"}
    studies.run("serial", studies.plan("swae", "vae"), SERIAL)
    assert studies.numbers("process") == studies.numbers("serial")


def test_a_stopped_study_saves_every_run_at_work_and_goes_on_to_the_same_weights(studies: Studies) -> None:
    planned, recorder = studies.plan("sleeper", seeds=(0, 1, 2), images=320), studies.recorder
    outcome = studies.run(
        "stopped",
        planned,
        ExecutorConfig(jobs=2),
        stop=lambda: len({name for what, name in recorder.calls if what == "log"}) == 2,
    )
    assert outcome.interrupted
    assert (outcome.done, outcome.failed) == ([], {})
    assert [what for what, _ in recorder.calls if what != "log"] == ["start", "start", "interrupted", "interrupted"]
    assert [folder.state for folder in studies.records("stopped")] == ["interrupted"] * 2
    assert not studies.run("stopped", planned, SERIAL).failed
    assert not studies.run("whole", planned, SERIAL).failed
    assert equal(studies.weights("stopped"), studies.weights("whole"))
    assert studies.numbers("stopped") == studies.numbers("whole")


def test_two_commands_on_one_store_do_no_run_twice(studies: Studies) -> None:
    planned = studies.plan("sleeper", seeds=(0, 1, 2), images=96)
    outcomes: list[Outcome] = []
    second = threading.Thread(target=lambda: outcomes.append(studies.run("store", planned, ExecutorConfig("process"))))
    second.start()
    outcomes.append(studies.run("store", planned, ExecutorConfig("process")))
    second.join()
    names = {run.name for run in planned.runs}
    assert {name for outcome in outcomes for name in outcome.done} == names
    assert not [outcome.failed for outcome in outcomes if outcome.failed]
    for folder in studies.records("store"):
        lines = (folder.path / "log.jsonl").read_text().splitlines()
        assert sum('"images": 96,' in line for line in lines) == 1


def test_slurm_jobs_give_the_numbers_of_one_process_and_a_death_is_recorded(studies: Studies) -> None:
    """On submitit's local executor: the same files and the same calls, without Slurm."""
    outcome = studies.run("slurm", studies.plan("doomed", "swae"), ExecutorConfig("slurm", options=SLURM))
    studies.run("serial", studies.plan("swae"), SERIAL)
    (problem,) = outcome.failed.values()
    assert problem.startswith("worker died: Slurm job")
    assert studies.numbers("slurm") == studies.numbers("serial")
    assert not list((studies.folder / "slurm").glob(".slurm-*"))
    (first,) = [what for what, name in studies.recorder.calls if "doomed" in name and what != "start"]
    assert first == "failed"


def test_stopped_slurm_jobs_save_their_state(studies: Studies) -> None:
    planned, recorder = studies.plan("sleeper", settings=("sleeper.pause=0.2",), images=800), studies.recorder
    config = ExecutorConfig("slurm", options=SLURM)
    outcome = studies.run("slurm", planned, config, stop=lambda: any(what == "log" for what, _ in recorder.calls))
    assert (outcome.interrupted, outcome.failed) == (True, {})
    assert [folder.state for folder in studies.records("slurm")] == ["interrupted"]


class Scripted:
    """An executor whose runs end as a function says."""

    in_process = False

    def __init__(self, end: Callable[[Run], RunOutcome | Exception]) -> None:
        self.end, self.runs, self.interrupts = end, list[Run](), 0

    def submit(self, runs: Sequence[Run]) -> Future[list[RunOutcome]]:
        self.runs += runs
        future: Future[list[RunOutcome]] = Future()
        ended = self.end(runs[0])
        if isinstance(ended, Exception):
            future.set_exception(ended)
        else:
            future.set_result([ended])
        return future

    def interrupt(self) -> None:
        self.interrupts += 1

    def shutdown(self) -> None:
        pass


def test_every_run_that_lacks_something_is_submitted_once_and_ends_as_its_future(studies: Studies) -> None:
    planned = studies.plan("ae", seeds=(0, 1, 2, 3, 4))
    ends = [RunOutcome("done"), RunOutcome("failed", "why"), RunOutcome("locked"), WorkerError("worker lost", "gone")]
    names = [run.name for run in planned.runs]
    executor = Scripted(lambda run: ends[names.index(run.name) - 1])
    fields = {"callback": studies.recorder, "stop": lambda: False}
    runner = runner_of(planned, studies.registry, studies.folder / "store", studies.data_config, **fields)
    outcome = run_all(planned, executor, runner, done={names[0]})
    assert [run.name for run in executor.runs] == names[1:]
    assert outcome == Outcome(
        [names[0]], [names[1]], {names[2]: "why", names[4]: "worker lost: gone"}, [names[3]], False
    )
    assert read_run(studies.folder / "store" / names[4]).failure == "worker lost: gone"
    assert executor.interrupts == 0


def test_after_a_stop_the_executor_is_notified_once(studies: Studies) -> None:
    planned = studies.plan("ae", seeds=(0, 1))
    executor = Scripted(lambda run: RunOutcome("interrupted"))
    runner = runner_of(planned, studies.registry, studies.folder / "store", studies.data_config, stop=lambda: True)
    assert run_all(planned, executor, runner) == Outcome(interrupted=True)
    assert executor.interrupts == 1


def test_workers_that_cannot_start_stop_the_study_once(studies: Studies) -> None:
    planned = studies.plan("ae", seeds=(0, 1, 2))
    first = planned.runs[0].name
    cause = WorkerError("worker failed", "the worker cannot start: no module x", stops=True)
    executor = Waiting(lambda run: cause)
    runner = runner_of(planned, studies.registry, studies.folder / "store", studies.data_config, stop=lambda: False)
    outcome = run_all(planned, executor, runner)
    assert outcome.failed == {first: str(cause)}
    assert outcome.stopped == str(cause)
    assert outcome.interrupted
    assert executor.interrupts == 1


class Waiting(Scripted):
    """An executor whose first run ends at once, and whose other runs wait for it to be interrupted."""

    def submit(self, runs: Sequence[Run]) -> Future[list[RunOutcome]]:
        if not self.runs:
            return super().submit(runs)
        self.runs += runs
        self.waiting = [*getattr(self, "waiting", []), Future[list[RunOutcome]]()]
        return self.waiting[-1]

    def interrupt(self) -> None:
        super().interrupt()
        for future in self.waiting:
            future.set_result([RunOutcome("interrupted")])


class Job:
    """A Slurm job that has ended with a result."""

    job_id, state = "7", "COMPLETED"

    def __init__(self, result: str) -> None:
        self.result = lambda: result

    def done(self) -> bool:
        return True

    def exception(self) -> None:
        return None


def test_slurm_workers_that_cannot_start_say_so(studies: Studies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm.signal, "signal", lambda *_: None)
    runner = runner_of(studies.plan("ae"), studies.registry, studies.folder / "store", studies.data_config)
    spec = replace(worker_spec(runner), plugins=["/nowhere/moons.py"])
    result = slurm.do_work(json.dumps(asdict(spec)), "[]", str(studies.folder))
    executor = object.__new__(slurm.SlurmExecutor)
    future: Future[list[RunOutcome]] = Future()
    assert executor._finish(Job(result), 1, future)
    error = future.exception()
    assert isinstance(error, WorkerError)
    assert error.stops
    assert "--plugin /nowhere/moons.py: there is no such file" in str(error)


def test_ray_workers_that_cannot_start_stop_the_study(studies: Studies, monkeypatch: pytest.MonkeyPatch) -> None:
    class RayError(Exception): ...

    def attempt(runs: Sequence[Run]) -> RunOutcome:
        raise RayError("The actor died because of an error raised in its creation task\nImportError: no module x")

    executor = object.__new__(ray_executor.RayExecutor)
    (run,) = (planned := studies.plan("ae")).runs
    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=type("RayTaskError", (RayError,), {}))
    executor._ray = SimpleNamespace(exceptions=exceptions)  # type: ignore[assignment]
    executor._runner = runner_of(planned, studies.registry, studies.folder / "store", studies.data_config)
    executor._mutex, executor._local, executor._waiting = threading.Lock(), threading.local(), 1
    executor._interrupted_at = float("inf")
    monkeypatch.setattr(executor, "_attempt", attempt)
    with pytest.raises(WorkerError, match="cannot start: ImportError: no module x") as error:
        executor._do([run])
    assert error.value.stops


def test_components_survive_the_way_to_a_worker(studies: Studies) -> None:
    planned = studies.plan("swae", metrics=("latent-w2",), settings=("swae.weight=3.5", "latent-w2.n=40"))
    for component in (*planned.metrics, planned.runs[0].model):
        assert component_of_record(component_record(component)) == component


def test_gpus_are_dealt_out_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker number k takes GPU k modulo their count."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert visible_gpus(torch.device("cuda")) == ["3", "5"]
    assert visible_gpus(torch.device("cuda:1")) == ["5"]
    assert visible_gpus(torch.device("cpu")) == []


def test_how_a_worker_ended_is_one_line() -> None:
    assert how_it_ended(-15, "") == "the worker process was ended by SIGTERM"
    assert how_it_ended(1, "Traceback\n  ...\nImportError: no such thing\n\n") == (
        "the worker process ended with status 1: ImportError: no such thing"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--executor", "serial", "--jobs", "2"), "does one run at a time"),
        (("--executor", "serial", "--run-timeout", "9"), "cannot end a run that is stuck"),
        (("--executor", "ray", "--jobs", "auto"), "give a number"),
        (("--jobs", "some"), "Invalid value for '--jobs'"),
        (("--executor-option", "gpus-per-run=0.5"), "needs --executor ray or --executor slurm"),
        (("--executor", "process", "--executor-option", "address=auto"), "--executor process takes none"),
        (("--executor", "ray", "--executor-option", "adress=auto"), "did you mean 'address'?"),
        (("--executor", "ray", "--executor-option", "address"), "it takes the form address=VALUE"),
        (("--executor", "ray", "--executor-option", "cpus-per-run=0"), "Expected float > 0.0"),
        (("--executor", "slurm", "--executor-option", "gpus-per-run=half"), "gpus-per-run=half: Expected int"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    genbench: Callable[..., Result], options: tuple[str, ...], message: str
) -> None:
    result = genbench("run", "ae", *options)
    assert result.exit_code == 2
    assert message in result.output


def test_auto_is_one_run_for_each_core(studies: Studies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    planned = studies.plan("ae")
    runner = runner_of(planned, studies.registry, studies.folder / "store", studies.data_config)
    with create_executor(ExecutorConfig(jobs="auto"), runner, 5) as executor:
        assert executor.in_process


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "auto"])
def test_a_cluster_that_does_not_answer_is_reported_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself tries for minutes. An address that Ray refuses by itself is left to it."""
    ray = SimpleNamespace(util=SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        with pytest.raises(UsageError, match="nothing answers at"):
            check_address(ray, address.format(port))  # type: ignore[arg-type]
        listening.listen()
        check_address(ray, address.format(port))  # type: ignore[arg-type]
    monkeypatch.delenv("RAY_ADDRESS")
    for valid in ("auto", "local", "nonsense"):
        check_address(ray, valid)  # type: ignore[arg-type]
