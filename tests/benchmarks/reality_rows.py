"""The rows behind the page of the reality check: runs read by dataset and number, and all models compared.

`compare_models` fills tables, which `reality_page` writes as CSV files and makes sentences of.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from genbench.analysis.compare import compare
from genbench.analysis.gather import gather
from genbench.analysis.tuning import search_values
from genbench.experiment.run import SAMPLED, Run, run_of_record
from genbench.stats.best import best_tests
from genbench.stats.budget_curves import BudgetComparison, compare_budgets
from genbench.stats.comparison import holm_of_tests
from genbench.stats.intervals import Estimate, estimate
from genbench.stats.power import ALPHA, seeds_needed
from genbench.storage.results import Row, rows
from genbench.storage.run_dir import RunRecord, find_runs, read_runs, read_searches
from genbench.storage.schema import SearchRecord
from genbench.tuning.choice import chosen_run

MAIN = "fid"
"""The metric of the searches: the one of which budget curves exist."""

VIEWS = (
    *("fid", "fid@gmm", "kid", "pixel-sw.excess", "reconstruction.pixel", "latent-sw.excess", "latent-w2.excess"),
    *("knn-probe", "nll"),
)
"""The numbers by which models are compared; each of their protocols that two models share is a view."""

CONDITIONS = ("default", "tuned")
FEWEST = 3
"""Seeds that a model needs to be compared."""

LEAST_RANKED = 4
"""Models that a rank correlation needs."""

RESAMPLES = 500
"""Resamples of the seeds behind the interval of a rank correlation."""

Tables = dict[str, list[dict[str, Any]]]
TABLES = ("models", "pairs", "tuning", "agreement", "transfer", "budgets", "trials", "facts", "values")


# ---------------------------------------------------------------- reading


@dataclass
class View:
    """One number under one protocol: the rows of each condition and model, of all seeds."""

    name: str
    metric: str
    protocol: str
    lower: bool
    rows: dict[str, dict[str, list[Row]]] = field(default_factory=lambda: {name: {} for name in CONDITIONS})

    def by_seed(self, condition: str) -> dict[str, dict[int, float]]:
        """The values of the models that have enough seeds."""
        values = {
            model: {row.seed: row.value for row in of_model if row.value is not None}
            for model, of_model in self.rows[condition].items()
        }
        return {model: by_seed for model, by_seed in values.items() if len(by_seed) >= FEWEST}


@dataclass
class Dataset:
    """What is there of one dataset."""

    name: str
    records: list[RunRecord]
    rows: list[Row]
    searches: dict[str, SearchRecord]
    condition: dict[str, dict[str, str]]
    """The model of each run by condition and name of the run; a choice that is the default has both."""
    views: list[View]
    problems: list[str]


def read_dataset(name: str, folder: Path, sizes: Container[str]) -> Dataset:
    """The runs and searches of a dataset; `sizes` are the options that the design sets for all runs."""
    records, problems = read_runs(find_runs([folder]))
    tidy = rows(records)
    searches = {search.model: search for search in read_searches(folder).values()}
    condition: dict[str, dict[str, str]] = {each: {} for each in CONDITIONS}
    for record in records:
        run = record.run
        if run.role != "model":
            continue
        search = searches.get(run.model.name)
        if search is not None and run == chosen_run(search, run.seed):
            condition["tuned"][record.name] = run.model.name
        if search is None:
            changed = record.provenance.get("defaults")
            options = [key for key in (changed if isinstance(changed, dict) else {}) if key not in sizes]
            at_default = not any(key.startswith(f"{run.model.name}.") for key in options)
        else:  # of the same source as the search
            at_default = run == replace(first_run(search), seed=run.seed, role="model")
        if at_default:
            condition["default"][record.name] = run.model.name
    return Dataset(name, records, tidy, searches, condition, views_of(tidy, condition), problems)


def first_run(search: SearchRecord) -> Run:
    """The run of a search's first trial, which has the default options."""
    return run_of_record(msgspec.to_builtins(search.run))


def views_of(tidy: Iterable[Row], condition: Mapping[str, Mapping[str, str]]) -> list[View]:
    """The views that at least two models share, in the order of `VIEWS`."""
    views: dict[tuple[str, str], View] = {}
    for row in tidy:
        if row.metric not in VIEWS or row.split != "test" or row.stage != "final" or row.value is None:
            continue
        sampler = row.metric.partition(SAMPLED)[2]
        name = row.head if not sampler or SAMPLED in row.head else f"{row.head} @{sampler}"
        view = views.setdefault(
            (row.metric, row.protocol), View(name, row.metric, row.protocol, not row.higher_is_better)
        )
        for each in CONDITIONS:
            if row.run in condition[each]:
                view.rows[each].setdefault(row.model, []).append(row)
    shared = [view for view in views.values() if any(len(view.by_seed(each)) > 1 for each in CONDITIONS)]
    shared.sort(key=lambda view: (VIEWS.index(view.metric), -len(view.rows["default"])))
    for name, same in itertools.groupby(sorted(shared, key=lambda view: view.name), key=lambda view: view.name):
        members = list(same)
        for view in members[1:]:  # one number under several protocols, such as a latent fit to another prior
            view.name = f"{name} [{view.protocol}]"
    return shared


# ---------------------------------------------------------------- comparing


def main_view(dataset: Dataset) -> View | None:
    """The view by which the searches chose."""
    return next((view for view in dataset.views if view.metric == MAIN), None)


def compare_models(dataset: Dataset, tables: Tables) -> None:
    """Fill the tables `models`, `pairs`, `budgets`, `tuning`, `agreement`, `trials`, `values` and `facts`."""
    budgets, alone = search_comparisons(dataset), search_comparisons(dataset, alone=True)
    for pair in budgets:
        for count, lead, p in zip(pair.trials, pair.ahead, pair.p_values, strict=True):
            better = leader(pair, lead)
            line = {"a": pair.first, "b": pair.second, "trials": count, "better": better, "p_adjusted": p}
            tables["budgets"].append({"dataset": dataset.name, **line})
    leaders, leaders_alone = leaders_of(budgets), leaders_of(alone)
    for view in dataset.views:
        for condition in CONDITIONS:
            by_seed = view.by_seed(condition)
            if len(by_seed) > 1:
                tables["models"] += model_lines(dataset, view, condition)
                results = pair_lines(dataset, view, condition)
                for line in results:
                    if view.metric != MAIN or condition != "tuned":
                        continue
                    pair = frozenset((line["a"], line["b"]))
                    line["searches"] = leaders.get(pair, "")
                    line["real"] = bool(line["better"]) and line["better"] == line["searches"]
                    alone_differs = line["p"] is not None and line["p"] <= ALPHA
                    line["real_alone"] = alone_differs and leaders_alone.get(pair) == line["ahead"]
                tables["pairs"] += results
        tables["tuning"] += tuning_lines(dataset, view)
    tables["agreement"] += agreement_lines(dataset, tables["pairs"])
    tables["trials"] += trial_lines(dataset)
    tables["values"] += value_lines(dataset)
    tables["facts"] += fact_lines(dataset)


def leader(pair: BudgetComparison, lead: int) -> str:
    """The model of a pair that is ahead by a lead of 1, -1 or 0; "" where neither is."""
    return {1: pair.first, -1: pair.second, 0: ""}[lead]


def leaders_of(comparisons: Iterable[BudgetComparison]) -> dict[frozenset[str], str]:
    """Which model of each pair is ahead at the largest number of trials compared; "" where neither is."""
    return {frozenset((pair.first, pair.second)): leader(pair, pair.ahead[-1]) for pair in comparisons if pair.trials}


def search_comparisons(dataset: Dataset, *, alone: bool = False) -> tuple[BudgetComparison, ...]:
    """All pairs of models by their random trials, at all numbers of trials up to half of them.

    They are corrected for one another, or each as if it were compared `alone`.
    """
    values = search_values(dataset.searches[model] for model in sorted(dataset.searches))
    if len(values) < 2 or len({each.protocol for each in values}) > 1:
        return ()
    trials, higher = {each.model: each.values for each in values}, values[0].higher_is_better
    if alone:
        pairs = [dict(pair) for pair in itertools.combinations(trials.items(), 2)]
        return tuple(each for pair in pairs for each in compare_budgets(pair, higher_is_better=higher))
    return compare_budgets(trials, higher_is_better=higher)


def key_of(dataset: Dataset, view: View, condition: str) -> dict[str, Any]:
    """The columns that say where a line comes from."""
    return {"dataset": dataset.name, "view": view.name, "condition": condition}


def known_errors(view: View, condition: str) -> dict[str, dict[int, float]]:
    """Known standard errors of the values of models: those of shares."""
    of_models = [row for of_model in view.rows[condition].values() for row in of_model]
    (gathered,) = gather(of_models).values()
    (column,) = gathered.columns.values()
    return {gathered.groups[group].first.model: dict(column.known_errors(group)) for group in column.values}


def model_lines(dataset: Dataset, view: View, condition: str) -> list[dict[str, Any]]:
    """The mean of each model with its interval, and whether it may be the best; the best first."""
    by_seed, errors = view.by_seed(condition), known_errors(view, condition)
    tests = best_tests(by_seed, lower=view.lower, errors={model: errors[model] for model in by_seed})
    lines = []
    for model, values in by_seed.items():
        mean = estimate(list(values.values()), errors=list(errors[model].values()))
        row = view.rows[condition][model][0]
        lines.append(
            {
                **key_of(dataset, view, condition),
                "model": model,
                "mean": mean.mean,
                "low": mean.low,
                "high": mean.high,
                "seeds": mean.n,
                "best": tests[model].status,
                "p_best": tests[model].p,
                "floor": row.floor,
                "metric": view.metric,
                "protocol": view.protocol,
                "caution": row.caution,
            }
        )
    return sorted(lines, key=lambda line: line["mean"] if view.lower else -line["mean"])


def pair_lines(dataset: Dataset, view: View, condition: str) -> list[dict[str, Any]]:
    """All pairs of models: the difference a - b with its interval, tests, and the seeds that would tell.

    `ahead` is the model with the better mean, and `better` the same where they differ.
    """
    models = list(view.by_seed(condition))
    of_models, results = view.rows[condition], []
    for a, b in itertools.combinations(models, 2):
        _, _, (result,) = compare([*of_models[a], *of_models[b]], a, b, view.metric)
        results.append((a, b, result))
    adjusted = holm_of_tests([result.p for _, _, result in results])
    lines = []
    for (a, b, result), p_holm in zip(results, adjusted, strict=True):
        difference, n = result.difference, result.difference.n
        ahead = a if (difference.mean < 0) == view.lower else b
        differs = p_holm is not None and p_holm <= ALPHA
        planned = result.sd > 0 and abs(difference.mean) >= result.sd / math.sqrt(n)
        lines.append(
            {
                **key_of(dataset, view, condition),
                "a": a,
                "b": b,
                "difference": difference.mean,
                "low": difference.low,
                "high": difference.high,
                "seeds": n,
                "sd": result.sd,
                "p": result.p,
                "p_holm": p_holm,
                "ahead": ahead,
                "better": ahead if differs else "",
                "seeds_needed": seeds_needed(difference.mean / result.sd) if planned else None,
                "searches": "",
                "real": "",
                "real_alone": "",
            }
        )
    return lines


def tuning_lines(dataset: Dataset, view: View) -> list[dict[str, Any]]:
    """For each model the tuned options less the default ones, on the same seeds."""
    default, tuned = view.by_seed("default"), view.by_seed("tuned")
    lines: list[dict[str, Any]] = []
    tests: list[float | None] = []
    for model in default.keys() & tuned.keys():
        before, after = (view.rows[condition][model] for condition in CONDITIONS)
        same = before[0].group == after[0].group  # the search chose the default
        line: dict[str, Any] = {"dataset": dataset.name, "view": view.name, "model": model, "default_chosen": same}
        line |= {"difference": 0.0, "low": None, "high": None, "seeds": len(tuned[model]), "p": None}
        if not same:
            _, _, (result,) = compare([*after, *before], after[0].run, before[0].run, view.metric)
            difference = result.difference
            line |= {"difference": difference.mean, "low": difference.low, "high": difference.high}
            line |= {"seeds": difference.n, "p": result.p}
        tests.append(line["p"])
        lines.append(line)
    for line, p_holm in zip(lines, holm_of_tests(tests), strict=True):
        gained = (line["difference"] < 0) == view.lower
        line["p_holm"] = p_holm
        line["effect"] = ("better" if gained else "worse") if p_holm is not None and p_holm <= ALPHA else ""
    return sorted(lines, key=lambda line: line["model"])


def agreement_lines(dataset: Dataset, pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All pairs of views, of default and tuned options: rank correlation, and what they say of the pairs of models."""
    sides = [(view, condition) for condition in CONDITIONS for view in dataset.views if view.by_seed(condition)]
    better = better_models(pairs)
    lines = []
    for (first, left), (second, right) in itertools.combinations(sides, 2):
        if left != right and first is not second:
            continue
        agreement = agreement_of(
            (first.by_seed(left), better[dataset.name, first.name, left]),
            (second.by_seed(right), better[dataset.name, second.name, right]),
            same=first.lower == second.lower,
        )
        if agreement:
            sources = {"view_a": first.name, "condition_a": left, "view_b": second.name, "condition_b": right}
            lines.append({"dataset": dataset.name, **sources, **agreement})
    return lines


def transfer_lines(datasets: Sequence[Dataset], pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All pairs of datasets, by the metric of the searches: rank correlation, and what they say of pairs of models."""
    better, lines = better_models(pairs), []
    views = [(dataset.name, view) for dataset in datasets if (view := main_view(dataset)) is not None]
    for condition, ((name_a, a), (name_b, b)) in itertools.product(CONDITIONS, itertools.combinations(views, 2)):
        agreement = agreement_of(
            (a.by_seed(condition), better[name_a, a.name, condition]),
            (b.by_seed(condition), better[name_b, b.name, condition]),
            same=True,
        )
        if agreement:
            lines.append({"dataset_a": name_a, "dataset_b": name_b, "condition": condition, **agreement})
    return lines


Better = Mapping[frozenset[str], str]
"""The better model of each pair, "" where neither is."""


def better_models(pairs: Iterable[Mapping[str, Any]]) -> defaultdict[tuple[str, str, str], dict[frozenset[str], str]]:
    """The better model of each pair by dataset, view and condition; empty where no two models are compared."""
    better: dict[tuple[str, str, str], dict[frozenset[str], str]] = defaultdict(dict)
    for line in pairs:
        better[line["dataset"], line["view"], line["condition"]][frozenset((line["a"], line["b"]))] = line["better"]
    return better


def agreement_of(
    first: tuple[Mapping[str, Mapping[int, float]], Better],
    second: tuple[Mapping[str, Mapping[int, float]], Better],
    *,
    same: bool,
) -> dict[str, Any]:
    """How values by model and seed, and what is better by them, agree with others; empty for too few common models.

    `same` says that what is better is lower in both or higher in both.
    """
    (a, better_a), (b, better_b) = first, second
    models = [model for model in a if model in b]
    if len(models) < LEAST_RANKED:
        return {}
    tau = rank_correlation([a[model] for model in models], [b[model] for model in models], same=same)
    said = [(better_a[pair], better_b[pair]) for pair in better_a if pair in better_b]
    return {
        "models": len(models),
        "tau": tau.mean,
        "low": tau.low,
        "high": tau.high,
        "pairs": len(said),
        "same": sum(bool(x) and x == y for x, y in said),
        "opposite": sum(bool(x) and bool(y) and x != y for x, y in said),
        "only_a": sum(bool(x) and not y for x, y in said),
        "only_b": sum(bool(y) and not x for x, y in said),
    }


def rank_correlation(
    first: Sequence[Mapping[int, float]], second: Sequence[Mapping[int, float]], *, same: bool
) -> Estimate:
    """Kendall's tau of two rankings of models by their means over seeds; the interval resamples the seeds.

    Without seeds that all values share there is no interval.
    """
    seeds = sorted(set.intersection(*({*values} for values in (*first, *second))))
    sign = 1.0 if same else -1.0
    place = np.triu_indices(len(first), 1)

    def tau(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Of means `(resamples, models)`."""
        signs = [np.sign(each[:, place[0]] - each[:, place[1]]) for each in (x, y)]
        return np.asarray(sign * (signs[0] * signs[1]).mean(1))

    means = [np.array([[statistics.fmean(values.values()) for values in each]]) for each in (first, second)]
    value = float(tau(*means)[0])
    if len(seeds) < FEWEST:
        return Estimate(value, len(seeds))
    table = [np.array([[values[seed] for seed in seeds] for values in each]) for each in (first, second)]
    picks = np.random.default_rng(len(seeds)).integers(0, len(seeds), (RESAMPLES, len(seeds)))
    resampled = tau(*(values[:, picks].mean(2).T for values in table))
    low, high = np.quantile(resampled, [ALPHA / 2, 1 - ALPHA / 2])
    return Estimate(value, len(seeds), float(low), float(high), "bootstrap")


def trial_lines(dataset: Dataset) -> list[dict[str, Any]]:
    """Every trial of every search."""
    return [
        {
            "dataset": dataset.name,
            "model": model,
            "trial": place,
            "chosen": place == search.chosen,
            "validation": trial.value,
            "seconds": trial.seconds,
            "problem": trial.problem,
            "options": ", ".join(f"{name}={value}" for name, value in trial.options.items()),
        }
        for model, search in sorted(dataset.searches.items())
        for place, trial in enumerate(search.trials)
    ]


def value_lines(dataset: Dataset) -> list[dict[str, Any]]:
    """Every number of every run on test images."""
    names = {(view.metric, view.protocol): view.name for view in dataset.views}
    lines = []
    for row in dataset.rows:
        if row.value is None or row.split != "test":
            continue
        conditions = [each for each in CONDITIONS if row.run in dataset.condition[each]] or [row.role]
        lines.append(
            {
                "dataset": dataset.name,
                "condition": "+".join(conditions),
                "model": row.model,
                "seed": row.seed,
                "metric": row.metric,
                "protocol": row.protocol,
                "value": row.value,
                "se": row.se,
                "floor": row.floor,
                "p_value": row.p_value,
                "run": row.run,
                "view": names.get((row.metric, row.protocol), ""),
            }
        )
    return lines


def fact_lines(dataset: Dataset) -> list[dict[str, Any]]:
    """Means of all numbers, those of controls included."""
    groups: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for row in dataset.rows:
        if row.value is None or row.split != "test" or row.metric_role == "speed":
            continue
        for condition in [each for each in CONDITIONS if row.run in dataset.condition[each]] or [row.role]:
            groups[condition, row.model, row.metric, row.protocol].append(row)
    lines = []
    for (condition, model, metric, protocol), members in groups.items():
        mean = estimate([row.value for row in members if row.value is not None])
        first = members[0]
        cautions = sorted({row.caution for row in members if row.caution})
        lines.append(
            {
                "dataset": dataset.name,
                "condition": condition,
                "model": model,
                "metric": metric,
                "head": first.head,
                "protocol": protocol,
                "mean": mean.mean,
                "low": mean.low,
                "high": mean.high,
                "seeds": mean.n,
                "floor": first.floor,
                "caution": "; ".join(cautions),
            }
        )
    return lines


def csv_text(table: Sequence[Mapping[str, Any]]) -> str:
    """A table as CSV, numbers with six significant digits."""
    if not table:
        return ""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
    writer.writeheader()
    for line in table:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in line.items()})
    return file.getvalue()
