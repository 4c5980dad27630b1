"""The tree: packages import those below them, plug-ins import the public surface alone, reports load no torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "genbench").rglob("*.py"))
    if "templates" not in path.parts
}
PLUGINS_MAY_IMPORT = {"api", "data", "distances", "errors", "features", "hookspecs", "nn", "utils"}
DRAWN = ("genbench.plotting.latent", "genbench.plotting.report")
"""Figures that need the trained models."""
NO_TORCH = ("analysis", "cli.main", "experiment.config", "plotting", "registry.cache", "reporting", "stats", "storage")


def imported(tree: ast.AST) -> set[str]:
    """Modules of genbench that are imported anywhere below a node."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in names if name in MODULES and name != "genbench"}


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=lambda path: path.stem)
def test_plugins_import_the_public_surface_alone(path: Path) -> None:
    assert {name.split(".")[1] for name in imported(ast.parse(path.read_text()))} <= PLUGINS_MAY_IMPORT


def test_the_core_imports_no_plugin() -> None:
    for path in MODULES.values():
        assert "import genbench_" not in path.read_text()
        assert "from genbench_" not in path.read_text()


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.removeprefix("genbench.").startswith(NO_TORCH) and name not in DRAWN]
)
def test_reports_and_help_load_no_torch(module: str) -> None:
    """Followed through the imports at the top of each module, which is what loading it costs."""
    seen: set[str] = set()
    ahead = [module]
    while ahead:
        current = ahead.pop()
        if current in seen:
            continue
        seen.add(current)
        for node in ast.parse(MODULES[current].read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in {"torch", "torchvision", "ot"}], current
            ahead += imported(node) if isinstance(node, ast.Import | ast.ImportFrom) else ()
