"""The stable surface: every public name and every hook is documented."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import types
from pathlib import Path

import pytest

from genbench import api, hookspecs
from genbench.registry.listing import KINDS, Kind
from genbench.registry.loader import load

TREES = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(Path(api.__file__).parent.glob("*.py"))]


def documented_assignments() -> dict[str, str]:
    """Names assigned at the top of the module, with the string that stands under them."""
    documented = {}
    for node, below in ((node, below) for tree in TREES for node, below in zip(tree.body, tree.body[1:], strict=False)):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            documented[target.id] = str(below.value.value)
    return documented


@pytest.mark.parametrize("name", api.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    thing = getattr(api, name)
    text = thing.__dict__.get("__doc__") if inspect.isclass(thing) else getattr(thing, "__doc__", None)
    if not inspect.isclass(thing) and not inspect.isfunction(thing):
        text = documented_assignments().get(name)
    assert text, name
    assert not text.startswith(f"{name}("), f"{name} has the docstring that dataclass generates"


METHODS = [
    (cls, name, method)
    for cls in vars(api).values()
    if inspect.isclass(cls) and cls.__module__.startswith(api.__name__)
    for name, member in vars(cls).items()
    if not name.startswith("_") and (method := getattr(member, "fget", member)) and inspect.isfunction(method)
]


@pytest.mark.parametrize(("cls", "name", "method"), METHODS, ids=[f"{c.__name__}.{n}" for c, n, _ in METHODS])
def test_every_public_method_is_documented_and_typed_and_tensors_have_shapes(
    cls: type, name: str, method: types.FunctionType
) -> None:
    text = method.__doc__ or ""
    assert text, f"{cls.__name__}.{name}"
    assert "return" in method.__annotations__
    if method.__annotations__["return"] == "Tensor":
        assert re.search(r"`[^`]*\((n|d)?,", text), f"{cls.__name__}.{name} returns a tensor of an undocumented shape"


ABSTRACT = [(cls, name) for cls, name, _ in METHODS if name in getattr(cls, "__abstractmethods__", ())]


@pytest.mark.parametrize(("cls", "name"), ABSTRACT, ids=[f"{c.__name__}.{n}" for c, n in ABSTRACT])
def test_the_errors_of_an_abstract_method_are_documented_there_or_at_its_class(cls: type, name: str) -> None:
    text = f"{getattr(vars(cls)[name], 'fget', vars(cls)[name]).__doc__} {cls.__doc__}"
    assert re.search(r"\braises?\s+(`[A-Z]\w+`|nothing)|\bno method raises|^ *Raises:$", text, flags=re.I | re.M)


RECORDS = [cls for name in api.__all__ if dataclasses.is_dataclass(cls := getattr(api, name))]


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_every_field_of_a_record_is_documented(cls: type) -> None:
    """By its name, or in words where the name is one of those."""
    text = cls.__doc__ or ""
    missing = [f.name for f in dataclasses.fields(cls) if not re.search(rf"\b{f.name.replace('_', '[_ ]')}\b", text)]
    assert not missing


@pytest.mark.parametrize(
    ("cls", "unit"),
    [
        (api.TrainingStats, r"seconds.*bytes.*floating point operations"),
        (api.Images, r"uint8.*int64"),
        (api.Measurement, r"in the unit of the value"),
        (api.ProgressEvent, r"units"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_units_are_documented(cls: type, unit: str) -> None:
    assert re.search(unit, cls.__doc__ or "", flags=re.DOTALL)


@pytest.mark.parametrize("kind", ["model", "prior", "network", "metric"])
def test_every_bundled_component_has_a_reference(kind: Kind) -> None:
    entries = load(environment={}).registrations[kind]
    assert entries
    assert [name for name, entry in entries.items() if not entry.spec.reference] == []


def test_every_hook_is_documented_with_the_signature_of_its_factory() -> None:
    hooks = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("genbench_")}
    hooks.pop("genbench_bibtex")  # which yields no component
    assert set(hooks) == {f"genbench_{kind}s" for kind in KINDS}
    for name, hook in hooks.items():
        thing = name.removeprefix("genbench_").removesuffix("s").capitalize()
        assert re.search(r"`factory\(.*options\.\.\.\)`", hook.__doc__ or ""), name
        assert f"`{thing}`" in (hook.__doc__ or ""), name
        assert not inspect.signature(hook).parameters, name
        assert hook.__annotations__["return"] == f"Iterable[ComponentSpec[{thing}]]"
