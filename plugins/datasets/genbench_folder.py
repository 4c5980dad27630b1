"""Any folder or zip archive of images: `--dataset folder --set dataset.path=DIR`.

Files are read with all subfolders, links followed, sorted by name. Every file that Pillow reads as a picture counts,
whatever its ending; the plan and each run's record say how many files were passed over, and why. Two copies of one
picture under two names count as two pictures.

Subfolders with the usual names are the splits, in any case: `train` or `training`, `test` or `testing`, and for the
validation split `val`, `valid`, `validation`, `dev` or `eval`, also as `train_images` or `val2017`, at the top or below
each class. Where there is no test folder the validation images are the test images. Without such folders a fixed
pseudo-random part of the files, chosen by a hash of their names, is held out.

Preparation: the EXIF orientation is applied, transparent pixels are laid on white, the central square is resized to
`size` with the antialiased bilinear filter of torchvision's `Resize` on tensors. Of an animation the first frame
counts; grey is ITU-R 601 luma. Grey of 16 bits is divided by 65535 / 255, or, with `bits=12`, by 4095 / 255; where no
picture uses the topmost of the 16 bits, the option has to say how many count. Integers of 32 bits, signed integers and
floating-point numbers have no known range and are refused.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from genbench.api import ComponentSpec, DataConfig, Dataset, DatasetInfo, Images, Option, Shape
from genbench.data.decoding import Pictures, Split, cache_key, decode_splits, image_names, open_pictures, resized
from genbench.data.images import cached, info_of, picture_to_tensor
from genbench.data.listing import FORMATS, PassedOver, count_reasons, describe_passed_over
from genbench.errors import DataError, UsageError, printable
from genbench.hookspecs import hookimpl

VERSION = 3
"""Part of the cache's key: raise it when this file comes to prepare images differently."""

SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The splits by the usual names of their folders."""
HELD_OUT = "no folders called train and test: split by a hash of the file names"
SPLIT_FOLDER = re.compile(rf"({'|'.join(SPLIT_NAMES)})([ _-]?(set|images?|imgs?|data|[0-9]{{2,4}}))?")
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")

Channels = Literal["rgb", "grey"]


class Folder(Dataset):
    """Images of any size, made square; no labels."""

    def __init__(
        self,
        *,
        path: Annotated[
            str, Option("folder or zip archive of images; relative to --data-root or to here", file=True)
        ] = "",
        size: Annotated[int, Option("side of the image, in pixels", low=1)] = 64,
        channels: Annotated[Channels, Option("colour or grey")] = "rgb",
        test: Annotated[float, Option("part held out where no folder is the test split", low=0.0, high=0.9)] = 0.1,
        validation: Annotated[
            float, Option("part set aside where no folder is the validation split", low=0.0, high=0.9)
        ] = 0.0,
        bits: Annotated[
            int,
            Option("bits in use of files with 16 (12 of many cameras); 0: all, if any picture does", low=0, high=16),
        ] = 0,
    ) -> None:
        if test + validation >= 1.0:
            raise UsageError(f"folder: test={test} and validation={validation} leave nothing to train on")
        if 0 < bits <= 8:
            raise UsageError(f"folder: bits={bits}: 9 to 16 of 16 bits can be in use, or 0 where the files do not say")
        self.path = path
        self.size = size
        self.bits = bits
        self.channels: Channels = channels
        self.test = test
        self.validation = validation

    @property
    def shape(self) -> Shape:
        """`(3 or 1, size, size)`."""
        return (3 if self.channels == "rgb" else 1, self.size, self.size)

    def info(self, data_config: DataConfig) -> DatasetInfo:
        """Counts by the names; the files are read to identify them, and decoded where corrupt ones are left out."""
        if data_config.skip_corrupt:
            return info_of(self.load(data_config))
        with open_pictures(self._where(data_config)) as pictures:
            splits, notes = self.splits(pictures)
            originals = pictures.hash(splits, data_config)
        train, test, validation = (len(splits[split]) for split in ("train", "test", "validation"))
        return DatasetInfo(self.shape, train, test, validation, notes=notes, originals=originals)

    def load(self, data_config: DataConfig) -> Images:
        """The images in the order of their names, `(n, c, size, size)`; decoded once, then kept."""
        preprocessing = f"{self.channels}, centre square, bilinear antialiased to {self.size}, transparency on white"
        preprocessing += f", {self.bits} of 16 bits" if self.bits else ""
        with open_pictures(self._where(data_config)) as pictures:
            splits, notes = self.splits(pictures, skip_corrupt=data_config.skip_corrupt)

            def make() -> Images:
                depths: set[int] = set()
                decode = partial(picture, size=self.size, channels=self.channels, bits=self.bits, depths=depths)
                images = decode_splits(pictures, splits, decode, self.shape, data_config, preprocessing)
                if not self.bits and depths and max(depths) < 16:
                    raise DataError(
                        f"{pictures.path}: no picture of 16 bits uses more than {max(depths)} of them, so their range"
                        f" is not known: say --set dataset.bits={max(9, max(depths))} (or how many your camera has),"
                        " or --set dataset.bits=16 where they are that dark"
                    )
                return images

            originals = pictures.hash(splits, data_config)
            key = cache_key(originals, VERSION, preprocessing, data_config.skip_corrupt)
            images = cached(data_config, "folder", key, make)
        skipped = f"{images.skipped:,} corrupt image{'s' * (images.skipped != 1)} left out"
        return replace(images, notes=(*notes, *[skipped] * bool(images.skipped)), originals=originals)

    def _where(self, data_config: DataConfig) -> Path:
        """The folder or archive: as given where that exists, else under the data root."""
        if not self.path:
            raise DataError("folder needs the images: --set dataset.path=DIR, a folder or a zip archive")
        given = Path(os.path.expanduser(self.path))  # noqa: PTH111  (of an unknown user as it stands)
        for path in (given, data_config.data_root / given):
            if path.exists():
                return path
        raise DataError(f"folder: there is no {given}, nor one in {data_config.data_root}: give --set dataset.path=DIR")

    def splits(
        self, pictures: Pictures, *, skip_corrupt: bool = False
    ) -> tuple[dict[Split, list[str]], tuple[str, ...]]:
        """Names by split, sorted within each, and how they were found."""
        names, passed_over = image_names(pictures, skip_corrupt=skip_corrupt)
        if not names:
            raise _no_image(pictures.path, passed_over)
        groups, source = _by_folder(pictures.path, names)
        notes = tuple(filter(None, (source or HELD_OUT, describe_passed_over(passed_over))))
        if groups:
            aside: dict[Split, float] = {} if "validation" in groups else {"validation": self.validation}
            return {**_held_out(groups["train"], "", aside), **{s: n for s, n in groups.items() if s != "train"}}, notes
        splits = _held_out(names, _common_folder(names), {"test": self.test, "validation": self.validation})
        if not splits["train"] or (self.test and not splits["test"]):
            raise DataError(f"folder: {len(names)} images in {pictures.path} are too few to hold out test={self.test}")
        return splits, notes


def _no_image(path: Path, passed_over: PassedOver) -> DataError:
    seen = count_reasons(passed_over) or "nothing at all"
    endings = {PurePosixPath(name).suffix.lower() for names in passed_over.values() for name in names}
    advice = (
        "unpack the archives inside"
        if endings & {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}
        else "save the arrays as picture files"
        if endings & {".npy", ".npz", ".h5", ".mat", ".pt"}
        else "name the folder that holds the pictures"
    )
    return DataError(f"folder: no image in {path}, subfolders included; it holds {seen}: {advice}")


def picture(data: bytes, *, size: int, channels: Channels, bits: int = 0, depths: set[int] | None = None) -> Tensor:
    """An image file's bytes -> `(3 or 1, size, size)` uint8.

    Of grey with 16 bits the lowest `bits` are in use (0: all); the bits that a picture does use are added to `depths`.
    """
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        flat = ImageOps.exif_transpose(_eight_bits(image, bits or 16, set() if depths is None else depths))
        pixels = picture_to_tensor(_on_white(flat).convert("RGB" if channels == "rgb" else "L"))
    height, width = pixels.shape[1:]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return resized([pixels[:, top : top + side, left : left + side]], size)[0]


def _eight_bits(image: Image.Image, bits: int, depths: set[int]) -> Image.Image:
    """Grey of 16 bits scaled to 8 (PIL's own conversion clips at 255); anything else as it is."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    transparent = image.info.get("transparency")
    if not image.mode.startswith("I"):
        if image.mode == "RGB" and isinstance(transparent, tuple) and _rawmode(image).startswith("RGB;16"):
            image.info["transparency"] = tuple(value >> 8 for value in transparent)  # PIL keeps the upper 8 bits
        return image
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # of these formats 16 bits are the most
        raise ValueError("its pixels are integers of 32 bits, or signed, of unknown range: save them with 8 or 16 bits")
    values = np.asarray(image, dtype=np.int64)
    largest = int(values.max())
    depths.add(largest.bit_length())
    if largest >= 1 << bits:
        raise ValueError(f"a pixel is {largest}, more than bits={bits} hold")
    most = (1 << bits) - 1
    grey = Image.fromarray(((values * 255 + most // 2) // most).astype(np.uint8))
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    grey.info.update({key: value for key, value in image.info.items() if key != "transparency"})
    return grey


def _rawmode(image: Image.Image) -> str:
    """How the file lays its pixels, "RGB;16B"; known before they are decoded."""
    tile = getattr(image, "tile", None)
    arguments = tile[0][3] if tile else ""
    return arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ""


def _on_white(image: Image.Image) -> Image.Image:
    """The image without transparency, on a white background."""
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _by_folder(path: Path, names: Sequence[str]) -> tuple[dict[Split, list[str]], str]:
    """The names by the split that their folders name, and a phrase on it; no names where the folders name no split."""
    folders = {name: PurePosixPath(name).parent.parts for name in names}
    for depth in range(max(map(len, folders.values()))):
        level = {name: parts[depth] if depth < len(parts) else "" for name, parts in folders.items()}
        splits = {name: _split_of(folder) for name, folder in level.items()}
        known = {split for split in splits.values() if split}
        if len(known) < 2:
            _check_lookalikes(path, set(level.values()))
            continue
        stray = next((name for name in names if not splits[name]), None)
        if stray is not None and "train" not in known:
            continue  # classes that happen to have such names
        _check_folders(path, {(*folders[name][:depth], level[name]): split for name, split in splits.items() if split})
        if stray is not None or "train" not in known:
            shown = _listing([f"{folder}/" for folder in sorted({level[name] for name in names if splits[name]})])
            lacks = f"'{printable(stray)}' is in none of them: move it" if stray else "there is no train/ among them"
            raise DataError(f"folder: {path} has {printable(shown)}, but {lacks}")
        groups = {split: [name for name in names if splits[name] == split] for split in _ORDER if split in known}
        where = {
            split: _place(path, [(*folders[n][:depth], level[n]) for n in group]) for split, group in groups.items()
        }
        phrase = f"from {_listing(list(where.values()))}"
        if "test" not in groups:
            groups = {"train": groups["train"], "test": groups["validation"]}
            phrase += f" (there is no test folder: the images of {where['validation']} are the test images)"
        return groups, phrase
    return {}, ""


_ORDER: tuple[Split, ...] = ("train", "validation", "test")


def _split_of(folder: str) -> Split | None:
    match = SPLIT_FOLDER.fullmatch(folder.lower())
    return SPLIT_NAMES[match[1]] if match else None


def _check_folders(path: Path, splits: dict[tuple[str, ...], Split]) -> None:
    """Refuse two folders for one split, such as val/ and dev/."""
    seen: dict[tuple[tuple[str, ...], Split], str] = {}
    for (*above, folder), split in sorted(splits.items()):
        first = seen.setdefault((tuple(above), split), folder)
        if first != folder:
            raise DataError(
                f"folder: {path} has {printable(first)}/ and {printable(folder)}/, which both stand for the {split}"
                " images: merge them, or move one away"
            )


def _check_lookalikes(path: Path, folders: set[str]) -> None:
    """Refuse folders that are all called after splits in another way, such as trainA/ and testA/."""
    words = {folder: {SPLIT_NAMES.get(word.lower()) for word in WORD.findall(folder)} - {None} for folder in folders}
    splits = set().union(*words.values())
    if all(words.values()) and "train" in splits and len(splits) > 1:
        shown = _listing([f"{folder}/" for folder in sorted(folders)])
        raise DataError(
            f"folder: {path} has {printable(shown)}, which look like splits: call them train/, validation/ and test/,"
            " or name the folder of one kind of images"
        )


def _place(path: Path, folders: Sequence[tuple[str, ...]]) -> str:
    """The folder of a split below the dataset's, `faces/train`; `faces/*/train` where each class has one."""
    first = folders[0]
    above = first[:-1] if all(folder[:-1] == first[:-1] for folder in folders) else ("*",)
    return printable("/".join((path.name, *above, first[-1])))


def _listing(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


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
    shuffled = sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name.removeprefix(top))).digest())
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
