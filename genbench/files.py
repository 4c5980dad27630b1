"""Files that are whole or absent: atomic writing, hashes, and tensors with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from safetensors import SafetensorError, safe_open

from genbench.errors import DataError

if TYPE_CHECKING:  # torch is loaded by the functions on tensors alone: reports write files without it
    from torch import Tensor

CHECKSUM = "sha256"
PART = ".part"
"""How the name of a file ends that is being written."""


def _permissions() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


PERMISSIONS = _permissions()
"""What the user's umask gives a new file; safetensors would keep its files to their owner."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}{PART}")
    try:
        write(temporary)
        temporary.chmod(PERMISSIONS)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically, keys in their order; NaN is refused because it is no JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file; `DataError` names a file that is absent or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from None


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tensors(tensors: Mapping[str, Tensor | None]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, in the order of their names; None is skipped."""
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


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> None:
    """Write tensors and string facts as safetensors, atomically, with a checksum over all of it."""
    from safetensors.torch import save_file

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = dict(facts or {})
    metadata[CHECKSUM] = _checksum(on_cpu, metadata)
    write_atomically(path, lambda temporary: save_file(on_cpu, temporary, metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and facts of a file by `save_tensors`; `DataError` where the checksum does not hold."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no iterator on it)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is no whole safetensors file: {error}") from None
    if facts.pop(CHECKSUM, "") != _checksum(tensors, facts):
        raise DataError(f"{path} is damaged: its checksum does not hold")
    return tensors, facts


def load_facts(path: Path) -> dict[str, str]:
    """The string facts of a safetensors file, read from its head alone (no tensor is loaded or checked)."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is no whole safetensors file: {error}") from None


def _checksum(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    text = json.dumps({key: facts[key] for key in sorted(facts) if key != CHECKSUM})
    return hashlib.sha256((hash_tensors(tensors) + text).encode()).hexdigest()
