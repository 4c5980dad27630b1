"""From a grid of names to runs that are known to be good: every name, option and pair is checked here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from genbench.api import Dataset, Metric, Model, Network, Place, Prior, Setting, Shape, Summary
from genbench.errors import GenbenchError, PluginError, Refused, StoreError, UsageError, unknown
from genbench.options import Value, complete
from genbench.plugins import Catalogue, Kind
from genbench.store import RunFolder

T = TypeVar("T")

TRAINING = 1
"""Raised when the core changes in a way that changes trained weights: runs of another number are other runs."""


@dataclass(frozen=True)
class Choice:
    """An offer by name with every option's value and the fingerprint of the source that offers it."""

    name: str
    options: tuple[tuple[str, Value], ...]
    fingerprint: str

    @property
    def values(self) -> dict[str, Value]:
        """The options as keyword arguments."""
        return dict(self.options)

    @property
    def key(self) -> str:
        """Eight hexadecimal digits of everything in the choice."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Run:
    """One training: what affects the weights, and nothing else.

    `images` counts the images shown, repeats included; the last batch may exceed it.
    """

    dataset: Choice
    model: Choice
    prior: Choice
    network: Choice
    latent_dim: int
    seed: int
    images: int
    batch: int

    @property
    def key(self) -> str:
        """A hash of everything that affects the weights."""
        text = json.dumps([TRAINING, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def name(self) -> str:
        """The name of the run's folder: readable, and unique by the key."""
        return f"{self.dataset.name}-{self.model.name}-{self.prior.name}-{self.latent_dim}d-s{self.seed}-{self.key}"

    def record(self) -> dict[str, Any]:
        """The run as JSON data, options by name."""
        plain = asdict(self)
        for kind in ("dataset", "model", "prior", "network"):
            plain[kind]["options"] = dict(plain[kind]["options"])
        return plain


@dataclass(frozen=True)
class Grid:
    """What the command line asks for, still as names and texts."""

    models: tuple[str, ...]
    dataset: str
    priors: tuple[str, ...]
    latent_dims: tuple[int, ...]
    network: str
    seeds: tuple[int, ...]
    batch: int
    metrics: tuple[str, ...]
    epochs: int | None = None
    images: int | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Runs in the order in which they are done, seeds outermost, so that an interrupted study is balanced."""

    runs: tuple[Run, ...]
    metrics: tuple[Choice, ...]
    summary: Summary
    parameters: Mapping[tuple[str, str, int], int]

    def size(self, run: Run) -> int:
        """Count of a run's parameters, all players together."""
        return self.parameters[run.model.name, run.prior.name, run.latent_dim]


def plan(grid: Grid, catalogue: Catalogue, place: Place) -> Plan:
    """The checked plan of a grid.

    Raises `UsageError` for unknown names and options, `DataError` for missing data, and `Refused` for pairs that have
    no meaning, all of them named in one line.
    """
    names = _names(grid)
    for kind, chosen in names.items():
        for name in chosen:
            catalogue.get(kind, name)
            if chosen.count(name) > 1:
                raise UsageError(f"the {kind} '{name}' is named twice")
    texts = _settings(grid.settings, names, catalogue)
    choices = {
        (kind, name): _choose(catalogue, kind, name, texts.get((kind, name), {}))
        for kind, chosen in names.items()
        for name in chosen
    }
    dataset = choices["dataset", grid.dataset]
    summary = make_dataset(catalogue, dataset).inspect(place)
    images = _budget(grid, summary)
    runs = tuple(
        Run(
            dataset,
            choices["model", m],
            choices["prior", p],
            choices["network", grid.network],
            d,
            s,
            images,
            grid.batch,
        )
        for s in grid.seeds
        for p in grid.priors
        for d in grid.latent_dims
        for m in grid.models
    )
    metrics = tuple(choices["metric", name] for name in grid.metrics)
    parameters = _check_cells(catalogue, runs, metrics, summary, place)
    return Plan(runs, metrics, summary, parameters)


def run_of_record(record: Mapping[str, Any]) -> Run:
    """The run that `Run.record` describes; `StoreError` where it does not describe one."""
    try:
        choices = {
            kind: Choice(
                record[kind]["name"], tuple(sorted(record[kind]["options"].items())), record[kind]["fingerprint"]
            )
            for kind in ("dataset", "model", "prior", "network")
        }
        counts = {name: int(record[name]) for name in ("latent_dim", "seed", "images", "batch")}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"the record describes no run: {type(error).__name__} {error}") from None
    return Run(**choices, **counts)  # type: ignore[arg-type]  # mypy cannot see which names stand in which


def metric_choices(catalogue: Catalogue, metrics: Sequence[str], settings: Sequence[str]) -> tuple[Choice, ...]:
    """Metrics by name with their options from `--set metric.option=value`, for measuring old runs."""
    names: dict[Kind, tuple[str, ...]] = {"metric": tuple(metrics)}
    for name in metrics:
        catalogue.get("metric", name)
    texts = _settings(settings, names, catalogue)
    return tuple(_choose(catalogue, "metric", name, texts.get(("metric", name), {})) for name in metrics)


def plan_of_runs(
    folders: Sequence[RunFolder], metrics: tuple[Choice, ...], catalogue: Catalogue, place: Place
) -> list[tuple[Path, Plan]]:
    """Plans that measure old runs: one for each store and dataset."""
    groups: dict[tuple[Path, Choice], list[Run]] = {}
    for folder in folders:
        run = run_of_record(folder.record()["run"])
        if run.name != folder.name:
            raise StoreError(f"{folder.path}: the folder of this run must be called {run.name}")
        groups.setdefault((folder.path.parent, run.dataset), []).append(run)
    plans = []
    for (store, dataset), runs in groups.items():
        summary = make_dataset(catalogue, dataset).inspect(place)
        plans.append(
            (store, Plan(tuple(runs), metrics, summary, _check_cells(catalogue, runs, metrics, summary, place)))
        )
    return plans


def _names(grid: Grid) -> dict[Kind, tuple[str, ...]]:
    return {
        "model": grid.models,
        "prior": grid.priors,
        "network": (grid.network,),
        "dataset": (grid.dataset,),
        "metric": grid.metrics,
    }


def _settings(
    settings: Sequence[str], names: Mapping[Kind, tuple[str, ...]], catalogue: Catalogue
) -> dict[tuple[Kind, str], dict[str, str]]:
    """The texts of `--set owner.option=value`; the owner is a name in the grid, or a kind (all of that kind)."""
    found: dict[tuple[Kind, str], dict[str, str]] = {}
    for setting in settings:
        target, equals, value = setting.partition("=")
        owner, dot, option = target.strip().partition(".")
        if not (equals and dot and owner and option):
            raise UsageError(f"--set {setting}: it takes the form NAME.OPTION=VALUE, for example swae.weight=10")
        for place in _owners(owner, names, catalogue):
            options = found.setdefault(place, {})
            if option in options:
                raise UsageError(f"--set {setting}: {owner}.{option} is set twice")
            options[option] = value.strip()
    return found


def _owners(owner: str, names: Mapping[Kind, tuple[str, ...]], catalogue: Catalogue) -> list[tuple[Kind, str]]:
    by_kind: list[tuple[Kind, str]] = [
        (kind, name) for kind, chosen in names.items() if kind == owner for name in chosen
    ]
    by_name: list[tuple[Kind, str]] = [
        (kind, name) for kind, chosen in names.items() for name in chosen if name == owner
    ]
    places = by_kind or by_name
    if len(by_name) > 1 and not by_kind:
        kinds = " and a ".join(kind for kind, _ in by_name)
        raise UsageError(f"--set {owner}.…: '{owner}' is a {kinds}; say which: {by_name[0][0]}.…")
    if not places:
        elsewhere = [kind for kind in names if owner in catalogue.entries[kind]]
        if elsewhere:
            raise UsageError(f"--set {owner}.…: the {elsewhere[0]} '{owner}' is no part of this study")
        raise unknown(
            "part of this study called", owner, {*names, *(name for chosen in names.values() for name in chosen)}
        )
    return places


def _choose(catalogue: Catalogue, kind: Kind, name: str, texts: Mapping[str, str]) -> Choice:
    entry = catalogue.get(kind, name)
    options = complete(name, entry.offer.make, texts)
    return Choice(name, tuple(sorted(options.items())), entry.plugin.fingerprint)


def _budget(grid: Grid, summary: Summary) -> int:
    if (grid.epochs is None) == (grid.images is None):
        raise UsageError("say how long to train with one of --epochs and --images")
    if grid.batch > summary.train:
        raise UsageError(f"--batch {grid.batch}: the dataset '{grid.dataset}' has {summary.train} training images")
    return grid.images if grid.images is not None else (grid.epochs or 0) * summary.train


def _check_cells(
    catalogue: Catalogue, runs: Iterable[Run], metrics: Iterable[Choice], summary: Summary, place: Place
) -> dict[tuple[str, str, int], int]:
    """The parameter count of every cell; raises one error that names all cells that cannot be."""
    parameters: dict[tuple[str, str, int], int] = {}
    problems: dict[str, None] = {}
    for run in runs:
        cell = (run.model.name, run.prior.name, run.latent_dim)
        if cell in parameters:
            continue
        parameters[cell] = 0
        try:
            parameters[cell] = count_parameters(catalogue, run, summary.shape)
            for metric in metrics:
                make_metric(catalogue, metric).check(summary, make_prior(catalogue, run), place)
        except GenbenchError as error:
            problems[str(error)] = None
    if problems:
        raise Refused("; ".join(problems))
    return parameters


def count_parameters(catalogue: Catalogue, run: Run, shape: Shape) -> int:
    """Parameters of a run's model, built without memory for its weights; surfaces what the model refuses."""
    with torch.device("meta"):
        model = make_model(catalogue, run, shape)
    return sum(parameter.numel() for parameter in model.parameters())


# ---------------------------------------------------------------- from choices to things


def make_prior(catalogue: Catalogue, run: Run) -> Prior:
    """The prior of a run; kept on the CPU whatever the default device."""
    with torch.device("cpu"):
        return _made(catalogue, "prior", run.prior, Prior, run.latent_dim)


def make_model(catalogue: Catalogue, run: Run, shape: Shape) -> Model:
    """A run's untrained model on the default device, weights from torch's global random state."""
    network = _made(catalogue, "network", run.network, Network, shape)
    setting = Setting(shape, run.latent_dim, make_prior(catalogue, run), network)
    return _made(catalogue, "model", run.model, Model, setting)


def make_dataset(catalogue: Catalogue, choice: Choice) -> Dataset:
    """The dataset of a choice."""
    return _made(catalogue, "dataset", choice, Dataset)


def make_metric(catalogue: Catalogue, choice: Choice) -> Metric:
    """The metric of a choice."""
    return _made(catalogue, "metric", choice, Metric)


def _made(catalogue: Catalogue, kind: Kind, choice: Choice, wanted: type[T], *arguments: object) -> T:
    entry = catalogue.get(kind, choice.name)
    try:
        thing = entry.offer.make(*arguments, **choice.values)
    except GenbenchError:
        raise
    except Exception as error:
        raise PluginError(f"the {kind} '{choice.name}' cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(thing, wanted):
        raise PluginError(
            f"the {kind} '{choice.name}' made a {type(thing).__name__}, not a genbench.api.{wanted.__name__}"
        )
    return thing
