"""Runs trained in turns in one process end as they would alone, and whatever befalls one of them befalls no other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result

from genbench.api import DataConfig
from genbench.cli.engines import Chosen, advice
from genbench.execution.executors.serial import serial
from genbench.execution.executors.together import together
from genbench.execution.runner import Runner
from genbench.execution.scheduler import Engine, Outcome
from genbench.experiment.plan import ExperimentConfig, Plan, plan
from genbench.experiment.run import Run
from genbench.registry.loader import load
from genbench.storage.lock import RunLockedError, lock_run
from genbench.storage.results import rows
from genbench.storage.run_dir import find
from genbench.training.callbacks import LEFT, NullCallback
from genbench.training.loop import TrainState
from genbench.utils.io import load_tensors

FOLDER = Path(__file__).parents[1] / "fixtures"
PLUGINS = [FOLDER / "dots.py", FOLDER / "meddling.py"]
METRICS = ("reconstruction", "dice", "latent-sw")
SETTINGS = ("latent-sw.n=40", "latent-sw.replicates=2")


class Ears(NullCallback):
    """Notes what it is told and of which run, and calls `when` at each of it."""

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

    def measuring(self, metric: str) -> None:
        self.note("measuring")

    def ended(self, run: Run, problem: str) -> None:
        self.note("ended")

    def paused(self, run: Run) -> None:
        self.note("paused")


class Studies:
    """Commands on stores in one temporary folder."""

    def __init__(self, folder: Path, place: DataConfig, grid: Callable[..., ExperimentConfig]) -> None:
        self.folder, self.place, self.grid = folder, place, grid
        self.registry = load(PLUGINS)

    def plan(self, *models: str, metrics: tuple[str, ...] = METRICS, **fields: object) -> Plan:
        settings = SETTINGS if "latent-sw" in metrics else ()
        return plan(self.grid(models, metrics=metrics, settings=settings, **fields), self.registry, self.place)

    def run(
        self,
        store: str,
        planned: Plan,
        engine: Engine,
        ears: Ears | None = None,
        stop: Callable[[], bool] = lambda: False,
        beside: bool = False,
    ) -> Outcome:
        facts, cpu = {"command": "a test"}, torch.device("cpu")
        bench = Runner(self.registry, self.folder / store, self.place, cpu, facts, ears or Ears(), stop, beside=beside)
        return bench.conduct(planned, engine)

    def found(self, store: str) -> dict[str, dict[str, Any]]:
        """All that is known of each run but for what it cost: weights to the last bit, numbers, moments, failures."""
        return {
            folder.name: {
                "state": folder.state,
                "failure": folder.failure().partition(" within ")[0],  # the clock decides which step tells of it
                "measurements": folder.measurements(),
                "weights": {
                    str(path.relative_to(folder.path)): {
                        name: tensor.numpy().tobytes() for name, tensor in load_tensors(path)[0].items()
                    }
                    for path in sorted(folder.path.rglob("*.safetensors"))
                },
                "moments": {
                    images: entry["measurements"]
                    for path in folder.path.glob("snapshots.json")
                    for images, entry in json.loads(path.read_text())["snapshots"].items()
                },
            }
            for folder in find([self.folder / store])
        }

    def training(self, store: str) -> dict[str, dict[str, Any]]:
        return {folder.name: folder.training() for folder in find([self.folder / store])}


@pytest.fixture
def studies(tmp_path: Path, place: DataConfig, grid: Callable[..., ExperimentConfig]) -> Studies:
    return Studies(tmp_path, place, grid)


def after_steps(count: int) -> Callable[[], bool]:
    """Turns true when it is asked often enough, which each training does once a step."""
    asked = iter(range(10**6))
    return lambda: next(asked) >= count


@pytest.mark.parametrize("beside", [False, True])
def test_runs_in_turns_are_the_serial_ones_to_the_last_bit(beside: bool, studies: Studies) -> None:
    """Of models with one player and two, with dropout, and one that meddles with what torch keeps for a process.

    The latter's default dtype reaches the threads that measure beside it, whichever engine has them.
    """
    models = ("wae-gan", "drops", "vae", *(() if beside else ("meddles",)))
    planned = studies.plan(*models, seeds=(0, 1), snapshots=3, controls=("noise", "pca"))
    before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    ears = Ears()
    outcome = studies.run("turns", planned, together(3), ears, beside=beside)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_default_dtype(), torch.get_num_threads()) == before[1:]
    assert not outcome.failed
    assert sorted(outcome.done) == sorted(run.name for run in planned.runs)
    began = [what for what, _ in ears.heard[:4]]
    assert began == ["began", "began", "began", "trained"]  # three at once, and no more
    studies.run("alone", planned, serial, beside=beside)
    assert studies.found("turns") == studies.found("alone")
    drawn = [
        [
            number["value"]
            for entry in run["measurements"].values()
            if entry["metric"] == "dice"
            for number in entry["numbers"]
        ]
        for run in studies.found("turns").values()
    ]
    assert len({draw for draw, _ in drawn}) > 1  # the state in which a metric finds torch is the run's own


def test_trainings_alternate_step_by_step(studies: Studies) -> None:
    planned, ears = studies.plan("ae", seeds=(0, 1), snapshots=10, metrics=("reconstruction",)), Ears()
    studies.run("turns", planned, together(2), ears)
    trained = [name for what, name in ears.heard if what == "trained"]
    one, other = (run.name for run in planned.runs)
    assert trained == [one, other] * 10  # each of ten steps is a log point here


def test_a_run_that_fails_harms_no_other(studies: Studies) -> None:
    planned = studies.plan("drops", "founders", "vae")
    outcomes = [studies.run(store, planned, engine) for store, engine in (("turns", together(3)), ("alone", serial))]
    assert [len(outcome.done) for outcome in outcomes] == [2, 2]
    assert outcomes[0].failed.keys() == outcomes[1].failed.keys()
    (problem,) = outcomes[0].failed.values()
    assert problem.startswith("DivergenceError: the loss is not finite")
    assert studies.found("turns") == studies.found("alone")


def test_a_stop_saves_every_run_at_work_and_either_engine_goes_on_to_the_same_weights(studies: Studies) -> None:
    planned, ears = studies.plan("drops", "wae-gan", seeds=(0, 1), images=480), Ears()
    outcome = studies.run("stopped", planned, together(3), ears, after_steps(40))
    assert outcome.interrupted
    assert (outcome.done, outcome.failed) == ([], {})
    assert [what for what, _ in ears.heard if what in ("began", "paused")] == ["began"] * 3 + ["paused"] * 3
    assert [run["state"] for run in studies.found("stopped").values()] == ["interrupted"] * 3
    for engine in (together(2), serial):
        again = studies.run("stopped", planned, engine, stop=after_steps(25) if engine is not serial else lambda: False)
        assert again.interrupted == (engine is not serial)
    studies.run("whole", planned, serial)
    assert studies.found("stopped") == studies.found("whole")


def test_runs_at_work_are_claimed_and_one_that_another_command_holds_is_left_to_it(studies: Studies) -> None:
    planned = studies.plan("ae", seeds=(0, 1, 2), metrics=("reconstruction",))
    names = [run.name for run in planned.runs]

    def look(what: str, run: str) -> None:
        for name in names[1:] if (what, run) == ("trained", names[1]) else ():
            with pytest.raises(RunLockedError), lock_run(studies.folder / "store" / name):
                pass

    with lock_run(studies.folder / "store" / names[0]):
        outcome = studies.run("store", planned, together(3), Ears(look))
    assert (outcome.left, sorted(outcome.done)) == ([names[0]], sorted(names[1:]))
    assert LEFT not in outcome.failed.values()
    for name in names:
        with lock_run(studies.folder / "store" / name):
            pass


def test_an_error_that_ends_the_command_gives_every_folder_free(studies: Studies) -> None:
    planned = studies.plan("drops", seeds=(0, 1, 2), snapshots=10, metrics=("reconstruction",))

    def interrupt(what: str, run: str) -> None:
        if what == "trained" and run == planned.runs[1].name:
            raise KeyboardInterrupt

    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt) as interrupted:  # bound: what its frames hold is not freed by chance
        studies.run("store", planned, together(3), Ears(interrupt))
    assert torch.equal(torch.get_rng_state(), before)
    for run in planned.runs:
        with lock_run(studies.folder / "store" / run.name):
            pass
    assert interrupted.tb
    studies.run("store", planned, together(3))
    studies.run("whole", planned, serial)
    assert studies.found("store") == studies.found("whole")


def test_the_seconds_of_a_training_have_no_measurement_of_another_run_in_them(
    studies: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def tick() -> float:
        now[0] += 0.01
        return now[0]

    def measure_long(what: str, run: str) -> None:
        now[0] += 1000.0 * (what == "measuring")

    monkeypatch.setattr("genbench.training.setup.time", SimpleNamespace(perf_counter=tick))
    planned = studies.plan("ae", seeds=(0, 1, 2), metrics=("reconstruction",))
    studies.run("turns", planned, together(2), Ears(measure_long))
    assert now[0] > 3000.0
    seconds = [record["seconds"] for record in studies.training("turns").values()]
    assert all(0.0 < spent < 100.0 for spent in seconds)
    assert time.perf_counter is not tick


def test_what_a_training_in_turns_cost_is_told_apart_from_what_one_alone_cost(studies: Studies) -> None:
    planned = studies.plan("ae", seeds=(0, 1), metrics=("speed",))
    studies.run("turns", planned, together(5))
    studies.run("alone", planned, serial)
    records = [[record["together"] for record in studies.training(store).values()] for store in ("turns", "alone")]
    assert records == [[2, 2], [1, 1]]
    found = [{row.metric: row.protocol for row in rows(find([studies.folder / s]))} for s in ("turns", "alone")]
    assert found[0]["speed.seconds"] != found[1]["speed.seconds"]
    assert "speed.peak-memory" not in found[0]  # the process's is of both


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--jobs", "2"), "leave it off, or --jobs 2"),
        (("--executor", "ray"), "leave it off, or --executor ray"),
        (("--executor", "serial"), "leave it off, or --executor serial"),
        (("--run-timeout", "9"), "leave it off, or --run-timeout 9"),
    ],
)
def test_what_cannot_be_combined_is_refused_in_one_line(
    genbench: Callable[..., Result], options: tuple[str, ...], told: str
) -> None:
    result = genbench("run", "ae", "--together", "4", *options)
    (line,) = result.output.splitlines()
    assert (result.exit_code, line.endswith(told) or told in line) == (2, True)


def test_torchrun_and_measure_refuse_turns(genbench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    refused = genbench("evaluate", "--metrics", "fid", "--together", "2")
    assert (refused.exit_code, "nothing is trained" in refused.output) == (2, True)
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    refused = genbench("run", "ae", "--together", "2")
    assert (refused.exit_code, "--together" in refused.output) == (2, True)


def test_a_command_trains_in_turns(genbench: Callable[..., Result], tmp_path: Path) -> None:
    arguments = (
        "--dataset dots --network mlp --latent-dim 2 --images 160 --batch 16 --metrics reconstruction --device cpu"
    )
    plugin = ("--plugin", str(PLUGINS[0]), "--seeds", "3")
    done = genbench("run", "ae", *arguments.split(), *plugin, "--together", "2")
    assert done.exit_code == 0, done.output
    assert [folder.training()["together"] for folder in find([tmp_path / "runs"])] == [2, 2, 2]


def test_turns_are_no_use_of_idle_cores() -> None:
    told = advice(Chosen(together=4), 8, 2, False)
    assert told == "runs in turns use a CPU no better: --jobs 2 would use 2 of the 2 cores"
    assert not advice(Chosen(together=4), 8, 2, True)
