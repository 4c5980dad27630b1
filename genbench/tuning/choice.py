"""Trials as they are recorded, and the choice of a search. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from genbench.errors import StoreError
from genbench.evaluation.selection import ranking_number
from genbench.experiment.run import Component, Run, run_of_record
from genbench.storage.results import option_text
from genbench.storage.run_dir import TUNING, RunRecord
from genbench.storage.schema import (
    SCHEMA,
    SearchRecord,
    StoredMeasurement,
    TrialRecord,
    TunedFile,
)

REMEDY = (
    "set what it trains with (--set), search elsewhere (--space), take another metric or leave the model out; trials"
    " that are done are kept"
)
"""What to do about a model none of whose trials has a value."""


def search_key(facts: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits of everything that decides a search's trials."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]


def trial_record(
    point: Mapping[str, Any], record: RunRecord, metric: Component, images: int, whole: int
) -> TrialRecord:
    """A trial that was shown so many images, of `whole`; without a value where it failed, or is not to its end."""
    number, problem = validation_number(record, metric, images)
    trial = TrialRecord(dict(point), record.name, None, problem)
    if snapshot := record.snapshots.get(str(images)):
        trial = msgspec.structs.replace(trial, seconds=snapshot.seconds, flops=snapshot.flops)
    if number is None:
        return trial
    if images < whole:
        return msgspec.structs.replace(trial, stopped=images, early=number.value)
    return msgspec.structs.replace(trial, value=number.value)


def validation_number(record: RunRecord, metric: Component, images: int) -> tuple[StoredMeasurement | None, str]:
    """The number of a trial that ranks, after so many images; or None, and the reason."""
    snapshot = record.snapshots.get(str(images))
    if snapshot is None:
        return None, record.failure or f"it is not measured after {images:,} images"
    entry = snapshot.measurements.get(metric.key)
    number = None if entry is None else ranking_number(entry.numbers)
    if number is not None:
        return number, ""
    cause = "" if entry is None else entry.error or entry.inapplicable
    return None, cause or "the metric ranks nothing"


def best_trial(trials: Sequence[TrialRecord], model: str, *, higher_is_better: bool) -> int:
    """The place of the best trial, the earliest of equals; `StoreError` where all have failed."""
    values = [
        (-t.value if higher_is_better else t.value, place) for place, t in enumerate(trials) if t.value is not None
    ]
    if not values:
        raise StoreError(f"all {len(trials)} trials of {model} failed, the first one so: {trials[0].problem}; {REMEDY}")
    return min(values)[1]


def chosen_run(search: SearchRecord, seed: int) -> Run:
    """The run of a search's choice with another seed."""
    first = run_of_record(msgspec.to_builtins(search.run))
    options = {name.replace("-", "_"): value for name, value in search.trials[search.chosen].options.items()}
    model = replace(first.model, options=tuple(sorted({**first.model.values, **options}.items())))
    return replace(first, model=model, seed=seed, role="model")


def chosen_settings(search: SearchRecord) -> tuple[str, ...]:
    """The choice as `--set` takes it."""
    return tuple(
        f"{search.model}.{name}={value if isinstance(value, float) else option_text(value)}"
        for name, value in search.trials[search.chosen].options.items()
    )


def tuned_file(key: str, search: SearchRecord) -> TunedFile:
    """What a run of the choice records of the search."""
    chosen = search.trials[search.chosen]
    if chosen.value is None:
        raise StoreError(f"{TUNING}: the chosen trial of {search.model} has no value")
    return TunedFile(
        SCHEMA,
        key,
        search.algorithm,
        search.by,
        len(search.trials),
        search.metric,
        chosen.value,
        search.trials[0].value,
        chosen.options,
        search.space,
        sum(bool(trial.problem) for trial in search.trials),
        sum(bool(trial.stopped) for trial in search.trials),
    )


def choice_line(search: SearchRecord) -> str:
    """The choice in one line, each option with its default in brackets where it has another value."""
    first, chosen = search.trials[0], search.trials[search.chosen]
    words = [
        f"{name} {option_text(value)}"
        + (f" (default {option_text(first.options[name])})" if first.options[name] != value else "")
        for name, value in chosen.options.items()
    ]
    failed, stopped = (
        sum(map(bool, flags)) for flags in zip(*((t.problem, t.stopped) for t in search.trials), strict=True)
    )
    count = len(search.trials)
    apart = [f"{failed} failed"] * bool(failed) + [f"{stopped} stopped early"] * bool(stopped)
    return (
        f"{search.model}: {', '.join(words) or 'its options as they are'}; validation {search.metric}"
        f" {chosen.value:.4g}, the best of {count} trial{'s' * (count != 1)}"
        + (f" ({', '.join(apart)})" if apart else "")
        + (f"; first trial {first.value:.4g}" if first.value is not None and search.chosen else "")
    )
