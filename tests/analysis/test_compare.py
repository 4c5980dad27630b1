"""Two groups against each other, and what numbers of seeds can show."""

from __future__ import annotations

import doctest
import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from genbench.analysis import compare as comparing
from genbench.analysis.compare import compare, forecast, hedges
from genbench.errors import UsageError
from genbench.reporting.views import conclusion_words
from genbench.stats import power as powers
from genbench.stats.power import minimum_detectable_effect, pilot, power, seeds_needed
from genbench.storage.results import Row
from support.studies import row, study


def group(model: str, values: list[float], **facts: object) -> list[Row]:
    return [row(model, seed, value, **facts) for seed, value in enumerate(values)]


def test_a_comparison_equals_scipys_paired_test() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(1.0, 1.0, 6), rng.normal(0.0, 1.0, 6)
    label_a, label_b, (comparison,) = compare([*group("swae", list(a)), *group("vae", list(b))], "swae", "vae")
    expected = scipy_stats.ttest_rel(a, b)
    interval = expected.confidence_interval()
    assert (label_a, label_b, comparison.difference.n) == ("swae", "vae", 6)
    assert comparison.p == pytest.approx(expected.pvalue)
    assert (comparison.difference.low, comparison.difference.high) == (
        pytest.approx(interval.low),
        pytest.approx(interval.high),
    )
    d = a - b
    assert comparison.effect == pytest.approx(d.mean() / d.std(ddof=1) * hedges(6))


def test_hedges_correction_makes_the_effect_unbiased() -> None:
    x = np.random.default_rng(2).normal(0.8, 1.0, (40_000, 5))
    assert (hedges(5) * x.mean(1) / x.std(1, ddof=1)).mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("better", "winner"), [(False, "A is better"), (True, "B is better")])
def test_the_verdict_follows_the_direction(better: bool, winner: str) -> None:
    rows = [
        *group("a", [1.0, 1.1, 1.2], higher_is_better=better),
        *group("b", [5.0, 5.2, 5.3], higher_is_better=better),
    ]
    (comparison,) = compare(rows, "a", "b")[2]
    assert (comparison.conclusion, comparison.more_seeds) == (winner, 0)


def test_more_seeds_are_those_of_the_observed_effect_or_none_where_it_is_noise() -> None:
    gaps = [1.0, -0.4, 1.4, 0.2]
    (comparison,) = compare([*group("a", gaps), *group("b", [0.0] * 4)], "a", "b")[2]
    needed = seeds_needed(float(np.mean(gaps) / np.std(gaps, ddof=1)))
    assert needed is not None
    assert (comparison.conclusion, comparison.more_seeds) == ("undecided", needed - 4)
    (noise,) = compare([*group("a", [1.0, -1.0, 0.1]), *group("b", [0.0] * 3)], "a", "b")[2]
    assert noise.more_seeds is None


def test_several_metrics_are_corrected_together() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for metric in ("fid", "kid", "mse"):
        rows += [
            *group("a", list(rng.normal(0, 1, 5)), metric=metric),
            *group("b", list(rng.normal(1, 1, 5)), metric=metric),
        ]
    comparisons = compare(rows, "a", "b")[2]
    assert all(comparison.p <= comparison.p_holm <= 3 * comparison.p + 1e-12 for comparison in comparisons)
    assert compare(rows, "a", "b", "kid")[2][0].p_holm == comparisons[1].p


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_differences_are_no_test(seeds: int) -> None:
    """A metric that is 2 for a and 1 for b in every seed: no p-value, no effect, no interval (scipy#20179)."""
    rows = [*group("a", [2.0] * seeds), *group("b", [1.0] * seeds)]
    (comparison,) = compare(rows, "a", "b")[2]
    assert (comparison.conclusion, comparison.p, comparison.p_holm) == ("no test", None, None)
    assert (comparison.effect, comparison.difference.low, comparison.more_seeds) == (None, None, None)
    assert conclusion_words([comparison], "a", "b") == [
        "a and b cannot be told apart by fid: all differences are equal"
    ]


def test_a_spread_of_rounding_is_none() -> None:
    """1.1 + 2.2 against 3.3: the deviation of the differences is 1e-16, and d_z was 3e15."""
    a, b = [1.1 + 2.2, 3.3, 1.1 + 2.2], [2.2, 2.2, 2.2]
    (comparison,) = compare([*group("a", a), *group("b", b)], "a", "b")[2]
    assert (comparison.conclusion, comparison.effect, comparison.sd) == ("no test", None, 0.0)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_shares_are_no_more_certain_than_their_draws(seeds: int) -> None:
    rows = [*group("vae", [0.025] * seeds, n=40), *group("ae", [0.0] * seeds, n=40)]
    (comparison,) = compare(rows, "vae", "ae")[2]
    assert comparison.conclusion == "undecided"
    assert comparison.p is not None
    assert comparison.p > 0.05
    assert comparison.effect is None or abs(comparison.effect) < 1
    assert comparison.difference.low is not None
    assert comparison.difference.low < 0
    far = [*group("vae", [0.9] * seeds, n=40), *group("ae", [0.1] * seeds, n=40)]
    assert compare(far, "vae", "ae")[2][0].conclusion == "B is better"


def test_identical_models_are_equal_and_not_better() -> None:
    values = [1.0, 2.5, 1.7]
    (comparison,) = compare([*group("a", values), *group("b", values)], "a", "b")[2]
    assert (comparison.conclusion, comparison.p, comparison.more_seeds) == ("equal", 1.0, None)
    assert conclusion_words([comparison], "a", "b") == ["a and b are equal in every seed by fid"]


def test_a_metric_without_a_test_does_not_weaken_the_others() -> None:
    rows = [*group("a", [1.0, 2.0, 3.5]), *group("b", [4.0, 4.6, 6.2])]
    constant = [*group("a", [1.0] * 3, metric="kid"), *group("b", [2.0] * 3, metric="kid")]
    alone, beside = compare(rows, "a", "b")[2][0], compare([*rows, *constant], "a", "b")[2][0]
    assert (alone.p, alone.p_holm) == (beside.p, beside.p_holm)


def test_the_seeds_of_both_are_told() -> None:
    (comparison,) = compare([*group("a", [1.0, 2.0, 3.5, 9.0]), *group("b", [4.0, 4.6, 6.2])], "a", "b")[2]
    assert (comparison.seeds_a, comparison.seeds_b, comparison.difference.n) == (4, 3, 3)


comparable = st.lists(
    st.tuples(st.integers(-400, 400), st.integers(-400, 400)).map(lambda pair: (pair[0] / 8, pair[1] / 8)),
    min_size=2,
    max_size=6,
)


@given(comparable, st.integers(-50, 50), st.integers(-3, 3), st.randoms(use_true_random=False))
def test_order_shift_unit_and_sides_do_not_change_a_comparison(
    pairs: list[tuple[float, float]], shift: int, power_of_two: int, random: Random
) -> None:
    def conclude(values: list[tuple[float, float]], *, swap: bool = False) -> tuple[object, ...]:
        a, b = ([pair[i] for pair in values] for i in ((1, 0) if swap else (0, 1)))
        (comparison,) = compare([*group("a", a), *group("b", b)], "a", "b")[2]
        p = None if comparison.p is None else round(comparison.p, 9)
        effect = None if comparison.effect is None else round(comparison.effect, 9)
        conclusion = comparison.conclusion
        if swap:
            turned = {"A is better": "B is better", "B is better": "A is better"}
            conclusion = turned.get(conclusion, conclusion)  # type: ignore[assignment]
            effect = None if effect is None else 0.0 - effect
        return p, effect, conclusion, comparison.more_seeds

    expected = conclude(pairs)
    assert conclude([(a * 2.0**power_of_two, b * 2.0**power_of_two) for a, b in pairs]) == expected
    assert conclude([(a + shift, b + shift) for a, b in pairs]) == expected
    assert conclude(pairs, swap=True) == expected
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert conclude(shuffled) == expected


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ([*group("a", [1.0, 2.0]), *group("b", [1.0, 2.0], protocol="bbbb2222")], "ab", "fid aaaa1111.*fid bbbb2222"),
        ([*group("a", [1.0]), *group("b", [2.0])], "ab", "1 shared.*needs two"),
        ([row("a", 0), row("a", 1), row("b", 2), row("b", 3)], "ab", "none shared"),
        ([*group("swae", [1.0, 2.0]), *group("b", [2.0, 3.0])], ["swea", "b"], "did you mean 'swae'"),
        ([*group("a", [1.0, 2.0]), *group("b", [2.0, 3.0], dataset="celeba")], "ab", "two datasets"),
        (group("a", [1.0, 2.0]), "aa", "one group"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(rows: list[Row], names: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compare(rows, names[0], names[1])


def test_power_is_that_of_simulated_studies() -> None:
    x = np.random.default_rng(3).normal(0.9, 1.0, (20_000, 7))
    t = np.abs(x.mean(1)) / x.std(1, ddof=1) * math.sqrt(7)
    share = (t > scipy_stats.t.ppf(0.975, 6)).mean()
    assert power(0.9, 7) == pytest.approx(share, abs=0.015)
    assert power(0.0, 7) == pytest.approx(0.05)
    assert power(500.0, 3) == 1.0


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 50])
def test_detectable_and_needed_are_inverse(seeds: int) -> None:
    assert power(minimum_detectable_effect(seeds), seeds) == pytest.approx(0.8)
    assert seeds_needed(minimum_detectable_effect(seeds) * 1.0001) == seeds


def test_a_pilots_interval_holds_the_true_deviation() -> None:
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(600):
        x = rng.normal(size=4) * 5 + rng.normal(size=(3, 4))  # differences of two models: sd sqrt(2)
        deviation = pilot([dict(enumerate(map(float, model))) for model in x])
        assert deviation is not None
        held += deviation.low <= math.sqrt(2) <= deviation.high
    assert 0.92 <= held / 600 <= 0.975


def test_a_forecast_needs_two_models_with_two_seeds() -> None:
    rows = [*group("a", [1.0, 2.0, 4.0]), *group("b", [2.0, 2.5, 3.0])]
    (power_forecast,) = forecast(rows, "fid", [3, 5], 1.0)
    assert power_forecast.table[0].minimum_detectable_effect > power_forecast.table[1].minimum_detectable_effect
    assert power_forecast.needed is not None
    assert power_forecast.needed[0] is not None
    with pytest.raises(UsageError, match="two models"):
        forecast(rows[:3], "fid", [3])


def test_one_model_with_few_seeds_does_not_decide_for_the_others() -> None:
    rows = [*group("vae", [1.0, 2.0, 4.0, 3.0, 2.2]), *group("ae", [2.0, 2.5, 3.0, 1.0, 2.9])]
    (alone,), (beside,) = forecast(rows, "fid", [3]), forecast([*rows, *group("swae", [9.0])], "fid", [3])
    assert (beside.pilot, beside.left_out) == (alone.pilot, ("swae",))


def test_pairs_that_share_other_seeds_are_all_used() -> None:
    """No seed is in all three; a and b share two, and so do b and c."""
    models = [{0: 1.0, 1: 2.0}, {0: 2.0, 1: 2.5, 2: 3.5, 3: 1.0}, {2: 4.0, 3: 2.5}]
    study = pilot(models)
    assert study is not None
    assert (study.members, study.df, study.seeds) == ((0, 1, 2), 2, 4)
    pairs = [pilot(models[:2]), pilot(models[1:])]
    assert study.sd**2 == pytest.approx(np.mean([each.sd**2 for each in pairs if each]))


def test_a_pilot_without_a_spread_plans_nothing() -> None:
    with pytest.raises(UsageError, match="all differences between models are equal"):
        forecast([*group("a", [2.0] * 3), *group("b", [1.0] * 3)], "fid", [3])


def test_a_pilot_of_shares_counts_their_draws() -> None:
    rows = [*group("a", [0.025] * 3, n=40), *group("b", [0.0] * 3, n=40)]
    (power_forecast,) = forecast(rows, "fid", [5], 0.025)
    assert power_forecast.pilot.known == power_forecast.pilot.sd > 0.03
    assert power_forecast.pilot.high > power_forecast.pilot.sd
    assert power_forecast.table[0].power is not None
    assert power_forecast.table[0].power < 0.5


@given(
    st.lists(
        st.dictionaries(st.integers(0, 4), st.integers(-80, 80).map(lambda k: k / 8), min_size=1),
        min_size=2,
        max_size=4,
    ),
    st.integers(-50, 50),
    st.randoms(use_true_random=False),
)
def test_a_pilot_depends_on_differences_alone(models: list[dict[int, float]], shift: int, random: Random) -> None:
    study = pilot(models)
    shifted = pilot([{seed: value + shift * k for seed, value in model.items()} for k, model in enumerate(models)])
    shuffled = list(models)
    random.shuffle(shuffled)
    reordered = pilot([dict(random.sample(list(model.items()), len(model))) for model in shuffled])
    alone = pilot([*models, dict.fromkeys((0,), 5.0)])
    for variant in (shifted, reordered, alone):
        assert (study is None) == (variant is None)
        if study is not None and variant is not None:
            assert (study.df, study.seeds) == (variant.df, variant.seeds)
            assert study.sd == pytest.approx(variant.sd, abs=2e-4)


def test_the_commands_print_tables_and_json(genbench: Callable[..., Result]) -> None:
    study(genbench, "--seeds", "3")
    pixel = ("--metric", "reconstruction.pixel")
    text = genbench("compare", "swae", "vae")
    assert text.exit_code == 0, text.output
    assert "d_z" in text.output
    record = json.loads(genbench("compare", "swae", "vae", *pixel, "--format", "json").stdout)
    assert [entry["metric"] for entry in record["comparisons"]] == ["reconstruction.pixel"]
    text = genbench("power", "runs", *pixel, "--difference", "0.1")
    assert "95 % interval" in text.output
    assert json.loads(genbench("power", "runs", *pixel, "--format", "json").stdout)[0]["table"]
    assert "reconstruction.pixel" in genbench("power", "runs").output  # what ranks the report
    run = next(path.name for path in Path("runs").glob("dots-vae*"))
    assert genbench("compare", "swae", run).exit_code == 0
    assert "did you mean 'swae'" in genbench("compare", "swea", "vae").output


def test_examples_in_the_docstrings_hold() -> None:
    for module in (powers, comparing):
        assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0
