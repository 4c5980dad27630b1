"""The choice of a search, and tuning.json, which holds searches for the runs of a folder. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from genbench.errors import StoreError
from genbench.evaluation.selection import ranking_number
from genbench.experiment.run import Component, Run, run_of_record
from genbench.storage.results import option_text
from genbench.storage.run_dir import RunRecord
from genbench.storage.schema import (
    SCHEMA,
    SearchesFile,
    SearchRecord,
    StoredMeasurement,
    TrialRecord,
    TunedFile,
    read_file,
)
from genbench.utils.io import write_json

TUNING = "tuning.json"
"""The file in a folder of runs that holds the searches whose trials lie there."""


def search_key(facts: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits of everything that decides a search's trials."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]


def read_searches(folder: Path) -> dict[str, SearchRecord]:
    """The searches of a folder of runs by their keys; `StoreError` where the file is damaged."""
    path = folder / TUNING
    return read_file(path, SearchesFile).searches if path.exists() else {}


def save_searches(folder: Path, searches: Mapping[str, SearchRecord]) -> None:
    """Add searches to those of a folder of runs."""
    content = {**read_searches(folder), **searches}
    write_json(folder / TUNING, {"schema": SCHEMA, "searches": msgspec.to_builtins(content)})


def validation_number(record: RunRecord, metric: Component) -> tuple[StoredMeasurement | None, str]:
    """The number of a trial that ranks, at the end of its training; or None, and the reason."""
    if not record.is_trained:
        return None, record.failure or "it is not trained"
    if not record.snapshots:
        return None, record.failure or "it is not measured"
    end = record.snapshots[max(record.snapshots, key=int)]
    entry = end.measurements.get(metric.key)
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
        raise StoreError(f"all {len(trials)} trials of {model} failed, the first one so: {trials[0].problem}")
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
    )


def choice_line(search: SearchRecord) -> str:
    """The choice in one line, each option with its default in brackets where it has another value."""
    first, chosen = search.trials[0], search.trials[search.chosen]
    words = [
        f"{name} {option_text(value)}"
        + (f" ({option_text(first.options[name])})" if first.options[name] != value else "")
        for name, value in chosen.options.items()
    ]
    failed = sum(trial.value is None for trial in search.trials)
    count = len(search.trials)
    return (
        f"{search.model}: {', '.join(words) or 'its options as they are'}; validation {search.metric}"
        f" {chosen.value:.4g}, the best of {count} trial{'s' * (count != 1)}"
        + (f" ({failed} failed)" if failed else "")
        + (f"; first trial {first.value:.4g}" if first.value is not None and search.chosen else "")
    )
