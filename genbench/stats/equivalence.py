"""Equivalence of our number and a published one within a margin, by two one-sided t-tests. Pure; no torch.

A published number is taken as it is printed, without an error: the spread over its authors' seeds is unknown where they
ran one. The margin, which the recipe states, allows for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from genbench.stats.intervals import Estimate, estimate, known_errors, upper_p

if TYPE_CHECKING:
    from genbench.api import Finding

ALPHA = 0.05
"""Level of each one-sided test, and so of "equivalent" as a whole (Schuirmann 1987, doi:10.1007/BF01068419)."""

Conclusion = Literal["equivalent", "different", "inconclusive", "other protocol", "other training"]


@dataclass(frozen=True)
class EquivalenceResult:
    """The comparison of our number with the published one.

    `p` is the p-value of the conclusion: the larger of the two one-sided tests'. `fields` are the differences of the
    protocols, each as "layer: published 2048, ours 768"; `training` are the user's changes to the training.
    """

    conclusion: Conclusion
    estimate: Estimate
    difference: float
    p: float | None = None
    fields: tuple[str, ...] = ()
    training: tuple[str, ...] = ()


def assess_equivalence(
    values: Sequence[float],
    published: float,
    margin: float,
    fields: Sequence[str] = (),
    training: Sequence[str] = (),
    n: int | None = None,
    unit: str = "",
) -> EquivalenceResult:
    """Compare `values` over seeds, at least one, against a published number; `margin` is above 0.

    `n` is the count of images behind a value, `unit` its unit: they give the error of shares (`known_errors`).

    "equivalent" rejects both "mean <= published - margin" and "mean >= published + margin", each at 5 %; "different"
    rejects at 5 % that the mean is within the margin, on the side where it is seen; else "inconclusive", as one seed
    always is, and as values that are all equal are unless they are shares. The three exclude each other. Where the
    protocols or the trainings differ, nothing is tested.

    >>> assess_equivalence([10.0, 10.1, 9.9], 10.0, 1.0).conclusion, assess_equivalence([10.0], 10.0, 1.0).conclusion
    ('equivalent', 'inconclusive')
    """
    errors = known_errors(values, n, unit)
    ours = estimate(values, errors=errors)
    difference = ours.mean - published
    if fields or training:
        conclusion: Conclusion = "other protocol" if fields else "other training"
        return EquivalenceResult(conclusion, ours, difference, fields=tuple(fields), training=tuple(training))
    if ours.half_width is None:
        return EquivalenceResult("inconclusive", ours, difference)

    def p_value(sign: float, bound: float) -> float:
        """The p-value of "sign * mean is at most sign * bound"."""
        p = upper_p([sign * (value - bound) for value in values], errors, max(map(abs, values)))
        return 1.0 if p is None else p

    inside = max(p_value(1.0, published - margin), p_value(-1.0, published + margin))
    beyond = p_value(1.0, published + margin) if difference > 0 else p_value(-1.0, published - margin)
    if inside <= ALPHA:
        return EquivalenceResult("equivalent", ours, difference, inside)
    return EquivalenceResult("different" if beyond <= ALPHA else "inconclusive", ours, difference, min(inside, beyond))


def estimate_findings(findings: Sequence[Finding]) -> dict[tuple[str, str], Estimate]:
    """The mean and interval over seeds of each case and metric; shares are recognized by all values of their metric."""
    values: dict[tuple[str, str], list[Finding]] = {}
    columns: dict[tuple[str, str, int], list[float]] = {}
    for finding in findings:
        values.setdefault((finding.case, finding.metric), []).append(finding)
        columns.setdefault((finding.metric, finding.unit, finding.n), []).append(finding.value)
    estimates = {}
    for key, repeats in values.items():
        numbers, first = [finding.value for finding in repeats], repeats[0]
        alike = all((finding.unit, finding.n) == (first.unit, first.n) for finding in repeats)
        column = columns[first.metric, first.unit, first.n]
        errors = known_errors(numbers, first.n, first.unit, column) if alike else []
        estimates[key] = estimate(numbers, errors=errors)
    return estimates


def differing(published: Mapping[str, str], ours: Mapping[str, object], tolerated: Sequence[str] = ()) -> list[str]:
    """The fields that a published protocol states and ours does not share, those tolerated left out."""
    return [
        f"{name}: published {stated}, ours {ours.get(name, 'not stated') or 'none'}"
        for name, stated in published.items()
        if name not in tolerated and str(ours.get(name, "")) != stated
    ]
