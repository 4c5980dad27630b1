"""Bundles: runs travel whole or not at all, a stranger's archive cannot leave its folder, and nothing in it runs."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import Result

from genbench.errors import DataError, GenbenchError, StoreError
from genbench.storage import archive
from genbench.storage.archive import MANIFEST, unpack
from genbench.storage.bundle import check_picture, import_bundle
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
        ("export-bundle", str(at / "runs"), "--out", str(at / "all.zip")),
        ("export-bundle", str(at / "runs"), "--out", str(at / "light.zip"), "--no-weights"),
    ):
        result = runner.invoke(main, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    return at


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as found:
        return {name: found.read(name) for name in found.namelist()}


def rebundled(path: Path, files: Mapping[str, bytes], **manifest: object) -> Path:
    """A bundle with a true manifest of any files."""
    listed = {n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items() if n != MANIFEST}
    with zipfile.ZipFile(path, "w") as target:
        target.writestr(MANIFEST, json.dumps({"schema": 1, "genbench": "x", "files": listed} | manifest))
        for name, data in files.items():
            if name != MANIFEST:
                info = zipfile.ZipInfo("x")
                info.filename = name  # as it stands: the constructor would mend it
                target.writestr(info, data)
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", ["all.zip", "light.zip"])
def test_an_imported_run_is_skipped_and_stands_in_the_table(made: Path, genbench: Genbench, name: str) -> None:
    assert genbench("import-bundle", str(made / name)).exit_code == 0
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
    genbench("import-bundle", str(made / "all.zip"))
    result = genbench("run", "wae-mmd", *COMMAND[1:])
    assert result.exit_code == 0, result.output
    assert "1 new, 3 done" in result.output
    assert not (next(Path("runs").glob("dots-wae-mmd*")) / "imported.json").exists()


def test_the_weights_of_a_bundle_are_measured_and_absent_ones_are_named(made: Path, genbench: Genbench) -> None:
    measure = ("evaluate", "--metrics", "sharpness", *DOTS)
    genbench("import-bundle", str(made / "light.zip"))
    result = genbench(*measure)
    assert result.exit_code == 1
    assert "was imported without its weights" in result.output
    shutil.rmtree("runs")
    genbench("import-bundle", str(made / "all.zip"))
    assert genbench(*measure).exit_code == 0


def test_the_same_runs_are_the_same_bytes(made: Path, genbench: Genbench) -> None:
    genbench("import-bundle", str(made / "all.zip"))
    for path in Path("runs").rglob("*"):
        path.touch()
    genbench("export-bundle", "runs", "--out", "again.zip")
    assert Path("again.zip").read_bytes() == (made / "all.zip").read_bytes()


def test_the_same_run_is_skipped_and_a_different_one_refused(made: Path, genbench: Genbench) -> None:
    genbench("import-bundle", str(made / "all.zip"))
    assert "0 imported into runs/, 3 skipped" in genbench("import-bundle", str(made / "all.zip")).output
    assert "0 imported into runs/, 3 skipped" in genbench("import-bundle", str(made / "light.zip")).output
    folder = next(Path("runs").glob("dots-swae*"))
    (folder / "training.json").write_text((folder / "training.json").read_text() + " ")
    shutil.rmtree(next(Path("runs").glob("dots-ae*")))
    before = everything(Path("runs"))
    result = genbench("import-bundle", str(made / "all.zip"))
    assert result.exit_code == 2
    assert str(folder) in result.output
    assert "all.zip" in result.output
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
        import_bundle(made / "all.zip", tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []
    monkeypatch.undo()
    left = tmp_path / "runs" / ".import-killed.part"
    shutil.copytree(made / "runs", left)
    assert genbench("report", str(tmp_path / "runs")).exit_code == 2  # a killed import's runs are no runs
    import_bundle(made / "all.zip", tmp_path / "runs")
    assert not left.exists()


# ---------------------------------------------------------------- strangers' archives


NAMES = {
    "../evil.json": "leads outside",
    "dots-ae/../../evil.json": "leads outside",
    "/etc/evil.json": "absolute",
    "C:/evil.json": "drive letter",
    "dots-ae\\run.json": "backslash",
    "dots-ae/run.json\0.png": "NUL",
    "dots-ae/evil.py": "no file of a run",
    "dots-ae/weights.pt": "no file of a run",
    "Dots-ae/run.json": "no file of a run",
    "dots-ae/RUN.JSON": "no file of a run",
    "dots-ae/checkpoint.safetensors": "no file of a run",
    "dots-ae/sub/run.json": "no file of a run",
    "dots-ae/": "no file of a run",
    "plugins/evil.py": "no file of a run",
    "genbench_evil.py": "no file of a run",
    "dots-a\u0301e/run.json": "no file of a run",
    "a" * 250 + "/run.json": "no file of a run",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_a_runs_is_refused(tmp_path: Path, made: Path, name: str) -> None:
    bundle = rebundled(tmp_path / "x.zip", {**contents(made / "light.zip"), name: b"import os"})
    with pytest.raises(DataError, match=NAMES[name]) as caught:
        import_bundle(bundle, tmp_path / "in" / "runs")
    assert "\n" not in str(caught.value)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["in", "in/runs", "x.zip"]


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010666, 0o040755])
def test_links_and_devices_are_refused(tmp_path: Path, mode: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as target:
        info = zipfile.ZipInfo("dots-ae/run.json")
        info.create_system, info.external_attr = 3, mode << 16
        target.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="no plain file"):
        import_bundle(tmp_path / "x.zip", tmp_path / "runs")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("twins", [("a-b/run.json", "a-b/run.json"), ("a-b/run.json", "a-b/\uff52un.json")])
def test_names_that_some_file_systems_hold_for_one_are_refused(tmp_path: Path, twins: tuple[str, str]) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as target:
        for name in twins:
            target.writestr(name, "{}")
    with pytest.raises(DataError, match="one name to some file systems"):
        import_bundle(tmp_path / "x.zip", tmp_path / "runs")


def test_sizes_are_bounded_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    files = contents(made / "light.zip")
    name = next(name for name in files if name.endswith("metrics.json"))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(MANIFEST, files[MANIFEST])  # lists the true, small size
        for other, data in files.items():
            if other != MANIFEST:
                target.writestr(other, b" " * (200 << 20) if other == name else data)
    read: list[int] = []
    original = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: (read.append(n), original(self, n))[1])
    with pytest.raises(DataError, match="unpacks to more than"):
        import_bundle(tmp_path / "bomb.zip", tmp_path / "runs")
    assert max(read) <= archive.BLOCK
    assert min(read) > 0
    assert len(read) < 100
    for bound, message in (("ENTRIES", "entries"), ("TOTAL_BYTES", "unpacks to more"), ("TEXT_BYTES", "more than")):
        with monkeypatch.context() as patch:
            patch.setattr(archive, bound, 5)
            with pytest.raises(DataError, match=message):
                import_bundle(made / "light.zip", tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_every_cut_and_every_flip_is_named(made: Path, tmp_path: Path) -> None:
    data = (made / "light.zip").read_bytes()
    with pytest.raises(DataError):
        unpack(io.BytesIO(b""), None, "x.zip")
    refused = 0
    for k in range(0, len(data), max(1, len(data) // 150)):
        with pytest.raises(DataError, match=r"x\.zip"):
            unpack(io.BytesIO(data[:k]), None, "x.zip")
        flipped = bytearray(data)
        flipped[k] ^= 0x10
        try:
            unpack(io.BytesIO(flipped), tmp_path / str(k), "x.zip")
        except DataError:
            refused += 1
        else:  # a bit that decides nothing (a time, an attribute): then what was unpacked is whole
            shown = {name: it for name, it in contents(made / "light.zip").items() if name != MANIFEST}
            assert everything(tmp_path / str(k)) == shown
    assert refused > 100


def altered(files: Mapping[str, bytes], ending: str, change: Callable[[dict[str, object]], object]) -> dict[str, bytes]:
    """The files with the JSON of one of them changed."""
    name = next(name for name in files if name.endswith(ending))
    value = json.loads(files[name])
    change(value)
    return {**files, name: json.dumps(value).encode()}


@pytest.mark.parametrize(
    ("ending", "change", "message"),
    [
        ("run.json", lambda it: it["run"].update(seed=7), "its record describes"),
        (
            "run.json",
            lambda it: it["run"]["model"]["options"].update(weight="__import__('os')"),
            "its record describes",
        ),
        ("run.json", lambda it: it["run"]["model"]["options"].update(weight=[1]), "does not hold what"),
        ("run.json", lambda it: it["run"]["dataset"].update(name="../../x"), "its record describes"),
        ("run.json", lambda it: it.update(schema=3), "has schema 3"),
        ("metrics.json", lambda it: it.update(measurements=[]), "does not hold what"),
        ("training.json", lambda it: it.update(seconds="1"), "does not hold what"),
    ],
)
def test_a_run_that_does_not_hold_is_refused_whole(
    made: Path, tmp_path: Path, ending: str, change: Callable[[dict[str, object]], object], message: str
) -> None:
    bundle = rebundled(tmp_path / "x.zip", altered(contents(made / "light.zip"), ending, change))
    with pytest.raises(GenbenchError, match=message) as caught:
        import_bundle(bundle, tmp_path / "runs")
    assert "x.zip" in str(caught.value)
    assert ".import-" not in str(caught.value)
    assert list((tmp_path / "runs").iterdir()) == []


def test_weights_of_another_run_a_pickle_and_a_foreign_picture_are_refused(made: Path, tmp_path: Path) -> None:
    files = contents(made / "all.zip")
    mine, other = (next(n for n in files if n.startswith(m) and n.endswith("/weights.safetensors")) for m in
                   ("dots-ae", "dots-swae"))  # fmt: skip
    picture = mine.replace("weights.safetensors", "samples.png")
    for name, data, message in (
        (mine, files[other], "belongs to another run"),
        (mine, b"\x80\x04cos\nsystem\n", "no whole safetensors"),
        (picture, b"<svg onload='alert(1)'/>", "is no PNG"),
    ):
        bundle = rebundled(tmp_path / "x.zip", {**files, name: data})
        with pytest.raises(DataError, match=message):
            import_bundle(bundle, tmp_path / "runs")
        assert list((tmp_path / "runs").iterdir()) == []


def test_a_picture_that_would_fill_the_memory_is_refused(made: Path) -> None:
    data = bytearray(next(d for n, d in contents(made / "light.zip").items() if n.endswith("samples.png")))
    check_picture(bytes(data), "samples.png")
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(DataError, match=r"samples\.png"):
        check_picture(bytes(data), "samples.png")


def test_an_unfinished_run_is_left_out_and_told(made: Path, genbench: Genbench) -> None:
    shutil.copytree(made / "runs", "mine")
    folder = next(Path("mine").glob("dots-ae*"))
    (folder / "weights.safetensors").unlink()
    assert RunFolder(folder).state == "new"
    result = genbench("export-bundle", "mine", "--out", "x.zip")
    assert result.exit_code == 0
    assert f"left out, not trained: {folder.name}" in result.output
    refused = genbench("export-bundle", str(folder), "--out", "x.zip")
    assert (refused.exit_code, len(refused.output.splitlines())) == (2, 1)


def test_a_run_without_weights_keeps_no_figure_and_no_bundle_from_the_others(genbench: Genbench, made: Path) -> None:
    """It is named and left out of what decodes; packing tells of --no-weights. Such runs alone are refused."""
    assert genbench("import-bundle", str(made / "light.zip")).exit_code == 0
    alone = genbench("plot", "samples", *DOTS, "--out", "s.png")
    assert (alone.exit_code, "without its weights" in alone.output) == (2, True)
    swae = next((made / "runs").glob("dots-swae*"))
    shutil.copytree(swae, Path("runs") / swae.name, dirs_exist_ok=True)
    found = genbench("plot", "samples", *DOTS, "--out", "s.png")
    assert (found.exit_code, Path("s.png").exists()) == (0, True), found.output
    assert found.output.count("left out") == 1
    assert "dots-ae" in found.output
    packed = genbench("export-bundle", "runs", "--out", "b.zip")
    assert (packed.exit_code, "--no-weights" in packed.output) == (2, True)
    assert genbench("export-bundle", "runs", "--no-weights", "--out", "b.zip").exit_code == 0
