"""Equal models of which one has a lucky default: does a comparison at defaults err, and a tuned one not?

    python tests/benchmarks/tuned_comparison.py

Writes reports/trust/tuned-comparison.{json,md}; about a minute on one core. Nothing is trained: a model is a response
surface, the validation value of two options, with the noise of a training. The functions are those that compare real
models. It measures without a goal.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np

from genbench.stats.budget_curves import compare_budgets
from genbench.stats.comparison import set_of_best
from genbench.stats.intervals import Floats
from genbench.utils.io import write_text

STUDIES, MODELS, SEEDS = 200, 4, 10
SEED = 20_290
OPTIMUM = np.array([0.4, 0.6])
"""The best place of both options, each from 0 to 1 on its scale."""
CURVATURE = np.array([20.0, 8.0])
NOISE = 1.0
"""The standard deviation of the metric over trainings."""
OUT = Path(__file__).resolve().parents[2] / "reports" / "trust"


def surface(options: Floats) -> Floats:
    """The expected metric (lower is better) at options `(..., 2)`; at best 25."""
    return 25.0 + (CURVATURE * np.square(options - OPTIMUM)).sum(-1)


def trained(rng: np.random.Generator, options: Floats, gain: float, seeds: int) -> dict[int, float]:
    """A model's values by training seed."""
    return dict(enumerate((surface(options) - gain + NOISE * rng.normal(size=seeds)).tolist()))


def called_worse(values: list[dict[int, float]]) -> list[bool]:
    """Which models a table would leave unmarked."""
    return [result.status == "worse" for result in set_of_best(values, lower=True)]


def study(rng: np.random.Generator, trials: int, gain: float) -> dict[str, float]:
    """One study: model 0 has its default at the optimum; the last model is better by `gain`,"
    " and all others are equal."""
    gains = [0.0] * (MODELS - 1) + [gain]
    defaults = [OPTIMUM, *rng.random((MODELS - 1, 2))]
    untuned = called_worse([trained(rng, d, g, SEEDS) for d, g in zip(defaults, gains, strict=True)])

    # The search of each model on validation values of one training each, and the choice trained anew.
    searched = [rng.random((trials, 2)) for _ in range(MODELS)]
    validation = [surface(x) - g + NOISE * rng.normal(size=trials) for x, g in zip(searched, gains, strict=True)]
    places = [int(values.argmin()) for values in validation]
    chosen = [x[place] for x, place in zip(searched, places, strict=True)]
    tuned = called_worse([trained(rng, c, g, SEEDS) for c, g in zip(chosen, gains, strict=True)])
    reached = [float(surface(c)) - g for c, g in zip(chosen, gains, strict=True)]
    curse = np.mean([r - v[place] for r, v, place in zip(reached, validation, places, strict=True)])
    budgets = compare_budgets({str(m): v.tolist() for m, v in enumerate(validation)}, higher_is_better=False)

    best = [MODELS - 1] if gain else list(range(MODELS))
    ahead = {pair.first if lead > 0 else pair.second for pair in budgets for lead in pair.ahead if lead}
    return {
        "untuned errs": any(untuned[m] for m in best),
        "tuned errs": any(tuned[m] for m in best),
        "budgets err": bool(ahead - {str(MODELS - 1)}) if gain else bool(ahead),
        "untuned finds": all(untuned[m] for m in range(MODELS) if m not in best),
        "tuned finds": all(tuned[m] for m in range(MODELS) if m not in best),
        "budgets find": sum(pair.second == str(MODELS - 1) and -1 in pair.ahead for pair in budgets) == MODELS - 1,
        "reached": float(np.ptp(reached[: MODELS - 1])),
        "default": float(np.ptp([surface(np.asarray(d)) for d in defaults[: MODELS - 1]])),
        "curse": float(curse),
    }


def rate(studies: list[dict[str, float]], name: str) -> str:
    """A share with its standard error."""
    p = float(np.mean([entry[name] for entry in studies]))
    return f"{p:.1%} ± {math.sqrt(p * (1 - p) / len(studies)):.1%}"


def mean(studies: list[dict[str, float]], name: str) -> str:
    """A mean over studies."""
    return f"{np.mean([entry[name] for entry in studies]):.2f}"


def main() -> None:
    """Simulate, and write."""
    began = time.perf_counter()
    budgets, gains = (10, 30), (0.0, 2.0)
    results = {
        (gain, trials): [
            study(np.random.default_rng([SEED, k, trials, int(gain)]), trials, gain) for k in range(STUDIES)
        ]
        for gain in gains
        for trials in budgets
    }
    seconds = time.perf_counter() - began
    lines = [
        "# Comparisons at defaults and tuned ones, on a planted problem",
        "",
        f"`python tests/benchmarks/tuned_comparison.py`: {STUDIES} studies of each kind, {seconds:.0f} s on one core.",
        "",
        f"{MODELS} models have the same response surface, 25 + 20 (x - 0.4)² + 8 (y - 0.6)², lower"
        " is better, and trainings"
        f" of standard deviation {NOISE:g}. The first has its default at the optimum, the others"
        f" anywhere. Untuned: {SEEDS}"
        " seeds at the defaults. Tuned: a random search of the same number of trials each, one"
        " training a trial; the best"
        f" trial is trained anew with {SEEDS} fresh seeds. Both are tested as a table is (the set"
        " of bests at 5 %). Budget"
        " curves: the trials themselves are compared at all numbers of trials (`compare_budgets`).",
        "",
        "## Equal models: how often one is called worse",
        "",
        "| trials | untuned | tuned, fresh seeds | budget curves | range of true values: defaults | chosen |"
        " validation value too good by |",
        "|--:|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {trials} | {rate(r, 'untuned errs')} | {rate(r, 'tuned errs')} | {rate(r, 'budgets err')} |"
            f" {mean(r, 'default')} | {mean(r, 'reached')} | {mean(r, 'curse')} |"
            for (gain, trials), r in results.items()
            if not gain
        ),
        "",
        'Fresh seeds compare the *chosen options*, which differ by the luck of the searches (column "chosen"): more'
        " seeds"
        " find that difference more often, and more trials make it smaller. Budget curves compare the models under"
        " another search of the same kind, and hold their 5 % up to the error of this simulation.",
        "",
        f"## The last model is better by {gains[1]:g}",
        "",
        "It errs where the better model is called worse than another one (budget curves: where any"
        " other model is said to be"
        " ahead); it finds where all three others are called worse.",
        "",
        "| trials | untuned errs | tuned errs | budget curves err | untuned finds | tuned finds | budget curves find |",
        "|--:|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {trials} | {rate(r, 'untuned errs')} | {rate(r, 'tuned errs')} | {rate(r, 'budgets err')} |"
            f" {rate(r, 'untuned finds')} | {rate(r, 'tuned finds')} | {rate(r, 'budgets find')} |"
            for (gain, trials), r in results.items()
            if gain
        ),
        "",
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    kept = [
        {"gain": gain, "trials": trials, **{name: float(np.mean([s[name] for s in r])) for name in r[0]}}
        for (gain, trials), r in results.items()
    ]
    write_text(
        OUT / "tuned-comparison.json", json.dumps({"seed": SEED, "studies": STUDIES, "rates": kept}, indent=1) + "\n"
    )
    write_text(OUT / "tuned-comparison.md", "\n".join(lines))


if __name__ == "__main__":
    main()
