"""Errors name the last line of a plug-in that they passed, and nothing where they passed none."""

from __future__ import annotations

from pathlib import Path

import pytest

from genbench.errors import PluginError, UnsupportedError
from genbench.registry.loader import load
from genbench.utils.plugin_code import add_source, describe_error, error_location

PRIOR = """
from genbench.api import ComponentSpec
from genbench.hookspecs import hookimpl


def helper(values):
    return sorted(values, key=len)


def make(latent_dim):
    return helper([1])


@hookimpl
def genbench_priors():
    yield ComponentSpec(name="mine", description="", factory=make)
"""


def raised(file: Path) -> Exception:
    factory = load([file]).get("prior", "mine").spec.factory
    with pytest.raises(TypeError) as caught:
        factory(2)
    return caught.value


def test_the_place_is_the_last_line_of_the_plugin_below_libraries(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PRIOR)
    error = raised(file)
    assert error_location(error) == "mine.py:7, in helper"
    assert describe_error(error) == f"mine.py:7, in helper: TypeError: {error}"


def test_a_file_within_a_package_is_named_by_its_path_from_there(tmp_path: Path) -> None:
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("def fail():\n    return 1 / 0\n")
    add_source(package / "__init__.py")
    names: dict[str, object] = {}
    exec(compile((package / "inner.py").read_text(), str(package / "inner.py"), "exec"), names)
    with pytest.raises(ZeroDivisionError) as caught:
        names["fail"]()  # type: ignore[operator]
    assert describe_error(caught.value) == "theirs/inner.py:2, in fail: ZeroDivisionError: division by zero"


def test_errors_that_are_messages_and_errors_elsewhere_have_no_place() -> None:
    assert describe_error(UnsupportedError("no such thing")) == "no such thing"
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("x")
    assert describe_error(caught.value).startswith("ValueError: invalid literal")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("x = 1\ny = nothing\n", "mine.py:2: NameError: name 'nothing' is not defined"),
        ("x = 1\ndef broken(:\n", "mine.py:2: SyntaxError: invalid syntax"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_with_its_line(source: str, cause: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(source)
    with pytest.raises(PluginError, match=cause):
        load([file])
