"""Image files as uint8 tensors: a zip archive and a folder read alike, decoded in parallel.

Workers are threads, not processes: PIL's decoders and torch's resize release the interpreter's lock, nothing is copied
between processes, and no worker has to import torch first (seconds each on a small machine).
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import warnings
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import torch
from PIL import Image, UnidentifiedImageError, features
from torch import Tensor
from torch.nn.functional import interpolate

from genbench.api import DataConfig, Images, ProgressEvent, Shape
from genbench.errors import DataError

Split = Literal["train", "validation", "test"]

Finish = Callable[[Sequence[Tensor]], Tensor]

REPORTED = 1000
"""Files between two reports of progress while files are hashed."""

CHUNK = 32
"""Images per task: enough that handing tasks out costs nothing, few enough for a smooth bar."""

UNREADABLE = (
    OSError,  # PIL: unidentified, truncated; a file that is gone
    SyntaxError,  # PIL: a broken PNG chunk
    ValueError,
    EOFError,
    LookupError,
    OverflowError,
    MemoryError,
    RuntimeError,  # zipfile: an encrypted entry, an unknown compression
    struct.error,
    zlib.error,
    zipfile.BadZipFile,  # also a checksum that does not hold
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""Errors of PIL and zipfile on damaged files; 19,500 files with bytes flipped at random raised no other."""

UNSAFE = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)")
"""Absolute paths and parent folders, by which an archive could write outside its folder."""


class Pictures(ABC):
    """Image files by name, in a folder or an archive."""

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self.path = path
        self.names = frozenset(names)

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of one file; may be called from several threads."""

    def close(self) -> None:
        """Close open files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def hash(self, splits: Mapping[Split, Sequence[str]], data_config: DataConfig) -> str:
        """SHA-256 over the bytes of the files of each split, in order: see `Images.originals`.

        Names, times and places do not count, so that a copy, a link and an archive of the same files are one dataset.
        Every byte is read at every call. That takes 30 us a file (1.7 s for 60,000 files of 7 kB, where a look at
        sizes and times takes 1.1 s), and no time of a file says for sure that its bytes are the same.
        """
        digest, done, total = hashlib.sha256(), 0, sum(map(len, splits.values()))
        for split, names in sorted(splits.items()):
            digest.update(f"{split} {len(names)}\n".encode())
            for name in names:
                try:
                    content = self.read(name)
                except UNREADABLE as error:  # named when it is decoded
                    content = f"unreadable: {describe_error(error)}".encode()
                digest.update(hashlib.sha256(content).digest())
                done += 1
                if done % REPORTED == 0:
                    data_config.report(ProgressEvent(f"reading {self.path.name}", done, total))
        return digest.hexdigest()


class ZipPictures(Pictures):
    """The files of a zip archive, read inside it."""

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, struct.error) as error:
            raise DataError(f"{path} is no whole zip archive ({describe_error(error)}): get it again") from None
        entries = {entry.filename: entry for entry in self._archive.infolist() if not entry.is_dir()}
        super().__init__(path, entries)
        unsafe = next(filter(UNSAFE.search, entries), None)
        if unsafe is not None:
            self.close()
            raise DataError(f"{path} holds '{unsafe}', a path that leads outside the archive: get it from its authors")

    def read(self, name: str) -> bytes:
        """The bytes of one entry; `zipfile` checks them against the CRC."""
        return self._archive.read(name)

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()


class FolderPictures(Pictures):
    """The files under a folder, by relative path; links to folders are not followed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _files(path))

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return (self.path / name).read_bytes()


def _files(folder: Path) -> Iterator[str]:
    for subfolder, _, files in os.walk(folder):
        for file in files:
            path = Path(subfolder, file)
            try:
                path.stat()
            except OSError as error:  # a dangling link
                raise DataError(f"{path} cannot be read ({describe_error(error)}): remove it") from None
            yield path.relative_to(folder).as_posix()


def open_pictures(path: Path) -> Pictures:
    """The image files of a folder or a zip archive; use it in a `with`."""
    return FolderPictures(path) if path.is_dir() else ZipPictures(path)


def cache_key(originals: str, *options: object) -> str:
    """The key of a decoded dataset: a hash of its original files (`Pictures.hash`) and all that decides the decoding.

    The versions of the decoders are included: another release may round differently.
    """
    return hashlib.sha256(repr((originals, *options, decoders())).encode()).hexdigest()


def decoders() -> str:
    """The versions of the decoding libraries."""
    packages = " ".join(f"{name} {version(name)}" for name in ("torch", "pillow"))
    return f"{packages} libjpeg-turbo {features.version('libjpeg_turbo')}"


def resized(images: Sequence[Tensor], size: int) -> Tensor:
    """Images of one shape made square by torch's antialiased bilinear filter on uint8.

    These are the bytes of torchvision's `Resize` on tensors. It is PIL's filter with weights of 16 bits for 22: on
    CelebA 3 values in 1,000 differ, by 1, and both are as far from the filter in real numbers
    (reports/speed/decoding-notes.md); but it takes a third of PIL's time, which holds the interpreter's lock.

    Args:
        images: `(c, h, w)` uint8 each.
        size: The side of the result.

    Returns:
        `(n, c, size, size)` uint8.
    """
    channels, height, width = images[0].shape
    block = torch.empty((len(images), height, width, channels), dtype=torch.uint8)  # as decoders lay pixels
    torch.stack([image.permute(1, 2, 0) for image in images], out=block)
    return interpolate(block.permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=True)


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Images of one shape in one tensor, `(c, h, w)` each -> `(n, c, h, w)`."""
    return torch.stack(list(images))


def decode_splits(
    pictures: Pictures,
    splits: Mapping[Split, Sequence[str]],
    decode: Callable[[bytes], Tensor],
    shape: Shape,
    data_config: DataConfig,
    preprocessing: str,
    finish: Finish = stacked,
) -> Images:
    """Every named file through `decode`, bytes -> uint8, in the order of the names whatever the workers.

    `finish` turns several decoded images into `(n, *shape)` uint8; the result for an image does not depend on the rest.

    The first file that cannot be decoded is a `DataError` that names it; with `data_config.skip_corrupt` such files are
    left out and counted in `skipped`.
    """
    total = sum(map(len, splits.values()))
    tensors: dict[Split, Tensor] = {}
    done = 0
    with _pil_warnings():
        pool = ThreadPoolExecutor(max(1, data_config.workers))
        try:
            for split, names in splits.items():
                images = torch.empty((len(names), *shape), dtype=torch.uint8)
                complete = torch.ones(len(names), dtype=torch.bool)
                starts, chunk = range(0, len(names), CHUNK), _chunk(pictures, names, decode, finish, images)
                for start, errors in zip(starts, pool.map(chunk, starts), strict=True):
                    if errors and not data_config.skip_corrupt:
                        raise _corrupt(pictures, names, *next(iter(errors.items())))
                    complete[list(errors)] = False
                    done += min(CHUNK, len(names) - start)
                    data_config.report(ProgressEvent(f"decoding {pictures.path.name}", done, total))
                tensors[split] = images if bool(complete.all()) else images[complete]
        finally:
            pool.shutdown(cancel_futures=True)  # an error or an interrupt must not wait for the rest
    skipped = total - sum(map(len, tensors.values()))
    if not len(tensors["train"]):
        raise DataError(f"{pictures.path}: no training image is left, {skipped} cannot be decoded")
    return Images(
        tensors["train"], tensors["test"], tensors["validation"], preprocessing=preprocessing, skipped=skipped
    )


def _chunk(
    pictures: Pictures,
    names: Sequence[str],
    decode: Callable[[bytes], Tensor],
    finish: Finish,
    images: Tensor,
) -> Callable[[int], dict[int, str]]:
    """A task that fills a chunk of `images` from an index on and returns the errors by index."""

    def run(start: int) -> dict[int, str]:
        decoded: dict[int, Tensor] = {}
        errors: dict[int, str] = {}
        for i in range(start, min(start + CHUNK, len(names))):
            try:
                decoded[i] = decode(pictures.read(names[i]))
            except UNREADABLE as error:
                errors[i] = describe_error(error)
        if decoded:
            images[list(decoded)] = finish(list(decoded.values()))
        return errors

    return run


def _corrupt(pictures: Pictures, names: Sequence[str], index: int, reason: str) -> DataError:
    return DataError(
        f"{pictures.path}: the image '{names[index]}' cannot be decoded ({reason}): "
        "replace it, or leave such images out with --skip-corrupt"
    )


@contextmanager
def _pil_warnings() -> Iterator[None]:
    """Turn PIL's warning of a decompression bomb into an error, and ignore its other warnings.

    Entered before the workers start and left after them: the filters are shared by all threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # metadata that PIL finds odd; the pixels are whole
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def describe_error(error: BaseException) -> str:
    """The text of an exception in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "no image format that PIL knows"  # its own text is the address of a buffer
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def missing(names: Iterable[str], pictures: Pictures) -> list[str]:
    """The names without a picture, in order."""
    return [name for name in names if name not in pictures.names]
