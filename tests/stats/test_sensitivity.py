"""Sensitivity to options: found where there is one, in at most 5 % where there is none; default, tuned, published."""

from __future__ import annotations

import math

import numpy as np

from genbench.stats.sensitivity import sensitivities


def trials(count: int, seed: int = 0) -> tuple[list[dict[str, object]], np.random.Generator]:
    rng = np.random.default_rng(seed)
    return [
        {
            "rate": float(10 ** rng.uniform(-4, -1)),
            "weight": float(10 ** rng.uniform(0, 3)),
            "loss": str(rng.choice(["l1", "l2"])),
        }
        for _ in range(count)
    ], rng


def test_an_optimum_inside_the_range_is_seen_where_no_correlation_is() -> None:
    options, rng = trials(30)
    values = [4 * (math.log10(float(str(t["rate"]))) + 2.5) ** 2 + 0.2 * rng.normal() for t in options]
    first, *rest = sensitivities(options, values, higher_is_better=False)  # type: ignore[arg-type]
    assert first.option == "rate"
    assert first.p < 0.01
    assert first.spread > first.by_chance
    assert first.best == first.groups[1][0]
    rho = first.rank_correlation
    assert rho is not None
    assert rho.low is not None
    assert rho.high is not None
    assert rho.low < 0 < rho.high
    assert all(line.p > 0.05 for line in rest)


def test_the_sign_of_the_correlation_is_that_of_the_value_not_of_the_quality() -> None:
    options, _ = trials(30)
    values = [float(str(t["weight"])) for t in options]
    for higher in (True, False):
        line = sensitivities(options, values, higher_is_better=higher)[0]  # type: ignore[arg-type]
        assert line.option == "weight"
        assert line.rank_correlation is not None
        assert line.rank_correlation.mean == 1
        assert line.best == line.groups[-1 if higher else 0][0]
    assert [count for _, count, _ in line.groups] == [10, 10, 10]


def test_choices_have_a_group_for_each_value_and_no_correlation() -> None:
    options, rng = trials(24)
    values = [(3.0 if t["loss"] == "l1" else 0.0) + 0.1 * rng.normal() for t in options]
    line = sensitivities(options, values, higher_is_better=False)[0]  # type: ignore[arg-type]
    assert (line.option, line.best, line.rank_correlation) == ("loss", "l2", None)
    assert [label for label, _, _ in line.groups] == ["l1", "l2"]


def test_options_that_do_nothing_are_called_sensitive_in_at_most_one_study_in_twenty() -> None:
    claims = 0
    for seed in range(60):
        options, rng = trials(15, seed)
        claims += sensitivities(options, rng.gamma(1.0, size=15).tolist(), higher_is_better=False)[0].p <= 0.05  # type: ignore[arg-type]
    assert claims <= 8  # 5 % of 60, and three standard errors


def test_an_option_that_is_always_the_same_and_a_short_search_have_no_line() -> None:
    options = [{"rate": 1.0, "on": k % 2 == 0} for k in range(8)]
    (line,) = sensitivities(options, [float(k) for k in range(8)], higher_is_better=True)
    assert (line.option, line.best) == ("on", "false")
    assert sensitivities(options[:5], [1.0] * 5, higher_is_better=True) == ()


def test_a_diverged_trial_is_the_worst() -> None:
    options = [{"rate": float(k)} for k in range(12)]
    (line,) = sensitivities(options, [float(k) for k in range(9)] + [math.nan] * 3, higher_is_better=False)
    assert line.rank_correlation is not None
    assert line.rank_correlation.mean > 0.9
