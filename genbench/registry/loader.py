"""Loads plug-ins into the registry. A plug-in that cannot be loaded is recorded as broken and stops nothing else."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Literal

import pluggy
import torch

from genbench import hookspecs
from genbench.api import ComponentSpec
from genbench.errors import PluginError, unknown
from genbench.features import register_extractors
from genbench.registry.listing import (
    FILE_FLAG,
    KINDS,
    SELECT,
    Kind,
    ListedComponent,
    ListedOption,
    ListedPlugin,
    Listing,
    check_name,
    conflict_key,
    name_and_version,
)
from genbench.registry.options import OptionSpec, bounds_text, default_text, specs
from genbench.utils.io import shell_path
from genbench.utils.plugin_code import add_source, describe_error, plugin_options

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
HOOKS = (*(f"genbench_{kind}s" for kind in KINDS), "genbench_bibtex")
BIBTEX = re.compile(r"@[A-Za-z]+\s*\{\s*[A-Za-z0-9:_.+/-]+\s*,.*\}", re.DOTALL)
"""One BibTeX entry with its key."""
CLOCK_TICK_NS = 20_000_000
"""Files written within it may have the same time."""
SLOW_SECONDS = 10.0
"""An import that takes longer is reported: every command that loads plug-ins waits for it."""


@dataclass(frozen=True)
class Plugin:
    """An installed plug-in or a plug-in file: origin, hooks, and the cause where it is broken or disabled."""

    name: str
    origin: str
    state: Literal["loaded", "broken", "disabled"]
    hooks: tuple[str, ...] = ()
    cause: str = ""
    fingerprint: str = ""
    seconds: float = 0.0
    """Wall time of the import and of the hooks."""

    @property
    def note(self) -> str:
        """A warning about a plug-in that works, or ""."""
        return f"takes {self.seconds:.1f} s to import" if self.seconds > SLOW_SECONDS else ""


@dataclass(frozen=True)
class Registration:
    """A component and the plug-in that registers it."""

    spec: ComponentSpec[Any]
    plugin: Plugin


@dataclass
class Registry:
    """The components of the loaded plug-ins, by kind and name."""

    plugins: list[Plugin] = field(default_factory=list)
    registrations: dict[Kind, dict[str, Registration]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    conflicts: dict[str, list[str]] = field(default_factory=dict)
    """The plug-ins that register one name, as `conflict_key` -> names with origins."""
    allow_changed_source: bool = False
    """Whether runs may be restored with a plug-in whose source has changed since the training."""
    bibtex: dict[str, str] = field(default_factory=dict)
    """BibTeX entries by the text that stands in a reference."""
    files: tuple[Path, ...] = ()
    """The plug-in files that were loaded, which a worker process loads as well."""
    disabled: tuple[str, ...] = ()
    """The installed plug-ins that were not loaded by --disable-plugin."""

    def register(self, kind: Kind, registration: Registration) -> None:
        """Add a component; a second one of the same name makes the name a conflict."""
        name, plugin = registration.spec.name, registration.plugin
        if name in self.registrations[kind]:
            first = self.registrations[kind][name].plugin
            self.conflicts.setdefault(conflict_key(kind, name), [self._words(first)]).append(self._words(plugin))
        else:
            self.registrations[kind][name] = registration

    def _words(self, plugin: Plugin) -> str:
        """A plug-in by the flag that selects it, or by its name and origin."""
        if plugin.origin in map(str, self.files):
            return f"{FILE_FLAG} {shell_path(plugin.origin)}"
        return f"{plugin.name} ({plugin.origin})"

    def names(self, kind: Kind) -> tuple[str, ...]:
        """The components of a kind, in the order of their registration."""
        return tuple(self.registrations[kind])

    def aliases(self, kind: Kind) -> dict[str, str]:
        """The components of a kind by further words for them."""
        return {word: name for name, entry in self.registrations[kind].items() for word in entry.spec.aliases}

    def get(self, kind: Kind, name: str) -> Registration:
        """A component; the error says which names are near, which plug-ins share the name, or which are broken."""
        check_name(self, self.conflicts, (plugin.name for plugin in self.broken), kind, name)
        return self.registrations[kind][name]

    def option_kinds(self, kind: Kind, name: str) -> dict[str, str]:
        """The types of a component's options in words, by the option's name with hyphens."""
        return {option: spec.kind for option, spec in specs(self.get(kind, name).spec.factory).items()}

    @property
    def broken(self) -> list[Plugin]:
        """The plug-ins that could not be loaded."""
        return [plugin for plugin in self.plugins if plugin.state == "broken"]


# ---------------------------------------------------------------- loading


def load(
    files: Sequence[Path] = (), environment: Mapping[str, str] = os.environ, disabled: Sequence[str] = ()
) -> Registry:
    """The registry of all installed plug-ins (entry points of the group `genbench`) and of the plug-in files.

    GENBENCH_LOAD_PLUGINS in the environment names the installed plug-ins to load, `disabled` those to leave out.
    Raises `UsageError` for the name of a plug-in that is not installed, `PluginError` for a file that cannot be loaded.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    registry = Registry(files=tuple(files), disabled=tuple(disabled))
    points = sorted(entry_points(group=hookspecs.PROJECT), key=lambda point: point.name)

    # Check the selection.
    selection = environment.get(SELECT)
    selected = None if selection is None else {name.strip() for name in selection.split(",") if name.strip()}
    installed = {point.name for point in points}
    for names, source in ((selected or (), SELECT), (disabled, "--disable-plugin")):
        for name in sorted(set(names) - installed):
            raise unknown(f"installed plug-in named in {source},", name, installed)

    # Load installed plug-ins.
    for point in points:
        origins = [_origin(candidate) for candidate in points if candidate.name == point.name]
        if selected is not None and point.name not in selected:
            registry.plugins.append(Plugin(point.name, _origin(point), "disabled", cause=f"not in {SELECT}"))
        elif point.name in disabled:
            registry.plugins.append(Plugin(point.name, _origin(point), "disabled", cause="--disable-plugin"))
        elif len(origins) > 1:
            cause = f"the entry point '{point.name}' is claimed by {' and '.join(origins)}"
            registry.plugins.append(Plugin(point.name, _origin(point), "broken", cause=cause))
        else:
            _load_plugin(manager, registry, point.name, _origin(point), point)

    # Load plug-in files.
    for file in files:
        if not file.is_file():
            raise PluginError(f"--plugin {file}: there is no such file{_separate_options(file)}")
        _load_plugin(manager, registry, file.stem, str(file), file)
        if registry.plugins[-1].state == "broken":  # named by the user, so not skipped
            raise PluginError(f"--plugin {file}: {registry.plugins[-1].cause}")
    extractors = registry.registrations["extractor"]
    fingerprints = {name: entry.plugin.fingerprint for name, entry in extractors.items()}
    register_extractors({name: entry.spec for name, entry in extractors.items()}, fingerprints)
    return registry


def _separate_options(file: Path) -> str:
    """What several files in one --plugin were meant to be, or ""."""
    files = [part.strip() for part in str(file).split(",") if part.strip()]
    return f"; name each with its own --plugin: {plugin_options(files)}" if len(files) > 1 else ""


def _origin(point: EntryPoint) -> str:
    return name_and_version(point.dist) if point.dist else "unknown distribution"


def _load_plugin(
    manager: pluggy.PluginManager, registry: Registry, name: str, origin: str, location: EntryPoint | Path
) -> None:
    """Import a plug-in and register its components; an exception becomes the cause of a broken plug-in."""
    module: ModuleType | None = None
    components: list[tuple[Kind, ComponentSpec[Any]]] = []
    bibtex: dict[str, str] = {}
    started = time.perf_counter()
    try:
        if manager.has_plugin(name):
            raise PluginError(f"a plug-in named '{name}' is loaded already: rename one, or --disable-plugin {name}")
        with redirect_stdout(sys.stderr), _undisturbed():  # csv and json on standard output stay clean
            _add_sources(location)
            module = _import_file(location) if isinstance(location, Path) else _import_installed(location)
            hooks = _register_hooks(manager, module, name)
            components = [(kind, spec) for kind in KINDS for spec in _call_hook(manager, kind, module)]
            bibtex = _call_bibtex(manager, module)
        plugin = Plugin(name, origin, "loaded", hooks, fingerprint=fingerprint(module))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plug-in may even call sys.exit at import
        if module is not None and manager.is_registered(module):
            manager.unregister(module)
        components, bibtex = [], {}
        plugin = Plugin(name, origin, "broken", cause=describe_error(error))
    plugin = replace(plugin, seconds=time.perf_counter() - started)
    registry.plugins.append(plugin)
    for kind, spec in components:
        registry.register(kind, Registration(spec, plugin))
    registry.bibtex = {**bibtex, **registry.bibtex}  # the first plug-in's entry stays


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Restore what an import may change for every other plug-in: the working directory, torch's default dtype."""
    folder = os.open(".", os.O_RDONLY)
    dtype = torch.get_default_dtype()
    try:
        yield
    finally:
        os.fchdir(folder)
        os.close(folder)
        torch.set_default_dtype(dtype)


def _add_sources(location: EntryPoint | Path) -> None:
    """State the files of a plug-in without importing them: an error at its import is placed as well."""
    if isinstance(location, Path):
        add_source(location)
        return
    spec = importlib.util.find_spec(location.module.partition(".")[0])
    if spec is not None and spec.origin is not None:
        add_source(Path(spec.origin))


def _register_hooks(manager: pluggy.PluginManager, module: ModuleType, name: str) -> tuple[str, ...]:
    """Register a module and return the names of its hooks.

    `PluginError` for a hook without a specification, for one without `@hookimpl`, and for a module without any.
    """
    manager.register(module, name=name)
    callers = manager.get_hookcallers(module) or []
    marked = {caller.name for caller in callers}
    for known in HOOKS:
        if known not in marked and callable(getattr(module, known, None)):
            raise PluginError(f"{known} lacks its decorator: @hookimpl, from genbench.hookspecs import hookimpl")
    if not marked:
        raise PluginError("it has no hook, such as genbench_priors, and provides nothing")
    misspelt = [caller.name for caller in callers if not caller.has_spec()]
    if misspelt:
        raise unknown("hook", misspelt[0], HOOKS)
    return tuple(caller.name for caller in callers)


def _call_hook(manager: pluggy.PluginManager, kind: Kind, module: object) -> Iterable[ComponentSpec[Any]]:
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


def _call_bibtex(manager: pluggy.PluginManager, module: object) -> dict[str, str]:
    """The BibTeX entries that a module provides; `PluginError` for a value that is no entry."""
    entries: dict[object, object] = {}
    for implementation in manager.hook.genbench_bibtex.get_hookimpls():
        if implementation.plugin is module:
            entries |= dict(implementation.function())  # type: ignore[call-overload]  # a plug-in's: checked below
    bibtex: dict[str, str] = {}
    for reference, text in entries.items():
        if not (isinstance(reference, str) and reference and isinstance(text, str) and BIBTEX.fullmatch(text.strip())):
            raise PluginError(f"genbench_bibtex: the value of {reference!r} is not one entry as '@article{{key, ...}}'")
        bibtex[reference] = text.strip()
    return bibtex


class _SourceLoader(SourceFileLoader):
    """Compiles the source, and reads no .pyc: those are known by a time in whole seconds and a size."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


class _PluginFinder(MetaPathFinder):
    """Finds the modules of an installed plug-in; one that changed after its .pyc was written is compiled anew.

    The system sets the time of a file's last change, and no copying or unpacking can set it back.
    """

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The usual specification of a module, with another loader where its .pyc may be stale."""
        if fullname.partition(".")[0] != self.package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader and _may_be_stale(spec):
            spec.loader = _SourceLoader(fullname, spec.loader.path)
        return spec


def _may_be_stale(spec: ModuleSpec) -> bool:
    try:
        written = Path(spec.cached or "").stat().st_mtime_ns
        return written - Path(spec.origin or "").stat().st_ctime_ns < CLOCK_TICK_NS
    except OSError:
        return False  # there is no .pyc yet


def _import_installed(point: EntryPoint) -> ModuleType:
    finder = _PluginFinder(point.module.partition(".")[0])
    sys.meta_path.insert(0, finder)
    try:
        module: ModuleType = point.load()
        return module
    finally:
        sys.meta_path.remove(finder)


def _import_file(path: Path) -> ModuleType:
    unique = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
    name = f"genbench_file_{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}_{unique}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or not isinstance(spec.loader, SourceFileLoader):
        raise PluginError("not a Python file")
    spec.loader = _SourceLoader(name, str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- fingerprints


def fingerprint(module: ModuleType) -> str:
    """Twelve hexadecimal digits of a plug-in's code: runs of another code are other runs.

    Comments, docstrings, formatting, `aliases` and `family` of components do not count. Of a package, all Python files
    and the bytes of data files count.
    """
    if not module.__file__:
        return ""
    file = Path(module.__file__)
    digest = hashlib.sha256()
    if file.name != "__init__.py":
        digest.update(_code(file.read_bytes()))
        return digest.hexdigest()[:12]
    for path in sorted(file.parent.rglob("*")):
        relative = path.relative_to(file.parent)
        if not path.is_file() or any(part == "__pycache__" or part.startswith(".") for part in relative.parts):
            continue
        content = path.read_bytes()
        content = _code(content) if path.suffix == ".py" else content
        digest.update(os.fsencode(f"{relative.as_posix()} {len(content)}\n"))
        digest.update(content)
    return digest.hexdigest()[:12]


@lru_cache(maxsize=256)
def _code(source: bytes) -> bytes:
    """The parsed tree of a Python source without positions, comments, docstrings and hints of components."""
    tokens: list[str] = []
    _append_tokens(ast.parse(source), tokens)
    return "\n".join(tokens).encode()


def _append_tokens(node: ast.AST, tokens: list[str]) -> None:
    """Append a node and its fields. Empty ones are left out, since Python releases add fields (3.12: `type_params`).

    What remains depends on the Python release as much as `ast` does: 3.12 splits some f-strings in another way.
    """
    tokens.append(type(node).__name__)
    has_hints = _is_component(node)
    for name, value in ast.iter_fields(node):
        values = value if isinstance(value, list) else [value]
        # Statements that are a string alone do nothing: docstrings, also those of attributes.
        if name in BODIES:
            values = [child for child in values if not _is_docstring(child)]
        elif has_hints and name == "keywords":
            values = [child for child in values if child.arg not in HINTS]
        if not values or (values == [None] and (name != "value" or not isinstance(node, ast.Constant))):
            continue
        tokens.append(f".{name} {len(values)}")
        for child in values:
            if isinstance(child, ast.AST):
                _append_tokens(child, tokens)
            else:
                tokens.append(f"{type(child).__name__} {child!r}")


BODIES = ("body", "orelse", "finalbody")
"""Fields of statements, in which a docstring may stand."""


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


HINTS = ("aliases", "family")
"""Fields of a `ComponentSpec` that change no number."""


def _is_component(node: ast.AST) -> bool:
    """Whether a node is a call of `ComponentSpec`, whose `aliases` and `family` lead to it and change no number."""
    if not isinstance(node, ast.Call):
        return False
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return called == ComponentSpec.__name__


# ---------------------------------------------------------------- listing


def list_registry(registry: Registry) -> Listing:
    """The registry in words, as lists and completion show it."""
    plugins = tuple(
        ListedPlugin(p.name, p.origin, p.state, p.hooks, p.cause, round(p.seconds, 2), p.note) for p in registry.plugins
    )
    components: dict[str, tuple[ListedComponent, ...]] = {
        kind: tuple(_list_component(registry.registrations[kind][name]) for name in sorted(registry.names(kind)))
        for kind in KINDS
    }
    conflicts = {name: tuple(origins) for name, origins in registry.conflicts.items()}
    return Listing(plugins, components, conflicts, dict(registry.bibtex), recipe_texts(registry))


def recipe_texts(registry: Registry) -> dict[str, str]:
    """The text of each recipe with its default options, by its name; a recipe that fails has none."""
    texts: dict[str, str] = {}
    for name, registration in registry.registrations["recipe"].items():
        with suppress(Exception):  # of a plug-in: genbench check and reproduce say what is wrong with it
            texts[name] = str(registration.spec.factory().text)
    return texts


def _list_component(registration: Registration) -> ListedComponent:
    spec = registration.spec
    options = tuple(_list_option(option) for option in specs(spec.factory).values())
    return ListedComponent(
        spec.name, spec.description, spec.reference, registration.plugin.name, options, spec.aliases, spec.family
    )


def _list_option(spec: OptionSpec) -> ListedOption:
    meaning = spec.meaning
    return ListedOption(
        spec.name, spec.kind, default_text(spec), meaning.description, meaning.reference, bounds_text(spec)
    )
