"""On-disk cache of the registry's listing: lists, completion and checks of names start without importing torch."""

from __future__ import annotations

import getpass
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from genbench import __version__
from genbench.errors import UsageError
from genbench.registry.listing import SELECT, ListedComponent, ListedOption, ListedPlugin, Listing, name_and_version

SCHEMA = 5
CACHE = "GENBENCH_CACHE"


def cache_folder() -> Path:
    """The folder of files that genbench can make again, but for `data`: GENBENCH_CACHE, or the user's cache folder.

    Where there is no home folder, or it cannot be written to, a folder of temporary files takes its place, with a line
    on stderr.
    """
    if given := os.environ.get(CACHE):
        try:
            return Path(given).expanduser()
        except RuntimeError:
            raise UsageError(f"{CACHE}={given}: there is no such home folder; give a path") from None
    try:
        folder = (Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "genbench").expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        cause = f"{folder} cannot be written to"
    except RuntimeError:
        cause = "there is no home folder"
    except OSError as error:
        cause = f"{folder} cannot be made ({error.strerror})"
    return _temporary_cache(cause)


@lru_cache
def _temporary_cache(cause: str) -> Path:
    """The cache among the temporary files: the user's own, so that nobody else can write into it."""
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(tempfile.gettempdir()) / f"genbench-cache-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and folder.lstat().st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="genbench-cache-"))
    print(f"genbench: {cause}: caches are in {folder}; set {CACHE} to choose a folder that stays", file=sys.stderr)
    return folder


def get_listing(files: Sequence[Path] = (), disabled: Sequence[str] = ()) -> Listing:
    """The listing: cached while nothing installed has changed, else made by loading all plug-ins.

    With plug-in files it is made at each call and not cached.
    """
    listing = None if files else cached_listing(disabled)
    if listing is None:
        from genbench.registry.loader import list_registry, load

        listing = list_registry(load(files, disabled=disabled))
        if not files:
            cache_listing(listing, disabled)
    return listing


def cached_listing(disabled: Iterable[str] = ()) -> Listing | None:
    """The cached listing of the installed plug-ins, None where there is none or something installed has changed."""
    return read_listing(cache_path(), installed_key(disabled=disabled))


def cache_listing(listing: Listing, disabled: Iterable[str] = ()) -> None:
    """Cache the listing of the installed plug-ins."""
    write_listing(cache_path(), installed_key(disabled=disabled), listing)


def cache_path() -> Path:
    """The cache file of this Python environment."""
    return cache_folder() / f"listing-{hashlib.sha256(os.fsencode(sys.prefix)).hexdigest()[:8]}.json"


def installed_key(environment: Mapping[str, str] = os.environ, disabled: Iterable[str] = ()) -> str:
    """A hash of everything that decides the listing: versions, entry points, and the selection of plug-ins.

    The bytes of the plug-ins' sources are part of it: in an editable install they change without the version.
    """
    digest = hashlib.sha256()
    digest.update(repr([SCHEMA, __version__, sys.version, sys.prefix, environment.get(SELECT)]).encode())
    digest.update(repr(sorted(disabled)).encode())
    for point in sorted(entry_points(group="genbench"), key=lambda point: (point.name, point.value)):
        version = name_and_version(point.dist) if point.dist else ""
        digest.update(f"{point.name}={point.value} {version}\n".encode())
        for path in _sources(point):
            source = path.read_bytes()
            digest.update(os.fsencode(f"{path} {len(source)}\n"))
            digest.update(source)
    return digest.hexdigest()


def _sources(point: EntryPoint) -> Iterator[Path]:
    """The source files of an entry point's top module and its recipes, located without importing it."""
    try:
        spec = importlib.util.find_spec(point.module.partition(".")[0])
    except (ImportError, ValueError):
        return
    if spec is None or spec.origin is None:
        return
    origin = Path(spec.origin)
    package = origin.parent if origin.name == "__init__.py" else None
    sources = [origin] if package is None else sorted([*package.rglob("*.py"), *package.rglob("*.toml")])
    yield from (path for path in sources if path.is_file())


def read_listing(path: Path, key: str) -> Listing | None:
    """The cached listing; None where it is absent, of another key, or damaged."""
    try:
        cached = json.loads(path.read_text(encoding="utf-8"))
        return _parse(cached["listing"]) if cached["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write_listing(path: Path, key: str, listing: Listing) -> None:
    """Cache the listing; a cache that cannot be written costs time and is no error."""
    from genbench.utils.io import write_json

    try:
        write_json(path, {"key": key, "listing": asdict(listing)})
    except OSError:
        return


def _parse(plain: Any) -> Listing:
    plugins = tuple(ListedPlugin(**{**fields, "hooks": tuple(fields["hooks"])}) for fields in plain["plugins"])
    components = {
        kind: tuple(
            ListedComponent(
                **{
                    **fields,
                    "options": tuple(ListedOption(**option) for option in fields["options"]),
                    "aliases": tuple(fields["aliases"]),
                }
            )
            for fields in listed
        )
        for kind, listed in plain["components"].items()
    }
    conflicts = {name: tuple(origins) for name, origins in plain["conflicts"].items()}
    bibtex = {str(reference): str(entry) for reference, entry in plain["bibtex"].items()}
    recipes = {str(name): str(text) for name, text in plain["recipes"].items()}
    return Listing(plugins, components, conflicts, bibtex, recipes)
