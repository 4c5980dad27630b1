"""Full disks, damaged caches and checkpoints, other schemas: named, and the good file that was there stays."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import Result
from torch import nn

from genbench.api import DataConfig, Images, ProgressEvent
from genbench.data.images import cached
from genbench.errors import DataError, StoreError
from genbench.storage.run_dir import RunFolder, find_runs, read_runs
from genbench.storage.schema import SCHEMA, FailureRecord
from genbench.training.checkpoint import load_checkpoint, save_checkpoint
from genbench.utils import io as files
from genbench.utils.io import load_tensors, parse_json, save_tensors
from genbench_celeba import PUBLISHED, read_partition

Genbench = Callable[..., Result]
DOTS = ("--plugin", str(Path(__file__).parents[1] / "fixtures" / "dots.py"))
TINY = ("--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--images", "160", "--batch", "16")
COMMAND = ("run", "ae", *DOTS, *TINY, "--metrics", "reconstruction", "--snapshots", "2", "--select", "reconstruction",
           "--controls", "noise")  # fmt: skip


# ---------------------------------------------------------------- full disks


class Disk:
    """A disk that can be filled."""

    def __init__(self, folder: Path, full: Callable[[], object], free: Callable[[], object]) -> None:
        self.folder, self.full, self.free = folder, full, free


@pytest.fixture(params=["tmpfs", "injected"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "injected":
        sync = os.fsync

        def fail(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full, free = (lambda f=f: monkeypatch.setattr(files.os, "fsync", f) for f in (fail, sync))
        yield Disk(folder, full, free)
        return
    mount = shutil.which("mount")
    mounted = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True)
    if not mounted or mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (it takes root)")
    filler = folder / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    try:
        yield Disk(folder, fill, lambda: filler.unlink())
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_named_and_the_checkpoint_before_it_stays(disk: Disk) -> None:
    model = nn.Linear(200, 300)
    optimizers = {"all": torch.optim.Adam(model.parameters())}
    path = disk.folder / "checkpoint.safetensors"
    save_checkpoint(path, model, optimizers, "k", 5, 1.0)
    before = path.read_bytes()
    disk.full()
    with pytest.raises(StoreError) as caught:
        save_checkpoint(path, model, optimizers, "k", 6, 2.0)
    text = str(caught.value)
    assert str(path) in text
    assert "the disk at " in text
    assert "is full" in text
    assert "\n" not in text
    assert path.read_bytes() == before
    assert not list(disk.folder.glob(".*"))
    assert load_checkpoint(path, model, optimizers, "k") == (5, 1.0)
    disk.free()
    save_checkpoint(path, model, optimizers, "k", 6, 2.0)
    assert load_checkpoint(path, model, optimizers, "k") == (6, 2.0)


def test_exports_on_a_full_disk_leave_the_older_ones(disk: Disk, genbench: Genbench) -> None:
    assert genbench(*COMMAND).exit_code == 0
    commands = {
        "report": ("report", "--export", str(disk.folder / "mine")),
        "bundle": ("bundle", "export", "runs", "--out", str(disk.folder / "x.tar")),
        "import": ("bundle", "import", str(disk.folder / "x.tar"), "--out", str(disk.folder / "runs")),
    }
    assert genbench(*commands["report"]).exit_code == 0
    assert genbench(*commands["bundle"]).exit_code == 0
    before = {path: path.read_bytes() for path in disk.folder.rglob("*") if path.is_file()}
    disk.full()
    for name in ("report", "bundle", "import"):
        result = genbench(*commands[name])
        assert result.exit_code == 2, (name, result.output)
        assert "is full" in result.output
        assert str(disk.folder) in result.output
        assert len(result.stderr.splitlines()) == 1  # a report's table has been printed by then
    assert all(path.read_bytes() == data for path, data in before.items())
    assert not list(disk.folder.rglob(".*"))
    disk.free()
    for command in commands.values():
        assert genbench(*command).exit_code == 0


def test_a_study_on_a_full_disk_goes_on_from_where_it_was(disk: Disk, genbench: Genbench) -> None:
    command = (*COMMAND, "--out", str(disk.folder / "runs"))
    disk.folder.joinpath("runs").mkdir()
    disk.full()
    result = genbench(*command)
    assert result.exit_code in (1, 2), result.output
    assert "is full" in result.output or "No space left" in result.output
    disk.free()
    assert genbench(*command).exit_code == 0
    assert {RunFolder(path).state for path in find_runs([disk.folder / "runs"])} == {"trained"}


# ---------------------------------------------------------------- other schemas


def set_schema(path: Path, schema: object) -> None:
    value = json.loads(path.read_text())
    value["schema"] = schema
    path.write_text(json.dumps(value))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and a control that came in a bundle, so that every kind of file is there."""
    from click.testing import CliRunner

    from genbench.cli.main import main

    at = tmp_path_factory.mktemp("store")
    runner = CliRunner(env={"GENBENCH_CACHE": str(at / "cache")})
    for words in (
        (*COMMAND, "--out", str(at / "own")),
        ("bundle", "export", str(at / "own"), "--out", str(at / "x.tar")),
        ("bundle", "import", str(at / "x.tar"), "--out", str(at / "runs")),
    ):
        assert runner.invoke(main, words, catch_exceptions=False).exit_code == 0
    for folder in (at / "runs").iterdir():
        RunFolder(folder).fail(FailureRecord(SCHEMA, "X", "y", "z"))
    return at / "runs"


KINDS = (
    *("run.json", "training.json", "metrics.json", "failure.json", "snapshots.json", "selected.json"),
    *("fitted.json", "imported.json"),
)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("schema", [1, 2, 5, "4", 4.0, True, None, [3], 10**30])
def test_a_record_of_another_schema_is_refused_by_it(store: Path, tmp_path: Path, name: str, schema: object) -> None:
    shutil.copytree(store, tmp_path / "runs")
    path = next((tmp_path / "runs").glob(f"*/{name}"))
    set_schema(path, schema)
    good, problems = read_runs(find_runs([tmp_path / "runs"]))
    assert len(good) == 1
    assert len(problems) == 1
    assert f"{path} has schema" in problems[0]
    assert "this version reads 3" in problems[0]


def test_every_kind_of_json_in_a_store_is_in_the_table(store: Path) -> None:
    assert {path.name for path in store.rglob("*.json")} == set(KINDS)


@pytest.mark.parametrize("version", ["0", "2", "x"])
def test_tensors_of_another_format_are_refused_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(files, "FORMAT_VERSION", version)
        save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(3)}, {"key": "k"})
    with pytest.raises(DataError, match=rf"has format '{version}'; this version reads 1"):
        load_tensors(tmp_path / "x.safetensors")


# ---------------------------------------------------------------- damage


def test_a_damaged_image_cache_is_reported_and_made_anew(tmp_path: Path) -> None:
    lines: list[str] = []
    data_config = DataConfig(tmp_path, tmp_path / "cache", report=lambda progress: lines.append(progress.what))
    assert ProgressEvent("x", 0, 0).total == 0
    draw = torch.Generator().manual_seed(0)
    images = Images(*(torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8, generator=draw) for n in (5, 3, 0)))
    content = cached(data_config, "x", "k" * 20, lambda: images).sha256
    path = next((tmp_path / "cache").rglob("*.safetensors"))
    whole = path.read_bytes()
    assert cached(data_config, "x", "k" * 20, lambda: 1 / 0).sha256 == content  # type: ignore[arg-type, return-value]
    for data in (whole[:-1], whole[:10], b"", b"<html>", whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:]):
        path.write_bytes(data)
        lines.clear()
        assert cached(data_config, "x", "k" * 20, lambda: images).sha256 == content
        assert len(lines) == 1
        assert str(path) in lines[0]
        assert load_tensors(path)[1]["content"] == content


def test_no_damaged_checkpoint_is_used(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizers = {"all": torch.optim.Adam(model.parameters())}
    model(torch.ones(1, 3)).sum().backward()
    optimizers["all"].step()
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, model, optimizers, "k", 5, 1.0)
    whole = path.read_bytes()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for k in range(0, len(whole), 37):
        for data in (whole[:k], whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :]):
            path.write_bytes(data)
            with pytest.raises(StoreError, match=r"checkpoint\.safetensors"):
                load_checkpoint(path, model, optimizers, "k")
    for facts in (
        {"key": "k"},
        {"key": "k", "step": "x", "seconds": "1", "numbers": "{}"},
        {"key": "k", "numbers": "["},
    ):
        save_tensors(path, {f"model.{name}": value for name, value in state.items()}, facts)
        with pytest.raises(StoreError, match="holds no checkpoint"):
            load_checkpoint(path, model, optimizers, "k")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_whole_partition_has_the_published_counts() -> None:
    """One flipped bit moves a face to another split, and every line is still of the right form."""
    parts = [part for part, count in enumerate(PUBLISHED) for _ in range(count)]
    data = "".join(f"{k:06d}.jpg {part}\n" for k, part in enumerate(parts, 1)).encode()
    assert tuple(map(len, read_partition(data, Path("x")).values())) == PUBLISHED
    with pytest.raises(DataError, match="x is damaged: it assigns 162,769, 19,868, 19,962 images"):
        read_partition(data[:11] + b"1" + data[12:], Path("x"))


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b"[-1E+400]",
        b"[" + b"9" * 400 + b".0]",
        b'{"a": "\\ud800"}',
        b"[" * 70 + b"]" * 70,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b"9" * 5000,
        b"",
    ],
)
def test_json_that_cannot_be_written_again_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.json cannot be read as JSON") as caught:
        parse_json(data, "x.json")
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_json_as_we_write_it_is_read() -> None:
    value = {"a": [1e300, -1, "é\U0001f600", {"b": None}], "c": [[k] for k in range(200)]}
    assert parse_json(json.dumps(value).encode(), "x") == value
    deepest = b"[" * files.DEPTH + b"]" * files.DEPTH
    assert parse_json(deepest, "x")
