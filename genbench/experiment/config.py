"""The configuration of a study: names and texts as on the command line, and the checks of them that need no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genbench.errors import UsageError, unknown
from genbench.experiment.run import Precision
from genbench.registry.listing import ComponentNames, Kind

ALL_CONTROLS = "all"
"""The name that stands for every registered control."""

OptionTexts = dict[tuple[Kind, str], dict[str, str]]
"""The options given by --set: (kind, name of the component) -> option -> text."""


@dataclass(frozen=True)
class ExperimentConfig:
    """A study as the command line gives it: a grid of models, priors, latent dimensions and seeds, and metrics."""

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
    samplers: tuple[str, ...] = ("prior",)
    precision: Precision = "float32"
    threads: int | None = None
    """CPU threads of a training; None: one for a small step, all of them for a large one."""
    skip_impossible: bool = False
    """Whether combinations that have no meaning are left out; they are refused otherwise."""
    defaulted: frozenset[str] = frozenset()
    """What the user has not set, and what follows a dataset that is too small for it: "batch", "metrics" (those that
    cannot be measured are left out), "options" (the counts of metrics)."""


def check_config(config: ExperimentConfig, registry: ComponentNames) -> None:
    """Raise `UsageError` or `PluginError` for a name or an option that does not exist, or is given twice.

    Values of options are checked when the plug-ins are loaded.
    """
    names = component_names(config, registry)
    for kind, chosen in names.items():
        if not chosen and kind not in ("metric", "control"):
            raise UsageError(f"no {kind} is named; possible: {', '.join(sorted(registry.names(kind)))}")
    check_names(names, registry)
    if len(set(config.latent_dims)) < len(config.latent_dims) or not config.latent_dims:
        raise UsageError(f"--latent-dim {','.join(map(str, config.latent_dims))}: each once, and at least one")
    option_texts(config.settings, names, registry)


def check_metrics(
    metrics: Sequence[str], samplers: Sequence[str], settings: Sequence[str], registry: ComponentNames
) -> None:
    """Raise an error for a metric, a sampler or an option of them that does not exist, or is given twice."""
    names: dict[Kind, tuple[str, ...]] = {"metric": tuple(metrics), "sampler": tuple(samplers)}
    check_names(names, registry)
    option_texts(settings, names, registry)


def check_names(names: Mapping[Kind, Sequence[str]], registry: ComponentNames) -> None:
    """Raise an error for a name that does not exist or is given twice."""
    for kind, chosen in names.items():
        for name in chosen:
            registry.get(kind, name)
            if chosen.count(name) > 1:
                raise UsageError(f"the {kind} '{name}' is named twice")


def component_names(config: ExperimentConfig, registry: ComponentNames) -> dict[Kind, tuple[str, ...]]:
    """The components of a study by kind; snapshot metrics and the selecting metric are among the metrics."""
    further = dict.fromkeys([*config.snapshot_metrics, *([config.select] if config.select is not None else [])])
    return {
        "model": config.models,
        "prior": config.priors,
        "network": (config.network,),
        "dataset": (config.dataset,),
        "metric": (*config.metrics, *(name for name in further if name not in config.metrics)),
        "sampler": config.samplers,
        "control": control_names(config.controls, config.models, registry),
    }


def control_names(given: Sequence[str], models: Sequence[str], registry: ComponentNames) -> tuple[str, ...]:
    """The controls of a study, `all` replaced by every registered one; a model of the same name is refused."""
    for name in given:
        if name != ALL_CONTROLS and name not in registry.names("control") and name in registry.names("model"):
            raise UsageError(
                f"there is no control '{name}': it is a model; put the models first, or write --controls={ALL_CONTROLS}"
            )
    names = tuple(registry.names("control")) if ALL_CONTROLS in given else tuple(given)
    shared = sorted(set(names) & set(models))
    if shared:
        distinct = ",".join(name for name in names if name not in shared)
        remedy = f"name the controls without it, --controls {distinct}" if distinct else "leave --controls off"
        raise UsageError(
            f"'{shared[0]}' names a model and a control of this study, and its rows could be taken for either: {remedy}"
        )
    return names


# ---------------------------------------------------------------- --set


def option_texts(settings: Sequence[str], names: Mapping[Kind, Sequence[str]], registry: ComponentNames) -> OptionTexts:
    """The texts of `--set OWNER.OPTION=VALUE`; the owner is a component of the study, or a kind (all of that kind).

    Raises `UsageError` for a text of another form, an unknown owner or option, and an option that is set twice.
    """
    texts: OptionTexts = {}
    for setting in settings:
        target, equals, value = setting.partition("=")
        owner, dot, option = target.strip().partition(".")
        if not (equals and dot and owner and option):
            raise UsageError(f"--set {setting}: it takes the form NAME.OPTION=VALUE, NAME a component or a kind")
        for kind, name in _owners(owner, names, registry):
            options = texts.setdefault((kind, name), {})
            if option in options:
                raise UsageError(f"--set {setting}: {owner}.{option} is set twice")
            options[option] = value.strip()
    for (kind, name), options in texts.items():
        known = registry.option_names(kind, name)
        for option in options:
            if option.replace("_", "-") not in known:
                raise unknown(f"option '{name}.{option}'; {name} has none called", option, known)
    return texts


def _owners(owner: str, names: Mapping[Kind, Sequence[str]], registry: ComponentNames) -> list[tuple[Kind, str]]:
    """The components that an owner's name stands for."""
    components: list[tuple[Kind, str]] = [(kind, name) for kind, chosen in names.items() for name in chosen]
    by_kind = [(kind, name) for kind, name in components if kind == owner]
    by_name = [(kind, name) for kind, name in components if name == owner]
    if len(by_name) > 1 and not by_kind:
        kinds = " and a ".join(kind for kind, _ in by_name)
        raise UsageError(f"--set {owner}.…: '{owner}' is a {kinds}; say which: {by_name[0][0]}.…")
    if not by_kind and not by_name:
        absent = [kind for kind in names if owner in registry.names(kind)]
        if absent:
            raise UsageError(f"--set {owner}.…: the {absent[0]} '{owner}' is no part of this study")
        raise unknown("part of this study called", owner, {*names, *(name for _, name in components)})
    return by_kind or by_name
