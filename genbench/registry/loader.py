"""Finding plug-ins, and the catalogue of what they offer. Loading never breaks the command line."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Literal

import pluggy

from genbench import hookspecs
from genbench.api import ComponentSpec
from genbench.errors import GenbenchError, PluginError, UsageError, one_line, unknown
from genbench.features import register_extractors
from genbench.registry.cache import KINDS as KINDS
from genbench.registry.cache import Index, ListedOffer, ListedOption, ListedPlugin
from genbench.registry.cache import Kind as Kind
from genbench.registry.options import OptionSpec, bounds_words, default_words, specs
from genbench.registry.quiet import captured

SELECT = "GENBENCH_LOAD_PLUGINS"
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
SLOW_SECONDS = 10.0
"""An import that takes longer is told of: every command that loads plug-ins waits for it."""


@dataclass(frozen=True)
class Plugin:
    """A plug-in as found: where it comes from, what it hooks, and why it is broken where it is."""

    name: str
    origin: str
    state: Literal["loaded", "broken", "left out"]
    hooks: tuple[str, ...] = ()
    cause: str = ""
    fingerprint: str = ""
    seconds: float = 0.0
    """Wall time of importing it and of calling its hooks."""
    printed: str = ""
    """What it printed meanwhile, in one line: it is kept from our output."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about a plug-in that works all the same."""
        slow = (f"takes {self.seconds:.1f} s to import",) if self.seconds > SLOW_SECONDS else ()
        return slow + ((f"prints at import: {self.printed}",) if self.printed else ())


@dataclass(frozen=True)
class Registration:
    """A component and the plug-in that provides it."""

    spec: ComponentSpec[Any]
    plugin: Plugin


@dataclass
class Registry:
    """Everything that the loaded plug-ins offer, by kind and name."""

    plugins: list[Plugin] = field(default_factory=list)
    entries: dict[Kind, dict[str, Registration]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    claims: dict[tuple[Kind, str], list[str]] = field(default_factory=dict)
    any_source: bool = False
    """Whether runs may be restored with a plug-in whose source has changed since."""
    files: tuple[Path, ...] = ()
    """The plug-in files that `load` was given, as a worker elsewhere must be."""
    without: tuple[str, ...] = ()
    """The installed plug-ins that `load` was told to leave out."""

    def get(self, kind: Kind, name: str) -> Registration:
        """The offer of a name; the error says what is near, who else claims it, or which plug-in is broken."""
        claimants = self.claims.get((kind, name), [])
        if len(claimants) > 1:
            raise PluginError(
                f"the {kind} '{name}' is offered by {' and '.join(claimants)}: leave one out with {SELECT}"
            )
        if name in self.entries[kind]:
            return self.entries[kind][name]
        elsewhere = [other for other in KINDS if name in self.entries[other]]
        if elsewhere:
            raise UsageError(
                f"there is no {kind} '{name}': it is a {elsewhere[0]}; several of a kind are given with commas, as in"
                " --prior normal,ring"
            )
        error = unknown(kind, name, self.entries[kind])
        broken = [plugin.name for plugin in self.plugins if plugin.state == "broken"]
        if broken:
            raise PluginError(f"{error} (broken plug-ins: {', '.join(broken)}; see `genbench list plugins`)")
        raise error

    @property
    def broken(self) -> list[Plugin]:
        """The plug-ins that could not be loaded."""
        return [plugin for plugin in self.plugins if plugin.state == "broken"]

    def add(self, kind: Kind, entry: Registration) -> None:
        """Take an offer in; a second claim on a name makes the name ambiguous and both claimants known."""
        name = entry.spec.name
        self.claims.setdefault((kind, name), []).append(f"{entry.plugin.name} ({entry.plugin.origin})")
        self.entries[kind][name] = entry


def load(
    files: Sequence[Path] = (), environment: Mapping[str, str] = os.environ, without: Sequence[str] = ()
) -> Registry:
    """The catalogue of all installed plug-ins (entry points of the group `genbench`) and of the files named.

    `GENBENCH_LOAD_PLUGINS` in the environment names the installed ones that are loaded, `without` those that are not;
    `UsageError` for a name that no installed plug-in has.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    registry = Registry(files=tuple(files), without=tuple(without))
    selected = environment.get(SELECT)
    names = None if selected is None else {name.strip() for name in selected.split(",") if name.strip()}
    found = sorted(entry_points(group=hookspecs.PROJECT), key=lambda point: point.name)
    installed = {point.name for point in found}
    for given, by in ((names or (), f"plug-in named in {SELECT},"), (without, "plug-in named by --disable-plugin,")):
        for name in sorted(set(given) - installed):
            raise unknown(f"installed {by}", name, installed)
    for point in found:
        claims = [_origin(other) for other in found if other.name == point.name]
        if names is not None and point.name not in names:
            registry.plugins.append(Plugin(point.name, _origin(point), "left out", cause=f"not in {SELECT}"))
        elif point.name in without:
            registry.plugins.append(Plugin(point.name, _origin(point), "left out", cause="--disable-plugin"))
        elif len(claims) > 1:
            cause = f"the entry point '{point.name}' is claimed by {' and '.join(claims)}"
            registry.plugins.append(Plugin(point.name, _origin(point), "broken", cause=cause))
        else:
            _take(manager, registry, point.name, _origin(point), point)
    for file in files:
        if not file.is_file():
            raise PluginError(f"--plugin {file}: there is no such file")
        _take(manager, registry, file.stem, str(file), file)
        if registry.plugins[-1].state == "broken":  # asked for by name, so not to be passed over
            raise PluginError(f"--plugin {file}: {registry.plugins[-1].cause}")
    register_extractors({name: entry.spec for name, entry in registry.entries["extractor"].items()})
    return registry


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"


def _take(manager: pluggy.PluginManager, registry: Registry, name: str, origin: str, where: EntryPoint | Path) -> None:
    """Import one plug-in and collect its offers; whatever it raises becomes the cause of its being broken."""
    module: ModuleType | None = None
    components: list[tuple[Kind, ComponentSpec[Any]]] = []
    words: list[str] = []
    started = time.perf_counter()
    try:
        if manager.has_plugin(name):
            raise PluginError(f"a plug-in named '{name}' is there already")
        with captured() as words:  # `check --format json` must stay clean
            module = _import_file(where) if isinstance(where, Path) else where.load()
            hooks = _register(manager, module, name)
            components = [(kind, spec) for kind in KINDS for spec in _component_specs(manager, kind, module)]
        plugin = Plugin(name, origin, "loaded", hooks, fingerprint=fingerprint(module))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plug-in may even call sys.exit at import
        if module is not None and manager.is_registered(module):
            manager.unregister(module)
        components = []
        cause = one_line(error) if isinstance(error, GenbenchError) else f"{type(error).__name__}: {one_line(error)}"
        plugin = Plugin(name, origin, "broken", cause=cause)
    printed = one_line(ValueError(text), 120) if (text := " ".join(words).strip()) else ""
    plugin = replace(plugin, seconds=time.perf_counter() - started, printed=printed)
    registry.plugins.append(plugin)
    for kind, spec in components:
        registry.add(kind, Registration(spec, plugin))


def _register(manager: pluggy.PluginManager, module: ModuleType, name: str) -> tuple[str, ...]:
    """Register a module and return its hooks; `PluginError` for a hook that there is not."""
    manager.register(module, name=name)
    callers = manager.get_hookcallers(module) or []
    misspelt = [caller.name for caller in callers if not caller.has_spec()]
    if misspelt:
        raise unknown("hook", misspelt[0], [f"genbench_{kind}s" for kind in KINDS])
    return tuple(caller.name for caller in callers)


def _component_specs(manager: pluggy.PluginManager, kind: Kind, module: object) -> Iterable[ComponentSpec[Any]]:
    caller = getattr(manager.hook, f"genbench_{kind}s")
    for implementation in caller.get_hookimpls():
        if implementation.plugin is not module:
            continue
        for spec in implementation.function():
            if not isinstance(spec, ComponentSpec):
                raise PluginError(f"{caller.name} yields {type(spec).__name__}, not genbench.api.ComponentSpec")
            if not NAME.fullmatch(spec.name):
                raise PluginError(f"{caller.name}: the name '{spec.name}' is not lower case letters, digits, hyphens")
            specs(spec.factory)
            yield spec


class _FromSource(SourceFileLoader):
    """No bytecode is read or written: of a file changed within a second, to the same size, it would be the old one's,
    under the new one's fingerprint.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _import_file(path: Path) -> ModuleType:
    unique = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"genbench_file_{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}_{unique}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or not isinstance(spec.loader, SourceFileLoader):
        raise PluginError("it is no Python file")
    spec.loader = _FromSource(name, str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def fingerprint(module: ModuleType) -> str:
    """A hash of a plug-in's source, all files of a package: runs of another source are other runs."""
    file = Path(module.__file__) if module.__file__ else None
    if file is None:
        return ""
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def index_of(registry: Registry) -> Index:
    """The catalogue in words, as lists and completion show it."""
    plugins = tuple(
        ListedPlugin(p.name, p.origin, p.state, p.hooks, p.cause, round(p.seconds, 2), p.notes)
        for p in registry.plugins
    )
    offers: dict[str, tuple[ListedOffer, ...]] = {
        kind: tuple(_listed(registry.entries[kind][name]) for name in sorted(registry.entries[kind])) for kind in KINDS
    }
    return Index(plugins, offers)


def _listed(entry: Registration) -> ListedOffer:
    spec = entry.spec
    options = tuple(_listed_option(option) for option in specs(spec.factory).values())
    return ListedOffer(spec.name, spec.description, spec.reference, entry.plugin.name, options)


def _listed_option(spec: OptionSpec) -> ListedOption:
    meaning = spec.meaning
    return ListedOption(
        spec.name, spec.kind, default_words(spec), meaning.description, meaning.reference, bounds_words(spec)
    )
