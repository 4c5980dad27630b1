"""Images and codes from elsewhere: every layout gives the same images, and what is wrong is said in one line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from genbench.api import DataConfig
from genbench.data.arrays import Pieces, read_codes, read_images
from genbench.errors import GenbenchError

SHAPE = (3, 4, 5)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, *SHAPE), dtype=np.uint8)


def read(source: Any, config: DataConfig, shape: tuple[int, int, int] = SHAPE, *, rounded: bool = True) -> Pieces:
    return read_images(source, "samples", shape, config, rounded=rounded)


def write_pictures(folder: Path, images: np.ndarray[Any, Any]) -> Path:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(folder / f"{i}.png")
    return folder


def test_every_layout_and_file_gives_the_same_images(data_config: DataConfig, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    np.savez(tmp_path / "a.npz", samples=IMAGES, labels=np.zeros(12))
    save_file({"samples": torch.from_numpy(IMAGES), "z": torch.zeros(2)}, tmp_path / "a.safetensors")
    folder = write_pictures(tmp_path / "pictures", IMAGES)  # 10.png comes after 9.png
    archive = shutil.make_archive(str(tmp_path / "pictures"), "zip", folder)
    sources = [
        *(tmp_path / name for name in ("a.npy", "a.npz", "a.safetensors")),
        *(folder, Path(archive), IMAGES, torch.from_numpy(IMAGES), IMAGES.astype(np.int64), IMAGES.astype(">i4")),
        *(IMAGES.transpose(0, 2, 3, 1), (IMAGES / 255).astype("f4"), (IMAGES / 255).astype("f8")),
    ]
    for source in sources:
        given = read(source, data_config).tensor
        assert given.dtype == torch.uint8
        assert np.array_equal(given.numpy(), IMAGES), str(type(source))
    half = read(torch.from_numpy(IMAGES / 255).half(), data_config).tensor
    assert np.abs(half.numpy().astype(int) - IMAGES).max() <= 1


def test_grey_images_need_no_channel(data_config: DataConfig, tmp_path: Path) -> None:
    grey = IMAGES[:, :1]
    for source in (grey[:, 0], grey.transpose(0, 2, 3, 1), write_pictures(tmp_path / "grey", grey)):
        assert np.array_equal(read(source, data_config, (1, 4, 5)).tensor.numpy(), grey)


def test_reconstructions_are_not_rounded(data_config: DataConfig) -> None:
    floats = (IMAGES / 300).astype("f4")
    given = read(floats, data_config, rounded=False).tensor
    assert given.dtype == torch.float32
    assert np.array_equal(given.numpy(), floats)


def test_files_are_known_by_their_bytes(data_config: DataConfig, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "a", IMAGES)
    copy = tmp_path / "b"
    shutil.copytree(folder, copy)
    assert read(folder, data_config).sha256 == read(copy, data_config).sha256 != ""
    (copy / "3.png").write_bytes((copy / "4.png").read_bytes())
    assert read(folder, data_config).sha256 != read(copy, data_config).sha256


def _mixed() -> np.ndarray[Any, Any]:
    images = IMAGES.astype("f4")
    images[:6] /= 255
    return images


def _with(value: float) -> np.ndarray[Any, Any]:
    images = (IMAGES / 255).astype("f4")
    images[3, 0, 0, 0] = value
    return images


WRONG: dict[str, tuple[Any, str]] = {
    "floats to 255": (IMAGES.astype("f4"), "floats from 0 to 255: give them as uint8, or divided by 255"),
    "-1 to 1": ((IMAGES / 127.5 - 1).astype("f4"), r"give \(x \+ 1\) / 2"),
    "normalized": (np.random.default_rng(1).normal(size=IMAGES.shape), r"images lie in \[0, 1\]"),
    "divided twice": ((IMAGES / 255**2).astype("f4"), "divided by 255 twice"),
    "whole numbers 0 and 1": (IMAGES // 128, "multiply by 255"),
    "beyond 255": (IMAGES.astype("i4") * 2, "whole numbers from 0 to"),
    "mixed": (_mixed(), "mixed ranges: 6 images reach beyond 1, up to 255, and 6 stay within 1"),
    "NaN": (_with(float("nan")), "1 of 12 images hold NaN or infinity"),
    "infinity": (_with(float("inf")), "1 of 12 images hold NaN or infinity"),
    "one image": (IMAGES[0], "one image"),
    "a batch of one": (IMAGES[:1], "1 image; a distribution needs many"),
    "none": (IMAGES[:0], "no images; a distribution needs many"),
    "all alike": (np.repeat(IMAGES[:1], 12, 0), "all 12 images are the same"),
    "constant": (np.ones(IMAGES.shape, "u1") * np.arange(2, 14, dtype="u1").reshape(12, 1, 1, 1), "one value in all"),
    "size": (IMAGES[..., :4], r"the array has the shape \(12, 3, 4, 4\); the dataset's images are 3x4x5"),
    "channels": (IMAGES[:, :1], r"shape \(12, 1, 4, 5\)"),
    "flattened": (IMAGES.reshape(12, -1), r"give array.reshape\(-1, 3, 4, 5\)"),
    "truth values": (IMAGES > 99, "the array holds bool"),
    "text": (np.array(["a", "b"]), "the array holds <U1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line(name: str, data_config: DataConfig) -> None:
    images, words = WRONG[name]
    with pytest.raises(GenbenchError, match=words) as refused:
        read(images, data_config)
    assert "\n" not in str(refused.value)


def test_files_that_are_refused(data_config: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.pt").write_bytes(b"x")
    (tmp_path / "cut.npz").write_bytes(b"PK")
    np.save(tmp_path / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=IMAGES, b=IMAGES)
    sizes = write_pictures(tmp_path / "sizes", IMAGES)
    Image.new("RGB", (7, 7)).save(sizes / "11.png")
    clear = write_pictures(tmp_path / "clear", IMAGES)
    Image.new("RGBA", (5, 4)).save(clear / "2.png")
    for name, words in {
        "empty": "there is no picture in it",
        "absent": "there is no file or folder",
        "m.pt": "pickled files are not opened",
        "cut.npz": "cannot be read",
        "objects.npy": "Python objects",
        "two.npz": "holds a, b: name the array 'samples'",
        "sizes": "'11.png' has 7x7 pixels and the dataset's images 4x5",
        "clear": "'2.png' has transparent pixels",
    }.items():
        with pytest.raises(GenbenchError, match=re.escape(words)):
            read(tmp_path / name, data_config)
    colors = write_pictures(tmp_path / "colors", IMAGES)
    with pytest.raises(GenbenchError, match="has colors, and the dataset's images are grey"):
        read(colors, data_config, (1, 4, 5))


def test_codes(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).normal(size=(9, 2))
    np.savez(tmp_path / "z.npz", codes=codes, samples=IMAGES)
    assert read_codes(tmp_path / "z.npz").tensor.dtype == torch.float32
    assert np.allclose(read_codes(tmp_path / "z.npz").tensor.numpy(), codes, atol=1e-6)
    for wrong, words in (
        (codes[0], r"codes are \(n, d\)"),
        (np.where(codes > 1, np.nan, codes), "NaN or infinity"),
        (np.ones((9, 2)), "9 equal codes are no distribution"),
    ):
        with pytest.raises(GenbenchError, match=words):
            read_codes(wrong)
