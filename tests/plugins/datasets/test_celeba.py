"""CelebA: the official split, the crop's geometry, antialiasing, damaged archives; 6,000 real faces where they are."""

from __future__ import annotations

import shutil
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
from torchvision.transforms import v2

from genbench.api import DataConfig, DatasetInfo, Images, ProgressEvent
from genbench.errors import DataError
from genbench_celeba import CelebA, Filter, smaller, square

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
PARTS = {1: 0, 2: 2, 3: 1, 4: 0, 5: 0, 6: 2}


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def face(data: bytes, *, crop: int, size: int, filter: Filter) -> Tensor:
    return smaller([square(data, crop=crop)], size=size, filter=filter)[0]


def flat(grey: int) -> bytes:
    return jpeg(np.full((218, 178, 3), grey, dtype=np.uint8))


def name(number: int) -> str:
    return f"img_align_celeba/{number:06d}.jpg"


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in files.items():
            archive.writestr(entry, data)


@pytest.fixture
def archive(data_config: DataConfig) -> Path:
    """Six faces of grey 20 times their number, stored backwards, and one that no line of the partition names."""
    path = data_config.data_root / "celeba" / "img_align_celeba.zip"
    write_zip(path, {name(n): flat(20 * n) for n in (9, 6, 5, 4, 3, 2, 1)})
    lines = [f"{n:06d}.jpg {part}\n" for n, part in PARTS.items()]
    (path.parent / "list_eval_partition.txt").write_text("".join(lines))
    return path


def greys(images: Tensor) -> list[int]:
    """The number of each face, by its grey."""
    return [round(float(image.float().mean()) / 20) for image in images]


def refusal(act: Callable[[DataConfig], object], data_config: DataConfig) -> str:
    with pytest.raises(DataError) as caught:
        act(data_config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- splits


def test_splits_and_order_are_the_partition_s(archive: Path, data_config: DataConfig) -> None:
    images = CelebA().load(data_config)
    assert (greys(images.train), greys(images.validation), greys(images.test)) == ([1, 4, 5], [3], [2, 6])
    assert images.train.dtype == torch.uint8
    assert images.shape == (3, 64, 64)
    assert images.skipped == 0
    assert replace(CelebA(size=32).info(data_config), originals="") == DatasetInfo(
        (3, 32, 32), train=3, test=2, validation=1
    )


def test_the_folder_holds_the_same_images_as_the_archive(archive: Path, data_config: DataConfig) -> None:
    whole = CelebA().load(data_config)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(archive.parent)
    archive.unlink()
    assert CelebA().load(data_config).sha256 == whole.sha256
    shutil.move(archive.parent / "img_align_celeba", data_config.data_root)
    shutil.move(archive.parent / "list_eval_partition.txt", data_config.data_root)
    assert CelebA().load(data_config).sha256 == whole.sha256


# ---------------------------------------------------------------- the cache


def cached(data_config: DataConfig) -> list[Path]:
    return sorted((data_config.cache / "images").iterdir())


def test_decoded_once_then_kept_and_made_anew_when_damaged(archive: Path, data_config: DataConfig) -> None:
    seen: list[ProgressEvent] = []
    data_config = replace(data_config, report=seen.append)
    first = CelebA().load(data_config)
    assert seen[-1] == ProgressEvent("decoding img_align_celeba.zip", 6, 6)
    seen.clear()
    assert CelebA().load(data_config).sha256 == first.sha256
    assert not seen
    (path,) = cached(data_config)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    again = CelebA().load(data_config)
    assert seen
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(again, split), getattr(first, split))


def test_the_cache_follows_content_and_options(archive: Path, data_config: DataConfig) -> None:
    contents = {CelebA().load(data_config).sha256, CelebA(crop=100).load(data_config).sha256}
    contents |= {CelebA(size=32).load(data_config).sha256, CelebA(filter="lanczos").load(data_config).sha256}
    write_zip(archive, {name(n): flat(20 * n + (n == 4)) for n in PARTS})
    contents.add(CelebA().load(data_config).sha256)
    partition = archive.parent / "list_eval_partition.txt"
    partition.write_text(partition.read_text().replace("000006.jpg 2", "000006.jpg 0"))
    contents.add(CelebA().load(data_config).sha256)
    assert len(cached(data_config)) == 6
    # flat faces stay the same under any crop and filter: two options change nothing but the place in the cache
    assert len(contents) == 4


def test_other_decoders_decode_anew(archive: Path, data_config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = CelebA().load(data_config)
    monkeypatch.setattr("genbench.data.decoding.decoders", lambda: "pillow 99")
    assert CelebA().load(data_config).sha256 == first.sha256
    assert len(cached(data_config)) == 2


@pytest.mark.parametrize("workers", [-1, 0, 1, 2, 5])
def test_workers_do_not_change_a_byte(archive: Path, data_config: DataConfig, workers: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 218, 178, 3), dtype=np.uint8)
    write_zip(archive, {name(n + 1): jpeg(image) for n, image in enumerate(noise)})
    lines = [f"{n + 1:06d}.jpg {0 if n < 70 else 2}\n" for n in range(80)]
    (archive.parent / "list_eval_partition.txt").write_text("".join(lines))
    expected = torch.stack([face(jpeg(image), crop=140, size=16, filter="bilinear") for image in noise])
    images = CelebA(size=16).load(replace(data_config, workers=workers))
    assert torch.equal(torch.cat([images.train, images.test]), expected)


# ---------------------------------------------------------------- preparation


@pytest.mark.parametrize("filter", ["bilinear", "lanczos"])
def test_the_crop_is_the_centre(filter: str) -> None:
    pixels = np.zeros((218, 178, 3), dtype=np.uint8)
    pixels[39:179, 19:159] = 200  # 140x140 about the centre
    assert face(jpeg(pixels), crop=140, size=140, filter=filter).float().mean() > 198
    assert face(jpeg(pixels), crop=64, size=64, filter=filter).min() > 196
    marked = np.zeros((218, 178, 3), dtype=np.uint8)
    marked[107:111, 87:91] = (255, 0, 0)
    red = face(jpeg(marked, subsampling=0), crop=140, size=70, filter=filter)[0].float()
    for side in (0, 1):
        assert float(red.sum(side) @ torch.arange(70.0) / red.sum()) == pytest.approx(34.5, abs=0.1)


@pytest.mark.parametrize("filter", ["bilinear", "lanczos"])
def test_a_fine_checkerboard_turns_grey(filter: str) -> None:
    board = (np.indices((218, 178)).sum(0) % 2 * 255).astype(np.uint8)
    small = face(jpeg(np.repeat(board[..., None], 3, 2)), crop=140, size=64, filter=filter)
    assert (small.float() - 127.5).abs().max() < 20  # without antialiasing it reaches 0 and 255


@pytest.mark.parametrize("filter", ["bilinear", "lanczos"])
def test_the_bytes_are_those_of_torchvision_s_transforms(filter: str) -> None:
    data = jpeg(np.random.default_rng(1).integers(0, 256, (218, 178, 3), dtype=np.uint8))
    steps = [v2.CenterCrop(140), v2.Resize(64, v2.InterpolationMode(filter))]
    published = v2.Compose([v2.PILToTensor(), *steps] if filter == "bilinear" else [*steps, v2.PILToTensor()])
    assert torch.equal(face(data, crop=140, size=64, filter=filter), published(Image.open(BytesIO(data))))


def test_grey_and_cmyk_jpegs_become_rgb() -> None:
    grey = face(jpeg(np.full((218, 178), 90, dtype=np.uint8)), crop=140, size=8, filter="bilinear")
    assert torch.equal(grey, torch.full((3, 8, 8), 90).byte())
    file = BytesIO()
    Image.new("CMYK", (178, 218), (0, 255, 255, 0)).save(file, "JPEG")
    red = face(file.getvalue(), crop=140, size=8, filter="bilinear")
    assert red[0].min() > 250
    assert red[1:].max() < 5


# ---------------------------------------------------------------- what can be wrong


def test_nothing_there_says_where_it_was_looked_for(data_config: DataConfig) -> None:
    for text in (refusal(CelebA().info, data_config), refusal(CelebA().load, data_config)):
        assert str(data_config.data_root / "celeba") in text
        assert "img_align_celeba.zip" in text
        assert "mmlab" in text


def test_no_partition(archive: Path, data_config: DataConfig) -> None:
    (archive.parent / "list_eval_partition.txt").unlink()
    assert "no list_eval_partition.txt, nor Kaggle's list_eval_partition.csv, in" in refusal(CelebA().info, data_config)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("000007.jpg 3", "is not of the form"),
        ("000007.jpg 0 1", "is not of the form"),
        ("000007.jpg", "is not of the form"),
        ("../000007.jpg 0", "is not of the form"),
        ("\x00\xff junk", "is not of the form"),
        ("000001.jpg 2", "names an image twice"),
    ],
)
def test_a_partition_that_is_none(archive: Path, data_config: DataConfig, line: str, fault: str) -> None:
    path = archive.parent / "list_eval_partition.txt"
    path.write_text(path.read_text() + line + "\n", encoding="latin-1")
    assert f"line 7 {fault}" in refusal(CelebA().info, data_config)


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_the_partition_of_kaggle_is_the_same(archive: Path, data_config: DataConfig, bom: str) -> None:
    whole = CelebA().load(data_config)
    path = archive.parent / "list_eval_partition.txt"
    rows = path.read_text().replace(" ", ",").replace("\n", "\r\n")
    path.unlink()
    (archive.parent / "list_eval_partition.csv").write_text(f"{bom}image_id,partition\r\n{rows}", newline="")
    assert CelebA().load(data_config).sha256 == whole.sha256
    path.write_text((bom + rows).replace(",", "\t"), newline="")
    assert CelebA().load(data_config).sha256 == whole.sha256


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"no zip"])
def test_an_archive_that_is_none(archive: Path, data_config: DataConfig, damage: Callable[[bytes], bytes]) -> None:
    archive.write_bytes(damage(archive.read_bytes()))
    assert f"{archive} is no whole zip archive" in refusal(CelebA().info, data_config)


@pytest.mark.parametrize("top", ["../", "/", "a/../../", "C:\\data\\", "..\\"])
def test_an_archive_from_another_system_is_read_inside_it(archive: Path, data_config: DataConfig, top: str) -> None:
    """Absolute paths, parents and backslashes lead nowhere: nothing is unpacked."""
    whole = CelebA().load(data_config)
    slash = "\\" if "\\" in top else "/"
    write_zip(archive, {top.removesuffix("data\\") + name(n).replace("/", slash): flat(20 * n) for n in PARTS})
    assert CelebA().load(data_config).sha256 == whole.sha256


def test_images_that_are_absent_stop_it_or_are_counted(archive: Path, data_config: DataConfig) -> None:
    write_zip(archive, {name(n): flat(20 * n) for n in (1, 3, 5, 6)})
    text = refusal(CelebA().info, data_config)
    assert "lacks 2 of the images" in text
    assert f"'{name(4)}'" in text  # the training images come first
    assert "--skip-corrupt" in text
    lenient = replace(data_config, skip_corrupt=True)
    info = DatasetInfo((3, 64, 64), train=2, test=1, validation=1, skipped=2)
    assert replace(CelebA().info(lenient), originals="") == info
    assert CelebA().info(lenient).notes == ("2 faces left out: 2 absent, 0 corrupt",)
    images = CelebA().load(lenient)
    assert (greys(images.train), greys(images.test), images.skipped) == ([1, 5], [6], 2)
    write_zip(archive, {name(2): flat(2)})
    assert "none of the training images" in refusal(CelebA().info, lenient)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (flat(80)[:-400], ""),
        (b"", "no image format that PIL knows"),
        (b"\x89PNG\r\n\x1a\n junk", "no image format that PIL knows"),
        (jpeg(np.zeros((250, 250, 3), dtype=np.uint8)), "it is 250x250, not the 178x218"),
    ],
)
def test_a_corrupt_image_is_named_or_left_out_and_counted(
    archive: Path, data_config: DataConfig, data: bytes, reason: str
) -> None:
    write_zip(archive, {name(n): data if n in (4, 6) else flat(20 * n) for n in PARTS})
    text = refusal(CelebA().load, replace(data_config, workers=2))
    assert f"the image '{name(4)}' cannot be decoded ({reason}" in text
    assert not list(data_config.cache.rglob("*.safetensors"))
    images = CelebA().load(replace(data_config, skip_corrupt=True))
    assert (greys(images.train), greys(images.test), images.skipped) == ([1, 5], [2], 2)
    assert list(data_config.cache.rglob("*.safetensors"))
    assert CelebA().load(replace(data_config, skip_corrupt=True)).skipped == 2
    refusal(CelebA().load, data_config)  # what is kept without those images does not hide them


def test_an_entry_whose_checksum_does_not_hold_is_named(archive: Path, data_config: DataConfig) -> None:
    data = bytearray(archive.read_bytes())
    data[data.index(flat(80)) + 300] ^= 0xFF
    archive.write_bytes(data)
    assert f"'{name(4)}' cannot be decoded (Bad CRC-32" in refusal(CelebA().load, data_config)


def test_every_image_corrupt(archive: Path, data_config: DataConfig) -> None:
    write_zip(archive, {name(n): b"x" for n in PARTS})
    assert "no training image is left" in refusal(CelebA().load, replace(data_config, skip_corrupt=True))


# ---------------------------------------------------------------- real faces


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Images:
    if not (SHARED / "celeba" / "img_align_celeba.zip").is_file():
        pytest.skip("no CelebA beside the checkout (shared/data)")
    return CelebA().load(DataConfig(SHARED, tmp_path_factory.mktemp("cache"), workers=2))


def test_real_faces(faces: Images) -> None:
    assert (len(faces.train), len(faces.validation), len(faces.test)) == (5_000, 500, 500)
    assert faces.shape == (3, 64, 64)
    assert faces.skipped == 0
    means = faces.train.float().mean((0, 2, 3))
    assert means[0] > means[1] > means[2] > 60  # skin: red before green before blue
    everything = torch.cat([faces.train, faces.validation, faces.test]).flatten(1)
    assert len(torch.unique(everything, dim=0)) == 6_000
