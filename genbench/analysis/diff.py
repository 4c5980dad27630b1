"""The fields in which two runs differ, and which of their metrics may be compared. No torch.

Numbers are compared where their protocols are equal, and only there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

import msgspec

from genbench.storage.run_dir import RunRecord

FieldGroup = Literal["run", "tuning", "protocol", "provenance"]
"""The record of a field: the run's configuration, the search that chose its options, the protocol of a metric, or the
run's provenance."""

SECTIONS: tuple[Literal["run", "tuning", "provenance"], ...] = ("run", "tuning", "provenance")

ABSENT: Final = "-"
"""Shown for a field that a record does not have."""

COMPARABLE = "comparable"
OTHER_PROTOCOL = "protocols differ: not comparable"
OTHER_IMAGES = "images differ: not comparable"

MEANINGS: tuple[tuple[str, str], ...] = (
    ("provenance.content", OTHER_IMAGES),
    ("run.dataset.*", "the dataset; comparable where its content is the same"),
    ("run.*.fingerprint", "another source code"),
    ("run.seed", "the training seed: replicates, paired by seed with other models' runs"),
    ("run.images", "another training budget"),
    ("run.batch", "another training budget"),
    ("run.results", "other files"),
    ("provenance.results*", "other files"),
    ("run.role", "another role; a trial has no test value"),
    ("tuning.options.*", "a chosen option"),
    ("tuning.*", "tuned otherwise: a difference may be owed to that alone"),
    ("run.*", "the configuration that is compared"),
    ("provenance.command", "no effect by itself"),
    ("provenance.started", "no effect by itself"),
    ("provenance.defaults*", "no effect by itself"),
    ("provenance.*", "another environment: rounding differs, and seconds are not comparable"),
)
"""The meaning of a difference; the first pattern that fits the field holds."""


@dataclass(frozen=True)
class FieldDifference:
    """A field by its dotted path, and its value in each run as JSON text (`ABSENT` where there is none)."""

    group: FieldGroup
    field: str
    a: str
    b: str
    meaning: str


@dataclass(frozen=True)
class MetricComparison:
    """One metric of one or both runs: the hashes of its protocols, and whether the numbers may be compared."""

    metric: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    conclusion: str


@dataclass(frozen=True)
class RunDiff:
    """Two runs by name and state, the fields that differ, and their metrics."""

    a: str
    b: str
    state_a: str
    state_b: str
    fields: tuple[FieldDifference, ...]
    metrics: tuple[MetricComparison, ...]
    changed: tuple[str, ...] = ()
    """The metrics whose numbers under one protocol differ."""

    @property
    def conclusion(self) -> str:
        """The comparison in one sentence."""
        if not self.metrics:
            return "nothing to compare: no metric was measured"
        comparable = [metric.metric for metric in self.metrics if metric.conclusion == COMPARABLE]
        if not comparable:
            return f"not comparable: {'; '.join(sorted({metric.conclusion for metric in self.metrics}))}"
        if len(comparable) == len(self.metrics):
            if not self.fields and self.changed:
                return f"the same run with different numbers: {', '.join(self.changed)}"
            return "comparable in every metric" if self.fields else "no difference"
        return f"comparable in {', '.join(comparable)}; not in the other metrics"


def diff_runs(a: RunRecord, b: RunRecord) -> RunDiff:
    """Compare two runs field by field."""
    first, second = (
        {
            "run": record.run.record(),
            "tuning": {} if record.tuned is None else msgspec.to_builtins(record.tuned),
            "provenance": record.provenance,
        }
        for record in (a, b)
    )
    numbers_a, numbers_b = _numbers(a), _numbers(b)
    fields = [
        _difference(section, f"{section}.{field}", x, y)
        for section in SECTIONS
        for field, x, y in differing(first[section], second[section])
    ]
    trials = [f"{name} is a trial of a search" for name, r in (("A", a), ("B", b)) if r.run.role == "trial"]
    same_images = a.provenance.get("content") == b.provenance.get("content")
    metrics = []
    for metric in sorted(numbers_a.keys() | numbers_b.keys()):
        protocols_a, protocols_b = numbers_a.get(metric, {}), numbers_b.get(metric, {})
        shared = protocols_a.keys() & protocols_b.keys()
        if not protocols_a or not protocols_b:
            conclusion = next(iter(trials), f"only in {'A' if protocols_a else 'B'}")
        elif not shared:
            conclusion = OTHER_PROTOCOL
            fields += _protocol_fields(metric, protocols_a, protocols_b)
        else:
            conclusion = COMPARABLE if same_images else OTHER_IMAGES
        metrics.append(MetricComparison(metric, tuple(protocols_a), tuple(protocols_b), conclusion))
    order: Mapping[FieldGroup, int] = {"run": 0, "tuning": 1, "protocol": 2, "provenance": 3}
    fields.sort(key=lambda difference: order[difference.group])
    values_a, values_b = _values(a), _values(b)
    changed = {key[0] for key in values_a.keys() & values_b.keys() if values_a[key] != values_b[key]}
    return RunDiff(a.name, b.name, a.state, b.state, tuple(fields), tuple(metrics), tuple(sorted(changed)))


def _numbers(record: RunRecord) -> dict[str, dict[str, Mapping[str, Any]]]:
    """For each metric the fields of its protocols, the unit among them, by the protocol's hash."""
    protocols: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in record.measurements.values():
        for number in entry.numbers:
            name = f"{entry.metric}.{number.component}".rstrip(".")
            protocols.setdefault(name, {})[number.protocol] = {**number.how, "unit": number.unit}
    return protocols


def _values(record: RunRecord) -> dict[tuple[str, str], float]:
    """Each number by its metric and its protocol's hash."""
    return {
        (f"{entry.metric}.{number.component}".rstrip("."), number.protocol): number.value
        for entry in record.measurements.values()
        for number in entry.numbers
    }


def _protocol_fields(
    metric: str, a: Mapping[str, Mapping[str, Any]], b: Mapping[str, Mapping[str, Any]]
) -> Iterator[FieldDifference]:
    """The fields of the two nearest protocols of a metric; the hash where no field differs."""
    pairs = [(key_a, key_b, list(differing(a[key_a], b[key_b]))) for key_a in a for key_b in b]
    key_a, key_b, fields = min(pairs, key=lambda pair: (len(pair[2]), pair[:2]))
    for field, x, y in fields or [("hash", key_a, key_b)]:
        yield FieldDifference("protocol", f"{metric}: {field}", _text(x), _text(y), OTHER_PROTOCOL)


def _difference(group: FieldGroup, field: str, a: Any, b: Any) -> FieldDifference:
    meaning = next(text for pattern, text in MEANINGS if fnmatchcase(field, pattern))
    return FieldDifference(group, field, _text(a), _text(b), meaning)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Each field in which two nested records differ, by its dotted path, with both values.

    >>> list(differing({"x": {"y": 1, "z": 2}}, {"x": {"y": 1}}))
    [('x.z', 2, '-')]
    """
    leaves_a, leaves_b = dict(_leaves(a)), dict(_leaves(b))
    for field in dict.fromkeys((*leaves_a, *leaves_b)):
        x, y = leaves_a.get(field, ABSENT), leaves_b.get(field, ABSENT)
        if json.dumps(x, sort_keys=True) != json.dumps(y, sort_keys=True):
            yield field, x, y


def _leaves(record: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a nested record by dotted path."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
