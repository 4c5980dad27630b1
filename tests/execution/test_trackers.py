"""Trackers are told of every run, whatever the executor, and cannot harm a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

DOTS = ("--plugin", str(Path(__file__).parents[1] / "fixtures" / "dots.py"))
TINY = (
    *DOTS,
    "--dataset",
    "dots",
    "--network",
    "mlp",
    "--latent-dim",
    "2",
    "--images",
    "320",
    "--batch",
    "16",
    "--metrics",
    "reconstruction",
)
FAILING = """
from genbench.api import ComponentSpec, Tracker
from genbench.hookspecs import hookimpl


class Away(Tracker):
    def on_log(self, step, images, values):
        raise ConnectionError("the service is away")


@hookimpl
def genbench_trackers():
    yield ComponentSpec(name="away", description="", factory=Away)
"""


def events(file: Path = Path("runs/events.jsonl")) -> dict[str, list[dict[str, Any]]]:
    """The lines of each run."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for line in file.read_text().splitlines():
        event = json.loads(line)
        runs.setdefault(event["run"], []).append(event)
    return runs


@pytest.mark.parametrize("executor", ["serial", "process"])
def test_every_run_is_followed_by_every_executor(executor: str, genbench: Callable[..., Result]) -> None:
    study = ("run", "swae", "vae", *TINY, "--snapshots", "2", "--executor", executor)
    result = genbench(*study, "--tracker", "jsonl", "--set", "jsonl.file=followed.jsonl")
    assert result.exit_code == 0, result.output
    runs = events(Path("followed.jsonl"))
    assert {lines[0]["config"]["model"] for lines in runs.values()} == {"swae", "vae"}
    for name, lines in runs.items():
        logged = [json.loads(line) for line in Path("runs", name, "log.jsonl").read_text().splitlines()]
        kinds = [line["event"] for line in lines]
        assert kinds == ["start", *["log"] * len(logged), *["metrics"] * 3, "end"]
        for line, point in zip(lines[1:], logged, strict=False):
            assert (line["step"], line["images"]) == (point["step"], point["images"])
            assert line["values"] == {**point["terms"], "images_per_second": point["rate"]}
        assert [line["split"] for line in lines if line["event"] == "metrics"] == ["validation", "validation", "test"]
        stored = json.loads(Path("runs", name, "metrics.json").read_text())["measurements"]
        numbers = {f"reconstruction.{n['component']}": n["value"] for m in stored.values() for n in m["numbers"]}
        assert lines[-2]["values"] == numbers
        assert lines[-1]["status"] == "done"


def test_a_tracker_that_raises_is_told_once_and_costs_nothing(genbench: Callable[..., Result]) -> None:
    Path("away.py").write_text(FAILING)
    result = genbench("run", "swae", *TINY, "--seeds", "2", "--tracker", "away,jsonl", "--plugin", "away.py")
    assert result.exit_code == 0, result.output
    line = "the tracker 'away' is left out from here on: away.py:8, in on_log: ConnectionError: the service is away"
    assert result.output.count("is left out") == 1
    assert line in result.output
    assert [lines[-1]["status"] for lines in events().values()] == ["done", "done"]


def test_trackers_change_no_run(genbench: Callable[..., Result]) -> None:
    genbench("run", "swae", *TINY)
    result = genbench("run", "swae", *TINY, "--tracker", "jsonl")
    assert "1 done" in result.output
    assert not Path("runs/events.jsonl").exists()


def test_a_run_that_fails_ends_with_its_problem(genbench: Callable[..., Result]) -> None:
    faulty = str(Path(__file__).parents[1] / "fixtures" / "faulty.py")
    result = genbench("run", "raises", *TINY, "--tracker", "jsonl", "--plugin", faulty)
    assert result.exit_code == 1
    (lines,) = events().values()
    assert (lines[-1]["event"], lines[-1]["status"]) == ("end", "failed")
    assert "ZeroDivisionError" in lines[-1]["problem"]


def test_tensorboard_gets_losses_and_numbers(genbench: Callable[..., Result]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert genbench("run", "swae", *TINY, "--tracker", "tensorboard").exit_code == 0
    (folder,) = Path("runs/tensorboard").iterdir()
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    log = [json.loads(line) for line in Path("runs", folder.name, "log.jsonl").read_text().splitlines()]
    scalars = accumulator.Scalars("loss/reconstruction")
    assert [scalar.step for scalar in scalars] == [point["images"] for point in log]
    assert scalars[-1].value == pytest.approx(log[-1]["terms"]["reconstruction"], rel=1e-5)
    assert "test/reconstruction.pixel" in accumulator.Tags()["scalars"]


def test_tensorboard_that_is_not_installed_is_refused_before_anything_trains(
    genbench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    result = genbench("run", "swae", *TINY, "--tracker", "tensorboard")
    assert result.exit_code == 2
    assert "pip install 'genbench[tensorboard]'" in result.output
    assert not Path("runs").exists()
