"""MIND: theorems of the sliced distance, brute force, the standard error against repeated draws, and bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

import genbench_mind
from genbench.api import DataConfig, DatasetInfo, Prior
from genbench.errors import MetricError, UsageError
from genbench_mind import MIND, directions, influence, mind, standard_error
from support.evaluations import draws, evaluation, measured, pictures

pytestmark = pytest.mark.usefixtures("registry")  # which registers the extractors


def brute_force(real: Tensor, generated: Tensor, theta: Tensor) -> float:
    """Both sets repeated to one size, so that sorting matches them, in float64."""
    x, y, t = (z.double().numpy() for z in (real, generated, theta))
    size = math.lcm(len(x), len(y))
    u = np.sort(np.repeat(t @ x.T, size // len(x), axis=1), axis=1)
    v = np.sort(np.repeat(t @ y.T, size // len(y), axis=1), axis=1)
    return float(3 * x.shape[1] * ((u - v) ** 2).mean())


@pytest.mark.parametrize("count", [40, 30, 7])
def test_the_value_is_that_of_brute_force_at_equal_and_unequal_sizes(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, generated = draws(40, 5) + 100.0, 1.3 * draws(count, 5, seed=1) + 100.5
    theta = directions(30, real)
    assert mind(real, generated, theta) == pytest.approx(brute_force(real, generated, theta), rel=1e-4)
    monkeypatch.setattr(genbench_mind, "BLOCK_ELEMENTS", 500)  # a few directions at a time
    assert mind(real, generated, theta) == pytest.approx(brute_force(real, generated, theta), rel=1e-4)


def test_equal_samples_are_at_zero_and_a_translation_adds_three_times_its_square() -> None:
    """For a direction drawn uniformly E (theta . t)^2 = |t|^2 / f."""
    real = draws(200, 8)
    theta = directions(20_000, real)
    assert mind(real, real.flip(0), theta) == 0.0
    assert mind(real, real + 0.5, theta) == pytest.approx(3 * 8 * 0.25, rel=0.02)


@pytest.mark.parametrize("count", [120, 90])
def test_the_standard_error_is_the_spread_of_repeated_draws(count: int) -> None:
    real = draws(120, 4)
    theta = directions(50, real)
    made = [1.2 * draws(count, 4, seed=seed) + 0.5 for seed in range(1, 151)]
    spread = float(torch.tensor([mind(real, x, theta) for x in made]).std())
    errors = [standard_error(real, x, theta) for x in made[:30]]
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("count", [20, 17])
def test_the_influence_is_the_derivative_in_the_weight_of_a_sample(count: int) -> None:
    """By central differences: of 50 copies of all samples, one copy of a sample is added or left out."""
    real, generated, copies = draws(20, 3), draws(count, 3, seed=1) + 0.4, 50
    theta = directions(40, real)
    many = generated.repeat(copies, 1)
    for chosen in (0, 3):
        heavier = brute_force(real, torch.cat([many, generated[chosen : chosen + 1]]), theta)
        lighter = brute_force(real, torch.cat([many[:chosen], many[chosen + 1 :]]), theta)
        derivative = (heavier - lighter) / 2.0 * copies * count
        assert derivative == pytest.approx(float(influence(real, generated, theta)[chosen]), rel=0.01, abs=0.01)


def test_real_samples_are_at_the_floor_and_others_above_it(data_config: DataConfig) -> None:
    train, test = pictures(300, 0), pictures(200, 1)
    real = measured(MIND(projections=100), evaluation(train, test, pictures(200, 2), data_config))[""]
    assert real.floor is not None
    assert real.floor_sd is not None
    assert real.se is not None
    assert abs(real.value - real.floor) < 4 * math.hypot(real.floor_sd, real.se)
    dark = measured(MIND(projections=100), evaluation(train, test, pictures(200, 2) // 2, data_config))[""]
    assert dark.value > real.value + 10 * real.se
    fewer = measured(MIND(projections=100, count=150), evaluation(train, test, pictures(200, 2), data_config))[""]
    assert (real.n, fewer.n) == (200, 150)
    assert "100 directions, sorted" in real.protocol.detail
    assert "quantiles of 150 and 200 integrated" in fewer.protocol.detail
    assert fewer.protocol.key != real.protocol.key


def test_bad_input_meets_one_line(data_config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    info = DatasetInfo((1, 28, 28), train=10, test=1)
    with pytest.raises(UsageError, match="mind needs 2 held-out images and the dataset has 1"):
        MIND().validate(info, cast(Prior, None), data_config)
    x = pictures(10, 0)
    with pytest.raises(MetricError, match="mind: 1 samples against 10 references; it needs 2 of each"):
        list(MIND(count=1).measure(evaluation(x, x, x, data_config)))
    constant = measured(MIND(projections=10), evaluation(x, x, x[:1].expand_as(x), data_config))[""]
    assert math.isfinite(constant.value)
    monkeypatch.setattr("genbench_fid.base.extract", lambda extractor, images: torch.full((len(images), 3), math.nan))
    empty = DataConfig(data_config.data_root, Path(data_config.cache) / "empty")
    with pytest.raises(MetricError, match="not finite"):
        list(MIND().measure(evaluation(x, x, x, empty)))
