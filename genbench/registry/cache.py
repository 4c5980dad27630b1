"""The catalogue as plain data, kept in a file so that lists and shell completion need no torch.

It is made from the loaded plug-ins and holds only while the key of what is installed does; no run is made from it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from genbench import __version__

Kind = Literal["model", "prior", "network", "dataset", "metric", "extractor", "sampler", "control", "recipe"]
KINDS: tuple[Kind, ...] = ("model", "prior", "network", "dataset", "metric", "extractor", "sampler", "control", "recipe")
SCHEMA = 1


@dataclass(frozen=True)
class ListedOption:
    """An option in words: its kind and default as they would be typed, bounds, meaning and source."""

    name: str
    kind: str
    default: str
    about: str
    source: str
    bounds: str


@dataclass(frozen=True)
class ListedOffer:
    """An offer in words, and the plug-in that makes it."""

    name: str
    about: str
    source: str
    plugin: str
    options: tuple[ListedOption, ...] = ()


@dataclass(frozen=True)
class ListedPlugin:
    """A plug-in as found; `seconds` is what its import took."""

    name: str
    origin: str
    state: str
    hooks: tuple[str, ...]
    cause: str
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Index:
    """All that the installed plug-ins offer, by kind, sorted by name."""

    plugins: tuple[ListedPlugin, ...] = ()
    offers: Mapping[str, tuple[ListedOffer, ...]] = field(default_factory=dict)


def installed_key(environment: Mapping[str, str] = os.environ, without: Iterable[str] = ()) -> str:
    """A hash of all that decides the catalogue: versions, entry points, the files behind them, and what is selected."""
    digest = hashlib.sha256()
    facts = [SCHEMA, __version__, sys.version, sys.prefix, environment.get("GENBENCH_LOAD_PLUGINS"), sorted(without)]
    digest.update(repr(facts).encode())
    own = sorted(Path(__file__).parents[1].rglob("*.py"))
    for path in own:
        digest.update(_mark(path).encode())
    for point in sorted(entry_points(group="genbench"), key=lambda point: (point.name, point.value)):
        version = f"{point.dist.name} {point.dist.version}" if point.dist else ""
        digest.update(f"{point.name}={point.value} {version}".encode())
        for path in _files(point):
            digest.update(_mark(path).encode())
    return digest.hexdigest()


def _mark(path: Path) -> str:
    """A file's path, size and time of modification: changed whenever an editor or an installer writes it."""
    try:
        stat = path.stat()
    except OSError:
        return f"{path} absent"
    return f"{path} {stat.st_size} {stat.st_mtime_ns}\n"


def _files(point: EntryPoint) -> Iterator[Path]:
    """The source files of an entry point's top module, found without importing it."""
    try:
        spec = importlib.util.find_spec(point.module.partition(".")[0])
    except (ImportError, ValueError):
        return
    if spec is None or spec.origin is None:
        return
    origin = Path(spec.origin)
    yield from sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]


def index_path(cache: Path) -> Path:
    """The file of this Python environment's catalogue."""
    return cache / f"catalogue-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]}.json"


def read_index(path: Path, key: str) -> Index | None:
    """The kept catalogue; None where it is absent, of another key or schema, or damaged in any way."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["schema"] != SCHEMA or kept["key"] != key or kept["sum"] != _sum(kept["index"]):
            return None
        return _parsed(kept["index"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write_index(path: Path, key: str, index: Index) -> None:
    """Keep the catalogue; a cache that cannot be written costs time alone, so that is no error."""
    from genbench.utils.io import write_json

    plain = json.loads(json.dumps(asdict(index)))
    try:
        write_json(path, {"schema": SCHEMA, "key": key, "sum": _sum(plain), "index": plain})
    except OSError:
        return


def _sum(plain: object) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _parsed(plain: Any) -> Index:
    plugins = tuple(
        ListedPlugin(**{**p, "hooks": tuple(p["hooks"]), "notes": tuple(p["notes"])}) for p in plain["plugins"]
    )
    offers = {
        kind: tuple(ListedOffer(**{**o, "options": tuple(ListedOption(**x) for x in o["options"])}) for o in listed)
        for kind, listed in plain["offers"].items()
    }
    return Index(plugins, offers)
