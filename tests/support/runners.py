"""Runners as tests make them: on the CPU, for the runs of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from genbench.api import DataConfig
from genbench.execution.runner import Runner
from genbench.experiment.plan import Plan
from genbench.registry.loader import Registry


def runner_of(planned: Plan, registry: Registry, store: Path, data_config: DataConfig, **fields: Any) -> Runner:
    """A runner with a command's fields, any of them replaced."""
    facts = {"command": "a test"}
    return Runner(
        registry,
        store,
        data_config,
        torch.device("cpu"),
        facts,
        planned.metrics,
        planned.snapshots,
        planned.threads,
        **fields,
    )
