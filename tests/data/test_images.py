"""Pictures and tensors: conversion from Pillow and grids, as torchvision makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import make_grid

from genbench.data.images import picture_to_tensor, save_grid


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_picture_s_tensor_is_torchvision_s(mode: str) -> None:
    picture = Image.fromarray(noise(5, 7, 3).numpy()).convert(mode)
    assert torch.equal(picture_to_tensor(picture), pil_to_tensor(picture))


@pytest.mark.parametrize(("n", "columns"), [(11, 4), (3, 8), (8, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_is_torchvision_s(n: int, columns: int, channels: int, tmp_path: Path) -> None:
    images = noise(n, channels, 5, 7)
    save_grid(tmp_path / "grid.png", images, columns, padding=3)
    grid = make_grid(images, nrow=columns, padding=3, pad_value=255)
    with Image.open(tmp_path / "grid.png") as picture:
        assert np.array_equal(np.asarray(picture), grid.permute(1, 2, 0).numpy())


def test_one_image_has_the_lines_around_it_as_well(tmp_path: Path) -> None:
    save_grid(tmp_path / "grid.png", noise(1, 3, 5, 7))
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (7 + 4, 5 + 4)
