"""Named components that a plug-in provides, and their options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Search:
    """The values of an option among which `genbench tune` searches.

    Args:
        scale: "log" and "linear" draw a number between `low` and `high`, uniformly on that scale, whole where the
            option is an int; "choice" draws one of `values`.
        low: Smallest value of a number; above 0 on the scale "log".
        high: Largest value.
        values: The values of a choice; empty: all those of a `Literal`, or true and false.

    Example:
        >>> Search("log", 1, 1e3).low
        1
    """

    scale: Literal["log", "linear", "choice"]
    low: float | None = None
    high: float | None = None
    values: tuple[int | float | bool | str, ...] = ()


@dataclass(frozen=True)
class Option:
    """The meaning and the bounds of an option, written into the annotation of a keyword-only parameter.

    Args:
        description: The meaning in a few words, with the unit.
        reference: Where the default comes from (arXiv id, code base, "ours").
        low: Inclusive lower bound of a number.
        high: Inclusive upper bound of a number.
        above: Exclusive lower bound of a number.
        file: The value is the path of a file or folder. Its content decides the number, not its place: a metric's
            protocol records the hash of the content in the field `weights`, and a dataset that states
            `DatasetInfo.originals` is the same one under every path.
        search: The values among which `genbench tune` searches; None: the option keeps its value. The default lies
            among them.

    Example:
        >>> from typing import Annotated
        >>> def factory(latent_dim: int, *, sigma: Annotated[float, Option("standard deviation", above=0)] = 1.0):
        ...     ...
    """

    description: str
    reference: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    file: bool = False
    search: Search | None = None


@dataclass(frozen=True, kw_only=True)
class ComponentSpec(Generic[T]):
    """A named component: what a plug-in's hook yields.

    The keyword-only parameters of `factory` are the component's options. Their annotations (int, float, bool, str, a
    `Literal` of strings, or one of these `| None`, with an `Option` in `Annotated`) and their defaults give the help,
    the validation and the complete record of a run.

    Args:
        name: Lower case letters, digits and hyphens.
        description: One line for lists.
        factory: Makes the component; `genbench.hookspecs` gives the positional arguments of each kind.
        reference: The paper or the code that it comes from ("ours" where there is none).
        aliases: Further words for it, lower case, by which a user who does not know the name is led to it.
        family: The heading under which lists show it, with the components of the same kind that are like it.

    Example:
        >>> ComponentSpec(name="half", description="A constant", factory=lambda: 0.5, reference="ours").factory()
        0.5
    """

    name: str
    description: str
    factory: Callable[..., T]
    reference: str = ""
    aliases: tuple[str, ...] = ()
    family: str = ""
