"""Metric by metric, whether two runs' numbers may be compared: by their protocols, field by field. No torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from genbench.analysis.consequences import protocol_reason
from genbench.analysis.differences import Difference, Side, differing

Status = Literal["same", "other", "only", "failed", "inapplicable"]
Where = Literal["", "a", "b", "both"]

ANOTHER_SOURCE = "measured by another source of the metric"


@dataclass(frozen=True)
class Finding:
    """What holds for some parts of a metric.

    `status` is "same" (one protocol), "other" (`fields` differ in the protocol), "only" (measured in the run `where`
    alone), "failed" or "inapplicable" (in the run `where`; `note` says why). `a` and `b` are the protocols' hashes, ""
    where there is no number. `mend` is the command that would measure what is missing.
    """

    metric: str
    parts: tuple[str, ...]
    status: Status
    where: Where = ""
    a: str = ""
    b: str = ""
    fields: tuple[Difference, ...] = ()
    note: str = ""
    mend: str = ""


@dataclass(frozen=True)
class Number:
    """How one number was measured: the protocol's hash and fields (the unit among them), the metric's options."""

    protocol: str
    how: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Images that went in: the larger count gives the better number."""
        counts = (self.how.get(name) for name in ("references", "generated"))
        return sum(count for count in counts if isinstance(count, int))


@dataclass(frozen=True)
class Trouble:
    """Why a metric has no number in a run."""

    status: Literal["failed", "inapplicable"]
    cause: str


def findings(a: Side, b: Side) -> tuple[Finding, ...]:
    """What holds for each metric that was tried in either run, by the metric's name."""
    metrics = sorted({entry["metric"] for side in (a, b) for entry in side.measurements.values()})
    return tuple(finding for metric in metrics for finding in _of_metric(metric, a, b))


def _of_metric(metric: str, a: Side, b: Side) -> list[Finding]:
    ours, theirs = _numbers(a, metric), _numbers(b, metric)
    note = ANOTHER_SOURCE if _another_source(metric, a, b) else ""
    troubles: dict[Where, Trouble | None] = {"a": _trouble(a, metric), "b": _trouble(b, metric)}
    found: list[Finding] = []
    for part in sorted({*ours, *theirs}):
        for one, other in _matched(ours.get(part, []), theirs.get(part, [])):
            if one and other:
                found.append(_compared(metric, part, one, other, a, b, note))
            elif present := one or other:
                lacking: Where = "b" if one else "a"
                command = _measure(b if one else a, a if one else b, metric, present.options)
                found.append(_missing(metric, part, lacking, present, troubles[lacking], command))
    told = {finding.where for finding in found if finding.status in ("failed", "inapplicable")}
    rest = {where: trouble for where, trouble in troubles.items() if trouble and where not in told}
    return [*_joined(found), *_alone(metric, rest)]


def _compared(metric: str, part: str, one: Number, other: Number, a: Side, b: Side, note: str) -> Finding:
    """Two numbers of one protocol, or of the nearest ones that there are."""
    fields = tuple(
        Difference(field, x, y, "incomparable", protocol_reason(field)) for field, x, y in differing(one.how, other.how)
    )
    if not fields and one.protocol == other.protocol:
        return Finding(metric, (part,), "same", "", one.protocol, other.protocol, note=note)
    mend = ""
    if list(differing(one.options, other.options)):  # the larger count is kept, the other run measured like it
        keep = max((one, other), key=lambda number: (number.size, number.protocol))
        mend = _measure(b, a, metric, keep.options) if keep is one else _measure(a, b, metric, keep.options)
    note = note if fields else "no field differs but the hash: written by another version, or edited"
    return Finding(metric, (part,), "other", "", one.protocol, other.protocol, fields, note, mend)


def _missing(metric: str, part: str, lacking: Where, present: Number, trouble: Trouble | None, command: str) -> Finding:
    """A number that one run lacks."""
    a, b = ("", present.protocol) if lacking == "a" else (present.protocol, "")
    if trouble:
        mend = command if trouble.status == "failed" else ""
        return Finding(metric, (part,), trouble.status, lacking, a, b, note=trouble.cause, mend=mend)
    where: Where = "b" if lacking == "a" else "a"
    return Finding(metric, (part,), "only", where, a, b, mend=command)


def _alone(metric: str, troubles: Mapping[Where, Trouble]) -> list[Finding]:
    """Troubles that stand in the way of no number of the other run; of both runs in one where they are alike."""
    if len(troubles) == 2 and len(set(troubles.values())) == 1:
        trouble = next(iter(troubles.values()))
        return [Finding(metric, (), trouble.status, "both", note=trouble.cause)]
    return [Finding(metric, (), trouble.status, where, note=trouble.cause) for where, trouble in troubles.items()]


def _joined(found: Sequence[Finding]) -> list[Finding]:
    """Parts of which the same holds in one finding."""
    parts: dict[str, list[Finding]] = {}
    for finding in found:
        key = repr((finding.status, finding.where, finding.a, finding.b, finding.fields, finding.note, finding.mend))
        parts.setdefault(key, []).append(finding)
    return [replace(alike[0], parts=tuple(part for it in alike for part in it.parts)) for alike in parts.values()]


# ---------------------------------------------------------------- numbers


def _entries(side: Side, metric: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [(key, entry) for key, entry in side.measurements.items() if entry["metric"] == metric]


def _numbers(side: Side, metric: str) -> dict[str, list[Number]]:
    """A metric's numbers by part, one for each protocol."""
    found: dict[str, dict[str, Number]] = {}
    for _, entry in _entries(side, metric):
        for number in entry["numbers"]:
            how = {**number["how"], "unit": number["unit"]}
            key = json.dumps([number["protocol"], how], sort_keys=True)
            found.setdefault(number["component"], {}).setdefault(key, Number(number["protocol"], how, entry["options"]))
    return {part: [numbers[key] for key in sorted(numbers)] for part, numbers in found.items()}


def _matched(ours: Sequence[Number], theirs: Sequence[Number]) -> Iterator[tuple[Number | None, Number | None]]:
    """Numbers of one protocol together, then those that the fewest fields tell apart; the rest alone."""

    def apart(pair: tuple[Number, Number]) -> tuple[int, bool, list[str]]:
        fields = len(list(differing(pair[0].how, pair[1].how)))
        return fields, pair[0].protocol != pair[1].protocol, sorted(number.protocol for number in pair)

    left, right = list(ours), list(theirs)
    for one, other in sorted(((x, y) for x in ours for y in theirs), key=apart):
        if one in left and other in right:
            left.remove(one)
            right.remove(other)
            yield one, other
    yield from ((number, None) for number in left)
    yield from ((None, number) for number in right)


def _trouble(side: Side, metric: str) -> Trouble | None:
    """Why a metric gave no numbers under some options in a run; a failure before what does not apply."""
    entries = [entry for _, entry in _entries(side, metric)]
    if errors := [entry["error"] for entry in entries if entry["error"]]:
        return Trouble("failed", errors[0])
    reasons = [entry["inapplicable"] or "it gave no numbers" for entry in entries if not entry["numbers"]]
    return Trouble("inapplicable", reasons[0]) if reasons else None


def _another_source(metric: str, a: Side, b: Side) -> bool:
    """Whether the runs were measured by the same options and yet another choice: its source is the rest of a choice."""
    ours, theirs = (
        {json.dumps(entry["options"], sort_keys=True): key for key, entry in _entries(side, metric)} for side in (a, b)
    )
    return any(key != theirs.get(options, key) for options, key in ours.items())


# ---------------------------------------------------------------- the command that mends


def _measure(lacking: Side, other: Side, metric: str, options: Mapping[str, Any]) -> str:
    """The command that measures a run by a metric and its options."""
    words = ["genbench", "measure", str(lacking.path), "--metrics", metric]
    for name, value in options.items():
        words += ["--set", f"{metric}.{name.replace('_', '-')}={_typed(value)}"]
    return shlex.join([*words, *_carried(lacking.command, other.command)])


def _typed(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _carried(*commands: str) -> list[str]:
    """Plug-in files and the data's folder, as the commands that made the runs named them."""
    plugins: dict[str, None] = {}
    roots: dict[str, None] = {}
    for command in commands:
        try:
            words = [piece for word in shlex.split(command) for piece in _pieces(word)]
        except ValueError:  # edited by hand: what cannot be read is not carried
            continue
        for flag, value in pairwise(words):
            if flag in ("--plugin", "--data-root"):
                (plugins if flag == "--plugin" else roots)[value] = None
    return [
        *(word for file in plugins for word in ("--plugin", file)),
        *(["--data-root", next(iter(roots))] if roots else []),
    ]


def _pieces(word: str) -> list[str]:
    """`--plugin=FILE` as the two words that it stands for."""
    return word.split("=", 1) if word.startswith(("--plugin=", "--data-root=")) else [word]
