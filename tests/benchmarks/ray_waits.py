"""Run by test_executors.py in a network namespace of its own: runs that only wait, on four raylets and on one of them.

The cluster is started before the clock; the actors of a study are not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import ray
from ratio import compare
from ray.cluster_utils import Cluster
from test_executors import SLEEPING, study

from genbench.execution.executors.choice import ExecutorConfig

NODES = 4
LONGER = {**SLEEPING, "settings": ("sleeper.pause=1.0",)}
"""Runs against which the start of an actor, which imports torch, is short: 30 seconds."""
SHORT = {**SLEEPING, "settings": ("sleeper.pause=0.01",)}
"""The turn that does not count, which loads what is read from disk."""


def contender(jobs: int) -> Callable[[], float]:
    """The study with so many runs at once; the first turn is short."""
    turns = iter((SHORT, LONGER))
    return lambda: study(("sleeper",), ExecutorConfig("ray", jobs=jobs), **next(turns))()


def main() -> int:
    """Measure; 0 where the goal is met."""
    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(NODES - 1):
        there.add_node(num_cpus=1)
    ray.init(address=there.address, logging_level="ERROR", log_to_driver=False)
    try:
        contenders = {f"{jobs} at once": contender(jobs) for jobs in (NODES, 1)}
        note = "8 runs of 30 steps that sleep 1 s each, on raylets of one core; the start of the actors is in it"
        item = compare(
            "sleeping runs on four raylets",
            contenders,
            unit="images",
            file="executors",
            goal=3.2,
            note=note,
            repeats=1,
        )
    finally:
        ray.shutdown()
        there.shutdown()
    return 0 if item.met else 1


if __name__ == "__main__":
    sys.exit(main())
