"""Records: what is damaged, foreign or of another schema is refused by name, and hides nothing else."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from genbench.errors import StoreError
from genbench.storage.results import rows
from genbench.storage.run_dir import RunFolder, find, readable
from genbench.utils.io import write_pieces

Genbench = Callable[..., Result]
TESTS = Path(__file__).parents[1]
DOTS = ("--plugin", str(TESTS / "fixtures" / "dots.py"))
TINY = ("--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--images", "160", "--batch", "16")

BROKEN = {
    "run.json": [
        "",
        "{",
        "[]",
        '{"schema":1,"run":5}',
        '{"schema":1,"run":{}}',
        '{"schema":2}',
        '{"schema":1,"run":{"dataset":1}}',
    ],
    "metrics.json": ["{", '{"schema":1,"measurements":5}', '{"schema":1,"measurements":{"x":1}}', '{"schema":1}'],
    "training.json": ["{", '{"schema":1,"seconds":"x"}', '{"schema":7,"seconds":1.0}'],
    "failure.json": ["{", '{"schema":1,"message":3}'],
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
    good, problems = readable(find([store]))
    assert [folder.record()["run"]["model"]["name"] for folder in good] == ["swae"]
    assert name in problems[0]
    assert "\n" not in problems[0]
    result = genbench("report")
    assert result.exit_code == 0
    assert "left out" in result.output
    assert "swae" in result.stdout
    for command in (("show", str(damaged)), ("sample", str(damaged), "--out", "x.png", *DOTS)):
        found = genbench(*command)
        if found.exit_code:
            assert (found.exit_code, len(found.output.splitlines())) == (2, 1)


def test_a_number_that_is_none_is_refused(store: Path) -> None:
    path = next(store.glob("dots-ae*")) / "metrics.json"
    value = json.loads(path.read_text())
    next(iter(value["measurements"].values()))["numbers"][0]["value"] = None
    path.write_text(json.dumps(value))
    with pytest.raises(StoreError, match=r"metrics\.json does not hold"):
        RunFolder(path.parent).measurements()


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
def test_what_a_process_killed_while_it_wrote_weights_has_left_is_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    (folder.path / "snapshots").mkdir(parents=True)
    for target in (folder.path / "weights.safetensors", folder.path / "snapshots" / "0000000160.safetensors"):
        died = subprocess.run([sys.executable, "-c", DYING, target], capture_output=True, check=False)
        assert died.returncode == -signal.SIGXFSZ, died.stderr
        assert len(list(target.parent.glob(".*"))) == 1
    folder.begin({}, {})
    assert [path for path in folder.path.rglob("*") if path.is_file()] == [folder.path / "run.json"]


def test_one_number_under_two_spellings_of_its_options_is_one_row(store: Path) -> None:
    """As where the same weights were named by two paths: the protocol is one, and so is the number."""
    path = next(store.glob("dots-ae*")) / "metrics.json"
    record = json.loads(path.read_text())
    before = rows(find([store]))
    key, entry = next(iter(record["measurements"].items()))
    record["measurements"]["0" * len(key)] = entry
    path.write_text(json.dumps(record))
    assert sorted(map(repr, rows(find([store])))) == sorted(map(repr, before))


def test_folders_that_share_memory_tell_what_each_file_says(store: Path) -> None:
    """Equal parts are kept once; what is only equal in number, 1 and 1.0, or under the same name, stays apart."""
    one, other = sorted(store.iterdir())
    path = other / "run.json"
    record = json.loads(path.read_text())
    fields = json.loads((one / "run.json").read_text())
    dataset = fields["run"]["dataset"]
    dataset["options"] = {name: float(value) for name, value in dataset["options"].items()}
    record["run"]["dataset"] = dataset
    record["provenance"]["command"] = "another"
    path.write_text(json.dumps(record))
    folders, _ = readable(find([store]))
    assert [repr(folder.record()) for folder in folders] == [repr(RunFolder(f.path).record()) for f in folders]
    assert [repr(f.measurements()) for f in folders] == [repr(RunFolder(f.path).measurements()) for f in folders]
    shared = [folder.record()["run"]["network"] for folder in folders]
    assert shared[0] is shared[1]
    hows = [next(iter(folder.measurements().values()))["numbers"][0]["how"] for folder in folders]
    assert hows[0] is hows[1]


def test_what_was_forgotten_is_read_again(store: Path) -> None:
    folders, _ = readable(find([store]))
    before = [repr(folder.measurements()) for folder in folders]
    path = folders[0].path / "training.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "seconds": 7.5}))
    assert folders[0].training()["seconds"] == record["seconds"]
    for folder in folders:
        folder.forget()
    assert folders[0].training()["seconds"] == 7.5
    assert [repr(folder.measurements()) for folder in folders] == before


def test_pieces_that_fail_leave_the_file_that_was_there(tmp_path: Path) -> None:
    def pieces() -> Iterator[str]:
        yield "half"
        raise ValueError("no more")

    path = tmp_path / "rows.csv"
    write_pieces(path, ["a", "b\n"])
    with pytest.raises(ValueError, match="no more"):
        write_pieces(path, pieces())
    assert (path.read_text(), list(tmp_path.iterdir())) == ("ab\n", [path])


def test_what_was_just_measured_is_shown(store: Path, genbench: Genbench) -> None:
    """The runs were read before they were measured."""
    result = genbench("evaluate", str(store), "--metrics", "sharpness", *DOTS)
    assert (result.exit_code, "sharpness" in result.stdout, "swae" in result.stdout.split("sharpness")[-1]) == (
        0,
        True,
        True,
    )
