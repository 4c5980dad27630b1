"""Which modules of genbench a plug-in's source imports, read and not run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from genbench.registry.loader import Plugin, Registry
from genbench.testing.results import Result

PUBLIC = ("api", "data", "distances", "errors", "features", "hookspecs", "nn", "testing")
"""Public packages: a plug-in may import `genbench.NAME`. Anything else may change without notice."""


def deeper(source: str) -> list[str]:
    """The modules of genbench below the public surface that a source imports, sorted, without repeats."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names if alias.name.startswith("genbench.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "genbench" and not node.level:
            modules |= {f"genbench.{alias.name}" for alias in node.names if not alias.name.startswith("__")}
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("genbench."):
            modules.add(node.module or "")
    return sorted(name for name in modules if name.split(".")[1] not in PUBLIC)


def check_imports(path: Path, name: str) -> Result:
    """One result for a plug-in's file: `reported` where it imports from a deeper module, which is a warning."""
    modules = deeper(path.read_text(encoding="utf-8"))
    if not modules:
        return Result("plugin", name, "imports_the_public_surface", "holds", "genbench's public modules alone")
    detail = f"imports {', '.join(modules)}, which may change: public are genbench.{{{', '.join(PUBLIC)}}}"
    return Result("plugin", name, "imports_the_public_surface", "reported", detail)


def warnings_of(registry: Registry, files: tuple[Path, ...]) -> Iterator[Result]:
    """Results for some plug-in files."""
    loaded: dict[str, Plugin] = {plugin.origin: plugin for plugin in registry.plugins}
    for path in files:
        if str(path) in loaded:
            yield check_imports(path, loaded[str(path)].name)
