"""What a terminal and a log show of a study at work."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from rich.console import Console

from genbench.api import ProgressEvent
from genbench.execution import progress
from genbench.execution.progress import Bars, Lines, titles
from genbench.execution.runner import RunOutcome
from genbench.execution.scheduler import RunFollower
from genbench.experiment.plan import Plan
from genbench.experiment.run import Run
from genbench.storage.run_dir import LOG, RunFolder
from genbench.training.callbacks import NullCallback
from genbench.training.loop import TrainState

TERMS = {"autoencoder": 39.16, "reconstruction": 33.17, "penalty": 5.99, "critic": 0.6931}
View = type[Bars] | type[Lines]


def output(view: View, planned: Plan, steps: tuple[tuple[Run, str], ...], width: int = 200) -> str:
    """What stands there in the end, after log points of the runs whose steps were done so."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=view is Bars, width=width, color_system=None)
    with view(console, planned, len(planned.runs)) as callback:
        for run in planned.runs:
            callback.on_run_start(run, "new")
        for step, (run, how) in enumerate(steps):
            callback.on_log(run, TrainState(step + 1, 100, 16, 1.0, 16.0, TERMS, how))
        for run in planned.runs:
            callback.on_run_end(run, "done", "")
    return screen.getvalue()


@pytest.mark.parametrize("view", [Bars, Lines])
def test_a_run_that_does_without_a_graph_says_so_once_and_why(view: View, planned: Callable[..., Plan]) -> None:
    plan = planned("swae", "vae", seeds=(0, 1))
    first, second, *rest = plan.runs
    reason = "RuntimeError: [bold] operation not permitted when stream is capturing"
    steps = ((first, f"eager: {reason}"), (second, "graph"), (first, f"eager: {reason}"), *((r, "eager") for r in rest))
    text = output(view, plan, steps)
    assert text.count(reason) == 1
    assert text.count("CUDA graph") == 1
    assert f"{titles(plan.runs)[first.name]}: its step cannot be a CUDA graph, and is slower: {reason}" in text
    again = output(view, plan, ((first, f"eager: {reason}"), (second, f"eager: {reason}")))
    assert again.count(reason) == 2  # once a run


@pytest.mark.parametrize("view", [Bars, Lines])
def test_what_a_metric_computes_once_is_a_line(
    view: View, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    plan = planned("swae")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=view is Bars, width=200, color_system=None)
    with view(console, plan, 1) as callback:
        callback.on_data(ProgressEvent("drawing", 1, 2))
        callback.on_run_start(plan.runs[0], "new")
        for _ in range(2):
            callback.on_data(ProgressEvent("null distribution of [x], computed once and kept", 0, 0))
        callback.on_run_end(plan.runs[0], "done", "")
    assert screen.getvalue().count("null distribution of [x], computed once and kept") == 1
    assert "0 of 0" not in screen.getvalue()


@pytest.mark.parametrize("view", [Bars, Lines])
def test_how_a_run_ended_is_shown_but_for_an_interruption(view: View, planned: Callable[..., Plan]) -> None:
    plan = planned("swae", seeds=(0, 1))
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=view is Bars, width=200, color_system=None)
    with view(console, plan, 2) as callback:
        for run in plan.runs:
            callback.on_run_start(run, "new")
        callback.on_run_end(plan.runs[0], "failed", "worker died: of something")
        callback.on_run_end(plan.runs[1], "interrupted", "")
    assert screen.getvalue().count("worker died: of something") == 1
    last = screen.getvalue().rsplit("worker died", 1)[1]
    assert "done" not in last
    assert "✓" not in last


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_bar_percentage_and_time_left_stay_at_any_width(width: int, planned: Callable[..., Plan]) -> None:
    plan = planned("swae", "wae-gan", seeds=(0, 1))
    screen = io.StringIO()
    with Bars(Console(file=screen, force_terminal=True, width=width, color_system=None), plan, 4) as bars:
        bars.on_run_start(plan.runs[0], "new")
        for step in (1, 25):
            bars.on_log(plan.runs[0], TrainState(step, 100, 16 * step, 1.0, 16.0, TERMS, "eager"))
        screen.truncate(0)
        bars._bars.refresh()
        lines = [line for line in screen.getvalue().splitlines() if "%" in line]
    study, run = lines[-2:]
    assert "run 1 of 4" in study
    assert "swae, seed 0" in run
    assert "prior" not in run  # all runs share it
    for line in (study, run):
        assert "%" in line
        assert ":" in line.split("%")[1]  # the time left
        assert "━" in line
    assert ("critic" in run) == (width == 200)
    assert "…" not in run


def test_a_run_that_ends_before_it_was_seen_running_has_its_log_points(
    tmp_path: Path, planned: Callable[..., Plan]
) -> None:
    class Steps(NullCallback):
        def __init__(self) -> None:
            self.seen: list[object] = []

        def on_run_start(self, run: Run, state: str) -> None:
            self.seen.append("start")

        def on_log(self, run: Run, state: TrainState) -> None:
            self.seen.append(state.step)

        def on_run_end(self, run: Run, status: str, problem: str) -> None:
            self.seen.append(status)

    (run,) = planned("ae").runs
    steps = Steps()
    follower = RunFollower(run, RunFolder(tmp_path), steps)
    states = (TrainState(step, 4, 16 * step, 0.1, 160.0, {"autoencoder": 1.0}) for step in (2, 4))
    (tmp_path / LOG).write_text("".join(json.dumps(state.logged()) + "\n" for state in states))
    done: Future[list[RunOutcome]] = Future()
    done.set_result([])
    follower.poll(done)
    follower.end(RunOutcome("done"))
    assert steps.seen == ["start", 2, 4, "done"]
