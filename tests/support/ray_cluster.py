"""Run by test_ray.py in a network namespace of its own: several raylets on the loopback address, studies on them.

`python ray_cluster.py FOLDER` prints one line of JSON: what each study came to.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from ray.cluster_utils import Cluster

from genbench.api import DataConfig
from genbench.execution.executors import ray as executors_ray
from genbench.execution.executors.choice import SERIAL, ExecutorConfig, create_executor
from genbench.execution.scheduler import run_all
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, plan
from genbench.experiment.run import Run
from genbench.registry.loader import load
from genbench.storage.results import rows
from genbench.storage.run_dir import find_runs, read_runs
from genbench.training.callbacks import NullCallback
from genbench.training.loop import TrainState

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.runners import runner_of

PLUGINS = [Path(__file__).parents[1] / "fixtures" / f"{name}.py" for name in ("dots", "slow")]


class Recorder(NullCallback):
    """Notes the calls, and does something once: when three runs are at work, at the latest after six."""

    def __init__(self, action: Callable[[], None] | None = None) -> None:
        self.calls: list[tuple[str, str]] = []
        self.at_work = self.most = 0
        self.action = action

    def on_run_start(self, run: Run, state: str) -> None:
        self.calls.append(("start", run.name))
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        if self.at_work == 3:
            self._act()

    def on_log(self, run: Run, state: TrainState) -> None:
        self.calls.append(("log", run.name))

    def on_run_end(self, run: Run, status: str, problem: str) -> None:
        self.calls.append(("end", run.name))
        self.at_work -= 1
        if sum(what == "end" for what, _ in self.calls) == 6:
            self._act()

    def _act(self) -> None:
        if self.action is not None:
            self.action()
        self.action = None


def study(
    folder: Path, planned: Plan, config: ExecutorConfig, recorder: Recorder, data_config: DataConfig
) -> dict[str, Any]:
    """Do the runs of a plan; how they ended, the calls, the numbers."""
    runner = runner_of(planned, load(PLUGINS), folder, data_config, callback=recorder)
    with create_executor(config, runner, len(planned.runs)) as executor:
        outcome = run_all(planned, executor, runner)
    trained = [record for record in read_runs(find_runs([folder]))[0] if record.state == "trained"]
    numbers = [(row.run, row.metric, row.value) for row in rows(trained)]
    left = sorted(path.name for path in folder.glob(".*"))
    return {**asdict(outcome), "calls": recorder.calls, "most": recorder.most, "numbers": numbers, "left": left}


def main(folder: Path) -> dict[str, Any]:
    """Twelve runs over three nodes, one of which is killed after the first run; then two whose files come back."""
    torch.set_num_threads(1)
    data_config = DataConfig(data_root=folder / "data", cache=folder / "cache")
    facts: dict[str, Any] = {"priors": ("normal",), "latent_dims": (2,), "network": "mlp", "batch": 16}
    grid = ExperimentConfig(
        models=("sleeper", "ae"),
        dataset="dots",
        seeds=tuple(range(6)),
        metrics=("reconstruction",),
        images=160,
        settings=("sleeper.pause=0.1",),
        **facts,
    )
    planned = plan(grid, load(PLUGINS), data_config)
    few = Plan(planned.runs[:2], planned.metrics, planned.dataset_info, planned.parameters)
    studies: dict[str, Any] = {"serial": study(folder / "serial", planned, SERIAL, Recorder(), data_config)}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    try:
        studies["nodes"] = sum(node["Alive"] for node in ray.nodes())
        recorder = Recorder(lambda: cluster.remove_node(nodes[1], allow_graceful=False))
        studies["killed"] = study(folder / "ray", planned, ExecutorConfig("ray"), recorder, data_config)
        studies["nodes after"] = len(cluster.list_all_nodes())
        executors_ray.write_text = lambda path, text: None  # type: ignore[assignment]  # as where no folder is shared
        config = ExecutorConfig("ray", jobs=1)
        studies["returned"] = study(folder / "returned", few, config, Recorder(), data_config)
    finally:
        ray.shutdown()
        cluster.shutdown()
    return studies


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
