"""Loading: whatever a plug-in does at import, the command line lives and the cause is told."""

from __future__ import annotations

import os
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
from genbench.registry.loader import Registry, _import_file, load
from genbench.registry.options import complete, specs

PRIOR = """
from genbench.api import ComponentSpec
from genbench.hookspecs import hookimpl
@hookimpl
def genbench_priors():
    yield ComponentSpec(name="{name}", description="a test", factory=lambda latent_dim: None)
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


def test_two_offers_of_one_name_are_refused_naming_both(tmp_path: Path) -> None:
    registry = load([write(tmp_path, f, PRIOR.format(name="twin")) for f in ("one", "two")])
    with pytest.raises(PluginError, match=r"one \(.*one\.py\) and two \(.*two\.py\)"):
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
    made = EntryPoint(name, module, "genbench")
    vars(made)["dist"] = Foreign(distribution)
    return made


def installed(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> Registry:
    monkeypatch.setattr(plugins, "entry_points", lambda group: list(points))
    return load(environment={})


def test_an_installed_plugin_that_is_broken_takes_nothing_else_down(monkeypatch: pytest.MonkeyPatch) -> None:
    found = installed(monkeypatch, point("bad", "nowhere_at_all", "theirs"), point("good", "genbench_priors", "ours"))
    assert [(p.name, p.state) for p in found.plugins] == [("bad", "broken"), ("good", "loaded")]
    assert found.get("prior", "normal")
    with pytest.raises(PluginError, match="broken plug-ins: bad"):
        found.get("prior", "theirs")


def test_two_distributions_that_claim_one_name_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = installed(monkeypatch, point("p", "genbench_priors", "ours"), point("p", "genbench_plane", "theirs"))
    assert {p.state for p in found.plugins} == {"broken"}
    assert all("ours 1.0 and theirs 1.0" in p.cause for p in found.plugins)


def test_plugins_are_selected_by_the_environment() -> None:
    found = load(environment={plugins.SELECT: "priors-any"})
    assert {p.name for p in found.plugins if p.state == "loaded"} == {"priors-any"}
    with pytest.raises(UsageError, match="did you mean 'priors-any'"):
        load(environment={plugins.SELECT: "prior-any"})


def test_the_fingerprint_follows_the_source(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", PRIOR.format(name="mine"))
    before = load([path]).get("prior", "mine").plugin.fingerprint
    path.write_text(path.read_text() + "\n# changed\n")
    assert load([path]).get("prior", "mine").plugin.fingerprint != before


def test_every_bundled_plugin_loads_and_every_offer_says_what_it_is() -> None:
    found = load()
    assert [p.cause for p in found.plugins if p.state != "loaded"] == []
    for kind, wanted in {
        "model": {"swae", "wae-gan", "wae-mmd", "vae", "ae"},
        "prior": {"normal", "uniform", "ring", "circle", "disk", "bowl", "sphere", "mixture"},
        "network": {"mlp", "swae-mnist", "wae-mnist", "wae-celeba", "conv"},
        "dataset": {"glyphs", "mnist", "fashion-mnist", "cifar10", "svhn", "celeba", "folder"},
        "metric": {"fid", "kid", "reconstruction", "latent-w2", "latent-sw", "latent-mmd", "sharpness", "speed"},
    }.items():
        assert wanted <= set(found.entries[kind]), kind  # type: ignore[index]
        for entry in found.entries[kind].values():  # type: ignore[index]
            assert entry.spec.description
            assert all(spec.meaning.description for spec in specs(entry.spec.factory).values()), entry.spec.name


def test_every_default_of_a_model_has_a_source() -> None:
    for name, entry in load().entries["model"].items():
        for spec in specs(entry.spec.factory).values():
            assert spec.meaning.reference, f"{name}.{spec.name}"


def offered(
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
    found = complete("it", offered, given)[name]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "given", ["weight=-1", "steps=2.5", "fast=maybe", "form=c", "limit=x", "weight=inf", "steps=none"]
)
def test_what_is_not_of_the_type_is_refused(given: str) -> None:
    name, _, text = given.partition("=")
    with pytest.raises(UsageError, match=rf"it\.{name}"):
        complete("it", offered, {name: text})


def test_a_required_option_is_asked_for() -> None:
    def needs(*, path: Annotated[str, Option("where")]) -> None: ...

    with pytest.raises(UsageError, match=r"--set it\.path="):
        complete("it", needs, {})


def test_a_plugin_that_makes_the_wrong_thing_is_named(
    tmp_path: Path, genbench: Callable[..., Result], registry: Registry
) -> None:
    path = write(tmp_path, "wrong", PRIOR.format(name="wrong"))
    result = genbench("run", "swae", "--prior", "wrong", "--plugin", str(path), "--dry-run")
    assert result.exit_code == 2
    assert "the prior 'wrong' made a NoneType" in result.output


def test_errors_are_the_projects_own() -> None:
    assert issubclass(PluginError, GenbenchError)


def test_what_a_plugin_prints_at_import_stays_out_of_our_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = "import sys\nprint('welcome to mine')\nprint('and more', file=sys.stderr)\n" + PRIOR.format(name="noisy")
    (plugin,) = (p for p in load([write(tmp_path, "mine", noisy)]).plugins if p.name == "mine")
    assert capsys.readouterr() == ("", "")
    assert plugin.state == "loaded"
    assert plugin.notes == ("prints at import: welcome to mine and more",)


def test_an_import_that_takes_long_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "SLOW_SECONDS", 0.0)
    (plugin,) = (p for p in load([write(tmp_path, "mine", PRIOR.format(name="mine"))]).plugins if p.name == "mine")
    assert plugin.notes[0].endswith("s to import")


def test_plugins_are_left_out_by_name(genbench: Callable[..., Result]) -> None:
    found = load(environment={}, without=["vae"])
    assert [p.name for p in found.plugins if p.state == "left out"] == ["vae"]
    assert "vae" not in found.entries["model"]
    result = genbench("run", "vae", "--disable-plugin", "vae,speed", "--dry-run")
    assert result.exit_code == 2
    assert "there is no model 'vae'" in result.output
    result = genbench("list", "models", "--disable-plugin", "va")
    assert result.exit_code == 2
    assert "did you mean 'vae'" in result.output


def test_the_list_of_plugins_tells_state_origin_hooks_and_cause(
    tmp_path: Path, genbench: Callable[..., Result]
) -> None:
    path = write(tmp_path, "mine", "print('hello there')\n" + PRIOR.format(name="mine"))
    result = genbench("list", "plugins", "--plugin", str(path))
    (row,) = (line for line in result.stdout.splitlines() if line.startswith("mine"))
    assert all(word in row for word in ("loaded", "priors", " s "))
    assert "prints at import: hello there" in " ".join(result.stderr.split())


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
