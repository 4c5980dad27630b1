"""The page of the reality check, from the rows of its runs: every sentence is computed, and names its rows."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reality_rows import (
    CONDITIONS,
    MAIN,
    TABLES,
    Dataset,
    Tables,
    View,
    compare_models,
    csv_text,
    main_view,
    read_dataset,
    transfer_lines,
)

from genbench.analysis.formatting import format_estimate, format_value
from genbench.analysis.gather import CAUTIONS
from genbench.analysis.headline import join_words
from genbench.experiment.run import SAMPLED
from genbench.plotting.style import COLUMN, HAIR, PAGE, SOFT, Drawing, blank, styled
from genbench.stats.budget_curves import LARGEST_FIRST
from genbench.stats.intervals import Estimate
from genbench.stats.power import ALPHA, minimum_detectable_effect, pilot, seeds_needed
from genbench.storage.results import protocols
from genbench.utils.io import write_json, write_text

# ---------------------------------------------------------------- sentences


@dataclass(frozen=True)
class Differs:
    """The condition of a citation that a column has another value."""

    value: Any


class Citations:
    """Sentences' references to rows of the tables; each is checked against the tables, and counted."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.entries: dict[str, int] = {}

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        """The rows of a table that have these values."""
        return [
            line
            for line in self.tables[table]
            if all(
                line[key] != value.value if isinstance(value, Differs) else line[key] == value
                for key, value in where.items()
            )
        ]

    def cite(self, table: str, **where: Any) -> str:
        """A link to the entry of these rows at the end of the page."""
        words = [
            f"{key} {'is not' if isinstance(value, Differs) else 'is'}"
            f" {shown(value.value if isinstance(value, Differs) else value)}"
            for key, value in where.items()
        ]
        text = f"`{table}.csv` where {', '.join(words)}: {len(self.rows(table, **where)):,} rows"
        number = self.entries.setdefault(text, len(self.entries) + 1)
        return f"[[{number}]](#rows)"

    def lines(self) -> list[str]:
        """The list of all entries."""
        return [f"{number}. {text}" for text, number in self.entries.items()]


def shown(value: Any) -> str:
    """A value of a table as a reader writes it."""
    return "empty" if value == "" else f"`{value}`"


def counted(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def names_of(models: Iterable[str]) -> str:
    """Names in words."""
    return join_words([f"`{model}`" for model in models]) or "none"


def interval(line: Mapping[str, Any], key: str = "mean") -> str:
    """A mean with its half interval."""
    return format_estimate(Estimate(line[key], line["seeds"], line["low"], line["high"])).plain


def behind(line: Mapping[str, Any]) -> str:
    """The model of a pair that has the worse mean."""
    return str(line["b"] if line["ahead"] == line["a"] else line["a"])


def not_done(dataset: Dataset | None, name: str, design: Mapping[str, Any]) -> list[str]:
    """What the design asks for and is not there."""
    if dataset is None:
        return [f"{name}: nothing yet."]
    lines = []
    unsearched = [model for model in design["models"] if model not in dataset.searches]
    if unsearched:
        lines.append(f"{name}: no finished search of {names_of(unsearched)}.")
    measured = {row.run for row in dataset.rows if row.metric == MAIN and row.value is not None}
    for condition in CONDITIONS:
        counts = defaultdict(int)
        for run, model in dataset.condition[condition].items():
            counts[model] += run in measured
        short = {model: counts[model] for model in design["models"] if counts[model] < design["seeds"]}
        if short:
            words = ", ".join(f"`{model}` {count}" for model, count in short.items())
            lines.append(f"{name}, {condition} options: fewer than {design['seeds']} seeds are measured of {words}.")
    lines += [f"{name}: {problem}" for problem in dataset.problems]
    failed = sorted({f"`{row.run}`: {row.error}" for row in dataset.rows if row.status == "failed"})
    return lines + [f"{name}: failed: {text}" for text in failed]


def main_lines(dataset: Dataset, view: View, c: Citations) -> list[str]:
    """What the metric of the searches says: sets of bests, real pairs, seeds that would tell."""
    d, lines = {"dataset": dataset.name, "view": view.name}, []
    for condition in CONDITIONS:
        models = c.rows("models", **d, condition=condition)
        if not models:
            continue
        pairs = c.rows("pairs", **d, condition=condition)
        differing = c.rows("pairs", **d, condition=condition, better=Differs(""))
        best = c.rows("models", **d, condition=condition, best="best")
        seeds = sorted({line["seeds"] for line in models})
        lines.append(
            f"At the {condition} options {len(differing)} of {counted(len(pairs), 'pair')} of models differ (paired"
            f" t-tests over {'/'.join(map(str, seeds))} seeds, Holm's correction for all pairs)"
            f" {c.cite('pairs', **d, condition=condition, better=Differs(''))}. The best may be"
            f" {names_of(line['model'] for line in best)} {c.cite('models', **d, condition=condition, best='best')}."
        )
    tuned = c.rows("pairs", **d, condition="tuned")
    if not tuned:
        return lines
    differing = [line for line in tuned if line["better"]]
    if any(line["dataset"] == dataset.name for line in c.tables["budgets"]):
        real = c.rows("pairs", **d, condition="tuned", real=True)
        contrary = [line for line in differing if line["searches"] and line["searches"] != line["better"]]
        lines.append(
            f"Of the {counted(len(differing), 'pair')} that differ at the tuned options, the trials of the searches"
            f" name the same model ahead in **{len(real)}** {c.cite('pairs', **d, condition='tuned', real=True)}:"
            f" these are called *real* here, {100 * len(real) / len(tuned):.0f} % of all {len(tuned)}."
        )
        if len(real) < len(differing):
            lines[-1] += (
                f" In the other {len(differing) - len(real)} the luck of the two searches may be the whole difference"
                f" ({counted(len(contrary), 'pair')} with the other model ahead in the searches)."
            )
        alone = c.rows("pairs", **d, condition="tuned", real_alone=True)
        lines.append(
            "Without a correction for the number of pairs, both tests would tell"
            f" {len(alone)} of {len(tuned)} apart {c.cite('pairs', **d, condition='tuned', real_alone=True)}; of the"
            f" pairs of equal models up to {100 * LARGEST_FIRST * ALPHA:.0f} % may be among them."
        )
    else:
        lines.append("The searches have too few trials for budget curves, so that no pair can be called real.")
    return [*lines, *seed_lines(dataset, view, c)]


def seed_lines(dataset: Dataset, view: View, c: Citations) -> list[str]:
    """How many seeds would tell the pairs that are not told apart at the tuned options."""
    d = {"dataset": dataset.name, "view": view.name, "condition": "tuned"}
    undecided = c.rows("pairs", **d, better="")
    by_seed = view.by_seed("tuned")
    study = pilot(list(by_seed.values()))
    lines = []
    if study is not None and study.sd > 0:
        seeds = min(map(len, by_seed.values()))
        smallest = study.sd * minimum_detectable_effect(seeds)
        means = sorted(line["mean"] for line in c.rows("models", **d))
        gap = (means[-1] - means[0]) / max(1, len(means) - 1)
        lines.append(
            f"A single test over {seeds} seeds finds a difference of {format_value(smallest, 2).plain} in 80 % of"
            f" studies (standard deviation of paired differences {format_value(study.sd, 2).plain}, pooled over the"
            f" models); on average neighbours in the ranking are {format_value(gap, 2).plain} apart, for which"
            f" {seeds_text(seeds_needed(gap / study.sd))} would be needed {c.cite('models', **d)}."
        )
    if undecided:
        limits, planned = (20, 50, 200), [line["seeds_needed"] for line in undecided if line["seeds_needed"]]
        words = [f"{sum(count <= limit for count in planned)} with {limit} seeds" for limit in limits]
        lines.append(
            f"Of the {counted(len(undecided), 'pair')} not told apart {c.cite('pairs', **d, better='')}, if the"
            f" observed differences are the true ones a test of the pair alone would find {join_words(words)} (power"
            f" 80 % at 5 %); in {len(undecided) - len(planned)} the difference is below its standard error, too"
            " uncertain to plan by, or needs more than 10,000 seeds."
        )
    return lines


def seeds_text(count: int | None) -> str:
    """A number of seeds in words."""
    return "more than 10,000 seeds" if count is None else counted(count, "seed")


def main_table(dataset: Dataset, view: View, c: Citations) -> list[str]:
    """A line for each model: both conditions, what tuning changed, and the models that it is really better than."""
    d = {"dataset": dataset.name, "view": view.name}
    of = {
        condition: {line["model"]: line for line in c.rows("models", **d, condition=condition)}
        for condition in CONDITIONS
    }
    changed = {line["model"]: line for line in c.rows("tuning", **d)}
    beaten: dict[str, list[str]] = defaultdict(list)
    for line in c.rows("pairs", **d, condition="tuned", real=True):
        beaten[line["better"]].append(behind(line))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for line in c.rows("pairs", **d, condition="tuned"):
        counts[line["ahead"]].update({"alone": int(line["real_alone"] is True), "options": int(bool(line["better"]))})
    order = [*of["tuned"], *(model for model in of["default"] if model not in of["tuned"])]
    arrow = "↓" if view.lower else "↑"
    lines = [
        f"| model | {view.name} {arrow}, default | tuned | tuned less default | better than: at the chosen options |"
        " by both tests, uncorrected | really |",
        "|:--|--:|--:|--:|--:|--:|:--|",
    ]
    for model in order:
        cells = [
            interval(of[condition][model]) + " •" * (of[condition][model]["best"] == "best")
            if model in of[condition]
            else ""
            for condition in CONDITIONS
        ]
        line, change = changed.get(model), ""
        if line is not None:
            change = "the default was chosen" if line["default_chosen"] else interval(line, "difference")
        change += f" ({line['effect']})" if line is not None and line["effect"] else ""
        others = ", ".join(f"`{name}`" for name in sorted(beaten[model]))
        numbers = f"{counts[model]['options']} | {counts[model]['alone']}" if model in of["tuned"] else " | "
        lines.append(f"| `{model}` | {cells[0]} | {cells[1]} | {change} | {numbers} | {others} |")
    controls = {"dataset": dataset.name, "condition": "control", "metric": view.metric, "protocol": view.protocol}
    lines += [f"| *control: {line['model']}* | {interval(line)} | | | | | |" for line in c.rows("facts", **controls)]
    floors = {line["floor"] for line in of["tuned"].values() if line["floor"] is not None}
    floor = f" A perfect model: {format_value(min(floors), 3).plain}." if floors else ""
    return [
        *lines,
        "",
        "• may be the best of its column (5 %), the luck of the searches left out. Mean and half the 95 % interval"
        f" over seeds.{floor} Better than: how many models, and which really"
        f" {c.cite('pairs', **d, condition='tuned')}.",
        "",
    ]


def tuning_sentences(dataset: Dataset, view: View, c: Citations) -> list[str]:
    """What tuning changed."""
    d = {"dataset": dataset.name, "view": view.name}
    changed = c.rows("tuning", **d)
    if not changed:
        return []
    better, worse = (c.rows("tuning", **d, effect=effect) for effect in ("better", "worse"))
    kept = c.rows("tuning", **d, default_chosen=True)
    lines = [
        f"By {view.name} on fresh seeds the chosen options are better than the default ones for {len(better)} of"
        f" {counted(len(changed), 'model')} ({names_of(line['model'] for line in better)})"
        f" {c.cite('tuning', **d, effect='better')}, worse for {names_of(line['model'] for line in worse)}"
        f" {c.cite('tuning', **d, effect='worse')}; the search chose the default for"
        f" {names_of(line['model'] for line in kept)} {c.cite('tuning', **d, default_chosen=True)}."
    ]
    wide = [line["model"] for line in (*better, *worse) if line["low"] < 0 < line["high"]]
    if wide:
        lines[-1] += f" The interval of {names_of(wide)} contains zero all the same ([why](#how-to-read-it))."
    own = {"dataset": dataset.name, "view_a": view.name, "view_b": view.name}
    lines += [
        f"The rankings at default and at tuned options correlate by {tau_text(line)}; {line['same']} pairs differ in"
        f" the same direction in both, {line['opposite']} turn round, {line['only_a']} differ at the defaults alone"
        f" and {line['only_b']} after tuning alone {c.cite('agreement', **own)}."
        for line in c.rows("agreement", **own)
    ]
    lines += held_at_defaults(dataset, view, c)
    elsewhere = []
    for rival in dataset.views:
        if rival is not view:
            hurt = c.rows("tuning", dataset=dataset.name, view=rival.name, effect="worse")
            if hurt:
                where = {"dataset": dataset.name, "view": rival.name, "effect": "worse"}
                elsewhere.append(
                    f"{rival.name} of {names_of(line['model'] for line in hurt)} {c.cite('tuning', **where)}"
                )
    if elsewhere:
        lines.append(f"Tuning by {view.name} made other numbers worse: {'; '.join(elsewhere)}.")
    return lines


def tau_text(line: Mapping[str, Any]) -> str:
    """A rank correlation, by its name, with its interval."""
    return f"Kendall's tau = {tau_interval(line)}"


def tau_interval(line: Mapping[str, Any]) -> str:
    """A rank correlation with its interval."""
    return f"{line['tau']:.2f}" + ("" if line["low"] is None else f" [{line['low']:.2f}, {line['high']:.2f}]")


def agreement_section(dataset: Dataset, view: View, c: Citations) -> list[str]:
    """How the answer changes with the metric, the extractor and the sampler."""
    lines = [
        f"| beside {view.name} | models | tau, default | tau, tuned | pairs that differ: in both alike | opposite |"
        f" by {view.name} alone | by the other alone | of the real pairs: alike / opposite / not told apart |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    sentences, opposite = [], {}
    for rival in dataset.views:
        if rival is view:
            continue
        where = {"dataset": dataset.name, "view_a": view.name, "view_b": rival.name}
        of = {line["condition_a"]: line for line in c.rows("agreement", **where)}
        if "tuned" not in of and "default" not in of:
            continue
        shown_line = of.get("tuned", of.get("default"))
        assert shown_line is not None
        taus = [tau_interval(of[each]) if each in of else "" for each in CONDITIONS]
        counts = [str(shown_line[key]) for key in ("same", "opposite", "only_a", "only_b")]
        held = " / ".join(map(str, held_by(dataset, view, rival, c)))
        cells = [f"{rival.name} {c.cite('agreement', **where)}", str(shown_line["models"]), *taus, *counts, held]
        lines.append(f"| {' | '.join(cells)} |")
        if "tuned" in of:
            opposite[rival.name] = of["tuned"]["opposite"]
    if len(lines) == 2:
        return []
    if opposite:
        contrary = {name: count for name, count in opposite.items() if count}
        words = ", ".join(f"{name} {count}" for name, count in sorted(contrary.items(), key=lambda item: -item[1]))
        sentences.append(
            f"* Pairs on which {view.name} and another number both see a difference at the tuned options, and the"
            f" opposite one: {words or 'none'}"
            f" {c.cite('agreement', dataset=dataset.name, view_a=view.name, condition_a='tuned', opposite=Differs(0))}."
        )
    by_extractor = [each for each in dataset.views if each.metric == "kid"]
    for first, second in itertools.combinations(by_extractor, 2):
        where = {"dataset": dataset.name, "view_a": first.name, "view_b": second.name, "condition_a": "tuned"}
        sentences += [
            f"* Two extractors, one metric: {first.name} and {second.name} rank the tuned models with"
            f" {tau_text(line)}; of {line['pairs']} pairs {line['same']} differ alike in both, {line['opposite']}"
            f" oppositely, {line['only_a']} by the first alone and {line['only_b']} by the second alone"
            f" {c.cite('agreement', **where)}."
            for line in c.rows("agreement", **where)
        ]
    everywhere = unanimous(dataset, c)
    if everywhere is not None:
        agreed, distinguished, views = everywhere
        sentences.append(
            f"* Of {distinguished} pairs of tuned models that some number of sample quality ({join_words(views)})"
            f" tells apart, all that tell them apart name the same model in {distinguished - agreed[1]}, and all of"
            f" these numbers do so in {agreed[0]}"
            f" {c.cite('pairs', dataset=dataset.name, condition='tuned', better=Differs(''))}."
        )
    return [*lines, "", "The counts of pairs are those at the tuned options, where there are any.", "", *sentences, ""]


def unanimous(dataset: Dataset, c: Citations) -> tuple[tuple[int, int], int, list[str]] | None:
    """Pairs on which all views of sample quality agree, and on which two contradict; pairs told by any; the views."""
    quality = [
        view.name for view in dataset.views if view.metric.split(SAMPLED)[0] in ("fid", "kid", "pixel-sw.excess")
    ]
    said: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in quality:
        for line in c.rows("pairs", dataset=dataset.name, view=name, condition="tuned"):
            said[line["a"], line["b"]].append(line["better"])
    if not said or len(quality) < 2:
        return None
    distinguished = [set(words) for words in said.values() if any(words)]
    whole = sum("" not in words and len(words) == 1 for words in distinguished)
    contradicted = sum(len(words - {""}) > 1 for words in distinguished)
    return (whole, contradicted), len(distinguished), quality


def held_by(dataset: Dataset, view: View, rival: View, c: Citations) -> tuple[int, int, int]:
    """How many real pairs differ alike by another number, how many oppositely, and how many it does not tell apart.

    Pairs of which a model has no such number are left out.
    """
    d = {"dataset": dataset.name, "condition": "tuned"}
    said = {(line["a"], line["b"]): line["better"] for line in c.rows("pairs", **d, view=rival.name)}
    real = {(line["a"], line["b"]): line["better"] for line in c.rows("pairs", **d, view=view.name, real=True)}
    shared = [(said[pair], better) for pair, better in real.items() if pair in said]
    same = sum(word == better for word, better in shared)
    return same, sum(bool(word) and word != better for word, better in shared), sum(not word for word, _ in shared)


def held_at_defaults(dataset: Dataset, view: View, c: Citations) -> list[str]:
    """Whether the real pairs hold at the default options."""
    d = {"dataset": dataset.name, "view": view.name}
    real = c.rows("pairs", **d, condition="tuned", real=True)
    if not real:
        return []
    at_defaults = {(line["a"], line["b"]): line["better"] for line in c.rows("pairs", **d, condition="default")}
    words = [(at_defaults.get((line["a"], line["b"])), line["better"]) for line in real]
    same = sum(word == better for word, better in words)
    opposite = sum(bool(word) and word != better for word, better in words)
    return [
        f"Of the {counted(len(real), 'real pair')} {c.cite('pairs', **d, condition='tuned', real=True)}, {same} differ"
        f" alike at the default options, {opposite} oppositely, and {len(real) - same - opposite} are not told apart"
        f" there {c.cite('pairs', **d, condition='default', better=Differs(''))}."
    ]


def fact_sentences(dataset: Dataset, c: Citations, latent_dim: int) -> list[str]:
    """Likelihood, collapse, copies and controls."""
    d, lines = {"dataset": dataset.name}, []
    for view in dataset.views:
        if view.metric == "nll":
            for condition in CONDITIONS:
                where = {**d, "view": view.name, "condition": condition}
                models = c.rows("models", **where)
                if models:
                    ranked = ", ".join(
                        f"`{line['model']}` {interval(line)}{' •' * (line['best'] == 'best')}" for line in models
                    )
                    cautious = {text for line in models for text in line["caution"].split(CAUTIONS) if text}
                    note = f" ({'; '.join(sorted(cautious))})" if cautious else ""
                    lines.append(f"{view.name}, {condition} options: {ranked} {c.cite('models', **where)}{note}.")
    for condition in CONDITIONS:
        where = {**d, "condition": condition, "metric": "active-units"}
        units = c.rows("facts", **where)
        if units:
            collapsed = [line for line in units if line["mean"] < latent_dim]
            words = ", ".join(
                f"`{line['model']}` {interval(line)}" for line in sorted(collapsed, key=lambda x: x["mean"])
            )
            lines.append(
                f"Active units, {condition} options: all {latent_dim} in every seed for"
                f" {len(units) - len(collapsed)} of"
                f" {counted(len(units), 'model')}{'; fewer for ' + words if words else ''} {c.cite('facts', **where)}."
            )
        copies = [
            line
            for line in c.rows("facts", **d, condition=condition)
            if line["metric"].startswith("nearest-train") and "cop" in line["head"]
        ]
        if copies:
            most = max(copies, key=lambda line: line["mean"])
            where = {**d, "condition": condition, "metric": most["metric"]}
            share = f"at most {100 * most['mean']:.2f} % of the samples of a model, `{most['model']}`"
            lines.append(
                f"Copies of training images, {condition} options: {share if most['mean'] else 'none among the samples'}"
                f" {c.cite('facts', **where)}."
            )
    lines += control_sentences(dataset, c)
    return lines


def control_sentences(dataset: Dataset, c: Citations) -> list[str]:
    """Models that do not beat a control, by each view."""
    lines = []
    for view in dataset.views:
        where = {"dataset": dataset.name, "condition": "control", "metric": view.metric, "protocol": view.protocol}
        controls = c.rows("facts", **where)
        models = c.rows("models", dataset=dataset.name, view=view.name, condition="tuned")
        parts = []
        for control in controls:
            not_better = [
                line["model"]
                for line in models
                if (line["mean"] >= control["mean"] if view.lower else line["mean"] <= control["mean"])
            ]
            parts.append(f"`{control['model']}` ({format_value(control['mean'], 3).plain}): {names_of(not_better)}")
        if parts and models:
            lines.append(
                f"By {view.name}, tuned models whose mean is not better than that of a control: {'; '.join(parts)}"
                f" {c.cite('facts', **where)}."
            )
    return lines


def short_section(datasets: Sequence[Dataset], c: Citations) -> list[str]:
    """The answers in short, a column for each dataset that has tuned models."""
    columns: dict[str, dict[str, str]] = {}
    for dataset in datasets:
        view = main_view(dataset)
        if view is not None and c.rows("pairs", dataset=dataset.name, view=view.name, condition="tuned"):
            columns[dataset.name] = short_column(dataset, view, c)
    if not columns:
        return []
    titles = list(dict.fromkeys(title for column in columns.values() for title in column))
    return [
        "## In short",
        "",
        f"| tuned models by {main_name(c)} | {' | '.join(columns)} |",
        f"|:--|{'--:|' * len(columns)}",
        *(f"| {title} | {' | '.join(column.get(title, '') for column in columns.values())} |" for title in titles),
        "",
        *bullets([*transfer_sentences(c), *common_sentences(list(columns), c)]),
        "",
    ]


def short_column(dataset: Dataset, view: View, c: Citations) -> dict[str, str]:
    """The answers of a dataset by their titles: how many pairs differ, what tuning changes, and other numbers."""
    d: dict[str, Any] = {"dataset": dataset.name, "view": view.name}
    tuned = {**d, "condition": "tuned"}
    pairs, real = c.rows("pairs", **tuned), c.rows("pairs", **tuned, real=True)
    chosen = {**tuned, "real": False, "better": Differs("")}
    best = c.rows("models", **tuned, best="best")
    column = {
        "pairs that **really** differ": f"**{len(real)}** of {len(pairs)} {c.cite('pairs', **tuned, real=True)}",
        "pairs that differ at the chosen options only": f"{len(c.rows('pairs', **chosen))} {c.cite('pairs', **chosen)}",
        "pairs not distinguishable with these seeds": f"{len(c.rows('pairs', **tuned, better=''))}"
        f" {c.cite('pairs', **tuned, better='')}",
        "may be the best, at the chosen options": f"{names_of(line['model'] for line in best)}"
        f" {c.cite('models', **tuned, best='best')}",
    }
    own = {"dataset": dataset.name, "view_a": view.name, "view_b": view.name}
    for line in c.rows("agreement", **own):
        better = c.rows("tuning", **d, effect="better")
        column["models that tuning makes better"] = (
            f"{len(better)} of {len(c.rows('tuning', **d))} {c.cite('tuning', **d, effect='better')}"
        )
        column["tau of the orders at default and tuned options"] = f"{tau_interval(line)} {c.cite('agreement', **own)}"
        column["pairs that turn round by tuning"] = f"{line['opposite']} {c.cite('agreement', **own)}"
    others = {"dataset": dataset.name, "view_a": view.name, "condition_a": "tuned", "condition_b": "tuned"}
    for line in c.rows("agreement", **others):
        column[f"tau with the order by {line['view_b']}"] = f"{tau_interval(line)} {c.cite('agreement', **others)}"
    return column


def common_sentences(datasets: Sequence[str], c: Citations) -> list[str]:
    """Which pairs really differ on all datasets, and in opposite directions on two of them."""
    if len(datasets) < 2:
        return []
    lines = c.rows("pairs", condition="tuned", real=True)
    real = {name: {(line["better"], behind(line)) for line in lines if line["dataset"] == name} for name in datasets}
    common = set.intersection(*real.values())
    against = {pair for x, y in itertools.permutations(real.values(), 2) for pair in x if pair[::-1] in y}
    wins: dict[str, list[str]] = defaultdict(list)
    for better, worse in sorted(common):
        wins[better].append(worse)
    words = "; ".join(f"`{model}` than {names_of(others)}" for model, others in wins.items())
    losers = Counter(behind(line) for line in lines)
    counts = join_words([f"`{model}` ({count})" for model, count in losers.most_common()])
    return [
        f"**Really better on all of {join_words(list(datasets))}**: {words or 'no model than any other'}"
        f" ({counted(len(common), 'pair')}). {counted(len(against) // 2, 'pair')} really differ in opposite"
        " directions on two datasets. Behind in a real pair, of any dataset:"
        f" {counts or 'no model'} {c.cite('pairs', condition='tuned', real=True)}.",
        *(sentence for pair in sorted(common) for sentence in contradictions(*pair, datasets, c)),
    ]


def contradictions(better: str, worse: str, datasets: Sequence[str], c: Citations) -> list[str]:
    """By which other numbers the means of a real pair are the other way round on all datasets."""
    where = {"condition": "tuned", "a": min(better, worse), "b": max(better, worse)}
    ahead: dict[str, list[str]] = defaultdict(list)
    for line in c.rows("pairs", **where):
        ahead[line["view"]].append(line["ahead"])
    views = [view for view, models in ahead.items() if models == [worse] * len(datasets)]
    if not views:
        return []
    return [
        f"By {join_words(views)} the means of `{better}` and `{worse}` are the other way round on all of them"
        f" {c.cite('pairs', **where)}."
    ]


def transfer_sentences(c: Citations) -> list[str]:
    """What the order of the tuned models on one dataset says of that on another."""
    defaults = {(line["dataset_a"], line["dataset_b"]): line for line in c.rows("transfer", condition="default")}
    words = "; ".join(
        f"{line['dataset_a']} and {line['dataset_b']} {tau_interval(line)} (default options"
        f" {tau_interval(defaults[line['dataset_a'], line['dataset_b']])}), {line['same']} pairs that differ on both"
        f" alike and {line['opposite']} oppositely"
        for line in c.rows("transfer", condition="tuned")
        if (line["dataset_a"], line["dataset_b"]) in defaults
    )
    if not words:
        return []
    return [
        f"**From one dataset to another** the order of the tuned models by {main_name(c)} correlates by Kendall's"
        f" tau: {words} {c.cite('transfer')}. The luck of the searches is part of it"
        " ([table](#from-one-dataset-to-another))."
    ]


# ---------------------------------------------------------------- figures


def forest(dataset: Dataset, view: View, c: Citations) -> Drawing:
    """Means of all models at default and tuned options."""
    from matplotlib.ticker import LogLocator, NullLocator

    d = {"dataset": dataset.name, "view": view.name}
    of = {each: {line["model"]: line for line in c.rows("models", **d, condition=each)} for each in CONDITIONS}
    order = [*of["tuned"], *(model for model in of["default"] if model not in of["tuned"])]
    with styled():
        figure = blank(COLUMN + 1.5, 0.19 * len(order) + 0.9)
        axes = figure.subplots()
        for condition, color, marker, shift in (("default", SOFT, "o", 0.15), ("tuned", "#0072B2", "s", -0.15)):
            lines = [(order.index(model) + shift, line) for model, line in of[condition].items()]
            if not lines:
                continue
            axes.errorbar(
                [line["mean"] for _, line in lines],
                [place for place, _ in lines],
                xerr=[(line["high"] - line["mean"]) if line["high"] is not None else 0.0 for _, line in lines],
                color=color,
                marker=marker,
                ls="",
                capsize=1.5,
                label=condition,
                elinewidth=0.8,
            )
        values = [line["mean"] for each in CONDITIONS for line in of[each].values()]
        if min(values) > 0 and max(values) > 4 * min(values):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.grid(axis="x", color=HAIR, lw=0.5)
        axes.set_xlabel(f"{view.name} {'↓' if view.lower else '↑'}, mean and 95 % interval over seeds")
        axes.set_title(dataset.name, loc="left")
        axes.legend()
    return Drawing(f"{dataset.name}-models", f"{view.name} of every model at default and tuned options", figure)


def pair_matrix(dataset: Dataset, view: View, c: Citations) -> Drawing | None:
    """Which pairs of tuned models really differ, at the chosen options only, or not."""
    d = {"dataset": dataset.name, "view": view.name, "condition": "tuned"}
    order = [line["model"] for line in c.rows("models", **d)]
    if not order:
        return None
    place = {model: index for index, model in enumerate(order)}
    levels = np.zeros((len(order), len(order)))
    for line in c.rows("pairs", **d):
        if line["better"]:
            first, second = place[line["better"]], place[behind(line)]
            size = 2 if line["real"] is True else 1
            levels[first, second], levels[second, first] = size, -size
    with styled():
        from matplotlib.colors import BoundaryNorm, ListedColormap
        from matplotlib.patches import Patch

        colors = ["#D55E00", "#F3C6A5", "white", "#BBD7EA", "#0072B2"]
        figure = blank(0.22 * len(order) + 1.9, 0.22 * len(order) + 2.2)
        axes = figure.subplots()
        norm = BoundaryNorm([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], 5)
        axes.imshow(levels, cmap=ListedColormap(colors), norm=norm)
        axes.set_xticks(range(len(order)), order, rotation=90)
        axes.set_yticks(range(len(order)), order)
        axes.set_xticks(np.arange(len(order)) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(order)) - 0.5, minor=True)
        axes.grid(which="minor", color=HAIR, lw=0.5)
        axes.tick_params(which="both", length=0)
        labels = (
            "really worse",
            "worse at the chosen options",
            "not distinguishable",
            "better at the chosen options",
            "really better",
        )
        patches = [
            Patch(facecolor=color, edgecolor=HAIR, label=label) for color, label in zip(colors, labels, strict=True)
        ]
        figure.legend(handles=patches, loc="outside upper center", ncols=1)
        axes.set_xlabel(f"{dataset.name}, {view.name}:\nthe line beside the column")
    return Drawing(f"{dataset.name}-pairs", f"Pairs of tuned models by {view.name}", figure)


def correlation_matrix(dataset: Dataset, c: Citations) -> Drawing | None:
    """Rank correlations of all views: above the diagonal at tuned options, below at default ones."""
    views = [view.name for view in dataset.views]
    place = {name: index for index, name in enumerate(views)}
    taus = np.full((len(views), len(views)), np.nan)
    for line in c.rows("agreement", dataset=dataset.name):
        a, b = place[line["view_a"]], place[line["view_b"]]
        if line["condition_a"] == line["condition_b"]:
            row, column = (min(a, b), max(a, b)) if line["condition_a"] == "tuned" else (max(a, b), min(a, b))
            taus[row, column] = line["tau"]
        else:
            taus[a, a] = line["tau"]
    if np.isnan(taus).all():
        return None
    with styled():
        figure = blank(min(PAGE, 0.42 * len(views) + 2.4), 0.42 * len(views) + 1.9)
        axes = figure.subplots()
        axes.imshow(taus, cmap="RdBu", vmin=-1, vmax=1)
        for (row, column), tau in np.ndenumerate(taus):
            if not np.isnan(tau):
                text, color = f"{tau:.1f}".replace("-0.0", "0.0"), "white" if abs(tau) > 0.6 else "black"
                axes.text(column, row, text, ha="center", va="center", color=color)
        axes.set_xticks(range(len(views)), views, rotation=90)
        axes.set_yticks(range(len(views)), views)
        axes.tick_params(length=0)
        sides = "tuned above the diagonal, default below, between the two on it"
        axes.set_title(f"{dataset.name}: Kendall's tau of the models' means,\n{sides}", loc="left")
    caption = "Rank correlations: above the diagonal at tuned options, below at default ones, on it between the two"
    return Drawing(f"{dataset.name}-agreement", caption, figure)


# ---------------------------------------------------------------- the page


INTRODUCTION = """\
Every sentence below is computed from the rows beside this page; the numbers in brackets lead to the rows that it
rests on. Each model was searched with the same number of random trials (the default first), chosen by {metric} on
validation images. Its default and its chosen options were trained on the same {seeds} fresh seeds and measured on
test images.

* **differs**: a paired t-test over seeds, with Holm's correction for all pairs of models of the same number, at 5 %.
  It compares *options*.
* Intervals over ten seeds or more are studentised bootstrap ones, which seeds far from the others widen more than they
  weaken a t-test: a difference can be found whose interval contains zero. Its seeds are in `values.csv`.
* **real**: it differs at the tuned options, and the trials of the two searches, dealt anew at random, name the same
  model ahead at the largest number of trials that is compared (half of the random trials; 4 % for all pairs together).
  Fresh seeds of chosen options alone call equal models different in 30 to 44 % of studies, because their searches had
  different luck; with the trials at most 0.5 % ([simulated](../trust/tuned-comparison.md) with four models). The price
  is power: with ten trials the same simulation finds 9 % of differences of two standard deviations of a training, and
  54 % of four. Among 136 pairs few real ones are to be expected, and a pair that is not called real may differ. Trials
  exist for the metric of the searches alone, so that nothing is called real by another one; all trials share one
  training seed.
* FID, KID and pixel SW2 are those of decoded draws of the *prior*. The codes of `ae` and `rae` follow none by design;
  `@gmm` decodes draws of a mixture fitted to the codes of each model.
* **not distinguishable** says nothing of equality. Seeds that would tell are for one pair alone, at the observed
  difference.
* tau: Kendall's rank correlation of the models' means, with the 2.5 and 97.5 % quantiles over resampled seeds. These
  are no confidence intervals: they leave the luck of the searches out, and resampled means are noisier, so that tau can
  lie above them.

"""


def write_page(out: Path, report: Path) -> str:
    """Write the page, its tables and figures; the path of the page."""
    design = json.loads((out / "design.json").read_text(encoding="utf-8"))
    datasets: dict[str, Dataset] = {}
    for name in design["datasets"]:
        if (out / name).is_dir() and any((out / name).iterdir()):
            dataset = read_dataset(name, out / name, design["options"])
            if any(dataset.condition.values()):  # else nothing of it is compared: its searches have only begun
                datasets[name] = dataset
    tables: Tables = {name: [] for name in TABLES}
    for dataset in datasets.values():
        compare_models(dataset, tables)
    tables["transfer"] = transfer_lines(list(datasets.values()), tables["pairs"])
    citations = Citations(tables)
    drawings = [drawing for dataset in datasets.values() for drawing in figures(dataset, citations)]
    body = [line for dataset in datasets.values() for line in dataset_section(dataset, citations, design, drawings)]
    missing = [line for name in design["datasets"] for line in not_done(datasets.get(name), name, design)]
    short = short_section(list(datasets.values()), citations)
    lines = [
        "# The reality check: which differences between published methods are real at this scale?",
        "",
        *setting(design, datasets),
        "",
        *(["## Not done yet", "", *(f"* {line}" for line in missing), ""] if missing else []),
        *short,
        "## How to read it",
        "",
        INTRODUCTION.format(metric=MAIN, seeds=design["seeds"]),
        *body,
        *transfer_section(citations),
        '<a id="rows"></a>',
        "",
        "## Rows",
        "",
        *citations.lines(),
        "",
        "`values.csv` has every number of every run, `protocols.json` how each was measured.",
        "",
    ]
    report.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_text(report / f"{name}.csv", csv_text(table))
    records = [record for dataset in datasets.values() for record in dataset.records]
    write_json(report / "protocols.json", protocols(records))
    write_json(report / "design.json", design)
    write_text(report / "README.md", "\n".join(lines))
    for drawing in drawings:
        drawing.save(report / f"{drawing.name}.png")
    return str(report / "README.md")


def setting(design: Mapping[str, Any], datasets: Mapping[str, Dataset]) -> list[str]:
    """What was trained, where and when."""
    records = [record for dataset in datasets.values() for record in dataset.records]
    facts = {
        key: sorted({str(record.provenance.get(key, "")) for record in records} - {""}) for key in ("commit", "device")
    }
    seconds = sum(record.training.seconds for record in records if record.training is not None)
    images = design["images"]
    sizes = ", ".join(f"{key} {value}" for key, value in design["options"].items())
    return [
        f"{len(design['models'])} models, {design['trials']} trials each, {design['seeds']} seeds, {images:,} images"
        f" a training in batches of {design['batch']}: {100 * images / 30_000_000:.2g} % of the 30,000,000 of"
        f" cwae-table1 and {100 * images / 1_800_000:.2g} % of the 1,800,000 of swae-priors;"
        f" d = {design['latent_dim']}; a small `mlp` ({sizes}).",
        "",
        f"Commit {', '.join(facts['commit']) or 'unknown'}, {', '.join(facts['device']) or 'no device'};"
        f" {len(records):,} runs, trials and controls included, {seconds / 3600:.1f} hours of training. `python"
        " tests/benchmarks/reality_check.py` ([design](../../tests/benchmarks/reality_check.md)).",
    ]


def dataset_section(
    dataset: Dataset, c: Citations, design: Mapping[str, Any], drawings: Sequence[Drawing]
) -> list[str]:
    """The section of a dataset."""
    view, name = main_view(dataset), dataset.name
    if view is None:
        return [f"## {name}", "", "No two models have enough seeds by the metric of the searches yet.", ""]
    sections = [
        (
            "",
            [
                *main_table(dataset, view, c),
                *bullets(main_lines(dataset, view, c)),
                "",
                *pictures(drawings, f"{name}-models", f"{name}-pairs"),
            ],
        ),
        ("what tuning changed", bullets(tuning_sentences(dataset, view, c))),
        (
            "by metric, extractor and sampler",
            [*agreement_section(dataset, view, c), *pictures(drawings, f"{name}-agreement")],
        ),
        ("likelihood, collapse, copies, controls", bullets(fact_sentences(dataset, c, design["latent_dim"]))),
    ]
    return [
        line
        for title, content in sections
        if content
        for line in (f"## {name}" if not title else f"### {name}: {title}", "", *content, "")
    ]


def main_name(c: Citations) -> str:
    """The number of the searches as a reader knows it."""
    return str(c.rows("models", metric=MAIN)[0]["view"])


def transfer_section(c: Citations) -> list[str]:
    """What the order of the models on one dataset says of that on another."""
    lines = [
        f"| {line['dataset_a']}, {line['dataset_b']} | {line['condition']} | {line['models']} | {tau_interval(line)} |"
        f" {line['same']} | {line['opposite']} | {line['only_a']} | {line['only_b']} |"
        for line in c.rows("transfer")
    ]
    if not lines:
        return []
    return [
        "## From one dataset to another",
        "",
        f"The order of the models by {main_name(c)} on two datasets, and the pairs that differ on them"
        f" {c.cite('transfer')}:",
        "",
        "| datasets | options | models | Kendall's tau | alike on both | opposite | on the first alone |"
        " on the second alone |",
        "|:--|:--|--:|--:|--:|--:|--:|--:|",
        *lines,
        "",
        "At the default options only the dataset differs. At the tuned ones each dataset has searches of its own, and"
        " their luck is part of what differs.",
        "",
    ]


def bullets(sentences: Iterable[str]) -> list[str]:
    """A list of sentences."""
    return [f"* {sentence}" for sentence in sentences]


def pictures(drawings: Sequence[Drawing], *names: str) -> list[str]:
    """Links to those of some figures that there are."""
    shown = [drawing.name for drawing in drawings if drawing.name in names]
    return [" ".join(f"![{name}]({name}.png)" for name in shown)] if shown else []


def figures(dataset: Dataset, c: Citations) -> list[Drawing]:
    """The figures of a dataset."""
    view = main_view(dataset)
    if view is None:
        return []
    drawings = [forest(dataset, view, c), pair_matrix(dataset, view, c), correlation_matrix(dataset, c)]
    return [drawing for drawing in drawings if drawing is not None]
