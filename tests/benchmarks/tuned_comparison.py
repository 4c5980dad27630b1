"""Equal models of which one has a lucky default: does a comparison at defaults err, and a tuned one not?

    python tests/benchmarks/tuned_comparison.py

Writes reports/trust/tuned-comparison.{json,md}; some ten minutes on two cores. Nothing is trained: a model is a
response surface, the validation value of two options, with the noise of a training. The functions are those that
compare real models. It measures without a goal.
"""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from genbench.stats.best import GroupSearch, best_tests, model_tests
from genbench.stats.intervals import Floats
from genbench.utils.io import write_text

STUDIES, MODELS, SEEDS = 200, 4, 10
SEED = 20_290
OPTIMUM = np.array([0.4, 0.6])
"""The best place of both options, each from 0 to 1 on its scale."""
CURVATURE = np.array([20.0, 8.0])
NOISE = 1.0
"""The standard deviation of the metric over trainings."""
KINDS = [(gain, trials) for trials in (10, 30, 100) for gain in (0.0, 2.0, 4.0)]
"""Gains of the last model, and numbers of trials."""
TESTS = ("untuned", "seeds", "rule")
"""Comparisons: at defaults, of the chosen options by fresh seeds alone, and the verdict."""
CHOICES = 40_000
"""Simulated searches behind the law of the chosen options' values."""
CORES = 2
OUT = Path(__file__).resolve().parents[2] / "reports" / "trust"


def surface(options: Floats) -> Floats:
    """The expected metric (lower is better) at options `(..., 2)`; at best 25."""
    return 25.0 + (CURVATURE * np.square(options - OPTIMUM)).sum(-1)


def trained(rng: np.random.Generator, options: Floats, gain: float, seeds: int) -> dict[int, float]:
    """A model's values by training seed."""
    return dict(enumerate((surface(options) - gain + NOISE * rng.normal(size=seeds)).tolist()))


def study(rng: np.random.Generator, trials: int, gain: float) -> dict[str, float]:
    """One study: model 0 has its default at the optimum; the last model is better by `gain`, all others are equal."""
    gains = [0.0] * (MODELS - 1) + [gain]
    defaults = [OPTIMUM, *rng.random((MODELS - 1, 2))]
    untuned = dict(enumerate(trained(rng, d, g, SEEDS) for d, g in zip(defaults, gains, strict=True)))

    # The search of each model on validation values of one training each, and the choice trained anew.
    searched = [rng.random((trials, 2)) for _ in range(MODELS)]
    validation = [surface(x) - g + NOISE * rng.normal(size=trials) for x, g in zip(searched, gains, strict=True)]
    places = [int(values.argmin()) for values in validation]
    chosen = [x[place] for x, place in zip(searched, places, strict=True)]
    tuned = dict(enumerate(trained(rng, c, g, SEEDS) for c, g in zip(chosen, gains, strict=True)))
    reached = [float(surface(c)) - g for c, g in zip(chosen, gains, strict=True)]
    curse = np.mean([r - v[place] for r, v, place in zip(reached, validation, places, strict=True)])

    # Which models are called worse, by each comparison.
    searches = {f"{m}": GroupSearch(f"{m}", ("random",), tuple(v.tolist())) for m, v in enumerate(validation)}
    values = {f"{m}": v for m, v in tuned.items()}
    worse = {
        "untuned": [
            r.status == "worse" for r in best_tests({f"{m}": v for m, v in untuned.items()}, lower=True).values()
        ],
        "seeds": [r.status == "worse" for r in best_tests(values, lower=True).values()],
        "rule": [r.status == "worse" for r in model_tests(values, searches, lower=True).results.values()],
    }
    best = [MODELS - 1] if gain else list(range(MODELS))
    others = [m for m in range(MODELS) if m not in best]
    results = {"reached": float(np.ptp(reached[: MODELS - 1])), "curse": float(curse)}
    results["default"] = float(np.ptp([surface(np.asarray(d)) for d in defaults[: MODELS - 1]]))
    for name, called in worse.items():
        results[f"{name} errs"] = float(any(called[m] for m in best))
        if others:
            results[f"{name} finds all"] = float(all(called[m] for m in others))
            results[f"{name} finds one"] = float(np.mean([called[m] for m in others]))
    return results


def attainable(trials: int, gain: float) -> float:
    """How often a gain is found, Bonferroni over all pairs, by who knows the law of the differences of fresh seeds.

    That law has the luck of the searches in it, which more seeds do not make smaller.
    """
    rng = np.random.default_rng([SEED, trials])
    options = rng.random((CHOICES, trials, 2))
    values = surface(options)
    chosen = (values + NOISE * rng.normal(size=values.shape)).argmin(1)
    reached = np.take_along_axis(values, chosen[:, None], 1)[:, 0]
    fresh = reached + NOISE / math.sqrt(SEEDS) * rng.normal(size=CHOICES)
    differences = fresh[: CHOICES // 2] - fresh[CHOICES // 2 :]
    critical = np.quantile(np.abs(differences), 1 - 0.05 / math.comb(MODELS, 2))
    return float(np.mean(differences + gain > critical))


def rate(studies: list[dict[str, float]], name: str) -> str:
    """A share with its standard error over studies; "" where it was not looked at."""
    if name not in studies[0]:
        return ""
    values = [entry[name] for entry in studies]
    return f"{np.mean(values):.1%} ± {np.std(values) / math.sqrt(len(values)):.1%}"


def mean(studies: list[dict[str, float]], name: str) -> str:
    """A mean over studies."""
    return f"{np.mean([entry[name] for entry in studies]):.2f}"


def studies_of(kind: tuple[float, int]) -> list[dict[str, float]]:
    """The studies of one gain and number of trials."""
    gain, trials = kind
    return [study(np.random.default_rng([SEED, k, trials, int(gain)]), trials, gain) for k in range(STUDIES)]


def main() -> None:
    """Simulate, and write."""
    began = time.perf_counter()
    results: dict[tuple[float, int], list[dict[str, float]]] = {}
    with ProcessPoolExecutor(CORES) as pool:
        for kind, studies in zip(KINDS, pool.map(studies_of, KINDS), strict=True):
            results[kind] = studies
            write(results, time.perf_counter() - began)


def write(results: dict[tuple[float, int], list[dict[str, float]]], seconds: float) -> None:
    """Write what has been simulated."""
    lines = [
        "# Comparisons at defaults and tuned ones, on a planted problem",
        "",
        f"`python tests/benchmarks/tuned_comparison.py`: {STUDIES} studies of each kind, {seconds:.0f} s on"
        f" {CORES} busy cores.",
        "",
        f"{MODELS} models have the same response surface, 25 + 20 (x - 0.4)² + 8 (y - 0.6)², lower is better, and"
        f" trainings of standard deviation {NOISE:g}. The first has its default at the optimum, the others anywhere. A"
        " model is called worse by",
        "",
        f"* **defaults**: {SEEDS} seeds at the defaults, tested as a table is (the set of bests at 5 %);",
        f"* **fresh seeds alone**: a random search of each model with the same number of trials, one training a trial;"
        f" the best trial is trained anew with {SEEDS} fresh seeds, tested as above;",
        "* **the verdict**: fresh seeds and the trials of the two searches, at the largest number of trials compared,"
        " both say so: `model_tests`, which marks the ranking column of tuned tables.",
        "",
        "± is the standard error of the simulation.",
        "",
        "## Equal models: how often any is called worse",
        "",
        "| trials | defaults | fresh seeds alone | the verdict | range of true values: defaults |"
        " chosen | validation value too good by |",
        "|--:|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {trials} | {rate(r, 'untuned errs')} | {rate(r, 'seeds errs')} | {rate(r, 'rule errs')} |"
            f" {mean(r, 'default')} | {mean(r, 'reached')} | {mean(r, 'curse')} |"
            for (gain, trials), r in results.items()
            if not gain
        ),
        "",
        'Fresh seeds compare the *chosen options*, which differ by the luck of the searches (column "chosen"): more'
        " seeds find that difference more often, and more trials make it smaller.",
        "",
        "## The last model is better by a gain: how often that is found, and how often it is called worse",
        "",
        f"The gain is in standard deviations of a training. All: the other {MODELS - 1} are all called worse; one: the"
        " mean share of them that is, beside the share that a test of the chosen options' values would find that knew"
        " their law, the luck of the searches included (5 %, Bonferroni over the pairs): more seeds cannot raise it.",
        "",
        "| gain | trials | all, defaults | fresh seeds alone | the verdict | one, defaults | fresh seeds alone |"
        " the verdict | known law | errs, defaults | fresh seeds alone | the verdict |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {gain:g} | {trials} | "
            + " | ".join(
                [
                    *(rate(r, f"{name} {what}") for what in ("finds all", "finds one") for name in TESTS),
                    f"{attainable(trials, gain):.1%}",
                    *(rate(r, f"{name} errs") for name in TESTS),
                ]
            )
            + " |"
            for (gain, trials), r in sorted(results.items())
            if gain
        ),
        "",
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    kept = [
        {
            "gain": gain,
            "trials": trials,
            **{name: float(np.mean([s[name] for s in r])) for name in sorted(r[0])},
        }
        for (gain, trials), r in results.items()
    ]
    write_text(
        OUT / "tuned-comparison.json", json.dumps({"seed": SEED, "studies": STUDIES, "rates": kept}, indent=1) + "\n"
    )
    write_text(OUT / "tuned-comparison.md", "\n".join(lines))


if __name__ == "__main__":
    main()
