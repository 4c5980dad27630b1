"""The algorithms of a search: which points are tried next, given the values of those that are done.

Each is deterministic in its seed and in what it was told, in batches of fixed size: a search that was killed asks for
the same points again, and whatever ran side by side does not matter.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np

from genbench.api import Search
from genbench.errors import UsageError
from genbench.registry.options import OptionSpec, search_values
from genbench.tuning.space import Point, Space, contains, point_at, rounded
from genbench.utils.rng import derive_seed

Algorithm = Literal["random", "halving", "tpe", "gp"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
INDEPENDENT = ("random", "halving")
"""The algorithms whose points do not depend on values: all of them are asked for at once."""

FACTOR = 3
"""Successive halving keeps one trial of so many, as Hyperband does by default (arXiv:1603.06560)."""
RUNGS = 3
"""Its rungs at most: a ninth of the training, a third, and all of it. Earlier than that ranks say little."""

BATCH = 5
"""Trials that a sampler of optuna is asked for at once."""


class TrialSampler(Protocol):
    """Asks for points, and is told the value of each."""

    def ask(self, n: int) -> list[Point]:
        """The next n points; all of them are told before the next call."""

    def tell(self, points: Sequence[Point], values: Sequence[float | None]) -> None:
        """The values of points, in their order; None for one that failed."""


class RandomSearch:
    """Independent draws, uniform on the scale of each option. Of more trials the first ones are the same."""

    def __init__(self, space: Space, seed: int, model: str) -> None:
        self._space, self._draws = space, np.random.default_rng(derive_seed(seed, "search", model))

    def ask(self, n: int) -> list[Point]:
        return [point_at(self._space, {name: self._draws.random() for name in self._space}) for _ in range(n)]

    def tell(self, points: Sequence[Point], values: Sequence[float | None]) -> None:
        pass


class OptunaSearch:
    """A sampler of optuna: TPE, or a Gaussian process with expected improvement."""

    def __init__(self, space: Space, seed: int, model: str, algorithm: Algorithm, *, higher_is_better: bool) -> None:
        optuna = import_optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._space, self._higher_is_better = optuna, space, higher_is_better
        derived = derive_seed(seed, "search", model) % 2**32
        with warnings.catch_warnings():  # of arguments that are experimental
            warnings.simplefilter("ignore")
            if algorithm == "tpe":
                sampler = optuna.samplers.TPESampler(seed=derived, multivariate=True, constant_liar=True)
            else:
                sampler = optuna.samplers.GPSampler(seed=derived, deterministic_objective=False)
        self._study = optuna.create_study(direction="maximize" if higher_is_better else "minimize", sampler=sampler)
        self._asked: list[Any] = []
        self._distributions = {name: _distribution(optuna, *entry) for name, entry in space.items()}

    def ask(self, n: int) -> list[Point]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._asked = [self._study.ask(self._distributions) for _ in range(n)]
        return [self._point(trial.params) for trial in self._asked]

    def tell(self, points: Sequence[Point], values: Sequence[float | None]) -> None:
        states, create = self._optuna.trial.TrialState, self._optuna.trial.create_trial
        if not self._asked:  # points that it was not asked for: the default
            for point, value in zip(points, values, strict=True):
                if contains(self._space, point) and value is not None:
                    trial = create(params=point, distributions=self._distributions, value=value)
                    self._study.add_trial(trial)
            return

        # A trial that failed counts as the worst one so far: one without a value would be asked for again and again.
        known = [trial.value for trial in self._study.get_trials(states=(states.COMPLETE,))]
        known += [value for value in values if value is not None]
        worst = (min if self._higher_is_better else max)(known, default=None)
        for trial, value in zip(self._asked, values, strict=True):
            shown = worst if value is None else value
            if shown is None:
                self._study.tell(trial, state=states.FAIL)
            else:
                self._study.tell(trial, shown)
        self._asked = []

    def _point(self, params: dict[str, Any]) -> Point:
        return {
            name: params[name] if search.scale == "choice" else rounded(spec, search, params[name])
            for name, (spec, search) in self._space.items()
        }


def _distribution(optuna: Any, spec: OptionSpec, search: Search) -> Any:
    if search.scale == "choice":
        return optuna.distributions.CategoricalDistribution(search_values(spec, search))
    low, high, log = search.low or 0, search.high or 0, search.scale == "log"
    if spec.type is int:
        return optuna.distributions.IntDistribution(int(low), int(high), log=log)
    return optuna.distributions.FloatDistribution(float(low), float(high), log=log)


def import_optuna() -> Any:
    """The module optuna; `UsageError` where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UsageError("--algorithm tpe and gp need optuna: pip install 'genbench[tune]', or take random") from None
    return optuna


@dataclass(frozen=True)
class Rung:
    """`trials` are trained up to a `share` of the training."""

    trials: int
    share: float


def rungs(n: int) -> list[Rung]:
    """Successive halving of n trials: at each rung the best third go on, one at least.

    >>> [(rung.trials, round(rung.share, 2)) for rung in rungs(29)]
    [(29, 0.11), (9, 0.33), (3, 1.0)]
    """
    count = 1
    while count < RUNGS and FACTOR**count <= n:
        count += 1
    return [Rung(n // FACTOR**k, 1.0 / FACTOR ** (count - 1 - k)) for k in range(count)]


def trainings(trials: int, algorithm: Algorithm) -> float:
    """The whole trainings that so many trials of a model cost; a trial goes on from its state.

    >>> trainings(30, "random"), round(trainings(30, "halving"), 2)
    (30.0, 8.22)
    """
    if algorithm != "halving":
        return float(trials)
    cost, before = 1.0, 0.0  # the first trial is trained to its end
    for rung in rungs(trials - 1):
        cost, before = cost + rung.trials * (rung.share - before), rung.share
    return cost


def halving_words(trials: int) -> str:
    """What successive halving does with so many trials, the first one of which has the default options.

    >>> halving_words(10)
    '9 trials up to 1/9 of the training, 3 up to 1/3, 1 to its end, and the default to its end: as 3.33 whole trainings'
    """
    first, *later = rungs(trials - 1)
    parts = [f"{first.trials} trials up to {_share_words(first.share)} of the training"]
    parts += [
        f"{rung.trials} {'to its end' if rung.share == 1 else f'up to {_share_words(rung.share)}'}" for rung in later
    ]
    return f"{', '.join(parts)}, and the default to its end: as {trainings(trials, 'halving'):.3g} whole trainings"


def _share_words(share: float) -> str:
    return f"1/{round(1 / share)}"


def affordable(trials: int, costs: Sequence[float], algorithm: Algorithm = "random") -> list[int]:
    """How many trials each model has at equal cost: the cheapest one has `trials`, every other as many as that pays.

    `costs` are those of a whole training.

    >>> affordable(30, [1.0, 2.0, 40.0])
    [30, 15, 1]
    """
    budget = min(costs) * trainings(trials, algorithm) * (1 + 1e-9)
    counts = range(trials, 1, -1)
    return [next((n for n in counts if cost * trainings(n, algorithm) <= budget), 1) for cost in costs]
