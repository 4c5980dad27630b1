"""Bundles: trained runs in one zip of JSON, PNG and safetensors, so that a newcomer trains only what is missing.

genbench-bundle.json   first: the schema, and size and SHA-256 of every other entry
RUN/run.json, ...      the files of each run that `store` names, and no other

A bundle comes from a stranger. It is read entry by entry into memory, within stated bounds that hold for what is
*unpacked*, whatever the archive's directory says; names are compared with what a bundle may hold, so no path is ever
made of them that leads elsewhere; nothing is unpickled or executed; every run is read by the readers that read our own.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from genbench.errors import DataError, GenbenchError, StoreError, UsageError
from genbench.storage import schema as records
from genbench.storage.archive import BROKEN, FILE, PICTURE_PIXELS, unpack, write_zip
from genbench.storage.moments import selections, snapshots
from genbench.storage.run_dir import FITTED, IMPORTED, LOG, WEIGHTS, RunFolder
from genbench.utils.io import PART, full_disk, hash_file, load_tensors, parse_json, write_atomically, write_json


@dataclass(frozen=True)
class Imported:
    """What an import did: the runs that were new, and those that were there already, the same byte for byte."""

    new: tuple[str, ...]
    same: tuple[str, ...]


# ---------------------------------------------------------------- export


def export_bundle(folders: Sequence[RunFolder], target: Path, *, weights: bool = True) -> tuple[str, ...]:
    """Write the trained runs among `folders` as one zip, atomically; the names of the others, which are left out.

    The same runs give the same bytes. Without weights the numbers and pictures alone travel: such runs stand in every
    table, and cannot be measured by further metrics. Raises `StoreError` for two runs of one name, or a damaged one.
    """
    trained: dict[str, RunFolder] = {}
    for folder in folders:
        if folder.state != "trained":
            continue
        if folder.name in trained and trained[folder.name].path.resolve() != folder.path.resolve():
            raise StoreError(f"{folder.path} and {trained[folder.name].path} are one run twice: name one of them")
        trained[folder.name] = folder
    if not trained:
        raise UsageError("none of the runs is trained: nothing to export; finish them with the command that began them")
    if weights:
        for folder in trained.values():
            if not (folder.path / FITTED).exists():
                _weights_of(folder)
    files = {
        f"{name}/{path}": folder.path / path
        for name, folder in sorted(trained.items())
        for path in run_files(folder.path, weights=weights)
    }
    for folder in trained.values():
        check_run(folder)
    write_atomically(target, partial(write_zip, files))
    return tuple(sorted({folder.name for folder in folders} - set(trained)))


def _weights_of(folder: RunFolder) -> None:
    """Refuse an imported run that has none."""
    try:
        folder.weights()
    except StoreError:
        raise StoreError(
            f"{folder.path} was imported without its weights: --no-weights packs the numbers and pictures of all runs,"
            " or name only runs that have theirs"
        ) from None


def run_files(folder: Path, *, weights: bool = True) -> list[str]:
    """The files of a run folder that travel, sorted, by relative path; links never do."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    return [name for name in names if re.fullmatch(FILE, name) and (weights or not name.endswith(".safetensors"))]


# ---------------------------------------------------------------- import


def import_bundle(bundle: Path, out: Path) -> Imported:
    """Put the runs of a bundle below `out`: all of them, or none.

    A run that is there already is skipped where the bundle's files are the same, else the import is refused. Raises
    `DataError` for what is no sound bundle, `StoreError` for runs that do not hold or that differ.
    """
    if not bundle.is_file():
        raise UsageError(f"there is no file {bundle}")
    out.mkdir(parents=True, exist_ok=True)
    digest = hash_file(bundle)
    with _alone(out), bundle.open("rb") as file:
        temporary = out / f".import-{uuid4().hex[:8]}{PART}"
        try:
            names = unpack(file, temporary, str(bundle))
            for name in names:
                with _of_bundle(bundle, name):
                    check_run(RunFolder(temporary / name))
            same = [name for name in names if _is_there(temporary / name, out / name, bundle)]
            new = [name for name in names if name not in same]
            for name in new:
                whole = any((temporary / name / kept).exists() for kept in (WEIGHTS, FITTED))
                origin = {"bundle": bundle.name, "sha256": digest, "weights": whole}
                write_json(temporary / name / IMPORTED, {"schema": records.SCHEMA, **origin})
            _put(temporary, out, new)
        except OSError as error:
            raise full_disk(out, error) or error from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Imported(tuple(new), tuple(same))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder against other imports, and remove what a killed one left."""
    held = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        for left in out.glob(f".import-*{PART}"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(held)


@contextmanager
def _of_bundle(bundle: Path, name: str) -> Iterator[None]:
    """Errors about an unpacked run name the bundle: the folder that they speak of is gone when they are read."""
    try:
        yield
    except GenbenchError as error:
        text = re.sub(rf"\S*\.import-\w+{re.escape(PART)}/", "", str(error)).split(";")[0]
        raise DataError(f"{bundle}: the run {name} does not hold: {text}") from None


def _is_there(unpacked: Path, target: Path, bundle: Path) -> bool:
    """Whether the run is in the store, the same; `StoreError` where another stands in its place."""
    if not os.path.lexists(target):
        return False
    for name in run_files(unpacked):
        if not (target / name).is_file() or hash_file(target / name) != hash_file(unpacked / name):
            raise StoreError(
                f"{target} and {bundle} hold different runs of one name ({name} differs): nothing is imported;"
                " move the folder away, or import with another --out"
            )
    return True


def _put(temporary: Path, out: Path, names: Sequence[str]) -> None:
    """Move the runs into place, each in one step; where one cannot be, those before it go again."""
    done: list[Path] = []
    try:
        for name in names:
            (temporary / name).rename(out / name)
            done.append(out / name)
    except BaseException:
        for path in done:
            shutil.rmtree(path, ignore_errors=True)
        raise


def check_run(folder: RunFolder) -> None:
    """Read all of a run as if it were ours; `StoreError` or `DataError` for the first thing that does not hold.

    The run's key is computed anew from its record, so a record cannot pass for another run's.
    """
    from genbench.experiment.run import run_of_record

    run = run_of_record(folder.record()["run"])
    if run.name != folder.name:
        raise StoreError(f"its record describes {run.name}: altered, or of a genbench that trains otherwise")
    folder.training(), folder.measurements(), folder.failure(), snapshots(folder), selections(folder)
    for name in run_files(folder.path):
        path = folder.path / name
        if name == LOG:
            for line in path.read_bytes().splitlines():
                if not isinstance(parse_json(line, path), dict):
                    raise StoreError(f"{path} is no log")
        elif name == FITTED:
            _same_key(path, str(records.read(path, records.FITTED)["key"]), run.key)
        elif name.endswith(".safetensors"):
            _same_key(path, load_tensors(path)[1].get("key", ""), run.key)
        elif name.endswith(".png"):
            check_picture(path.read_bytes(), path)


def _same_key(path: Path, found: str, key: str) -> None:
    if found != key:
        raise StoreError(f"{path} belongs to another run ({found[:20]}, not {key})")


def check_picture(data: bytes, name: Path | str) -> None:
    """`DataError` unless the bytes are a PNG of a sane size whose checksums hold; no pixel is decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                pixels = image.width * image.height
                image.verify()
    except (*BROKEN, SyntaxError, Warning, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is no PNG ({type(error).__name__})") from None
    if pixels > PICTURE_PIXELS:
        raise DataError(f"{name} has {pixels:,} pixels; a run's picture has at most {PICTURE_PIXELS:,}")
