"""Decoding CelebA: against torchvision's transforms on PIL images in a DataLoader, on the same cores and files.

`pytest tests/benchmarks/test_decoding.py`; needs CelebA, all of it or a part, where the tests look for it.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from ratio import compare
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from conftest import SHARED
from genbench.api import DataConfig
from genbench.data.decoding import decode_splits, open_pictures
from genbench_celeba import PARTITION, ZIP, CelebA, smaller, square
from genbench_folder import picture

CORES = len(os.sched_getaffinity(0))
MOST = 20_000
"""Faces at most: seconds a turn, where all are there."""

pytestmark = [
    pytest.mark.skipif(not (SHARED / "celeba" / ZIP).is_file(), reason=f"no CelebA in {SHARED}"),
    pytest.mark.filterwarnings("ignore"),  # torch warns where a DataLoader has more workers than cores
]


class Faces(Dataset[Tensor]):
    """The usual dataset of files: PIL decodes, torchvision's transforms prepare."""

    def __init__(self, paths: list[Path], last: Callable[[Image.Image], Tensor]) -> None:
        self.paths = paths
        self.prepare = transforms.Compose([transforms.CenterCrop(140), transforms.Resize(64), last])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.prepare(Image.open(self.paths[index]))


def load(faces: Faces, workers: int) -> float:
    """Every face once, gathered in one tensor as ours are."""
    images, at = torch.empty(0), 0
    for batch in DataLoader(faces, batch_size=128, num_workers=workers):
        if not at:
            images = torch.empty((len(faces), *batch.shape[1:]), dtype=batch.dtype)
        images[at : at + len(batch)] = batch
        at += len(batch)
    return at


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the extracted files."""
    folder = tmp_path_factory.mktemp("data") / "celeba"
    with zipfile.ZipFile(SHARED / "celeba" / ZIP) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:MOST]
        archive.extractall(folder, names)
    parts = (SHARED / "celeba" / PARTITION).read_text().splitlines()
    kept = {name.rpartition("/")[2] for name in names}
    (folder / PARTITION).write_text("\n".join(line for line in parts if line.split()[0] in kept))
    return folder.parent


def rivals(root: Path, last: Callable[[Image.Image], Tensor]) -> dict[str, Callable[[], float]]:
    faces = Faces(sorted(root.rglob("*.jpg")), last)
    return {f"DataLoader, {workers} workers": partial(load, faces, workers) for workers in range(CORES + 1)}


def decode(root: Path, each: Callable[[bytes], Tensor], finish: Callable[..., Tensor] = torch.stack) -> float:
    with open_pictures(root / "celeba") as pictures:
        names = sorted(name for name in pictures.names if name.endswith(".jpg"))
        data_config = DataConfig(root, root / "cache", workers=CORES)
        splits = {"train": names, "validation": [], "test": []}
        return len(decode_splits(pictures, splits, each, (3, 64, 64), data_config, "", finish).train)


def test_decoding(root: Path) -> None:
    ours = partial(decode, root, partial(square, crop=140), partial(smaller, size=64, filter="bilinear"))
    note = "Against ToTensor, the usual last step, which makes floats; ours stays uint8."
    contenders = {"ours": ours, **rivals(root, transforms.ToTensor())}
    item = compare("decode CelebA", contenders, unit="faces", file="decoding", goal=3.0, note=note)
    assert item.met


def test_decoding_to_uint8(root: Path) -> None:
    ours = partial(decode, root, partial(square, crop=140), partial(smaller, size=64, filter="bilinear"))
    note = "Against PILToTensor, which stays uint8 and which few loops use: no goal was set."
    contenders = {"ours": ours, **rivals(root, transforms.PILToTensor())}
    compare("decode CelebA, uint8 on both sides", contenders, unit="faces", file="decoding", note=note)


def test_decoding_to_the_cache(root: Path) -> None:
    def ours() -> float:
        shutil.rmtree(root / "cache", ignore_errors=True)
        images = CelebA().load(DataConfig(root, root / "cache", workers=CORES))
        return len(images.train) + len(images.validation) + len(images.test)

    def again() -> float:
        images = CelebA().load(DataConfig(root, root / "cache", workers=CORES))
        return len(images.train) + len(images.validation) + len(images.test)

    ours()
    note = "Ours hashes and writes besides, and syncs the disk. The rivals decode again every time, we read the cache."
    contenders = {"ours, first time": ours, **rivals(root, transforms.ToTensor())}
    compare("decode CelebA and keep it", contenders, unit="faces", file="decoding", note=note)
    contenders = {"ours, from the cache": again, **rivals(root, transforms.ToTensor())}
    compare("load CelebA again", contenders, unit="faces", file="decoding", note=note)


def test_decoding_a_folder(root: Path) -> None:
    ours = partial(decode, root, partial(picture, size=64, channels="rgb"))
    faces = Faces(sorted(root.rglob("*.jpg")), transforms.ToTensor())
    faces.prepare.transforms[0] = transforms.CenterCrop(178)
    usual = {f"DataLoader, {workers} workers": partial(load, faces, workers) for workers in range(CORES + 1)}
    note = "The same files as `--dataset folder`: whole width, any format, EXIF orientation."
    compare("decode a folder of JPEGs", {"ours": ours, **usual}, unit="images", file="decoding", note=note)
