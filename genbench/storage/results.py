"""Tidy rows of run records, which every report and export is made from. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import partial
from pathlib import PurePath
from typing import Any, Literal

from genbench.experiment.run import Component, Run
from genbench.storage.run_dir import DEFAULTS, Protocols, RunRecord, searches_of
from genbench.storage.schema import MetricRecord, Scalar, SearchRecord, SnapshotRecord, TunedFile, space_words

NUMBER = (
    *("value", "floor", "floor_sd", "se", "low", "high", "p_value", "minimum_detectable_effect"),
    *("unit", "higher_is_better", "n", "protocol", "caution", "chance", "chance_sd"),
)
"""The fields that a row has from its measurement."""
INTERNAL = {"internal": True}
"""The mark of fields of a row that are no columns of files."""
KINDS: tuple[Literal["dataset", "model", "prior", "network"], ...] = ("dataset", "model", "prior", "network")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One number of one run, or one failed or unfinished run (then `metric` is "" and `value` None).

    `group` is the run without its seed: rows that share it differ by training seed alone. `dataset` is the dataset's
    name with its options that are not at their defaults. `label` is the group's short name in tables, `head` the
    metric's column head, `protocol` the hash of how the number was measured, `metric_role` its `Measurement.role`,
    `caution` its `Measurement.caution`, `higher_is_better` None for a fact that ranks nothing. `seconds` is the run's
    training time, `images` the count of images it trained on, `status` one of "done", "failed", "unfinished".
    `options` has every option of the run as NAME.OPTION, `defaults` the default of each that has another value
    (None where the run does not record them). `data` is what a reader must know of the images, "" where nothing,
    `fit_seconds` what the fit of the samples' sampler took. Where a search chose the options, `trials` counts its
    trials, `tuned_by` says how they were drawn and measured, `tuned` names the searched options, `space` says where
    they were searched, `validation` is the best trial's value of `tuned_metric` and `default_validation` that of the
    first trial, which has the default options, `search` its key in tuning.json; trials themselves have no rows.
    No columns of files are `searched`, the record of that search where it lies beside the runs, and `like_trials`:
    whether the number was measured as those of the trials were.
    """

    run: str
    group: str
    label: str
    dataset: str
    model: str
    prior: str
    network: str
    latent_dim: int
    seed: int
    images: int
    role: str = "model"
    stage: str = "final"
    split: str = "test"
    metric: str = ""
    metric_role: str = ""
    head: str = ""
    value: float | None = None
    floor: float | None = None
    floor_sd: float | None = None
    se: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    minimum_detectable_effect: float | None = None
    unit: str = ""
    higher_is_better: bool | None = None
    n: int | None = None
    protocol: str = ""
    data: str = ""
    seconds: float | None = None
    flops: float | None = None
    status: str = "done"
    error: str = ""
    batch: int = 0
    precision: str = "float32"
    options: Mapping[str, Scalar] = field(default_factory=dict, hash=False)
    defaults: Mapping[str, Scalar] | None = field(default=None, hash=False)
    caution: str = ""
    fit_seconds: float | None = None
    chance: float | None = None
    chance_sd: float | None = None
    trials: int = 0
    tuned_by: str = ""
    tuned: str = ""
    validation: float | None = None
    tuned_metric: str = ""
    space: str = ""
    default_validation: float | None = None
    search: str = ""
    searched: SearchRecord | None = field(default=None, compare=False, repr=False, metadata=INTERNAL)
    like_trials: bool = field(default=False, compare=False, repr=False, metadata=INTERNAL)

    def as_dict(self) -> dict[str, object]:
        """The row as plain data, columns in their fixed order."""
        return {name: getattr(self, name) for name in COLUMNS}


ELSEWHERE = "trained elsewhere"
"""The mark of a row of results from elsewhere."""

EQUAL_COST = " at equal"
"""The mark of a search in which models have a cost alike, not the count of trials."""

SEARCH_WORDS = {"random": "random search", "halving": "successive halving", "tpe": "TPE search", "gp": "GP search"}
"""The algorithms of searches in words."""

COLUMNS = tuple(each.name for each in fields(Row) if not each.metadata)


def rows(
    records: Sequence[RunRecord],
    keys: Container[str] | None = None,
    folders: Sequence[str] | None = None,
    owners: Sequence[str] | None = None,
    *,
    tuned_apart: bool = False,
) -> list[Row]:
    """One row for each run, metric and protocol; one for a run that failed or is unfinished.

    With `keys` (`genbench.experiment.run.Component.key`) the final measurements are only those of these components.
    With `folders`, one for each record, the runs of each folder are groups apart, whose labels end in "in FOLDER".
    With `owners`, one for each record, what differs in source code or files alone is told apart by who has it. Labels
    say how a model was tuned where another was not tuned alike; `tuned_apart`: where another tuned one was not.
    """
    kept = [place for place, record in enumerate(records) if record.run.role != "trial"]
    records, folders = [records[i] for i in kept], None if folders is None else [folders[i] for i in kept]
    owned = {} if owners is None else _owned(records, [owners[i] for i in kept])
    groups = _groups(records)
    first = dict(zip(reversed(groups), reversed(records), strict=True))
    defaults = {group: _recorded_defaults(record) for group, record in first.items()}
    runs = {group: first[group].run for group in dict.fromkeys(groups)}
    datasets, labels = group_labels(runs, defaults, partial(_variant_names, _begun(records), owned))
    tuned = {group: record.tuned for group, record in zip(groups, records, strict=True) if record.tuned is not None}
    searches = searches_of(records)
    labels |= _tuning_marks(labels, {g: runs[g] for g in tuned} if tuned_apart else runs, datasets, tuned)
    shared = {
        group: {
            "group": group,
            "label": labels[group],
            "dataset": datasets[group],
            "options": {name: value for _, name, value in _options(run)},
            "defaults": defaults[group],
            **(_tuning(tuned[group], searches) if group in tuned else {}),
        }
        for group, run in runs.items()
    }
    columns = [shared[group] for group in groups]
    if folders is not None:
        columns = [
            {**known, "group": f"{known['group']} {folder}", "label": f"{known['label']} in {folder}"}
            for known, folder in zip(columns, folders, strict=True)
        ]
    return [row for record, known in zip(records, columns, strict=True) for row in _rows_of(record, known, keys)]


def _tuning(tuned: TunedFile, searches: Mapping[str, SearchRecord]) -> dict[str, Any]:
    """The columns of a run whose options a search chose."""
    alike = f"{EQUAL_COST} {tuned.by}" * (tuned.by != "trials")
    search = SEARCH_WORDS.get(tuned.algorithm, f"{tuned.algorithm} search")
    return {
        "trials": tuned.trials,
        "tuned_by": f"{search} by {tuned.metric} on validation images{alike}",
        "tuned": ", ".join(tuned.options),
        "validation": tuned.value,
        "tuned_metric": tuned.metric,
        "space": space_words(tuned.space),
        "default_validation": tuned.default,
        "search": tuned.search,
        "searched": searches.get(tuned.search),
    }


def _tuning_marks(
    labels: Mapping[str, str], runs: Mapping[str, Run], datasets: Mapping[str, str], tuned: Mapping[str, TunedFile]
) -> dict[str, str]:
    """The marked labels of models on one dataset that were not tuned alike."""
    marked: dict[str, str] = {}
    for dataset in {datasets[g] for g in runs}:
        members = [g for g, run in runs.items() if datasets[g] == dataset and run.role == "model"]
        ways = {g: _way(tuned[g]) if g in tuned else "not tuned" for g in members}
        several = len({ways[g] for g in members if g in tuned}) > 1
        if len(set(ways.values())) > 1:
            marks = {g: ways[g] if several or g not in tuned else "tuned" for g in members}
            short = {g: f"{runs[g].model.name} ({mark})" for g, mark in marks.items()}
            distinct = len({*short.values()}) == len(short)  # the mark tells as much as the options
            marked |= short if distinct else {g: f"{labels[g]} ({mark})" for g, mark in marks.items()}
    return marked


def _way(tuned: TunedFile) -> str:
    """What models that were tuned alike share."""
    budget = f"{tuned.trials} trials" if tuned.by == "trials" else f"equal {tuned.by}"
    return f"tuned: {budget}, {tuned.algorithm}, {tuned.metric}"


def protocols(records: Iterable[RunRecord]) -> Protocols:
    """The fields of every protocol that occurs, by its hash."""
    known: Protocols = {}
    for record in records:
        snapshots = (*record.snapshots.values(), *record.selections.values())
        for measured in (record.measurements, *(snapshot.measurements for snapshot in snapshots)):
            for entry in measured.values():
                known |= {number.protocol: number.how for number in entry.numbers}
    return known


def _rows_of(record: RunRecord, shared: Mapping[str, Any], keys: Container[str] | None) -> Iterable[Row]:
    """The rows of a run; `shared` are the columns that its group has in common."""
    run, group, label = record.run, shared["group"], shared["label"]
    columns: dict[str, Any] = {
        "run": record.name,
        **{kind: getattr(run, kind).name for kind in KINDS},
        **{name: getattr(run, name) for name in ("latent_dim", "seed", "images", "batch", "precision", "role")},
        **shared,
    }
    measured = {key: entry for key, entry in record.measurements.items() if keys is None or key in keys}
    columns["data"] = _remarks(record)
    if not record.is_trained:
        yield Row(**columns, status="failed" if record.state == "failed" else "unfinished", error=record.failure)
        return
    if record.training is not None:
        columns |= {"seconds": record.training.seconds, "flops": record.training.flops}
    if record.failure:  # it failed after its training
        yield Row(**columns, status="failed", error=record.failure)
    yield from rows_of_measurements(columns, measured)
    for selection in record.selections.values():
        # A line beside the end of the same training, never averaged with it.
        suffix = f"selected by {selection.by}"
        names = {"stage": "selected", "group": f"{group} {suffix}", "label": f"{label} {suffix}"}
        yield from rows_of_measurements(columns | _cost(selection) | names, selection.measurements)
    for snapshot in record.snapshots.values():
        yield from rows_of_measurements(columns | _cost(snapshot) | {"stage": "snapshot"}, snapshot.measurements)
    if not measured and not record.selections and not record.failure:
        yield Row(**columns, status="unfinished", error="trained, not measured")
    elif measured and all(entry.inapplicable for entry in measured.values()):
        yield Row(**columns)  # nothing failed, and no other row names this run


def rows_of_measurements(columns: Mapping[str, Any], measured: Mapping[str, MetricRecord]) -> Iterable[Row]:
    """A row for each number, and for each metric that failed; `columns` are the columns of the run.

    Options may differ where the protocol does not, such as two paths of the same file: that is one number.
    """
    numbers: dict[tuple[str, str, str], Row] = {}
    search: SearchRecord | None = columns.get("searched")
    for entry in measured.values():
        columns = {**columns, "split": entry.split}
        if entry.error:
            yield Row(**columns, metric=entry.metric, status="failed", error=entry.error)
        for number in entry.numbers:
            metric = entry.metric + (f".{number.component}" if number.component else "")
            numbers[metric, number.protocol, entry.split] = Row(
                **columns,
                metric=metric,
                metric_role=number.role,
                head=number.label or metric,
                fit_seconds=entry.fit_seconds,
                like_trials=search is not None and (search.metric, search.metric_options) == (metric, entry.options),
                **{name: getattr(number, name) for name in NUMBER},
            )
    yield from numbers.values()


def _remarks(record: RunRecord) -> str:
    """What a reader must know of the images: how many were left out, which test images are training images too."""
    data = record.provenance.get("data")
    return str(data.get("remarks", "")) if isinstance(data, dict) else ""


def _cost(snapshot: SnapshotRecord) -> dict[str, Any]:
    return {"images": snapshot.images, "seconds": snapshot.seconds, "flops": snapshot.flops}


# ---------------------------------------------------------------- groups and their names


Defaults = Mapping[str, Mapping[str, Scalar] | None]
"""By group the default of each option that has another value; None where it is not recorded."""


Variant = tuple[str, str]
"""The name of a component with the fingerprint of its source, or "data" with the hash of a dataset's files."""

VariantNames = Callable[[Iterable[Variant]], dict[Variant, str]]
"""Names that tell variants of one thing apart."""


def _groups(records: Sequence[RunRecord]) -> list[str]:
    """The group of each record; of results from elsewhere with one name and seed, the earlier ones stand apart."""
    groups = [group_key(record.run) for record in records]
    last: dict[tuple[str, int], RunRecord] = {}
    for group, record in zip(groups, records, strict=True):
        earlier = last.setdefault((group, record.run.seed), record)
        if record.started > earlier.started:
            last[group, record.run.seed] = record
    return [
        group if record.run.results == last[group, record.run.seed].run.results else f"{group} {record.run.results[:6]}"
        for group, record in zip(groups, records, strict=True)
    ]


def group_key(run: Run) -> str:
    """A hash of a run without its seed, and without the paths of files that are known by their bytes.

    Results from elsewhere do not count: those of one name are its seeds.
    """
    fields = run.record()
    del fields["seed"]
    fields.pop("results", None)
    for kind in KINDS:
        for path in fields[kind].pop("paths", ()):
            del fields[kind]["options"][path]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]


def group_labels(
    groups: Mapping[str, Run], defaults: Defaults, variant_names: VariantNames
) -> tuple[dict[str, str], dict[str, str]]:
    """For each group a short name of its dataset, and its label: the model, and the fields that tell it apart.

    Those are the fields that differ among the groups of the same model and dataset; an option is named where it has
    another value than its default. What differs in source code or files alone is told apart by `variant_names`.
    """
    datasets = _dataset_labels(groups, defaults, variant_names)
    return datasets, _labels(groups, datasets, defaults, variant_names)


def _begun(records: Iterable[RunRecord]) -> dict[Variant, str]:
    """The time at which the first run of each source, and of each state of a dataset's files, was begun."""
    begun: dict[Variant, str] = {}
    for record in records:
        for variant in (*_sources(record.run), ("data", record.run.dataset.originals)):
            begun[variant] = min(filter(None, (begun.get(variant), record.started)), default="")
    return begun


def _owned(records: Iterable[RunRecord], owners: Iterable[str]) -> dict[Variant, str]:
    """The owner of each source, and of each state of a dataset's files, that has one alone."""
    owned: dict[Variant, set[str]] = {}
    for record, owner in zip(records, owners, strict=True):
        for variant in (*_sources(record.run), ("data", record.run.dataset.originals)):
            owned.setdefault(variant, set()).add(owner)
    return {variant: next(iter(names)) for variant, names in owned.items() if len(names) == 1}


def _sources(run: Run) -> tuple[Variant, ...]:
    return tuple((getattr(run, kind).name, getattr(run, kind).fingerprint) for kind in KINDS)


def _variant_names(
    begun: Mapping[Variant, str], owned: Mapping[Variant, str], variants: Iterable[Variant]
) -> dict[Variant, str]:
    """Variants of one thing by their owners where each has another one, else by the time of their first run in the
    fewest words, else by the start of the hash.
    """
    variants = list(variants)
    owners = {variant: owned[variant] for variant in variants if variant in owned}
    if len({*owners.values()}) == len(variants):
        return {variant: f"{variant[0]} of {owner}" for variant, owner in owners.items()}
    times = {variant: begun.get(variant, "") for variant in variants}
    for form in ("%d %b %H:%M", "%d %b %H:%M:%S") if all(times.values()) else ():
        texts = {variant: f"{datetime.fromisoformat(time).astimezone():{form}}" for variant, time in times.items()}
        if len({*texts.values()}) == len(texts):
            return {variant: f"{variant[0]} of {text}" for variant, text in texts.items()}
    return {variant: f"{variant[0]} {variant[1][:6] or 'unrecorded'}" for variant in times}


def _recorded_defaults(record: RunRecord) -> dict[str, Scalar] | None:
    recorded = record.provenance.get(DEFAULTS)
    return recorded if isinstance(recorded, dict) else None


def _labels(
    groups: Mapping[str, Run], datasets: Mapping[str, str], defaults: Defaults, variant_names: VariantNames
) -> dict[str, str]:
    """The label of each group; `datasets` are the labels of their datasets."""
    fields = {key: _fields(run) for key, run in groups.items()}
    families: dict[tuple[str, str, str], list[str]] = {}
    for key, run in groups.items():
        families.setdefault((datasets[key], run.role, run.model.name), []).append(key)
    labels = {}
    for (_, _, model), members in families.items():
        distinctive = _distinctive([fields[key] for key in members])
        texts: dict[tuple[str, ...], list[str]] = {}
        for key in members:
            known = defaults.get(key)
            options = {name for _, name, _ in _options(groups[key])}
            shown = [
                _field_text(name, fields[key][name])
                for name in fields[key]
                if name in distinctive and (name not in options or known is None or name in known)
            ]
            texts.setdefault(tuple(shown), []).append(key)
        for text, equal in texts.items():
            sources = {key: _sources(groups[key]) for key in equal}
            differing = [{*variants} for variants in zip(*sources.values(), strict=True)]
            moments = [variant_names(variants) if len(variants) > 1 else {} for variants in differing]
            for key in equal:
                named = [named[source] for source, named in zip(sources[key], moments, strict=True) if named]
                labels[key] = _label(model, [*_origin(key, groups[key]), *text, *named])
    return labels


def _origin(group: str, run: Run) -> list[str]:
    """The mark of results from elsewhere; of earlier files under one name and seed also the start of their hash."""
    if run.role != "external":
        return []
    return [ELSEWHERE, *[f"earlier files {word}" for word in group.split(" ")[1:]]]


def _label(model: str, fields: Sequence[str]) -> str:
    return model + (f" ({', '.join(fields)})" if fields else "")


def _distinctive(family: Sequence[Mapping[str, Any]]) -> set[str]:
    """The fields in which not all members are alike, or which some lack."""
    names = {name for member in family for name in member}
    return {
        name for name in names if any(name not in member or member[name] != family[0].get(name) for member in family)
    }


def _options(run: Run) -> list[tuple[str, str, Scalar]]:
    """Every option of a run: the kind of its component, NAME.OPTION, and the value."""
    return [
        (kind, f"{getattr(run, kind).name}.{name.replace('_', '-')}", value)
        for kind in KINDS
        for name, value in getattr(run, kind).options
    ]


def _fields(run: Run) -> dict[str, Any]:
    """The fields that may differ between two groups of a dataset, by name."""
    fields: dict[str, Any] = {"prior": run.prior.name, "latent_dim": run.latent_dim}
    fields |= {"network": run.network.name, "images": run.images, "batch": run.batch, "precision": run.precision}
    return fields | {name: value for kind, name, value in _options(run) if kind != "dataset"}


def _field_text(name: str, value: Any) -> str:
    if name in ("prior", "network", "precision"):
        return str(value)
    if name == "latent_dim":
        return f"d={value}"
    return f"{name.split('.', 1)[-1]}={option_text(value)}"


def option_text(value: Scalar) -> str:
    """The value of an option as one would type it.

    >>> option_text(10.0), option_text(True), option_text(None)
    ('10', 'true', 'none')
    """
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------- datasets and their names


def _dataset_labels(groups: Mapping[str, Run], defaults: Defaults, variant_names: VariantNames) -> dict[str, str]:
    """The dataset of each group with its options that are not at their defaults: `folder: faces, size 64`.

    Where the defaults are not recorded, the options that differ among the runs of that dataset. Paths are named by
    as many of their last parts as tell them apart; of several paths of the same files the first one is named, and
    several states of a folder are told apart by `variant_names`.
    """
    families: dict[str, list[str]] = {}
    spellings: dict[tuple[str, str], Component] = {}
    for key, run in groups.items():
        families.setdefault(run.dataset.name, []).append(key)
        spellings.setdefault((run.dataset.name, run.dataset.originals), run.dataset)
    labels: dict[str, str] = {}
    for name, members in families.items():
        options: dict[str, dict[str, Scalar]] = {}
        for key in members:
            dataset = groups[key].dataset
            first = spellings[name, dataset.originals].values
            options[key] = {**dataset.values, **{path: first[path] for path in dataset.paths}}
        differing = _distinctive(list(options.values()))
        for key in members:
            known = defaults.get(key)
            shown = [
                option
                for option in options[key]
                if (option in differing if known is None else f"{name}.{option.replace('_', '-')}" in known)
            ]
            files = groups[key].dataset.paths
            paths = [option for option in shown if option in files or _is_path(options[key][option])]
            texts = [_short_path(options[key][option], [o.get(option) for o in options.values()]) for option in paths]
            texts += [f"{o.replace('_', '-')} {option_text(options[key][o])}" for o in shown if o not in paths]
            labels[key] = name + (f": {', '.join(texts)}" if texts else "")
        for label in {labels[key] for key in members}:
            states = {key: ("data", groups[key].dataset.originals) for key in members if labels[key] == label}
            if len({*states.values()}) > 1:
                moments = variant_names({*states.values()})
                for key, state in states.items():
                    labels[key] += f"{', ' if ': ' in label else ': '}{moments[state]}"
    return labels


def _is_path(value: Scalar) -> bool:
    return isinstance(value, str) and ("/" in value or "\\" in value)


def _short_path(path: Scalar, paths: Iterable[Scalar]) -> str:
    """The last parts of a path that no other path ends in."""
    parts = PurePath(str(path)).parts
    rivals = [PurePath(rival).parts for rival in {str(each) for each in paths} if rival != str(path)]
    for count in range(1, len(parts)):
        if all(rival[-count:] != parts[-count:] for rival in rivals):
            return "/".join(parts[-count:])
    return str(path)
