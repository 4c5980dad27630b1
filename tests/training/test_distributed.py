"""N processes take the steps that one takes: gradients, batch statistics and weights, for every bundled model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from click.testing import Result

from genbench.registry.loader import Registry
from genbench.storage.run_dir import RunFolder
from genbench.storage.schema import MetricRecord
from genbench.training.distributed import DistributedContext
from genbench.utils.io import load_tensors
from support.ranks_worker import CASES, DOTS, steps_of

WORKER = Path(__file__).parents[1] / "support" / "ranks_worker.py"


TOLERANCES = {2: {"float64": 1e-10, "float32": 1e-5}, 3: {"float64": 1e-10}}
"""The dtypes in which so many processes take their steps, and how far these may be from those of one process."""


@pytest.fixture(scope="module")
def distributed_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the steps that so many processes took, by their number."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    worlds = [f"{world}:{','.join(dtypes)}" for world, dtypes in TOLERANCES.items()]
    command = [sys.executable, str(WORKER), str(folder), *worlds]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("world", TOLERANCES)
@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: f"{CASES[index].model}-{CASES[index].network}")
def test_n_processes_give_the_one_process_gradients(
    distributed_steps: Path, index: int, world: int, registry: Registry, tmp_path: Path
) -> None:
    for dtype, tolerance in TOLERANCES[world].items():
        expected = steps_of(CASES[index], registry, tmp_path, getattr(torch, dtype), None)
        actual, _ = load_tensors(distributed_steps / str(world) / f"{dtype}-{index}.safetensors")
        assert actual.keys() == expected.keys()
        for group in {name.split(".")[0] for name in expected}:  # an optimizer, or "after": the state at the end
            names = sorted(name for name in expected if name.startswith(f"{group}."))
            a, b = (torch.cat([tensors[name].double().flatten() for name in names]) for tensors in (actual, expected))
            assert (a - b).norm() <= tolerance * b.norm(), (dtype, group)


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_every_row_has_one_owner(n: int) -> None:
    for world in (1, 2, 3, 8):
        owned = [row for rank in range(world) for row in range(n)[DistributedContext(rank, world).rows(n)]]
        assert owned == list(range(n))


OPTIONS = "--dataset dots --network normed --latent-dim 3 --images 270 --batch 9 --metrics reconstruction --device cpu"
DIVERGES = "swae.rate=1e30"


def test_torchrun_trains_what_one_process_trains(tmp_path: Path, genbench: Callable[..., Result]) -> None:
    """Three models, of which one has a critic and one diverges, with batch norm in the network.

    Weights are not compared: Adam takes full steps along gradients that are zero but for rounding, as those of a bias
    before a batch norm are.
    """
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path)}
    meeting = "--nnodes 1 --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:0 --local-addr 127.0.0.1"
    two = [sys.executable, "-m", "torch.distributed.run", *meeting.split(), "-m", "genbench"]
    study = ["run", "swae", "wae-gan", "vae", *OPTIONS.split(), "--set", DIVERGES, "--plugin", str(DOTS)]
    study += ["--data-root", str(tmp_path), "--out"]
    done = subprocess.run([*two, *study, "two"], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stderr
    alone = genbench(*study, "one")
    assert alone.exit_code == 1, alone.output
    folders = {}
    for name, text in (("two", done.stdout), ("one", alone.stdout)):
        assert text.count("ranked by") == 1  # the main process alone prints
        assert "failed dots-swae" in text
        folders[name] = {folder.name: folder for folder in sorted(Path(name).glob("dots-*"))}
    assert folders["one"].keys() == folders["two"].keys()
    for name in folders["one"]:
        expected, actual = folders["one"][name], folders["two"][name]
        assert json.loads((actual / "run.json").read_text())["provenance"]["processes"] == 2
        if "-swae-" not in name:
            values = [RunFolder(folder).measurements() for folder in (expected, actual)]
            assert numbers(values[1]) == pytest.approx(numbers(values[0]), rel=1e-3)


def numbers(measurements: Mapping[str, MetricRecord]) -> list[float]:
    """The values of a run's measurements."""
    return [number.value for entry in measurements.values() for number in entry.numbers]
