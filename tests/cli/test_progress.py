"""What a terminal and a log show of a study at work."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from genbench.cli.progress import Bars, Lines, title
from genbench.experiment.plan import Plan
from genbench.experiment.run import Run
from genbench.training.loop import TrainState

Shown = type[Bars] | type[Lines]


def told(shown: Shown, planned: Plan, hows: tuple[tuple[Run, str], ...]) -> str:
    """What stands there in the end, after moments of the runs whose steps were done so."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=shown is Bars, width=200, color_system=None)
    with shown(console, planned) as listener:
        for index, run in enumerate(planned.runs):
            listener.began(index + 1, len(planned.runs), run, "new")
        for step, (run, how) in enumerate(hows):
            listener.about(run)
            listener.trained(TrainState(step + 1, 100, 16, 1.0, 16.0, {"autoencoder": 0.5}, how))
        for run in planned.runs:
            listener.ended(run, "")
    return screen.getvalue()


@pytest.mark.parametrize("shown", [Bars, Lines])
def test_a_run_that_does_without_a_graph_says_so_once_and_why(shown: Shown, planned: Callable[..., Plan]) -> None:
    plan = planned("swae", "vae", seeds=(0, 1))
    one, other, *rest = plan.runs
    reason = "RuntimeError: [bold] operation not permitted when stream is capturing"
    hows = ((one, f"eager: {reason}"), (other, "graph"), (one, f"eager: {reason}"), *((run, "eager") for run in rest))
    found = told(shown, plan, hows)
    assert found.count(reason) == 1
    assert found.count("CUDA graph") == 1
    assert f"{title(one)}: its step cannot be a CUDA graph, and is slower: {reason}" in found
    again = told(shown, plan, ((one, f"eager: {reason}"), (other, f"eager: {reason}")))
    assert again.count(reason) == 2  # once a run
