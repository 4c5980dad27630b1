"""Bundles: runs travel whole or not at all, a foreign archive cannot leave its folder, and nothing in it runs."""

from __future__ import annotations

import hashlib
import io
import json
import resource
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import Result

from genbench.errors import DataError, GenbenchError, StoreError
from genbench.storage import bundle as bundles
from genbench.storage.bundle import BUNDLE_SCHEMA, MANIFEST, check_picture, import_bundle, unpack
from genbench.storage.run_dir import RunFolder

Genbench = Callable[..., Result]
DOTS = ("--plugin", str(Path(__file__).parents[1] / "fixtures" / "dots.py"))
TINY = ("--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--images", "160", "--batch", "16")
COMMAND = ("run", "ae", "swae", *DOTS, *TINY, "--metrics", "reconstruction", "--snapshots", "2", "--controls", "noise")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and a control with their snapshots, and two bundles of them."""
    from click.testing import CliRunner

    from genbench.cli.main import main

    at = tmp_path_factory.mktemp("made")
    runner = CliRunner(env={"GENBENCH_CACHE": str(at / "cache")})
    for words in (
        (*COMMAND, "--out", str(at / "runs")),
        ("bundle", "export", str(at / "runs"), "--out", str(at / "all.tar")),
        ("bundle", "export", str(at / "runs"), "--out", str(at / "light.tar"), "--no-weights"),
    ):
        result = runner.invoke(main, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    return at


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {info.name: file.read() for info in archive if (file := archive.extractfile(info))}


def add(target: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    """Add an entry as it stands, whatever its name and kind."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    target.addfile(info, io.BytesIO(data))


def rebundled(path: Path, files: Mapping[str, bytes], **manifest: object) -> Path:
    """A bundle with a true manifest of any files."""
    listed = {n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items() if n != MANIFEST}
    with tarfile.open(path, "w") as target:
        whole = {"schema": BUNDLE_SCHEMA, "genbench": "x", "files": listed} | manifest
        add(target, MANIFEST, json.dumps(whole).encode())
        for name, data in files.items():
            if name != MANIFEST:
                add(target, name, data)
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", ["all.tar", "light.tar"])
def test_an_imported_run_is_skipped_and_stands_in_the_table(made: Path, genbench: Genbench, name: str) -> None:
    assert genbench("bundle", "import", str(made / name)).exit_code == 0
    before = everything(Path("runs"))
    result = genbench(*COMMAND)
    assert result.exit_code == 0, result.output
    assert "3 done" in result.output
    assert everything(Path("runs")) == before
    table = genbench("report", "--format", "csv").stdout
    assert table == genbench("report", str(made / "runs"), "--format", "csv").stdout
    shown = genbench("show", "dots-swae").output
    assert "imported" in shown
    assert f"bundle {name}" in shown


def test_only_the_missing_model_is_trained(made: Path, genbench: Genbench) -> None:
    genbench("bundle", "import", str(made / "all.tar"))
    result = genbench("run", "wae-mmd", *COMMAND[1:])
    assert result.exit_code == 0, result.output
    assert "1 new, 3 done" in result.output
    assert not (next(Path("runs").glob("dots-wae-mmd*")) / "imported.json").exists()


def test_the_weights_of_a_bundle_are_measured_and_absent_ones_are_named(made: Path, genbench: Genbench) -> None:
    measure = ("evaluate", "--metrics", "sharpness", *DOTS)
    genbench("bundle", "import", str(made / "light.tar"))
    result = genbench(*measure)
    assert result.exit_code == 1
    assert "was imported without its weights" in result.output
    shutil.rmtree("runs")
    genbench("bundle", "import", str(made / "all.tar"))
    assert genbench(*measure).exit_code == 0


def test_the_same_runs_are_the_same_bytes(made: Path, genbench: Genbench) -> None:
    genbench("bundle", "import", str(made / "all.tar"))
    for path in Path("runs").rglob("*"):
        path.touch()
    genbench("bundle", "export", "runs", "--out", "again.tar")
    assert Path("again.tar").read_bytes() == (made / "all.tar").read_bytes()


def test_the_same_run_is_skipped_and_a_different_one_refused(made: Path, genbench: Genbench) -> None:
    genbench("bundle", "import", str(made / "all.tar"))
    assert "0 imported into runs/, 3 skipped" in genbench("bundle", "import", str(made / "all.tar")).output
    assert "0 imported into runs/, 3 skipped" in genbench("bundle", "import", str(made / "light.tar")).output
    folder = next(Path("runs").glob("dots-swae*"))
    (folder / "training.json").write_text((folder / "training.json").read_text() + " ")
    shutil.rmtree(next(Path("runs").glob("dots-ae*")))
    before = everything(Path("runs"))
    result = genbench("bundle", "import", str(made / "all.tar"))
    assert result.exit_code == 2
    assert str(folder) in result.output
    assert "all.tar" in result.output
    assert everything(Path("runs")) == before  # not even the run that was missing


def test_a_failed_import_leaves_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, genbench: Genbench
) -> None:
    moved: list[Path] = []
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if len(moved) == 2:
            raise OSError(28, "No space left on device")
        moved.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StoreError, match=r"the disk at .* is full"):
        import_bundle(made / "all.tar", tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []
    monkeypatch.undo()
    left = tmp_path / "runs" / ".import-killed.part"
    shutil.copytree(made / "runs", left)
    assert genbench("report", str(tmp_path / "runs")).exit_code == 2  # a killed import's runs are no runs
    import_bundle(made / "all.tar", tmp_path / "runs")
    assert not left.exists()


# ---------------------------------------------------------------- foreign archives


NAMES = (
    "../evil.json",
    "dots-ae/../../evil.json",
    "/etc/evil.json",
    "C:/evil.json",
    "dots-ae\\run.json",
    "dots-ae/run.json\n",
    "dots-ae/evil.py",
    "dots-ae/weights.pt",
    "Dots-ae/run.json",
    "dots-ae/RUN.JSON",
    "dots-ae/checkpoint.safetensors",
    "dots-ae/imported.json",
    "dots-ae/sub/run.json",
    "dots-ae/",
    "plugins/evil.py",
    "genbench_evil.py",
    "dots-a\u0301e/run.json",
    "dots-ae/\uff52un.json",
    "a" * 250 + "/run.json",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_a_runs_is_refused(tmp_path: Path, made: Path, name: str) -> None:
    bundle = rebundled(tmp_path / "x.tar", {**contents(made / "light.tar"), name: b"import os"})
    with pytest.raises(DataError, match="no file of a run") as caught:
        import_bundle(bundle, tmp_path / "in" / "runs")
    assert "\n" not in str(caught.value)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["in", "in/runs", "x.tar"]


KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE)


@pytest.mark.parametrize("kind", KINDS)
def test_links_devices_and_files_with_holes_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as target:
        add(target, "dots-ae/run.json", type=kind, linkname="/etc/passwd")
    with pytest.raises(DataError, match=r"no plain file|no file of a run|no whole bundle"):
        import_bundle(tmp_path / "x.tar", tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as target:
        add(target, "a-b/run.json", b"{}")
        add(target, "a-b/run.json", b"{}")
    with pytest.raises(DataError, match="twice"):
        import_bundle(tmp_path / "x.tar", tmp_path / "runs")


def test_sizes_are_bounded_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path
) -> None:
    """The fourth bomb is a file of a few bytes whose holes make it 3 GB."""
    bounds = (("ENTRIES", "more entries"), ("TOTAL_BYTES", "unpacks to more"), ("TEXT_BYTES", "at most"))
    for bound, message in bounds:
        with monkeypatch.context() as patch:
            patch.setattr(bundles, bound, 5)
            with pytest.raises(DataError, match=message):
                import_bundle(made / "light.tar", tmp_path / "runs")
    sparse = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(3 << 30),
    }
    with tarfile.open(tmp_path / "bomb.tar", "w", format=tarfile.PAX_FORMAT) as target:
        add(target, "dots-ae/weights.safetensors", b"x", pax_headers=sparse)
    with pytest.raises(DataError, match="no plain file"):
        import_bundle(tmp_path / "bomb.tar", tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_every_cut_and_every_flip_is_named(made: Path, tmp_path: Path) -> None:
    data = (made / "light.tar").read_bytes()
    expected = {name: content for name, content in contents(made / "light.tar").items() if name != MANIFEST}
    damaged = [data[:k] for k in range(0, len(data), max(1, len(data) // 150))]
    for k in range(0, len(data), max(1, len(data) // 150)):
        flipped = bytearray(data)
        flipped[k] ^= 0x10
        damaged.append(bytes(flipped))
    refused = 0
    for k, content in enumerate(damaged):
        try:
            unpack(io.BytesIO(content), tmp_path / str(k), "x.tar")
        except DataError as error:
            refused += "x.tar" in str(error)
        else:  # a byte that decides nothing (padding, an owner): then what was unpacked is whole
            assert everything(tmp_path / str(k)) == expected
        shutil.rmtree(tmp_path / str(k), ignore_errors=True)
    assert refused > 200


def altered(files: Mapping[str, bytes], ending: str, change: Callable[[dict[str, object]], object]) -> dict[str, bytes]:
    """The files with the JSON of one of them changed."""
    name = next(name for name in files if name.endswith(ending))
    value = json.loads(files[name])
    change(value)
    return {**files, name: json.dumps(value).encode()}


@pytest.mark.parametrize(
    ("ending", "change", "message"),
    [
        ("run.json", lambda record: record["run"].update(seed=7), "its record describes"),
        (
            "run.json",
            lambda record: record["run"]["model"]["options"].update(weight="__import__('os')"),
            "its record describes",
        ),
        ("run.json", lambda record: record["run"]["model"]["options"].update(weight=[1]), "does not hold what"),
        ("run.json", lambda record: record["run"]["dataset"].update(name="../../x"), "its record describes"),
        ("run.json", lambda record: record.update(schema=2), "has schema 2"),
        ("metrics.json", lambda record: record.update(measurements=[]), "does not hold what"),
        ("training.json", lambda record: record.update(seconds="1"), "does not hold what"),
    ],
)
def test_a_run_that_does_not_hold_is_refused_whole(
    made: Path, tmp_path: Path, ending: str, change: Callable[[dict[str, object]], object], message: str
) -> None:
    bundle = rebundled(tmp_path / "x.tar", altered(contents(made / "light.tar"), ending, change))
    with pytest.raises(GenbenchError, match=message) as caught:
        import_bundle(bundle, tmp_path / "runs")
    assert "x.tar" in str(caught.value)
    assert ".import-" not in str(caught.value)
    assert list((tmp_path / "runs").iterdir()) == []


def test_weights_of_another_run_a_pickle_and_a_foreign_picture_are_refused(made: Path, tmp_path: Path) -> None:
    files = contents(made / "all.tar")
    mine, foreign = (next(n for n in files if n.startswith(m) and n.endswith("/weights.safetensors")) for m in
                   ("dots-ae", "dots-swae"))  # fmt: skip
    picture = mine.replace("weights.safetensors", "samples.png")
    for name, data, message in (
        (mine, files[foreign], "belongs to another run"),
        (mine, b"\x80\x04cos\nsystem\n", "no whole safetensors"),
        (picture, b"<svg onload='alert(1)'/>", "is no PNG"),
    ):
        bundle = rebundled(tmp_path / "x.tar", {**files, name: data})
        with pytest.raises(DataError, match=message):
            import_bundle(bundle, tmp_path / "runs")
        assert list((tmp_path / "runs").iterdir()) == []


def test_a_picture_that_would_fill_the_memory_is_refused(made: Path) -> None:
    data = bytearray(next(d for n, d in contents(made / "light.tar").items() if n.endswith("samples.png")))
    check_picture(bytes(data), "samples.png")
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(DataError, match=r"samples\.png"):
        check_picture(bytes(data), "samples.png")


def test_a_limit_on_the_size_of_files_is_not_called_damage(made: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            import_bundle(made / "all.tar", tmp_path / "runs")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "runs").iterdir()) == []


def test_an_unfinished_run_is_left_out_and_reported(made: Path, genbench: Genbench) -> None:
    shutil.copytree(made / "runs", "mine")
    folder = next(Path("mine").glob("dots-ae*"))
    (folder / "weights.safetensors").unlink()
    assert RunFolder(folder).state == "new"
    result = genbench("bundle", "export", "mine", "--out", "x.tar")
    assert result.exit_code == 0
    assert f"left out, not trained: {folder.name}" in result.output
    refused = genbench("bundle", "export", str(folder), "--out", "x.tar")
    assert (refused.exit_code, len(refused.output.splitlines())) == (2, 1)


def test_a_run_without_weights_keeps_no_figure_and_no_bundle_from_the_others(genbench: Genbench, made: Path) -> None:
    """It is named and left out of what decodes; packing mentions --no-weights. Such runs alone are refused."""
    assert genbench("bundle", "import", str(made / "light.tar")).exit_code == 0
    alone = genbench("plot", "samples", *DOTS, "--out", "s.png")
    assert (alone.exit_code, "without its weights" in alone.output) == (2, True)
    swae = next((made / "runs").glob("dots-swae*"))
    shutil.copytree(swae, Path("runs") / swae.name, dirs_exist_ok=True)
    result = genbench("plot", "samples", *DOTS, "--out", "s.png")
    assert (result.exit_code, Path("s.png").exists()) == (0, True), result.output
    assert result.output.count("left out") == 1
    assert "dots-ae" in result.output
    packed = genbench("bundle", "export", "runs", "--out", "b.tar")
    assert (packed.exit_code, "--no-weights" in packed.output) == (2, True)
    assert genbench("bundle", "export", "runs", "--no-weights", "--out", "b.tar").exit_code == 0
