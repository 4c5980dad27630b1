"""CelebA faces (Liu et al., arXiv:1411.7766), aligned and cropped, in the official split.

Read from `img_align_celeba.zip`, inside the archive, or from the extracted folder `img_align_celeba/`, with the split
from `list_eval_partition.txt` or Kaggle's `list_eval_partition.csv`; each is looked for in `celeba/` under the data
root, then in the data root itself. The other annotation files are not needed. The authors' agreement has to be accepted
in person, so nothing is downloaded.

Preparation: the central 140x140 pixels of 178x218, then 64x64 (arXiv:1711.01558), antialiased. `bilinear` gives the
bytes of torchvision's `CenterCrop(140)`, `Resize(64)` on tensors, which differ from those on PIL images by 1 in 3 of
1,000 values; `lanczos` is the filter of the WAE authors' own code (tolstikhin/wae, datahandler.py), by PIL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Literal

import torch
from PIL import Image
from torch import Tensor

from genbench.api import ComponentSpec, DataConfig, Dataset, DatasetInfo, Images, Option
from genbench.data.decoding import Pictures, Split, cache_key, decode_splits, missing, open_pictures, resized
from genbench.data.images import cached, info_of, picture_to_tensor
from genbench.data.listing import describe_folder
from genbench.errors import DataError
from genbench.hookspecs import hookimpl

WIDTH, HEIGHT = 178, 218
ZIP, FOLDER, PARTITION = "img_align_celeba.zip", "img_align_celeba", "list_eval_partition.txt"
CSV, CSV_HEAD = "list_eval_partition.csv", ["image_id", "partition"]
VERSION = 2
"""Part of the cache's key: raise it when this file comes to prepare images differently."""

SPLITS: dict[str, Split] = {"0": "train", "1": "validation", "2": "test"}
PUBLISHED = (162_770, 19_867, 19_962)
NAME = re.compile(r"[A-Za-z0-9_-]+\.jpe?g")
Filter = Literal["bilinear", "lanczos"]


class CelebA(Dataset):
    """202,599 faces in colour: 162,770 to train, 19,867 to validate, 19,962 to test."""

    def __init__(
        self,
        *,
        crop: Annotated[
            int, Option("side of the central square, in pixels", "arXiv:1711.01558", low=1, high=WIDTH)
        ] = 140,
        size: Annotated[int, Option("side of the image, in pixels", "arXiv:1711.01558", low=1)] = 64,
        filter: Annotated[Filter, Option("how the square is resized, antialiased", "torchvision Resize")] = "bilinear",
    ) -> None:
        self.crop = crop
        self.size = size
        self.filter: Filter = filter

    def info(self, data_config: DataConfig) -> DatasetInfo:
        """Counts by the partition file; the images are looked for, and read once to identify them."""
        if data_config.skip_corrupt:
            return info_of(self.load(data_config))
        with open_pictures(_images_path(data_config)) as pictures:
            splits, _ = _splits(data_config, pictures)
            originals = pictures.hash(splits, data_config)
        train, test, validation = (len(splits[split]) for split in ("train", "test", "validation"))
        return DatasetInfo((3, self.size, self.size), train, test, validation, originals=originals)

    def load(self, data_config: DataConfig) -> Images:
        """Faces in the order of the partition file, `(n, 3, size, size)`; decoded once, then kept."""
        with open_pictures(_images_path(data_config)) as pictures:
            splits, absent = _splits(data_config, pictures)
            preprocessing = f"centre crop {self.crop} of {WIDTH}x{HEIGHT}, {self.filter} antialiased to {self.size}"
            decode = partial(square, crop=self.crop)
            finish = partial(smaller, size=self.size, filter=self.filter)
            shape = (3, self.size, self.size)

            def make() -> Images:
                images = decode_splits(pictures, splits, decode, shape, data_config, preprocessing, finish)
                return replace(images, skipped=images.skipped + absent)

            originals = pictures.hash(splits, data_config)
            key = cache_key(originals, VERSION, preprocessing, absent, data_config.skip_corrupt)
            images = cached(data_config, "celeba", key, make)
        skipped = f"{images.skipped:,} faces left out: {absent:,} absent, {images.skipped - absent:,} corrupt"
        return replace(images, notes=(skipped,) if images.skipped else (), originals=originals)


def square(data: bytes, *, crop: int) -> Tensor:
    """The middle of one face, the bytes of a JPEG of 178x218 -> `(3, crop, crop)` uint8.

    It is cut out before it is resized: nothing outside it enters, as in the published recipes.
    """
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        if image.size != (WIDTH, HEIGHT):
            raise ValueError(f"it is {image.width}x{image.height}, not the {WIDTH}x{HEIGHT} of the aligned images")
        pixels = picture_to_tensor(image.convert("RGB"))
    left, top = (WIDTH - crop) // 2, (HEIGHT - crop) // 2
    return pixels[:, top : top + crop, left : left + crop]


def smaller(squares: Sequence[Tensor], *, size: int, filter: Filter) -> Tensor:
    """Squares of one side -> `(n, 3, size, size)` uint8."""
    if filter == "bilinear":
        return resized(squares, size)
    images = (Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in squares)
    return torch.stack([picture_to_tensor(image.resize((size, size), Image.Resampling.LANCZOS)) for image in images])


def _images_path(data_config: DataConfig) -> Path:
    folders = (data_config.data_root / "celeba", data_config.data_root)
    for folder in folders:
        if (folder / ZIP).is_file():
            return folder / ZIP
        if (folder / FOLDER).is_dir():
            return folder / FOLDER
    raise DataError(
        f"celeba is missing: neither {ZIP} nor {FOLDER}/ is in {folders[0]} or {folders[1]}{describe_folder(folders)}: "
        "get 'Align&Cropped Images' from the authors' page (mmlab.ie.cuhk.edu.hk/projects/CelebA.html) "
        "or give --data-root DIR"
    )


def _splits(data_config: DataConfig, pictures: Pictures) -> tuple[dict[Split, list[str]], int]:
    """Entry names by split in the partition's order, and the count of those left out because they are absent."""
    splits = _partition(data_config)
    prefix = f"{FOLDER}/" if any(name.startswith(f"{FOLDER}/") for name in pictures.names) else ""
    splits = {split: [prefix + name for name in names] for split, names in splits.items()}
    absent = missing((name for names in splits.values() for name in names), pictures)
    if absent and not data_config.skip_corrupt:
        raise DataError(
            f"{pictures.path} lacks {len(absent)} of the images that {PARTITION} names, the first is '{absent[0]}': "
            "get the whole archive, or leave such images out with --skip-corrupt"
        )
    excluded = set(absent)
    splits = {split: [name for name in names if name not in excluded] for split, names in splits.items()}
    if not splits["train"]:
        raise DataError(f"{pictures.path} holds none of the training images that {PARTITION} names: get it again")
    return splits, len(absent)


def _partition(data_config: DataConfig) -> dict[Split, list[str]]:
    """File names by split; a line is `000001.jpg 0` (csv: `000001.jpg,0`): 0 to train, 1 to validate, 2 to test."""
    folders = (data_config.data_root / "celeba", data_config.data_root)
    candidates = [folder / name for name in (PARTITION, CSV) for folder in folders]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise DataError(
            f"celeba's split is missing: no {PARTITION}, nor Kaggle's {CSV}, in {folders[0]} or {folders[1]}: "
            "get it from 'Eval' on the authors' page (mmlab.ie.cuhk.edu.hk/projects/CelebA.html)"
        )
    return read_partition(path.read_bytes(), path)


def read_partition(data: bytes, path: Path) -> dict[Split, list[str]]:
    """The partition in the bytes of its file; `DataError` names the first line that is none.

    A whole list has to have the published counts: one flipped bit in it moves a face to another split.
    """
    splits: dict[Split, list[str]] = {"train": [], "validation": [], "test": []}
    seen: set[str] = set()
    for number, line in enumerate(data.decode("utf-8-sig", errors="replace").splitlines(), 1):
        words = [word.strip(' "') for word in line.split(",")] if path.suffix == ".csv" else line.split()
        if not any(words) or (number == 1 and words == CSV_HEAD):
            continue
        name, label = words if len(words) == 2 else (line, "")
        split = SPLITS.get(label)
        if split is None or name in seen or not NAME.fullmatch(name):
            fault = "names an image twice" if name in seen else "is not of the form '000001.jpg 0'"
            raise DataError(f"{path}: line {number} {fault}: get the file again")
        seen.add(name)
        splits[split].append(name)
    counts = tuple(map(len, splits.values()))
    if sum(counts) == sum(PUBLISHED) and counts != PUBLISHED:
        assigned = ", ".join(f"{count:,}" for count in counts)
        raise DataError(f"{path} is damaged: it assigns {assigned} images to its splits: get the file again")
    return splits


@hookimpl
def genbench_datasets() -> Iterable[ComponentSpec[Dataset]]:
    """CelebA."""
    yield ComponentSpec(
        name="celeba", description="faces in colour, aligned and cropped", factory=CelebA, reference="arXiv:1411.7766"
    )
