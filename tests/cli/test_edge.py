"""Errors of the system have place, cause and remedy; small data work; advice that is followed gets further."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from genbench.errors import SystemFailureError
from genbench.execution.executors import process
from genbench.registry.cache import _temporary_cache, cache_folder
from genbench.storage.run_dir import RunFolder
from genbench.utils import io
from genbench.utils.io import describe_os_error, shell_path
from support.studies import DOTS, TINY

Genbench = Callable[..., Result]
ONE = ("run", "ae", *DOTS, *TINY, "--metrics", "reconstruction")


def pictures(folder: Path, count: int, side: int = 8) -> Path:
    """A folder of colour pictures of noise."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(noise.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{number:03d}.png")
    return folder


def small(count: int) -> tuple[str, ...]:
    """The arguments of a study of `count` pictures, nothing but the network and the size being set."""
    pictures(Path("small"), count)
    return ("--dataset", "folder", "--set", "dataset.path=small", "--set", "dataset.size=8", "--network", "mlp")


# ---------------------------------------------------------------- the system


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_folder_without_locks_is_refused_once_before_any_run(
    genbench: Genbench, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    result = genbench(*ONE, "--seeds", "3")
    assert result.exit_code == 2
    assert re.fullmatch(r"genbench: --out runs cannot be locked \(.*\); name a folder .* has locks\n", result.stderr)
    assert not list(Path("runs").iterdir())


def test_a_file_system_without_modes_does_not_matter(genbench: Genbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def chmod(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", chmod)
    assert genbench(*ONE).exit_code == 0


def test_a_full_disk_ends_a_study_after_one_run(genbench: Genbench, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Path] = []

    def full(folder: RunFolder, *_: object) -> None:
        tried.append(folder.path)
        raise SystemFailureError("weights cannot be written: the disk at / is full; make room")

    monkeypatch.setattr(RunFolder, "save_training", full)
    result = genbench(*ONE, "--seeds", "4")
    assert result.exit_code == 1
    assert len(tried) == 1
    assert "every further run would meet this" in result.stdout


def test_caches_move_where_there_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENBENCH_CACHE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-this-name/cache")
    _temporary_cache.cache_clear()
    folder = cache_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_folder() == folder


def test_the_move_of_the_caches_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GENBENCH_CACHE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-this-name/cache")
    _temporary_cache.cache_clear()
    cache_folder(), cache_folder()
    message = capsys.readouterr().err
    assert message.count("set GENBENCH_CACHE") == 1 == message.count("\n")


def test_sockets_have_short_paths_and_data_stay_in_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(process, "get_temp_dir", lambda: seen.append(tempfile.gettempdir()))
    deep = tmp_path / ("deep" * 25)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    process._make_socket_folder()
    assert seen == ["/tmp"]
    assert tempfile.gettempdir() == str(deep)
    assert "TMPDIR=/tmp" in describe_os_error(OSError("AF_UNIX path too long"))


@pytest.mark.parametrize("number", sorted(io.REMEDIES))
def test_an_error_of_the_system_has_place_cause_and_remedy(genbench: Genbench, number: int) -> None:
    text = describe_os_error(OSError(number, os.strerror(number), "some/where"))
    assert text == f"some/where: {os.strerror(number)}: {io.REMEDIES[number]}"


def test_a_width_of_zero_is_the_usual_one(genbench: Genbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    assert "sliced" in genbench("list", "models").stdout.lower()


def test_the_backend_of_a_notebook_is_not_ours(genbench: Genbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://not_installed_here.backend")
    genbench("list", "priors")
    assert os.environ["MPLBACKEND"] == "agg"


def test_a_fault_of_ours_asks_for_a_report(genbench: Genbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("genbench.cli.plugins.load_listing", broken)
    result = genbench("list")
    assert result.exit_code == 1
    assert "ZeroDivisionError: planted" in result.stderr
    assert "Please report it" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["out dir", "-dash", "it's", "two\nlines", "plain"])
def test_paths_in_commands_survive_the_shell(name: str) -> None:
    (word,) = shlex.split(shell_path(name))
    assert Path(word) == Path(name)
    assert not word.startswith("-")


@pytest.mark.parametrize("name", [b"caf\xe9", b"caf\xe9 it's", b"a\\\xff", "été".encode(), b"-\xe9"])
def test_paths_that_are_not_utf_8_survive_the_shell(name: bytes) -> None:
    path = shell_path(os.fsdecode(name))
    assert path.isascii() or path == "'été'"
    done = subprocess.run(["bash", "-c", f"printf %s {path}"], capture_output=True, check=True)
    assert done.stdout.removeprefix(b"./") == name


# ---------------------------------------------------------------- small data


@pytest.mark.parametrize(
    ("count", "notes"),
    [
        (300, ["latent-w2.n=30: there are 30 test images", "latent-sw.n=30: there are 30 test images"]),
        (40, ["batches of 36, not 128", "left out: latent-w2 needs 16 held-out images and the dataset has 4"]),
        (10, ["batches of 9, not 128", "left out: nearest-train: 1 held-out"]),
    ],
)
def test_small_data_run_with_the_defaults(genbench: Genbench, count: int, notes: list[str]) -> None:
    result = genbench("run", "swae", *small(count), "--dry-run")
    assert result.exit_code == 0, result.output
    for note in notes:
        assert note in result.stdout


def test_what_was_asked_for_is_refused_and_not_left_out(genbench: Genbench) -> None:
    asked = ("run", "ae", *small(40), "--dry-run", "--metrics", "latent-w2,reconstruction", "--batch", "100")
    result = genbench(*asked)
    assert result.exit_code == 2
    first, *problems, command = result.stderr.splitlines()
    assert first == "genbench: 2 problems:"
    assert [problem.split(":")[0] for problem in problems] == [
        "  - --batch 100",
        "  - latent-w2 needs 16 held-out images and the dataset has 4",
    ]
    assert command.endswith("--dry-run --batch 36 --metrics reconstruction")


# ---------------------------------------------------------------- advice that is followed

IMPOSSIBLE = ("swae", "vae", "--prior", "normal,uniform")


@pytest.mark.parametrize(
    ("count", "arguments"),
    [
        (40, ("ae", "--batch", "99", "--metrics", "reconstruction")),
        (40, ("ae", "--metrics", "latent-w2,reconstruction")),
        (40, ("ae", "--metrics", "fid,reconstruction")),
        (40, ("ae", "--metrics", "latent-mmd,pixel-w2,psnr", "--set", "psnr.n=99")),
        (10, ("ae", "--metrics", "fid,kid,reconstruction")),
        (300, ("ae", "--metrics", "latent-w2", "--set", "latent-w2.n=2000")),
        (300, ("ae", "--metrics", "latent-mmd", "--set", "latent-mmd.n=20")),
        (300, ("ae", "--metrics=latent-w2", "--set=latent-w2.n=16")),
        (300, ("ae", "--metrics", "ring-coverage,reconstruction")),
        (300, ("ae", "--metrics", "fid-ladder,reconstruction", "--set", "fid-ladder.codes=5000")),
        (300, (*IMPOSSIBLE, "--metrics", "reconstruction")),
        (300, ("ae", "--metrics", "reconstruction", "--snapshots", "2")),
        (300, ("ae", "--metrics", "reconstruction", "--select", "reconstruction", "--batch", "16")),
        (10, (*IMPOSSIBLE, "--metrics", "fid,latent-sw,reconstruction", "--snapshots", "3", "--batch", "64")),
    ],
)
def test_the_command_of_a_refusal_runs(genbench: Genbench, count: int, arguments: tuple[str, ...]) -> None:
    given = ("run", *arguments[:1], *arguments[1:], *small(count), "--dry-run", "--set", "dataset.channels=rgb")
    refused = genbench(*given)
    assert refused.exit_code == 2, refused.output
    (advice,) = re.findall(r"^This would run: genbench (.*)$", refused.stderr, re.MULTILINE)
    followed = genbench(*shlex.split(advice))
    assert followed.exit_code == 0, f"{advice}\n{followed.output}"


ADVICE = [
    (("ae", "--metrics", "latent-w2", "--set", "latent-w2.n=2000"), r"--set latent-w2.n=\d+"),
    (("ae", "--metrics", "latent-w2", "--set", "latent-w2.n=16"), r"--set latent-w2.blocks=\d+"),
    (("ae", "--metrics", "latent-mmd", "--set", "latent-mmd.n=20"), r"--set latent-mmd.blocks=\d+"),
    (("ae", "--metrics", "psnr", "--set", "psnr.n=99"), r"--set psnr.n=\d+"),
    (("ae", "--batch", "999", "--metrics", "reconstruction"), r"--batch \d+$"),
    (("ae", "--snapshots", "2", "--metrics", "reconstruction"), r"--set folder.validation=\S+"),
    (("ae", "--select", "reconstruction", "--set", "folder.validation=0.1"), r"--snapshots \d+"),
    (("ae", "--set", "rate=0.1"), r"--set ae.rate=\S+"),
    (("ae", "--seeds", "0,1,2"), r"--seeds \d+"),
    (("ae", "--images", "2k"), r"--images \d+"),
]
"""Arguments, and what the refusal says to do: options that replace those of the same name."""


@pytest.mark.parametrize(("arguments", "pattern"), ADVICE, ids=lambda value: str(value)[-40:])
def test_advice_in_a_refusal_gets_further(genbench: Genbench, arguments: tuple[str, ...], pattern: str) -> None:
    data = small(300)
    refused = genbench("run", *arguments, *data, "--dry-run")
    assert refused.exit_code == 2
    (advice,) = {match[0] for match in re.finditer(pattern, refused.stderr.splitlines()[0])}
    flag, value = advice.split(" ")
    target = value.partition("=")[0].partition(".")[2] if flag == "--set" else ""
    kept = list(arguments)
    for index in [i for i, word in enumerate(kept) if word == flag and (flag != "--set" or target in kept[i + 1])]:
        del kept[index : index + 2]
        break
    followed = genbench("run", *kept, *data, "--dry-run", flag, value)
    assert followed.exit_code == 0, f"{advice}\n{followed.output}"


def test_skip_impossible_says_which_cells_it_leaves_out_and_why(genbench: Genbench) -> None:
    study = ("run", *IMPOSSIBLE, *DOTS, *TINY, "--metrics", "reconstruction", "--dry-run")
    assert "--skip-impossible" in genbench(*study).stderr
    result = genbench(*study, "--skip-impossible")
    assert result.exit_code == 0, result.output
    assert "3 runs on dots" in result.stdout
    assert re.search(r"left out: vae, prior uniform, d = 2: .", result.stdout)
    alone = genbench("run", "vae", *DOTS, *TINY, "--prior", "uniform", "--skip-impossible", "--dry-run")
    assert alone.exit_code == 2


def test_models_are_listed_by_family_with_one_line_each_and_named_ones_with_their_options(
    genbench: Genbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = genbench("list", "models").stdout
    lines = shown.splitlines()
    family = lines.index("  Wasserstein autoencoders")
    assert any(line.split()[:1] == ["swae"] for line in lines[family:])
    assert all(len(line) <= 80 for line in lines)
    assert sum(line.split()[:1] == ["swae"] for line in lines) == 1
    assert "projections" not in shown
    named = genbench("list", "models", "SWAE", "ae").stdout
    assert "projections" in named
    assert "wae-mmd" not in named
    listed = json.loads(genbench("list", "models", "ae", "--format", "json").stdout)["models"]
    assert [each["name"] for each in listed] == ["ae"]
    wrong = genbench("list", "models", "swea")
    assert wrong.exit_code == 2
    assert "did you mean 'swae'" in wrong.output
    assert genbench("list", "plugins", "swae").exit_code == 2
