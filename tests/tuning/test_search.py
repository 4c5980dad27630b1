"""The algorithms of a search: determined by the seed and the values of batches, and better than chance."""

from __future__ import annotations

import itertools
import math

import pytest

from genbench.api import Option, Search
from genbench.registry.options import OptionSpec
from genbench.tuning.search import (
    ALGORITHMS,
    BATCH,
    INDEPENDENT,
    Algorithm,
    OptunaSearch,
    RandomSearch,
    TrialSampler,
    affordable,
    rungs,
    trainings,
)
from genbench.tuning.space import Point, Space

SPACE: Space = {
    "weight": (OptionSpec("weight", float, 1.0, Option("w")), Search("log", 0.01, 100)),
    "count": (OptionSpec("count", int, 2, Option("n")), Search("linear", 1, 4)),
    "kernel": (OptionSpec("kernel", str, "a", Option("k"), ("a", "b")), Search("choice")),
}
DEFAULT: Point = {"weight": 1.0, "count": 2, "kernel": "a"}


def value(point: Point) -> float | None:
    """Best at a weight of 10 and kernel a; four of anything fail."""
    weight, failed = point["weight"], point["count"] == 4
    assert isinstance(weight, float)
    return None if failed else abs(math.log10(weight) - 1) + (point["kernel"] == "b")


def searched(algorithm: Algorithm, trials: int, seed: int = 0, model: str = "swae") -> list[Point]:
    sampler: TrialSampler = RandomSearch(SPACE, seed, model)
    if algorithm not in INDEPENDENT:
        sampler = OptunaSearch(SPACE, seed, model, algorithm, higher_is_better=False)
        sampler.tell([DEFAULT], [value(DEFAULT)])
    points = [DEFAULT]
    while len(points) < trials:
        asked = sampler.ask(min(BATCH, trials - len(points)))
        sampler.tell(asked, [value(point) for point in asked])
        points += asked
    return points


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_points_follow_from_seed_and_model(algorithm: Algorithm) -> None:
    if algorithm not in INDEPENDENT:
        pytest.importorskip("optuna")
    trials = 13
    points = searched(algorithm, trials)
    assert len(points) == trials
    assert points == searched(algorithm, trials)
    assert points != searched(algorithm, trials, seed=1)
    assert points != searched(algorithm, trials, model="vae")
    for point in points:
        assert 0.01 <= point["weight"] <= 100  # type: ignore[operator]
        assert point["count"] in range(1, 5)
        assert point["kernel"] in ("a", "b")


def test_more_trials_of_a_random_search_begin_with_the_same() -> None:
    assert searched("random", 20)[:8] == searched("random", 8)


def test_tpe_searches_near_good_values() -> None:
    """Its later trials are better than its first, random ones, and failures do not attract it."""
    pytest.importorskip("optuna")
    early, late, failed = [], [], 0
    for seed in range(4):
        points = searched("tpe", 51, seed)
        values = [value(point) for point in points]
        early += [each for each in values[:11] if each is not None]
        late += [each for each in values[31:] if each is not None]
        failed += sum(each is None for each in values[31:])
    assert sum(late) / len(late) < 0.7 * sum(early) / len(early)
    assert failed < 0.25 * 4 * 20


def test_equal_cost_gives_the_dear_model_fewer_trials() -> None:
    assert affordable(30, [1.0, 2.5, 100.0]) == [30, 12, 1]
    assert affordable(7, [3.0, 3.0]) == [7, 7]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 9, 26, 27, 99])
def test_halving_keeps_a_third_at_each_rung_and_one_trial_comes_to_its_end(n: int) -> None:
    ladder = rungs(n)
    assert (ladder[0].trials, ladder[-1].share) == (n, 1.0)
    assert ladder[-1].trials >= 1
    for before, after in itertools.pairwise(ladder):
        assert after.trials == before.trials // 3
        assert after.share == pytest.approx(3 * before.share)
    assert min(rung.share for rung in ladder) >= 1 / 9
    assert trainings(n + 1, "halving") <= trainings(n + 1, "random")


def test_models_of_unequal_cost_get_no_more_than_the_cheapest_one_pays() -> None:
    costs = [1.0, 2.0, 4.0]
    counts = affordable(30, costs, "halving")
    budget = trainings(30, "halving")
    assert counts[0] == 30
    assert all(
        cost * trainings(count, "halving") <= budget * (1 + 1e-6) for cost, count in zip(costs, counts, strict=True)
    )
    assert counts[1] > affordable(30, costs)[1] / 2
