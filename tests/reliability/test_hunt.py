"""Awkward inputs by kind, each with what must come of it. A refusal is one line and status 2, never a traceback.

Inputs that take long or need special file systems are in `tests/benchmarks/hunt.py`.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genbench.analysis.table import assemble
from genbench.api import DataConfig, EvalProtocol, Measurement
from genbench.cli.main import main
from genbench.data import decoding
from genbench.errors import DataError, MetricError, PluginError
from genbench.evaluation.measure import to_stored
from genbench.registry import loader
from genbench.registry.options import specs
from genbench.storage.inventory import remove_run
from genbench.storage.results import Row
from genbench.storage.schema import SCHEMA, MetricRecord, MetricsFile, decode
from genbench_folder import Folder
from support.records import record
from support.studies import DOTS, TINY, row

LOAD = loader.load
ON_DOTS = ("run", "ae", *DOTS, *TINY, "--metrics", "reconstruction", "--dry-run")


@cache
def _load(files: tuple[Path, ...], disabled: tuple[str, ...]) -> loader.Registry:
    return LOAD(files, disabled=disabled)


def load_once(files: Sequence[Path] = (), *, disabled: Sequence[str] = ()) -> loader.Registry:
    """The plug-ins, loaded once for all calls that name the same ones."""
    return _load(tuple(files), tuple(disabled))


def save_run(folder: Path, model: str, seed: int, value: float) -> None:
    """A trained run with one number, as files."""
    made = record(model, seed, value)
    path = folder / f"glyphs-{model}-normal-8d-s{seed}-{made.run.key[:10]}"
    path.mkdir(parents=True)
    builtins = msgspec.to_builtins
    assert made.training is not None
    for name, content in (
        ("run", {"run": made.run.record(), "provenance": made.provenance}),
        ("training", builtins(made.training)),
        ("metrics", {"measurements": builtins(made.measurements)}),
    ):
        (path / f"{name}.json").write_text(json.dumps({**content, "schema": SCHEMA}))
    (path / "weights.safetensors").write_bytes(b"")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two models and three seeds; one cache for all calls."""
    folder = tmp_path_factory.mktemp("hunt")
    for seed in range(3):
        save_run(folder / "runs", "swae", seed, 1.0 + seed / 10)
        save_run(folder / "runs", "vae", seed, 2.0 + seed**2 / 10)
    return folder


@pytest.fixture
def call(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(place)
    monkeypatch.setenv("GENBENCH_CACHE", str(place / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(loader, "load", load_once)
    return lambda *words: CliRunner().invoke(main, words, prog_name="genbench", catch_exceptions=False)


# ---------------------------------------------------------------- options at their bounds

RUN_NUMBERS = ("--seeds", "--images", "--batch", "--threads", "--snapshots", "--jobs", "--epochs", "--latent-dim")
NO_WHOLE = ("", "nan", "inf", "1e400", "0x10", "²", "1.0", "true", "3,", "9" * 5000)
HUGE = "9" * 30
BOUNDS: list[tuple[tuple[str, ...], str]] = [
    *(((*ON_DOTS, option, value), "whole number") for option in RUN_NUMBERS[:2] for value in NO_WHOLE),
    *(((*ON_DOTS, option, ""), "whole number") for option in RUN_NUMBERS),
    *(((*ON_DOTS, option, HUGE), "at most|not in the range") for option in RUN_NUMBERS if option != "--epochs"),
    *(((*ON_DOTS, option, "-1"), "not in the range|at least 1") for option in RUN_NUMBERS),
    ((*ON_DOTS, "--run-timeout", "soon"), "'soon' is not a number"),
    ((*ON_DOTS, "--run-timeout", "1e400"), "not a finite number"),
    ((*ON_DOTS, "--run-timeout", "-0"), "not in the range"),
    ((*ON_DOTS, "--executor-option", ""), "KEY=VALUE"),
    ((*ON_DOTS, "--executor-option", "="), "KEY=VALUE"),
    ((*ON_DOTS, "--prior", ",,"), "no name is given"),
    ((*ON_DOTS, "--sampler", ""), "no name is given"),
    ((*ON_DOTS, "--out", ""), "no path"),
    ((*ON_DOTS, "--data-root", ""), "no path"),
    ((*ON_DOTS, "--plugin", ""), "no path"),
    ((*ON_DOTS, "--set", "ae.rate==1"), "not a float"),
    ((*ON_DOTS, "--set", "ae.rate=1,,2"), "not a float"),
    ((*ON_DOTS, "--set", "ae.r\u0430te=1"), "did you mean 'rate'"),  # a Cyrillic letter
    ((*ON_DOTS, "--set", "mlp.width=" + "9" * 30), "at most 9223372036854775807"),
    ((*ON_DOTS, "--set", "mlp.depth=x"), "not a int"),
    (("power", "runs", "--seeds", "1"), "at least 2"),
    (("power", "runs", "--seeds", HUGE), "at most 10000"),
    (("power", "runs", "--seeds", ""), "whole numbers"),
    (("power", "runs", "--difference", "small"), "'small' is not a number"),
    (("power", "runs", "--metric", ""), "no metric ''"),
    (("sample", "x", "--count", "1e400", "--out", "x.png"), "not a whole number"),
    (("sample", "x", "--seed", HUGE, "--out", "x.png"), "too large: at most"),
    (("sample", "x", "--out", ""), "no path"),
    (("curves", "--at", "nan"), "not a finite number"),
    (("curves", "--at", "²"), "not a number"),
    (("report", ""), "no path"),
    (("report", "--export", ""), "no path"),
    (("report", "--sort", ""), "no metric ''"),
    (("report", "--columns", "zzz"), "no column 'zzz'"),
    (("report", "--select-options-by", "zzz"), "zzz: no validation values"),
    (("compare", "swae", "swae"), "one group: name two"),
    (("compare", "", "swae"), "no group ''"),
    (("plot", "ranks", "runs", "--out", "x.tiff"), "ends in .pdf, .svg or .png"),
    (("plot", "ranks", "runs", "--out", "runs"), "is a directory"),
    (("bundle", "export", "runs", "--out", ""), "no path"),
    (("bundle", "import", "runs"), "no file"),
    (("rm", "", "--yes"), "names no run"),
    (("rm", "..", "--yes"), "no run in runs called '..'"),
    (("rm", "/", "--yes"), "no run in runs called '/'"),
    (("show", " "), "names no run"),
    (("paper", "--out", ""), "no path"),
    (("check", ""), "no plug-in ''"),
    (("new", "metric", "../x"), "is no name"),
]


@pytest.mark.parametrize(("words", "pattern"), BOUNDS, ids=lambda value: " ".join(value)[-40:] if value else "-")
def test_a_value_at_its_bounds_is_refused_in_one_line(
    call: Callable[..., Result], words: tuple[str, ...], pattern: str
) -> None:
    result = call(*words)
    assert result.exit_code == 2, result.output
    (line, *advice) = result.stderr.splitlines()
    assert line.startswith("genbench: ")
    assert re.search(pattern, line), line
    assert len(line) < 900
    assert all(text.startswith("This would run: ") for text in advice)


@pytest.mark.parametrize("width", ["1", "5", "-1", "abc", "10000", "99999999999999999999", ""])
def test_every_width_prints_the_table(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    with monkeypatch.context() as patched:  # pytest itself asks for the width
        patched.setenv("COLUMNS", width)
        result = call("report", "runs")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()


def test_a_date_of_no_number_is_none(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert call("power", "runs", "--metric", "fid").exit_code == 0
    assert "SOURCE_DATE_EPOCH" not in os.environ


# ---------------------------------------------------------------- study files

BASE = b'models=["ae"]\ndataset="dots"\n'
STUDIES = {
    "a table for a list": (b"[models]\nae=1\n", "key 'models'"),
    "key twice": (BASE + b'dataset="x"\n', "no TOML"),
    "unknown table": (BASE + b"[foo]\na=1\n", "no key 'foo'"),
    "UTF-16": (BASE.decode().encode("utf-16"), "not UTF-8"),
    "latin-1": (BASE + b"# \xe9\n", "not UTF-8"),
    "NUL": (BASE + b'out="a\\u0000b"\n', "NUL"),
    "empty": (b"", "'models' is missing"),
    "empty path": (BASE + b'out=""\n', "key 'out'"),
    "seeds that are a number with a point": (BASE + b"seeds=2.0\n", "key 'seeds'"),
    "seeds that are true": (BASE + b"seeds=true\n", "key 'seeds'"),
    "a seed of 65 bits": (BASE + b"seeds=[18446744073709551616]\n", "key 'seeds'"),
    "a date": (BASE + b"seeds=2020-01-01\n", "key 'seeds'"),
    "nested models": (b'models=[["ae"]]\n', "key 'models'"),
    "deep nesting": (BASE + b"x=" + b"[" * 5000 + b"]" * 5000, "no TOML"),
    "NaN": (BASE + b"run-timeout=nan\n", "key 'run-timeout'"),
    "an option deep in a table": (BASE + b"[set]\nae.rate.x=1\n", "ae.rate"),
    "an empty list of values": (BASE + b"[set]\nae.rate=[]\n", "no value"),
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_wrong_study_file_is_refused_in_one_line(call: Callable[..., Result], place: Path, name: str) -> None:
    content, pattern = STUDIES[name]
    (place / "s.toml").write_bytes(content)
    result = call("run", "s.toml", "--dry-run")
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert re.search(pattern, line), line


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + BASE, BASE.replace(b"\n", b"\r\n")])
def test_a_study_file_of_a_windows_editor_is_read(call: Callable[..., Result], place: Path, content: bytes) -> None:
    (place / "s.toml").write_bytes(content)
    assert call("run", "s.toml", *DOTS, *TINY[2:], "--dry-run").exit_code == 0


def test_a_pipe_is_no_study_file_and_nobody_waits_for_it(call: Callable[..., Result], place: Path) -> None:
    os.mkfifo(place / "pipe.toml")
    result = call("run", "pipe.toml")
    assert result.exit_code == 2
    assert "pipe" in result.stderr


# ---------------------------------------------------------------- numbers of metrics

PROTOCOL = EvalProtocol(
    method="m", dataset="d", preparation="p", split="test", references=1, generated=1, values="uint8"
)
REFUSED: dict[str, dict[str, Any]] = {
    "NaN": {"value": float("nan")},
    "infinity": {"value": float("inf")},
    "1e308": {"value": 1e308},
    "an int of 400 digits": {"value": 10**400},
    "complex": {"value": 1j},
    "two numbers": {"value": torch.tensor([1.0, 2.0])},
    "None": {"value": None},
    "negative se": {"se": -1.0},
    "negative floor_sd": {"floor": 0.0, "floor_sd": -1e-9},
    "negative MDE": {"minimum_detectable_effect": -1.0},
    "interval the wrong way round": {"low": 2.0, "high": 0.0},
    "half an interval": {"low": 0.5},
    "p above 1": {"p_value": 1.0001},
    "p below 0": {"p_value": -0.1},
    "n of 65 bits": {"n": 2**64},
    "n negative": {"n": -1},
    "n fractional": {"n": 2.5},
    "label None": {"label": None},
    "component a number": {"component": 3},
    "direction a word": {"higher_is_better": "lower"},
}
ACCEPTED: dict[str, tuple[dict[str, Any], float]] = {
    "float32 of NumPy": ({"value": np.float32(1.5)}, 1.5),
    "float64 of NumPy": ({"value": np.float64(1.5)}, 1.5),
    "tensor without dimension": ({"value": torch.tensor(1.5)}, 1.5),
    "tensor with gradient": ({"value": torch.tensor(1.5, requires_grad=True)}, 1.5),
    "n of NumPy": ({"n": np.int64(5)}, 1.0),
    "smallest number": ({"value": 5e-324}, 5e-324),
    "minus zero": ({"value": -0.0}, 0.0),
    "largest": ({"value": -1e150}, -1e150),
    "control characters in a label": ({"label": "\x1b[2J\n"}, 1.0),
}


def measurement(**fields: Any) -> Measurement:
    known: dict[str, Any] = {"value": 1.0, "unit": "x", "higher_is_better": True, "n": 4, "protocol": PROTOCOL}
    return Measurement(**{**known, **fields})


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_number_is_refused(name: str) -> None:
    with pytest.raises(MetricError):
        to_stored(measurement(**REFUSED[name]))


@pytest.mark.parametrize("name", ACCEPTED)
def test_numbers_of_libraries_are_numbers(name: str) -> None:
    fields, value = ACCEPTED[name]
    stored = to_stored(measurement(**fields))
    assert stored.value == value
    assert decode(
        msgspec.json.encode(MetricsFile(SCHEMA, {"k": MetricRecord("m", {}, "test", numbers=(stored,))})),
        MetricsFile,
        "x",
    )


# ---------------------------------------------------------------- run folders


@pytest.mark.parametrize("field", ["value", "se", "floor", "floor_sd"])
@pytest.mark.parametrize("number", ["1e308", "-1e308", "NaN", "1e400", "null-ish", "true"])
def test_a_number_on_disk_that_cannot_be_compared_leaves_its_run_out(
    call: Callable[..., Result], place: Path, field: str, number: str
) -> None:
    shutil.rmtree(place / "edited", ignore_errors=True)
    shutil.copytree(place / "runs", place / "edited")
    file = next((place / "edited").glob("*-swae-*/metrics.json"))
    content = json.loads(file.read_text())
    content["measurements"]["key"]["numbers"][0][field] = "@"
    file.write_text(json.dumps(content).replace('"@"', number))
    result = call("report", "edited")
    assert result.exit_code == 0, result.output
    assert f"left out: edited/{file.parent.name}/metrics.json" in result.stderr


def test_two_numbers_of_one_component_are_no_record() -> None:
    number = record().measurements["key"].numbers[0]
    with pytest.raises(ValueError, match="two numbers"):
        MetricRecord("m", {}, "test", numbers=(number, number))


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "training.json"])
@pytest.mark.parametrize("damage", ["folder", "pipe", "empty", "list", "schema 4", "half"])
def test_a_damaged_record_is_told_and_the_others_are_shown(
    call: Callable[..., Result], place: Path, name: str, damage: str
) -> None:
    shutil.rmtree(place / "damaged", ignore_errors=True)
    shutil.copytree(place / "runs", place / "damaged")
    file = next((place / "damaged").glob("*-swae-*")) / name
    text = file.read_text()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage == "pipe":
        os.mkfifo(file)
    else:
        contents = {"empty": "", "list": "[]", "schema 4": '{"schema": 4}', "half": text[: len(text) // 2]}
        file.write_text(contents[damage])
    result = call("report", "damaged")
    assert result.exit_code == 0, result.output
    assert f"left out: damaged/{file.parent.name}/{name}" in result.stderr
    assert "vae" in result.stdout


def test_a_link_to_a_run_is_removed_and_the_run_stays(place: Path, tmp_path: Path) -> None:
    target = next((place / "runs").iterdir())
    (tmp_path / "link").symlink_to(target)
    remove_run(tmp_path / "link")
    assert (target / "run.json").exists()
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- pictures


def png(level: int = 200, size: tuple[int, int] = (8, 8), kind: str = "PNG", mode: str = "RGB", **save: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (level,) * 3).convert(mode).save(buffer, kind, **save)
    return buffer.getvalue()


def header(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG that claims a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    claim = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", claim), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


EXTRA: dict[str, tuple[str | bytes, bytes, str]] = {
    # A file beside ten good ones: its name, its bytes, and whether it is read, refused or passed over.
    "newline in the name": ("a\nb.png", png(), "read"),
    "escape in the name": ("\x1b[2J.png", png(), "read"),
    "255 characters": ("x" * 251 + ".png", png(), "read"),
    "space at the end": ("a.png ", png(), "read"),
    "decomposed letter": ("e\u0301.png", png(), "read"),
    "not UTF-8": (b"caf\xe9.png", png(), "read"),
    "capital ending": ("A.PNG", png(), "read"),
    "zero area": ("z.png", header(0, 0), "refused"),
    "claims 2^31 pixels a side": ("z.png", header(2**31 - 1, 2**31 - 1), "refused"),
    "claims 9000, holds nothing": ("z.png", header(9000, 9000), "refused"),
    "one pixel wide": ("z.png", header(1, 3000, b"\0\xc8\xc8\xc8" * 3000), "read"),
    "progressive JPEG": ("z.jpg", png(kind="JPEG", progressive=True), "read"),
    "CMYK JPEG": ("z.jpg", png(kind="JPEG", mode="CMYK"), "read"),
    "CMYK TIFF": ("z.tif", png(kind="TIFF", mode="CMYK"), "read"),
    "palette of one color": ("z.gif", png(kind="GIF", mode="P"), "read"),
    "one bit": ("z.png", png(255, mode="1"), "read"),
    "floating point": ("z.tif", png(kind="TIFF", mode="F"), "refused"),
    "a text called .png": ("z.png", b"not a picture", "refused"),
    "a text called .txt": ("z.txt", b"BM, said the text", "passed over"),
    "hidden": (".z.png", b"", "passed over"),
}


@pytest.mark.parametrize("name", EXTRA)
def test_one_awkward_file_among_good_ones(tmp_path: Path, name: str) -> None:
    file, data, outcome = EXTRA[name]
    folder = tmp_path / "d"
    folder.mkdir()
    for index in range(10):
        (folder / f"{index}.png").write_bytes(png())
    (folder / os.fsdecode(file)).write_bytes(data)
    config = DataConfig(data_root=tmp_path, cache=tmp_path / "cache", workers=1)
    dataset = Folder(path=str(folder), size=8)
    if outcome == "refused":
        with pytest.raises(DataError, match="skip-corrupt"):
            dataset.load(config)
        images = dataset.load(DataConfig(data_root=tmp_path, cache=tmp_path / "cache", workers=1, skip_corrupt=True))
        assert images.skipped == 1
    else:
        images = dataset.load(config)
        assert images.skipped == 0
    count = len(images.train) + len(images.test) + len(images.validation)
    assert count == (11 if outcome == "read" else 10)
    assert 199 <= images.train.float().mean() <= 206


def test_larger_than_any_picture_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file, and an archive's entry that would unpack to as much."""
    monkeypatch.setattr(decoding, "LARGEST_FILE", 2000)
    (tmp_path / "sparse.png").write_bytes(png() + b"\0" * 3000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", b"\0" * 3000)
    pictures = decoding.FolderPictures(tmp_path)
    with pytest.raises(OSError, match="more than the 2,000 possible"):
        pictures.read("sparse.png")
    with decoding.ZipPictures(tmp_path / "bomb.zip") as zipped, pytest.raises(OSError, match="2,000 possible"):
        zipped.read("bomb.png")


def test_a_path_that_the_system_refuses_is_one_short_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    top = os.open(".", os.O_RDONLY)
    for _ in range(25):
        Path("d" * 200).mkdir()
        os.chdir("d" * 200)
    os.fchdir(top)
    try:
        with pytest.raises(DataError, match="cannot be listed") as caught:
            decoding.FolderPictures(tmp_path)
        assert len(str(caught.value)) < 600
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
        os.close(top)


@pytest.mark.parametrize("date", [(1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)])
@pytest.mark.parametrize("wide", [False, True])
def test_archives_of_every_time_and_width_are_read(tmp_path: Path, date: Any, wide: bool) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for index in range(10):
            with archive.open(zipfile.ZipInfo(f"{index}.png", date), "w", force_zip64=wide) as file:
                file.write(png())
    images = Folder(path=str(tmp_path / "z.zip"), size=8).load(
        DataConfig(data_root=tmp_path, cache=tmp_path / "cache", workers=1)
    )
    assert len(images.train) + len(images.test) == 10


# ---------------------------------------------------------------- plug-ins

HEAD = "from genbench.api import ComponentSpec, Metric\nfrom genbench.hookspecs import hookimpl\n"


def plugin(options: str, before: str = "") -> str:
    return (
        f"{before}{HEAD}class M(Metric):\n    def __init__(self, *, {options}): pass\n"
        "    def measure(self, e): return ()\n"
        "@hookimpl\ndef genbench_metrics():\n    yield ComponentSpec(name='m', description='d', factory=M)\n"
    )


BROKEN: dict[str, tuple[bytes, str]] = {
    "a list as default": (plugin("a: str = []").encode(), "the default of option 'a'"),
    "NaN as default": (plugin("a: float = float('nan')").encode(), "is no float"),
    "infinity as default": (plugin("a: float = float('inf')").encode(), "is no float"),
    "None as default of a number": (plugin("a: float = None").encode(), "is no float"),
    "a truth value as default of an int": (plugin("a: int = True").encode(), "is no int"),
    "a path as default": (plugin("a: str = Path('x')", "from pathlib import Path\n").encode(), "is no str"),
    "a word as default of an int": (plugin("a: int = 'x'").encode(), "is no int"),
    "no choice as default": (
        plugin("a: Literal['x', 'y'] = 'z'", "from typing import Literal\n").encode(),
        r"is no x\|y",
    ),
    "an int of 100 bits as default": (plugin("a: int = 2**100").encode(), "is no int"),
    "no annotation": (plugin("a=1").encode(), "needs an annotation"),
    "an annotation that nothing defines": (plugin("a: 'Nowhere' = 1").encode(), "cannot be resolved"),
    "a name in capitals": (plugin("a: int = 1").replace("'m'", "'M'").encode(), "lower case"),
    "a hook that returns None": (f"{HEAD}@hookimpl\ndef genbench_metrics(): return None\n".encode(), "NoneType"),
    "a hook that raises": (f"{HEAD}@hookimpl\ndef genbench_metrics(): raise ValueError('x')\n".encode(), "ValueError"),
    "no Python": (b"def (:\n", "SyntaxError"),
    "UTF-16": (plugin("a: int = 1").encode("utf-16"), "null bytes"),
    "it exits": (b"import sys; sys.exit(0)\n", "SystemExit"),
    "nested too deep": (b"x=" + b"(" * 300 + b"1" + b")" * 300, "parentheses"),
}
WORKING: dict[str, bytes] = {
    "an int as default of a float": plugin("a: float = 1").encode(),
    "annotations as text": plugin("a: 'int' = 1", "from __future__ import annotations\n").encode(),
    "names of Python": plugin("lambda_: float = 1.0, class_: int = 2").encode(),
    "no line end": plugin("a: int = 1").rstrip("\n").encode(),
    "1 MB of comment": plugin("a: int = 1").encode() + b"#" * 1_000_000,
    "it prints": plugin("a: int = 1", "print('noise')\n").encode(),
    "it changes the working directory": plugin("a: int = 1", "import os; os.chdir('/')\n").encode(),
    "it changes torch's dtype": plugin("a: int = 1", "import torch; torch.set_default_dtype(torch.float64)\n").encode(),
}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[..., loader.Registry]:
    monkeypatch.setenv("GENBENCH_LOAD_PLUGINS", "")
    monkeypatch.setattr(loader, "register_extractors", lambda *_: None)
    return lambda *files: LOAD(files, {"GENBENCH_LOAD_PLUGINS": ""})


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_refused_by_name(load: Callable[..., Any], tmp_path: Path, name: str) -> None:
    (tmp_path / "p.py").write_bytes(BROKEN[name][0])
    with pytest.raises(PluginError, match=BROKEN[name][1]) as caught:
        load(tmp_path / "p.py")
    assert str(caught.value).startswith(f"--plugin {tmp_path / 'p.py'}: ")


@pytest.mark.parametrize("name", WORKING)
def test_an_odd_plugin_works_and_disturbs_nothing(load: Callable[..., Any], tmp_path: Path, name: str) -> None:
    (tmp_path / "random.py").write_bytes(WORKING[name])
    before = Path.cwd(), torch.get_default_dtype()
    registry = load(tmp_path / "random.py")
    assert (Path.cwd(), torch.get_default_dtype()) == before
    assert registry.names("metric") == ("m",)
    assert specs(registry.get("metric", "m").spec.factory)


def test_one_file_by_two_spellings_is_refused(load: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "p.py").write_bytes(WORKING["no line end"])
    with pytest.raises(PluginError, match="loaded already"):
        load(tmp_path / "p.py", tmp_path / "." / ".." / tmp_path.name / "p.py")


# ---------------------------------------------------------------- invariants of the table


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_table_depends_neither_on_the_order_of_runs_nor_on_the_names_of_seeds(data: st.DataObject) -> None:
    number = st.floats(-1e6, 1e6, allow_nan=False)
    values = {model: data.draw(st.lists(number, min_size=3, max_size=4)) for model in ("ae", "swae", "vae")}
    rows = [row(model, seed, value) for model, given in values.items() for seed, value in enumerate(given)]
    renamed = [row(model, 7 * seed + 3, value) for model, given in values.items() for seed, value in enumerate(given)]
    shuffled = data.draw(st.permutations(rows))

    def shown(made: Sequence[Row]) -> Any:
        (table,) = assemble(made)
        return [(line.label, [(cell.estimate, cell.mark) for cell in line.cells if cell]) for line in table.rows]

    assert sorted(shown(rows)) == sorted(shown(shuffled)) == sorted(shown(renamed))
