"""From a configuration to checked runs: names, options, data and combinations are checked before anything trains."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genbench.api import DataConfig, DatasetInfo, LatentControl, Noise, Prior
from genbench.api.sampler import DEFAULT_SAMPLER
from genbench.errors import GenbenchError, PluginError, StoreError, UnsupportedError, UsageError
from genbench.experiment.build import (
    check_originals,
    count_parameters,
    create_context,
    create_control,
    create_dataset,
    create_metric,
    create_prior,
    create_sampler,
    create_tracker,
    require_fixed_prior,
)
from genbench.experiment.config import (
    ExperimentConfig,
    OptionTexts,
    PlanError,
    check_config,
    check_names,
    component_names,
    option_texts,
)
from genbench.experiment.run import (
    NONE,
    Component,
    Role,
    Run,
    any_source,
    changes,
    distinct_names,
    split_sampler,
    with_sampler,
)
from genbench.experiment.snapshots import (
    NO_SNAPSHOTS,
    SNAPSHOTS_ADVISED,
    SnapshotSchedule,
    plan_snapshots,
    validation_setting,
)
from genbench.registry.listing import Kind
from genbench.registry.loader import Registry
from genbench.registry.options import complete, specs
from genbench.utils.io import hash_file
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

    Controls come last. `parameters` are the counts of the models' parameters by the name of the run. `notes` say what
    was left out of the study and which counts follow a small dataset, a line each.
    """

    runs: tuple[Run, ...]
    metrics: tuple[Component, ...]
    dataset_info: DatasetInfo
    parameters: Mapping[str, int]
    snapshots: SnapshotSchedule = NO_SNAPSHOTS
    threads: int | None = None
    trackers: tuple[Component, ...] = ()
    notes: tuple[str, ...] = ()

    def size(self, run: Run) -> int:
        """Count of a run's parameters, all optimizers together; 0 for a control, which is counted when it is fitted."""
        return self.parameters.get(run.name, 0)


class _Findings:
    """What a plan finds: the problems, the notes, and the configuration without what was refused."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.config, self.repaired = config, config
        self.problems: dict[str, None] = {}
        self.notes: dict[str, None] = {}

    def refuse(self, problem: str, **changes: Any) -> None:
        """Add a problem, and the changes of the configuration that remove it."""
        self.problems[problem] = None
        self.repaired = replace(self.repaired, **changes)

    def leave_metric_out(self, name: str, problem: str) -> None:
        """A default metric is left out with a note; one that the user has named is refused."""
        if "metrics" in self.config.defaulted and name not in (*self.config.snapshot_metrics, self.config.select):
            self.notes[f"left out: {problem}"] = None
            return
        left = {
            "metrics": tuple(metric for metric in self.repaired.metrics if metric != name),
            "snapshot_metrics": tuple(metric for metric in self.repaired.snapshot_metrics if metric != name),
            "select": None if self.repaired.select == name else self.repaired.select,
        }
        self.refuse(_advised(problem), **left, settings=_without_owner(self.repaired.settings, name))

    def check(self, registry: Registry, data_config: DataConfig) -> None:
        """Raise `PlanError` where there are problems, with a repaired configuration that has been planned."""
        if not self.problems:
            return
        repaired: ExperimentConfig | None = self.repaired
        if self.repaired == self.config or (self.config.metrics and not self.repaired.metrics):
            raise PlanError(tuple(self.problems))
        try:
            plan(self.repaired, registry, data_config)
        except PlanError as error:
            repaired = error.repaired
        except GenbenchError:
            repaired = None
        raise PlanError(tuple(self.problems), self.config, repaired)


def _advised(problem: str) -> str:
    """A problem of a metric; where it names no option that removes it, the metric has to go."""
    return problem if "--" in problem else f"{problem}: leave it out of --metrics"


def _without_owner(settings: Sequence[str], owner: str) -> tuple[str, ...]:
    return tuple(setting for setting in settings if setting.partition(".")[0].strip() != owner)


def plan(config: ExperimentConfig, registry: Registry, data_config: DataConfig) -> Plan:
    """The checked plan of a configuration.

    Raises:
        UsageError: A name or an option does not exist, or a value does not fit it.
        DataError: The dataset is missing or damaged.
        PlanError: The study cannot be done on these data, or combinations have no meaning; it names all of them.
    """
    check_config(config, registry)
    components = create_components(config, registry)
    findings = _Findings(config)

    def named(kind: Kind, names: Iterable[str]) -> list[Component]:
        return [component for name in names for component in components[kind, name]]

    # The runs of models, then those of controls.
    (dataset,) = components["dataset", config.dataset]
    info = dataset_info(registry, dataset, data_config)
    dataset = _with_originals(registry, "dataset", dataset, info.originals)
    batch = _batch(findings, info)
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
            batch,
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
    cells = check_cells(registry, runs, info)
    runs = _possible_runs(findings, runs, cells)
    trained = tuple(run for run in runs if run.role == "model")
    if not trained:
        raise PlanError(tuple(dict.fromkeys(cells.problems.values())))

    # Metrics, at the end and at snapshots.
    given = option_texts(config.settings, component_names(config, registry), registry)
    fit = partial(fit_metric, registry, given=given) if "options" in config.defaulted else None
    measured: list[Component] = []
    for metric in named("metric", config.metrics):
        name, fitted = metric.name, fit(metric, info) if fit else metric
        problems = check_metric(registry, fitted, cells.priors, info, data_config)
        if not problems:
            measured.append(fitted)
            findings.notes |= dict.fromkeys(_fitted_notes(metric, fitted, info))
            continue
        (default,) = _create_components(registry, "metric", name, {})
        default = fit_metric(registry, default, info)
        if not check_metric(registry, default, cells.priors, info, data_config):
            findings.refuse("; ".join(problems), settings=_without_owner(findings.repaired.settings, name))
        else:
            findings.leave_metric_out(name, "; ".join(problems))
    metrics = _with_samplers(registry, list(dict.fromkeys(measured)), named("sampler", config.samplers))
    for sampler in named("sampler", config.samplers):
        for problem in check_sampler(registry, sampler, cells.priors, info):
            left = tuple(name for name in findings.repaired.samplers if name != sampler.name)
            findings.refuse(problem, samplers=left or (DEFAULT_SAMPLER,))

    # Snapshots.
    names = config.snapshot_metrics or [metric.name for metric in measured[: min(1, config.snapshots)]]
    snapshot_metrics = named("metric", dict.fromkeys(names))
    selecting = [] if config.select is None else components["metric", config.select]
    if len(selecting) > 1:
        raise UsageError(f"--select {config.select}: its options have several values; give each of them one")
    select = next(iter(selecting), None)
    if fit:
        validation = replace(info, test=info.validation)
        snapshot_metrics = [fit(metric, validation) for metric in snapshot_metrics]
        select = fit(select, validation) if select else None
    snapshots = NO_SNAPSHOTS
    try:
        snapshots = plan_snapshots(config.snapshots, snapshot_metrics, select, trained, registry, info, data_config)
    except GenbenchError as error:
        findings.refuse(str(error), **_snapshot_repair(findings.repaired, trained[0].dataset, info))
    trackers = tuple(named("tracker", config.trackers))
    for tracker in trackers:
        create_tracker(registry, tracker)  # refuses what it lacks before anything trains
    findings.check(registry, data_config)
    parameters = {run.name: cells.parameters[cell_of(run)] for run in runs}
    return Plan(runs, metrics, info, parameters, snapshots, config.threads, trackers, tuple(findings.notes))


def dataset_info(registry: Registry, dataset: Component, data_config: DataConfig) -> DatasetInfo:
    """The dataset in words; `PluginError` where its plug-in fails, `DataError` where its files are not those known."""
    try:
        info = create_dataset(registry, dataset).info(data_config)
    except (GenbenchError, OSError):
        raise
    except Exception as error:
        cause = describe_error(error)
        raise PluginError(f"the dataset '{dataset.name}' cannot be read: {cause}") from error
    check_originals(dataset, info.originals)
    return info


def _batch(findings: _Findings, info: DatasetInfo) -> int:
    """The images of a step: a default is no more than there are."""
    config = findings.config
    if config.batch <= info.train:
        return config.batch
    if "batch" in config.defaulted and info.train >= 2:
        findings.notes[f"batches of {info.train}, not {config.batch}: there are no more training images"] = None
        return info.train
    problem = f"--batch {config.batch}: the dataset '{config.dataset}' has {info.train:,} training images"
    findings.refuse(f"{problem}: --batch {info.train}" if info.train >= 2 else problem, batch=max(2, info.train))
    return config.batch


def _possible_runs(findings: _Findings, runs: Sequence[Run], cells: Cells) -> tuple[Run, ...]:
    """The runs that have a meaning; the others are refused, or left out with a note."""
    models, priors = distinct_names(run.model for run in runs), distinct_names(run.prior for run in runs)
    for (role, model, _, prior, latent_dim), problem in cells.problems.items():
        if findings.config.skip_impossible:
            name = f"{'control ' * (role == 'control')}{models[model]}, prior {priors[prior]}, d = {latent_dim}"
            findings.notes[f"left out: {name}: {problem}"] = None
        else:
            findings.refuse(problem, skip_impossible=True)
    return tuple(run for run in runs if cell_of(run) not in cells.problems)


def _snapshot_repair(config: ExperimentConfig, dataset: Component, info: DatasetInfo) -> dict[str, Any]:
    """The changes that make the snapshots of a study possible: a number, validation images, or none of them."""
    if not config.snapshots and (config.select or config.snapshot_metrics):
        return {"snapshots": SNAPSHOTS_ADVISED}
    setting = validation_setting(dataset, info)
    if not info.validation and setting:
        return {"settings": (*config.settings, setting)}
    return {"snapshots": 0, "snapshot_metrics": (), "select": None}


def fit_metric(
    registry: Registry, component: Component, info: DatasetInfo, given: OptionTexts | None = None
) -> Component:
    """A metric whose options that were not given follow a dataset too small for their defaults."""
    metric, sampler = split_sampler(component)
    try:
        smaller = create_metric(registry, metric).fit_to(info)
    except GenbenchError:  # options that do not fit each other: `check_metric` says so
        return component
    texts = (given or {}).get(("metric", metric.name), {})
    stated = {option.replace("-", "_") for option in texts}
    options = {**metric.values, **{name: value for name, value in smaller.items() if name not in stated}}
    fitted = replace(metric, options=tuple(sorted(options.items())))
    return fitted if sampler is None else with_sampler(fitted, sampler)


def _fitted_notes(metric: Component, fitted: Component, info: DatasetInfo) -> list[str]:
    """A line on the options that follow the dataset."""
    changed = [f"{metric.name}.{name}={value}" for name, value in fitted.options if metric.values[name] != value]
    return [f"{', '.join(changed)}: there are {info.test:,} test images"] if changed else []


def create_components(config: ExperimentConfig, registry: Registry) -> dict[tuple[Kind, str], tuple[Component, ...]]:
    """The components of a study with the value of every option; not checked against the data.

    A component whose options have several values is there once for each combination of them.

    Raises:
        UsageError: Values do not fit their options; it names all of them.
    """
    names = component_names(config, registry)
    texts = option_texts(config.settings, names, registry)
    created: dict[tuple[Kind, str], tuple[Component, ...]] = {}
    problems: dict[str, None] = {}
    for kind, chosen in names.items():
        for name in chosen:
            try:
                created[kind, name] = _create_components(registry, kind, name, texts.get((kind, name), {}))
            except UsageError as error:
                problems[str(error)] = None
    if problems:
        raise UsageError("; ".join(problems))
    return created


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
    folders: Iterable[tuple[Path, Run]],
    metrics: tuple[Component, ...],
    registry: Registry,
    data_config: DataConfig,
    given: OptionTexts | None = None,
    *,
    leave_out: bool = False,
) -> list[tuple[Path, Plan]]:
    """Plans that evaluate trained runs, each given with its folder: a plan for each store and dataset.

    Options of the metrics that are not `given` follow a small dataset. Metrics that cannot measure these data are
    refused, or left out with a note.
    """
    groups: dict[tuple[Path, Component], list[Run]] = {}
    for path, run in folders:
        if run.name != path.name:
            raise StoreError(f"{path}: the folder of this run must be called {run.name}")
        groups.setdefault((path.parent, run.dataset), []).append(run)
    plans = []
    for (store, dataset), members in groups.items():
        info = dataset_info(registry, dataset, data_config)
        fitted = tuple(fit_metric(registry, metric, info, given) for metric in metrics)
        cells = check_cells(registry, members, info)
        problems, notes, measured = dict.fromkeys(cells.problems.values()), [], []
        for metric, chosen in zip(metrics, fitted, strict=True):
            name, sampler = split_sampler(chosen)
            refused = check_metric(registry, name, cells.priors or (_NoPrior(),), info, data_config)
            if refused and leave_out:
                notes += [f"left out: {problem}" for problem in refused]
                continue
            problems |= dict.fromkeys(map(_advised, refused))
            problems |= dict.fromkeys(check_sampler(registry, sampler, cells.priors, info) if sampler else ())
            notes += _fitted_notes(metric, chosen, info)
            measured.append(chosen)
        if problems:
            raise PlanError(tuple(problems))
        parameters = {run.name: cells.parameters[cell_of(run)] for run in members}
        plans.append((store, Plan(tuple(members), tuple(measured), info, parameters, notes=tuple(notes))))
    return plans


class _NoPrior(Prior):
    """Stands for the prior in the checks of metrics where no run has codes."""

    latent_dim = 1

    def sample(self, n: int, noise: Noise) -> torch.Tensor:
        return noise.normal(n, 1)


def named_components(registry: Registry, kind: Kind, names: Iterable[str], texts: OptionTexts) -> tuple[Component, ...]:
    """The components of these names, once for each combination of the values of their options."""
    return tuple(
        component
        for name in names
        for component in _create_components(registry, kind, name, texts.get((kind, name), {}))
    )


def plan_dataset(
    registry: Registry, name: str, texts: OptionTexts, data_config: DataConfig
) -> tuple[Component, DatasetInfo]:
    """A dataset as it is identified by its files, and what is known of it."""
    (dataset,) = named_components(registry, "dataset", [name], texts)
    info = dataset_info(registry, dataset, data_config)
    return _with_originals(registry, "dataset", dataset, info.originals), info


def changed_sources(new: Iterable[Run], stored: Iterable[Run]) -> Counter[str]:
    """The changes of code and data since stored runs were trained, in words, with the count of those runs.

    `new` are runs without a folder. A stored run counts where a new one equals it in everything else.
    """
    planned = {any_source(run): run for run in new}
    pairs = ((before, planned.get(any_source(before))) for before in stored)
    return Counter(changes(before, run) for before, run in pairs if run is not None)


def _create_components(
    registry: Registry, kind: Kind, name: str, texts: Mapping[str, Sequence[str]]
) -> tuple[Component, ...]:
    """One component for each combination of the options' values, those of the last option varying fastest."""
    registration = registry.get(kind, name)
    components = []
    for values in itertools.product(*texts.values()):
        options = complete(name, registration.spec.factory, dict(zip(texts, values, strict=True)))
        component = Component(name, tuple(sorted(options.items())), registration.plugin.fingerprint)
        components.append(_with_files(registry, kind, component))
    if len(set(components)) < len(components):
        equal = next(option for option, given in texts.items() if len(given) > 1)
        raise UsageError(f"{name}.{equal}={','.join(texts[equal])}: two of these values are equal; give each once")
    return tuple(components)


def _with_files(registry: Registry, kind: Kind, component: Component) -> Component:
    """The component as it is identified by its files of weights; a dataset says itself which files it reads."""
    if kind == "dataset":
        return component
    values = component.values
    files = [Path(str(values[path])).expanduser() for path in _path_options(registry, kind, component.name)]
    hashes = [hash_file(file) for file in files if file.is_file()]
    return _with_originals(registry, kind, component, " ".join(hashes)) if len(hashes) == len(files) else component


def _path_options(registry: Registry, kind: Kind, name: str) -> tuple[str, ...]:
    """The options of a component whose values are paths, by their Python names."""
    known = specs(registry.get(kind, name).spec.factory)
    return tuple(option.replace("-", "_") for option, spec in known.items() if spec.meaning.file)


def _with_originals(registry: Registry, kind: Kind, component: Component, originals: str) -> Component:
    """The component as it is identified by the files that it reads; unchanged where it reads none."""
    if not originals:
        return component
    return replace(component, originals=originals, paths=_path_options(registry, kind, component.name))


def _images_shown(config: ExperimentConfig, info: DatasetInfo) -> int:
    if (config.epochs is None) == (config.images is None):
        raise UsageError("say how long to train with one of --epochs and --images")
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
        prior = create_context(registry, run, info.shape).prior
        control = create_control(registry, run)
        if isinstance(control, LatentControl):
            require_fixed_prior("a control", run, prior)
        control.validate(info, prior)
    except GenbenchError as error:
        raise UnsupportedError(f"the control '{run.model.name}': {error}") from None


# ---------------------------------------------------------------- checks of combinations


CellKey = tuple[Role, Component, Component, Component, int]
"""Role, model, network, prior and latent dimension: runs of one cell differ by seed alone."""


@dataclass(frozen=True)
class Cells:
    """The cells of a grid: parameter counts, the reason why one has no meaning, and the priors that can be drawn."""

    parameters: Mapping[CellKey, int]
    problems: Mapping[CellKey, str]
    priors: tuple[Prior, ...]


def cell_of(run: Run) -> CellKey:
    """The cell of a run."""
    return run.role, run.model, run.network, run.prior, run.latent_dim


def check_cells(registry: Registry, runs: Iterable[Run], info: DatasetInfo) -> Cells:
    """Check each combination of a model or control with a prior; the draws of a prior are checked once."""
    parameters: dict[CellKey, int] = {}
    problems: dict[CellKey, str] = {}
    priors: dict[tuple[Component, int], Prior | str] = {}
    for cell, run in {cell_of(run): run for run in runs}.items():
        parameters[cell] = 0
        try:
            key = (run.prior, run.latent_dim)
            if run.prior == NONE:
                continue
            if key not in priors:
                priors[key] = _drawable_prior(registry, run)
            if isinstance(problem := priors[key], str):
                problems[cell] = problem
            elif run.role == "control":
                check_control(registry, run, info)
            elif run.trains:
                parameters[cell] = count_parameters(registry, run, info.shape)
                check_memory(parameters[cell])
            else:
                require_fixed_prior("a model that was trained elsewhere", run, problem)
        except GenbenchError as error:
            problems[cell] = str(error)
    return Cells(parameters, problems, tuple(prior for prior in priors.values() if not isinstance(prior, str)))


def _drawable_prior(registry: Registry, run: Run) -> Prior | str:
    """The prior of a run, or the reason why it cannot be drawn from."""
    try:
        prior = create_prior(registry, run)
        check_draws(prior, run)
    except GenbenchError as error:
        return str(error)
    return prior


def check_metric(
    registry: Registry, metric: Component, priors: Iterable[Prior], info: DatasetInfo, data_config: DataConfig
) -> list[str]:
    """The reasons why a metric cannot measure such runs; empty where it can."""
    problems: dict[str, None] = {}
    for prior in priors:
        try:
            create_metric(registry, metric).validate(info, prior, data_config)
        except GenbenchError as error:
            problems[str(error)] = None
        except (Exception, SystemExit) as error:
            cause = describe_error(error)
            problems[f"{metric.name} cannot measure a {type(prior).__name__} prior: {cause}"] = None
    return list(problems)


def check_sampler(registry: Registry, sampler: Component, priors: Iterable[Prior], info: DatasetInfo) -> list[str]:
    """The reasons why a sampler has no meaning for a prior or cannot be fitted to so few images; empty where it can."""
    problems: dict[str, None] = {}
    for prior in priors:
        try:
            built = create_sampler(registry, sampler, prior)
            if not built.training_codes:  # else it draws after a fit alone
                check_noise(f"sampler '{sampler.name}'", built.sample)
            elif (codes := min(built.training_codes, info.train)) < built.least_codes:
                problems[
                    f"the sampler '{sampler.name}' needs {built.least_codes:,} codes of training images"
                    f" ({prior.latent_dim} coordinates each) and would be fitted to {codes:,}"
                    + (f": the dataset has {info.train:,}" if codes == info.train else "")
                    + "; its options: genbench list samplers"
                ] = None
        except GenbenchError as error:
            problems[str(error)] = None
    return list(problems)


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
