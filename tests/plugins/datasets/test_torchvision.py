"""MNIST, Fashion-MNIST, CIFAR-10 and SVHN: published layouts read as they are, broken files named, no pickle run."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import utils

import genbench_torchvision as sets
from genbench.api import DataConfig, DatasetInfo
from genbench.errors import DataError, UsageError

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
RANDOM = np.random.default_rng(0)


def write_idx(path: Path, values: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes())
    return values


@pytest.fixture
def mnist(data_config: DataConfig) -> DataConfig:
    """20 and 10 digits in torchvision's layout."""
    raw = data_config.data_root / "MNIST" / "raw"
    for prefix, n in (("train", 20), ("t10k", 10)):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", RANDOM.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    return data_config


# ---------------------------------------------------------------- idx files


def test_mnist_is_read_as_it_is(mnist: DataConfig) -> None:
    images = sets.MNIST().load(mnist)
    raw = (mnist.data_root / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()[16:]
    assert images.train.numpy().tobytes() == raw
    assert images.shape == (1, 28, 28)
    assert images.train.dtype == torch.uint8
    assert images.train_labels is not None
    assert images.train_labels.tolist() == [*range(10), *range(10)]
    assert images.train_labels.dtype == torch.int64
    assert images.validation.shape == (0, 1, 28, 28)
    assert images.sha256 == sets.MNIST().load(mnist).sha256 != ""


def test_validation_is_the_end_of_the_training_file(mnist: DataConfig) -> None:
    whole, parted = sets.MNIST().load(mnist), sets.MNIST(validation=6).load(mnist)
    assert torch.equal(torch.cat([parted.train, parted.validation]), whole.train)
    assert parted.validation_labels is not None
    assert parted.validation_labels.tolist() == [4, 5, 6, 7, 8, 9]
    assert replace(sets.MNIST(validation=6).info(mnist), originals="") == DatasetInfo(
        (1, 28, 28), 14, 10, 6, 10, tuple(f"mnist/{digit}" for digit in range(10))
    )
    with pytest.raises(UsageError, match="validation=20 leaves none of the 20"):
        sets.MNIST(validation=20).info(mnist)


def test_a_missing_file_is_one_line_that_says_where_and_what_to_do(mnist: DataConfig) -> None:
    path = mnist.data_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.unlink()
    with pytest.raises(DataError) as caught:
        sets.MNIST().info(mnist)
    text = str(caught.value)
    assert str(path) in text
    assert "--download" in text
    assert "--data-root" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train-images-idx3-ubyte", lambda data: data[:-1], "has 15695 bytes instead of 15696"),
        ("train-images-idx3-ubyte", lambda data: data + b"x", "has 15697 bytes instead of 15696"),
        ("train-images-idx3-ubyte", lambda data: data[:7], "is no idx file of 28x28 bytes"),
        ("train-images-idx3-ubyte", lambda data: b"<html>" + data, "is no idx file of 28x28 bytes"),
        ("t10k-images-idx3-ubyte", lambda data: data[:11] + b"\x07" + data[12:], "is no idx file of 28x28 bytes"),
        ("t10k-labels-idx1-ubyte", lambda data: b"", "is no idx file of single bytes"),
        ("t10k-labels-idx1-ubyte", lambda data: data[:7] + b"\x09" + data[8:-1], "not one label for each"),
    ],
)
def test_a_broken_idx_file_is_named_before_anything_is_decoded(
    mnist: DataConfig, name: str, damage: object, message: str
) -> None:
    path = mnist.data_root / "MNIST" / "raw" / name
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as caught:
        sets.MNIST().info(mnist)
    assert name in str(caught.value)


def test_a_label_beyond_nine_is_refused(mnist: DataConfig) -> None:
    path = mnist.data_root / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(DataError, match=r"not one of 0\.\.9"):
        sets.MNIST().load(mnist)


def test_files_that_are_not_the_published_ones_are_identified_by_their_bytes(
    mnist: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sets.MNIST().info(mnist).originals
    assert first == sets.MNIST().load(mnist).originals != ""
    path = mnist.data_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert sets.MNIST().info(mnist).originals not in ("", first)
    monkeypatch.setattr(sets.MNIST, "published", (20, 10))
    assert sets.MNIST().info(mnist).originals == ""  # as before a download: other bytes are refused


@pytest.mark.parametrize("published", [(20, 99), (99, 10)])
def test_a_file_of_the_published_size_has_to_be_the_published_one(
    mnist: DataConfig, monkeypatch: pytest.MonkeyPatch, published: tuple[int, int]
) -> None:
    """A flipped bit is a legal pixel: the published hash alone shows it."""
    raw = mnist.data_root / "MNIST" / "raw"
    known = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in map(raw.joinpath, sets.MNIST.hashes)
    }
    monkeypatch.setattr(sets.MNIST, "published", published)
    monkeypatch.setattr(sets.MNIST, "hashes", known)
    sets.MNIST().load(mnist)
    path = raw / ("train-images-idx3-ubyte" if published[0] == 20 else "t10k-labels-idx1-ubyte")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DataError, match=f"{path.name} is not the published file"):
        sets.MNIST().load(mnist)


@pytest.mark.parametrize("make", [sets.MNIST, sets.FashionMNIST])
def test_the_real_files(make: type[sets.MNIST], tmp_path: Path) -> None:
    if not (SHARED / make.folder).is_dir():
        pytest.skip(f"no {make.folder} beside the checkout (shared/data)")
    images = make().load(DataConfig(SHARED, tmp_path))
    assert (images.train.shape, images.test.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert images.test_labels is not None
    assert images.test_labels.bincount(minlength=10).sum() == 10_000
    official = getattr(datasets, make.folder)(SHARED, train=False)
    assert torch.equal(images.test[:, 0], official.data)
    assert torch.equal(images.test_labels, official.targets)


# ---------------------------------------------------------------- downloading


@pytest.mark.parametrize("make", [sets.MNIST, sets.FashionMNIST, sets.CIFAR10, sets.SVHN])
def test_files_are_those_that_torchvision_downloads(make: type[sets.PublishedSet], tmp_path: Path) -> None:
    downloads = make()._downloads(tmp_path)
    assert [path for download in downloads for path in download.makes] == make()._files(tmp_path)
    published = {
        "svhn": [entry[2] for entry in map(datasets.SVHN.split_list.get, ("train", "test"))],
        "cifar10": [md5 for _, md5 in (*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list)],
    }
    assert list(getattr(make, "md5s", {}).values()) == published.get(make.name, [])


def test_nothing_is_downloaded_without_leave_nor_while_planning(
    data_config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **options: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(utils, "download_and_extract_archive", never)
    monkeypatch.setattr(utils, "download_url", never)
    for make in (sets.MNIST, sets.FashionMNIST, sets.CIFAR10, sets.SVHN):
        for act in (make().info, make().load):
            with pytest.raises(DataError, match=f"{make.name} is missing"):
                act(data_config)
        summary = make().info(replace(data_config, download=True))
        assert (summary.train, summary.test) == make.published


@pytest.mark.parametrize("make", [sets.MNIST, sets.CIFAR10, sets.SVHN])
def test_a_network_that_fails_is_one_line(
    make: type[sets.PublishedSet], data_config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise URLError("no route\nto host")

    monkeypatch.setattr(utils, "download_and_extract_archive", fail)
    monkeypatch.setattr(utils, "download_url", fail)
    with pytest.raises(DataError, match=f"{make.name} cannot be downloaded .*http.*no route") as caught:
        make().load(replace(data_config, download=True))
    assert "\n" not in str(caught.value)


def test_the_second_mirror_serves_where_the_first_does_not(
    mnist: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, asked = mnist.data_root / "MNIST" / "raw", []

    def second(address: str, folder: str, filename: str, md5: str) -> None:
        asked.append(address)
        if address.startswith(datasets.MNIST.mirrors[0]):
            raise RuntimeError("File not found or corrupted.")
        name = filename.removesuffix(".gz")
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).write_bytes((raw / name).read_bytes())

    monkeypatch.setattr(utils, "download_and_extract_archive", second)
    elsewhere = DataConfig(tmp_path / "elsewhere", tmp_path, download=True)
    assert sets.MNIST().load(elsewhere).sha256 == sets.MNIST().load(mnist).sha256
    assert len(asked) == 8


# ---------------------------------------------------------------- CIFAR-10


def pickled_as_published(pixels: bytes, labels: list[int]) -> bytes:
    """A batch as Python 2 and numpy wrote it: protocol 2, byte strings, memo entries, an array by `_reconstruct`."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value + b"q\x02"

    listed = b"]q\x05(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85q\x08U\x01bq\x09\x87q\x0aRq\x0b"
        b"(K\x01K"
        + bytes([len(labels)])
        + b"M\x00\x0c\x86q\x0ccnumpy\ndtype\nq\x0dU\x02u1q\x0eK\x00K\x01\x87q\x0fRq\x10"
        b"(K\x03U\x01|q\x11NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
    )
    array += struct.pack("<I", len(pixels)) + pixels + b"tb"
    names = b"](" + b"".join(text(b"x.png") for _ in labels) + b"e"
    entries = (text(b"batch_label") + text(b"batch 1 of 5"), text(b"labels") + listed, text(b"data") + array)
    return b"\x80\x02}q\x01(" + b"".join(entries) + text(b"filenames") + names + b"u."


@pytest.fixture
def cifar(data_config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> tuple[DataConfig, np.ndarray]:
    """Six python batches of 4 images, their MD5 taken as the published ones; and the pixels, `(6, 4, 3072)`."""
    pixels = RANDOM.integers(0, 256, (6, 4, 3072), dtype=np.uint8)
    folder = data_config.data_root / "cifar-10-batches-py"
    folder.mkdir()
    md5s = {}
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name, batch in zip(names, pixels, strict=True):
        data = pickled_as_published(batch.tobytes(), [9, 0, 3, 1])
        (folder / name).write_bytes(data)
        md5s[name] = hashlib.md5(data).hexdigest()
    monkeypatch.setattr(sets.CIFAR10, "md5s", md5s)
    monkeypatch.setattr(sets.CIFAR10, "records", 4)
    return data_config, pixels


def test_the_python_version_is_read_without_unpickling(
    cifar: tuple[DataConfig, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    data_config, pixels = cifar
    monkeypatch.setattr(pickle, "load", None)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "Unpickler", None)
    images = sets.CIFAR10().load(data_config)
    assert np.array_equal(images.train.numpy(), pixels[:5].reshape(20, 3, 32, 32))
    assert np.array_equal(images.test.numpy(), pixels[5].reshape(4, 3, 32, 32))
    assert images.train_labels is not None
    assert images.train_labels.tolist() == [9, 0, 3, 1] * 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the old name numpy.core, as in the published files
@pytest.mark.filterwarnings("ignore:dtype")
def test_the_test_of_the_python_version_uses_a_real_pickle() -> None:
    pixels = RANDOM.integers(0, 256, (2, 3072), dtype=np.uint8)
    batch = pickle.loads(pickled_as_published(pixels.tobytes(), [7, 2]), encoding="latin1")
    assert np.array_equal(batch["data"], pixels)
    assert batch["labels"] == [7, 2]


def test_a_pickle_that_is_not_the_published_one_is_refused(cifar: tuple[DataConfig, np.ndarray]) -> None:
    data_config, _ = cifar
    path = data_config.data_root / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes() + b"\x00")
    with pytest.raises(DataError, match=r"data_batch_3 is not the published file \(its MD5 differs\)"):
        sets.CIFAR10().info(data_config)


def test_the_binary_version_holds_the_same_images(cifar: tuple[DataConfig, np.ndarray]) -> None:
    data_config, pixels = cifar
    python = sets.CIFAR10().load(data_config)
    folder = data_config.data_root / "cifar-10-batches-bin"
    folder.mkdir()
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    labels = np.array([9, 0, 3, 1], dtype=np.uint8)[:, None]
    for name, batch in zip(names, pixels, strict=True):
        (folder / f"{name}.bin").write_bytes(np.hstack([labels, batch]).tobytes())
    (data_config.data_root / "cifar-10-batches-py" / "test_batch").unlink()
    assert sets.CIFAR10().load(data_config).sha256 == python.sha256
    path = folder / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test_batch\.bin has 12291 bytes instead of 12292"):
        sets.CIFAR10().info(data_config)


# ---------------------------------------------------------------- SVHN


def test_svhn_has_channels_first_and_ten_stands_for_zero(
    data_config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = RANDOM.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    for split in ("train", "test"):
        path = data_config.data_root / f"{split}_32x32.mat"
        savemat(path, {"X": pixels, "y": np.array([[10], [1], [2], [9], [10]], dtype=np.uint8)})
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        monkeypatch.setitem(sets.SVHN.md5s, path.name, md5)
    monkeypatch.setattr(sets.SVHN, "published", (5, 5))
    images = sets.SVHN(validation=2).load(data_config)
    assert np.array_equal(images.train.numpy(), pixels.transpose(3, 2, 0, 1)[:3])
    assert images.test_labels is not None
    assert images.test_labels.tolist() == [0, 1, 2, 9, 0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test_32x32\.mat is not the published file"):
        sets.SVHN().info(data_config)


# ---------------------------------------------------------------- files as people have them


def dotted(name: str) -> str:
    return name.replace("-idx", ".idx")


@pytest.mark.parametrize("folder", ["MNIST/raw", "mnist/raw", "MNIST", "Mnist"])
@pytest.mark.parametrize("rename", [str, dotted])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_as_people_have_them(
    mnist: DataConfig, folder: str, rename: Callable[[str], str], packed: bool
) -> None:
    whole = sets.MNIST().load(mnist)
    raw, there = mnist.data_root / "MNIST" / "raw", mnist.data_root / folder
    contents = {path.name: path.read_bytes() for path in raw.iterdir()}
    shutil.rmtree(raw.parent)
    there.mkdir(parents=True)
    for name, data in contents.items():
        (there / (rename(name) + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    info = sets.MNIST().info(mnist)
    assert replace(info, originals="") == DatasetInfo((1, 28, 28), 20, 10, 0, 10, sets.MNIST.class_names)
    assert info.originals == whole.originals
    assert sets.MNIST().load(mnist).sha256 == whole.sha256


@pytest.mark.parametrize("folder", ["fashion-mnist", "fashion_mnist", "FashionMNIST", "fashionmnist"])
def test_fashion_mnist_has_several_spellings_and_is_not_mnist(mnist: DataConfig, folder: str) -> None:
    (mnist.data_root / "MNIST").rename(mnist.data_root / folder)
    assert sets.FashionMNIST().info(mnist).train == 20
    with pytest.raises(DataError, match=rf"mnist is missing: no .* \(.* holds {folder}/\)"):
        sets.MNIST().info(mnist)


def test_a_packed_file_that_was_cut_is_named(mnist: DataConfig) -> None:
    path = mnist.data_root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes())[:-40])
    path.unlink()
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be read"):
        sets.MNIST().info(mnist)


def test_an_archive_that_is_not_unpacked_is_named_with_the_command(data_config: DataConfig) -> None:
    (data_config.data_root / "cifar-10-python.tar.gz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"but cifar-10-python\.tar\.gz is there: unpack it \(tar -xf .* -C "):
        sets.CIFAR10().info(data_config)
