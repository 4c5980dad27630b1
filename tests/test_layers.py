"""A lower layer never imports a higher one; plug-ins import what the contract names and nothing above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "rows", "deprecation", "heap", "sorting", "kernels", "__init__"),
    ("api", "files", "claims"),
    ("index", "authoring", "recipes", "potentials", "background", "inception", "finite"),
    ("records", "hookspecs", "distances", "networks", "images", "random", "features", "pixels"),
    ("decoding",),
    (
        *("quiet", "options", "plugins", "store", "checkpoints", "flops", "moments", "precision"),
        *("batchnorm", "ranks", "steps", "capture"),
    ),
    ("runs",),
    ("plan", "watch", "train", "evaluate", "controls", "testing"),
    ("listener", "machine", "measuring", "lanes"),
    ("samebits", "pace"),
    ("training", "snapshots", "shipping", "beside"),
    ("executors",),
    ("executors_serial", "executors_together"),
    ("bench", "provenance", "archive", "bundles"),
    ("worker", "executors_local", "accompany", "standing"),
    ("ray_actor", "ray_connection"),
    ("executors_ray",),
    ("engines", "jobs"),
    (
        "intervals",
        "stats",
        "power",
        "compare",
        "numerals",
        "gather",
        "tables",
        "ladder",
        "notes",
        "study",
        "markup",
        "formats",
        "page",
        "report",
        "export",
        "curves",
        "curveview",
        "picking",
        *("verdicts", "reproduction"),
        *("embedding", "figurestyle", "figureranks", "figurerows", "figurefindings", "figurepictures", "figurestored"),
    ),
    ("consequences", "differences", "findings", "explain", "explainview"),
    ("figuremodels",),
    ("figurereport",),
    ("results", "comparisons"),
    ("plotting",),
    (
        *("telling", "progress", "listing", "checking", "commands", "completing", "arguments"),
        *("cli_results", "cli_curves", "cli_plot", "cli_explain", "cli_authors", "cli_bundles", "cli_reproduce"),
        *("reproduce", "cli", "__main__"),
    ),
)
PLUGINS_MAY_IMPORT = {
    "api",
    "hookspecs",
    "distances",
    "networks",
    "errors",
    "files",
    "images",
    "features",
    "random",
    "decoding",
    "pixels",
}
REPORTING = next(members for members in LAYERS if "stats" in members)


def imports(path: Path) -> set[str]:
    """Modules of genbench that a file imports, wherever in it; those for type checking alone do not count."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    typing_only = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    skipped = {id(node) for block in typing_only for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "genbench":
            found |= {alias.name for alias in node.names if (ROOT / "genbench" / f"{alias.name}.py").exists()}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("genbench."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("genbench.")}
    return found


def layer(module: str) -> int:
    return next(i for i, members in enumerate(LAYERS) if module in members)


MODULES = sorted(path.stem for path in (ROOT / "genbench").glob("*.py"))


def test_every_module_has_a_layer() -> None:
    assert sorted(module for members in LAYERS for module in members) == sorted([*MODULES, "testing"])


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_a_higher_layer(module: str) -> None:
    found = imports(ROOT / "genbench" / f"{module}.py")
    assert not [name for name in found if layer(name) > layer(module)]


@pytest.mark.parametrize("path", sorted((ROOT / "genbench" / "testing").glob("*.py")), ids=lambda path: path.stem)
def test_the_kit_imports_no_higher_layer(path: Path) -> None:
    assert not [name for name in imports(path) if layer(name) > layer("testing")]


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=lambda path: path.stem)
def test_plugins_import_the_contract_alone(path: Path) -> None:
    assert imports(path) <= PLUGINS_MAY_IMPORT


def test_training_and_evaluation_do_not_know_the_plan() -> None:
    for module in ("train", "evaluate"):
        assert "plan" not in imports(ROOT / "genbench" / f"{module}.py")


def test_the_core_names_no_plugin() -> None:
    for path in (ROOT / "genbench").glob("*.py"):
        assert "import genbench_" not in path.read_text()
        assert "from genbench_" not in path.read_text()


@pytest.mark.parametrize(
    "module",
    [
        *REPORTING,
        "explainview",
        "arguments",
        "cli",
        "cli_reproduce",
        "index",
        "recipes",
        "listing",
        "authoring",
        "cli_authors",
        "cli_plot",
        "plotting",
        "completing",
        "store",
        "rows",
        "files",
        "provenance",
    ],
)
def test_reports_and_help_load_no_torch(module: str) -> None:
    """Followed through the imports at the top of each module, which is what loading it costs."""
    seen, ahead = set(), [module]
    while ahead:
        current = ahead.pop()
        if current in seen:
            continue
        seen.add(current)
        tree = ast.parse((ROOT / "genbench" / f"{current}.py").read_text())
        for node in tree.body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in {"torch", "torchvision", "ot"}], current
            ahead += [name.split(".")[1] for name in names if name.startswith("genbench.")]
