"""MNIST, Fashion-MNIST, CIFAR-10 and SVHN in torchvision's layout under the data root.

The idx files of the first two are also read packed (`.gz`), under the name `train-images.idx3-ubyte`, from a folder
whose name has another case (`mnist/`), and beside `raw/` instead of in it.

torchvision knows the addresses and downloads (only with `--download`); it takes seconds to import, so files are read
and checked here. None of the four has an official validation split and published recipes
train on the whole training set, so validation is empty unless the option asks for it.

Nothing is unpickled. CIFAR-10's binary version is read as it is. The python version, which torchvision downloads, is a
pickle: its bytes are first compared with torchvision's published MD5, and the two values wanted, the pixels and the
labels, are then picked out of the list of its instructions, none of which is carried out.
"""

from __future__ import annotations

import gzip
import hashlib
import pickletools
import re
import shlex
import zlib
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from http.client import HTTPException
from math import prod
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genbench.api import ComponentSpec, DataConfig, Dataset, DatasetInfo, Images, Option, ProgressEvent, Shape
from genbench.data.images import with_content
from genbench.data.listing import describe_error, describe_folder
from genbench.errors import DataError, UsageError
from genbench.hookspecs import hookimpl

Labelled = tuple[Tensor, Tensor]
"""Images `(n, c, h, w)` uint8 and labels `(n,)` int64."""

CLASSES = 10
GARMENTS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")


@dataclass(frozen=True)
class Download:
    """An archive with its published MD5, and the files that are there once it is unpacked into `folder`."""

    makes: tuple[Path, ...]
    folder: Path
    archive: str
    md5: str
    addresses: tuple[str, ...]

    def fetch(self, dataset: str) -> None:
        """Download from the first address that answers, compare and unpack; `DataError` where none does."""
        from torchvision.datasets.utils import download_and_extract_archive, download_url  # seconds to import

        get = download_url if self.archive == self.makes[0].name else download_and_extract_archive
        reasons = []
        for address in self.addresses:
            try:
                get(address, str(self.folder), filename=self.archive, md5=self.md5)
                return
            except (OSError, RuntimeError, HTTPException) as error:
                reasons.append(f"{address}: {describe_error(error)}")
        raise DataError(f"{dataset} cannot be downloaded ({'; '.join(reasons)}): try again, or bring the files by hand")


class PublishedSet(Dataset):
    """A dataset as published, in the files that torchvision's layout has for it."""

    name: ClassVar[str]
    shape: ClassVar[Shape]
    published: ClassVar[tuple[int, int]]
    """Images to train on and to test on, as published."""
    class_names: ClassVar[tuple[str, ...]] = ()
    archive: ClassVar[str] = ""
    """What all files come in, where it has to be unpacked by hand."""

    def __init__(self, *, validation: Annotated[int, Option("training images set aside, the last", low=0)] = 0) -> None:
        self.validation = validation

    @abstractmethod
    def _files(self, root: Path) -> list[Path]:
        """The files that must be there, those to train on first."""

    @abstractmethod
    def _downloads(self, root: Path) -> list[Download]:
        """Where the files come from, by torchvision."""

    def _found(self, root: Path, absent: Path) -> str:
        """What lies where a file is missing, for the message: an archive to unpack, or the names there."""
        archive = root / self.archive
        if archive.is_file():
            unpack = f"tar -xf {shlex.quote(str(archive))} -C {shlex.quote(str(root))}"
            return f", but {archive.name} is there: unpack it ({unpack}), or"
        return describe_folder((absent.parent, absent.parent.parent, root))

    @abstractmethod
    def _check(self, root: Path) -> tuple[int, int]:
        """Images to train on and to test on, from the files; `DataError` for a damaged file."""

    def _is_published(self, root: Path, counts: tuple[int, int]) -> bool:
        """Whether the files are the published ones or else refused, here or when they are read."""
        return True

    @abstractmethod
    def _read(self, root: Path) -> tuple[Labelled, Labelled]:
        """The training and the test set, from files that were checked."""

    def info(self, data_config: DataConfig) -> DatasetInfo:
        """Counts from the files' heads; the published ones where they are yet to be downloaded."""
        absent = next((path for path in self._files(data_config.data_root) if not path.is_file()), None)
        if absent and not data_config.download:
            raise DataError(
                f"{self.name} is missing: no {absent}{self._found(data_config.data_root, absent)}: give the folder with"
                " torchvision's layout as --data-root DIR, or let it be fetched there with --download"
            )
        root = data_config.data_root
        train, test = self.published if absent else self._check(root)
        if self.validation >= train:
            raise UsageError(f"{self.name}: validation={self.validation} leaves none of the {train} training images")
        counts = (train - self.validation, test, self.validation)
        originals = "" if absent or self._is_published(root, (train, test)) else hash_files(self._files(root))
        return DatasetInfo(self.shape, *counts, CLASSES, self.class_names, originals=originals)

    def load(self, data_config: DataConfig) -> Images:
        """The images as published, labels beside them; validation is the end of the training file."""
        for download in self._downloads(data_config.data_root) if data_config.download else []:
            if not all(path.is_file() for path in download.makes):
                data_config.report(ProgressEvent(f"downloading {self.name}", 0, 0))
                download.fetch(self.name)
        info = self.info(replace(data_config, download=False))
        (images, labels), (test, test_labels) = self._read(data_config.data_root)
        for values in (labels, test_labels):
            if int(values.min()) < 0 or int(values.max()) >= CLASSES:
                raise DataError(
                    f"{self.name}: a label in {data_config.data_root} is not one of 0..9: get the files again"
                )
        n = info.train
        split = Images(images[:n], test, images[n:], labels[:n], test_labels, labels[n:], class_names=self.class_names)
        return with_content(replace(split, originals=info.originals))


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 over the bytes of files in order, packed ones as they are unpacked."""
    return sha256(" ".join(sha256(_unpacked(path)).hexdigest() for path in paths).encode()).hexdigest()


def verify(path: Path, md5: str) -> None:
    """`DataError` unless the file's bytes are the published ones."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != md5:
        raise DataError(f"{path} is not the published file (its MD5 differs): delete it and get it again")


class MNIST(PublishedSet):
    """Handwritten digits, 28x28 grey: 60,000 and 10,000."""

    name = "mnist"
    shape = (1, 28, 28)
    published = (60_000, 10_000)
    folder: ClassVar[str] = "MNIST"
    """That of the files, and torchvision's class."""
    hashes: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "ba891046e6505d7a",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d7",
        "t10k-images-idx3-ubyte": "0fa7898d509279e4",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de3373",
    }
    """How the SHA-256 of each unpacked file begins: idx has no checksum, and a flipped bit is a legal pixel."""
    class_names = tuple(f"mnist/{digit}" for digit in range(CLASSES))

    def _files(self, root: Path) -> list[Path]:
        """The four files as they are there, packed or not; those of torchvision's layout where they are not."""
        return [_as_it_is_there(root / self.folder / "raw" / name, root) for name in self.hashes]

    def _check(self, root: Path) -> tuple[int, int]:
        train, train_labels, test, test_labels = self._files(root)
        for images, labels in ((train, train_labels), (test, test_labels)):
            if idx_count(images, 28, 28) != idx_count(labels):
                raise DataError(f"{labels} has not one label for each of {images.name}: delete both, get them again")
        return idx_count(train, 28, 28), idx_count(test, 28, 28)

    def _is_published(self, root: Path, counts: tuple[int, int]) -> bool:
        return counts == self.published

    def _read(self, root: Path) -> tuple[Labelled, Labelled]:
        train, train_labels, test, test_labels = zip(self._files(root), self.hashes.values(), strict=True)
        return self._pair(train, train_labels), self._pair(test, test_labels)

    def _pair(self, images: tuple[Path, str], labels: tuple[Path, str]) -> Labelled:
        """Images and labels of two files; where there are as many as published, they have to be those published."""
        pixels, digits = _unpacked(images[0]), _unpacked(labels[0])
        values = idx_values(pixels, images[0], 28, 28)
        for (path, published), data in ((images, pixels), (labels, digits)):
            if len(values) in self.published and sha256(data).hexdigest()[:16] != published:
                raise DataError(f"{path} is not the published file (its SHA-256 differs): delete it and get it again")
        return values.unsqueeze(1), idx_values(digits, labels[0]).long()

    def _downloads(self, root: Path) -> list[Download]:
        from torchvision import datasets  # seconds to import

        folder, source = root / self.folder / "raw", getattr(datasets, self.folder)
        return [
            Download(
                (folder / name.removesuffix(".gz"),),
                folder,
                name,
                md5,
                tuple(mirror + name for mirror in source.mirrors),
            )
            for name, md5 in source.resources
        ]


class FashionMNIST(MNIST):
    """Zalando's articles of clothing, 28x28 grey: 60,000 and 10,000."""

    name = "fashion-mnist"
    folder = "FashionMNIST"
    hashes = {  # noqa: RUF012
        "train-images-idx3-ubyte": "c59f468a2f672dc8",
        "train-labels-idx1-ubyte": "bad3541b69d91243",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91e",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663",
    }
    class_names = tuple(f"fashion-mnist/{garment}" for garment in GARMENTS)


def _as_it_is_there(path: Path, root: Path) -> Path:
    """A file of torchvision's layout under the name and in the folder in which it is there, or `path`."""
    kind = path.name.rpartition("-idx")
    names = [name + packed for name in (path.name, ".idx".join(kind[::2])) for packed in ("", ".gz")]
    top = path.parents[1].name
    spellings = {top.lower(), re.sub(r"(?<=[a-z])(?=MNIST)", "-", top).lower(), top.replace("MNIST", "_mnist").lower()}
    folders = [path.parents[1]]
    if root.is_dir():
        folders += sorted(folder for folder in root.iterdir() if folder.name.lower() in spellings and folder.is_dir())
    places = [place for folder in folders for place in (folder / "raw", folder)]
    candidates = [place / name for place in places for name in names]
    return next((candidate for candidate in candidates if candidate.is_file()), path)


def _unpacked(path: Path) -> bytes:
    """The bytes of a file, unpacked where it is a .gz."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({describe_error(error)}): delete it and get it again") from None


def idx_count(path: Path, *size: int) -> int:
    """How many items of a size an idx file of bytes holds; `DataError` where its head or its length says otherwise."""
    start = 8 + 4 * len(size)
    if path.suffix == ".gz":
        data = _unpacked(path)
        return idx_head(data[:start], len(data), path, *size)
    with path.open("rb") as file:
        head = file.read(start)
    return idx_head(head, path.stat().st_size, path, *size)


def idx_head(head: bytes, length: int, path: Path, *size: int) -> int:
    """The count in the head of an idx file of `length` bytes; `DataError` names `path`.

    Head: 0, 0, 8 (unsigned bytes), the number of dimensions, then the count and each side as big-endian four bytes.
    """
    kind, sides = bytes((0, 0, 8, 1 + len(size))), b"".join(side.to_bytes(4, "big") for side in size)
    count = int.from_bytes(head[4:8], "big")
    if head[:4] != kind or head[8:] != sides or not count:
        shape = "x".join(map(str, size)) or "single"
        raise DataError(f"{path} is no idx file of {shape} bytes: delete it and get it again")
    expected = len(head) + count * prod(size)
    if length != expected:
        raise DataError(f"{path} has {length} bytes instead of {expected}: delete it and get it again")
    return count


def idx_values(data: bytes, path: Path, *size: int) -> Tensor:
    """The bytes of an idx file -> `(n, *size)` uint8; `DataError` names `path`."""
    start = 8 + 4 * len(size)
    count = idx_head(data[:start], len(data), path, *size)
    return torch.frombuffer(bytearray(data[start:]), dtype=torch.uint8).view(count, *size)


class CIFAR10(PublishedSet):
    """Photographs of ten kinds of things, 32x32 colour: 50,000 and 10,000."""

    name = "cifar10"
    shape = (3, 32, 32)
    published = (50_000, 10_000)
    archive = "cifar-10-python.tar.gz"
    md5s: ClassVar[dict[str, str]] = {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    }
    """The published MD5 of each file of the python version."""
    records: ClassVar[int] = 10_000
    """Images in each of the five files to train on and the one to test on."""

    def _files(self, root: Path) -> list[Path]:
        binary = [root / "cifar-10-batches-bin" / f"{name}.bin" for name in self.md5s]
        return binary if all(path.is_file() for path in binary) else self._python_files(root)

    def _python_files(self, root: Path) -> list[Path]:
        return [root / "cifar-10-batches-py" / name for name in self.md5s]

    def _check(self, root: Path) -> tuple[int, int]:
        for path, md5 in zip(self._files(root), self.md5s.values(), strict=True):
            if path.suffix != ".bin":
                verify(path, md5)
            elif (length := path.stat().st_size) != self.records * 3073:
                raise DataError(f"{path} has {length} bytes instead of {self.records * 3073}: get it again")
        return 5 * self.records, self.records

    def _is_published(self, root: Path, counts: tuple[int, int]) -> bool:
        return self._files(root)[0].suffix != ".bin"  # the files of the binary version have no published hashes

    def _read(self, root: Path) -> tuple[Labelled, Labelled]:
        *train, test = map(self._batch, self._files(root))
        return (torch.cat([x for x, _ in train]), torch.cat([y for _, y in train])), test

    def _batch(self, path: Path) -> Labelled:
        data = path.read_bytes()
        if path.suffix == ".bin":  # records of a label and 3x32x32 pixels, a byte each
            table = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(self.records, 3073)
            return table[:, 1:].reshape(-1, *self.shape), table[:, 0].long()
        pixels, labels = pickled_batch(data, self.records * 3072)
        if len(labels) != self.records or not pixels:
            raise DataError(f"{path} holds {len(labels)} labels for {self.records} images: get it again")
        return torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(-1, *self.shape), torch.tensor(labels)

    def _downloads(self, root: Path) -> list[Download]:
        from torchvision import datasets  # seconds to import

        source = datasets.CIFAR10
        return [Download(tuple(self._python_files(root)), root, self.archive, source.tgz_md5, (source.url,))]


def pickled_batch(data: bytes, size: int) -> tuple[bytes, list[int]]:
    """The string of `size` bytes and the list "labels" of a pickle, from its instructions; none is carried out."""
    pixels, labels, listing = b"", [], False
    for instruction, argument, _ in pickletools.genops(data):
        if isinstance(argument, str):
            listing = argument == "labels"  # the next string ends the list
            pixels = argument.encode("latin-1") if len(argument) == size else pixels
        elif listing and isinstance(argument, int) and instruction.name.startswith("BININT"):
            labels.append(argument)
    return pixels, labels


class SVHN(PublishedSet):
    """House numbers from street views, cut into digits, 32x32 colour: 73,257 and 26,032."""

    name = "svhn"
    shape = (3, 32, 32)
    published = (73_257, 26_032)
    md5s: ClassVar[dict[str, str]] = {
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    }
    """The published MD5 of each file."""

    def _files(self, root: Path) -> list[Path]:
        return [root / name for name in self.md5s]

    def _check(self, root: Path) -> tuple[int, int]:
        for path, md5 in zip(self._files(root), self.md5s.values(), strict=True):
            verify(path, md5)
        return self.published

    def _read(self, root: Path) -> tuple[Labelled, Labelled]:
        train, test = map(read_mat, self._files(root))
        return train, test

    def _downloads(self, root: Path) -> list[Download]:
        from torchvision import datasets  # seconds to import

        listed = (datasets.SVHN.split_list[split] for split in ("train", "test"))
        return [Download((root / name,), root, name, md5, (url,)) for url, name, md5 in listed]


def read_mat(path: Path) -> Labelled:
    """Images and labels of one of SVHN's files."""
    from scipy.io import loadmat  # half a second to import

    content = loadmat(path)
    labels = torch.from_numpy(content["y"].ravel()).long()
    labels[labels == CLASSES] = 0  # the digit 0 has the label 10
    return torch.from_numpy(content["X"].transpose(3, 2, 0, 1).copy()), labels


@hookimpl
def genbench_datasets() -> Iterable[ComponentSpec[Dataset]]:
    """The four sets."""
    yield ComponentSpec(
        name="mnist", description="handwritten digits, 28x28 grey", factory=MNIST, reference="LeCun et al. 1998"
    )
    yield ComponentSpec(
        name="fashion-mnist", description="clothing, 28x28 grey", factory=FashionMNIST, reference="arXiv:1708.07747"
    )
    yield ComponentSpec(
        name="cifar10", description="photographs, 32x32 colour", factory=CIFAR10, reference="Krizhevsky 2009"
    )
    yield ComponentSpec(
        name="svhn", description="house numbers, 32x32 colour", factory=SVHN, reference="Netzer et al. 2011"
    )
