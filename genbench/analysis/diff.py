"""Whether two runs may be compared, and why not: the verdict over their differences. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from genbench.analysis.consequences import KINDS
from genbench.analysis.differences import ABSENT, Difference, Side, differences, side
from genbench.analysis.findings import Finding, findings
from genbench.storage.run_dir import RunRecord

Word = Literal[
    "same run",
    "no difference",
    "comparable",
    "comparable with care",
    "comparable in part",
    "incomparable",
    "nothing to compare",
]
NAMED = 4
"""Fields named in a verdict; the table has them all."""


@dataclass(frozen=True)
class Verdict:
    """Whether two runs may be compared: in a word and in sentences.

    `comparable` and `incomparable` are metrics that both were measured by (a part after a dot where parts differ in
    this), `care` the fields that ask for it, `compared` what one would compare, "seed" among it where the training seed
    alone tells the runs apart.
    """

    word: Word
    sentences: tuple[str, ...]
    comparable: tuple[str, ...]
    incomparable: tuple[str, ...]
    care: tuple[str, ...]
    compared: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """Two runs, in which fields they differ, what holds for each metric, and the verdict."""

    a: Side
    b: Side
    verdict: Verdict
    differences: tuple[Difference, ...]
    findings: tuple[Finding, ...]


def explain(one: RunRecord, other: RunRecord) -> Explanation:
    """What tells two runs apart; `StoreError` where a record is damaged."""
    a, b = side(one), side(other)
    told, found = differences(a, b), findings(a, b)
    if any(difference.consequence == "incomparable" for difference in told):  # other images, or no training
        found = tuple(replace(finding, mend="") for finding in found)  # none mends that
    same_run = one.path.resolve() == other.path.resolve()
    return Explanation(a, b, _verdict(told, found, same_run=same_run), told, found)


# ---------------------------------------------------------------- the verdict


def _verdict(told: Sequence[Difference], found: Sequence[Finding], *, same_run: bool) -> Verdict:
    good, bad = _metrics(found)
    blocking = [difference for difference in told if difference.consequence == "incomparable"]
    if blocking:
        good, bad = (), tuple(sorted((*good, *bad)))
    care = [difference.field for difference in told if difference.consequence == "with care"]
    care += dict.fromkeys(
        f"the source of {finding.metric}" for finding in found if finding.status == "same" and finding.note
    )
    compared = _compared(told)
    if same_run:
        word, sentence = _SAME_RUN
    elif not told and not care and all(finding.status == "same" or finding.where == "both" for finding in found):
        word, sentence = _NO_DIFFERENCE
    elif blocking:
        fields = _listed(difference.field for difference in blocking)
        word, sentence = "incomparable", f"incomparable, because {fields} differ: {blocking[0].reason}"
    else:
        word, sentence = _by_metrics(good, bad, found, care)
    more = [] if blocking else _on_what_is_compared(compared)
    return Verdict(word, (sentence, *more), good, bad, tuple(care), compared)


_SAME_RUN: tuple[Word, str] = ("same run", "A and B are the same run: there is nothing to compare")
_NO_DIFFERENCE: tuple[Word, str] = ("no difference", "the runs do not differ")
_REPLICATES = (
    "of what is compared only the training seed differs: replicates, to be paired over seeds with other models' runs"
)


def _by_metrics(
    good: Sequence[str], bad: Sequence[str], found: Sequence[Finding], care: Sequence[str]
) -> tuple[Word, str]:
    """The verdict where only protocols can stand in the way."""
    if not good and not bad:
        return "nothing to compare", "nothing to compare yet: no metric was measured in both runs"
    why = [f"{name} ({_listed(_fields_of(name, found))})" for name in bad]
    if not good:
        return "incomparable", f"incomparable, because each metric was measured in two ways: {_joined(why)}"
    carefully = f" with care, because {_listed(care)} differ{'s' * (len(care) == 1)}" if care else ""
    if bad:
        return "comparable in part", f"comparable in {_joined(good)}{carefully}; not in {_joined(why)}"
    return ("comparable with care" if care else "comparable"), f"comparable in {_joined(good)}{carefully}"


def _metrics(found: Sequence[Finding]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The metrics that both were measured by, in one way and not so; by parts where a metric has some of each."""
    good = {(finding.metric, part) for finding in found if finding.status == "same" for part in finding.parts}
    bad = {(finding.metric, part) for finding in found if finding.status == "other" for part in finding.parts} - good
    mixed = {metric for metric, _ in good} & {metric for metric, _ in bad}

    def names(pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
        return tuple(sorted({full_name(metric, part) if metric in mixed else metric for metric, part in pairs}))

    return names(good), names(bad)


def _fields_of(name: str, found: Sequence[Finding]) -> list[str]:
    """Fields in which the protocols of a metric, or of one part of it, differ."""
    own = [
        finding
        for finding in found
        if finding.status == "other"
        and (finding.metric == name or name in [full_name(finding.metric, part) for part in finding.parts])
    ]
    return list(dict.fromkeys(field.field for finding in own for field in finding.fields)) or ["hash"]


def _compared(told: Sequence[Difference]) -> tuple[str, ...]:
    """What one would compare: a kind whose name differs, options of one that is the same, the dimension, the seed."""
    fields = [difference.field for difference in told if difference.consequence in ("what is compared", "replicate")]
    renamed = {kind for kind in KINDS if f"run.{kind}.name" in fields}
    found: dict[str, None] = {}
    for field in fields:
        kind = field.split(".")[1]
        own = "model" if kind == "role" else kind if kind in renamed else field.removeprefix("run.")
        found[own.replace(".options.", ".")] = None
    return tuple(sorted(found))


def _on_what_is_compared(compared: Sequence[str]) -> list[str]:
    if not compared:
        return []
    if compared == ("seed",):
        return [_REPLICATES]
    if len(compared) == 1:
        return [f"what is compared: {compared[0]}"]
    return [f"they differ in {_joined(compared)}: a difference of numbers cannot be attributed to one of these"]


# ---------------------------------------------------------------- words and data


def full_name(metric: str, part: str) -> str:
    """A metric's name with its part, as tables have it."""
    return f"{metric}.{part}" if part else metric


def _joined(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _listed(fields: Iterable[str]) -> str:
    names = list(fields)
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED + 1 else []
    return _joined([*names[:NAMED], *more] if more else names)


def as_plain(explanation: Explanation) -> dict[str, Any]:
    """The explanation as JSON data; a value that a run's record does not have is left out, null is a value."""
    plain = {
        "a": _side(explanation.a),
        "b": _side(explanation.b),
        "verdict": asdict(explanation.verdict),
        "differences": [_difference(difference) for difference in explanation.differences],
        "metrics": [
            vars(finding) | {"fields": [_difference(field) for field in finding.fields]}
            for finding in explanation.findings
        ],
    }
    return dict(json.loads(json.dumps(plain), parse_constant=str))  # a NaN in a damaged record is no JSON


def _side(side: Side) -> dict[str, str]:
    return {"name": side.name, "path": str(side.path), "state": side.state, "failure": side.failure}


def _difference(difference: Difference) -> dict[str, Any]:
    return {name: value for name, value in vars(difference).items() if value is not ABSENT}
