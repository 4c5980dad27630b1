"""What a terminal and a log show of a study at work."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from genbench.execution.progress import Bars, Lines, title
from genbench.experiment.plan import Plan
from genbench.experiment.run import Run
from genbench.training.loop import TrainState

View = type[Bars] | type[Lines]


def output(view: View, planned: Plan, steps: tuple[tuple[Run, str], ...]) -> str:
    """What stands there in the end, after log points of the runs whose steps were done so."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=view is Bars, width=200, color_system=None)
    with view(console, planned, len(planned.runs)) as callback:
        for run in planned.runs:
            callback.on_run_start(run, "new")
        for step, (run, how) in enumerate(steps):
            callback.on_log(run, TrainState(step + 1, 100, 16, 1.0, 16.0, {"autoencoder": 0.5}, how))
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
    assert f"{title(first)}: its step cannot be a CUDA graph, and is slower: {reason}" in text
    again = output(view, plan, ((first, f"eager: {reason}"), (second, f"eager: {reason}")))
    assert again.count(reason) == 2  # once a run


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
