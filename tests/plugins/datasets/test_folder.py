"""Any folder of images: what is found, how it is split, and every kind of file that PIL reads, made square."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genbench.api import DataConfig, DatasetInfo
from genbench.errors import DataError, UsageError
from genbench_folder import Folder, picture

RED = (255, 0, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def numbered(count: int) -> dict[str, bytes]:
    """Flat grey images that carry their number as their grey."""
    return {f"{n:03d}.png": encoded(Image.new("RGB", (20, 30), (n, n, n))) for n in range(count)}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def numbers(images: Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def rgb(data: bytes, size: int = 8) -> Tensor:
    return picture(data, size=size, channels="rgb")


# ---------------------------------------------------------------- splits


def test_splits_are_disjoint_complete_and_stable(data_config: DataConfig) -> None:
    folder = write(data_config.data_root / "some", numbered(50))
    dataset = Folder(path=str(folder), size=8, test=0.2, validation=0.1)
    assert replace(dataset.info(data_config), originals="") == DatasetInfo((3, 8, 8), train=35, test=10, validation=5)
    images = dataset.load(data_config)
    splits = [numbers(images.train), numbers(images.validation), numbers(images.test)]
    assert [len(split) for split in splits] == [35, 5, 10]
    assert sorted(splits[0] + splits[1] + splits[2]) == list(range(50))
    assert all(split == sorted(split) for split in splits)
    assert splits[2] != list(range(10))
    assert splits[2] != list(range(40, 50))
    assert images.sha256 == dataset.load(data_config).sha256
    elsewhere = write(data_config.data_root / "elsewhere", dict(reversed(numbered(50).items())))
    assert Folder(path=str(elsewhere), size=8, test=0.2, validation=0.1).load(data_config).sha256 == images.sha256


def test_an_archive_holds_the_same_images_as_its_folder(data_config: DataConfig) -> None:
    files = {f"a/{name}" if i % 2 else name: data for i, (name, data) in enumerate(numbered(12).items())}
    write(data_config.data_root / "some", files)
    junk = {"__MACOSX/._000.png": b"x", "top/.hidden.png": b"x", "top/notes.txt": b"x"}
    write_zip(data_config.data_root / "some.zip", {f"top/{name}": data for name, data in files.items()} | junk)
    contents = {Folder(path=path).load(data_config).sha256 for path in ("some", "some.zip")}
    assert len(contents) == 1


@pytest.mark.parametrize("top", ["", "set/"])
def test_subfolders_train_and_test_are_the_splits(data_config: DataConfig, top: str) -> None:
    files = {f"{top}{'test' if n < '003' else 'train/deep'}/{n}": data for n, data in numbered(9).items()}
    path = write_zip(data_config.data_root / "some.zip", files)
    images = Folder(path=str(path)).load(data_config)
    assert (numbers(images.train), numbers(images.test)) == ([3, 4, 5, 6, 7, 8], [0, 1, 2])
    assert replace(Folder(path=str(path), validation=0.5).info(data_config), originals="") == DatasetInfo(
        (3, 64, 64), 3, 3, 3
    )
    files[f"{top}validation/x.png"] = files.popitem()[1]
    write_zip(path, files)
    assert numbers(Folder(path=str(path), validation=0.5).load(data_config).validation) == [8]
    write_zip(path, files | {f"{top}stray.png": files[f"{top}test/000.png"]})
    with pytest.raises(DataError, match=r"'.*stray\.png' is in none of them"):
        Folder(path=str(path)).info(data_config)


# ---------------------------------------------------------------- kinds of files


@pytest.mark.parametrize(
    ("kind", "options", "levels"),
    [
        ("PNG", {}, 0),
        ("JPEG", {"quality": 95}, 3),
        ("WEBP", {"lossless": True}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("PPM", {}, 0),
        ("GIF", {}, 3),
    ],
)
def test_every_kind_gives_the_same_pixels(kind: str, options: dict[str, object], levels: int) -> None:
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    expected = torch.tensor([200, 100, 50]).view(3, 1, 1).expand(3, 8, 8)
    assert (rgb(encoded(image, kind, **options)).int() - expected).abs().max() <= levels


def test_the_centre_square_is_kept() -> None:
    wide = Image.new("RGB", (300, 100))
    wide.paste(RED, (100, 0, 200, 100))
    for image in (wide, wide.transpose(Image.Transpose.ROTATE_90)):
        assert torch.equal(rgb(encoded(image))[:, :, :], torch.tensor(RED).byte().view(3, 1, 1).expand(3, 8, 8))


def test_a_fine_checkerboard_turns_grey() -> None:
    board = Image.fromarray((np.indices((120, 120)).sum(0) % 2 * 255).astype(np.uint8))
    assert (rgb(encoded(board), size=32).float() - 127.5).abs().max() < 10


def test_grey_is_luma() -> None:
    data = encoded(Image.new("RGB", (9, 9), RED))
    assert torch.equal(picture(data, size=4, channels="grey"), torch.full((1, 4, 4), 76).byte())
    assert torch.equal(rgb(encoded(Image.new("L", (9, 9), 76)), size=4), torch.full((3, 4, 4), 76).byte())


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_of_grey_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.repeat(np.array([0, 257, 32768, 65535], dtype=np.uint16)[:, None], 4, 1)
    assert picture(encoded(Image.fromarray(ramp), kind), size=4, channels="grey")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown range"):
        rgb(encoded(Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "TIFF"))


def test_transparency_lies_on_white() -> None:
    clear, half = (10, 20, 30, 0), (0, 0, 0, 128)
    assert rgb(encoded(Image.new("RGBA", (4, 4), clear))).min() == 255
    assert rgb(encoded(Image.new("RGBA", (4, 4), half))).unique().tolist() == [127]
    assert rgb(encoded(Image.new("LA", (4, 4), (0, 0)))).min() == 255
    assert rgb(encoded(Image.new("P", (4, 4), 0), transparency=0)).min() == 255
    assert rgb(encoded(Image.new("RGB", (4, 4), RED), transparency=RED)).min() == 255


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (4, 4), (n, n, n)) for n in (10, 200)]
    assert rgb(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).unique().tolist() == [10]


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_the_exif_orientation_is_applied(mode: str) -> None:
    pixels = np.zeros((8, 8), dtype=np.uint16)
    pixels[:2] = 65535  # a bar at the top of what is stored
    image = Image.fromarray(pixels) if mode == "I;16" else Image.fromarray((pixels >> 8).astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees clockwise
    shown = picture(encoded(image, "PNG", exif=exif), size=8, channels="grey")[0]
    assert shown[:, -2:].min() == 255
    assert shown[:, :-2].max() == 0


# ---------------------------------------------------------------- what can be wrong


def refusal(act: Callable[[DataConfig], object], data_config: DataConfig) -> str:
    with pytest.raises(DataError) as caught:
        act(data_config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_path_no_such_path_no_image(data_config: DataConfig) -> None:
    assert "--set dataset.path=DIR" in refusal(Folder().info, data_config)
    assert f"no nowhere, nor one in {data_config.data_root}" in refusal(Folder(path="nowhere").info, data_config)
    write(data_config.data_root / "texts", {"a.txt": b"x"})
    assert "no image in" in refusal(Folder(path="texts").info, data_config)
    write(data_config.data_root, {"file.png": b"x"})
    assert "is no whole zip archive" in refusal(Folder(path="file.png").info, data_config)


def test_too_few_to_train_on(data_config: DataConfig) -> None:
    write(data_config.data_root / "one", numbered(1))
    assert "too few to hold out" in refusal(Folder(path="one").info, data_config)
    with pytest.raises(UsageError, match="leave nothing to train on"):
        Folder(path="one", test=0.5, validation=0.5)


def test_a_corrupt_image_is_named_or_left_out_and_counted(data_config: DataConfig) -> None:
    good = numbered(20)
    write(data_config.data_root / "some", good | {"007.png": good["007.png"][:40], "009.png": b""})
    dataset = Folder(path="some", test=0.0, size=8)
    assert "the image '007.png' cannot be decoded" in refusal(dataset.load, data_config)
    images = dataset.load(replace(data_config, skip_corrupt=True, workers=3))
    assert images.skipped == 2
    assert numbers(images.train) == [n for n in range(20) if n not in (7, 9)]


def test_a_decompression_bomb_is_named(data_config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    write(data_config.data_root / "some", numbered(3))
    for limit in (500, 200):  # 600 pixels: beyond the limit PIL warns, beyond its double it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert "decompression bomb" in refusal(Folder(path="some", test=0.0).load, data_config)


def test_a_program_in_an_image_s_clothes_is_not_run(data_config: DataConfig) -> None:
    write(
        data_config.data_root / "some", numbered(3) | {"000.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}
    )
    assert "no image format that PIL knows" in refusal(Folder(path="some", test=0.0).load, data_config)


def plain_bmps(folder: Path, level: int) -> Path:
    """Files whose names, sizes and times do not tell their contents."""
    image = encoded(Image.new("RGB", (16, 16), (level,) * 3), "BMP")
    for path in sorted(write(folder, {f"{n:03d}.bmp": image for n in range(10)}).iterdir()):
        os.utime(path, (0, 0))
    return folder


def test_equal_names_sizes_and_times_are_not_equal_images(data_config: DataConfig) -> None:
    levels = {}
    for name, level in (("black", 0), ("white", 255)):
        plain_bmps(data_config.data_root / name, level)
        levels[name] = numbers(Folder(path=name, size=8).load(data_config).train)
    assert set(levels["black"]) == {0}
    assert set(levels["white"]) == {255}
    plain_bmps(data_config.data_root / "black", 128)  # the folder keeps its name, its files their times
    assert set(numbers(Folder(path="black", size=8).load(data_config).train)) == {128}


def test_one_dataset_under_many_paths_is_decoded_once(data_config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    root = data_config.data_root
    files = numbered(12)
    write(root / "some", files)
    write(root / "copy", files)  # at another time
    (root / "link").symlink_to(root / "some")
    write_zip(root / "some.zip", {f"some/{name}": data for name, data in files.items()})
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(root.parent))
    spellings = ("some", "some/", "./some", "../data/some", str(root / "some"), f"~/{root.name}/some")
    loaded = [Folder(path=path, size=8) for path in (*spellings, "link", "copy", "some.zip")]
    originals = {dataset.info(data_config).originals for dataset in loaded}
    assert originals == {dataset.load(data_config).originals for dataset in loaded}
    assert len(originals) == 1
    assert len(list((data_config.cache / "images").iterdir())) == 1


def test_a_file_that_was_touched_is_decoded_anew(data_config: DataConfig) -> None:
    folder = write(data_config.data_root / "some", numbered(9))
    dataset = Folder(path="some", size=8)
    before = dataset.load(data_config)
    write(folder, {"004.png": encoded(Image.new("RGB", (20, 30), (99, 99, 99)))})
    after = dataset.load(data_config)
    assert 99 in numbers(torch.cat([after.train, after.test]))
    assert after.sha256 != before.sha256
