"""Ray: several raylets on one machine, in a network namespace with the loopback alone; skipped where there is none."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from genbench.errors import StoreError
from genbench.execution.executors.ray import Slot
from genbench.execution.transfer import receive

SCRIPT = Path(__file__).parents[1] / "support" / "ray_cluster.py"
INSIDE = 'ip link set lo up && exec "$@"'


def namespace() -> list[str]:
    """The command that gives another one a network of its own; skips where that is not permitted."""
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    command = [*unshare, "sh", "-c", INSIDE, "sh"]
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare: no network namespace for Ray's tests")
    if tried.returncode:
        pytest.skip(f"no network namespace for Ray's tests: {tried.stderr.decode(errors='replace').strip()}")
    return command


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed")
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*namespace(), sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("ray"))],
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
        env={**os.environ, **quiet},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_twelve_runs_over_three_nodes_survive_the_death_of_one(studies: dict[str, Any]) -> None:
    assert (studies["nodes"], studies["nodes after"]) == (3, 2)
    killed = studies["killed"]
    assert (len(killed["done"]), killed["failed"], killed["interrupted"]) == (12, {}, False)
    assert sum(what == "start" for what, _ in killed["calls"]) == 12  # a repeated run is announced once
    assert killed["most"] >= 2  # at once


def test_a_cluster_gives_the_numbers_of_one_process(studies: dict[str, Any]) -> None:
    assert len(studies["serial"]["numbers"]) == 24
    assert studies["killed"]["numbers"] == studies["serial"]["numbers"]
    assert studies["killed"]["left"] == []
    assert ("log", studies["killed"]["done"][0]) in map(tuple, studies["killed"]["calls"])  # progress is followed


def test_files_come_back_where_no_folder_is_shared(studies: dict[str, Any]) -> None:
    returned = studies["returned"]
    assert (len(returned["done"]), returned["failed"]) == (2, {})
    assert returned["numbers"]
    assert all(number in studies["serial"]["numbers"] for number in returned["numbers"])
    assert ("log", returned["done"][0]) in map(tuple, returned["calls"])


def test_a_node_holds_what_its_scarcest_resource_allows() -> None:
    node = {"CPU": 8.0, "GPU": 2.0}
    assert Slot(1.0, 0.25).count(node) == 8
    assert Slot(1.0, 0.5).count(node) == 4
    assert Slot(1.0, 1.0).count({"CPU": 8.0}) == 0


def test_files_that_a_worker_returns_stay_in_the_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"old")
    receive(
        tmp_path / "run", {"weights.safetensors": b"w", "snapshots/16.safetensors": b"s"}, ("checkpoint.safetensors",)
    )
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert names == {"run/weights.safetensors", "run/snapshots/16.safetensors"}
    for name in ("../x", "/tmp/x", "a/../../x", ""):
        with pytest.raises(StoreError, match="outside"):
            receive(tmp_path / "run", {name: b"x"}, ())


def test_without_ray_one_line_says_what_to_install(
    genbench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = genbench("run", "ae", "--executor", "ray")
    assert result.exit_code == 2
    assert "pip install 'genbench[ray]'" in result.output
