"""The resize is as true to its filter as PIL's, and every library that decides bytes is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from genbench.data.decoding import decoders, resized


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colour with some noise: what JPEG is made for."""
    draws = np.random.default_rng(seed)
    coarse = Image.fromarray(draws.integers(0, 256, (7, 5, 3), dtype=np.uint8)).resize((width, height))
    return Image.fromarray((np.asarray(coarse) // 2 + draws.integers(0, 64, (height, width, 3))).astype(np.uint8))


def test_every_decoder_is_named() -> None:
    for name in ("torch ", "pillow ", "libjpeg-turbo "):
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
