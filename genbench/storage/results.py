"""Tidy rows of run records, which every report and export is made from. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from genbench.experiment.run import Run
from genbench.storage.run_dir import Protocols, RunRecord
from genbench.storage.schema import MetricRecord, SnapshotRecord

NUMBER = (
    *("value", "floor", "floor_sd", "se", "low", "high", "p_value", "minimum_detectable_effect"),
    *("unit", "higher_is_better", "n", "protocol"),
)
"""The fields that a row has from its measurement."""
KINDS: tuple[Literal["dataset", "model", "prior", "network"], ...] = ("dataset", "model", "prior", "network")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One number of one run, or one failed or unfinished run (then `metric` is "" and `value` None).

    `group` is the run without its seed: rows that share it differ by training seed alone. `label` is the group's
    short name in tables, `head` the metric's column head, `protocol` the hash of how the number was
    measured, `metric_role` its `Measurement.role`, `data` what a reader must know of the images, `higher_is_better` None for a fact that ranks nothing. `seconds` is
    the run's training time, `images` the count of images it trained on, `status` one of "done", "failed", "unfinished".
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

    def as_dict(self) -> dict[str, object]:
        """The row as plain data, columns in their fixed order."""
        return asdict(self)


COLUMNS = tuple(field.name for field in fields(Row))


def rows(records: Sequence[RunRecord], keys: Container[str] | None = None) -> list[Row]:
    """One row for each run, metric and protocol; one for a run that failed or is unfinished.

    With `keys` (`genbench.experiment.run.Component.key`) the final measurements are only those of these components.
    """
    groups = [group_key(record.run) for record in records]
    labels = _labels({group: record.run for group, record in zip(groups, records, strict=True)})
    return [
        row
        for record, group in zip(records, groups, strict=True)
        for row in _rows_of(record, group, labels[group], keys)
    ]


def protocols(records: Iterable[RunRecord]) -> Protocols:
    """The fields of every protocol that occurs, by its hash."""
    known: Protocols = {}
    for record in records:
        snapshots = (*record.snapshots.values(), *record.selections.values())
        for measured in (record.measurements, *(snapshot.measurements for snapshot in snapshots)):
            for entry in measured.values():
                known |= {number.protocol: number.how for number in entry.numbers}
    return known


def _rows_of(record: RunRecord, group: str, label: str, keys: Container[str] | None) -> Iterable[Row]:
    run = record.run
    columns: dict[str, Any] = {
        "run": record.name,
        "group": group,
        "label": label,
        **{kind: getattr(run, kind).name for kind in KINDS},
        **{field: getattr(run, field) for field in ("latent_dim", "seed", "images", "role")},
    }
    measured = {key: entry for key, entry in record.measurements.items() if keys is None or key in keys}
    columns["data"] = _remarks(record)
    if record.training is None:
        yield Row(**columns, status="failed" if record.state == "failed" else "unfinished", error=record.failure)
        return
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
    for entry in measured.values():
        columns = {**columns, "split": entry.split}
        if entry.error:
            yield Row(**columns, metric=entry.metric, status="failed", error=entry.error)
        for number in entry.numbers:
            name = entry.metric + (f".{number.component}" if number.component else "")
            numbers[name, number.protocol, entry.split] = Row(
                **columns,
                metric=name,
                metric_role=number.role,
                head=number.label or name,
                **{field: getattr(number, field) for field in NUMBER},
            )
    yield from numbers.values()


def _remarks(record: RunRecord) -> str:
    """What a reader must know of the images: how many were left out, which test images are training images too."""
    data = record.provenance.get("data")
    return str(data.get("remarks", "")) if isinstance(data, dict) else ""


def _cost(snapshot: SnapshotRecord) -> dict[str, Any]:
    return {"images": snapshot.images, "seconds": snapshot.seconds, "flops": snapshot.flops}


# ---------------------------------------------------------------- groups and their names


def group_key(run: Run) -> str:
    """A hash of a run without its seed."""
    fields = run.record()
    del fields["seed"]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]


def group_labels(runs: Iterable[Run]) -> dict[str, str]:
    """A short name for each group: the model, and the fields that differ among groups of the same model and dataset."""
    return _labels({group_key(run): run for run in runs})


def _labels(groups: Mapping[str, Run]) -> dict[str, str]:
    fields = {key: _fields(run) for key, run in groups.items()}
    families: dict[tuple[str, str, str], list[str]] = {}
    for key, run in groups.items():
        families.setdefault((run.dataset.name, run.role, run.model.name), []).append(key)
    labels = {}
    for (_, _, model), members in families.items():
        distinctive = _distinctive([fields[key] for key in members])
        for key in members:
            differing = [name for name in fields[key] if name in distinctive]
            shown = [name for name in differing if name != "source"] or differing
            text = ", ".join(_field_text(name, fields[key][name]) for name in shown)
            labels[key] = model + (f" ({text})" if text else "")
    return labels


def _distinctive(family: Sequence[Mapping[str, Any]]) -> set[str]:
    """The fields in which not all members are alike, or which some lack."""
    names = {name for member in family for name in member}
    return {
        name for name in names if any(name not in member or member[name] != family[0].get(name) for member in family)
    }


def _fields(run: Run) -> dict[str, Any]:
    """The fields that may differ between two groups, by the name that a label shows."""
    fields: dict[str, Any] = {"prior": run.prior.name, "latent_dim": run.latent_dim}
    fields |= {"network": run.network.name, "images": run.images, "batch": run.batch, "precision": run.precision}
    components = (run.dataset, run.model, run.prior, run.network)
    for component in components:
        fields |= {f"{component.name}.{name}": value for name, value in component.options}
    fields["source"] = " ".join(component.fingerprint[:6] for component in components)
    return fields


def _field_text(name: str, value: Any) -> str:
    if name in ("prior", "network"):
        return str(value)
    if name == "latent_dim":
        return f"d={value}"
    return f"{name.split('.', 1)[-1].replace('_', '-')}={value}"
