"""What a run folder's JSON files must hold, checked where they are read; whatever else stands there is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genbench.errors import DataError, StoreError, one_line
from genbench.utils.io import parse_json, read_json

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
    if type(value) is float:  # nearly all are: checks of 10,000 runs take seconds
        return -sys.float_info.max <= value <= sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def one_of(*words: str) -> Check:
    """One of some words."""
    return lambda value: value in words


def maybe(check: Check) -> Check:
    """What `check` accepts, or null."""
    return lambda value: value is None or check(value)


def value(it: Any) -> bool:
    """A value that an option may have: text, a finite number, true, false or null; data, whatever it spells."""
    return it is None or isinstance(it, str | bool) or number(it)


def mapping(**fields: Check) -> Check:
    """An object with at least these fields."""

    wanted = tuple(fields.items())

    def check(value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        for name, holds in wanted:  # noqa: SIM110  (a generator takes twice as long)
            if name not in value or not holds(value[name]):
                return False
        return True

    return check


def every(check: Check) -> Check:
    """A list each of whose members passes."""
    return lambda value: isinstance(value, list) and all(check(member) for member in value)


def each(check: Check, key: Check = text) -> Check:
    """An object each of whose values passes, and each of whose names."""
    return lambda value: isinstance(value, dict) and all(key(name) and check(it) for name, it in value.items())


_CHOICE = mapping(name=text, options=each(value), fingerprint=text)
_NUMBER = mapping(
    value=number,
    unit=text,
    higher_is_better=lambda it: it is None or isinstance(it, bool),
    n=whole,
    component=text,
    role=text,
    label=text,
    **dict.fromkeys(("floor", "floor_sd", "se", "low", "high", "p_value", "minimum_detectable_effect"), maybe(number)),
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
FITTED = mapping(key=text, content=text)
IMPORTED = mapping(bundle=text, sha256=text, weights=lambda it: isinstance(it, bool))


def read(path: Path, check: Check) -> Mapping[str, Any]:
    """The object in a JSON file of ours; `StoreError` names a file that is damaged, foreign or of another schema."""
    try:
        found = read_json(path)
    except DataError as error:
        raise StoreError(f"{error}; {_away(path)}") from None
    return checked(found, check, path, own=path)


def _away(path: Path) -> str:
    return f"move the folder {path.parent} away"


def parse(data: bytes, check: Check, name: Path | str) -> Mapping[str, Any]:
    """As `read`, of the bytes of such a file."""
    try:
        found = parse_json(data, name)
    except DataError as error:
        raise StoreError(str(error)) from None
    return checked(found, check, name)


def checked(
    found: Any, check: Check, name: Path | str, schema: int = SCHEMA, *, own: Path | None = None
) -> dict[str, Any]:
    """The object, where it is of our schema and holds what `check` wants; else `StoreError`.

    `own` is the file where it is a run's own, whose folder can be moved away.
    """
    ours = isinstance(found, dict) and "schema" in found
    if ours and type(found["schema"]) is int and found["schema"] == schema and check(found):
        return dict(found)
    if ours and (type(found["schema"]) is not int or found["schema"] != schema):
        told = one_line(ValueError(repr(found["schema"])), 40)
        raise StoreError(f"{name} has schema {told}; this version reads {schema}: use the one that wrote it")
    what = "does not hold what its schema says" if ours else "is no genbench file"
    raise StoreError(f"{name} {what}" + (f"; {_away(own)}" if own else ""))
