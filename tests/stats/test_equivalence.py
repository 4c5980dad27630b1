"""Verdicts: known cases, the level of the tests by simulation, and that no two of the words can be true at once."""

from __future__ import annotations

import numpy as np
import pytest

from genbench.stats.equivalence import assess_equivalence, differing

TRIALS = 2000


def share(mean: float, word: str, margin: float = 1.0, n: int = 5, sd: float = 0.4) -> float:
    draws = np.random.default_rng(7).normal(mean, sd, (TRIALS, n))
    return sum(assess_equivalence(list(row), 0.0, margin).conclusion == word for row in draws) / TRIALS


def test_a_mean_on_the_margin_is_called_equivalent_in_one_of_twenty() -> None:
    """The least favourable case of the null hypothesis: the level is exact there, 4 standard errors are .02."""
    assert share(1.0, "equivalent") == pytest.approx(0.05, abs=0.02)
    assert share(-1.0, "equivalent") == pytest.approx(0.05, abs=0.02)


def test_a_mean_on_the_margin_is_called_different_in_one_of_twenty() -> None:
    assert share(1.0, "different") == pytest.approx(0.05, abs=0.02)


def test_equal_means_are_found_equivalent_and_far_ones_different() -> None:
    assert share(0.0, "equivalent") > 0.95
    assert share(2.5, "different") > 0.95
    assert share(0.0, "different") == 0.0


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([10.0, 10.1, 9.9], "equivalent"),
        ([12.0, 12.1, 11.9], "different"),
        ([8.0, 12.0, 10.0], "inconclusive"),
        ([10.0], "inconclusive"),
        ([10.5, 10.5], "inconclusive"),  # equal values say nothing about their spread
        ([11.5, 11.5], "inconclusive"),
    ],
)
def test_known_cases(values: list[float], word: str) -> None:
    assert assess_equivalence(values, 10.0, 1.0).conclusion == word


def test_equal_shares_are_tested_by_their_known_error() -> None:
    assert assess_equivalence([0.025, 0.025], 0.03, 0.1, n=40).conclusion == "equivalent"
    assert assess_equivalence([0.025, 0.025], 0.03, 0.02, n=40).conclusion == "inconclusive"
    assert assess_equivalence([0.5, 0.5, 0.5], 0.1, 0.1, n=40).conclusion == "different"


def test_the_two_one_sided_p_value_is_that_of_students_tables() -> None:
    """Mean 0, s = 1, n = 4, margin 1: t = 2 with 3 degrees of freedom, whose upper tail is .0697."""
    values = [-1.161895, -0.387298, 0.387298, 1.161895]
    assert assess_equivalence(values, 0.0, 1.0).p == pytest.approx(0.0697, abs=2e-4)


def test_another_protocol_is_reported_and_nothing_is_tested() -> None:
    fields = differing({"layer": "2048", "generated": "10000"}, {"layer": "768", "generated": 10000})
    assert fields == ["layer: published 2048, ours 768"]
    result = assess_equivalence([10.0, 10.1], 10.0, 1.0, fields)
    assert (result.conclusion, result.p, result.fields) == ("other protocol", None, tuple(fields))
    assert differing({"layer": "2048"}, {"layer": "768"}, ("layer",)) == []
    assert differing({"layer": "2048"}, {}) == ["layer: published 2048, ours not stated"]
