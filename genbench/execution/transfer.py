"""Images and run folders as JSON data, bytes and tensors, for processes that share no memory or no file system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genbench.api import Images
from genbench.errors import StoreError
from genbench.storage.run_dir import FITTED, METRICS, RUN, WEIGHTS
from genbench.utils.io import write_atomically

TENSORS = ("train", "test", "validation", "train_labels", "test_labels", "validation_labels")
FACTORS = ("train_factors", "test_factors", "validation_factors")
FACTS = ("preprocessing", "skipped", "sha256", "class_names", "originals", "notes", "duplicates")
DTYPES = {"uint8": torch.uint8, "int64": torch.int64, "float64": torch.float64}


def image_tensors(images: Images) -> dict[str, Tensor]:
    """The tensors of a dataset by field, a factor's by field and name; fields without one are left out."""
    tensors = {name: getattr(images, name) for name in TENSORS}
    tensors |= {f"{split}/{name}": values for split in FACTORS for name, values in getattr(images, split).items()}
    return {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}


def image_facts(images: Images) -> dict[str, Any]:
    """Everything else of a dataset, and the shapes and dtypes of its tensors, as JSON data."""
    tensors = {
        name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        for name, tensor in image_tensors(images).items()
    }
    return {"tensors": tensors, **{name: getattr(images, name) for name in FACTS}}


def images_of(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Images:
    """The dataset of such facts and tensors."""
    fields: dict[str, Any] = {name: tensors[name] for name in TENSORS if name in tensors}
    for split in FACTORS:
        named = {name.partition("/")[2]: values for name, values in tensors.items() if name.startswith(f"{split}/")}
        fields[split] = named
    fields |= {name: facts[name] for name in FACTS}
    return replace(Images(**fields), class_names=tuple(facts["class_names"]), notes=tuple(facts["notes"]))


def map_images(facts: Mapping[str, Any], paths: Mapping[str, str]) -> Images:
    """The dataset in files of raw bytes: the system keeps one copy of them, however many processes map it.

    The maps are private: what a plug-in writes into them reaches no other process.
    """
    tensors = {}
    for name, layout in facts["tensors"].items():
        shape, dtype = layout["shape"], DTYPES[layout["dtype"]]
        size = torch.Size(shape).numel()
        if size:
            tensors[name] = torch.from_file(paths[name], shared=False, size=size, dtype=dtype).reshape(shape)
        else:  # an empty file cannot be mapped
            tensors[name] = torch.empty(shape, dtype=dtype)
    return images_of(facts, tensors)


def read_folder(path: Path, exclude: Sequence[str]) -> dict[str, bytes]:
    """The files in and below a run's folder by relative name, without temporary ones and those to exclude."""
    if not path.is_dir():
        return {}
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    named = {str(file.relative_to(path)): file for file in files if not file.name.startswith(".")}
    return {name: file.read_bytes() for name, file in named.items() if name not in exclude}


def checked_name(name: str) -> Path:
    """A relative path that stays in its folder; `StoreError` for any other."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise StoreError(f"a worker returned a file called {name!r}, which is outside of the run's folder")
    return path


def receive(folder: Path, files: Mapping[str, bytes], sent: Sequence[str]) -> None:
    """Write what a worker returned into the run's folder, each file whole or not at all.

    Files whose presence means "done" come last; then those are removed that were sent and did not come back.
    """
    last = {RUN: 0, WEIGHTS: 2, FITTED: 2, METRICS: 3}
    for name in sorted(files, key=lambda name: last.get(name, 1)):
        write_atomically(folder / checked_name(name), partial(_write, content=files[name]))
    for name in set(sent) - set(files):
        (folder / checked_name(name)).unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
