"""Which groups can be the best: tests over seeds and, of models that were tuned alike, over their searches. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from genbench.stats import budget_curves
from genbench.stats.comparison import BestSetResult, set_of_best
from genbench.stats.intervals import Errors, Estimate, paired_difference

Mark = Literal["", "best", "undecided"]
"""A cell's mark: in the set of bests; no test with any other group although other groups could be tested."""


@dataclass(frozen=True)
class GroupSearch:
    """The search behind a tuned group, as comparisons of models need it.

    `way` is what groups that were tuned alike share, `trials` are the validation values of the trials that were drawn
    at random, NaN where one failed. `problem` is why the trials say nothing of a column, "" where they do.
    """

    key: str
    way: tuple[object, ...]
    trials: tuple[float, ...] = ()
    protocol: str = ""
    problem: str = ""


@dataclass(frozen=True)
class ModelTests:
    """The test of each group for being a best, as a model where groups were tuned alike.

    `rivals` are those that may be evidence against a group. `unproven` are groups whose searches say nothing, and why.
    """

    results: Mapping[str, BestSetResult]
    rivals: Mapping[str, Container[str]]
    unproven: Mapping[str, str] = field(default_factory=dict)


def model_tests(
    by_seed: Mapping[str, Mapping[int, float]],
    searches: Mapping[str, GroupSearch],
    *,
    lower: bool,
    errors: Mapping[str, Errors] | None = None,
) -> ModelTests:
    """The tests of `best_tests`, with the searches of groups that were tuned alike as a second condition.

    Fresh seeds compare chosen options, which differ between equal models too, by the luck of their searches. So of two
    groups that were tuned alike one is worse only where fresh seeds and the expected best values of the two searches,
    at the largest number of trials that is compared (`genbench.stats.budget_curves`), both say so; its p-value is the
    larger of the two. All pairs count in the correction of either test. Other groups are compared by seeds alone.

    Args:
        by_seed: The values of each group by training seed.
        searches: The searches of those that were tuned.
        lower: Whether lower values are better.
        errors: Known errors of the values, as of `best_tests`.
    """
    options = best_tests(by_seed, lower=lower, errors=errors)
    ways = Counter(searches[name].way for name in by_seed if name in searches)
    tuned = {name: searches[name] for name in by_seed if name in searches and ways[searches[name].way] > 1}
    unproven = {name: search.problem for name, search in tuned.items() if search.problem}
    rivals: dict[str, set[str]] = {}
    p_values: dict[str, float] = {}
    for name in by_seed:
        way = searches[name].way if name in tuned else None
        rivals[name] = {rival for rival in by_seed if way is None or rival not in tuned or tuned[rival].way != way}
        if options[name].status != "worse" or way is None:
            continue
        for rival, _ in better_rivals(
            name, by_seed, errors or {}, lower=lower
        ):  # the strongest evidence by seeds first
            if rival not in rivals[name] and (p := p_of_trials(name, rival, tuned, lower=lower)) is not None:
                rivals[name].add(rival)
                p_values[name] = p
                break
    results = best_tests(by_seed, lower=lower, errors=errors, rivals=rivals) if tuned else options
    for name, p in p_values.items():
        results[name] = replace(results[name], p=max(p, results[name].p or 0.0))
    return ModelTests(results, rivals, unproven)


def p_of_trials(name: str, rival: str, tuned: Mapping[str, GroupSearch], *, lower: bool) -> float | None:
    """The p-value of a rival's being ahead of a group by their searches' trials; None where they do not say so.

    `tuned` are the searches of all groups that are compared: the correction is for all pairs that were tuned alike.
    """
    behind, ahead = tuned[name], tuned[rival]
    if behind.problem or ahead.problem or behind.key == ahead.key or behind.protocol != ahead.protocol:
        return None
    comparable = [s for s in tuned.values() if (s.way, s.protocol, s.problem) == (behind.way, behind.protocol, "")]
    (pair,) = budget_curves.compare_budgets(
        {search.key: search.trials for search in comparable},
        higher_is_better=not lower,
        pairs={(behind.key, ahead.key), (ahead.key, behind.key)},
    )
    leads = {1: pair.first, -1: pair.second, 0: ""}[pair.ahead[-1]] == ahead.key
    return pair.p_values[-1] if leads else None


def better_rivals(
    name: str, models: Mapping[str, Mapping[int, float]], known: Mapping[str, Errors], *, lower: bool
) -> list[tuple[str, Estimate]]:
    """The better models, the strongest evidence (by the difference in half-widths) first, and the differences."""
    sign = 1.0 if lower else -1.0
    differences = {
        rival: difference
        for rival, values in models.items()
        if rival != name
        and (difference := paired_difference(models[name], values, errors=(known.get(name, {}), known.get(rival, {}))))
    }
    tested = {
        rival: abs(d.mean) / d.half_width for rival, d in differences.items() if sign * d.mean > 0 and d.half_width
    }
    return [(rival, differences[rival]) for rival in sorted(tested, key=lambda rival: -tested[rival])]


def column_marks(
    by_seed: Mapping[str, Mapping[int, float]], *, lower: bool, errors: Mapping[str, Errors] | None = None
) -> dict[str, Mark]:
    """The marks of groups by their values over seeds and known errors: the set of bests; none without any test."""
    if len(by_seed) < 2:
        return {}
    return marks_of(best_tests(by_seed, lower=lower, errors=errors))


def best_tests(
    by_seed: Mapping[str, Mapping[int, float]],
    *,
    lower: bool,
    errors: Mapping[str, Errors] | None = None,
    rivals: Mapping[str, Container[str]] | None = None,
) -> dict[str, BestSetResult]:
    """The test of each group for being a best; errors that are not known for every group are not used.

    `rivals` are for each group those that may be evidence against it: all where None.
    """
    known = [errors.get(name, {}) for name in by_seed] if errors and all(errors.get(name) for name in by_seed) else []
    places = None
    if rivals is not None:
        places = [{j for j, rival in enumerate(by_seed) if rival in rivals[name]} for name in by_seed]
    results = set_of_best(list(by_seed.values()), lower=lower, errors=known, rivals=places)
    return dict(zip(by_seed, results, strict=True))


def marks_of(tests: Mapping[str, BestSetResult]) -> dict[str, Mark]:
    """The mark of each group; none where no group could be tested."""
    if all(test.status == "undecided" for test in tests.values()):
        return {}
    marks: dict[str, Mark] = {"best": "best", "worse": "", "undecided": "undecided"}
    return {name: marks[test.status] for name, test in tests.items()}


def best_mean(by_seed: Mapping[str, Mapping[int, float]], *, lower: bool) -> str:
    """The group of the best mean."""
    means = {name: fmean(values.values()) for name, values in by_seed.items()}
    return (min if lower else max)(means, key=lambda name: means[name])
