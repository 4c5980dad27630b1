"""Distances of samples in pixel space: a shift is found as it is, real images score the floor, copies do not win."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Generator, Tensor

from genbench.api import DataConfig, DatasetInfo, Evaluation, Images, Measurement
from genbench.data.images import with_content
from genbench.errors import UsageError
from genbench_pixels import PixelDistance, PixelSW, PixelW2
from genbench_priors import Normal

BOTH = [PixelW2(n=80), PixelSW(n=80)]


def noise(n: int, seed: int) -> Tensor:
    """Independent grey images about 0.4, `(n, 1, 8, 8)` uint8."""
    draws = torch.randn(n, 1, 8, 8, generator=Generator().manual_seed(seed)) * 20 + 100
    return draws.round().clamp(0, 255).to(torch.uint8)


class Given:
    """An evaluation of given samples."""

    split, sampler = "test", ""
    protocol = Evaluation.protocol

    def __init__(self, samples: Tensor) -> None:
        self.images = with_content(Images(noise(400, 1), noise(100, 2), noise(0, 3)))
        self._samples = samples

    def held_out(self, n: int) -> Tensor:
        return self.images.test[:n]

    def training_images(self, n: int) -> Tensor:
        return self.images.train[:n]

    def samples(self, n: int) -> Tensor:
        return self._samples[:n]

    def cache_for_dataset(self, key: str, compute: Any) -> Any:
        return compute()


def measured(metric: PixelDistance, samples: Tensor) -> dict[str, Measurement]:
    return {m.component: m for m in metric.measure(cast(Evaluation, Given(samples)))}


@pytest.mark.parametrize("metric", BOTH, ids=lambda metric: metric.name)
def test_images_of_the_same_law_score_the_floor(metric: PixelDistance) -> None:
    measurements = measured(metric, noise(80, 9))
    for measurement in measurements.values():
        assert measurement.floor is not None
        assert measurement.floor_sd is not None
        assert abs(measurement.value - measurement.floor) < 6 * measurement.floor_sd + 1e-3


@pytest.mark.parametrize(("metric", "share"), [(BOTH[0], 64), (BOTH[1], 1)], ids=("pixel-w2", "pixel-sw"))
def test_a_shift_adds_its_square(metric: PixelDistance, share: int) -> None:
    """Of all 64 pixels by 51/255: |t|^2 = 64 / 25 to W2^2, a 64th of it to SW2^2."""
    excess = measured(metric, noise(80, 9) + 51)["excess"]
    assert excess.value == pytest.approx(share / 25, rel=0.1)


def test_copies_of_one_image_beat_the_raw_floor_and_lose_by_the_excess() -> None:
    measurements = measured(
        BOTH[0], Given(noise(1, 0)).images.train.float().mean(0, keepdim=True).byte().expand(80, -1, -1, -1)
    )
    raw, centred = measurements[""], measurements["excess"]
    assert raw.floor is not None
    assert raw.value < raw.floor
    assert raw.higher_is_better is None
    assert centred.value > 10 * (centred.floor_sd or 0.0)


def test_too_few_images_are_refused_with_the_setting_that_helps() -> None:
    with pytest.raises(UsageError, match=r"--set pixel-w2.n=30"):
        PixelW2(n=80).validate(DatasetInfo((1, 8, 8), 400, 30, 0), Normal(2), DataConfig(Path(), Path()))
