"""Decoders agree to the byte, whatever the JPEG and however damaged; the resize is as true to its filter as PIL's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
import torch
import torchvision.io
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from genbench.data.decoding import UNREADABLE
from genbench.data.pixels import decoders, plain_jpeg, quiet_decoders, resized


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        quiet_decoders()
        yield


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colour with some noise: what JPEG is made for."""
    draws = np.random.default_rng(seed)
    coarse = Image.fromarray(draws.integers(0, 256, (7, 5, 3), dtype=np.uint8)).resize((width, height))
    return Image.fromarray((np.asarray(coarse) // 2 + draws.integers(0, 64, (height, width, 3))).astype(np.uint8))


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def ours(data: bytes) -> Tensor:
    pixels = plain_jpeg(data, most=10**6)
    return by_pil(data) if pixels is None else pixels


def by_pil(data: bytes) -> Tensor:
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        return pil_to_tensor(image)


@pytest.mark.skipif(not hasattr(torchvision.io, "decode_jpeg"), reason="this torchvision has no decoder")
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 95, "subsampling": 0},
        {"quality": 75, "subsampling": 1},
        {"quality": 20, "subsampling": 2},
        {"quality": 100},
        {"progressive": True},
        {"keep_rgb": True},
        {"restart_marker_blocks": 2},
        {"optimize": True},
    ],
    ids=str,
)
@pytest.mark.parametrize(("height", "width"), [(218, 178), (17, 33), (1, 1), (64, 8)])
def test_decoders_agree(height: int, width: int, options: dict[str, object]) -> None:
    data = jpeg(photograph(height, width), **options)
    pixels = plain_jpeg(data, most=height * width)
    assert pixels is not None
    assert pixels.shape == (3, height, width)
    assert torch.equal(pixels, by_pil(data))


def outcome(decode: object, data: bytes) -> Tensor | None:
    try:
        return decode(data)  # type: ignore[operator]
    except UNREADABLE:
        return None


def test_decoders_agree_on_damaged_files() -> None:
    """300 files with bytes changed or cut off: the same pixels, or no pixels from either."""
    whole, draws, refused = jpeg(photograph(40, 30), quality=80), np.random.default_rng(1), 0
    for _ in range(300):
        data = bytearray(whole)
        for at in draws.integers(2, len(data), draws.integers(1, 4)):
            data[at] = draws.integers(0, 256)
        end = len(data) if draws.random() < 0.7 else int(draws.integers(2, len(data)))
        one, two = (outcome(decode, bytes(data[:end])) for decode in (ours, by_pil))
        refused += two is None
        assert (one is None) == (two is None)
        assert one is None or torch.equal(one, two)
    assert 30 < refused < 270


def test_what_is_not_plain_is_left_to_pil(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photograph(30, 20)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert plain_jpeg(jpeg(image, exif=exif), most=600) is None
    assert plain_jpeg(jpeg(image.convert("L")), most=600) is None
    assert plain_jpeg(jpeg(image.convert("CMYK")), most=600) is None
    assert plain_jpeg(jpeg(image), most=599) is None  # a bomb is not even decoded
    assert plain_jpeg(b"\x89PNG", most=600) is None
    assert plain_jpeg(b"", most=600) is None
    monkeypatch.delattr(torchvision.io, "decode_jpeg", raising=False)
    assert plain_jpeg(jpeg(image), most=600) is None


def test_every_decoder_is_named() -> None:
    for name in ("torch ", "torchvision ", "pillow ", "libjpeg-turbo "):
        assert name in decoders()


def filtered(image: Tensor, size: int) -> Tensor:
    """The antialiased bilinear filter in real numbers: a triangle as wide as two pixels of the result, at its centres.

    Its weights are taken where the inputs' centres lie, and sum to one.
    """
    side = image.shape[-1]
    scale = max(side / size, 1.0)
    centres = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * (side / size)
    weights = (1 - ((torch.arange(side) + 0.5 - centres) / scale).abs()).clamp(min=0)
    weights /= weights.sum(1, keepdim=True)
    return weights @ image.double() @ weights.T


@pytest.mark.parametrize(("side", "size"), [(140, 64), (178, 64), (500, 64), (64, 64), (40, 64)])
def test_the_resize_is_as_true_as_pil_s(side: int, size: int) -> None:
    image = photograph(side, side)
    exact = filtered(pil_to_tensor(image), size)
    small = resized([pil_to_tensor(image)], size)[0].double()
    pil = pil_to_tensor(image.resize((size, size), Image.Resampling.BILINEAR)).double()
    assert (small - exact).abs().max() < 1.1  # two roundings, of half a level each
    assert (small - exact).abs().mean() <= (pil - exact).abs().mean() + 1e-3
    assert (small - pil).abs().max() <= 1


def test_images_are_resized_alike_alone_and_together() -> None:
    images = [pil_to_tensor(photograph(50, 40, seed)) for seed in range(5)]
    together = resized(images, 16)
    assert together.shape == (5, 3, 16, 16)
    for image, small in zip(images, together, strict=True):
        assert torch.equal(resized([image], 16)[0], small)
