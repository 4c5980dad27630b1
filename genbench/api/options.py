"""Named components that a plug-in offers, and their options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """What an option means; stands in the annotation: `weight: Annotated[float, Option("...", low=0)] = 10.0`.

    `about` is its meaning in a few words. `source` says where the default comes from. `low` and `high` are inclusive
    bounds, `above` an exclusive lower one. `file` marks the place of a file whose content, and not its place, decides
    the number: a metric's protocol tells the content by its hash, in the field `weights`.
    """

    about: str
    source: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    file: bool = False


@dataclass(frozen=True, kw_only=True)
class ComponentSpec(Generic[T]):
    """A named thing that a plug-in offers.

    The keyword-only parameters of `make` are its options: their annotations (int, float, bool, str, a `Literal` of
    strings, or one of these `| None`; with an `Option` in `Annotated`) and their defaults give the help, the
    validation and the complete record of a run. `name` is lower case letters, digits and hyphens, `about` one line for
    lists, `source` the paper or the code that it comes from ("ours" where there is none).
    """

    name: str
    about: str
    make: Callable[..., T]
    source: str = ""
