"""Names: one class name has one meaning in the package, and variables are nouns."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {"told", "found", "its", "it", "one", "other"}
SOURCES = sorted(path for folder in ("genbench", "plugins", "tests") for path in (ROOT / folder).rglob("*.py"))


def stored(tree: ast.AST) -> set[tuple[str, int]]:
    """Names of variables, parameters and functions below a node, with their lines."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add((node.id, node.lineno))
        elif isinstance(node, ast.arg):
            names.add((node.arg, node.lineno))
        elif isinstance(node, ast.FunctionDef):
            names.add((node.name, node.lineno))
    return names


def test_a_class_name_is_defined_in_one_module() -> None:
    modules = defaultdict(set)
    for path in (ROOT / "genbench").rglob("*.py"):
        if "templates" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    modules[node.name].add(str(path.relative_to(ROOT)))
    assert {name: sorted(paths) for name, paths in modules.items() if len(paths) > 1} == {}


def test_variables_are_nouns() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in SOURCES
        for name, line in sorted(stored(ast.parse(path.read_text())))
        if name in FORBIDDEN
    ]
    assert wrong == []
