"""Pixels of picture files: what decodes a JPEG, and what makes a picture smaller. Both leave the interpreter's lock.

A plain JPEG is decoded by torchvision where it has a decoder (its image decoders are deprecated since 0.29), anything
else by PIL: the same libjpeg-turbo in both, hence the same bytes (a test holds them to it). The first takes half the
time, and without opening the file with PIL, whose many small steps hold the lock, two threads are twice one.

Pictures are resized by torch's antialiased bilinear filter on uint8, the bytes of torchvision's `Resize` on tensors. It
is PIL's filter with weights of 16 bits for 22: on CelebA 3 values in 1,000 differ, by 1, and both are as far from the
filter in real numbers (reports/speed/decoding-notes.md); but it takes a third of PIL's time, which holds the lock.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version

import torch
import torchvision.io
from PIL import features
from torch import Tensor
from torch.nn.functional import interpolate

START = b"\xff\xd8"
FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Markers of frames that every decoder reads: baseline, extended and progressive, all by Huffman codes."""
PLAIN = frozenset({0xC4, 0xDB, 0xDD, 0xE0, 0xEE, 0xFE})
"""Markers that may stand before the frame: tables, restart interval, JFIF, Adobe, comment; not EXIF, not XMP."""
DEPRECATION = "The image decoding and encoding capabilities of TorchVision"
"""How the warning of torchvision's decoders begins: known, and no news to a user."""


def decoders() -> str:
    """What decides the bytes besides a picture's own: part of the keys of decoded datasets."""
    packages = " ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "pillow"))
    return f"{packages} libjpeg-turbo {features.version('libjpeg_turbo')}"


def plain_jpeg(data: bytes, most: int) -> Tensor | None:
    """The pixels of a plain JPEG of at most `most` pixels, `(3, h, w)` uint8; None for what only PIL can judge.

    That is every other format, other channels than three, metadata that may turn the picture, and damage.
    """
    decode, size = getattr(torchvision.io, "decode_jpeg", None), _plain_size(data)
    if decode is None or size is None or size[0] * size[1] > most:
        return None
    with suppress(RuntimeError):
        pixels: Tensor = decode(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        if pixels.shape == (3, *size):
            return pixels
    return None


def _plain_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a plain JPEG, from its segments before the first scan (ITU-T T.81, annex B)."""
    at = 2 if data.startswith(START) else len(data)
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in FRAMES:
            precision, channels = data[at + 4], data[at + 9]
            size = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            return size if precision == 8 and channels == 3 and min(size) else None
        if marker not in PLAIN or length < 2:
            return None
        at += 2 + length
    return None


def resized(images: Sequence[Tensor], size: int) -> Tensor:
    """Images of one shape, `(c, h, w)` uint8 -> `(n, c, size, size)`, bilinear and antialiased."""
    channels, height, width = images[0].shape
    block = torch.empty((len(images), height, width, channels), dtype=torch.uint8)  # as decoders lay pixels
    torch.stack([image.permute(1, 2, 0) for image in images], out=block)
    return interpolate(block.permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=True)


def quiet_decoders() -> None:
    """Ignore torchvision's warning of deprecation, within `warnings.catch_warnings`."""
    warnings.filterwarnings("ignore", DEPRECATION, DeprecationWarning)
