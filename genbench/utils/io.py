"""Atomic writing of files, strict JSON, hashes, and tensor files with a checksum."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from safetensors import SafetensorError, safe_open

from genbench.errors import DataError, SystemFailureError, one_line, printable, shell_word

if TYPE_CHECKING:  # functions on tensors import torch themselves: reports write files without loading torch
    from torch import Tensor

CHECKSUM = "sha256"
FORMAT, FORMAT_VERSION = "format", "1"
"""Name and value of the fact that holds the layout version of a tensor file; a file without it has version 1."""
JSON_BYTES = 64 << 20
"""Above the size of every JSON file that genbench writes; a larger file is not read."""
DEPTH = 64
"""Limit of the nesting of JSON: far above the files of genbench, far below Python's recursion limit."""
LARGEST_INT = 2**63 - 1
LARGEST = 1e150
"""Of a number up to this the square is finite, and so is its spread over seeds; a file holds none beyond it."""
PART = ".part"
"""Suffix of a file that is being written."""
TEMPORARY_FILES = (f".*{PART}", ".tmp??????")
"""Name patterns of the temporary files of `write_atomically` and of safetensors (0.8 and later), which a killed process
leaves behind."""


def _permissions() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


PERMISSIONS = _permissions()
"""Permissions of a new file by the user's umask; safetensors would let the owner alone read."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: the file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}{PART}")
    try:
        write(temporary)
        with suppress(PermissionError, NotImplementedError):  # CIFS, exFAT and others have no modes, and need none
            temporary.chmod(PERMISSIONS)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno and error.filename is None:  # of a write, which names no file
            error.filename = str(path)
        raise disk_full_error(path, error) or error from None
    finally:
        temporary.unlink(missing_ok=True)


def disk_full_error(path: Path, error: Exception) -> SystemFailureError | None:
    """An error that names the file and the full disk; None where `error` is of another kind.

    safetensors has the system's error number in a text alone: "... (os error 28)", or "... Os { code: 28, ... }".
    """
    codes = [getattr(error, "errno", None), *map(int, re.findall(r"(?:Os \{ code: |os error )(\d+)", str(error)))]
    if not {errno.ENOSPC, errno.EDQUOT} & set(codes):
        return None
    disk = next(folder for folder in (path.absolute(), *path.absolute().parents) if os.path.ismount(folder))
    free = shutil.disk_usage(disk).free
    return SystemFailureError(
        f"{path} cannot be written: the disk at {disk} is full ({free:,} bytes free); make room and repeat the"
        " command: what was written before is whole"
    )


def shell_path(path: Path | str) -> str:
    """A path as it is typed into a shell: quoted, and not to be taken for an option."""
    text = str(path)
    return shell_word(f"./{text}" if text.startswith("-") else text)


REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EFBIG: "the file is larger than its file system or `ulimit -f` allows: name a folder elsewhere, or raise it",
    errno.EDQUOT: "make room: your quota on this disk is used up",
    errno.EROFS: "that file system is read-only: name a folder elsewhere",
    errno.EACCES: "name a folder that you may read and write",
    errno.EPERM: "its file system does not allow this: name a folder on another one",
    errno.ENOLCK: "its file system has no locks: name a folder on another one",
    errno.ENOSYS: "its file system cannot do this: name a folder on another one",
    errno.EOPNOTSUPP: "its file system cannot do this: name a folder on another one",
    errno.ENAMETOOLONG: "name a folder with a shorter path",
    errno.ENOTDIR: "a part of this path is a file: name another folder",
    errno.EISDIR: "this is a folder: name a file",
    errno.EMFILE: "too many files are open: raise the limit with `ulimit -n 4096`",
    errno.ENFILE: "too many files are open on this machine: end other programs",
    errno.ENOMEM: "end other programs, or use a smaller --batch or fewer --jobs",
    errno.EAGAIN: "this machine can start no further process: use fewer --jobs",
    errno.ESTALE: "the network folder was mounted anew: repeat the command",
    errno.EIO: "the disk or the network folder is failing: check it, or name a folder elsewhere",
}
"""What to do about an error of the system."""


def describe_os_error(error: OSError) -> str:
    """The place, the cause and the remedy of an error of the system, in one line."""
    if "AF_UNIX path too long" in str(error):
        return (
            f"the folder of temporary files, {tempfile.gettempdir()}, has too long a path for sockets: set TMPDIR to a"
            " shorter one, as TMPDIR=/tmp"
        )
    place = error.filename if error.filename is not None else error.filename2
    if place is None:
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].name} ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else "the system"
    remedy = REMEDIES.get(error.errno or 0, "mend it")
    return f"{os.fsdecode(place) if isinstance(place, bytes) else place}: {error.strerror or error}: {remedy}"


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_pieces(path, [text])


def write_pieces(path: Path, pieces: Iterable[str]) -> None:
    """Write UTF-8 text atomically, piece by piece, so that the text is never whole in memory.

    Bytes of names that are not UTF-8 are written out, as in `caf\\udce9.png`.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(pieces)

    write_atomically(path, write)


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically, keys in their order; NaN is refused because JSON has none."""
    text = json.dumps(value, indent=1, allow_nan=False)
    if _SURROGATE.search(text.encode()):  # perhaps a name that is not UTF-8: no reader of JSON takes it as it is
        text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
        text = printable(text.replace("\\", "\0")).replace("\\", "\\\\").replace("\0", "\\")
    write_text(path, text + "\n")


NONBLOCK = getattr(os, "O_NONBLOCK", 0)
"""Opens a pipe without waiting for its writer; Windows has no such flag."""


def read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; `OSError` for any other, without waiting for a pipe."""
    with open(os.open(path, os.O_RDONLY | NONBLOCK), "rb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe, a socket or a device", str(path))
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, more than the {limit:,} possible", str(path))
        return file.read(limit)


def read_json(path: Path) -> Any:
    """The value in a JSON file; raises `DataError` where the file is absent or no JSON."""
    try:
        data = read_bytes(path, JSON_BYTES)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read as JSON: {error.strerror or error}") from None
    return parse_json(data, path)


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""A surrogate, alone or in a pair: rare, so that the exact check is made only where this matches."""


def parse_json(data: bytes, name: Path | str) -> Any:
    """The value in JSON text, UTF-8; raises `DataError` with the `name` that the text was read from.

    Beyond `json` this refuses NaN and infinities (written out or by overflow), lone surrogates (no file and no
    terminal takes them), and nesting deeper than `DEPTH`.
    """
    try:
        value = _decode(data.decode("utf-8"))
        if data.count(b"{") + data.count(b"[") > DEPTH and _deeper(value, DEPTH):
            raise ValueError(f"nested more than {DEPTH} deep")
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} cannot be read as JSON: {one_line(error, 120)}") from None
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:20]} exceeds a float")
    return value


_decode: Callable[[str], Any] = json.JSONDecoder(parse_float=_float, parse_constant=_no_constant).decode
"""Made once: `json.loads` would make a decoder at each call. Checking each float is cheaper than scanning all bytes."""


def _deeper(value: Any, depth: int) -> bool:
    """Whether a JSON value nests more than `depth` lists and objects; without recursion."""
    level = [value]
    for _ in range(depth + 1):
        inner: list[Any] = []
        for node in level:
            inner += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        level = inner
    return bool(level)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, UTF-8 with or without the mark of Windows' editors; raises `DataError`."""
    try:
        return parse_toml(read_bytes(path, JSON_BYTES).decode("utf-8-sig"), path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: no TOML: it is not UTF-8 (byte {error.start + 1}): save it in this encoding"
        ) from None


def parse_toml(text: str, name: Path | str) -> dict[str, Any]:
    """The tables of a TOML text; raises `DataError` with the `name` that the text was read from."""
    import tomllib  # not for --help

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of too many digits is a plain ValueError
        raise DataError(f"{name}: no TOML: {one_line(error, 120)}") from None


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tensors(tensors: Mapping[str, Tensor | None]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, sorted by name; None is skipped."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor is None:
            continue
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None, digest: str = ""
) -> None:
    """Write tensors and string facts as safetensors, atomically, with a checksum over both.

    `digest` is `hash_tensors(tensors)` where the caller has it: a large dataset takes as long to hash as to write.
    """
    from safetensors.torch import save_file

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {**(facts or {}), FORMAT: FORMAT_VERSION}
    metadata[CHECKSUM] = _checksum(digest or hash_tensors(on_cpu), metadata)
    write_atomically(path, lambda temporary: save_file(on_cpu, temporary, metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and facts of a file by `save_tensors`; raises `DataError` where the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no iterator on it)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError, OverflowError) as error:
        raise DataError(f"{path} is no whole safetensors file: {one_line(error)}") from None
    if facts.pop(CHECKSUM, "") != _checksum(hash_tensors(tensors), facts):
        raise DataError(f"{path} is damaged: its checksum does not hold")
    written = facts.pop(FORMAT, FORMAT_VERSION)
    if written != FORMAT_VERSION:
        raise DataError(
            f"{path} has format {written!r}; this version reads {FORMAT_VERSION}: use the one that wrote it"
        )
    return tensors, facts


def load_facts(path: Path) -> dict[str, str]:
    """The string facts of a safetensors file, read from the header alone: no tensor is loaded or checked."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError, OverflowError) as error:
        raise DataError(f"{path} is no whole safetensors file: {one_line(error)}") from None


def _checksum(digest: str, facts: Mapping[str, str]) -> str:
    text = json.dumps({key: facts[key] for key in sorted(facts) if key != CHECKSUM})
    return hashlib.sha256((digest + text).encode()).hexdigest()
