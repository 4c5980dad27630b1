"""Options of a component: keyword-only parameters of its factory, one declaration for help, checks and records."""

from __future__ import annotations

import inspect
import math
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from genbench.api import Option, Search
from genbench.errors import PluginError, UsageError, unknown
from genbench.utils.io import LARGEST, LARGEST_INT

Value = int | float | bool | str | None
REQUIRED = inspect.Parameter.empty

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}


@dataclass(frozen=True)
class OptionSpec:
    """One option: its type (int, float, bool, str), choices where it is a `Literal`, default, meaning and bounds."""

    name: str
    type: type
    default: Any
    meaning: Option
    choices: tuple[str, ...] = ()
    optional: bool = False

    @property
    def kind(self) -> str:
        """The type in words, for help and errors."""
        word = "|".join(self.choices) if self.choices else self.type.__name__
        return f"{word}|none" if self.optional else word


def specs(factory: Callable[..., object]) -> dict[str, OptionSpec]:
    """The options of a factory, by name with hyphens; `PluginError` for an annotation the contract does not allow."""
    target = factory.__init__ if inspect.isclass(factory) else factory
    try:
        hints = get_type_hints(target, include_extras=True)
    except (NameError, TypeError) as error:
        raise PluginError(f"the annotations of {_where(factory)} cannot be resolved: {error}") from None
    options = {}
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            raise PluginError(f"{_where(factory)} takes **{parameter.name}: every option must be declared")
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            spec = _spec(factory, parameter, hints.get(parameter.name))
            options[spec.name] = spec
    return options


def _spec(factory: Callable[..., object], parameter: inspect.Parameter, hint: Any) -> OptionSpec:
    meaning = Option("")
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        meaning = next((note for note in notes if isinstance(note, Option)), meaning)
    optional = False
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        optional = len(members) < len(get_args(hint))
        hint = members[0] if len(members) == 1 else None
    choices: tuple[str, ...] = ()
    if get_origin(hint) is Literal:
        choices, hint = get_args(hint), str
    if hint not in (int, float, bool, str) or not all(isinstance(choice, str) for choice in choices):
        raise PluginError(
            f"option '{parameter.name}' of {_where(factory)} needs an annotation int, float, bool, str or Literal of"
            " strings, alone or `| None`"
        )
    spec = OptionSpec(parameter.name.replace("_", "-"), hint, parameter.default, meaning, choices, optional)
    if not _is_value(spec, spec.default):
        raise PluginError(
            f"the default of option '{parameter.name}' of {_where(factory)}, {spec.default!r}, is no {spec.kind}"
        )
    if meaning.search is not None:
        where = f"the search of option '{parameter.name}' of {_where(factory)}"
        problem = search_problem(spec, meaning.search)
        if not problem and spec.default is not REQUIRED and not is_within(spec, meaning.search, spec.default):
            problem = f"the default, {default_text(spec)}, is not among its values"
        if problem:
            raise PluginError(f"{where}: {problem}")
    return spec


def _is_value(spec: OptionSpec, default: Any) -> bool:
    """Whether a default is a value that could be given as text, and can be recorded."""
    if default is REQUIRED or (spec.optional and default is None):
        return True
    if spec.choices:
        return default in spec.choices
    if spec.type is float:
        return isinstance(default, int | float) and not isinstance(default, bool) and abs(default) <= sys.float_info.max
    if spec.type is int:
        return type(default) is int and abs(default) <= LARGEST_INT
    return type(default) is spec.type


def search_problem(spec: OptionSpec, search: Search) -> str:
    """The reason why an option cannot be searched so; "" where it can."""
    if search.scale == "choice":
        values = search_values(spec, search)
        wrong = [value for value in values if not _is_value(spec, value) or _bound(spec, value)]
        if wrong and type(wrong[0]) is int and abs(wrong[0]) > LARGEST_INT:
            return f"a whole number is at most {LARGEST_INT}"
        if wrong:
            return f"{wrong[0]!r} is no value of it ({spec.kind}{_comma(bounds_text(spec))})"
        return "" if len(set(values)) > 1 else "a choice needs two values or more"
    low, high = search.low, search.high
    if spec.type not in (int, float):
        return f"its values are {spec.kind}, which have no {search.scale} scale; take a choice"
    if low is None or high is None or search.values:
        return "it takes low and high, low below high"
    largest = LARGEST_INT if spec.type is int else LARGEST
    if not (abs(low) <= largest and abs(high) <= largest):  # NaN neither
        return f"low and high are numbers of at most {largest:g}"
    if low >= high:
        return "it takes low and high, low below high"
    if search.scale == "log" and low <= 0:
        return f"the scale log needs a low above 0, not {low:g}"
    if spec.type is int and (low != int(low) or high != int(high)):
        return f"low and high are whole numbers, not {low:g} and {high:g}"
    outside = next((bound for end in (low, high) if (bound := _bound(spec, end))), "")
    return f"low and high must be {outside}" if outside else ""


def search_values(spec: OptionSpec, search: Search) -> tuple[Value, ...]:
    """The values of a choice."""
    values = search.values or spec.choices or ((False, True) if spec.type is bool else ())
    return tuple(
        float(value) if spec.type is float and type(value) is int and abs(value) <= sys.float_info.max else value
        for value in values
    )


def is_within(spec: OptionSpec, search: Search, value: Value) -> bool:
    """Whether a value is among those that are searched."""
    if search.scale == "choice":
        return value in search_values(spec, search)
    return isinstance(value, int | float) and (search.low or 0) <= value <= (search.high or 0)


def _comma(text: str) -> str:
    return f", {text}" if text else ""


def _where(factory: Callable[..., object]) -> str:
    return f"{getattr(factory, '__module__', '?')}.{getattr(factory, '__qualname__', repr(factory))}"


def parse(owner: str, spec: OptionSpec, text: str) -> Value:
    """The typed value of an option's text; `UsageError` for a text of another type or out of bounds."""
    if spec.optional and text.lower() == "none":
        return None
    value: Value
    try:
        value = _convert(spec, text)
    except ValueError:
        possible = f"possible: {', '.join(spec.choices)}" if spec.choices else f"not a {spec.kind}"
        raise UsageError(f"{owner}.{spec.name}={text}: {possible}") from None
    _check_bounds(owner, spec, value)
    return value


def _convert(spec: OptionSpec, text: str) -> Value:
    if spec.type is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ValueError
        return text.lower() in _TRUE
    if spec.choices:
        if text not in spec.choices:
            raise ValueError
        return text
    converted: Value = spec.type(text)
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ValueError
    return converted


def _check_bounds(owner: str, spec: OptionSpec, value: Value) -> None:
    if isinstance(value, int) and abs(value) > LARGEST_INT:  # records, tensors and other languages have 64 bits
        raise UsageError(f"{owner}.{spec.name}: must be at most {LARGEST_INT}")
    if bound := _bound(spec, value):
        raise UsageError(f"{owner}.{spec.name}={value:g}: must be {bound}")


def _bound(spec: OptionSpec, value: Value) -> str:
    """The bound that a number violates; "" for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    meaning = spec.meaning
    return (
        (meaning.low is not None and value < meaning.low and f"at least {meaning.low:g}")
        or (meaning.high is not None and value > meaning.high and f"at most {meaning.high:g}")
        or (meaning.above is not None and value <= meaning.above and f"above {meaning.above:g}")
        or ""
    )


def complete(owner: str, factory: Callable[..., object], given: Mapping[str, str]) -> dict[str, Value]:
    """Every option of `factory` with its value, given or default, by its Python name."""
    known = specs(factory)
    for name in given:
        if name.replace("_", "-") not in known:
            raise unknown(f"option '{owner}.{name}'; {owner} has none called", name, known)
    texts = {name.replace("_", "-"): text for name, text in given.items()}
    values: dict[str, Value] = {}
    for name, spec in known.items():
        if name in texts:
            values[name.replace("-", "_")] = parse(owner, spec, texts[name])
        elif spec.default is REQUIRED:
            raise UsageError(f"{owner} needs the option {name}: --set {owner}.{name}=... ({spec.meaning.description})")
        else:
            values[name.replace("-", "_")] = spec.default
    return values


def default_text(spec: OptionSpec) -> str:
    """The default as it would be typed."""
    if spec.default is REQUIRED:
        return "required"
    if isinstance(spec.default, bool) or spec.default is None:
        return str(spec.default).lower()
    return f"{spec.default:g}" if isinstance(spec.default, float) else str(spec.default)


def bounds_text(spec: OptionSpec) -> str:
    """The bounds in words, empty where there are none."""
    bounds = (("at least", spec.meaning.low), ("above", spec.meaning.above), ("at most", spec.meaning.high))
    return ", ".join(f"{word} {value:g}" for word, value in bounds if value is not None)
