"""Any folder or zip archive of images: `--dataset folder --set dataset.path=DIR`.

Folders are read with all their subfolders, sorted by name; hidden files and `__MACOSX` are passed over. Where there
are subfolders `train/` and `test/` (and perhaps `validation/`) they are the splits and files beside them an error;
otherwise a fixed pseudo-random part of the files, chosen by a hash of their names, is held out. Two copies of one
picture under two names count as two pictures.

Preparation: the EXIF orientation is applied, transparent pixels are laid on white, the central square is resized to
`size` with the antialiased bilinear filter of torchvision's `Resize` on tensors. 16-bit grey is scaled to 8 bits, not
clipped; of an animation the first frame counts; grey is ITU-R 601 luma.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from genbench.api import ComponentSpec, DataConfig, Dataset, DatasetInfo, Images, Option, Shape
from genbench.data.decoding import Pictures, Split, decode_splits, open_pictures, resized
from genbench.data.images import cached
from genbench.errors import DataError, UsageError
from genbench.hookspecs import hookimpl

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that PIL may read; other readers (PostScript calls a program) are not used."""

VERSION = 2
"""Part of the cache's key: raise it when this file comes to prepare images differently."""

Channels = Literal["rgb", "grey"]


class Folder(Dataset):
    """Images of any size, made square; no labels."""

    def __init__(
        self,
        *,
        path: Annotated[str, Option("folder or zip archive of images; relative to --data-root or to here")] = "",
        size: Annotated[int, Option("side of the image, in pixels", low=1)] = 64,
        channels: Annotated[Channels, Option("colour or grey")] = "rgb",
        test: Annotated[float, Option("part held out where there is no test/", low=0.0, high=0.9)] = 0.1,
        validation: Annotated[float, Option("part set aside where there is no validation/", low=0.0, high=0.9)] = 0.0,
    ) -> None:
        if test + validation >= 1.0:
            raise UsageError(f"folder: test={test} and validation={validation} leave nothing to train on")
        self.path = path
        self.size = size
        self.channels: Channels = channels
        self.test = test
        self.validation = validation

    @property
    def shape(self) -> Shape:
        """`(3 or 1, size, size)`."""
        return (3 if self.channels == "rgb" else 1, self.size, self.size)

    def info(self, data_config: DataConfig) -> DatasetInfo:
        """Counts, from the names alone."""
        with open_pictures(self._where(data_config)) as pictures:
            counts = {split: len(names) for split, names in self.splits(pictures).items()}
        return DatasetInfo(self.shape, class_names=(), **counts)

    def load(self, data_config: DataConfig) -> Images:
        """The images in the order of their names, `(n, c, size, size)`; decoded once, then kept."""
        preprocessing = f"{self.channels}, centre square, bilinear antialiased to {self.size}, transparency on white"
        with open_pictures(self._where(data_config)) as pictures:
            splits = self.splits(pictures)
            decode = partial(picture, size=self.size, channels=self.channels)
            return cached(
                data_config,
                "folder",
                pictures.key(splits, VERSION, preprocessing, data_config.skip_corrupt),
                lambda: decode_splits(pictures, splits, decode, self.shape, data_config, preprocessing),
            )

    def _where(self, data_config: DataConfig) -> Path:
        """The folder or archive: as given where that exists, else under the data root."""
        if not self.path:
            raise DataError("folder needs the images: --set dataset.path=DIR, a folder or a zip archive")
        given = Path(os.path.expanduser(self.path))  # noqa: PTH111  (of an unknown user as it stands)
        for path in (given, data_config.data_root / given):
            if path.exists():
                return path
        raise DataError(f"folder: there is no {given}, nor one in {data_config.data_root}: give --set dataset.path=DIR")

    def splits(self, pictures: Pictures) -> dict[Split, list[str]]:
        """Names by split, sorted within each."""
        names = sorted(filter(_is_image, pictures.versions))
        if not names:
            kinds = ", ".join(sorted(extension[1:] for extension in EXTENSIONS))
            raise DataError(f"folder: no image in {pictures.path}: looked for {kinds}, subfolders included")
        top = _common_folder(names)
        groups: dict[str, list[str]] = {}
        for name in names:
            head, _, rest = name.removeprefix(top).partition("/")
            groups.setdefault(head if rest else "", []).append(name)
        if groups.get("train") and groups.get("test"):
            return self._by_folder(pictures, groups)
        splits = _held_out(names, top, {"test": self.test, "validation": self.validation})
        if not splits["train"] or (self.test and not splits["test"]):
            raise DataError(f"folder: {len(names)} images in {pictures.path} are too few to hold out test={self.test}")
        return splits

    def _by_folder(self, pictures: Pictures, groups: dict[str, list[str]]) -> dict[Split, list[str]]:
        stray = sorted(set(groups) - {"train", "test", "validation"})
        if stray:
            name = groups[stray[0]][0]
            raise DataError(f"folder: {pictures.path} has train/ and test/, but '{name}' is in neither: move it")
        if "validation" in groups:
            return {"train": groups["train"], "validation": groups["validation"], "test": groups["test"]}
        return {**_held_out(groups["train"], "", {"validation": self.validation}), "test": groups["test"]}


def picture(data: bytes, *, size: int, channels: Channels) -> Tensor:
    """An image file's bytes -> `(3 or 1, size, size)` uint8."""
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        flat = _on_white(_eight_bits(ImageOps.exif_transpose(image)))
        pixels = pil_to_tensor(flat.convert("RGB" if channels == "rgb" else "L"))
    height, width = pixels.shape[1:]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return resized([pixels[:, top : top + side, left : left + side]], size)[0]


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8 (PIL's own conversion clips at 255); anything else as it is."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image, dtype=np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("its pixels are integers beyond 0..65535")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    """The image without transparency, on a white background."""
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _is_image(path_text: str) -> bool:
    path = PurePosixPath(path_text)
    hidden = any(name.startswith(".") or name == "__MACOSX" for name in path.parts)
    return path.suffix.lower() in EXTENSIONS and not hidden


def _common_folder(names: list[str]) -> str:
    """The folder that everything lies in, as where an archive was made of one; "" or with a slash at its end."""
    common = PurePosixPath(names[0]).parent.parts
    for name in names:
        folders = PurePosixPath(name).parent.parts
        pairs = enumerate(zip(common, folders, strict=False))
        common = common[: next((i for i, (first, second) in pairs if first != second), len(folders))]
    return "".join(f"{folder}/" for folder in common)


def _held_out(names: list[str], top: str, shares: dict[Split, float]) -> dict[Split, list[str]]:
    """The names dealt to splits: sorted by a hash of the name, the first part to the first split, and so on.

    The rest trains. The split depends neither on randomness nor on the order or the folder of the files.
    """
    shuffled = sorted(names, key=lambda name: hashlib.sha256(name.removeprefix(top).encode()).digest())
    splits: dict[Split, list[str]] = {"train": [], "validation": [], "test": []}
    for split, share in shares.items():
        count = max(1, round(share * len(names))) if share else 0
        splits[split] = sorted(shuffled[:count])
        shuffled = shuffled[count:]
    return {**splits, "train": sorted(shuffled)}


@hookimpl
def genbench_datasets() -> Iterable[ComponentSpec[Dataset]]:
    """Any folder of images."""
    yield ComponentSpec(name="folder", description="any folder or zip archive of images", factory=Folder)
