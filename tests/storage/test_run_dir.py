"""Records: what is damaged, foreign or of another schema is refused by name, and hides nothing else."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import Result

from genbench.api import TrainingStats
from genbench.errors import StoreError
from genbench.storage.results import rows
from genbench.storage.run_dir import RunFolder, find_runs, read_run, read_runs
from genbench.storage.schema import TrainingRecord
from genbench.utils.io import write_pieces
from support.mutations import sample_run

Genbench = Callable[..., Result]
TESTS = Path(__file__).parents[1]
DOTS = ("--plugin", str(TESTS / "fixtures" / "dots.py"))
TINY = ("--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--images", "160", "--batch", "16")

BROKEN = {
    "run.json": [
        "",
        "{",
        "[]",
        '{"schema":3,"run":5}',
        '{"schema":3,"run":{}}',
        '{"schema":3}',
        '{"schema":3,"run":{"dataset":1}}',
    ],
    "metrics.json": ["{", '{"schema":3,"measurements":5}', '{"schema":3,"measurements":{"x":1}}', '{"schema":3}'],
    "training.json": ["{", '{"schema":3,"seconds":"x"}', '{"schema":7,"seconds":1.0}'],
    "failure.json": ["{", '{"schema":3,"message":3}'],
}
CASES = [(name, text) for name, texts in BROKEN.items() for text in texts]


@pytest.fixture
def store(genbench: Genbench) -> Path:
    result = genbench("run", "ae", "swae", *DOTS, *TINY, "--metrics", "reconstruction")
    assert result.exit_code == 0, result.output
    return Path("runs")


@pytest.mark.parametrize(("name", "text"), CASES)
def test_a_damaged_record_is_named_and_hides_nothing_else(
    store: Path, genbench: Genbench, name: str, text: str
) -> None:
    damaged = next(store.glob("dots-ae*"))
    (damaged / name).write_text(text)
    good, problems = read_runs(find_runs([store]))
    assert [record.run.model.name for record in good] == ["swae"]
    assert name in problems[0]
    assert "\n" not in problems[0]
    result = genbench("report")
    assert result.exit_code == 0
    assert "left out" in result.output
    assert "swae" in result.stdout
    for command in (("show", str(damaged)), ("sample", str(damaged), "--out", "x.png", *DOTS)):
        outcome = genbench(*command)
        if outcome.exit_code:
            assert (outcome.exit_code, len(outcome.output.splitlines())) == (2, 1)


def test_a_number_that_is_none_is_refused(store: Path) -> None:
    path = next(store.glob("dots-ae*")) / "metrics.json"
    value = json.loads(path.read_text())
    next(iter(value["measurements"].values()))["numbers"][0]["value"] = None
    path.write_text(json.dumps(value))
    with pytest.raises(StoreError, match=r"metrics\.json does not hold"):
        read_run(path.parent)


def test_a_changed_source_is_refused_unless_asked_for(genbench: Genbench, tmp_path: Path) -> None:
    plugin = tmp_path / "dots.py"
    plugin.write_text((TESTS / "fixtures" / "dots.py").read_text())
    mine = ("--plugin", str(plugin))
    tiny = tuple("normed" if word == "mlp" else word for word in TINY)
    assert genbench("run", "ae", *mine, *tiny, "--metrics", "reconstruction").exit_code == 0
    plugin.write_text(plugin.read_text().replace("nn.Unflatten", "nn.Hardtanh(0, 0.01), nn.Unflatten"))
    for command in (("evaluate", "--metrics", "sharpness"), ("sample", "dots-ae", "--out", "x.png")):
        refused = genbench(*command, *mine)
        assert refused.exit_code == 2
        assert "another source of the network 'normed'" in refused.output
        assert genbench(*command, *mine, "--allow-changed-source").exit_code == 0


def test_files_are_as_open_as_the_umask_says(store: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in store.glob("*/*.*")}
    assert len(modes) == 1


DYING = """
import resource, signal, sys
from pathlib import Path
import torch
from genbench.utils.io import save_tensors
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
save_tensors(Path(sys.argv[1]), {"weight": torch.zeros(100_000)})
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system has no limit on the size of files")
def test_files_of_a_process_killed_while_it_wrote_weights_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    (folder.path / "snapshots").mkdir(parents=True)
    for target in (folder.path / "weights.safetensors", folder.path / "snapshots" / "0000000160.safetensors"):
        died = subprocess.run([sys.executable, "-c", DYING, target], capture_output=True, check=False)
        assert died.returncode == -signal.SIGXFSZ, died.stderr
        assert len(list(target.parent.glob(".*"))) == 1
    folder.begin(sample_run().record(), {})
    assert [path for path in folder.path.rglob("*") if path.is_file()] == [folder.path / "run.json"]


def test_one_number_under_two_spellings_of_its_options_is_one_row(store: Path) -> None:
    """As where the same weights were named by two paths: the protocol is one, and so is the number."""
    path = next(store.glob("dots-ae*")) / "metrics.json"
    record = json.loads(path.read_text())
    before = rows(read_runs(find_runs([store]))[0])
    key, entry = next(iter(record["measurements"].items()))
    record["measurements"]["0" * len(key)] = entry
    path.write_text(json.dumps(record))
    assert sorted(map(repr, rows(read_runs(find_runs([store]))[0]))) == sorted(map(repr, before))


def test_runs_share_the_fields_of_a_protocol_and_nothing_that_differs(store: Path) -> None:
    first, second = sorted(store.iterdir())
    path = second / "metrics.json"
    value = json.loads(path.read_text())
    numbers = [number for entry in value["measurements"].values() for number in entry["numbers"]]
    numbers[0]["how"]["detail"] = "edited, under the same hash"
    path.write_text(json.dumps(value))
    records, _ = read_runs([first, second])
    assert records == [read_run(first), read_run(second)]
    hows = [[number.how for entry in record.measurements.values() for number in entry.numbers] for record in records]
    assert hows[0][1] is hows[1][1]
    assert hows[1][0]["detail"] == "edited, under the same hash"
    assert hows[0][0]["detail"] == ""


def test_a_record_is_read_once_and_stays_as_it_was(store: Path) -> None:
    (path, _) = find_runs([store])
    record = read_run(path)
    for file in path.glob("*.json"):
        file.unlink()
    assert rows([record])
    assert record.training is not None


def test_options_keep_their_kind(store: Path) -> None:
    """1 and 1.0 are equal, and another run."""
    path = find_runs([store])[0] / "run.json"
    value = json.loads(path.read_text())
    value["run"]["dataset"]["options"] = {"a": 1, "b": 1.0, "c": True, "d": None, "e": "1"}
    path.write_text(json.dumps(value))
    assert repr(read_run(path.parent).run.dataset.values) == "{'a': 1, 'b': 1.0, 'c': True, 'd': None, 'e': '1'}"


def test_training_json_has_the_fields_of_training_stats() -> None:
    stats = [field.name for field in fields(TrainingStats)]
    assert TrainingRecord.__struct_fields__ == ("schema", *stats)


def test_pieces_that_fail_leave_the_file_that_was_there(tmp_path: Path) -> None:
    def pieces() -> Iterator[str]:
        yield "half"
        raise ValueError("no more")

    path = tmp_path / "rows.csv"
    write_pieces(path, ["a", "b\n"])
    with pytest.raises(ValueError, match="no more"):
        write_pieces(path, pieces())
    assert (path.read_text(), list(tmp_path.iterdir())) == ("ab\n", [path])


def test_new_measurements_are_shown(store: Path, genbench: Genbench) -> None:
    """The runs were read before they were measured."""
    result = genbench("evaluate", str(store), "--metrics", "sharpness", *DOTS)
    assert (result.exit_code, "sharpness" in result.stdout, "swae" in result.stdout.split("sharpness")[-1]) == (
        0,
        True,
        True,
    )
