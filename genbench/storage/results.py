"""Tidy rows of run folders. No torch: a report over thousands of runs must answer at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from genbench.storage.moments import selections, snapshots
from genbench.storage.rows import Row
from genbench.storage.run_dir import RunFolder

NUMBER = (
    *("value", "floor", "floor_sd", "se", "low", "high", "minimum_detectable_effect"),
    *("unit", "n", "protocol"),
)
KINDS = ("dataset", "model", "prior", "network")


def rows(folders: Sequence[RunFolder], keys: Container[str] | None = None) -> list[Row]:
    """One row for each run, metric and protocol; one for a run that failed or is unfinished.

    With `keys` (`genbench.experiment.run.Component.key`) the final measurements are those alone that were asked for in these words.
    """
    runs = [folder.record()["run"] for folder in folders]
    groups = [group_key(run) for run in runs]
    labels = _labels(dict(zip(groups, runs, strict=True)))
    return [
        row
        for folder, run, group in zip(folders, runs, groups, strict=True)
        for row in _rows_of(folder, run, group, labels[group], keys)
    ]


def _rows_of(
    folder: RunFolder, run: Mapping[str, Any], group: str, label: str, keys: Container[str] | None
) -> Iterable[Row]:
    facts: dict[str, Any] = {
        "run": folder.name,
        "group": group,
        "label": label,
        **{kind: run[kind]["name"] for kind in KINDS},
        **{field: run[field] for field in ("latent_dim", "seed", "images", "role")},
    }
    measured = {key: entry for key, entry in folder.measurements().items() if keys is None or key in keys}
    state = folder.state
    if state != "trained":
        yield Row(**facts, status="failed" if state == "failed" else "unfinished", error=folder.failure())
        return
    training = folder.training()
    facts |= {"seconds": training["seconds"], "flops": training["flops"]}
    if folder.failure():  # trained, and then something went wrong
        yield Row(**facts, status="failed", error=folder.failure())
    yield from _measured(facts, measured)
    chosen = selections(folder)
    for moment in chosen.values():
        yield from _measured(facts | _selected(facts, moment), moment["measurements"])
    for moment in snapshots(folder).values():
        yield from _measured(facts | _cost(moment) | {"stage": "snapshot"}, moment["measurements"])
    if not measured and not chosen and not folder.failure():
        yield Row(**facts, status="unfinished", error="trained, not measured")
    elif measured and all(entry["inapplicable"] for entry in measured.values()):
        yield Row(**facts)  # nothing failed, so nothing else tells of this run


def _measured(facts: Mapping[str, Any], measured: Mapping[str, Any]) -> Iterable[Row]:
    """A row for each number, and for each metric that failed.

    Options may differ where the protocol does not, such as the place of the same file: it is one number, not two.
    """
    numbers: dict[tuple[str, str, str], Row] = {}
    for entry in measured.values():
        facts = {**facts, "split": entry["split"]}
        if entry.get("error"):
            yield Row(**facts, metric=entry["metric"], status="failed", error=entry["error"])
        for number in entry.get("numbers", []):
            name = entry["metric"] + (f".{number['component']}" if number["component"] else "")
            better = {True: "higher", False: "lower", None: "neither"}[number["higher_is_better"]]
            numbers[name, number["protocol"], entry["split"]] = Row(
                **facts,
                metric=name,
                head=number["label"] or name,
                metric_role=number["role"],
                better=better,
                p=number["p_value"],
                **{field: number[field] for field in NUMBER}
            )
    yield from numbers.values()


def _cost(moment: Mapping[str, Any]) -> dict[str, Any]:
    return {name: moment[name] for name in ("images", "seconds", "flops")}


def _selected(facts: Mapping[str, Any], moment: Mapping[str, Any]) -> dict[str, Any]:
    """A selected moment is a line of its own beside the end of the same training: never averaged with it."""
    how = f"selected by {moment['by']}"
    return {
        **_cost(moment),
        "stage": "selected",
        "group": f"{facts['group']} {how}",
        "label": f"{facts['label']} {how}",
    }


# ---------------------------------------------------------------- groups and their names


def group_key(run: Mapping[str, Any]) -> str:
    """A hash of a run without its seed."""
    rest = {name: value for name, value in run.items() if name != "seed"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:10]


def group_labels(runs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A short name for each group: the model, and what tells it from other groups of the same model and dataset."""
    return _labels({group_key(run): run for run in runs})


def _labels(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    fields = {key: _fields(run) for key, run in groups.items()}
    families: dict[tuple[str, str, str], list[str]] = {}
    for key, run in groups.items():
        families.setdefault(_named(run), []).append(key)
    labels = {}
    for (_, _, model), members in families.items():
        telling = _telling([fields[key] for key in members])
        for key in members:
            differing = [name for name in fields[key] if name in telling]
            shown = [name for name in differing if name != "source"] or differing
            told = ", ".join(_told(name, fields[key][name]) for name in shown)
            labels[key] = model + (f" ({told})" if told else "")
    return labels


def _telling(family: Sequence[Mapping[str, Any]]) -> set[str]:
    """The fields in which not all members are alike, or which some lack."""
    names = {name for member in family for name in member}
    return {
        name for name in names if any(name not in member or member[name] != family[0].get(name) for member in family)
    }


def _named(run: Mapping[str, Any]) -> tuple[str, str, str]:
    """Dataset, role and model: what a label need not tell apart."""
    return run["dataset"]["name"], run["role"], run["model"]["name"]


def _fields(run: Mapping[str, Any]) -> dict[str, Any]:
    """What can tell two groups apart, by the name that a label shows."""
    fields: dict[str, Any] = {"prior": run["prior"]["name"], "latent_dim": run["latent_dim"]}
    fields |= {"network": run["network"]["name"], "images": run["images"], "batch": run["batch"]}
    fields["precision"] = run.get("precision", "float32")
    for kind in KINDS:
        fields |= {f"{run[kind]['name']}.{name}": value for name, value in run[kind]["options"].items()}
    fields["source"] = " ".join(run[kind]["fingerprint"][:6] for kind in KINDS)
    return fields


def _told(name: str, value: Any) -> str:
    if name in ("prior", "network"):
        return str(value)
    if name == "latent_dim":
        return f"d={value}"
    return f"{name.split('.', 1)[-1].replace('_', '-')}={value}"
