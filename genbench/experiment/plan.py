"""From a configuration to checked runs: names, options, data and combinations are checked before anything trains."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from genbench.api import DataConfig, DatasetInfo, LatentControl, Noise, Prior
from genbench.api.sampler import DEFAULT_SAMPLER
from genbench.errors import GenbenchError, PluginError, StoreError, UnsupportedError, UsageError
from genbench.experiment.build import (
    count_parameters,
    create_context,
    create_control,
    create_dataset,
    create_metric,
    create_prior,
    create_sampler,
    create_tracker,
)
from genbench.experiment.config import ExperimentConfig, check_config, check_names, component_names, option_texts
from genbench.experiment.run import COMPONENTS, Component, Run, split_sampler, with_sampler
from genbench.experiment.snapshots import NO_SNAPSHOTS, SnapshotSchedule, plan_snapshots
from genbench.registry.listing import Kind
from genbench.registry.loader import Registry
from genbench.registry.options import complete
from genbench.utils.plugin_code import describe_error
from genbench.utils.rng import generator

NOISE_REMEDY = (
    "draw by noise.normal(...) or noise.uniform(...), or give torch's functions generator=noise.generator"
    " (torch.distributions cannot be seeded: transform uniform draws, as by icdf)"
)
BYTES_PER_PARAMETER = 16
"""Weights, gradients and Adam's two moments in float32."""


@dataclass(frozen=True)
class Plan:
    """Runs in the order in which they are done: seeds outermost, so that an interrupted study is balanced.

    Controls come last. `parameters` are the counts of the models' parameters by the name of the run.
    """

    runs: tuple[Run, ...]
    metrics: tuple[Component, ...]
    dataset_info: DatasetInfo
    parameters: Mapping[str, int]
    snapshots: SnapshotSchedule = NO_SNAPSHOTS
    threads: int | None = None
    trackers: tuple[Component, ...] = ()

    def size(self, run: Run) -> int:
        """Count of a run's parameters, all optimizers together; 0 for a control, which is counted when it is fitted."""
        return self.parameters.get(run.name, 0)


def plan(config: ExperimentConfig, registry: Registry, data_config: DataConfig) -> Plan:
    """The checked plan of a configuration.

    Raises `UsageError` for unknown names and options, `DataError` for missing data, and `UnsupportedError` for
    combinations that have no meaning, all of them named in one line.
    """
    check_config(config, registry)
    components = create_components(config, registry)

    def named(kind: Kind, names: Iterable[str]) -> list[Component]:
        return [component for name in names for component in components[kind, name]]

    # The runs of models, then those of controls.
    (dataset,) = components["dataset", config.dataset]
    info = create_dataset(registry, dataset).info(data_config)
    images = _images_shown(config, info)
    trained = tuple(
        Run(
            dataset,
            model,
            prior,
            network,
            latent_dim,
            seed,
            images,
            config.batch,
            precision=config.precision,
        )
        for seed in config.seeds
        for prior in named("prior", config.priors)
        for latent_dim in config.latent_dims
        for network in named("network", [config.network])
        for model in named("model", config.models)
    )
    controls = named("control", (name for kind, name in components if kind == "control"))
    runs = trained + control_runs(registry, trained, controls)

    # Metrics, at the end and at snapshots.
    metrics = _with_samplers(
        registry,
        named("metric", config.metrics),
        named("sampler", config.samplers),
    )
    parameters = _check_runs(registry, runs, metrics, info, data_config)
    names = config.snapshot_metrics or config.metrics[: min(1, config.snapshots)]
    snapshot_metrics = named("metric", dict.fromkeys(names))
    selecting = [] if config.select is None else components["metric", config.select]
    if len(selecting) > 1:
        raise UsageError(f"--select {config.select}: its options have several values; give each of them one")
    select = next(iter(selecting), None)
    snapshots = plan_snapshots(config.snapshots, snapshot_metrics, select, trained, registry, info, data_config)
    trackers = tuple(component for name in config.trackers for component in components["tracker", name])
    for tracker in trackers:
        create_tracker(registry, tracker)  # refuses what it lacks before anything trains
    return Plan(runs, metrics, info, parameters, snapshots, config.threads, trackers)


def create_components(config: ExperimentConfig, registry: Registry) -> dict[tuple[Kind, str], tuple[Component, ...]]:
    """The components of a study with the value of every option; not checked against the data.

    A component whose options have several values is there once for each combination of them.
    """
    names = component_names(config, registry)
    texts = option_texts(config.settings, names, registry)
    return {
        (kind, name): _create_components(registry, kind, name, texts.get((kind, name), {}))
        for kind, chosen in names.items()
        for name in chosen
    }


def create_metric_components(
    registry: Registry, metrics: Sequence[str], settings: Sequence[str], samplers: Sequence[str] = (DEFAULT_SAMPLER,)
) -> tuple[Component, ...]:
    """Metrics by name with their options from `--set METRIC.OPTION=VALUE`, for evaluating trained runs."""
    names: dict[Kind, tuple[str, ...]] = {"metric": tuple(metrics), "sampler": tuple(samplers)}
    check_names(names, registry)
    texts = option_texts(settings, names, registry)
    components = {
        kind: [
            component
            for name in chosen
            for component in _create_components(registry, kind, name, texts.get((kind, name), {}))
        ]
        for kind, chosen in names.items()
    }
    return _with_samplers(registry, components["metric"], components["sampler"])


def _with_samplers(
    registry: Registry, metrics: Sequence[Component], samplers: Sequence[Component]
) -> tuple[Component, ...]:
    """Each metric of samples once for each sampler, any other metric once."""
    measured: list[Component] = []
    for metric in metrics:
        uses_samples = create_metric(registry, metric).uses_samples
        if not uses_samples or any(sampler.name == DEFAULT_SAMPLER for sampler in samplers):
            measured.append(metric)
        if uses_samples:
            measured += [with_sampler(metric, sampler) for sampler in samplers if sampler.name != DEFAULT_SAMPLER]
    return tuple(measured)


def plan_of_runs(
    folders: Iterable[tuple[Path, Run]], metrics: tuple[Component, ...], registry: Registry, data_config: DataConfig
) -> list[tuple[Path, Plan]]:
    """Plans that evaluate trained runs, each given with its folder: a plan for each store and dataset."""
    groups: dict[tuple[Path, Component], list[Run]] = {}
    for path, run in folders:
        if run.name != path.name:
            raise StoreError(f"{path}: the folder of this run must be called {run.name}")
        groups.setdefault((path.parent, run.dataset), []).append(run)
    plans = []
    for (store, dataset), members in groups.items():
        info = create_dataset(registry, dataset).info(data_config)
        parameters = _check_runs(registry, members, metrics, info, data_config)
        plans.append((store, Plan(tuple(members), metrics, info, parameters)))
    return plans


def changed_sources(new: Iterable[Run], stored: Iterable[Run]) -> Counter[str]:
    """The components whose source has changed since stored runs were trained, with the count of new runs of each.

    `new` are runs without a folder. One counts where a stored run equals it in everything but fingerprints.
    """
    earlier: dict[Run, list[Run]] = {}
    for run in stored:
        earlier.setdefault(_without_fingerprints(run), []).append(run)
    changed: Counter[str] = Counter()
    for run in new:
        names = {
            f"{run.role if field == 'model' else field} '{getattr(run, field).name}'"
            for candidate in earlier.get(_without_fingerprints(run), ())
            for field in COMPONENTS
            if getattr(candidate, field).fingerprint != getattr(run, field).fingerprint
        }
        changed.update(names)
    return changed


def _without_fingerprints(run: Run) -> Run:
    components = {field: replace(getattr(run, field), fingerprint="") for field in COMPONENTS}
    return replace(run, **components)


def _create_components(
    registry: Registry, kind: Kind, name: str, texts: Mapping[str, Sequence[str]]
) -> tuple[Component, ...]:
    """One component for each combination of the options' values, those of the last option varying fastest."""
    registration = registry.get(kind, name)
    components = []
    for values in itertools.product(*texts.values()):
        options = complete(name, registration.spec.factory, dict(zip(texts, values, strict=True)))
        components.append(Component(name, tuple(sorted(options.items())), registration.plugin.fingerprint))
    if len(set(components)) < len(components):
        equal = next(option for option, given in texts.items() if len(given) > 1)
        raise UsageError(f"{name}.{equal}={','.join(texts[equal])}: two of these values are equal; give each once")
    return tuple(components)


def _images_shown(config: ExperimentConfig, info: DatasetInfo) -> int:
    if (config.epochs is None) == (config.images is None):
        raise UsageError("say how long to train with one of --epochs and --images")
    if config.batch > info.train:
        raise UsageError(f"--batch {config.batch}: the dataset '{config.dataset}' has {info.train} training images")
    return config.images if config.images is not None else (config.epochs or 0) * info.train


# ---------------------------------------------------------------- controls


def control_runs(registry: Registry, runs: Sequence[Run], controls: Sequence[Component]) -> tuple[Run, ...]:
    """The runs of controls, at the first seed of a study: they are fitted in closed form and store no weights.

    A control with codes has a run for each prior and latent dimension, any other control one run, at the first of both.
    """
    seed = runs[0].seed
    priors = list(dict.fromkeys((run.prior, run.latent_dim) for run in runs))
    planned: list[Run] = []
    for control in controls:
        run = replace(runs[0], model=control, seed=seed, images=0, batch=0, role="control", precision="float32")
        latent = isinstance(create_control(registry, run), LatentControl)
        planned += [replace(run, prior=prior, latent_dim=dim) for prior, dim in (priors if latent else priors[:1])]
    return tuple(planned)


def check_control(registry: Registry, run: Run, info: DatasetInfo) -> None:
    """Raise `UnsupportedError` for a control that the data or the prior do not allow."""
    try:
        create_context(registry, run, info.shape)
        create_control(registry, run).validate(info, create_prior(registry, run))
    except GenbenchError as error:
        raise UnsupportedError(f"the control '{run.model.name}': {error}") from None


# ---------------------------------------------------------------- checks of combinations


def _check_runs(
    registry: Registry, runs: Iterable[Run], metrics: Iterable[Component], info: DatasetInfo, data_config: DataConfig
) -> dict[str, int]:
    """The parameter counts by run; raises one error that names all combinations that have no meaning.

    Draws and metrics depend on the prior alone and are checked once for all models.
    """
    counts: dict[tuple[Component, Component, Component, int], int] = {}
    problems: dict[str, None] = {}
    drawable: dict[tuple[Component, int], bool] = {}
    checked_metrics: set[tuple[Component, int]] = set()
    runs = tuple(runs)
    for run in runs:
        prior = (run.prior, run.latent_dim)
        combination = (run.model, run.network, *prior)
        if combination in counts:
            continue
        counts[combination] = 0
        try:
            if prior not in drawable:
                drawable[prior] = False
                check_draws(create_prior(registry, run), run)
                drawable[prior] = True
            if not drawable[prior]:
                continue
            if run.role == "control":
                check_control(registry, run, info)
            else:
                counts[combination] = count_parameters(registry, run, info.shape)
                check_memory(counts[combination])
            if prior not in checked_metrics:
                checked_metrics.add(prior)
                for component in metrics:
                    metric, sampler = split_sampler(component)
                    create_metric(registry, metric).validate(info, create_prior(registry, run), data_config)
                    if sampler is not None:
                        built = create_sampler(registry, sampler, create_prior(registry, run))
                        if not built.training_codes:  # else it draws after a fit alone
                            check_noise(f"sampler '{sampler.name}'", built.sample)
        except GenbenchError as error:
            problems[str(error)] = None
    if problems:
        raise UnsupportedError("; ".join(problems))
    return {run.name: counts[run.model, run.network, run.prior, run.latent_dim] for run in runs}


def check_draws(prior: Prior, run: Run) -> None:
    """Refuse a prior whose draws break the contract; a wrong count of draws would not be noticed in a mean."""
    methods = (prior.sample, prior.sample_batch)
    try:
        batches = tuple(method(7, Noise(generator("cpu", 0, "check"))) for method in methods)
    except GenbenchError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"the prior '{run.prior.name}' cannot draw: {describe_error(error)}") from None
    for draws in batches:
        if not isinstance(draws, torch.Tensor):
            raise PluginError(f"the prior '{run.prior.name}' draws a {type(draws).__name__}, not a tensor")
        shape = (7, run.latent_dim)
        if draws.shape != shape or draws.dtype != torch.float32 or not draws.isfinite().all():
            given = f"{tuple(draws.shape)} {draws.dtype}" + ("" if draws.isfinite().all() else " with NaN or infinity")
            raise PluginError(
                f"the prior '{run.prior.name}' draws {given}; 7 draws are {shape} torch.float32, finite"
                f" (raise UnsupportedError in its __init__ where --latent-dim {run.latent_dim} has no meaning)"
            )
    for method in methods:
        check_noise(f"prior '{run.prior.name}'", method)


def check_noise(what: str, draw: Callable[[int, Noise], torch.Tensor]) -> None:
    """Refuse a component whose draws from equal noise differ: they come from torch's global state."""
    first, second = (draw(7, Noise(generator("cpu", 0, "check"))) for _ in range(2))
    if not torch.equal(first, second):
        raise PluginError(
            f"the {what} ignores its noise: two draws from equal noise differ, and no run could be repeated;"
            f" {NOISE_REMEDY}"
        )


def check_memory(parameters: int) -> None:
    """Refuse a model that this machine cannot hold while it trains."""
    if not hasattr(os, "sysconf"):
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if parameters * BYTES_PER_PARAMETER > memory:
        needed = parameters * BYTES_PER_PARAMETER / 2**30
        raise UnsupportedError(
            f"{parameters:,} parameters need {needed:,.0f} GiB to train; this machine has {memory / 2**30:,.0f}"
        )
