"""`genbench diff`: every field that differs is shown, and numbers of two protocols are never called comparable."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genbench.analysis.diff import COMPARABLE, OTHER_IMAGES, OTHER_PROTOCOL, RunDiff, diff_runs
from genbench.api import EvalProtocol
from genbench.cli.main import main
from genbench.storage.run_dir import read_run

DOTS = ("--plugin", str(Path(__file__).parents[1] / "fixtures" / "dots.py"))
TINY = ("--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--images", "32", "--batch", "16")
METRICS = ("--metrics", "reconstruction,latent-w2,sharpness", "--set", "latent-w2.n=20")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of `ae` with seeds 0 and 1, and one on larger images, in a folder that no test changes."""
    folder = tmp_path_factory.mktemp("diff")
    for more in (("--seeds", "2"), ("--set", "dots.size=13")):
        command = ("run", "ae", *DOTS, *TINY, *METRICS, *more, "--out", str(folder / "runs"))
        result = CliRunner().invoke(main, command, env={"GENBENCH_CACHE": str(folder)}, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    return folder / "runs"


def run_of(trained: Path, *, seed: int = 0, size: int = 12) -> Path:
    for path in sorted(trained.iterdir()):
        run = json.loads((path / "run.json").read_text())["run"]
        if (run["seed"], run["dataset"]["options"]["size"]) == (seed, size):
            return path
    raise AssertionError(f"no run of seed {seed} and size {size}")


@pytest.fixture
def pair(trained: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two copies of one run, `first` and `second`, to be changed at will."""
    copies = (tmp_path / "runs" / "first", tmp_path / "runs" / "second")
    for copy in copies:
        shutil.copytree(run_of(trained), copy)
    return copies


def edit(path: Path, *keys: str, to: Any) -> None:
    """Set a value in a JSON file, at a path of keys."""
    record = json.loads(path.read_text())
    inner = record
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    path.write_text(json.dumps(record))


def edit_numbers(path: Path, metric: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the numbers of one metric in metrics.json."""
    record = json.loads((path / "metrics.json").read_text())
    for entry in record["measurements"].values():
        if entry["metric"] == metric:
            for number in entry["numbers"]:
                change(number)
    (path / "metrics.json").write_text(json.dumps(record))


def diff(pair: tuple[Path, Path]) -> RunDiff:
    return diff_runs(read_run(pair[0]), read_run(pair[1]))


def changed(pair: tuple[Path, Path]) -> dict[str, str]:
    """The group of each field that differs."""
    return {difference.field: difference.group for difference in diff(pair).fields}


def conclusions(pair: tuple[Path, Path]) -> dict[str, str]:
    """The conclusion of each metric, by its name without its component."""
    return {metric.metric.split(".")[0]: metric.conclusion for metric in diff(pair).metrics}


def test_copies_of_a_run_do_not_differ(pair: tuple[Path, Path], genbench: Callable[..., Result]) -> None:
    assert changed(pair) == {}
    assert set(conclusions(pair).values()) == {COMPARABLE}
    assert "no difference" in genbench("diff", "first", "second").output


def test_replicates_differ_in_their_seed_and_are_comparable(trained: Path) -> None:
    runs = run_of(trained, seed=0), run_of(trained, seed=1)
    assert changed(runs)["run.seed"] == "run"
    assert set(conclusions(runs).values()) == {COMPARABLE}
    assert diff(runs).conclusion == "comparable in every metric"


def test_runs_on_other_images_are_not_comparable(trained: Path, pair: tuple[Path, Path]) -> None:
    runs = run_of(trained, size=12), run_of(trained, size=13)
    assert {"run.dataset.options.size", "provenance.content"} <= changed(runs).keys()
    assert COMPARABLE not in conclusions(runs).values()
    edit(pair[1] / "run.json", "provenance", "content", to="0" * 64)
    assert set(conclusions(pair).values()) == {OTHER_IMAGES}  # though every protocol is the same


@pytest.mark.parametrize("name", [field.name for field in fields(EvalProtocol)])
def test_a_protocol_that_differs_in_any_field_forbids_the_comparison(pair: tuple[Path, Path], name: str) -> None:
    def change(number: dict[str, Any]) -> None:
        number["how"][name] = 7 if isinstance(number["how"][name], int) else "changed"
        number["protocol"] = EvalProtocol(**number["how"]).key

    edit_numbers(pair[1], "sharpness", change)
    assert conclusions(pair) == {
        "sharpness": OTHER_PROTOCOL,
        "latent-w2": COMPARABLE,
        "reconstruction": COMPARABLE,
    }
    assert set(changed(pair).values()) == {"protocol"}
    assert all(field.endswith(f": {name}") for field in changed(pair))


def test_a_hash_that_differs_alone_forbids_the_comparison(pair: tuple[Path, Path]) -> None:
    edit_numbers(pair[1], "sharpness", lambda number: number.update(protocol="00000000"))
    assert conclusions(pair)["sharpness"] == OTHER_PROTOCOL
    assert [field.split(": ")[1] for field in changed(pair)] == ["hash"]


def test_one_shared_protocol_is_enough(pair: tuple[Path, Path]) -> None:
    for path, count in zip(pair, (5, 6), strict=True):
        record = json.loads((path / "metrics.json").read_text())
        entry = next(entry for entry in record["measurements"].values() if entry["metric"] == "sharpness")
        second = json.loads(json.dumps(entry))
        second["options"]["n"] = second["numbers"][0]["how"]["generated"] = count
        second["numbers"][0]["protocol"] = str(count)
        record["measurements"]["second"] = second
        (path / "metrics.json").write_text(json.dumps(record))
    assert conclusions(pair)["sharpness"] == COMPARABLE
    assert changed(pair) == {}


def test_a_metric_that_a_run_lacks_is_said_to_be_in_the_other(pair: tuple[Path, Path]) -> None:
    (pair[1] / "metrics.json").unlink()
    assert set(conclusions(pair).values()) == {"only in A"}
    assert set(conclusions((pair[1], pair[0])).values()) == {"only in B"}


def test_fields_are_grouped_and_absent_ones_shown(pair: tuple[Path, Path], genbench: Callable[..., Result]) -> None:
    edit(pair[1] / "run.json", "run", "model", "fingerprint", to="123")
    edit(pair[1] / "run.json", "provenance", "packages", "torch", to="0.1")
    edit(pair[1] / "run.json", "provenance", "weather", to={"sky": "grey"})
    assert changed(pair) == {
        "run.model.fingerprint": "run",
        "provenance.packages.torch": "provenance",
        "provenance.weather.sky": "provenance",
    }
    output = genbench("diff", "first", "second").output
    assert output.index("run.model.fingerprint") < output.index("provenance.packages.torch")
    assert "grey" in output
    assert "another source code" in output


def test_json_holds_all_of_a_diff(trained: Path, genbench: Callable[..., Result]) -> None:
    first, second = run_of(trained, seed=0).name, run_of(trained, seed=1).name
    result = genbench("diff", first, second, "--runs", str(trained), "--format", "json")
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    assert (record["a"], record["b"]) == (first, second)
    assert {"field": "run.seed", "a": "0", "b": "1"}.items() <= record["fields"][0].items()
    assert {metric["conclusion"] for metric in record["metrics"]} == {COMPARABLE}


@pytest.mark.parametrize("width", ["80", "160"])
def test_names_and_values_are_no_markup(
    pair: tuple[Path, Path], genbench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    edit(pair[1] / "run.json", "run", "model", "options", to={"[red]": "[/]\x1b[31m"})
    result = genbench("diff", "first", "second")
    assert result.exit_code == 0
    assert "[red]" in result.output
    assert "[/]" in result.output
    assert "\x1b" not in result.output
    assert max(map(len, result.output.splitlines())) <= int(width)


@pytest.mark.parametrize("name", ["run.json", "metrics.json"])
def test_a_damaged_run_is_named_in_one_line(
    pair: tuple[Path, Path], genbench: Callable[..., Result], name: str
) -> None:
    (pair[1] / name).write_text('{"schema": 2, "run"')
    for order in (("first", "second"), ("second", "first")):
        result = genbench("diff", *order)
        assert result.exit_code == 2
        assert len(result.output.splitlines()) == 1
        assert f"second/{name}" in result.output


def test_a_misspelt_run_gets_a_hint(pair: tuple[Path, Path], genbench: Callable[..., Result]) -> None:
    result = genbench("diff", "first", "secnod")
    assert result.exit_code == 2
    assert "did you mean 'second'?" in result.output
    assert len(result.output.splitlines()) == 1


def test_a_diff_loads_no_torch(trained: Path) -> None:
    first, second = (str(run_of(trained, seed=seed)) for seed in (0, 1))
    code = (
        "import sys; from click.testing import CliRunner; from genbench.cli.main import main\n"
        f"found = CliRunner().invoke(main, ['diff', {first!r}, {second!r}])\n"
        "assert found.exit_code == 0, found.output\n"
        "assert not {'torch', 'scipy', 'ot', 'matplotlib'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
