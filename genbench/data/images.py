"""Images as tensors: conversion to and from uint8, PNG grids, and a disk cache of decoded datasets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genbench.api import DataConfig, DatasetInfo, Images, ProgressEvent
from genbench.data.tensor_files import compute_once, hash_tensors, load_tensors, save_tensors
from genbench.errors import DataError, GenbenchError, one_line
from genbench.utils.io import write_atomically

TENSORS = ("train", "test", "validation", "train_labels", "test_labels", "validation_labels")

MARK_BYTES = 128
"""Pixels of an image by which equal images are looked for, before all of them are compared."""


def to_uint8(x: Tensor) -> Tensor:
    """Round images in [0, 1] to 0..255 as a picture file would, `(n, c, h, w)` float -> uint8.

    Values outside are clamped.

    Example:
        >>> to_uint8(torch.tensor([0.0, 0.5, 1.2]))
        tensor([  0, 128, 255], dtype=torch.uint8)
    """
    return x.mul(255.0).round_().clamp_(0, 255).to(torch.uint8)


def to_float(images: Tensor) -> Tensor:
    """Images in [0, 1], `(n, c, h, w)` uint8 -> float32: value / 255.

    Example:
        >>> to_float(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([0., 1.])
    """
    return images.to(torch.float32).div_(255.0)


def picture_to_tensor(picture: Image.Image) -> Tensor:
    """The pixels of a Pillow image of 8 bits, `(c, h, w)` uint8: torchvision's `pil_to_tensor`.

    torchvision itself takes seconds to import, which every command that loads plug-ins would wait for.

    Example:
        >>> picture_to_tensor(Image.new("RGB", (4, 2))).shape
        torch.Size([3, 2, 4])
    """
    return torch.from_numpy(np.atleast_3d(np.array(picture))).permute(2, 0, 1)


def with_content(images: Images) -> Images:
    """The same images with `sha256`, a hash over every split and label, and `duplicates` filled in.

    A dataset's `load` returns its images through it: a run's record and every protocol name the hash.

    Example:
        >>> train, test = torch.zeros(2, 2, 1, 4, 4, dtype=torch.uint8)
        >>> images = with_content(Images(train, test, validation=train[:0]))
        >>> len(images.sha256), images.duplicates
        (64, 2)
    """
    sha256 = hash_tensors({name: getattr(images, name) for name in TENSORS})
    return replace(images, sha256=sha256, duplicates=count_duplicates(images.test, images.train))


def count_duplicates(images: Tensor, references: Tensor) -> int:
    """How many of the images are equal to one of the references, pixel for pixel.

    Args:
        images: Images, `(n, c, h, w)` uint8 on the CPU.
        references: Images, `(m, c, h, w)` uint8 on the CPU.

    Returns:
        A count from 0 to n; 0 where the shapes differ.

    Example:
        >>> count_duplicates(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
        2
    """
    if not len(images) or not len(references) or images.shape[1:] != references.shape[1:]:
        return 0
    rows, others = images.reshape(len(images), -1), references.reshape(len(references), -1)
    marks, other_marks = _marks(rows), _marks(others)
    suspects = torch.isin(marks, other_marks).nonzero().flatten().tolist()
    matching = torch.isin(other_marks, marks).nonzero().flatten().tolist()
    known = {others[i].numpy().tobytes() for i in matching}
    return sum(rows[i].numpy().tobytes() in known for i in suspects)


def _marks(rows: Tensor) -> Tensor:
    """A hash of some pixels of each row: equal rows have equal ones, and few others have."""
    count = max(1, min(MARK_BYTES, rows.shape[1]) // 8) * 8
    columns = torch.linspace(0, rows.shape[1] - 1, count).long()
    words = torch.cat([chunk[:, columns].view(torch.int64) for chunk in rows.split(4096)])
    weights = torch.randint(-(2**63), 2**63 - 1, (words.shape[1],), generator=torch.Generator().manual_seed(0))
    return (words * weights).sum(1)  # modulo 2**64


def info_of(images: Images) -> DatasetInfo:
    """What `Dataset.info` says of images that are decoded."""
    counts = (len(images.train), len(images.test), len(images.validation))
    class_names, notes = images.class_names, images.notes
    if images.duplicates:
        notes = (*notes, describe_duplicates(images.duplicates, len(images.test)))
    factors = tuple(images.train_factors)
    return DatasetInfo(
        images.shape, *counts, len(class_names), class_names, images.skipped, notes, images.originals, factors
    )


def describe_duplicates(duplicates: int, test: int) -> str:
    """One line, "1 of 60 test images is also a training image"; "" for none."""
    if not duplicates:
        return ""
    verb = "is also a training image" if duplicates == 1 else "are also training images"
    return f"{duplicates:,} of {test:,} test image{'s' * (test != 1)} {verb}"


def without_test(images: Images) -> Images:
    """The same images without the test split, for measurements on validation images."""
    return replace(images, test=images.test[:0], test_labels=None, test_factors={})


def cached(data_config: DataConfig, name: str, key: str, make: Callable[[], Images]) -> Images:
    """Decoded images from the cache, or made and stored there.

    Args:
        data_config: Holds the cache folder, and the callback that is told of a damaged file.
        name: The dataset's name, a part of the file's name.
        key: A hash of the original files and of all options that affect the result.
        make: Decodes the images; called where the cache file is missing or damaged.

    Returns:
        The images with their content hash; of several processes one decodes them.

    Raises:
        DataError: `make` raised it: the originals are missing or damaged.
    """
    path = data_config.cache / "images" / f"{name}-{key[:16]}.safetensors"

    def read() -> Images | None:
        try:
            return _read(path) if path.exists() else None
        except DataError as error:
            data_config.report(ProgressEvent(f"{error}; decoding anew", 0, 0))
            path.unlink(missing_ok=True)
            return None

    def decoded() -> Images:
        images = with_content(make())
        tensors = {field: getattr(images, field) for field in TENSORS if getattr(images, field) is not None}
        facts = {"preprocessing": images.preprocessing, "content": images.sha256}
        facts |= {"skipped": str(images.skipped), "duplicates": str(images.duplicates)}
        save_tensors(path, tensors, facts, images.sha256)  # the hash of the same tensors
        return images

    return compute_once(path, read, decoded)


def _read(path: Path) -> Images:
    tensors, facts = load_tensors(path)
    if not set(tensors) <= set(TENSORS) or not {"train", "test", "validation"} <= set(tensors):
        raise DataError(f"{path} does not hold images")
    pieces: dict[str, Any] = dict(tensors)
    try:
        return Images(
            **pieces,
            preprocessing=facts["preprocessing"],
            skipped=int(facts["skipped"]),
            duplicates=int(facts["duplicates"]),
            sha256=facts["content"],
            class_names=(),
            originals="",
            notes=(),
        )
    except (KeyError, ValueError, GenbenchError) as error:
        raise DataError(f"{path} does not hold images ({one_line(error)})") from None


def save_grid(path: Path, images: Tensor, columns: int = 8, padding: int = 2) -> None:
    """Write images as one PNG, row by row.

    Args:
        path: The file.
        images: Images, `(n, c, h, w)` uint8, on any device; grey or colored.
        columns: Images in a row.
        padding: Width of the white lines between images, in pixels.

    Raises:
        SystemFailureError: The disk is full.
        OSError: The file cannot be written.
    """
    pixels = images.cpu().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
    n, h, w = pixels.shape[:3]
    columns = min(columns, n)
    height, width = h + padding, w + padding
    picture = Image.new("RGB", (columns * width + padding, -(-n // columns) * height + padding), "white")
    for i, image in enumerate(pixels):
        picture.paste(Image.fromarray(image), (i % columns * width + padding, i // columns * height + padding))
    write_atomically(path, lambda temporary: picture.save(temporary, format="png", optimize=True))
