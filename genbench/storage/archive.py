"""The zip of a bundle, written and read. What is read comes from a stranger, and each bound holds for what unpacks."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from genbench import __version__
from genbench.errors import DataError, StoreError, one_line
from genbench.storage import schema as records
from genbench.storage.moments import FOLDER, SELECTED, SNAPSHOTS
from genbench.storage.run_dir import FAILURE, FITTED, LOG, METRICS, RUN, TRAINING, WEIGHTS
from genbench.utils.io import full_disk, hash_file, parse_json

BUNDLE_SCHEMA = 1
MANIFEST = "genbench-bundle.json"
PLAIN = (RUN, TRAINING, FITTED, METRICS, FAILURE, SNAPSHOTS, SELECTED, LOG)
NAME = r"[a-z0-9]+(?:-[a-z0-9]+)*"
FILE = "|".join(
    [*map(re.escape, PLAIN), r"[a-z0-9][a-z0-9_-]*\.png", re.escape(WEIGHTS), FOLDER + r"/\d{10}\.safetensors"]
)
ENTRY = re.compile(rf"({NAME})/({FILE})")
"""All that a bundle may hold: lower-case ASCII, so no two names differ by case or by Unicode's normal form alone."""
EPOCH = (1980, 1, 1, 0, 0, 0)

ENTRIES, FILE_BYTES, TOTAL_BYTES = 200_000, 4 << 30, 64 << 30
TEXT_BYTES, PICTURE_BYTES, PICTURE_PIXELS = 64 << 20, 64 << 20, 100_000_000
NAME_LENGTH = 200
BLOCK = 1 << 20

BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    RuntimeError,
    OverflowError,
    MemoryError,
)
"""What zipfile and PIL raise on damaged files: encrypted, of an unknown compression, cut, lying about offsets."""

PATH_FAULTS = (("\0", "a name with NUL"), ("\\", "a backslash"), (":", "a drive letter or a stream"))


def write_zip(files: dict[str, Path], target: Path | BinaryIO) -> None:
    """Write a bundle of files, by the name of their entry; the same files give the same bytes."""
    listed = {name: {"size": path.stat().st_size, "sha256": hash_file(path)} for name, path in files.items()}
    manifest = {"schema": BUNDLE_SCHEMA, "genbench": __version__, "files": listed}
    with zipfile.ZipFile(target, "w") as archive:
        _add(archive, MANIFEST, io.BytesIO((json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()))
        for name, path in files.items():
            with path.open("rb") as file:
                _add(archive, name, file)


def _add(archive: zipfile.ZipFile, name: str, file: BinaryIO) -> None:
    """An entry without the time, the owner or the system: what differs between two machines stays out."""
    info = zipfile.ZipInfo(name, EPOCH)
    info.create_system, info.external_attr = 3, 0o100644 << 16
    info.compress_type = zipfile.ZIP_STORED if name.endswith((".png", ".safetensors")) else zipfile.ZIP_DEFLATED
    with archive.open(info, "w", force_zip64=True) as entry:
        shutil.copyfileobj(file, entry, BLOCK)


def unpack(file: BinaryIO, target: Path | None, bundle: str) -> list[str]:
    """Write a bundle's files below `target` (None: only read them) and return the runs' names, sorted.

    Raises `DataError` for whatever is not as `export_bundle` writes it.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _entries(archive, bundle)
            listed = _manifest(archive, entries, bundle)
            total = 0
            for name in sorted(listed):
                size, digest = listed[name]
                total += size
                if total > TOTAL_BYTES:
                    raise DataError(f"{bundle} unpacks to more than {TOTAL_BYTES:,} bytes: refused")
                _unpack_entry(archive, entries[name], size, digest, target, bundle)
    except DataError:
        raise
    except BROKEN as error:
        full = full_disk(target, error) if target else None
        raise full or DataError(f"{bundle} is no whole bundle ({one_line(error, 100)}): get it again") from None
    return sorted({name.split("/")[0] for name in listed})


def _entries(archive: zipfile.ZipFile, bundle: str) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, each one that a bundle may hold."""
    infos = archive.infolist()
    if len(infos) > ENTRIES:
        raise DataError(f"{bundle} has {len(infos):,} entries; a bundle has at most {ENTRIES:,}")
    found: dict[str, zipfile.ZipInfo] = {}
    folded: dict[str, str] = {}
    for info in infos:
        name, mode = info.orig_filename, info.external_attr >> 16
        told = _told(name)
        if fault := path_fault(name):
            raise DataError(f"{bundle} holds {told}, {fault}: refused")
        if mode & 0o170000 not in (0, 0o100000):
            raise DataError(f"{bundle} holds {told}, which is no plain file but a link or a device: refused")
        fold = unicodedata.normalize("NFKC", name).casefold()
        if fold in folded:
            other = _told(folded[fold])
            raise DataError(f"{bundle} holds {told} and {other}, one name to some file systems: refused")
        if name != MANIFEST and (len(name) > NAME_LENGTH or not ENTRY.fullmatch(name)):
            raise DataError(f"{bundle} holds {told}, which is no file of a run: refused")
        found[name], folded[fold] = info, name
    return found


def _told(name: str) -> str:
    return one_line(ValueError(repr(name)), 80)


def path_fault(name: str) -> str:
    """Why a name must not become a path, "" where nothing speaks against it."""
    for sign, fault in PATH_FAULTS:
        if sign in name:
            return fault
    if name.startswith("/"):
        return "an absolute path"
    return "a path that leads outside" if ".." in name.split("/") else ""


def _manifest(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], bundle: str) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 by name, of exactly the other entries."""
    if MANIFEST not in entries:
        raise DataError(f"{bundle} is no genbench bundle: it has no {MANIFEST}")
    data = b"".join(_read(archive, entries[MANIFEST], TEXT_BYTES, bundle))
    listing = records.each(records.mapping(size=records.whole, sha256=records.text))
    try:
        found = records.checked(
            parse_json(data, f"{bundle}: {MANIFEST}"),
            records.mapping(genbench=records.text, files=listing),
            f"{bundle}: {MANIFEST}",
            schema=BUNDLE_SCHEMA,
        )
    except StoreError as error:
        raise DataError(str(error)) from None
    files = {name: (it["size"], it["sha256"]) for name, it in found["files"].items()}
    if odd := sorted(set(files) ^ (set(entries) - {MANIFEST})):
        raise DataError(
            f"{bundle}: its entries are not those that it lists, the first is {one_line(ValueError(odd[0]))}"
        )
    runs = {name.split("/")[0] for name in files}
    if lacking := sorted(run for run in runs if not {f"{run}/{RUN}", f"{run}/{TRAINING}"} <= set(files)):
        raise DataError(f"{bundle}: the run {lacking[0]} lacks {RUN} or {TRAINING}")
    if not runs:
        raise DataError(f"{bundle} holds no runs")
    return files


def _unpack_entry(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int, digest: str, target: Path | None, bundle: str
) -> None:
    name = info.orig_filename
    limit = FILE_BYTES if name.endswith(".safetensors") else PICTURE_BYTES if name.endswith(".png") else TEXT_BYTES
    if size > limit:
        raise DataError(f"{bundle}: {name} has {size:,} bytes; such a file has at most {limit:,}")
    found, length = hashlib.sha256(), 0
    path = Path(os.devnull) if target is None else target / name
    if target is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb" if target is None else "xb") as file:
        for block in _read(archive, info, size, bundle):
            found.update(block)
            length += len(block)
            file.write(block)
    if length != size or found.hexdigest() != digest:
        raise DataError(f"{bundle}: {name} is damaged: its checksum does not hold")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int, bundle: str) -> Iterator[bytes]:
    """The unpacked bytes in blocks; more than `limit` of them is an error as soon as they come."""
    length = 0
    with archive.open(info) as entry:
        while block := entry.read(BLOCK):
            length += len(block)
            if length > limit:
                raise DataError(f"{bundle}: {info.orig_filename} unpacks to more than the {limit:,} bytes it may have")
            yield block
