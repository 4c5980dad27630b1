"""Measurements beside the next training: the numbers of the foreground, saved, isolated in failure, resumed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genbench.api import DataConfig, Evaluation, Measurement
from genbench.errors import MetricError, NotApplicableError
from genbench.execution import background
from genbench.execution.background import Background
from genbench.execution.executors.serial import SerialExecutor
from genbench.execution.scheduler import Outcome, run_all
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import plan
from genbench.experiment.run import Run
from genbench.registry.loader import load
from genbench.storage.lock import is_locked
from genbench.storage.run_dir import RunRecord, find_runs, read_runs
from genbench.training.callbacks import NullCallback
from genbench.training.loop import TrainState
from genbench_latent import LatentW2
from support.runners import runner_of

DOTS = Path(__file__).parents[1] / "fixtures" / "dots.py"
METRICS = ("latent-w2", "reconstruction", "latent-sw")
SETTINGS = ("latent-w2.n=40", "latent-w2.replicates=2", "latent-sw.n=40", "latent-sw.replicates=2")

Trained = Callable[..., Outcome]


@pytest.fixture
def trained(tmp_path: Path, data_config: DataConfig, grid: Callable[..., ExperimentConfig]) -> Trained:
    """Trains and measures, beside the next training or not; `name` is the folder."""
    registry = load([DOTS])

    def train(name: str, *models: str, beside: bool = True, workers: int = 2, most: int = 9, **fields: Any) -> Outcome:
        planned = plan(grid(models, metrics=METRICS, settings=SETTINGS), registry, data_config)
        runner = runner_of(planned, registry, tmp_path / name, data_config, **fields)
        executor = SerialExecutor(runner)
        runner.background = Background(workers, most) if beside else None
        try:
            return run_all(planned, executor, runner)
        finally:
            executor.shutdown()

    return train


def records(folder: Path) -> list[RunRecord]:
    return read_runs(find_runs([folder]))[0]


def numbers(folder: Path) -> list[list[tuple[str, Any]]]:
    """The metrics of each run in their order, with their numbers."""
    return [[(entry.metric, entry.numbers) for entry in record.measurements.values()] for record in records(folder)]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Latent W2 waits for the event; it is set at the end."""
    event, measure = threading.Event(), LatentW2.measure

    def waiting(self: LatentW2, evaluation: Evaluation) -> Iterator[Measurement]:
        assert event.wait(60)
        yield from measure(self, evaluation)

    monkeypatch.setattr(LatentW2, "measure", waiting)
    yield event
    event.set()


def test_numbers_and_their_order_are_those_of_the_foreground(trained: Trained, tmp_path: Path) -> None:
    models = ("swae", "vamp-vae")  # a fixed prior, and a learned one
    assert len(trained("beside", *models).done) == 2
    assert len(trained("apart", *models, beside=False).done) == 2
    assert numbers(tmp_path / "beside") == numbers(tmp_path / "apart")
    entries = [entry for record in records(tmp_path / "beside") for entry in record.measurements.values()]
    marked = {entry.metric for entry in entries if entry.background}
    assert marked == {"latent-w2", "latent-sw"}


def test_the_next_run_trains_while_a_run_is_measured(trained: Trained, tmp_path: Path, gate: threading.Event) -> None:
    seen: list[tuple[str, str]] = []

    class Watch(NullCallback):
        def on_log(self, run: Run, state: TrainState) -> None:
            seen.append((run.model.name, "trains"))
            if run.model.name == "vae":
                assert is_locked(tmp_path / "runs" / next(r.name for r in records(tmp_path / "runs") if r.run != run))
                gate.set()

        def on_run_end(self, run: Run, status: str, problem: str) -> None:
            seen.append((run.model.name, status))

    assert len(trained("runs", "swae", "vae", callback=Watch()).done) == 2
    assert seen.index(("vae", "trains")) < seen.index(("swae", "done"))
    assert not any(is_locked(record.path) for record in records(tmp_path / "runs"))


def test_a_metric_that_fails_there_costs_nothing_else(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: LatentW2, evaluation: Evaluation) -> Iterator[Measurement]:
        raise MetricError("it does not converge")

    monkeypatch.setattr(LatentW2, "measure", failing)
    outcome = trained("runs", "swae", "ae")
    assert sorted(outcome.failed.values()) == ["latent-w2: it does not converge"] * 2
    for record in records(tmp_path / "runs"):
        assert {e.metric: e.error for e in record.measurements.values()} == {
            "latent-w2": "it does not converge",
            "reconstruction": "",
            "latent-sw": "",
        }
    monkeypatch.undo()
    assert len(trained("runs", "swae", "ae").done) == 2, "they are measured again, and nothing is trained"


def test_after_a_stop_what_waits_is_left_to_the_next_command(
    trained: Trained, tmp_path: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()

    def poll(*args: Any) -> Any:
        if stopped.is_set():
            gate.set()  # only after the stop was seen, so that nothing else begins in between
        stopped.set()  # Ctrl-C, once all runs are trained and one thread measures
        return wait(*args)

    wait = background.wait
    monkeypatch.setattr(background, "wait", poll)
    outcome = trained("runs", "swae", "vae", workers=1, stop=stopped.is_set)
    assert outcome.interrupted
    assert not outcome.failed
    measured = sum(len(record.measurements) for record in records(tmp_path / "runs"))
    assert measured == 3, "two in the foreground and the one at work were saved, the others were not begun"
    monkeypatch.undo()
    log = [(record.path / "log.jsonl").read_bytes() for record in records(tmp_path / "runs")]
    trained("runs", "swae", "vae")
    trained("whole", "swae", "vae", beside=False)
    assert [dict(run) for run in numbers(tmp_path / "runs")] == [dict(run) for run in numbers(tmp_path / "whole")]
    assert log == [(record.path / "log.jsonl").read_bytes() for record in records(tmp_path / "runs")]


def test_at_most_so_many_runs_wait(trained: Trained, gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def counted(self: Background, run: Any) -> None:
        add(self, run)
        counts.append(len(self._runs))

    def opened(*args: Any) -> Any:
        gate.set()  # nothing ends before the command waits for it, so that the count depends on no clock
        return wait(*args)

    add, wait = Background.add, background.wait
    monkeypatch.setattr(Background, "add", counted)
    monkeypatch.setattr(background, "wait", opened)
    assert len(trained("runs", "swae", "vae", "ae", "wae-mmd", most=1).done) == 4
    assert max(counts) == 2


def test_a_metric_that_asks_for_more_than_it_declares_is_refused(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ask in ("samples", "reconstructions", "held_out", "decode"):
        monkeypatch.setattr(LatentW2, "measure", lambda self, e, ask=ask: getattr(e, ask)(10))
        (problem,) = trained(ask, "swae").failed.values()
        assert problem == "latent-w2: it is declared `on_cpu`, and asks for more than codes and draws of the prior"
    monkeypatch.setattr(LatentW2, "measure", lambda self, e: e.codes(41))
    (problem,) = trained("codes", "swae").failed.values()
    assert problem == "latent-w2: it asks for 41 codes, and `counts_needed` states 40"


def test_a_metric_without_meaning_for_a_run_is_left_out_there_too(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inapplicable(self: LatentW2, evaluation: Evaluation) -> Iterator[Measurement]:
        raise NotApplicableError("no meaning")

    monkeypatch.setattr(LatentW2, "measure", inapplicable)
    assert len(trained("runs", "swae").done) == 1
    (record,) = records(tmp_path / "runs")
    assert {e.inapplicable for e in record.measurements.values()} == {"", "no meaning"}
