"""Bundles: trained runs in one tar of JSON, PNG and safetensors, for use on another machine.

genbench-bundle.json   first: the schema, and size and SHA-256 of every other entry
RUN/run.json, ...      the files of each run that `run_dir` names, and no other
tuning.json            the searches that chose the options of runs, where there are any; trials themselves stay behind

A bundle comes from a stranger. Names are compared with those that a run may have, sizes with stated bounds; tarfile's
"data" filter extracts into a temporary folder, whose files are checked by their hashes and by the readers of the store
before all of them are moved into place. Nothing is unpickled or executed.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import re
import shutil
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, BinaryIO
from uuid import uuid4

import msgspec

from genbench import __version__
from genbench.errors import DataError, GenbenchError, StoreError, UsageError, one_line
from genbench.storage.run_dir import (
    FAILURE,
    FITTED,
    IMPORTED,
    LOG,
    METRICS,
    RESULTS,
    RUN,
    SELECTED,
    SNAPSHOT_FOLDER,
    SNAPSHOTS,
    TRAINING,
    TUNED,
    TUNING,
    WEIGHTS,
    RunRecord,
    read_run,
    read_searches,
    save_searches,
    searches_of,
)
from genbench.storage.schema import SCHEMA, FittedRecord, Record, SelectionRecord, TrainingRecord, fields_key, read_file
from genbench.utils.io import PART, disk_full_error, hash_file, load_tensors, parse_json, write_atomically, write_json

BUNDLE_SCHEMA = 2
MANIFEST = "genbench-bundle.json"
JSON_FILES = (RUN, TRAINING, FITTED, METRICS, FAILURE, SNAPSHOTS, SELECTED, TUNED, LOG)
FILE = "|".join(
    [
        *map(re.escape, JSON_FILES),
        r"[a-z0-9][a-z0-9_-]*\.png",
        re.escape(WEIGHTS),
        re.escape(RESULTS),
        SNAPSHOT_FOLDER + r"/\d{10}\.safetensors",
    ]
)
ENTRY = re.compile(rf"[a-z0-9]+(?:-[a-z0-9]+)*/({FILE})", re.ASCII)
"""The names of entries: lower-case ASCII, so no two names differ by case or by Unicode's normal form alone."""
NAME_LENGTH = 200

ENTRIES, FILE_BYTES, TOTAL_BYTES = 200_000, 4 << 30, 64 << 30
TEXT_BYTES, PICTURE_BYTES, PICTURE_PIXELS = 64 << 20, 64 << 20, 100_000_000

_UNREADABLE = (tarfile.TarError, OSError, EOFError, ValueError, LookupError, OverflowError, MemoryError)
"""The errors of tarfile and PIL on damaged files."""


class FileEntry(Record, frozen=True):
    """A file of a bundle as its manifest lists it."""

    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    sha256: str


class Manifest(Record, frozen=True):
    """genbench-bundle.json."""

    schema: int
    genbench: str
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Imported:
    """The runs that an import added, and those that were there already, the same byte for byte."""

    new: tuple[str, ...]
    same: tuple[str, ...]


# ---------------------------------------------------------------- export


def export_bundle(records: Sequence[RunRecord], target: Path, *, weights: bool = True) -> tuple[str, ...]:
    """Write the trained runs among `records` as one tar, atomically; return the names of the others, trials left out.

    Trials of searches are no results and stay behind, but what was tried and its values travel with the choices.

    The same runs give the same bytes. Without weights only numbers and pictures travel: such runs stand in every
    table, and cannot be measured by further metrics. Raises `StoreError` for two runs of one name, or a damaged one.
    """
    trained: dict[str, RunRecord] = {}
    for record in records:
        if record.state != "trained" or record.run.role == "trial":
            continue
        if record.name in trained and trained[record.name].path.resolve() != record.path.resolve():
            raise StoreError(f"{record.path} and {trained[record.name].path} are one run twice: name one of them")
        trained[record.name] = record
    if not trained and records and all(record.run.role == "trial" for record in records):
        raise UsageError("all of the runs are trials of a search, which are no results: name the runs of its choices")
    if not trained:
        raise UsageError("none of the runs is trained: nothing to export; finish them with the command that began them")
    for record in trained.values():
        if weights and not any(map(record.has, (FITTED, WEIGHTS, RESULTS))):
            raise StoreError(
                f"{record.path} was imported without its weights: --no-weights packs the numbers and pictures of all"
                " runs, or name only runs that have theirs"
            )
    files = {
        f"{name}/{path}": record.path / path
        for name, record in sorted(trained.items())
        for path in run_files(record.path, weights=weights)
    }
    for record in trained.values():
        check_run(record)
    with TemporaryDirectory() as temporary:
        if searches := searches_of(trained.values()):
            save_searches(Path(temporary), dict(sorted(searches.items())))
            files[TUNING] = Path(temporary, TUNING)
        write_atomically(target, partial(write_tar, files))
    named = {record.name for record in records if record.run.role != "trial"}
    return tuple(sorted(named - set(trained)))


def run_files(folder: Path, *, weights: bool = True) -> list[str]:
    """The files of a run folder that travel, sorted, by relative path; links never do."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    return [name for name in names if re.fullmatch(FILE, name) and (weights or not name.endswith(".safetensors"))]


def write_tar(files: dict[str, Path], target: Path) -> None:
    """Write a bundle of files, by the name of their entry; the same files give the same bytes."""
    listed = {name: FileEntry(path.stat().st_size, hash_file(path)) for name, path in files.items()}
    manifest = msgspec.to_builtins(Manifest(BUNDLE_SCHEMA, __version__, listed))
    text = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, MANIFEST, len(text), io.BytesIO(text))
        for name, path in files.items():
            with path.open("rb") as file:
                _add(archive, name, listed[name].size, file)


def _add(archive: tarfile.TarFile, name: str, size: int, file: BinaryIO) -> None:
    """Add an entry without time or owner, which differ between machines."""
    info = tarfile.TarInfo(name)
    info.size = size
    archive.addfile(info, file)


# ---------------------------------------------------------------- import


def import_bundle(bundle: Path, out: Path) -> Imported:
    """Put the runs of a bundle below `out`: all of them, or none.

    A run that is there already is skipped where the bundle's files are the same, else the import is refused. Raises
    `DataError` for a bundle that is not sound, `StoreError` for runs that are damaged or that differ.
    """
    if not bundle.is_file():
        raise UsageError(f"there is no file {bundle}")
    out.mkdir(parents=True, exist_ok=True)
    digest = hash_file(bundle)
    with only_process(out, f".import-*{PART}"), bundle.open("rb") as file:
        temporary = out / f".import-{uuid4().hex[:8]}{PART}"
        try:
            names = unpack(file, temporary, str(bundle))
            for name in names:
                with _naming(bundle, name):
                    check_run(read_run(temporary / name))
            with _naming(bundle, TUNING):
                searches = read_searches(temporary)
            known = read_searches(out)
            if differing := [search.model for key, search in searches.items() if known.get(key, search) != search]:
                raise StoreError(
                    f"{out / TUNING} and {bundle} hold different searches for {differing[0]} that were asked for alike:"
                    " nothing is imported; import with another --out"
                )
            same = [name for name in names if _is_there(temporary / name, out / name, bundle)]
            new = [name for name in names if name not in same]
            for name in new:
                whole = any((temporary / name / kept).exists() for kept in (WEIGHTS, FITTED, RESULTS))
                origin = {"bundle": bundle.name, "sha256": digest, "weights": whole}
                write_json(temporary / name / IMPORTED, {"schema": SCHEMA, **origin})
            _move(temporary, out, new)
            if searches.keys() - known.keys():
                save_searches(out, searches)
        except OSError as error:
            raise disk_full_error(out, error) or error from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Imported(tuple(new), tuple(same))


@contextmanager
def only_process(folder: Path, leftovers: str) -> Iterator[None]:
    """Wait for other processes that write to the folder, and remove the `leftovers`, a pattern, of a killed one."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for left in folder.glob(leftovers):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _naming(bundle: Path, name: str) -> Iterator[None]:
    """Errors about an unpacked run name the bundle instead of the temporary folder, which will be gone."""
    try:
        yield
    except GenbenchError as error:
        text = re.sub(rf"\S*\.import-\w+{re.escape(PART)}/", "", str(error)).split("; move th")[0]
        whose = name if name == TUNING else f"the run {name}"
        raise DataError(f"{bundle}: {whose} is not sound: {text}") from None


def unpack(file: BinaryIO, target: Path, bundle: str) -> list[str]:
    """Extract a bundle below `target` and return the runs' names, sorted.

    Raises `DataError` for an archive that is not as `export_bundle` writes it; `bundle` is its name in the error.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            members = _members(archive, bundle)
            manifest = _manifest(archive, members, bundle)
            archive.extractall(target, members=[members[name] for name in manifest.files], filter=_plain_file)
    except DataError:
        raise
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno == errno.EFBIG:  # this machine's limit, not the bundle's fault
            raise
        full = disk_full_error(target, error)
        raise full or DataError(f"{bundle} is no whole bundle ({one_line(error, 100)}): get it again") from None
    for name, entry in manifest.files.items():
        path = target / name
        if path.stat().st_size != entry.size or hash_file(path) != entry.sha256:
            raise DataError(f"{bundle}: {name} is damaged: its checksum is wrong")
    return _runs_of(manifest)


def _runs_of(manifest: Manifest) -> list[str]:
    """The names of a bundle's runs, sorted."""
    return sorted({name.split("/")[0] for name in manifest.files if name != TUNING})


def _plain_file(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    """tarfile's "data" filter; times and permissions are those of files made here."""
    return tarfile.data_filter(member, path).replace(mtime=None, mode=None, deep=False)  # type: ignore[arg-type]


def _members(archive: tarfile.TarFile, bundle: str) -> dict[str, tarfile.TarInfo]:
    """The entries by name, each a plain file that a bundle may hold, within the bounds."""
    members: dict[str, tarfile.TarInfo] = {}
    total = 0
    for info in archive:
        name = info.name
        if len(members) >= ENTRIES:
            raise DataError(f"{bundle} has more entries than a bundle may have ({ENTRIES:,})")
        shown = one_line(ValueError(repr(name)), 80)
        if name not in (MANIFEST, TUNING) and (len(name) > NAME_LENGTH or not ENTRY.fullmatch(name)):
            raise DataError(f"{bundle} holds {shown}, which is no file of a run: refused")
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
            raise DataError(f"{bundle} holds {shown}, which is no plain file: refused")
        if name in members:
            raise DataError(f"{bundle} holds {shown} twice: refused")
        limit = FILE_BYTES if name.endswith(".safetensors") else PICTURE_BYTES if name.endswith(".png") else TEXT_BYTES
        if info.size > limit:
            raise DataError(f"{bundle}: {name} has {info.size:,} bytes; such a file has at most {limit:,}")
        total += info.size
        if total > TOTAL_BYTES:
            raise DataError(f"{bundle} unpacks to more than {TOTAL_BYTES:,} bytes: refused")
        members[name] = info
    return members


def _manifest(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], bundle: str) -> Manifest:
    """The manifest, which lists exactly the other entries."""
    if MANIFEST not in members:
        raise DataError(f"{bundle} is no genbench bundle: it has no {MANIFEST}")
    file = archive.extractfile(members[MANIFEST])
    data = b"" if file is None else file.read()
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DataError(f"{bundle}: {MANIFEST} is damaged: {one_line(error, 120)}") from None
    if manifest.schema != BUNDLE_SCHEMA:
        raise DataError(f"{bundle} has schema {manifest.schema}; this version reads {BUNDLE_SCHEMA}")
    if unlisted := sorted(set(manifest.files) ^ (set(members) - {MANIFEST})):
        first = one_line(ValueError(unlisted[0]))
        raise DataError(f"{bundle}: its entries are not those that it lists, the first is {first}")
    for run in _runs_of(manifest):
        if f"{run}/{RUN}" not in manifest.files:
            raise DataError(f"{bundle}: the run {run} lacks {RUN}")
    if not _runs_of(manifest):
        raise DataError(f"{bundle} holds no runs")
    return manifest


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


def _move(temporary: Path, out: Path, names: Sequence[str]) -> None:
    """Move the runs into place, each in one step; where one cannot be, those before it are removed."""
    done: list[Path] = []
    try:
        for name in names:
            (temporary / name).rename(out / name)
            done.append(out / name)
    except BaseException:
        for path in done:
            shutil.rmtree(path, ignore_errors=True)
        raise


# ---------------------------------------------------------------- checks


def check_run(record: RunRecord) -> None:
    """Check a run that was read, and read its other files; `StoreError` or `DataError` for the first fault.

    The run's key and the protocols' hashes are computed anew from their fields, so a record cannot pass for another
    run's and a number not for one that was measured otherwise.
    """
    run = record.run
    if run.name != record.name:
        raise StoreError(f"its record describes {run.name}: altered, or of a genbench that trains otherwise")
    _check_records(record, None if run.role == "external" else read_file(record.path / TRAINING, TrainingRecord))
    for name in run_files(record.path):
        path = record.path / name
        if name == LOG:
            for line in path.read_bytes().splitlines():
                if not isinstance(parse_json(line, path), dict):
                    raise StoreError(f"{path} is no log")
        elif name == FITTED:
            _check_key(path, read_file(path, FittedRecord).key, run.key)
        elif name.endswith(".safetensors"):
            _check_key(path, load_tensors(path)[1].get("key", ""), run.key)
        elif name.endswith(".png"):
            check_picture(path.read_bytes(), path)


def _check_records(record: RunRecord, training: TrainingRecord | None) -> None:
    """`StoreError` where the records of a run contradict each other, or a number the protocol that it states."""
    run, snapshots = record.run, record.snapshots
    measured = [(METRICS, record.measurements)]
    measured += [(SNAPSHOTS, snapshot.measurements) for snapshot in snapshots.values()]
    measured += [(SELECTED, selection.measurements) for selection in record.selections.values()]
    for file, entries in measured:
        for entry in entries.values():
            for number in entry.numbers:
                if number.protocol != fields_key(number.how):
                    metric = f"{entry.metric}.{number.component}".rstrip(".")
                    raise StoreError(f"{record.path / file}: the protocol of {metric} is not the one that it states")
    if training is not None and run.trains:
        images = -(-run.images // max(run.batch, 1)) * max(run.batch, 1)
        if training.images != images or training.batch not in (0, run.batch):
            raise StoreError(
                f"{record.path / TRAINING} is of {training.images:,} images in batches of {training.batch:,};"
                f" {record.path / RUN} says {images:,} in batches of {run.batch:,}"
            )
    for count, snapshot in snapshots.items():
        if int(count) != snapshot.images:
            raise StoreError(f"{record.path / SNAPSHOTS}: the snapshot {count} is of {snapshot.images:,} images")
    for key, selection in record.selections.items():
        _check_selection(record, key, selection)
    if record.tuned is not None:
        values = {name.replace("_", "-"): value for name, value in run.model.options}
        for option, value in record.tuned.options.items():
            if values.get(option.replace("_", "-")) != value:
                raise StoreError(f"{record.path / TUNED} chose another {option} than {record.path / RUN} has")


def _check_selection(record: RunRecord, key: str, selection: SelectionRecord) -> None:
    """`StoreError` where the selected snapshot does not have the best value of all, or not this one."""
    values: dict[int, float] = {}
    for snapshot in record.snapshots.values():
        entry = snapshot.measurements.get(key)
        for number in () if entry is None else entry.numbers:
            if (number.component, number.protocol) == (selection.component, selection.protocol):
                values[snapshot.images] = number.value if selection.higher_is_better else -number.value
    value = selection.value if selection.higher_is_better else -selection.value
    beaten = len(values) == selection.candidates and max(values.values(), default=value) > value
    if values.get(selection.images) != value or beaten:
        raise StoreError(f"{record.path / SELECTED} does not follow from {record.path / SNAPSHOTS}")


def _check_key(path: Path, key: str, expected: str) -> None:
    if key != expected:
        raise StoreError(f"{path} belongs to another run ({key[:20]}, not {expected})")


def check_picture(data: bytes, name: Path | str) -> None:
    """`DataError` unless the bytes are a PNG of a sane size with right checksums; no pixel is decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                pixels = image.width * image.height
                image.verify()
    except (*_UNREADABLE, RuntimeError, SyntaxError, Warning, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is no PNG ({type(error).__name__})") from None
    if pixels > PICTURE_PIXELS:
        raise DataError(f"{name} has {pixels:,} pixels; a run's picture has at most {PICTURE_PIXELS:,}")
