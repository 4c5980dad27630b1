"""The files of a folder or a zip archive, and which of them are pictures. What is passed over is counted, with reasons.

Links are followed; one that leads back to a folder above it is passed over. Hidden files, the thumbnails and bins of
file managers and of network storage, and whatever is no regular file are passed over as well.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from genbench.errors import DataError, one_line, printable
from genbench.utils.io import shell_path

Image.init()
FORMATS = tuple(
    name
    for name in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "QOI")
    if name in Image.OPEN  # an older Pillow has no AVIF
)
"""Formats that Pillow may read; readers that call a program (PostScript) are not used."""

ENDINGS = frozenset(ending for ending, name in Image.registered_extensions().items() if name in FORMATS)
"""Endings of such files. A file with another ending, or none, is one where it begins as one."""

SYSTEM_NAMES = frozenset(
    {
        *("__macosx", "icon\r"),  # macOS, which hides the rest behind a dot
        *("thumbs.db", "ehthumbs.db", "desktop.ini"),  # Windows
        *("$recycle.bin", "recycler", "system volume information"),
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "~snapshot"),  # network storage
        "lost+found",
    }
)
"""Files and folders that systems lay beside pictures, in lower case; names with a dot in front are hidden anyway."""

LINKS = 3
"""Links to folders in one path at most: folders that link to each other would otherwise be read in every order."""

HIDDEN = "hidden or of the system"
LOOP = "link back to a folder above it"
CHAIN = f"link behind {LINKS} others"
SPECIAL = "pipe, socket or device"
NO_ACCESS = "that cannot be opened"
DUPLICATE = "stored twice under one name"
STORED_LINK = "link stored in the archive"
NAMED = (LOOP, CHAIN, SPECIAL, NO_ACCESS, DUPLICATE, STORED_LINK)
"""Reasons that are told with the first name."""

PassedOver = dict[str, list[str]]
"""The names of files that are not read, by reason; the reason of an ordinary file is its ending."""


@dataclass
class FolderListing:
    """The files of a folder: the status of each by its relative name, those that cannot be opened with the reason."""

    files: dict[str, os.stat_result] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    passed_over: PassedOver = field(default_factory=dict)


def list_folder(folder: Path) -> FolderListing:
    """All files below a folder, in the order of their names; `DataError` for a folder that cannot be listed."""
    listing = FolderListing()
    for name, entry in sorted(_entries(folder, listing.passed_over)):
        try:
            status = entry.stat()
        except OSError as error:  # a link to nowhere, or to itself
            _refuse(listing, name, describe_error(error))
            continue
        if not stat.S_ISREG(status.st_mode):
            listing.passed_over.setdefault(SPECIAL, []).append(name)
        elif not os.access(entry.path, os.R_OK):
            _refuse(listing, name, "Permission denied")
        else:
            listing.files[name] = status
    return listing


def _refuse(listing: FolderListing, name: str, reason: str) -> None:
    """A picture that cannot be opened is the caller's to refuse; of any other file it is said."""
    if ending_of(name) in ENDINGS:
        listing.unreadable[name] = reason
    else:
        listing.passed_over.setdefault(NO_ACCESS, []).append(name)


def _entries(top: Path, passed_over: PassedOver) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below a folder that is no folder, links followed, by its relative name."""
    pending = [(top, "", frozenset(map(_identity, (top, *top.resolve().parents))), 0)]
    while pending:
        folder, prefix, above, links = pending.pop()
        entries = _scan(folder)
        above |= {_identity(folder)}
        for entry in entries:
            name, path = prefix + entry.name, Path(entry.path)
            if is_hidden(entry.name):
                below = _files_below(path, name) if entry.is_dir(follow_symlinks=False) else [name]
                passed_over.setdefault(HIDDEN, []).extend(below)
            elif not _is_folder(entry):
                yield name, entry
            elif not entry.is_symlink():
                pending.append((path, f"{name}/", above, links))
            elif _identity(path) in above:
                passed_over.setdefault(LOOP, []).append(name)
            elif links == LINKS:
                passed_over.setdefault(CHAIN, []).append(name)
            else:
                target = path.resolve()
                pending.append((path, f"{name}/", above.union(map(_identity, (target, *target.parents))), links + 1))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        name = printable(str(folder))
        name = name if len(name) <= 300 else f"{name[:300]}..."
        raise DataError(
            f"the folder {name} cannot be listed ({describe_error(error)}): change its permissions, or move it away"
        ) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _files_below(folder: Path, name: str) -> list[str]:
    """The files and links below a folder, by names that begin with `name`."""
    return [
        f"{name}/{(Path(root) / below).relative_to(folder)}"
        for root, folders, files in os.walk(folder)
        for below in (*files, *(link for link in folders if Path(root, link).is_symlink()))
    ]


def is_hidden(name: str) -> bool:
    """Whether a file or a folder of this name, without its folder, is hidden or belongs to the system."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def ending_of(name: str) -> str:
    """The ending of a name with its dot, in lower case; "" where there is none."""
    return PurePosixPath(name).suffix.lower()


def begins_as_picture(head: bytes) -> bool:
    """Whether the first 16 bytes of a file are those of a format in `FORMATS`, by Pillow's tests of them."""
    return any(accept is not None and bool(accept(head)) for _, accept in (Image.OPEN[name] for name in FORMATS))


def opens_as_picture(data: bytes) -> bool:
    """Whether Pillow reads the head of a picture in these bytes: two letters alone may begin a text as well."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS):
            return True
    except Exception:  # whatever a decoder makes of bytes that are no picture
        return False


def describe_passed_over(passed_over: Mapping[str, list[str]]) -> str:
    """One line, "60 files passed over: 39 .txt, 20 .heic, 1 link back to a folder above it ('loop')"; "" for none."""
    total = sum(map(len, passed_over.values()))
    if not total:
        return ""
    return f"{total:,} file{'s' * (total != 1)} passed over: {count_reasons(passed_over)}"


def count_reasons(passed_over: Mapping[str, list[str]]) -> str:
    """The reasons with their counts, the most frequent first: "39 .txt, 20 .heic"."""
    present = [(reason, names) for reason, names in passed_over.items() if names]
    ordered = sorted(present, key=lambda pair: (-len(pair[1]), pair[0]))
    parts = [_count(reason, names) for reason, names in ordered[:8]]
    rest = sum(len(names) for _, names in ordered[8:])
    return ", ".join(parts + [f"{rest:,} of {len(ordered) - 8} more kinds"] * bool(rest))


def _count(reason: str, names: list[str]) -> str:
    plural = reason.replace("link ", "links ", 1).replace("pipe, socket or device", "pipes, sockets or devices")
    text = f"{len(names):,} {reason if len(names) == 1 else plural}"
    return text + (f" ('{printable(min(names))}')" if reason in NAMED else "")


# ---------------------------------------------------------------- zip archives

_DRIVE = re.compile(r"^[A-Za-z]:/")


def list_archive(archive: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], PassedOver]:
    """The entries of an archive by their path with slashes, as a folder would hold them, and what is passed over.

    Nothing is written anywhere, so a path that is absolute or leads upwards does no harm: it is read as relative.
    """
    entries: dict[str, zipfile.ZipInfo] = {}
    passed_over: PassedOver = {}
    for entry in archive.infolist():
        name = entry_name(entry)
        if entry.is_dir() or not name or entry.filename.endswith("\\"):
            continue
        mode = entry.external_attr >> 16 if entry.create_system == 3 else 0
        if any(map(is_hidden, name.split("/"))):
            passed_over.setdefault(HIDDEN, []).append(name)
        elif stat.S_ISLNK(mode):
            passed_over.setdefault(STORED_LINK, []).append(name)
        else:
            if name in entries:
                passed_over.setdefault(DUPLICATE, []).append(name)
            entries[name] = entry
    return entries, passed_over


def entry_name(entry: zipfile.ZipInfo) -> str:
    """The path of an entry: names as their system wrote them, slashes for backslashes, no root and no parents."""
    name = entry.orig_filename
    if not entry.flag_bits & 0x800 and not name.isascii():  # no UTF-8, says the entry: zipfile has read it as cp437
        data = name.encode("cp437")
        try:
            name = data.decode("utf-8")
        except UnicodeDecodeError:
            name = os.fsdecode(data) if entry.create_system == 3 else name
    path = posixpath.normpath("/" + _DRIVE.sub("", name.replace("\\", "/")))  # below the root, ".." ends at the root
    return path.strip("/")


def is_split(archive: zipfile.ZipFile, path: Path) -> bool:
    """Whether an archive is the last part of several."""
    if any(path.with_suffix(ending).exists() for ending in (".z01", ".Z01")):
        return True
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 22 - len(archive.comment)))
        end = file.read(22)
    return any(entry.volume for entry in archive.infolist()) or (
        end[:4] == b"PK\x05\x06" and struct.unpack("<H", end[4:6])[0] not in (0, 0xFFFF)
    )


def describe_error(error: BaseException) -> str:
    """The text of an exception in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "no image format that PIL knows"  # its own text is the address of a buffer
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error)


# ---------------------------------------------------------------- what a file is that is neither


def describe_file(path: Path) -> str:
    """What a file is that is given in place of a folder or a zip archive, and what to do: "a tar archive: ..."."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        return f"cannot be read ({describe_error(error)}): change its permissions, or name another one"
    quoted, folder = shell_path(path), shell_path(path.with_suffix(""))
    unpack = f"mkdir -p {folder} && tar -xf {quoted} -C {folder}, then --set dataset.path={folder}"
    if head[257:262] == b"ustar":
        return f"is a tar archive: unpack it, {unpack}"
    for start, noun in _PACKED.items():
        if head.startswith(start) and ".tar" in path.name.lower() + path.suffix.lower().replace(".tgz", ".tar"):
            return f"is a tar archive packed by {noun}: unpack it, {unpack}"
        if head.startswith(start):
            return f"is packed by {noun}: unpack it, and give the folder of its pictures"
    for start, noun in _OTHERS.items():
        if head.startswith(start):
            return f"is {noun}"
    if begins_as_picture(head[:16]):
        return f"is a single picture: give the folder that holds all of them, --set dataset.path={_parent(path)}"
    return "is no whole zip archive: it was cut or is of another kind; get it again, or give a folder of pictures"


def _parent(path: Path) -> str:
    return shell_path(path.parent)


_ARRAYS = (
    "save its images as picture files (PIL.Image.fromarray(image).save(...)), or read it by a plug-in (genbench new"
    " dataset NAME)"
)
_JOIN = "join the parts first (zip -s 0 PARTS.zip --out WHOLE.zip), and give the whole archive"
SPLIT_ARCHIVE = f"is one part of a split zip archive: {_JOIN}"
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
}
_OTHERS = {
    b"PK\x07\x08": f"one part of a split zip archive: {_JOIN}",
    b"PK\x03\x04": "no whole zip archive: its end is missing; get it again, or join its parts",
    b"\x93NUMPY": f"a NumPy array: {_ARRAYS}",
    b"\x89HDF": f"an HDF5 file: {_ARRAYS}",
    b"MATLAB 5.0": f"a MATLAB file: {_ARRAYS}",
    b"PAR1": f"a Parquet table: {_ARRAYS}",
    b"SQLite format 3": f"an SQLite database: {_ARRAYS}",
    b"%PDF": "a PDF document: give a folder of pictures",
}


def describe_folder(folders: Iterable[Path], most: int = 6) -> str:
    """What the first of some folders with content holds, for a message: " (x/ holds a.gz, b.csv)"; "" for none."""
    for folder in folders:
        try:
            names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not is_hidden(path.name))
        except OSError:
            continue
        if names:
            more = f" and {len(names) - most:,} more" if len(names) > most else ""
            return f" ({printable(str(folder))} holds {printable(', '.join(names[:most]))}{more})"
    return ""
