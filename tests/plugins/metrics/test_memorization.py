"""C_T, AuthPct and FLD's gap: brute force, the authors' formulas, levels under the null, planted copies, bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from genbench.api import DataConfig, DatasetInfo, Prior
from genbench.data.images import to_uint8
from genbench.errors import MetricError, UsageError
from genbench_copying import AuthPct, Cells, DataCopying, authentic, copying_test
from genbench_fld import FLDGap, fitted_widths, gap, log_likelihood, squared
from genbench_nearest import MemorizationMetric, NearestTrain, more_often, nearest_rows
from support.evaluations import draws, evaluation, measured, pictures

NO_PRIOR = cast(Prior, None)
pytestmark = pytest.mark.usefixtures("registry")  # which registers the extractors

METRICS: dict[str, tuple[type[MemorizationMetric], dict[str, Any], str]] = {
    "nearest-train": (NearestTrain, {"n": 60}, "copies"),
    "data-copying": (DataCopying, {"n": 60, "cells": 1}, ""),
    "authpct": (AuthPct, {"n": 60}, ""),
    "fld-gap": (FLDGap, {"n": 60, "held_out": 60}, ""),
}


# ---------------------------------------------------------------- nearest training images


@pytest.mark.parametrize("leave_out", [False, True])
def test_the_nearest_row_is_that_of_brute_force(leave_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = draws(90, 6) + 50.0
    x = torch.cat([rows[10:25], draws(15, 6, seed=1) + 50.0])
    excluded = torch.cat([torch.arange(10, 25), torch.arange(15)]) if leave_out else None
    exact = (x[:, None].double() - rows[None].double()).square().sum(2)
    if excluded is not None:
        exact[torch.arange(30), excluded] = math.inf
    monkeypatch.setattr("genbench_nearest.BLOCK_ELEMENTS", 200)
    squares, place = nearest_rows(x, rows, excluded)
    assert squares.tolist() == pytest.approx(exact.amin(1).tolist(), rel=1e-12)
    assert torch.equal(place, exact.argmin(1))


def test_the_exact_p_value_of_a_share() -> None:
    """All of 3 samples and none of 3 held-out images: one of the 20 choices of three."""
    yes, no = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
    assert more_often(yes, no) == pytest.approx(1 / 20)
    assert more_often(no, yes) == more_often(no, no) == 1.0


# ---------------------------------------------------------------- C_T


def test_c_t_is_the_weighted_mean_of_z_scores_over_the_cells_that_count() -> None:
    samples = [draws(40).exp(), draws(30, seed=1).exp().round(), draws(5, seed=2)]
    held_out = [draws(25, seed=3).exp() + 0.3, draws(50, seed=4).exp().round(), draws(60, seed=5)]
    scores = []
    for q, p in zip(samples[:2], held_out[:2], strict=True):
        u = mannwhitneyu(q.numpy(), p.numpy()).statistic
        product = len(q) * len(p)
        scores.append((u - product / 2) / math.sqrt(product * (len(q) + len(p) + 1) / 12))
    result = copying_test(samples, held_out)
    assert result.value == pytest.approx((25 * scores[0] + 50 * scores[1]) / 75)
    assert result.null_sd == pytest.approx(math.hypot(25, 50) / 75)
    assert result.cells == 2


def test_c_t_keeps_its_level_and_its_standard_error() -> None:
    """Of equal laws one in twenty is called a copier; nearer samples have the spread that is stated."""
    null, values, errors = [], [], []
    for seed in range(300):
        u = draws(4, 2, 40, seed=seed)
        null.append(copying_test(list(u[0]), list(u[1])).p_value <= 0.05)
        nearer = copying_test(list(u[2] - 0.7), list(draws(2, 40, seed=1000)))
        values.append(nearer.value)
        errors.append(nearer.se)
    assert 0.02 < sum(null) / 300 < 0.09
    assert sum(errors) / 300 == pytest.approx(float(torch.tensor(values).std()), rel=0.15)


def test_cells_hold_the_distances_to_their_own_training_images() -> None:
    training = torch.cat([draws(50, 3), draws(50, 3, seed=1) + 20.0])
    x = draws(30, 3, seed=2) + torch.tensor([0.0] * 15 + [20.0] * 15)[:, None]
    cells = Cells(training, 2)
    distances = cells.distances(x)
    assert [len(part) for part in distances] == [15, 15]
    first = int(cells.assigned(x)[0])
    near = torch.cdist(x[:15].double(), training[:50].double()).amin(1)
    assert distances[first].tolist() == pytest.approx(near.tolist(), rel=1e-9)
    assert torch.equal(cells.assigned(x)[:15], cells.assigned(x)[:1].expand(15))


# ---------------------------------------------------------------- AuthPct


def test_authentic_points_are_those_of_brute_force() -> None:
    training, x = draws(80, 2), draws(60, 2, seed=1)
    x[:5] = training[:5]
    own = torch.cdist(training.double(), training.double()).fill_diagonal_(math.inf).amin(1)
    near = torch.cdist(x.double(), training.double()).min(1)
    assert torch.equal(authentic(x, training), own[near.indices] < near.values)
    assert not authentic(x, training)[:5].any()


# ---------------------------------------------------------------- FLD's gap


def test_the_likelihood_is_that_of_a_mixture_and_rises_with_each_step() -> None:
    x, centers = draws(40, 3), draws(9, 3, seed=1)
    squares = squared(x, centers)
    fits = [fitted_widths(squares, 3, steps) for steps in (1, 2, 5, 30)]
    rising = [float(log_likelihood(squares, widths, 3).mean()) for widths in fits]
    assert rising == sorted(rising)
    parts = Independent(Normal(centers, fits[-1].sqrt()[:, None].expand(9, 3)), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(9)), parts)
    assert log_likelihood(squares, fits[-1], 3).tolist() == pytest.approx(mixture.log_prob(x).tolist(), rel=1e-4)


def test_the_gap_keeps_its_level_whatever_the_samples() -> None:
    """Samples of another law than the data's: the fitted gap is below 0, and one in twenty is called a copier."""
    gaps = []
    for seed in range(150):
        data = draws(160, 4, seed=seed)
        gaps.append(gap(0.5 * draws(30, 4, seed=1000 + seed) + 1.0, data[:120], data[120:], 5))
    assert sum(x.value for x in gaps) < 0.0
    assert 0.01 < sum(x.p_value <= 0.05 for x in gaps) / 150 < 0.1


def test_the_gap_of_a_copier_is_far_below_zero() -> None:
    data = draws(300, 4)
    training, held_out = data[:200], data[200:]
    new, mixed = draws(100, 4, seed=1), draws(100, 4, seed=1)
    mixed[:20] = training[:20]
    fresh, copied, replay = (gap(x, training, held_out, 10) for x in (new, mixed, training[:100]))
    assert replay.value < copied.value < fresh.value
    assert copied.p_value < 0.01
    assert fresh.p_value > 0.01


# ---------------------------------------------------------------- the metrics


@pytest.mark.parametrize("features", ["pixels", "grey28"])
@pytest.mark.parametrize("name", METRICS)
def test_replays_raise_an_alarm_and_new_images_do_not(name: str, features: str, data_config: DataConfig) -> None:
    create, options, component = METRICS[name]
    train, test = pictures(240, 0), pictures(120, 1)
    metric = create(features=features, **options)  # type: ignore[call-arg]
    replay, new = (
        measured(metric, evaluation(train, test, made, data_config))[component] for made in (train, pictures(60, 2))
    )
    assert replay.p_value is not None
    assert new.p_value is not None
    assert replay.p_value < 1e-4 < 0.01 < new.p_value
    assert new.floor is not None
    assert (new.protocol.extractor == "") == (features == "pixels")
    assert (new.role == "memorization") == (name == "nearest-train")


@pytest.mark.parametrize("name", METRICS)
def test_bad_input_meets_one_line(name: str, data_config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    create, options, _ = METRICS[name]
    with pytest.raises(UsageError, match=f"{name}: 1 held-out and 100 training images"):
        create(**options).validate(DatasetInfo((1, 28, 28), train=100, test=1), NO_PRIOR, data_config)  # type: ignore[call-arg]
    layered = create(**{"features": "pixels", "layer": "128", **options})  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="pixels have neither layers nor weights"):
        layered.validate(DatasetInfo((1, 28, 28), train=100, test=100), NO_PRIOR, data_config)
    x, metric = pictures(60, 0), create(**{"features": "grey28", **options})  # type: ignore[call-arg]
    with pytest.raises(MetricError, match=f"{name}: 60 samples, 1 held-out and 60 training images"):
        list(metric.measure(evaluation(x, x[:1], x, data_config)))
    constant = measured(
        metric, evaluation(x, pictures(60, 1), torch.full_like(x, 7), data_config)
    )  # alike, which is no copy
    assert all(math.isfinite(m.value) and (m.p_value is None or m.p_value > 0.05) for m in constant.values())
    monkeypatch.setattr("genbench_fid.base.extract", lambda extractor, images: torch.full((len(images), 3), math.nan))
    empty = DataConfig(data_config.data_root, Path(data_config.cache) / "empty")
    with pytest.raises(MetricError, match="not finite"):
        list(metric.measure(evaluation(x, x, x, empty)))


def test_constant_training_or_held_out_images_are_refused(data_config: DataConfig) -> None:
    x, flat = pictures(60, 0), torch.full((60, 1, 28, 28), 9, dtype=torch.uint8)
    with pytest.raises(MetricError, match="data-copying: 10 cells of training images of which fewer are different"):
        list(DataCopying(n=60, features="pixels").measure(evaluation(flat, x, x, data_config)))
    with pytest.raises(MetricError, match="fld-gap: the held-out images are all alike"):
        list(FLDGap(n=60, features="pixels").measure(evaluation(x, flat, x, data_config)))
    with pytest.raises(MetricError, match="data-copying: no cell has 20 samples and 20 held-out images"):
        list(DataCopying(n=60, cells=30, features="pixels").measure(evaluation(x, x, x, data_config)))


def test_a_slightly_noisy_copy_counts_in_features_too(data_config: DataConfig) -> None:
    train, test = pictures(240, 0), pictures(120, 1)
    fine = to_uint8((train / 255 + draws(*train.shape) / 255).clamp(0, 1))
    result = measured(NearestTrain(n=60, features="grey28"), evaluation(train, test, fine, data_config))
    assert result["copies"].value > 0.9
    assert "grey28" in result["copies"].label


def test_fewer_training_images_are_looked_through_if_asked_for(data_config: DataConfig) -> None:
    train: Tensor = pictures(240, 0)
    e = evaluation(train, pictures(120, 1), train[120:180], data_config)
    assert measured(AuthPct(n=60, features="pixels"), e)[""].value == 0.0
    few = measured(AuthPct(n=60, features="pixels", training=100), e)[""]
    assert few.value > 0.5
    assert few.protocol.detail == "100 training images"
