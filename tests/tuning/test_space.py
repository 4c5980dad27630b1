"""Search spaces: their declarations, their values, and those of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genbench.api import Option, Search
from genbench.errors import PluginError, UsageError
from genbench.registry.loader import Registry
from genbench.registry.options import is_within, specs
from genbench.storage.schema import StoredSearch
from genbench.tuning.space import declared_space, default_point, point_at, read_spaces, stored_space, without_set


def factory(
    context: object,
    *,
    weight: Annotated[float, Option("w", low=0, search=Search("log", 0.1, 1000))] = 10.0,
    share: Annotated[float, Option("s", low=0, high=1, search=Search("linear", 0, 1))] = 0.5,
    count: Annotated[int, Option("n", low=1, search=Search("log", 1, 8))] = 2,
    kernel: Annotated[Literal["imq", "rbf"], Option("k", search=Search("choice"))] = "imq",
    square: Annotated[bool, Option("b", search=Search("choice"))] = False,
    width: int = 3,
) -> None: ...


def rate_alone(context: object, *, rate: Annotated[float, Option("r", above=0)] = 1e-3) -> None: ...


def nothing(context: object, *, width: int = 3) -> None: ...


@given(st.floats(0, 1, exclude_max=True))
def test_every_point_lies_within_the_space(u: float) -> None:
    space, note = declared_space("m", factory)
    point = point_at(space, dict.fromkeys(space, u))
    assert note == ""
    assert list(point) == ["weight", "share", "count", "kernel", "square"]
    assert all(is_within(spec, search, point[name]) for name, (spec, search) in space.items())
    assert isinstance(point["count"], int)
    assert point["weight"] == float(f"{point['weight']:.4g}")


def test_the_ends_and_every_choice_are_reached() -> None:
    space, _ = declared_space("m", factory)
    low, high = (point_at(space, dict.fromkeys(space, u)) for u in (0.0, 1 - 1e-12))
    assert (low["weight"], high["weight"]) == (0.1, 1000)
    assert (low["count"], high["count"]) == (1, 8)
    assert (low["kernel"], high["kernel"], low["square"], high["square"]) == ("imq", "rbf", False, True)


def test_log_and_linear_scales_are_uniform_on_their_scale() -> None:
    space, _ = declared_space("m", factory)
    middle = point_at(space, dict.fromkeys(space, 0.5))
    assert middle["weight"] == pytest.approx(10.0)
    assert middle["share"] == pytest.approx(0.5)


def test_without_a_declaration_the_rate_alone_is_searched() -> None:
    space, note = declared_space("m", rate_alone)
    assert space["rate"][1] == Search("log", 1e-4, 1e-2)
    assert "its rate alone" in note
    assert declared_space("m", nothing)[0] == {}


def test_what_the_user_sets_is_not_searched() -> None:
    space, _ = declared_space("m", factory)
    assert list(without_set(space, ["weight", "share", "count"])) == ["kernel", "square"]
    assert default_point(space, {"weight": 1.0, "share": 0.5, "count": 2, "kernel": "imq", "square": True})["square"]


@pytest.mark.parametrize(
    ("option", "default", "problem"),
    [
        (Option("x", search=Search("log", 0, 1)), 0.5, "above 0"),
        (Option("x", search=Search("log", 1, 10)), 0.5, "not among its values"),
        (Option("x", search=Search("linear", 1, 1)), 1.0, "low below high"),
        (Option("x", low=0, search=Search("linear", -1, 1)), 0.5, "at least 0"),
        (Option("x", search=Search("choice")), 0.5, "two values"),
        (Option("x", above=0, search=Search("choice", values=(0.0, 1.0))), 1.0, "no value"),
    ],
)
def test_a_search_that_cannot_be_is_refused_with_the_plugin(option: Option, default: float, problem: str) -> None:
    def wrong(context: object, *, x: float = default) -> None: ...

    wrong.__annotations__["x"] = Annotated[float, option]
    with pytest.raises(PluginError, match=problem):
        specs(wrong)


def test_every_bundled_model_declares_a_space(registry: Registry) -> None:
    names = list(registry.registrations["model"])
    spaces = {name: declared_space(name, registry.get("model", name).spec.factory) for name in names}
    assert {name for name, (_, note) in spaces.items() if note} == set()


def test_a_file_replaces_the_space_of_a_model(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text('[m]\nweight = {linear = [1, 2]}\nkernel = {choice = ["rbf", "imq"]}\ncount = {choice = [1, 4]}\n')
    space = read_spaces(file, {"m": factory, "other": nothing})["m"]
    assert {name: search for name, (_, search) in space.items()} == {
        "weight": Search("linear", 1, 2),
        "kernel": Search("choice", values=("rbf", "imq")),
        "count": Search("choice", values=(1, 4)),
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[swae]\nweight = {log = [1, 2]}", "possible: m"),
        ("[m]\nwaight = {log = [1, 2]}", "did you mean 'weight'"),
        ("[m]\nweight = {lag = [1, 2]}", "did you mean 'log'"),
        ("[m]\nweight = [1, 2]", "takes the form"),
        ("[m]\nweight = {log = [2, 1]}", "low below high"),
        ("[m]\nweight = {log = [0, 1]}", "above 0"),
        ("[m]\nkernel = {log = [1, 2]}", "take a choice"),
        ('[m]\nkernel = {choice = ["imq", "cubic"]}', "'cubic' is no value"),
        ("m = 3", "stand in a table"),
        ("[m", "no TOML"),
        ("a = " + "[" * 5000, "no TOML"),
        ("", "names no model"),
        ("[m]\nweight = {log = [1, inf]}", "at most 1e.150"),
        ("[m]\nweight = {log = [nan, 1]}", "at most 1e.150"),
        ("[m]\nweight = {log = [1, 1e300]}", "at most 1e.150"),
        (f"[m]\nweight = {{linear = [0, 1{'0' * 400}]}}", "at most 1e.150"),
        (f"[m]\nweight = {{choice = [0, 1{'0' * 400}]}}", "at most 9223372036854775807"),
        ("[m]\ncount = {log = [1, 10000000000000000000]}", "at most 9.22"),
        ("[m]\ncount = {choice = [1, 10000000000000000000]}", "at most 9223372036854775807"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "space.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=problem) as refusal:
        read_spaces(file, {"m": factory})
    assert "\n" not in str(refusal.value)


def test_a_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_bytes(b"\xef\xbb\xbf[m]\r\nweight = {log = [1, 2]}\r\n")
    assert list(read_spaces(file, {"m": factory})["m"]) == ["weight"]


def test_a_space_within_the_bounds_is_read_again_once_stored(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text("[m]\nweight = {log = [1e-150, 1e150]}\ncount = {log = [1, 1000000000]}\n")
    stored = stored_space(read_spaces(file, {"m": factory})["m"])
    assert msgspec.json.decode(msgspec.json.encode(stored), type=dict[str, StoredSearch]) == stored
