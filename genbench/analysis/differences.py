"""In which fields two runs' records differ, whatever fields they hold, and what each difference means. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

import msgspec

from genbench.analysis.consequences import ORDER, Circumstances, Consequence, circumstances, judge
from genbench.storage.run_dir import RunRecord


class Absent(Enum):
    """The value of a field that a record does not have; null is a value."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT

SECTIONS = ("state", "run", "provenance", "training")
"""Where a field stands: how far the training is, the parts of run.json, training.json."""


@dataclass(frozen=True)
class Side:
    """One of the two runs: what its folder says."""

    name: str
    path: Path
    state: str
    record: Mapping[str, Any]
    training: Mapping[str, Any]
    measurements: Mapping[str, Any]
    failure: str = ""

    @property
    def command(self) -> str:
        """The command that made the run, "" where it is unknown."""
        return str(self.record["provenance"].get("command", ""))


@dataclass(frozen=True)
class Difference:
    """A field by its path in the record, its value in each run (`ABSENT` where it has none), what that means, why."""

    field: str
    a: Any
    b: Any
    consequence: Consequence
    reason: str


def side(record: RunRecord) -> Side:
    """What a run's folder says."""
    training = {} if record.training is None else msgspec.to_builtins(record.training)
    facts = {"run": record.run.record(), "provenance": record.provenance}
    measurements = msgspec.to_builtins(record.measurements)
    return Side(record.name, record.path, record.state, facts, training, measurements, record.failure)


def differences(a: Side, b: Side) -> tuple[Difference, ...]:
    """Every field of run, provenance and training that differs; the gravest first."""
    given = circumstances(a.record, b.record)
    sections = {name: (a.record[name], b.record[name]) for name in ("run", "provenance")}
    if a.training and b.training:  # where one is not trained, `state` says it
        sections["training"] = (_costs(a.training), _costs(b.training))
    found = [_judged("state", a.state, b.state, given)] if a.state != b.state else []
    for name, (one, other) in sections.items():
        found += [_judged(f"{name}.{field}", x, y, given) for field, x, y in differing(one, other)]
    return tuple(sorted(found, key=_place))


def _judged(field: str, a: Any, b: Any, given: Circumstances) -> Difference:
    return Difference(field, a, b, *judge(field, given))


def _costs(training: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in training.items() if name != "schema"}


def _place(difference: Difference) -> tuple[int, int, bool, str]:
    section, name = difference.field.split(".")[0], difference.field.endswith(".name")
    return ORDER.index(difference.consequence), SECTIONS.index(section), not name, difference.field


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Each field in which two records differ, by its dotted path, with both values.

    >>> list(differing({"x": {"y": 1, "z": 2}}, {"x": {"y": 1}}))
    [('x.z', 2, <Absent.ABSENT: 'absent'>)]
    """
    ours, theirs = leaves(a), leaves(b)
    for field in dict.fromkeys((*ours, *theirs)):
        one, other = ours.get(field, ABSENT), theirs.get(field, ABSENT)
        told_by_members = {} in (one, other) and any(name.startswith(f"{field}.") for name in (*ours, *theirs))
        if not told_by_members and not same(one, other):
            yield field, one, other


def leaves(record: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a nested record by dotted path; an empty object is a value."""
    found: dict[str, Any] = {}
    ahead: list[tuple[str, Any]] = [("", record)]
    while ahead:
        path, value = ahead.pop()
        if isinstance(value, Mapping) and (value or not path):
            ahead += [(f"{path}.{name}" if path else str(name), value[name]) for name in reversed(list(value))]
        else:
            found[path] = value
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal: 1 is 1.0, but true is not 1; NaN is NaN."""
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b)]
    if all(numbers) and a == b:
        return True
    if ABSENT in (a, b):
        return a is b
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
