"""The tree: packages in an order, no import cycle, plug-ins on the public surface, reports without torch."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = (
    *("errors", "utils", "api", "hookspecs", "distances", "nn", "data", "features", "registry", "experiment"),
    *("storage", "training", "evaluation", "execution", "tuning", "stats", "analysis", "plotting", "reporting"),
    *("reproduction", "testing", "interface", "cli"),
)
"""Each package may import those before it; `nn`, `distances`, `data` and `features` may not import each other freely
either: this order holds for them as well."""
PUBLIC = {"api", "data", "distances", "errors", "features", "hookspecs", "nn", "testing"}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "genbench").rglob("*.py"))
    if "templates" not in path.parts
}
DRAWN = {"genbench.plotting.latent", "genbench.plotting.report"}
"""Figures that need the trained models."""
NO_TORCH = ("analysis", "cli.main", "plotting", "registry.cache", "reporting", "stats", "storage")


def package(module: str) -> str:
    """The part of a module's name that the order speaks of; "" for the top of the tree."""
    parts = module.split(".")
    return "" if len(parts) == 1 or parts[1] == "__main__" else parts[1]


def imported(tree: ast.AST) -> set[str]:
    """Modules of genbench that are imported anywhere below a node, within functions and TYPE_CHECKING included."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in names if name in MODULES and name != "genbench"}


IMPORTS = {name: imported(ast.parse(path.read_text())) - {name} for name, path in MODULES.items()}


def test_every_package_stands_in_the_order() -> None:
    assert {package(name) for name in MODULES} - {""} == set(ORDER)


@pytest.mark.parametrize("module", [name for name in MODULES if package(name)])
def test_packages_import_those_before_them(module: str) -> None:
    rank = ORDER.index(package(module))
    assert not [name for name in IMPORTS[module] if ORDER.index(package(name)) > rank]


def test_no_module_imports_itself_by_way_of_others() -> None:
    """A package's `__init__` is left out as a target: importing a submodule names it too."""
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for name in sorted(IMPORTS[module]):
            if MODULES[name].name != "__init__.py" or package(name) != package(module):
                visit(name)
        path.pop()
        done.add(module)

    for module in MODULES:
        visit(module)


def test_packages_are_small_enough_to_be_seen_at_once() -> None:
    sizes = Counter(str(path.parent.relative_to(ROOT)) for path in MODULES.values() if path.name != "__init__.py")
    assert {name: size for name, size in sizes.items() if size > 12} == {}


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=lambda path: path.stem)
def test_plugins_import_the_public_surface_alone(path: Path) -> None:
    assert {name.split(".")[1] for name in imported(ast.parse(path.read_text()))} <= PUBLIC


def test_the_core_imports_no_plugin() -> None:
    for path in MODULES.values():
        assert "import genbench_" not in path.read_text()
        assert "from genbench_" not in path.read_text()


@pytest.mark.parametrize(
    "module",
    [name for name in MODULES if name.removeprefix("genbench.").startswith(NO_TORCH) and name not in DRAWN],
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
