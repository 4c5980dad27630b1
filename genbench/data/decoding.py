"""Image files as uint8 tensors: a zip archive and a folder read alike, decoded in parallel.

Workers are threads, not processes: PIL's decoders and torch's resize release the interpreter's lock, nothing is copied
between processes, and no worker has to import torch first (seconds each on a small machine).
"""

from __future__ import annotations

import errno
import hashlib
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
from PIL import Image, features
from torch import Tensor
from torch.nn.functional import interpolate

from genbench.api import DataConfig, Images, ProgressEvent, Shape
from genbench.data.listing import (
    ENDINGS,
    NO_ACCESS,
    SPLIT_ARCHIVE,
    PassedOver,
    begins_as_picture,
    describe_error,
    describe_file,
    ending_of,
    is_split,
    list_archive,
    list_folder,
    opens_as_picture,
)
from genbench.errors import DataError, printable
from genbench.utils.io import read_bytes

Split = Literal["train", "validation", "test"]

Finish = Callable[[Sequence[Tensor]], Tensor]

REPORTED = 1000
"""Files between two reports of progress while files are hashed."""
HEAD = 16
"""Bytes by which a format is recognised."""

LARGEST_FILE = 1 << 30
"""Bytes of a picture's file at most; Pillow's own limit, 179 million pixels, is about as much with 3 bytes each, and a
sparse file or a zip bomb must not fill the memory."""

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


class Pictures(ABC):
    """Files by name, in which images are looked for.

    Attributes:
        path: The folder or archive.
        names: The names of the files, relative to it.
        passed_over: The names of files that are not read at all, by reason.
        unreadable: Files with the ending of an image that cannot be opened, with the reason.
    """

    def __init__(
        self,
        path: Path,
        names: Iterable[str],
        passed_over: Mapping[str, list[str]] | None = None,
        unreadable: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.names = frozenset(names)
        self.passed_over = passed_over or {}
        self.unreadable = unreadable or {}

    @abstractmethod
    def head(self, name: str) -> bytes:
        """The first bytes of one file, `HEAD` of them where it has as many."""

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
                    content = self.read(name) if name not in self.unreadable else b"unreadable"
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
        except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError):
            raise DataError(f"{path} {describe_file(path)}") from None
        if is_split(self._archive, path):
            self.close()
            raise DataError(f"{path} {SPLIT_ARCHIVE}")
        self._entries, passed_over = list_archive(self._archive)
        super().__init__(path, self._entries, passed_over)

    def read(self, name: str) -> bytes:
        """The bytes of one entry; `zipfile` checks them against the CRC."""
        _check_size(self._entries[name].file_size)
        return self._archive.read(self._entries[name])

    def head(self, name: str) -> bytes:
        """The first bytes of one entry."""
        with self._archive.open(self._entries[name]) as file:
            return file.read(HEAD)

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()


class FolderPictures(Pictures):
    """The files under a folder, by relative path. Links are followed."""

    def __init__(self, path: Path) -> None:
        listing = list_folder(path)
        super().__init__(path, [*listing.files, *listing.unreadable], listing.passed_over, listing.unreadable)

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return read_bytes(self.path / name, LARGEST_FILE)

    def head(self, name: str) -> bytes:
        """The first bytes of one file."""
        with (self.path / name).open("rb", buffering=0) as file:
            return file.read(HEAD)


def _check_size(size: int) -> None:
    if size > LARGEST_FILE:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than the {LARGEST_FILE:,} possible")


def open_pictures(path: Path) -> Pictures:
    """The image files of a folder or a zip archive; use it in a `with`."""
    if path.is_dir():
        return FolderPictures(path)
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is a pipe, a socket or a device: give a folder or a zip archive of pictures")
    return ZipPictures(path)


def image_names(pictures: Pictures, *, skip_corrupt: bool = False) -> tuple[list[str], PassedOver]:
    """The names of the files that are pictures, sorted, and the files that are passed over, by reason.

    A picture is a file with the ending of a format that Pillow reads here, or one that begins as such a format.
    Together the two parts hold every file once.

    Raises:
        DataError: A picture cannot be opened, unless `skip_corrupt` leaves it to decoding, which counts it.
    """
    passed_over = {reason: list(names) for reason, names in pictures.passed_over.items()}
    names = []
    for name in sorted(pictures.names):
        ending = ending_of(name)
        try:
            if ending in ENDINGS or (begins_as_picture(pictures.head(name)) and opens_as_picture(pictures.read(name))):
                names.append(name)
            else:
                passed_over.setdefault(ending or "without ending", []).append(name)
        except UNREADABLE:
            passed_over.setdefault(NO_ACCESS, []).append(name)
    refused = [name for name in names if name in pictures.unreadable]
    if refused and not skip_corrupt:
        more = f" and {len(refused) - 1:,} more" if len(refused) > 1 else ""
        raise DataError(
            f"{pictures.path}: the image '{printable(refused[0])}'{more} cannot be opened"
            f" ({pictures.unreadable[refused[0]]}): mend or remove it, or leave such images out with --skip-corrupt"
        )
    return names, passed_over


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
        f"{pictures.path}: the image '{printable(names[index])}' cannot be decoded ({reason}): "
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


def missing(names: Iterable[str], pictures: Pictures) -> list[str]:
    """The names without a picture, in order."""
    return [name for name in names if name not in pictures.names]
