"""The registry as plain data: names, options and plug-ins in words. No torch, so lists and completion start quickly."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import Distribution
from typing import Literal, Protocol, get_args

from genbench.errors import PluginError, UsageError, unknown

Kind = Literal["model", "prior", "network", "dataset", "metric", "extractor", "sampler", "control", "recipe", "tracker"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FLAGS: Mapping[Kind, str] = {"prior": "prior", "metric": "metrics", "sampler": "sampler", "control": "controls"}
"""The options of the command line that take several components of a kind."""

SELECT = "GENBENCH_LOAD_PLUGINS"
"""The environment variable that names the installed plug-ins to load."""
FILE_FLAG, DISABLE_FLAG = "--plugin", "--disable-plugin"


class ComponentNames(Protocol):
    """The part of a registry by which a study's names are checked: `Registry`, and its `Listing` without torch."""

    def names(self, kind: Kind) -> Collection[str]:
        """The components of a kind."""

    def aliases(self, kind: Kind) -> Mapping[str, str]:
        """The components of a kind by further words for them."""

    def get(self, kind: Kind, name: str) -> object:
        """A component; `UsageError` or `PluginError` where there is none of this name."""

    def option_kinds(self, kind: Kind, name: str) -> Mapping[str, str]:
        """The types of a component's options in words, by the option's name with hyphens."""


@dataclass(frozen=True)
class ListedOption:
    """An option in words: its kind and default as they would be typed, bounds, description and reference."""

    name: str
    kind: str
    default: str
    description: str
    reference: str
    bounds: str


@dataclass(frozen=True)
class ListedComponent:
    """A component in words, and the plug-in that registers it."""

    name: str
    description: str
    reference: str
    plugin: str
    options: tuple[ListedOption, ...] = ()
    aliases: tuple[str, ...] = ()
    family: str = ""


@dataclass(frozen=True)
class ListedPlugin:
    """An installed plug-in or a plug-in file; `seconds` is the time of its import, `note` a warning or empty."""

    name: str
    origin: str
    state: str
    hooks: tuple[str, ...]
    cause: str
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Listing:
    """All plug-ins and their components by kind, sorted by name; `conflicts` as "KIND NAME" -> the plug-ins.

    `bibtex` holds BibTeX entries by the text that stands in a reference, `recipes` the text of each recipe by its name.
    """

    plugins: tuple[ListedPlugin, ...] = ()
    components: Mapping[str, tuple[ListedComponent, ...]] = field(default_factory=dict)
    conflicts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bibtex: Mapping[str, str] = field(default_factory=dict)
    recipes: Mapping[str, str] = field(default_factory=dict)

    def names(self, kind: Kind) -> tuple[str, ...]:
        """The components of a kind, sorted."""
        return tuple(component.name for component in self.components.get(kind, ()))

    def aliases(self, kind: Kind) -> dict[str, str]:
        """The components of a kind by further words for them."""
        return {word: component.name for component in self.components.get(kind, ()) for word in component.aliases}

    def get(self, kind: Kind, name: str) -> ListedComponent:
        """A component; the same errors as `Registry.get`."""
        check_name(
            self, self.conflicts, (plugin.name for plugin in self.plugins if plugin.state == "broken"), kind, name
        )
        return next(component for component in self.components[kind] if component.name == name)

    def option_kinds(self, kind: Kind, name: str) -> dict[str, str]:
        """The types of a component's options in words, by the option's name with hyphens."""
        return {option.name: option.kind for option in self.get(kind, name).options}


def conflict_key(kind: Kind, name: str) -> str:
    """The key of a name in `conflicts`."""
    return f"{kind} {name}"


def check_name(
    registry: ComponentNames, conflicts: Mapping[str, Collection[str]], broken: Iterable[str], kind: Kind, name: str
) -> None:
    """Raise an error for a name without exactly one component.

    The error says which names are near, which plug-ins share the name, or which plug-ins are broken.
    """
    plugins = conflicts.get(conflict_key(kind, name), ())
    if plugins:
        remedies = [
            f"leave off {each}" if each.startswith(FILE_FLAG) else f"{DISABLE_FLAG} {each.partition(' ')[0]}"
            for each in plugins
        ]
        raise PluginError(f"the {kind} '{name}' is offered by {' and '.join(plugins)}: {' or '.join(remedies)}")
    if name in registry.names(kind):
        return
    kinds = [possible for possible in KINDS if name in registry.names(possible)]
    if kinds:
        flag = FLAGS.get(kinds[0])
        where = f"several are given with commas: --{flag} NAME,NAME" if flag else f"see `genbench list {kinds[0]}s`"
        raise UsageError(f"there is no {kind} '{name}': it is a {kinds[0]}; {where}")
    error = unknown(kind, name, registry.names(kind), registry.aliases(kind))
    names = ", ".join(broken)
    if names:
        raise PluginError(f"{error} (broken plug-ins: {names}; see `genbench list plugins`)")
    raise error


@lru_cache(maxsize=64)
def name_and_version(distribution: Distribution) -> str:
    """Read once: `importlib.metadata` parses the whole METADATA file at every access."""
    return f"{distribution.name} {distribution.version}"
