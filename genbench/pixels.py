"""Pixels of picture files: what decodes a JPEG, and what makes a picture smaller. Both leave the interpreter's lock.

A JPEG is decoded by torchvision where it has a decoder (its image decoders are deprecated since 0.29), else by PIL: the
same libjpeg-turbo in both, hence the same bytes (a test holds them to it), and the first takes half the time.

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
from PIL import Image, features
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import pil_to_tensor

DEPRECATION = "The image decoding and encoding capabilities of TorchVision"
"""How the warning of torchvision's decoders begins: known, and no news to a user."""


def decoders() -> str:
    """What decides the bytes besides a picture's own: part of the keys of decoded datasets."""
    packages = " ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "pillow"))
    return f"{packages} libjpeg-turbo {features.version('libjpeg_turbo')}"


def decoded(image: Image.Image, data: bytes) -> Tensor:
    """The pixels of an image just opened from `data`, `(channels, h, w)` uint8, channels as its mode has them.

    Raises what PIL raises where the data is damaged: PIL has the last word on all that torchvision refuses.
    """
    decode = getattr(torchvision.io, "decode_jpeg", None)
    if decode is not None and image.format == "JPEG" and image.mode == "RGB":
        with suppress(RuntimeError):
            fast: Tensor = decode(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            if fast.shape == (3, image.height, image.width):
                return fast
    pixels: Tensor = pil_to_tensor(image)
    return pixels


def resized(images: Sequence[Tensor], size: int) -> Tensor:
    """Images of one shape, `(c, h, w)` uint8 -> `(n, c, size, size)`, bilinear and antialiased."""
    channels, height, width = images[0].shape
    block = torch.empty((len(images), height, width, channels), dtype=torch.uint8)  # as decoders lay pixels
    for rows, image in zip(block, images, strict=True):
        rows.copy_(image.permute(1, 2, 0))
    return interpolate(block.permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=True)


def quiet_decoders() -> None:
    """Ignore torchvision's warning of deprecation, within `warnings.catch_warnings`."""
    warnings.filterwarnings("ignore", DEPRECATION, DeprecationWarning)
