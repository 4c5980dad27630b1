"""What a run folder's JSON files must hold, checked where they are read; whatever else stands there is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genbench.errors import DataError, StoreError
from genbench.files import read_json

SCHEMA = 2

Check = Callable[[Any], bool]


def text(value: Any) -> bool:
    """A string."""
    return isinstance(value, str)


def whole(value: Any) -> bool:
    """A whole number of at least 0 that a float holds."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def number(value: Any) -> bool:
    """A finite number that a float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def one_of(*words: str) -> Check:
    """One of some words."""
    return lambda value: value in words


def maybe(check: Check) -> Check:
    """What `check` accepts, or null."""
    return lambda value: value is None or check(value)


def mapping(**fields: Check) -> Check:
    """An object with at least these fields."""

    def check(value: Any) -> bool:
        return isinstance(value, dict) and all(name in value and holds(value[name]) for name, holds in fields.items())

    return check


def every(check: Check) -> Check:
    """A list each of whose members passes."""
    return lambda value: isinstance(value, list) and all(check(member) for member in value)


def each(check: Check, key: Check = text) -> Check:
    """An object each of whose values passes, and each of whose names."""
    return lambda value: isinstance(value, dict) and all(key(name) and check(it) for name, it in value.items())


_CHOICE = mapping(name=text, options=mapping(), fingerprint=text)
_NUMBER = mapping(
    value=number,
    unit=text,
    better=one_of("lower", "higher", "neither"),
    n=whole,
    part=text,
    label=text,
    **dict.fromkeys(("floor", "floor_sd", "se", "low", "high", "p", "detectable"), maybe(number)),
    protocol=text,
    how=mapping(),
)
RUN = mapping(
    run=mapping(
        **dict.fromkeys(("dataset", "model", "prior", "network"), _CHOICE),
        **dict.fromkeys(("latent_dim", "seed", "images", "batch"), whole),
        role=one_of("model", "control"),
    ),
    provenance=mapping(),
)
MEASUREMENTS = mapping(
    measurements=each(
        mapping(
            metric=text,
            options=mapping(),
            error=text,
            inapplicable=text,
            split=text,
            numbers=every(_NUMBER),
        )
    )
)
TRAINING = mapping(
    seconds=number,
    images=whole,
    parameters=whole,
    device=text,
    threads=whole,
    peak_memory=maybe(whole),
    flops=maybe(number),
)
FAILURE = mapping(kind=text, message=text)


def read(path: Path, check: Check) -> Mapping[str, Any]:
    """The object in a JSON file of ours; `StoreError` names a file that is damaged, foreign or of another schema."""
    away = f"move the folder {path.parent} away"
    try:
        value = read_json(path)
    except DataError as error:
        raise StoreError(f"{error}; {away}") from None
    if not isinstance(value, dict) or "schema" not in value:
        raise StoreError(f"{path} is no genbench file; {away}")
    if value["schema"] != SCHEMA:
        raise StoreError(
            f"{path} has schema {value['schema']!r}; this version reads {SCHEMA}: use the one that wrote it"
        )
    if not check(value):
        raise StoreError(f"{path} does not hold what its schema says; {away}")
    return value
