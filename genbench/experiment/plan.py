"""From a grid of names to runs that are known to be good: every name, option and pair is checked here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from genbench.api import DataConfig, DatasetInfo, Noise, Prior
from genbench.api.sampler import DEFAULT_SAMPLER
from genbench.errors import GenbenchError, PluginError, StoreError, UnsupportedError, UsageError, one_line, unknown
from genbench.experiment.controls import check_control, control_names, control_runs
from genbench.experiment.run import (
    Component,
    Run,
    count_parameters,
    make_dataset,
    make_metric,
    make_prior,
    make_sampler,
    split_sampler,
    with_sampler,
)
from genbench.experiment.snapshots import NO_SNAPSHOTS, SnapshotSchedule, plan_watch
from genbench.registry.loader import Kind, Registry
from genbench.registry.options import complete
from genbench.training.precision import Precision
from genbench.utils.rng import generator

BYTES_PER_PARAMETER = 16
"""Weights, gradients and Adam's two moments in float32."""


@dataclass(frozen=True)
class ExperimentConfig:
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
    samplers: tuple[str, ...] = (DEFAULT_SAMPLER,)
    precision: Precision = "float32"
    threads: int | None = None
    """CPU threads of a training; None: one for a small step, all of them for a large one."""


@dataclass(frozen=True)
class Plan:
    """Runs in the order in which they are done, seeds outermost, so that an interrupted study is balanced.

    Controls come last.
    """

    runs: tuple[Run, ...]
    metrics: tuple[Component, ...]
    summary: DatasetInfo
    parameters: Mapping[tuple[str, str, int], int]
    watch: SnapshotSchedule = NO_SNAPSHOTS
    threads: int | None = None

    def size(self, run: Run) -> int:
        """Count of a run's parameters, all players together; 0 for a control, which is counted when it is fitted."""
        return self.parameters[run.model.name, run.prior.name, run.latent_dim]


def plan(grid: ExperimentConfig, registry: Registry, place: DataConfig) -> Plan:
    """The checked plan of a grid.

    Raises `UsageError` for unknown names and options, `DataError` for missing data, and `UnsupportedError` for pairs that have
    no meaning, all of them named in one line.
    """
    names = _names(grid, registry)
    for kind, chosen in names.items():
        if not chosen and kind not in ("metric", "control"):
            raise UsageError(f"no {kind} is named; possible: {', '.join(sorted(registry.entries[kind]))}")
        for name in chosen:
            registry.get(kind, name)
            if chosen.count(name) > 1:
                raise UsageError(f"the {kind} '{name}' is named twice")
    if len(set(grid.latent_dims)) < len(grid.latent_dims) or not grid.latent_dims:
        raise UsageError(f"--latent-dim {','.join(map(str, grid.latent_dims))}: each once, and at least one")
    choices = choices_of(grid, registry)
    dataset = choices["dataset", grid.dataset]
    summary = make_dataset(registry, dataset).info(place)
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
    runs += control_runs(registry, runs, tuple(choices["control", name] for name in names["control"]))
    metrics = measured_components(
        registry,
        [choices["metric", name] for name in grid.metrics],
        [choices["sampler", name] for name in grid.samplers],
    )
    parameters = _check_cells(registry, runs, metrics, summary, place)
    watched = grid.snapshot_metrics or grid.metrics[: min(1, grid.snapshots)]
    select = None if grid.select is None else choices["metric", grid.select]
    on_the_way = [choices["metric", name] for name in dict.fromkeys(watched)]
    watch = plan_watch(grid.snapshots, on_the_way, select, trained, registry, summary, place)
    return Plan(runs, metrics, summary, parameters, watch, grid.threads)


def choices_of(grid: ExperimentConfig, registry: Registry) -> dict[tuple[Kind, str], Component]:
    """Everything that a grid names, with the value of every option; unchecked against the data."""
    names = _names(grid, registry)
    texts = _settings(grid.settings, names, registry)
    return {
        (kind, name): _choose(registry, kind, name, texts.get((kind, name), {}))
        for kind, chosen in names.items()
        for name in chosen
    }


def metric_choices(
    registry: Registry, metrics: Sequence[str], settings: Sequence[str], samplers: Sequence[str] = (DEFAULT_SAMPLER,)
) -> tuple[Component, ...]:
    """Metrics by name with their options from `--set metric.option=value`, for measuring old runs."""
    names: dict[Kind, tuple[str, ...]] = {"metric": tuple(metrics), "sampler": tuple(samplers)}
    texts = _settings(settings, names, registry)
    chosen = {
        kind: [_choose(registry, kind, name, texts.get((kind, name), {})) for name in listed]
        for kind, listed in names.items()
    }
    return measured_components(registry, chosen["metric"], chosen["sampler"])


def measured_components(
    registry: Registry, metrics: Sequence[Component], samplers: Sequence[Component]
) -> tuple[Component, ...]:
    """Each metric of samples once for each sampler, any other metric once."""
    measured: list[Component] = []
    for metric in metrics:
        uses_samples = make_metric(registry, metric).uses_samples
        if not uses_samples or any(sampler.name == DEFAULT_SAMPLER for sampler in samplers):
            measured.append(metric)
        if uses_samples:
            measured += [with_sampler(metric, sampler) for sampler in samplers if sampler.name != DEFAULT_SAMPLER]
    return tuple(measured)


def plan_of_runs(
    folders: Sequence[tuple[Path, Run]], metrics: tuple[Component, ...], registry: Registry, place: DataConfig
) -> list[tuple[Path, Plan]]:
    """Plans that measure old runs, each with its folder: one for each store and dataset."""
    groups: dict[tuple[Path, Component], list[Run]] = {}
    for path, run in folders:
        if run.name != path.name:
            raise StoreError(f"{path}: the folder of this run must be called {run.name}")
        groups.setdefault((path.parent, run.dataset), []).append(run)
    plans = []
    for (store, dataset), runs in groups.items():
        summary = make_dataset(registry, dataset).info(place)
        plans.append(
            (store, Plan(tuple(runs), metrics, summary, _check_cells(registry, runs, metrics, summary, place)))
        )
    return plans


def _names(grid: ExperimentConfig, registry: Registry) -> dict[Kind, tuple[str, ...]]:
    on_the_way = dict.fromkeys([*grid.snapshot_metrics, *([grid.select] if grid.select is not None else [])])
    return {
        "model": grid.models,
        "prior": grid.priors,
        "network": (grid.network,),
        "dataset": (grid.dataset,),
        "metric": (*grid.metrics, *(name for name in on_the_way if name not in grid.metrics)),
        "sampler": grid.samplers,
        "control": control_names(grid.controls, grid.models, registry),
    }


def _settings(
    settings: Sequence[str], names: Mapping[Kind, tuple[str, ...]], registry: Registry
) -> dict[tuple[Kind, str], dict[str, str]]:
    """The texts of `--set owner.option=value`; the owner is a name in the grid, or a kind (all of that kind)."""
    found: dict[tuple[Kind, str], dict[str, str]] = {}
    for setting in settings:
        target, equals, value = setting.partition("=")
        owner, dot, option = target.strip().partition(".")
        if not (equals and dot and owner and option):
            raise UsageError(f"--set {setting}: it takes the form NAME.OPTION=VALUE, for example swae.weight=10")
        for place in _owners(owner, names, registry):
            options = found.setdefault(place, {})
            if option in options:
                raise UsageError(f"--set {setting}: {owner}.{option} is set twice")
            options[option] = value.strip()
    return found


def _owners(owner: str, names: Mapping[Kind, tuple[str, ...]], registry: Registry) -> list[tuple[Kind, str]]:
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
        elsewhere = [kind for kind in names if owner in registry.entries[kind]]
        if elsewhere:
            raise UsageError(f"--set {owner}.…: the {elsewhere[0]} '{owner}' is no part of this study")
        raise unknown(
            "part of this study called", owner, {*names, *(name for chosen in names.values() for name in chosen)}
        )
    return places


def _choose(registry: Registry, kind: Kind, name: str, texts: Mapping[str, str]) -> Component:
    entry = registry.get(kind, name)
    options = complete(name, entry.spec.factory, texts)
    return Component(name, tuple(sorted(options.items())), entry.plugin.fingerprint)


def _budget(grid: ExperimentConfig, summary: DatasetInfo) -> int:
    if (grid.epochs is None) == (grid.images is None):
        raise UsageError("say how long to train with one of --epochs and --images")
    if grid.batch > summary.train:
        raise UsageError(f"--batch {grid.batch}: the dataset '{grid.dataset}' has {summary.train} training images")
    return grid.images if grid.images is not None else (grid.epochs or 0) * summary.train


def _check_cells(
    registry: Registry, runs: Iterable[Run], metrics: Iterable[Component], summary: DatasetInfo, place: DataConfig
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
                check_draws(make_prior(registry, run), run)
                drawn[law] = True
            if not drawn[law]:
                continue
            if run.role == "control":
                check_control(registry, run, summary)
            else:
                parameters[cell] = count_parameters(registry, run, summary.shape)
                check_memory(parameters[cell])
            if law not in measured:
                measured.add(law)
                for component in metrics:
                    metric, sampler = split_sampler(component)
                    make_metric(registry, metric).validate(summary, make_prior(registry, run), place)
                    if sampler is not None:
                        make_sampler(registry, sampler, make_prior(registry, run))
        except GenbenchError as error:
            problems[str(error)] = None
    if problems:
        raise UnsupportedError("; ".join(problems))
    return parameters


def check_draws(prior: Prior, run: Run) -> None:
    """Refuse a prior whose draws are not what the contract says; a wrong count would go unnoticed in a mean."""
    try:
        draws = tuple(method(7, Noise(generator("cpu", 0, "check"))) for method in (prior.sample, prior.sample_batch))
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
                f" (raise UnsupportedError in its __init__ where --latent-dim {run.latent_dim} has no meaning)"
            )


def check_memory(parameters: int) -> None:
    """Refuse a model that this machine cannot hold while it trains."""
    if not hasattr(os, "sysconf"):
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if parameters * BYTES_PER_PARAMETER > there:
        needed = parameters * BYTES_PER_PARAMETER / 2**30
        raise UnsupportedError(
            f"{parameters:,} parameters need {needed:,.0f} GiB to train; this machine has {there / 2**30:,.0f}"
        )
