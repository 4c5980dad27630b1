"""What several runs at once bring: a small grid by one process and by two workers, and runs that only wait.

The workers' start (importing torch and the plug-ins, once for all of them) is part of the time.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ratio import compare

from genbench.api import DataConfig
from genbench.execution.executors.choice import SERIAL, ExecutorConfig, create_executor
from genbench.execution.runner import Runner
from genbench.execution.scheduler import run_all
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import plan
from genbench.registry.loader import load

PLUGINS = [Path(__file__).parents[1] / "fixtures" / f"{name}.py" for name in ("dots", "slow")]


def study(models: tuple[str, ...], config: ExecutorConfig, **fields: object) -> Callable[[], float]:
    """A contender: the whole study into a new store; the images that its runs were shown."""
    usual: dict[str, object] = {
        "priors": ("normal",),
        "latent_dims": (8,),
        "batch": 128,
        "metrics": ("reconstruction",),
    }
    cache = Path(tempfile.mkdtemp(prefix="genbench-executors-"))
    data_config = DataConfig(data_root=cache, cache=cache, workers=os.cpu_count() or 1)
    registry = load(PLUGINS)
    planned = plan(ExperimentConfig(models=models, **{**usual, **fields}), registry, data_config)  # type: ignore[arg-type]

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            facts = {"command": "a benchmark"}
            runner = Runner(registry, Path(folder), data_config, torch.device("cpu"), facts, planned.metrics)
            with create_executor(config, runner, len(planned.runs)) as executor:
                outcome = run_all(planned, executor, runner)
            assert len(outcome.done) == len(planned.runs)
        return float(sum(run.images for run in planned.runs))

    return run


def test_two_jobs_on_two_cores() -> None:
    grid = {"dataset": "glyphs", "network": "conv", "seeds": (0, 1), "images": 40_000}
    models = ("ae", "swae")
    contenders = {"--jobs 2": study(models, ExecutorConfig(jobs=2), **grid), "serial": study(models, SERIAL, **grid)}
    note = "4 runs of 40,000 images, network conv; workers fork from a server that has loaded torch"
    item = compare("a grid by two workers", contenders, unit="images", file="executors", goal=1.0, note=note)
    assert item.met


SLEEPING: dict[str, object] = {
    "dataset": "dots",
    "network": "mlp",
    "seeds": tuple(range(8)),
    "batch": 16,
    "images": 480,
    "settings": ("sleeper.pause=0.3",),
}
"""Runs that only wait: what the executor itself costs, whatever else the machine does."""


def test_runs_that_wait_go_at_once() -> None:
    """0.8 of ideal is 3.2 by four."""
    contenders = {
        "--jobs 4": study(("sleeper",), ExecutorConfig(jobs=4), **SLEEPING),
        "--jobs 1": study(("sleeper",), ExecutorConfig("process"), **SLEEPING),
    }
    note = "8 runs of 30 steps that sleep 0.3 s each; four workers' start, which loads the plug-ins, is in it"
    assert compare(
        "sleeping runs by four workers", contenders, unit="images", file="executors", goal=3.2, note=note
    ).met


def test_runs_that_wait_go_at_once_on_ray() -> None:
    """The same on raylets, which see the loopback address alone."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed")
    script = Path(__file__).with_name("ray_waits.py")
    unshare = ["unshare", "-n" if os.geteuid() == 0 else "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    subprocess.run([*unshare, sys.executable, str(script)], check=True, env={**os.environ, **quiet})
