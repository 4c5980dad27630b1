"""Images and codes from files or arrays of any origin, checked and put into the form of a dataset's images.

Read are folders and zip archives of pictures, `.npz`, `.npy` and `.safetensors`; nothing is unpickled. Numbers are
looked at in blocks, so that an `.npy` needs no memory but that of the result.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from genbench.api import DataConfig, ProgressEvent, Shape
from genbench.data.decoding import UNREADABLE, Pictures, image_names, open_pictures
from genbench.data.images import picture_to_tensor, to_uint8
from genbench.data.listing import FORMATS, count_reasons, describe_error
from genbench.data.tensor_files import hash_file
from genbench.errors import DataError, UsageError, one_line, printable

Source = str | Path | np.ndarray[Any, Any] | Tensor
"""A folder or a file, or the numbers themselves."""

BLOCK = 1000
"""Images that are looked at or converted at once."""
SLACK = 1e-6
"""What floats may exceed [0, 1] by: rounding errors, which are clipped."""
DARK = 1.5 / 255
"""Floats that all stay below this were divided by 255 twice."""
PICKLED = frozenset({".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"})
DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Pieces:
    """What was read: the images or codes, notes for the user, and the SHA-256 of the files ("" for an array)."""

    tensor: Tensor
    notes: tuple[str, ...] = ()
    sha256: str = ""


def read_images(source: Source, piece: str, shape: Shape, data_config: DataConfig, *, rounded: bool) -> Pieces:
    """Images in the form of a dataset's: `(n, c, h, w)`.

    Args:
        source: Pictures in a folder or zip archive (in the order of their names, 2 before 10), an array in a file, or
            an array: `(n, c, h, w)`, `(n, h, w, c)` or, of grey images, `(n, h, w)`; whole numbers from 0 to 255 or
            floats from 0 to 1.
        piece: The name of the array in a file with several, and the flag in errors: "samples".
        shape: The dataset's.
        data_config: Says how many threads decode, and is told of progress.
        rounded: Whether floats are rounded to 0..255, as a picture file would.

    Returns:
        uint8, or float32 in [0, 1] for floats that are not rounded.

    Raises:
        DataError: They cannot be read, or are no such images: size, range, NaN, all alike.
    """
    path = _path(source)
    if path is not None and (path.is_dir() or path.suffix.lower() not in _READERS):
        return _read_pictures(path, piece, shape, data_config)
    where = f"--{piece} {path}" if path is not None else piece
    numbers = _numbers(source, piece, path)
    batch, notes = _as_batch(numbers, shape, where)
    notes += _check_values(batch, where)
    floats = _block(batch, 0, 1).is_floating_point()
    convert: Callable[[Tensor], Tensor]
    convert = (_rounded if rounded else _clipped) if floats else _whole
    kind = torch.float32 if floats and not rounded else torch.uint8
    images = torch.empty((len(batch), *shape), dtype=kind)
    for start in range(0, len(batch), BLOCK):
        images[start : start + BLOCK] = convert(_block(batch, start, BLOCK))
    return Pieces(images, tuple(notes), "" if path is None else hash_file(path))


def read_codes(source: Source) -> Pieces:
    """Codes, `(n, d)` float32, from a file or an array; `DataError` where they are no finite floats of this shape."""
    path = _path(source)
    if path is not None and path.suffix.lower() not in _READERS:
        raise UsageError(f"--codes {path}: codes are an array (n, d) in an .npz, .npy or .safetensors file")
    where = f"--codes {path}" if path is not None else "codes"
    numbers = _numbers(source, "codes", path)
    if len(numbers.shape) != 2 or not numbers.shape[0] or not numbers.shape[1]:
        raise DataError(
            f"{where}: the array has the shape {tuple(numbers.shape)}; codes are (n, d): an image in each row"
        )
    codes = torch.cat([_block(numbers, start, BLOCK).float() for start in range(0, numbers.shape[0], BLOCK)])
    if wrong := int((~codes.isfinite().all(1)).sum()):
        raise DataError(f"{where}: {wrong:,} of {len(codes):,} codes hold NaN or infinity")
    if len(codes) < 2 or bool((codes == codes[:1]).all()):
        raise DataError(f"{where}: {len(codes):,} equal codes are no distribution")
    return Pieces(codes, (), "" if path is None else hash_file(path))


# ---------------------------------------------------------------- pictures


def _read_pictures(path: Path, piece: str, shape: Shape, data_config: DataConfig) -> Pieces:
    """Pictures of exactly the dataset's size: resizing would be a choice that changes every number."""
    where = f"--{piece} {path}"
    if path.suffix.lower() in PICKLED:
        raise UsageError(f"{where}: pickled files are not opened: save the array as .npz, .npy or .safetensors")
    with open_pictures(path) as pictures:
        names, passed_over = image_names(pictures)
        if not names:
            others = f" ({count_reasons(passed_over)})" if any(passed_over.values()) else ""
            raise DataError(f"{where}: there is no picture in it{others}")
        names.sort(key=_natural)
        images = torch.empty((len(names), *shape), dtype=torch.uint8)

        def decode(i: int) -> None:
            images[i] = _picture(pictures, names[i], shape, where)

        pool = ThreadPoolExecutor(max(1, data_config.workers))
        try:
            for done, _ in enumerate(pool.map(decode, range(len(names))), 1):
                if done % BLOCK == 0:
                    data_config.report(ProgressEvent(f"reading {path.name}", done, len(names)))
        finally:
            pool.shutdown(cancel_futures=True)
        digest = pictures.hash({"test": names}, data_config)
    notes = [f"{len(names):,} pictures in the order of their names"]
    if ignored := sum(map(len, passed_over.values())):
        notes.append(f"{ignored:,} file{'s' * (ignored > 1)} passed over: {count_reasons(passed_over)}")
    return Pieces(images, (*notes, *_check_values(images, where)), digest)


def _picture(pictures: Pictures, name: str, shape: Shape, where: str) -> Tensor:
    """One picture, `(c, h, w)` uint8; nothing is resized, and color is not thrown away."""
    try:
        with Image.open(BytesIO(pictures.read(name)), formats=FORMATS) as image:
            image.load()
            mode = image.mode
            grey = mode in ("1", "L", "LA")
            if mode not in ("1", "L", "LA", "RGB", "RGBA", "P", "PA"):
                raise DataError(f"{where}: '{printable(name)}' has the mode {mode}: save it as grey or RGB of 8 bits")
            if "transparency" in image.info or mode in ("LA", "RGBA", "PA"):
                alpha = image.convert("RGBA").getchannel("A").getextrema()
                if alpha != (255, 255):
                    raise DataError(f"{where}: '{printable(name)}' has transparent pixels: save it without them")
            tensor = picture_to_tensor(image.convert("L" if grey else "RGB"))
    except UNREADABLE as error:
        raise DataError(f"{where}: '{printable(name)}' cannot be decoded ({describe_error(error)})") from None
    channels, height, width = shape
    if tuple(tensor.shape[1:]) != (height, width):
        given = f"{tensor.shape[1]}x{tensor.shape[2]}"
        raise DataError(f"{where}: '{printable(name)}' has {given} pixels and the dataset's images {height}x{width}")
    if channels == 1 and len(tensor) == 3:
        if not bool((tensor == tensor[:1]).all()):
            raise DataError(f"{where}: '{printable(name)}' has colors, and the dataset's images are grey")
        return tensor[:1]
    return tensor.expand(channels, height, width)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """The order in which people count: 2.png before 10.png."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in DIGITS.split(name)]


# ---------------------------------------------------------------- arrays


def _path(source: Source) -> Path | None:
    if not isinstance(source, str | Path):
        return None
    path = Path(source).expanduser()
    if not path.exists():
        raise UsageError(f"there is no file or folder {path}")
    return path


def _numbers(source: Source, piece: str, path: Path | None) -> Any:
    """The array of a source, not yet in memory where the format allows."""
    if path is not None:
        try:
            numbers = _READERS[path.suffix.lower()](path, piece)
        except (SafetensorError, OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            if "Object arrays" in str(error):
                raise DataError(f"--{piece} {path}: an array of Python objects: save numbers") from None
            cause = f"it is no whole {path.suffix} file" if "pickle" in str(error) else one_line(error, 160)
            raise DataError(f"--{piece} {path} cannot be read: {cause}") from None
    else:
        numbers = source.detach().cpu() if isinstance(source, Tensor) else np.asarray(source)
    if isinstance(numbers, np.ndarray) and numbers.dtype.kind not in "uif":
        raise DataError(f"{_where(piece, path)}: the array holds {numbers.dtype}; it needs whole numbers or floats")
    if isinstance(numbers, Tensor) and (numbers.is_complex() or numbers.dtype == torch.bool):
        raise DataError(f"{_where(piece, path)}: the tensor holds {numbers.dtype}; it needs whole numbers or floats")
    return numbers


def _where(piece: str, path: Path | None) -> str:
    return piece if path is None else f"--{piece} {path}"


def _read_npz(path: Path, piece: str) -> Any:
    with np.load(path, allow_pickle=False) as archive:
        return archive[_choose(list(archive.files), piece, path)]


def _read_npy(path: Path, piece: str) -> Any:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_safetensors(path: Path, piece: str) -> Any:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(_choose(list(file.keys()), piece, path))


_READERS: dict[str, Callable[[Path, str], Any]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
}


def _choose(names: list[str], piece: str, path: Path) -> str:
    """The array of a file: the one called as the piece is, the only one, or NumPy's first."""
    usual = {"samples": ("samples", "images", "arr_0")}.get(piece, (piece,))
    for name in usual:
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise DataError(f"--{piece} {path} holds {', '.join(names) or 'nothing'}: name the array '{piece}'")


def _block(numbers: Any, start: int, count: int) -> Tensor:
    block = numbers[start : start + count]
    if isinstance(block, Tensor):
        return block
    native = np.array(block, dtype=block.dtype.newbyteorder("="))  # a copy: torch takes neither maps nor other orders
    return torch.from_numpy(native.astype(np.int64) if native.dtype.kind == "u" and native.itemsize > 1 else native)


def _as_batch(numbers: Any, shape: Shape, where: str) -> tuple[Any, list[str]]:
    """The array as `(n, c, h, w)`, and a note where its axes were moved."""
    channels, height, width = shape
    given = tuple(numbers.shape)
    if given[1:] == shape:
        return numbers, []
    if given[1:] == (height, width, channels):
        moved = numbers.permute(0, 3, 1, 2) if isinstance(numbers, Tensor) else numbers.transpose(0, 3, 1, 2)
        return moved, ["channels last (n, h, w, c), moved to the front"]
    if channels == 1 and given[1:] == (height, width):
        return numbers[:, None], []
    size = "x".join(map(str, shape))
    if given in (shape, (height, width, channels), (height, width) if channels == 1 else shape):
        raise DataError(f"{where}: one image; a distribution needs many: give (n, {', '.join(map(str, shape))})")
    if len(given) == 2 and given[1] == channels * height * width:
        raise DataError(f"{where}: flattened images: give array.reshape(-1, {', '.join(map(str, shape))})")
    raise DataError(f"{where}: the array has the shape {given}; the dataset's images are {size} (c x h x w)")


def _blocks(batch: Any) -> Iterator[Tensor]:
    for start in range(0, len(batch), BLOCK):
        yield _block(batch, start, BLOCK).flatten(1)


def _check_values(batch: Any, where: str) -> list[str]:
    """Refuse what is no set of images in [0, 255] or [0, 1]; notes on what is odd."""
    total = len(batch)
    if total < 2:
        raise DataError(f"{where}: {total or 'no'} image{'s' * (total != 1)}; a distribution needs many")
    lows, highs, broken, alike = [], [], 0, True
    first = _block(batch, 0, 1).flatten(1)
    floats = first.is_floating_point()
    for block in _blocks(batch):
        finite = block.isfinite().all(1) if floats else torch.ones(len(block), dtype=torch.bool)
        broken += int((~finite).sum())
        lows.append(block.amin(1).double())
        highs.append(block.amax(1).double())
        alike = alike and bool((block == first).all())
    if broken:
        raise DataError(f"{where}: {broken:,} of {total:,} images hold NaN or infinity")
    low, high = torch.cat(lows), torch.cat(highs)
    if floats:
        _check_floats(low, high, where)
    else:
        _check_whole(low, high, where)
    if alike:
        raise DataError(f"{where}: all {total:,} images are the same")
    constant = int((low == high).sum())
    if constant == total:
        raise DataError(f"{where}: each of the {total:,} images has one value in all its pixels")
    return [f"{constant:,} of {total:,} images have one value in all pixels"] if constant else []


def _check_floats(low: Tensor, high: Tensor, where: str) -> None:
    least, most = float(low.min()), float(high.max())
    span = f"floats from {least:.4g} to {most:.4g}"
    if least < -SLACK:
        if least >= -1.01 and most <= 1.01:
            raise DataError(f"{where}: {span}: images lie in [0, 1]: give (x + 1) / 2")
        raise DataError(f"{where}: {span}: images lie in [0, 1]")
    if most > 1 + SLACK:
        beyond, within = int((high > 1 + SLACK).sum()), int(((high <= 1 + SLACK) & (high > 0)).sum())
        if most > 255 + SLACK:
            raise DataError(f"{where}: {span}: images lie in [0, 1]")
        if within > len(high) // 100:
            raise DataError(
                f"{where}: mixed ranges: {beyond:,} images reach beyond 1, up to {most:.4g}, and {within:,} stay within"
                " 1: bring all of them to [0, 1]"
            )
        raise DataError(f"{where}: {span}: give them as uint8, or divided by 255")
    if 0 < most < DARK:
        raise DataError(f"{where}: {span}: they look as if they were divided by 255 twice: multiply by 255")


def _check_whole(low: Tensor, high: Tensor, where: str) -> None:
    least, most = int(low.min()), int(high.max())
    if least < 0 or most > 255:
        raise DataError(f"{where}: whole numbers from {least} to {most}: images lie in 0..255")
    if most == 1:
        raise DataError(f"{where}: whole numbers 0 and 1: multiply by 255, or give floats from 0 to 1")
    if (narrow := int((high == 1).sum())) > len(high) // 100:
        raise DataError(
            f"{where}: mixed ranges: {narrow:,} images have 1 as their largest value, others {most}: give 0..255"
        )


def _whole(block: Tensor) -> Tensor:
    return block.to(torch.uint8)


def _rounded(block: Tensor) -> Tensor:
    return to_uint8(block.double())


def _clipped(block: Tensor) -> Tensor:
    return block.float().clamp(0, 1)
