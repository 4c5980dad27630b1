"""Loading: whatever a plug-in does at import, the command line goes on and reports the cause."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Annotated, Literal

import pytest
from click.testing import Result

from genbench.api import Option
from genbench.errors import GenbenchError, PluginError, UsageError
from genbench.registry import loader as plugins
from genbench.registry.listing import SELECT, Kind
from genbench.registry.loader import Registry, _import_file, fingerprint, load
from genbench.registry.options import complete, specs

PRIOR = """
from genbench.api import ComponentSpec
from genbench.hookspecs import hookimpl
@hookimpl
def genbench_priors():
    yield ComponentSpec(name="{name}", description="a test", factory=lambda latent_dim: None)
"""

WORKING_PRIOR = """
import torch
from genbench.api import ComponentSpec, Prior
from genbench.hookspecs import hookimpl
class Mine(Prior):
    def __init__(self, latent_dim):
        super().__init__()
        self.latent_dim = latent_dim
    def sample(self, n, noise): return noise.normal(n, self.latent_dim)
@hookimpl
def genbench_priors():
    yield ComponentSpec(name="mine", description="a test", factory=Mine)
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("def (:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (PRIOR.format(name="Bad Name"), "not lower case"),
        (PRIOR.format(name="x").replace("genbench_priors", "genbench_prior"), "did you mean 'genbench_priors'"),
        (PRIOR.format(name="x").replace("@hookimpl\n", ""), "genbench_priors lacks its decorator: @hookimpl"),
        ("x = 1", "it has no hook, such as genbench_priors"),
        (PRIOR.format(name="x").replace("ComponentSpec(", "dict("), "not genbench.api.ComponentSpec"),
        (PRIOR.format(name="x").replace("lambda latent_dim: None", "lambda d, **rest: None"), "every option must"),
        (PRIOR.format(name="x").replace("lambda latent_dim: None", "lambda d, *, o=[1]: None"), "needs an annotation"),
    ],
)
def test_a_plugin_file_that_cannot_be_used_is_refused_with_its_cause(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(PluginError) as caught:
        load([write(tmp_path, "mine", text)])
    assert cause in str(caught.value)
    assert "mine.py" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plugin_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="there is no such file"):
        load([tmp_path / "absent.py"])


def test_two_components_of_one_name_are_refused_naming_both(tmp_path: Path) -> None:
    registry = load([write(tmp_path, f, PRIOR.format(name="twin")) for f in ("one", "two")])
    with pytest.raises(PluginError, match=r"offered by --plugin .*one\.py and --plugin .*two\.py"):
        registry.get("prior", "twin")
    assert registry.get("prior", "normal")


class Foreign(Distribution):
    """An installed distribution of somebody else."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def metadata(self) -> dict[str, str]:  # type: ignore[override]
        return {"Name": self._name, "Version": "1.0"}

    def read_text(self, filename: str) -> None:
        return None

    def locate_file(self, path: object) -> Path:
        return Path(str(path))


def point(name: str, module: str, distribution: str) -> EntryPoint:
    entry_point = EntryPoint(name, module, "genbench")
    vars(entry_point)["dist"] = Foreign(distribution)
    return entry_point


def installed(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> Registry:
    monkeypatch.setattr(plugins, "entry_points", lambda group: list(points))
    return load(environment={})


def test_an_installed_plugin_that_is_broken_takes_nothing_else_down(monkeypatch: pytest.MonkeyPatch) -> None:
    points = point("bad", "nowhere_at_all", "theirs"), point("good", "genbench_priors", "ours")
    registry = installed(monkeypatch, *points)
    assert [(p.name, p.state) for p in registry.plugins] == [("bad", "broken"), ("good", "loaded")]
    assert registry.get("prior", "normal")
    with pytest.raises(PluginError, match="broken plug-ins: bad"):
        registry.get("prior", "theirs")


def test_two_distributions_that_claim_one_name_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points = point("p", "genbench_priors", "ours"), point("p", "genbench_plane", "theirs")
    registry = installed(monkeypatch, *points)
    assert {p.state for p in registry.plugins} == {"broken"}
    assert all("ours 1.0 and theirs 1.0" in p.cause for p in registry.plugins)


def test_plugins_are_selected_by_the_environment() -> None:
    registry = load(environment={SELECT: "priors-any"})
    assert {p.name for p in registry.plugins if p.state == "loaded"} == {"priors-any"}
    with pytest.raises(UsageError, match="did you mean 'priors-any'"):
        load(environment={SELECT: "prior-any"})


def test_two_files_that_offer_one_name_are_named_by_their_flags(tmp_path: Path) -> None:
    source = (
        "from genbench.api import ComponentSpec\nfrom genbench.hookspecs import hookimpl\n\n"
        "@hookimpl\ndef genbench_priors():\n    yield ComponentSpec(name='{}', description='', factory=lambda d: 0)\n"
    )
    files = [write(tmp_path, name, source.format("moons")) for name in ("my one", "two")]
    with pytest.raises(PluginError) as error:
        load(files).get("prior", "moons")
    flags = [f"--plugin '{files[0]}'", f"--plugin {files[1]}"]
    assert all(f"leave off {flag}" in str(error.value) for flag in flags)
    assert SELECT not in str(error.value)
    assert load(files[:1]).get("prior", "moons")  # the advice, followed
    files = [write(tmp_path, "three", source.format("normal"))]
    with pytest.raises(PluginError, match=rf"leave off --plugin {files[0]}") as error:
        load(files).get("prior", "normal")
    assert "--disable-plugin priors-any" in str(error.value)
    assert load(files, disabled=["priors-any"]).get("prior", "normal")


# ---------------------------------------------------------------- fingerprints

SOURCE = '''"""A plug-in."""
import math  # a comment

RATE = 0.5
"""The learning rate."""


class Scale:
    """Scales."""

    def apply(self, x, *, by=2):
        """Apply it."""
        # a comment
        return {"scaled": x * by, "name": "it", "text": f"{x:.2f}"}


async def later(x):
    """Later."""
    if x is None:
        return [*x]
    return math.sqrt(x) if x != 0 else 1.0
'''


def fingerprint_of(path: Path) -> str:
    return fingerprint(_import_file(path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # a comment", ""),
        ("        # a comment\n", "\n        # another\n"),
        ('"""A plug-in."""', '"""Another text."""'),
        ('"""A plug-in."""\n', ""),
        ('"""The learning rate."""\n', ""),
        ('    """Scales."""\n\n', ""),
        ('"""Apply it."""', '"""Scales by a factor."""'),
        ('    """Later."""\n', ""),
        ("x * by", "(x*by)"),
        ("0.5", "0.50"),
        ('"scaled"', "'sca' 'led'"),
        ("\n", "\r\n"),
    ],
)
def test_comments_docstrings_and_formatting_leave_the_fingerprint(tmp_path: Path, old: str, new: str) -> None:
    path = write(tmp_path, "mine", SOURCE)
    before = fingerprint_of(path)
    assert old in SOURCE
    path.write_text(SOURCE.replace(old, new), newline="")
    assert fingerprint_of(path) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.5", "0.25"),
        ("0.5", "'0.5'"),
        ("by=2", "by=2.0"),
        ("by=2", "by=True"),
        ("by=2", "by=None"),
        ("x * by", "x + by"),
        ("x * by", "by * x"),
        ('"scaled"', '"Scaled"'),
        ('"it"', '"them"'),
        (".2f", ".3f"),
        ("x != 0", "x is not 0"),
        ("[*x]", "[x]"),
        ("math.sqrt(x)", "math.exp(x)"),
        ("async def", "def"),
        ("x, *, by", "x, by"),
        ("import math", "import math as math_"),
        ("class Scale", "class Scaled"),
    ],
)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_changed_code_changes_the_fingerprint(tmp_path: Path, old: str, new: str) -> None:
    path = write(tmp_path, "mine", SOURCE)
    before = fingerprint_of(path)
    assert old in SOURCE
    path.write_text(SOURCE.replace(old, new))
    assert fingerprint_of(path) != before


def test_the_aliases_of_a_component_leave_the_fingerprint_and_those_of_anything_else_change_it(tmp_path: Path) -> None:
    source = "def make(ComponentSpec, api):\n    return {}(name='a'{}, factory=dict)\n"

    def fingerprints(call: str) -> set[str]:
        texts = ("", ", aliases=('b',)", ", aliases=('b', 'c'), family='d'")
        return {fingerprint_of(write(tmp_path, "mine", source.format(call, text))) for text in texts}

    assert len(fingerprints("ComponentSpec")) == len(fingerprints("api.ComponentSpec")) == 1
    assert len(fingerprints("dict")) == 3


def test_the_fingerprint_of_a_package_covers_its_files(tmp_path: Path) -> None:
    package = tmp_path / "theirs"
    (package / "inner").mkdir(parents=True)
    for file, text in (("__init__.py", "x = 1\n"), ("inner/part.py", "y = 1\n"), ("numbers.toml", "a = 1\n")):
        (package / file).write_text(text)
    fingerprints = [fingerprint_of(package / "__init__.py")]
    (package / "inner" / "part.py").write_text("y = 1  # a comment\n")
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "part.pyc").write_bytes(b"bytecode")
    (package / ".part.py.swp").write_bytes(b"an editor's")
    assert fingerprint_of(package / "__init__.py") == fingerprints[0]
    for file, text in (("inner/part.py", "y = 2\n"), ("numbers.toml", "a = 2\n"), ("weights.safetensors", "w")):
        (package / file).write_text(text)
        fingerprints.append(fingerprint_of(package / "__init__.py"))
    assert len(set(fingerprints)) == 4


def test_every_bundled_plugin_loads_and_every_component_is_described() -> None:
    registry = load()
    assert [plugin.cause for plugin in registry.plugins if plugin.state != "loaded"] == []
    names: dict[Kind, set[str]] = {
        "model": {"swae", "wae-gan", "wae-mmd", "vae", "ae"},
        "prior": {"normal", "uniform", "ring", "circle", "disk", "bowl", "sphere", "mixture"},
        "network": {"mlp", "swae-mnist", "wae-mnist", "wae-celeba", "conv"},
        "dataset": {"glyphs", "mnist", "fashion-mnist", "cifar10", "svhn", "celeba", "folder"},
        "metric": {"fid", "kid", "reconstruction", "latent-w2", "latent-sw", "latent-mmd", "sharpness", "speed"},
    }
    for kind, expected in names.items():
        assert expected <= set(registry.names(kind)), kind
        for registration in registry.registrations[kind].values():
            spec = registration.spec
            assert spec.description
            assert all(option.meaning.description for option in specs(spec.factory).values()), spec.name


def test_every_default_of_a_model_has_a_source() -> None:
    for name, registration in load().registrations["model"].items():
        for option in specs(registration.spec.factory).values():
            assert option.meaning.reference, f"{name}.{option.name}"


def with_options(
    *,
    weight: Annotated[float, Option("w", low=0)] = 1.0,
    steps: int = 3,
    fast: bool = False,
    form: Literal["a", "b"] = "a",
    limit: int | None = None,
) -> None:
    """Every type that an option may have."""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"weight": "2.5"}, 2.5),
        ({"steps": "7"}, 7),
        ({"fast": "yes"}, True),
        ({"form": "b"}, "b"),
        ({"limit": "4"}, 4),
        ({"limit": "none"}, None),
    ],
)
def test_options_are_typed(given: dict[str, str], expected: object) -> None:
    (name,) = given
    value = complete("mine", with_options, given)[name]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    "given", ["weight=-1", "steps=2.5", "fast=maybe", "form=c", "limit=x", "weight=inf", "steps=none"]
)
def test_values_of_another_type_are_refused(given: str) -> None:
    name, _, text = given.partition("=")
    with pytest.raises(UsageError, match=rf"mine\.{name}"):
        complete("mine", with_options, {name: text})


def test_a_required_option_is_asked_for() -> None:
    def needs(*, path: Annotated[str, Option("where")]) -> None: ...

    with pytest.raises(UsageError, match=r"--set mine\.path="):
        complete("mine", needs, {})


def test_a_plugin_that_makes_the_wrong_thing_is_named(
    tmp_path: Path, genbench: Callable[..., Result], registry: Registry
) -> None:
    path = write(tmp_path, "wrong", PRIOR.format(name="wrong"))
    result = genbench("run", "swae", "--prior", "wrong", "--plugin", str(path), "--dry-run")
    assert result.exit_code == 2
    assert "the prior 'wrong' made a NoneType" in result.output


def test_errors_derive_from_the_error_of_the_project() -> None:
    assert issubclass(PluginError, GenbenchError)


def test_prints_at_import_go_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noisy = "import sys\nprint('welcome to mine')\nprint('and more', file=sys.stderr)\n" + PRIOR.format(name="noisy")
    (plugin,) = (p for p in load([write(tmp_path, "mine", noisy)]).plugins if p.name == "mine")
    assert capsys.readouterr() == ("", "welcome to mine\nand more\n")
    assert plugin.state == "loaded"
    assert plugin.note == ""


def test_a_plugin_that_prints_leaves_json_clean(tmp_path: Path, genbench: Callable[..., Result]) -> None:
    path = write(tmp_path, "mine", "print('welcome')\n" + WORKING_PRIOR)
    result = genbench("check", "--plugin", str(path), "--format", "json")
    assert {entry["name"] for entry in json.loads(result.stdout)} == {"mine"}
    assert "welcome" in result.stderr


def test_loading_and_planning_import_no_more_than_torch(tmp_path: Path) -> None:
    """Each of these takes up to three seconds, in every command and every worker: they are imported where used."""
    code = (
        "import sys; from genbench.cli.main import main\n"
        "main(['run', 'swae', '--dataset', 'glyphs', '--dry-run'], standalone_mode=False)\n"
        "heavy = {'torch._dynamo', 'torchvision', 'torch_fidelity', 'torchmetrics', 'sklearn', 'scipy', 'ot'}\n"
        "heavy |= {'matplotlib', 'pandas', 'optuna', 'zuko', 'ray', 'submitit'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "swae" in done.stdout


def test_a_slow_import_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "SLOW_SECONDS", 0.0)
    (plugin,) = (p for p in load([write(tmp_path, "mine", PRIOR.format(name="mine"))]).plugins if p.name == "mine")
    assert plugin.note.endswith("s to import")


def test_plugins_are_left_out_by_name(genbench: Callable[..., Result]) -> None:
    registry = load(environment={}, disabled=["vae"])
    assert [p.name for p in registry.plugins if p.state == "disabled"] == ["vae"]
    assert "vae" not in registry.names("model")
    result = genbench("run", "vae", "--disable-plugin", "vae,speed", "--dry-run")
    assert result.exit_code == 2
    assert "there is no model 'vae'" in result.output
    result = genbench("list", "models", "--disable-plugin", "va")
    assert result.exit_code == 2
    assert "did you mean 'vae'" in result.output


def test_the_list_of_plugins_tells_state_origin_hooks_and_cause(
    tmp_path: Path, genbench: Callable[..., Result]
) -> None:
    path = write(tmp_path, "mine", PRIOR.format(name="mine"))
    result = genbench("list", "plugins", "--plugin", str(path))
    (row,) = (line for line in result.stdout.splitlines() if line.startswith("mine"))
    assert all(word in row for word in ("loaded", "priors", " s "))


def test_a_file_changed_within_a_second_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python takes bytecode for current where a source has its old size and its time in whole seconds."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "mine.py"
    for value in ("1", "2"):
        path.write_text(f"VALUE = {value}\n")
        os.utime(path, (1e9, 1e9))
        module = _import_file(path)
        assert str(module.VALUE) == value
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("package", [False, True])
def test_an_installed_plugin_changed_within_a_second_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: bool
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.syspath_prepend(tmp_path)
    name = "theirs_package" if package else "theirs_module"
    folder = tmp_path / name if package else tmp_path
    folder.mkdir(exist_ok=True)
    if package:
        (folder / "__init__.py").write_text(f"from {name}.part import genbench_priors\n")
    for described in ("first", "other"):
        path = folder / ("part.py" if package else f"{name}.py")
        path.write_text(PRIOR.format(name="theirs").replace("a test", described))
        os.utime(path, (1e9, 1e9))
        registry = installed(monkeypatch, point("theirs", name, "theirs"))
        assert registry.get("prior", "theirs").spec.description == described
        assert list(folder.glob("__pycache__/*.pyc"))
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[module]
    assert not [finder for finder in sys.meta_path if isinstance(finder, plugins._PluginFinder)]
