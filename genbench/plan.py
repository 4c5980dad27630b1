"""From a grid of names to runs that are known to be good: every name, option and pair is checked here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from genbench.api import Place, Prior, Summary
from genbench.controls import check_control, control_names, control_runs
from genbench.errors import GenbenchError, PluginError, Refused, StoreError, UsageError, one_line, unknown
from genbench.options import complete
from genbench.plugins import Catalogue, Kind
from genbench.precision import Precision
from genbench.random import generator
from genbench.runs import Choice, Run, count_parameters, make_dataset, make_metric, make_prior, run_of_record
from genbench.store import RunFolder
from genbench.watch import UNWATCHED, Watch, plan_watch

BYTES_PER_PARAMETER = 16
"""Weights, gradients and Adam's two moments in float32."""


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
    snapshots: int = 0
    snapshot_metrics: tuple[str, ...] = ()
    select: str | None = None
    controls: tuple[str, ...] = ()
    precision: Precision = "float32"


@dataclass(frozen=True)
class Plan:
    """Runs in the order in which they are done, seeds outermost, so that an interrupted study is balanced.

    Controls come last.
    """

    runs: tuple[Run, ...]
    metrics: tuple[Choice, ...]
    summary: Summary
    parameters: Mapping[tuple[str, str, int], int]
    watch: Watch = UNWATCHED

    def size(self, run: Run) -> int:
        """Count of a run's parameters, all players together; 0 for a control, which is counted when it is fitted."""
        return self.parameters[run.model.name, run.prior.name, run.latent_dim]


def plan(grid: Grid, catalogue: Catalogue, place: Place) -> Plan:
    """The checked plan of a grid.

    Raises `UsageError` for unknown names and options, `DataError` for missing data, and `Refused` for pairs that have
    no meaning, all of them named in one line.
    """
    names = _names(grid, catalogue)
    for kind, chosen in names.items():
        if not chosen and kind not in ("metric", "control"):
            raise UsageError(f"no {kind} is named; possible: {', '.join(sorted(catalogue.entries[kind]))}")
        for name in chosen:
            catalogue.get(kind, name)
            if chosen.count(name) > 1:
                raise UsageError(f"the {kind} '{name}' is named twice")
    if len(set(grid.latent_dims)) < len(grid.latent_dims) or not grid.latent_dims:
        raise UsageError(f"--latent-dim {','.join(map(str, grid.latent_dims))}: each once, and at least one")
    choices = choices_of(grid, catalogue)
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
            precision=grid.precision,
        )
        for s in grid.seeds
        for p in grid.priors
        for d in grid.latent_dims
        for m in grid.models
    )
    trained = runs
    runs += control_runs(catalogue, runs, tuple(choices["control", name] for name in names["control"]))
    metrics = tuple(choices["metric", name] for name in grid.metrics)
    parameters = _check_cells(catalogue, runs, metrics, summary, place)
    watched = grid.snapshot_metrics or grid.metrics[: min(1, grid.snapshots)]
    select = None if grid.select is None else choices["metric", grid.select]
    on_the_way = [choices["metric", name] for name in dict.fromkeys(watched)]
    watch = plan_watch(grid.snapshots, on_the_way, select, trained, catalogue, summary, place)
    return Plan(runs, metrics, summary, parameters, watch)


def choices_of(grid: Grid, catalogue: Catalogue) -> dict[tuple[Kind, str], Choice]:
    """Everything that a grid names, with the value of every option; unchecked against the data."""
    names = _names(grid, catalogue)
    texts = _settings(grid.settings, names, catalogue)
    return {
        (kind, name): _choose(catalogue, kind, name, texts.get((kind, name), {}))
        for kind, chosen in names.items()
        for name in chosen
    }


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


def _names(grid: Grid, catalogue: Catalogue) -> dict[Kind, tuple[str, ...]]:
    on_the_way = dict.fromkeys([*grid.snapshot_metrics, *([grid.select] if grid.select is not None else [])])
    return {
        "model": grid.models,
        "prior": grid.priors,
        "network": (grid.network,),
        "dataset": (grid.dataset,),
        "metric": (*grid.metrics, *(name for name in on_the_way if name not in grid.metrics)),
        "control": control_names(grid.controls, grid.models, catalogue),
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
    """The parameter count of every cell; raises one error that names all cells that cannot be.

    What concerns priors alone, draws and metrics, is checked once for all models.
    """
    parameters: dict[tuple[str, str, int], int] = {}
    problems: dict[str, None] = {}
    drawn: dict[tuple[str, int], bool] = {}
    measured: set[tuple[str, int]] = set()
    for run in runs:
        law = (run.prior.name, run.latent_dim)
        cell = (run.model.name, *law)
        if cell in parameters:
            continue
        parameters[cell] = 0
        try:
            if law not in drawn:
                drawn[law] = False
                check_draws(make_prior(catalogue, run), run)
                drawn[law] = True
            if not drawn[law]:
                continue
            if run.role == "control":
                check_control(catalogue, run, summary)
            else:
                parameters[cell] = count_parameters(catalogue, run, summary.shape)
                check_memory(parameters[cell])
            if law not in measured:
                measured.add(law)
                for metric in metrics:
                    make_metric(catalogue, metric).check(summary, make_prior(catalogue, run), place)
        except GenbenchError as error:
            problems[str(error)] = None
    if problems:
        raise Refused("; ".join(problems))
    return parameters


def check_draws(prior: Prior, run: Run) -> None:
    """Refuse a prior whose draws are not what the contract says; a wrong count would go unnoticed in a mean."""
    try:
        draws = prior.sample(7, generator("cpu", 0, "check")), prior.sample_batch(7, generator("cpu", 0, "check"))
    except GenbenchError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"the prior '{run.prior.name}' cannot draw: {type(error).__name__}: {one_line(error)}"
        ) from None
    for drawn in draws:
        if not isinstance(drawn, torch.Tensor):
            raise PluginError(f"the prior '{run.prior.name}' draws a {type(drawn).__name__}, not a tensor")
        wanted = (7, run.latent_dim)
        if drawn.shape != wanted or drawn.dtype != torch.float32 or not drawn.isfinite().all():
            what = f"{tuple(drawn.shape)} {drawn.dtype}" + ("" if drawn.isfinite().all() else " with NaN or infinity")
            raise PluginError(
                f"the prior '{run.prior.name}' draws {what}; 7 draws are {wanted} torch.float32, finite"
                f" (raise Refused in its __init__ where --latent-dim {run.latent_dim} has no meaning)"
            )


def check_memory(parameters: int) -> None:
    """Refuse a model that this machine cannot hold while it trains."""
    if not hasattr(os, "sysconf"):
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if parameters * BYTES_PER_PARAMETER > there:
        needed = parameters * BYTES_PER_PARAMETER / 2**30
        raise Refused(
            f"{parameters:,} parameters need {needed:,.0f} GiB to train; this machine has {there / 2**30:,.0f}"
        )
