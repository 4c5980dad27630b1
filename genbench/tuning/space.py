"""Search spaces: the options of a model that are searched, and their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from genbench.api import Search
from genbench.errors import DataError, UsageError, unknown
from genbench.registry.options import OptionSpec, Value, is_within, search_problem, search_values, specs
from genbench.storage.schema import StoredSearch
from genbench.utils.io import read_toml

Space = dict[str, tuple[OptionSpec, Search]]
"""The searched options by their names with hyphens."""

Point = dict[str, Value]
"""A value of each searched option, by the same names."""

SCALES = ("log", "linear", "choice")
RATE = "rate"
"""The option that is searched where a model declares no space."""
RATE_FACTOR = 10.0
"""Its default is multiplied by up to so much, and divided."""
DIGITS = 4
"""Significant digits of a drawn number: enough for any option, and short in tables."""


def declared_space(model: str, factory: Callable[..., object]) -> tuple[Space, str]:
    """The space that a model declares, and a line for the user where it declares none.

    Without a declaration its learning rate alone is searched, where it has one.
    """
    options = specs(factory)
    space: Space = {
        name: (spec, spec.meaning.search) for name, spec in options.items() if spec.meaning.search is not None
    }
    if space:
        return space, ""
    rate = options.get(RATE)
    if rate is None or rate.type is not float or not isinstance(rate.default, float) or rate.default <= 0:
        return {}, f"{model} declares no option to be searched and has no {RATE}: it keeps its options"
    search = Search("log", rate.default / RATE_FACTOR, rate.default * RATE_FACTOR)
    low, high = f"{search.low:g}", f"{search.high:g}"
    return {RATE: (rate, search)}, f"{model} declares no option to be searched: its {RATE} alone, {low} to {high}"


def read_spaces(path: Path, factories: Mapping[str, Callable[..., object]]) -> dict[str, Space]:
    """The spaces of a TOML file, by model: `weight = {log = [1, 1000]}` under `[swae]`.

    A model that the file names is searched over exactly the options that stand there. Raises `UsageError` for a name,
    a scale or values that are not possible.
    """
    try:
        tables = read_toml(path)
    except DataError as error:
        raise UsageError(f"--space {error}") from None
    if not tables:
        raise UsageError(f"--space {path}: it names no model: give one of {', '.join(factories)} a table, [MODEL]")
    spaces: dict[str, Space] = {}
    for model, table in tables.items():
        if model not in factories:
            raise UsageError(f"--space {path}: {unknown('model of this search called', model, factories)}")
        if not isinstance(table, dict):
            raise UsageError(f"--space {path}: {model}: options stand in a table, [{model}]")
        options = specs(factories[model])
        spaces[model] = {}
        for name, given in table.items():
            option = name.replace("_", "-")
            if option not in options:
                raise UsageError(
                    f"--space {path}: {unknown(f'option {model}.{name}; {model} has none called', name, options)}"
                )
            spec = options[option]
            search = _read_search(f"--space {path}: {model}.{option}", spec, given)
            spaces[model][option] = (spec, search)
    return spaces


def _read_search(where: str, spec: OptionSpec, given: Any) -> Search:
    """The search that a file gives for an option."""
    form = "{log = [LOW, HIGH]}, {linear = [LOW, HIGH]} or {choice = [VALUE, ...]}"
    if not isinstance(given, dict) or len(given) != 1 or not isinstance(next(iter(given.values())), list):
        raise UsageError(f"{where}: {given!r}: it takes the form {form}")
    ((scale, values),) = given.items()
    if scale not in SCALES:
        raise UsageError(f"{where}: {unknown('scale', str(scale), SCALES)}")
    if scale == "choice":
        search = Search("choice", values=tuple(values))
        plain = all(isinstance(value, int | float | bool | str) for value in values)
    else:
        plain = len(values) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        search = Search(scale, *values) if plain else Search(scale)
    if not plain:
        raise UsageError(f"{where}: {given!r}: it takes the form {form}")
    if problem := search_problem(spec, search):
        raise UsageError(f"{where}: {problem}")
    return search


def without_set(space: Space, options: Iterable[str]) -> Space:
    """The space without the options that the user has set."""
    fixed = {option.replace("_", "-") for option in options}
    return {name: entry for name, entry in space.items() if name not in fixed}


def point_at(space: Space, uniform: Mapping[str, float]) -> Point:
    """The point of a space at numbers in [0, 1), one for each option.

    >>> point_at({}, {})
    {}
    """
    return {name: _value(spec, search, uniform[name]) for name, (spec, search) in space.items()}


def _value(spec: OptionSpec, search: Search, u: float) -> Value:
    if search.scale == "choice":
        values = search_values(spec, search)
        return values[int(u * len(values))]
    low, high = float(search.low or 0), float(search.high or 0)
    if spec.type is int:  # each whole number has the part of the scale that rounds to it
        low, high = (low - 0.5, high + 0.5) if search.scale == "linear" else (max(low - 0.5, 0.5), high + 0.5)
    if search.scale == "log":
        value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    else:
        value = low + u * (high - low)
    return rounded(spec, search, value)


def rounded(spec: OptionSpec, search: Search, value: float) -> Value:
    """A number as the option takes it, in few digits, within the bounds."""
    low, high = float(search.low or 0), float(search.high or 0)
    if spec.type is int:
        return int(min(max(round(value), low), high))
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)


def default_point(space: Space, values: Mapping[str, Value]) -> Point:
    """The searched options as a component's `values`, by Python names, have them."""
    return {name: values[name.replace("-", "_")] for name in space}


def contains(space: Space, point: Point) -> bool:
    """Whether a point lies within the space."""
    return all(is_within(spec, search, point[name]) for name, (spec, search) in space.items())


def stored_space(space: Space) -> dict[str, StoredSearch]:
    """A space as it is stored, the values of a choice written out."""
    return {
        name: StoredSearch("choice", values=search_values(spec, search))
        if search.scale == "choice"
        else StoredSearch(search.scale, search.low, search.high)
        for name, (spec, search) in space.items()
    }
