"""Latent fit: its floor, its excess, what it refuses, and that collapsed codes never look better than a perfect fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Generator, Tensor

from genbench.api import Evaluation, Images, Measurement, Place, Prior, Summary
from genbench.distances import directions, exact_wasserstein, sliced_wasserstein, squared_distances
from genbench.errors import MetricError, UsageError
from genbench_latent import LatentFit, LatentMMD, LatentSW, LatentW2, centred, genbench_metrics
from genbench_plane import Ring
from genbench_priors import Mixture, Normal, Sphere, Uniform

METRICS = [LatentW2, LatentSW, LatentMMD]


class Setting:
    def __init__(self, prior: Prior) -> None:
        self.prior = prior


class Codes:
    """Just so much of an `Evaluation` as latent metrics use, with given codes."""

    def __init__(self, codes: Tensor, prior: Prior, seed: int = 0) -> None:
        self.setting, self.seed, self._codes = Setting(prior), seed, codes
        self.images = Images(*(torch.zeros(4, 1, 2, 2, dtype=torch.uint8),) * 3, content="c0ffee")
        self.memory: dict[str, object] = {}
        self.made: list[str] = []

    def codes(self, n: int) -> Tensor:
        return self._codes[:n]

    def prior_draws(self, n: int, purpose: str) -> Tensor:
        return self.setting.prior.sample(n, Generator().manual_seed(77 + self.seed))

    def shared(self, key: str, make: Callable[[], object]) -> object:
        if key not in self.memory:
            self.made.append(key)
            self.memory[key] = make()
        return self.memory[key]


def measured(metric: LatentFit, evaluation: Codes) -> dict[str, Measurement]:
    return {m.part: m for m in metric.measure(cast(Evaluation, evaluation))}


def drawn(prior: Prior, n: int, seed: int = 1) -> Tensor:
    return prior.sample(n, Generator().manual_seed(seed))


# ---------------------------------------------------------------- the values


@pytest.mark.parametrize("prior", [Normal(3), Ring(2), Sphere(4), Uniform(1), Mixture(8)], ids=repr)
@pytest.mark.parametrize("make", METRICS)
def test_codes_that_follow_the_prior_are_at_the_floor(make: type[LatentFit], prior: Prior) -> None:
    rows = measured(make(n=200, replicates=6), Codes(drawn(prior, 200), prior))
    for part, spread in [("", "floor-sd"), ("excess", "excess-sd")][: len(rows) // 2]:
        floor = rows[part].floor
        assert floor is not None
        assert abs(rows[part].value - floor) < 6 * rows[spread].value
        assert rows[spread].better == "neither"


def test_the_raw_values_are_the_distances() -> None:
    prior, codes = Normal(3), drawn(Normal(3), 100) + 0.5
    evaluation = Codes(codes, prior)
    draws = evaluation.prior_draws(100, "").double()
    assert measured(LatentW2(n=100), evaluation)[""].value == pytest.approx(exact_wasserstein(codes, draws))
    theta = directions(50_000, 3, Generator().manual_seed(5), torch.float64)
    sliced = math.sqrt(sliced_wasserstein(codes.double(), draws, theta))
    assert measured(LatentSW(n=100), evaluation)[""].value == pytest.approx(sliced, rel=0.05)


@pytest.mark.parametrize("make", METRICS)
def test_constant_codes_have_the_right_value(make: type[LatentFit]) -> None:
    """All mass at 0: W2^2 = E|z|^2 = d, SW2^2 = 1, and MMD^2 = k(0) + E k(z, z') - 2 E k(z, 0)."""
    prior, n = Normal(4), 400
    value = measured(make(n=n, replicates=2), Codes(torch.zeros(n, 4), prior))[""].value
    z = drawn(prior, 4000, 9).double()
    r2, between = z.square().sum(1), (z[::2] - z[1::2]).square().sum(1)
    kernel = [sum(float((8 * s / (8 * s + r)).mean()) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)) for r in (r2, between)]
    expected = {LatentW2: 2.0, LatentSW: 1.0, LatentMMD: 7 + kernel[1] - 2 * kernel[0]}[make]
    assert value == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("make", [LatentW2, LatentSW])
def test_the_excess_of_shifted_codes_is_the_square_of_the_shift(make: type[LatentFit]) -> None:
    """A translation by t adds |t|^2 to W2^2 and |t|^2 / d to SW2^2, in every dimension and at every n."""
    for d, n in ((2, 200), (8, 200), (8, 400)):
        rows = measured(make(n=n, replicates=6), Codes(drawn(Normal(d), n) + 1.0, Normal(d)))
        expected = d if make is LatentW2 else 1.0
        noise = 2.0 * math.sqrt(2.0 * expected / n)  # of 2 t.(mean x - mean y), on top of the null's own
        assert rows["excess"].value == pytest.approx(expected, abs=5.0 * (rows["excess-sd"].value + noise))


def test_the_excess_has_mean_zero_under_a_perfect_fit_and_the_raw_value_has_not() -> None:
    nulls = [value for seed in range(30) for value in [LatentW2(n=60).compare(*pair(seed, 8), Normal(8))]]
    excess = torch.tensor([value["excess"] for value in nulls])
    assert abs(float(excess.mean())) < 4 * float(excess.std()) / math.sqrt(30)
    raw = torch.tensor([value[""] for value in nulls])
    assert float(raw.mean()) > 10 * float(raw.std())


def pair(seed: int, d: int) -> tuple[Tensor, Tensor]:
    draws = torch.randn(2, 60, d, generator=Generator().manual_seed(seed), dtype=torch.float64)
    return draws[0], draws[1]


# ---------------------------------------------------------------- what the floor alone gets wrong

Judge = Callable[[dict[str, Measurement]], float]


def over_the_floor(rows: dict[str, Measurement]) -> float:
    """The planted error: the raw distance less its floor."""
    assert rows[""].floor is not None
    return rows[""].value - rows[""].floor


def by_excess(rows: dict[str, Measurement]) -> float:
    return rows["excess"].value / rows["excess-sd"].value


def detects_narrow_codes(judge: Judge) -> bool:
    """Whether codes drawn together, or with half of their coordinates dead, are worse than a perfect fit in R^64."""
    prior, perfect = Normal(64), drawn(Normal(64), 300)
    dead = perfect * torch.tensor([1.0, 0.0]).repeat(32)
    verdicts = [judge(measured(LatentW2(n=300), Codes(codes, prior))) for codes in (perfect * 0.5, perfect * 0.0, dead)]
    return all(verdict > 5.0 for verdict in verdicts)


def test_narrow_codes_are_no_better_than_a_perfect_fit() -> None:
    assert detects_narrow_codes(by_excess)
    assert not detects_narrow_codes(over_the_floor)


def test_only_what_cannot_reward_collapse_is_ranked() -> None:
    rows = measured(LatentW2(n=50), Codes(drawn(Normal(4), 50), Normal(4)))
    assert (rows[""].better, rows["excess"].better) == ("neither", "lower")


# ---------------------------------------------------------------- centring


def test_centring_is_symmetric_and_zero_between_equal_points() -> None:
    x, y = pair(0, 3)

    def squared(u: Tensor, v: Tensor) -> float:
        return float(squared_distances(u, v).mean())

    assert centred(squared, x, y) == pytest.approx(centred(squared, y, x), abs=1e-12)
    assert centred(squared, x[:1].repeat(8, 1), x[:1].repeat(8, 1)) == pytest.approx(0.0, abs=1e-12)
    gap = (x[0] - x[1]).square().sum()
    assert centred(squared, x[:1].repeat(9, 1), x[1:2].repeat(9, 1)) == pytest.approx(float(gap))


# ---------------------------------------------------------------- sharing, protocols, refusals


@pytest.mark.parametrize("make", METRICS)
def test_the_floor_is_computed_once_for_a_prior_and_does_not_depend_on_the_run(make: type[LatentFit]) -> None:
    metric, prior = make(n=40, replicates=2), Normal(3)
    first, second = Codes(drawn(prior, 40), prior), Codes(drawn(prior, 40, 2), prior, seed=5)
    second.memory = first.memory
    one, two = measured(metric, first), measured(metric, second)
    assert len(first.made) == 1
    assert not second.made
    assert one[""].floor == two[""].floor
    assert one[""].value != two[""].value
    again = Codes(drawn(prior, 40), prior)
    assert measured(metric, again) == one
    for other in (Normal(3, sigma=2.0), Uniform(3)):
        second.setting = Setting(other)
        measured(metric, second)
    assert len(second.made) == 2


@pytest.mark.parametrize("make", METRICS)
def test_the_protocol_says_how(make: type[LatentFit]) -> None:
    prior = Normal(3)
    rows = measured(make(n=40), Codes(drawn(prior, 40), prior))
    for row in rows.values():
        assert (row.n, row.protocol.references, row.protocol.generated) == (40, 40, 0)
        assert (row.protocol.dataset, row.protocol.split, row.protocol.values) == ("c0ffee", "test", "codes")
        assert "Normal(latent_dim=3, sigma=1.0)" in row.protocol.detail
        assert row.unit
        assert row.label
    others = [measured(make(n=20), Codes(drawn(prior, 40), prior))]
    others += [measured(make(n=40), Codes(drawn(p, 40), p)) for p in (Normal(3, sigma=2.0), Normal(2))]
    assert all(rows[""].protocol.key != other[""].protocol.key for other in others)


@pytest.mark.parametrize("make", METRICS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_codes_that_are_not_finite_are_an_error(make: type[LatentFit], bad: float) -> None:
    codes = drawn(Normal(3), 40)
    codes[[2, 5], 1] = bad
    with pytest.raises(MetricError, match=r"latent-\w+: 2 of 40 codes hold values that are NaN or infinite"):
        measured(make(n=40), Codes(codes, Normal(3)))


@pytest.mark.parametrize("make", METRICS)
def test_more_codes_than_images_are_refused_while_planning(make: type[LatentFit]) -> None:
    place = Place(data_root=Path(), cache=Path())
    make(n=100).check(Summary((1, 28, 28), train=10, test=100), Normal(2), place)
    with pytest.raises(
        UsageError, match=r"encodes 2000 held-out images and the dataset has 100: --set latent-\w+\.n=100"
    ):
        make().check(Summary((1, 28, 28), train=10, test=100), Normal(2), place)


def test_the_offers() -> None:
    offers = list(genbench_metrics())
    assert [offer.name for offer in offers] == ["latent-w2", "latent-sw", "latent-mmd"]
    assert [cast(LatentFit, offer.make()).name for offer in offers] == [offer.name for offer in offers]
