"""Budget curves: unbiased by enumeration, intervals that cover, leads claimed in at most 5 % of equal pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genbench.stats.budget_curves import BudgetComparison, best_of, compare_budgets, expected_best

VALUES = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=2, max_size=8)


@given(VALUES, st.booleans())
@settings(max_examples=40)
def test_the_estimate_is_the_mean_best_of_all_subsets(values: list[float], higher: bool) -> None:
    curve = expected_best(values, higher_is_better=higher)
    best = max if higher else min
    for k, point in enumerate(curve, 1):
        subsets = [best(subset) for subset in itertools.combinations(values, k)]
        assert point.mean == pytest.approx(np.mean(subsets), abs=1e-9)


def test_the_jackknife_error_is_that_of_leaving_each_trial_out() -> None:
    x = np.sort(np.random.default_rng(0).normal(size=9))
    for k in (1, 2, 4, 8):
        without = [best_of(np.delete(x, j)[None], k)[0][0] if k < 8 else np.delete(x, j).max() for j in range(9)]
        expected = math.sqrt(8 / 9 * np.square(without - np.mean(without)).sum())
        assert best_of(x[None], k)[1][0] == pytest.approx(expected)


def test_of_one_trial_it_is_the_mean_with_the_usual_error() -> None:
    values = np.random.default_rng(1).normal(size=40)
    first = expected_best(values.tolist(), higher_is_better=False)[0]
    assert first.mean == pytest.approx(values.mean())
    assert first.half_width == pytest.approx(2.02 * values.std(ddof=1) / math.sqrt(40), rel=0.1)


def test_directions_are_mirror_images() -> None:
    values = np.random.default_rng(2).gamma(2.0, size=12).tolist()
    lower = expected_best(values, higher_is_better=False)
    higher = expected_best([-v for v in values], higher_is_better=True)
    for a, b in zip(lower, higher, strict=True):
        assert a.mean == pytest.approx(-b.mean)
        assert (a.low is None) == (b.high is None)
        assert a.low is None or b.high is None or a.low == pytest.approx(-b.high)


def test_a_diverged_trial_counts_as_the_worst_value() -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    assert expected_best([*values, math.nan], higher_is_better=False) == expected_best(
        [*values, 9.0], higher_is_better=False
    )
    with pytest.raises(ValueError, match="every trial diverged"):
        expected_best([math.nan], higher_is_better=False)


def test_intervals_are_given_up_to_half_of_the_trials_and_where_values_differ() -> None:
    values = [float(v) for v in range(10)]
    assert [point.low is not None for point in expected_best(values, higher_is_better=True)] == [True] * 5 + [False] * 5
    assert all(point.low is None for point in expected_best([*values, 9.0], higher_is_better=True))
    assert all(point.low is None for point in expected_best(values[:5], higher_is_better=True))
    tied_at_the_worst = expected_best([*values, 0.0, 0.0], higher_is_better=True)
    assert tied_at_the_worst[0].low is not None
    assert all(point.low is None for point in expected_best([7.0] * 10, higher_is_better=True))


@pytest.mark.parametrize("law", ["normal", "gamma"])
def test_intervals_cover(law: str) -> None:
    """Known: the expected largest of five normal values, and the smallest of five gamma ones of shape 1: 1 / 5."""
    rng, k = np.random.default_rng(3), 5
    searches = rng.normal(size=(300, 12)) if law == "normal" else -rng.exponential(size=(300, 12))
    truth = 1.16296447 if law == "normal" else -1 / k
    points = [expected_best(row.tolist(), higher_is_better=True)[k - 1] for row in searches]
    held = [p.low is not None and p.high is not None and p.low <= truth <= p.high for p in points]
    assert 0.90 <= np.mean(held) <= 0.99  # 93 to 97 %, and two standard errors


def test_many_trials_take_little_time_and_keep_their_ends() -> None:
    values = np.random.default_rng(4).normal(size=110).tolist()
    curve = expected_best(values, higher_is_better=True)
    assert curve[54].low is not None
    assert curve[55].low is None
    assert curve[-1].mean == max(values)
    (pair,) = compare_budgets({"a": values, "b": [v - 3 for v in values]}, higher_is_better=True)
    assert pair.trials[-1] == 55
    assert set(pair.ahead) == {1}


# ---------------------------------------------------------------- comparisons


def test_equal_models_are_told_apart_in_at_most_one_study_in_twenty() -> None:
    rng = np.random.default_rng(5)
    claims = 0
    for _ in range(120):
        a, b = (rng.binomial(6, 0.5, 10).astype(float).tolist() for _ in range(2))
        claims += any(compare_budgets({"a": a, "b": b}, higher_is_better=True)[0].ahead)
    assert claims <= 13  # 5 % of 120, and three standard errors


def test_a_model_that_is_better_everywhere_is_ahead_everywhere_in_either_order() -> None:
    rng = np.random.default_rng(6)
    good, bad = rng.normal(size=20).tolist(), (rng.normal(size=20) + 5).tolist()
    (pair,) = compare_budgets({"a": good, "b": bad}, higher_is_better=False)
    assert pair.sentence == "a is ahead of b at every number of trials up to 10"
    (pair,) = compare_budgets({"b": bad, "a": good}, higher_is_better=False)
    assert pair.sentence == "a is ahead of b at every number of trials up to 10"


def test_curves_that_cross_are_said_to() -> None:
    rng = np.random.default_rng(7)
    steady, wild = rng.normal(5.0, 0.05, 60).tolist(), rng.uniform(0.0, 20.0, 60).tolist()
    (pair,) = compare_budgets({"steady": steady, "wild": wild}, higher_is_better=False)
    assert pair.ahead[0] == 1
    assert pair.ahead[-1] == -1
    assert pair.sentence.startswith("steady is ahead of wild up to ")
    assert ", wild is ahead " in pair.sentence


def test_three_models_are_corrected_for_three_pairs() -> None:
    rng = np.random.default_rng(8)
    a, b, c = (rng.normal(size=12).tolist() for _ in range(3))
    (alone,) = compare_budgets({"a": a, "b": b}, higher_is_better=True)
    first, _, _ = compare_budgets({"a": a, "b": b, "c": c}, higher_is_better=True)
    assert first.p_values == pytest.approx([min(1.0, 3 * p) for p in alone.p_values])


@pytest.mark.parametrize("gain", [0.0, 0.5, 1.0, 1.5])
def test_the_largest_number_of_trials_has_four_fifths_of_the_error_rate_and_the_others_the_rest(gain: float) -> None:
    """By all 924 deals of two searches of six trials."""
    rng = np.random.default_rng(10)
    pooled = np.concatenate([rng.normal(size=6), rng.normal(size=6) - gain])
    statistics = []
    for left in itertools.combinations(range(12), 6):
        parts = np.sort(pooled[list(left)])[None], np.sort(np.delete(pooled, left))[None]
        bests = [[best_of(part, k) for part in parts] for k in (1, 2, 3)]
        statistics.append([abs(x - y)[0] / np.hypot(s, t)[0] for (x, s), (y, t) in bests])
    shares = (np.array(statistics)[:, None] >= np.array(statistics)[None] * (1 - 1e-9)).mean(0)
    *others, largest = shares[0]
    smallest = shares[:, :2].min(1)
    largest = min(1.0, largest / 0.8)
    among_others = [np.mean(smallest <= p) for p in others]
    expected = [min(1.0, 5 * p, max(p, largest)) for p in among_others]
    (pair,) = compare_budgets({"a": pooled[:6].tolist(), "b": pooled[6:].tolist()}, higher_is_better=True)
    assert pair.p_values == pytest.approx([*expected, largest], abs=0.06)


def test_of_many_models_one_that_is_far_ahead_is_found() -> None:
    """With a fixed number of permutations no p-value would stay small enough after correction for all pairs."""
    rng = np.random.default_rng(9)
    models = {str(model): (rng.normal(size=8) - 9 * (not model)).tolist() for model in range(11)}
    pairs = compare_budgets(models, higher_is_better=False)
    assert all(any(pair.ahead) == (pair.first == "0") for pair in pairs)


@pytest.mark.parametrize(
    ("ahead", "sentence"),
    [
        ((1, 1, 1), "a is ahead of b at every number of trials up to 3"),
        ((0, 0, 0), "a and b are not distinguishable at any number of trials up to 3"),
        ((1, 0, 0), "a is ahead of b up to 1 trial, not distinguishable beyond (compared up to 3)"),
        ((0, 0, -1), "a and b are not distinguishable up to 2 trials, b is ahead of a at 3 trials (compared up to 3)"),
        ((-1, 0, 1, 1), "b is ahead of a up to 1 trial, not distinguishable at 2 trials, a is ahead beyond"
                        " (compared up to 4)"),
        ((), "a and b: fewer than 6 trials, not compared"),
    ],
)  # fmt: skip
def test_the_sentence_says_where(ahead: tuple[int, ...], sentence: str) -> None:
    trials = tuple(range(1, len(ahead) + 1))
    assert BudgetComparison("a", "b", trials, ahead, (0.5,) * len(ahead)).sentence == sentence
