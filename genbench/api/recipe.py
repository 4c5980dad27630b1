"""The recipe: a published experiment and its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One number of an experiment: the `value` of a `metric` in a `case` ("d = 64, L = 50"), in its `unit`.

    It was measured under `seed`, from n repeats. `protocol` tells how, by the names of fields that the recipe states of
    its published numbers; where it is empty, a changed option or budget makes it another protocol.
    """

    case: str
    metric: str
    value: float
    n: int
    unit: str = ""
    seed: int = 0
    protocol: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A paper's experiment: the `text` of a TOML file; `where` names the file.

    `genbench.reproduction.recipe` describes the keys.

    A recipe of `study = "grid"` has no code: its cells are trained and measured as `genbench run` would. What no grid
    can say has `study = "experiment"` and brings `experiment(seed, budget)`, budget a fraction in (0, 1] of its
    repeats, which yields findings; its published numbers, margins and verdicts are the file's all the same.
    """

    text: str
    where: str
    experiment: Callable[[int, float], Iterable[Finding]] | None = None
