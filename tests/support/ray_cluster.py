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
from genbench.execution.executors.serial import serial
from genbench.execution.runner import Runner
from genbench.execution.scheduler import Engine
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, plan
from genbench.experiment.run import Run
from genbench.registry.loader import load
from genbench.storage.results import rows
from genbench.storage.run_dir import find_runs, read_runs
from genbench.training.callbacks import NullCallback

PLUGINS = [Path(__file__).parents[1] / "fixtures" / f"{name}.py" for name in ("dots", "slow")]


class Ears(NullCallback):
    """Notes what it is told, and does something once: when three runs are at work, at the latest after six."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.heard: list[tuple[str, str]] = []
        self.at_work = self.most = 0
        self.then: Callable[[], None] | None = then

    def began(self, index: int, total: int, run: Run, state: str) -> None:
        self.heard.append(("began", run.name))
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        if self.at_work == 3:
            self._act()

    def ended(self, run: Run, problem: str) -> None:
        self.heard.append(("ended", run.name))
        self.at_work -= 1
        if sum(what == "ended" for what, _ in self.heard) == 6:
            self._act()

    def _act(self) -> None:
        if self.then is not None:
            self.then()
        self.then = None


def study(folder: Path, planned: Plan, engine: Engine, ears: Ears, place: DataConfig) -> dict[str, Any]:
    """Conduct a plan; the outcome, what was heard, the numbers."""
    registry = load(PLUGINS)
    bench = Runner(registry, folder, place, torch.device("cpu"), {"command": "a test"}, ears, lambda: False)
    outcome = bench.conduct(planned, engine)
    found = [folder for folder in read_runs(find_runs([folder]))[0] if folder.state == "trained"]
    numbers = [(row.run, row.metric, row.value) for row in rows(found)]
    left = sorted(path.name for path in folder.glob(".*"))
    return {**asdict(outcome), "heard": ears.heard, "most": ears.most, "numbers": numbers, "left": left}


def main(folder: Path) -> dict[str, Any]:
    """Twelve runs over three nodes, one of which is killed after the first run; then two whose files come back."""
    torch.set_num_threads(1)
    place = DataConfig(data_root=folder / "data", cache=folder / "cache")
    facts: dict[str, Any] = {"priors": ("normal",), "latent_dims": (2,), "network": "mlp", "batch": 16}
    grid = ExperimentConfig(
        models=("sleeper", "ae"),
        dataset="dots",
        seeds=tuple(range(6)),
        metrics=("reconstruction",),
        images=160,
        settings=("sleeper.pause=0.2",),
        **facts,
    )
    planned = plan(grid, load(PLUGINS), place)
    few = Plan(planned.runs[:2], planned.metrics, planned.dataset_info, planned.parameters)
    found: dict[str, Any] = {"serial": study(folder / "serial", planned, serial, Ears(), place)}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    try:
        found["nodes"] = sum(node["Alive"] for node in ray.nodes())
        engine = executors_ray.cluster("auto", None, 0.0, 1.0, None)
        ears = Ears(lambda: cluster.remove_node(nodes[1], allow_graceful=False))
        found["killed"] = study(folder / "ray", planned, engine, ears, place)
        found["nodes after"] = len(cluster.list_all_nodes())
        executors_ray.write_text = lambda path, text: None  # type: ignore[assignment]  # as where no folder is shared
        found["returned"] = study(
            folder / "returned", few, executors_ray.cluster("auto", 1, 0.0, 1.0, None), Ears(), place
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
