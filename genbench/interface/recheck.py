"""Runs of bundles measured anew from their weights, which shows numbers that do not belong to them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from genbench.analysis.table import SPEED
from genbench.api import DataConfig
from genbench.errors import DataError, GenbenchError, StoreError, one_line
from genbench.execution.runner import never
from genbench.experiment.run import SAMPLED
from genbench.interface.config import settings_of
from genbench.interface.session import evaluable, open_evaluations
from genbench.interface.study import work
from genbench.registry.loader import Registry
from genbench.reporting.site.submissions import Submission
from genbench.storage.run_dir import METRICS, SELECTED, SNAPSHOT_FOLDER, SNAPSHOTS, WEIGHTS, RunRecord, read_run
from genbench.storage.schema import MetricRecord, StoredMeasurement

TOLERANCE = 0.01
"""Of the largest number of a metric in the same unit: more than what devices and libraries differ by."""

COMMAND = "genbench site --verify"

NO_WEIGHTS = ", whose weights are not in the bundle"

Numbers = dict[tuple[str, str, str], StoredMeasurement]
"""Numbers by metric, component and protocol."""

COMPARED = ("value", "floor", "floor_sd", "se", "low", "high", "chance", "minimum_detectable_effect")
"""The fields of a number that have its unit."""


def remeasured(
    submissions: Sequence[Submission],
    count: int,
    registry: Registry,
    data_config: DataConfig,
    device: str,
    warn: Callable[[str], None],
) -> dict[str, str]:
    """Measure `count` runs of each submission anew, drawn at random; a line for each that says what was found.

    Numbers of speed are left out. `warn` is told once why runs of a submission could not be measured. Raises
    `DataError` for the first number that is not the recorded one.
    """
    lines = {}
    for submission in submissions:
        models = [record for record in submission.records if record.run.trains and _recorded(record)]
        weighted = [record for record in models if record.has(WEIGHTS)]
        drawn = random.SystemRandom().sample(weighted, min(count, len(weighted)))
        problems: dict[str, None] = {}
        agreeing = 0
        for record in drawn:
            try:
                anew = _measure(record, registry, data_config, device)
            except GenbenchError as error:  # a plug-in or the dataset is not here
                problems[one_line(error)] = None
                continue
            alike = _compare(submission, record, anew)
            agreeing += alike
            if not alike:
                problems[f"{record.name} has a number whose protocol is another one here"] = None
        for problem in problems:
            warn(f"not measured anew, {submission.file}: {problem}")
        line = f"{agreeing} of {len(models)} runs, numbers as recorded to {TOLERANCE:.0%}"
        lines[submission.name] = line if agreeing else f"none of {len(models)} runs{NO_WEIGHTS * (not weighted)}"
    return lines


def _measure(record: RunRecord, registry: Registry, data_config: DataConfig, device: str) -> Numbers:
    """The numbers of a copy of the run, measured from its weights."""
    copy = record.path.parent / "anew" / record.name
    removed = shutil.ignore_patterns(METRICS, SNAPSHOTS, SELECTED, SNAPSHOT_FOLDER)
    shutil.copytree(record.path, copy, ignore=removed)
    try:
        return _measured(copy, record, registry, data_config, device)
    finally:
        shutil.rmtree(copy)


def _measured(copy: Path, record: RunRecord, registry: Registry, data_config: DataConfig, device: str) -> Numbers:
    trained, _ = evaluable([read_run(copy)], registry)
    for entries in _batches(_recorded(record)):
        samplers = {entry.metric.partition(SAMPLED)[2] or "prior" for entry in entries}
        names = [entry.metric.partition(SAMPLED)[0] for entry in entries]
        options = {target: value for entry in entries for target, value in _options(entry).items()}
        sessions = open_evaluations(
            trained, names, settings_of(options, COMMAND), [*samplers], registry, data_config, device, COMMAND, never
        )
        for session in sessions:
            for cause in work(session, progress=False).failed.values():
                raise StoreError(cause)
    return _numbers(read_run(copy).measurements.values())


def _recorded(record: RunRecord) -> list[MetricRecord]:
    """The measurements of a run that can be repeated: those of speed say as much of the machine."""
    return [
        entry
        for entry in record.measurements.values()
        if entry.numbers and any(number.role != SPEED for number in entry.numbers)
    ]


def _batches(entries: Sequence[MetricRecord]) -> list[list[MetricRecord]]:
    """Measurements that a command can repeat at once: of one sampler, no metric twice."""
    batches: dict[tuple[str, int], list[MetricRecord]] = {}
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.metric] = counts.get(entry.metric, 0) + 1
        batches.setdefault((entry.metric.partition(SAMPLED)[2], counts[entry.metric]), []).append(entry)
    return list(batches.values())


def _options(entry: MetricRecord) -> dict[str, object]:
    """The options of a measurement, and of its sampler, as `--set` names them."""
    metric, _, sampler = entry.metric.partition(SAMPLED)
    named = {
        name if sampler and name.startswith(f"{sampler}.") else f"{metric}.{name}": value
        for name, value in entry.options.items()
    }
    return {name.replace("_", "-"): value for name, value in named.items()}


def _numbers(entries: Iterable[MetricRecord]) -> Numbers:
    return {(entry.metric, number.component, number.protocol): number for entry in entries for number in entry.numbers}


def _compare(submission: Submission, record: RunRecord, anew: Numbers) -> bool:
    """Whether all numbers were measured alike; `DataError` for the first that is another."""
    complete = True
    for key, number in _numbers(_recorded(record)).items():
        again = anew.get(key)
        if number.role == SPEED:
            continue
        if again is None:
            complete = False
            continue
        name, where = f"{key[0]}.{key[1]}".rstrip("."), f"of the run {record.name} is"
        kin = [each for (metric, *_), each in anew.items() if metric == key[0] and each.unit == again.unit]
        scale = max(abs(value) for each in kin for value in (each.value, each.floor or 0.0))
        for field, tolerance in (*((field, TOLERANCE * scale) for field in COMPARED), ("p_value", TOLERANCE)):
            recorded, measured = getattr(number, field), getattr(again, field)
            if (recorded is None) != (measured is None) or abs((recorded or 0.0) - (measured or 0.0)) > tolerance:
                what = name if field == "value" else f"the {field} of {name}"
                values = f"{_shown(recorded)} by its record and {_shown(measured)} measured from its weights"
                raise DataError(f"{submission.file}: {what} {where} {values}")
        for fact in ("unit", "role", "higher_is_better", "n"):
            if getattr(number, fact) != getattr(again, fact):
                values = (
                    f"{getattr(number, fact)!r} by its record and {getattr(again, fact)!r} measured from its weights"
                )
                raise DataError(f"{submission.file}: the {fact} of {name} {where} {values}")
    return complete


def _shown(value: float | None) -> str:
    return "absent" if value is None else f"{value:.6g}"
