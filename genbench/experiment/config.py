"""The configuration of a study: names and texts as on the command line, and the checks of them that need no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genbench.errors import GenbenchError, UnsupportedError, UsageError, printable, unknown
from genbench.experiment.run import Precision
from genbench.registry.listing import ComponentNames, Kind

ALL_CONTROLS = "all"
"""The name that stands for every registered control."""

OptionTexts = dict[tuple[Kind, str], dict[str, tuple[str, ...]]]
"""The options given by --set: (kind, name of the component) -> option, with hyphens -> the text of each value."""


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
    trackers: tuple[str, ...] = ()
    precision: Precision = "float32"
    threads: int | None = None
    """CPU threads of a training; None: one for a small step, all of them for a large one."""
    skip_impossible: bool = False
    """Whether combinations that have no meaning are left out; they are refused otherwise."""
    defaulted: frozenset[str] = frozenset()
    """What the user has not set, and what follows a dataset that is too small for it: "batch", "metrics" (those that
    cannot be measured are left out), "options" (the counts of metrics)."""


class PlanError(UnsupportedError):
    """Everything that is wrong with a study.

    Attributes:
        problems: A sentence for each.
        config: The configuration that was refused; None for evaluations of trained runs.
        repaired: A configuration near it that was planned without a problem; None where there is none.
    """

    def __init__(
        self,
        problems: Sequence[str],
        config: ExperimentConfig | None = None,
        repaired: ExperimentConfig | None = None,
    ) -> None:
        super().__init__("; ".join(problems))
        self.problems, self.config, self.repaired = tuple(problems), config, repaired


def check_config(config: ExperimentConfig, registry: ComponentNames) -> None:
    """Raise `UsageError` or `PluginError` for a name or an option that does not exist, or a name given twice.

    Values of options are checked when the plug-ins are loaded.
    """
    names = component_names(config, registry)
    for kind, chosen in names.items():
        if not chosen and kind not in ("metric", "control", "tracker"):
            raise UsageError(f"no {kind} is named; possible: {', '.join(sorted(registry.names(kind)))}")
    check_names(names, registry)
    if len(set(config.latent_dims)) < len(config.latent_dims) or not config.latent_dims:
        raise UsageError(f"--latent-dim {','.join(map(str, config.latent_dims))}: each once, and at least one")
    option_texts(config.settings, names, registry)


def check_metrics(
    metrics: Sequence[str], samplers: Sequence[str], settings: Sequence[str], registry: ComponentNames
) -> None:
    """Raise an error for a metric, a sampler or an option of them that does not exist, or a name given twice."""
    names: dict[Kind, tuple[str, ...]] = {"metric": tuple(metrics), "sampler": tuple(samplers)}
    check_names(names, registry)
    option_texts(settings, names, registry)


def check_names(names: Mapping[Kind, Sequence[str]], registry: ComponentNames) -> None:
    """Raise an error that names every component that does not exist or is given twice."""
    problems: list[GenbenchError] = []
    for kind, chosen in names.items():
        for name in dict.fromkeys(chosen):
            try:
                registry.get(kind, name)
            except GenbenchError as error:
                problems.append(error)
                continue
            if chosen.count(name) > 1:
                text = f"the {kind} '{name}' is named twice; to compare values of an option: --set {name}.OPTION=A,B"
                problems.append(UsageError(text))
    if len(problems) > 1:
        raise UsageError("; ".join(map(str, problems)))
    if problems:
        raise problems[0]


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
        "tracker": config.trackers,
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

    Several values are several components: separated by commas, unless the option is a text, or by a setting for each.
    Raises `UsageError` for a text of another form, an unknown owner or option, a value that is given twice, and an
    option that is set both by the name and by the kind of its component.
    """
    texts: OptionTexts = {}
    owners: dict[tuple[Kind, str, str], str] = {}
    for setting in settings:
        if setting != printable(setting):
            raise UsageError(
                f"--set {setting}: a value is stored with each run and has to be UTF-8: rename the file or folder, or"
                " make a link to it with another name (ln -s)"
            )
        target, equals, value = setting.partition("=")
        owner, dot, option = target.strip().partition(".")
        if not (equals and dot and owner and option):
            raise UsageError(f"--set {setting}: {_form(target.strip(), value, names, registry)}")
        for kind, name in _owners(owner, option, names, registry):
            known, option = registry.option_kinds(kind, name), option.replace("_", "-")
            if option not in known:
                raise unknown(f"option '{name}.{option}'; {name} has none called", option, known)
            if owners.setdefault((kind, name, option), owner) != owner:
                before = owners[kind, name, option]
                raise UsageError(f"{name}.{option} is set by {before}.{option} and by {owner}.{option}: leave one off")
            options = texts.setdefault((kind, name), {})
            options[option] = (*options.get(option, ()), *_values(value, known[option]))
            if len(set(options[option])) < len(options[option]):
                raise UsageError(
                    f"--set {setting}: {owner}.{option} has a value twice ({','.join(options[option])}); to compare"
                    f" values give each once: --set {owner}.{option}=A,B"
                )
            if kind == "dataset" and len(options[option]) > 1:
                raise UsageError(
                    f"--set {setting}: a study has one dataset: run the command once for each value of {name}.{option}"
                )
    return texts


def _values(text: str, option_kind: str) -> tuple[str, ...]:
    """The values in a text of `--set`: separated by commas, which are part of the value where the option is a text."""
    is_text = option_kind.split("|")[0] == "str"
    return (text.strip(),) if is_text else tuple(value.strip() for value in text.split(","))


def _form(target: str, value: str, names: Mapping[Kind, Sequence[str]], registry: ComponentNames) -> str:
    """How a setting is written; for an option without its owner, which components of the study have it."""
    option = target.replace("_", "-")
    owners = [name for kind, chosen in names.items() for name in chosen if option in registry.option_kinds(kind, name)]
    if owners and option:
        settings = " or ".join(f"--set {owner}.{option}={value or 'VALUE'}" for owner in owners)
        return f"{option} is an option of {' and '.join(owners)}: {settings}"
    return "it takes the form NAME.OPTION=VALUE, NAME a component or a kind (see `genbench list`)"


def _owners(
    owner: str, option: str, names: Mapping[Kind, Sequence[str]], registry: ComponentNames
) -> list[tuple[Kind, str]]:
    """The components that an owner's name stands for."""
    components: list[tuple[Kind, str]] = [(kind, name) for kind, chosen in names.items() for name in chosen]
    by_kind = [(kind, name) for kind, name in components if kind == owner]
    by_name = [(kind, name) for kind, name in components if name == owner]
    if len(by_name) > 1 and not by_kind:
        kinds = " and a ".join(kind for kind, _ in by_name)
        raise UsageError(f"--set {owner}.{option}: '{owner}' is a {kinds}; say which: {by_name[0][0]}.{option}")
    if not by_kind and not by_name:
        absent = [kind for kind in names if owner in registry.names(kind)]
        if absent:
            raise UsageError(
                f"--set {owner}.{option}: the {absent[0]} '{owner}' is no part of this study;"
                f" its {absent[0]}s are {', '.join(names[absent[0]]) or 'none'}"
            )
        raise unknown("part of this study called", owner, {*names, *(name for _, name in components)})
    return by_kind or by_name
