"""Recipes: a paper's experiment read from TOML, every key and type checked. Pure; no torch.

name = "cwae-table1"                     the component's name
about, citation = "..."                  one line; the paper or code, with its identifier
study = "grid"                           or "experiment": the plug-in has the code
deviations = ["..."]                     how this differs from the paper, shown under the table

Where the training itself differs from that of the published numbers, `training = ["..."]` of a cell, or of a published
number, states that: its verdict is then "equivalent, with deviations" and refers to it.

[protocols.paper]                        how published numbers were measured: fields of `genbench.api.EvalProtocol`,
                                         of an experiment those that its findings state
layer = "2048"

[[cells]]                                as the options of `genbench run`; `set` are its --set
name = "mnist"
lambda = "mean over the batch of summed squares + lambda * mean sliced distance"

[[published]]                            a number, whose it is, how it was measured, and the margin of equivalence
cell = "mnist", model = "swae", metric = "fid", value = 30.94, protocol = "paper", margin = 3.0, source = "..."

A number without `value` and `margin` is one whose published value is not known: ours stands there untested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from genbench.analysis.tuning import PublishedValue
from genbench.errors import DataError, UsageError, unknown
from genbench.utils.io import parse_toml

Study = Literal["grid", "experiment"]
PROTOCOL_FIELDS = (
    *("method", "preparation", "split", "references", "generated", "values", "resize", "extractor", "layer"),
    *("weights", "dtype", "detail"),
)
"""What a recipe may state of a published number's protocol; what it leaves out is not compared."""


@dataclass(frozen=True)
class RecipeCell:
    """One grid of a recipe. Of `epochs` and `images` one is set; `weighting` states lambda with its reduction."""

    name: str
    dataset: str
    models: tuple[str, ...]
    priors: tuple[str, ...]
    latent_dims: tuple[int, ...]
    network: str
    seeds: int
    batch: int
    metrics: tuple[str, ...]
    weighting: str
    epochs: int | None = None
    images: int | None = None
    settings: tuple[str, ...] = ()
    snapshots: int = 0
    snapshot_metrics: tuple[str, ...] = ()
    training: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """A number of a paper, and half the width of the interval about it within which ours counts as equivalent.

    `cell`, `model`, `prior` and `latent_dim` select the runs; `case` is the case of an experiment's finding. The margin
    is in the metric's unit; `value` is None, and the margin 0, where the paper's number is not known. `tolerated` are
    fields of the protocol that may differ, each with the reason; `training` states how our training differs.
    """

    metric: str
    value: float | None
    margin: float
    source: str
    protocol: Mapping[str, str]
    cell: str = ""
    model: str = ""
    prior: str = ""
    latent_dim: int = 0
    case: str = ""
    tolerated: Mapping[str, str] = field(default_factory=dict)
    training: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParsedRecipe:
    """A parsed recipe: its cells, the published numbers, and how the two differ."""

    name: str
    about: str
    citation: str
    study: Study
    cells: tuple[RecipeCell, ...] = ()
    published: tuple[Published, ...] = ()
    deviations: tuple[str, ...] = ()


def published_values(texts: Mapping[str, str]) -> list[PublishedValue]:
    """The published numbers in the texts of recipes, by name, whose values are known.

    They stand beside numbers of the same protocol, whatever the training. A text that is no recipe has none.
    """
    values = []
    for name, text in texts.items():
        try:
            recipe = parse(text, name)
        except UsageError:  # genbench check and reproduce say what is wrong with it
            continue
        cells = {cell.name: cell for cell in recipe.cells}
        for number in recipe.published:
            if number.value is None or number.cell not in cells:
                continue
            cell = cells[number.cell]
            budget = f"{cell.epochs} epochs" if cell.images is None else f"{cell.images:,} images"
            values.append(
                PublishedValue(
                    dataset=cell.dataset,
                    model=number.model or cell.models[0],
                    prior=number.prior or cell.priors[0],
                    latent_dim=number.latent_dim or cell.latent_dims[0],
                    metric=number.metric,
                    value=number.value,
                    source=f"{number.source} ({recipe.name}: network {cell.network}, {budget})",
                    protocol=number.protocol,
                    tolerated=tuple(number.tolerated),
                )
            )
    return values


@dataclass(frozen=True)
class _Key:
    """A key of a table: its type in words, the check of a value, and its default where it is not required."""

    words: str
    holds: Callable[[Any], bool]
    default: Any = None
    required: bool = False


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _list(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(check(member) for member in value)


def _some(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(check(member) for member in value)


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(_text(member) for member in value.values())


TEXT, WHOLE = _Key("a text", _text, required=True), _Key("a whole number from 1", _whole, required=True)
NAMES = _Key("a list of names", _some(_text), required=True)

RECIPE: Mapping[str, _Key] = {
    "name": TEXT,
    "about": TEXT,
    "citation": TEXT,
    "study": _Key('"grid" or "experiment"', lambda value: value in ("grid", "experiment"), "grid"),
    "deviations": _Key("a list of texts", _list(_text), ()),
    "protocols": _Key("tables", lambda value: isinstance(value, dict), {}),
    "cells": _Key("tables", _list(lambda value: isinstance(value, dict)), ()),
    "published": _Key("tables", _list(lambda value: isinstance(value, dict)), ()),
}
CELL: Mapping[str, _Key] = {
    "name": TEXT,
    "dataset": TEXT,
    "models": NAMES,
    "priors": NAMES,
    "latent-dims": _Key("a list of whole numbers from 1", _some(_whole), required=True),
    "network": TEXT,
    "seeds": WHOLE,
    "batch": _Key("a whole number from 2", lambda value: _whole(value) and value >= 2, required=True),
    "metrics": NAMES,
    "lambda": TEXT,
    "epochs": _Key("a whole number from 1", _whole),
    "images": _Key("a whole number from 1", _whole),
    "set": _Key("a list of NAME.OPTION=VALUE", _list(_text), ()),
    "snapshots": _Key("a whole number from 1", _whole, 0),
    "snapshot-metrics": _Key("a list of names", _some(_text), ()),
    "training": _Key("a list of texts", _list(_text), ()),
}
PUBLISHED: Mapping[str, _Key] = {
    "cell": _Key("the name of a cell", _text, ""),
    "model": _Key("a name", _text, ""),
    "prior": _Key("a name", _text, ""),
    "latent-dim": _Key("a whole number from 1", _whole, 0),
    "case": _Key("a text", _text, ""),
    "metric": TEXT,
    "value": _Key("a number", _number),
    "margin": _Key("a number above 0", lambda value: _number(value) and value > 0),
    "source": TEXT,
    "protocol": TEXT,
    "tolerated": _Key("a table of field = reason", _texts, {}),
    "training": _Key("a list of texts", _list(_text), ()),
}


def parse(text: str, where: str) -> ParsedRecipe:
    """The recipe in a TOML text; `UsageError` names the file, the table and the key that is wrong."""
    try:
        raw = parse_toml(text, where)
    except DataError as error:
        raise UsageError(str(error)) from None
    top = _table(raw, RECIPE, where)
    known = PROTOCOL_FIELDS if top["study"] == "grid" else None
    protocols = {
        name: _protocol(fields, known, f"{where}: [protocols.{name}]") for name, fields in top["protocols"].items()
    }
    cells = tuple(_cell(cell, f"{where}: cells[{i}]") for i, cell in enumerate(top["cells"]))
    published = tuple(
        _published(number, protocols, cells, top["study"], f"{where}: published[{i}]")
        for i, number in enumerate(top["published"])
    )
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: two cells are named '{name}'")
    if (top["study"] == "grid") != bool(cells):
        raise UsageError(f'{where}: key \'cells\': study = "grid" has at least one cell, "experiment" has none')
    about = {key: top[key] for key in ("name", "about", "citation", "study")}
    return ParsedRecipe(**about, cells=cells, published=published, deviations=tuple(top["deviations"]))


def _table(raw: Mapping[str, Any], keys: Mapping[str, _Key], where: str) -> dict[str, Any]:
    """Every key with its value, given or default."""
    for name in raw:
        if name not in keys:
            raise UsageError(f"{where}: {unknown('key', name, keys)}")
    values = {}
    for name, key in keys.items():
        if name not in raw and key.required:
            raise UsageError(f"{where}: the key '{name}' is missing; it is {key.words}")
        value = raw.get(name, key.default)
        if name in raw and not key.holds(value):
            raise UsageError(f"{where}: key '{name}': {value!r} is not {key.words}")
        values[name] = value
    return values


def _cell(raw: Mapping[str, Any], where: str) -> RecipeCell:
    values = _table(raw, CELL, where)
    if (values["epochs"] is None) == (values["images"] is None):
        raise UsageError(f"{where}: key 'epochs': give one of 'epochs' and 'images'")
    return RecipeCell(
        name=values["name"],
        dataset=values["dataset"],
        models=tuple(values["models"]),
        priors=tuple(values["priors"]),
        latent_dims=tuple(values["latent-dims"]),
        network=values["network"],
        seeds=values["seeds"],
        batch=values["batch"],
        metrics=tuple(values["metrics"]),
        weighting=values["lambda"],
        epochs=values["epochs"],
        images=values["images"],
        settings=tuple(values["set"]),
        snapshots=values["snapshots"],
        snapshot_metrics=tuple(values["snapshot-metrics"]),
        training=tuple(values["training"]),
    )


def _protocol(raw: Any, known: Sequence[str] | None, where: str) -> dict[str, str]:
    if not isinstance(raw, dict):
        raise UsageError(f"{where}: not a table of the protocol's fields")
    for name, value in raw.items():
        if known is not None and name not in known:
            raise UsageError(f"{where}: {unknown('key', name, known)}")
        if not (_text(value) or _whole(value)):
            raise UsageError(f"{where}: key '{name}': {value!r} is neither a text nor a whole number from 1")
    return {name: str(value) for name, value in raw.items()}


def _published(
    raw: Mapping[str, Any],
    protocols: Mapping[str, Mapping[str, str]],
    cells: Sequence[RecipeCell],
    study: Study,
    where: str,
) -> Published:
    values = _table(raw, PUBLISHED, where)
    if values["protocol"] not in protocols:
        raise UsageError(f"{where}: key 'protocol': {unknown('protocol', values['protocol'], protocols)}")
    for name in values["tolerated"]:
        if name not in protocols[values["protocol"]]:
            raise UsageError(f"{where}: key 'tolerated': the protocol '{values['protocol']}' states no '{name}'")
    if study == "grid":
        named = {cell.name: cell for cell in cells}
        if values["cell"] not in named:
            raise UsageError(f"{where}: key 'cell': {unknown('cell', values['cell'], named)}")
        _inside(values, named[values["cell"]], where)
    elif not values["case"]:
        raise UsageError(f"{where}: the key 'case' is missing; an experiment's number is of a case")
    if (values["value"] is None) != (values["margin"] is None):
        absent = "value" if values["value"] is None else "margin"
        raise UsageError(f"{where}: the key '{absent}' is missing: give 'value' and 'margin', or neither")
    same = ("metric", "source", "cell", "model", "prior", "case", "tolerated")
    rest = {name: values[name] for name in same}
    return Published(
        **rest,
        value=None if values["value"] is None else float(values["value"]),
        margin=values["margin"] or 0.0,
        protocol=protocols[values["protocol"]],
        latent_dim=values["latent-dim"],
        training=tuple(values["training"]),
    )


def _inside(values: Mapping[str, Any], cell: RecipeCell, where: str) -> None:
    """Refuse a number that no run of its cell has, or that runs of two kinds would share."""
    for key, possible in (("model", cell.models), ("prior", cell.priors), ("latent-dim", cell.latent_dims)):
        if not values[key] and len(possible) > 1:
            raise UsageError(f"{where}: the key '{key}' is missing; the cell '{cell.name}' has {possible}")
        if values[key] and values[key] not in possible:
            raise UsageError(f"{where}: key '{key}': {values[key]!r} is not in the cell '{cell.name}': {possible}")
    if values["metric"].split(".")[0] not in cell.metrics:
        raise UsageError(f"{where}: key 'metric': the cell '{cell.name}' measures {', '.join(cell.metrics)}")
