"""What searches show, as data and in words: where models part, which options matter, what tuning gained. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from genbench.analysis.formatting import format_estimate, format_value, p_value
from genbench.analysis.gather import ColumnKey, GatheredRows, gather
from genbench.analysis.headline import searched
from genbench.analysis.table import TableRow, assemble
from genbench.stats.budget_curves import FEWEST, compare_budgets
from genbench.stats.equivalence import differing
from genbench.stats.intervals import Estimate, paired_difference
from genbench.stats.sensitivity import Scalar, Sensitivity, sensitivities
from genbench.storage.results import Row, option_text
from genbench.storage.run_dir import Protocols
from genbench.storage.schema import SearchRecord

BETTER = {True: "higher is better", False: "lower is better", None: ""}
UNKNOWN, NOT_RUN = "unknown", "not run"
OPTION_HEADS = ("model", "option", "searched", "default", "chosen")
EFFECT_HEADS = ("best at", "spread", "p")


# ---------------------------------------------------------------- searches


@dataclass(frozen=True)
class SearchValues:
    """A search as figures need it: the trials that were drawn from its space, in order, and the default beside them.

    `values` are validation values, NaN where a trial failed; `options` those that were searched. `independent` says
    that trials are independent draws that were all trained to their end, as those of a random search are. Searches of
    one `study` (dataset, network, prior, latent dimension, images), `metric` and `protocol` are compared. `logarithmic`
    names the options that were drawn on a logarithmic scale.
    """

    model: str
    study: str
    metric: str
    protocol: str
    higher_is_better: bool
    options: Sequence[Mapping[str, Scalar]]
    values: Sequence[float]
    default: float | None = None
    independent: bool = True
    logarithmic: frozenset[str] = field(default_factory=frozenset)

    @property
    def sensitivities(self) -> tuple[Sensitivity, ...]:
        """How much each option matters; none where trials are not independent, too few, or all failed."""
        if not self.independent or not any(map(math.isfinite, self.values)):
            return ()
        return sensitivities(self.options, self.values, higher_is_better=self.higher_is_better)


def search_values(searches: Iterable[SearchRecord]) -> list[SearchValues]:
    """Searches as figures need them; the first trial of a record is the default, which no law drew."""
    return [
        SearchValues(
            model=record.model,
            study=(
                f"{record.run.dataset.name}, {record.run.network.name}, {record.run.prior.name} prior,"
                f" d = {record.run.latent_dim}, {record.run.images:,} images"
            ),
            metric=record.metric,
            protocol=record.protocol,
            higher_is_better=record.higher_is_better,
            options=[trial.options for trial in record.trials[1:]],
            values=[math.nan if trial.value is None else trial.value for trial in record.trials[1:]],
            default=record.trials[0].value,
            independent=record.algorithm == "random",
            logarithmic=frozenset(name for name, search in record.space.items() if search.scale == "log"),
        )
        for record in searches
    ]


def panels(searches: Iterable[SearchValues]) -> list[list[SearchValues]]:
    """Searches that are compared, panel by panel; of one model the last."""
    grouped: dict[tuple[str, str, str], dict[str, SearchValues]] = {}
    for search in searches:
        grouped.setdefault((search.study, search.metric, search.protocol), {})[search.model] = search
    return [list(panel.values()) for panel in grouped.values()]


def independent(searches: Iterable[SearchValues]) -> list[SearchValues]:
    """The searches whose trials are independent, and not all failed."""
    return [s for s in searches if s.independent and any(math.isfinite(value) for value in s.values)]


def budget_lines(searches: Sequence[SearchValues]) -> list[str]:
    """Where each two models part by their expected best value, in words.

    Nothing is said of searches whose trials are not independent, or all failed.
    """
    return [line for members in panels(independent(searches)) for line in budget_sentences(members)]


def budget_sentences(searches: Sequence[SearchValues]) -> list[str]:
    """Where each two models part, in words; searches of one metric and protocol."""
    if len(searches) < 2:
        return []
    models = {search.model: search.values for search in searches}
    pairs = compare_budgets(models, higher_is_better=searches[0].higher_is_better)
    if not any(pair.trials for pair in pairs):
        return [f"fewer than {FEWEST} random trials: models are not compared by the number of trials"]
    if len(pairs) > 1 and not any(any(pair.ahead) for pair in pairs):
        reach = max(pair.trials[-1] for pair in pairs if pair.trials)
        return [f"no two models are distinguishable at any number of trials up to {reach}"]
    return [pair.sentence for pair in pairs]


# ---------------------------------------------------------------- what tuning gained


@dataclass(frozen=True)
class PublishedValue:
    """A number of a paper, for what it was trained on, and the fields of its protocol (`tolerated` ones may differ)."""

    dataset: str
    model: str
    prior: str
    latent_dim: int
    metric: str
    value: float
    source: str
    protocol: Mapping[str, str]
    tolerated: tuple[str, ...] = ()


@dataclass(frozen=True)
class TunedOption:
    """An option that was searched: where, its default and its choice, and how much it matters, where that is known."""

    model: str
    option: str
    searched: str
    default: Scalar
    chosen: Scalar
    effect: Sensitivity | None = None


@dataclass(frozen=True)
class TunedModel:
    """A tuned model by the metric that chose its options.

    Of validation images `validation` is the value of the chosen trial and `default_validation` that of the default.
    Of test images `tuned` and `default` are over fresh seeds; `default` is None where the default options were not run.
    `gain` is their paired difference, positive where the tuned options are better. `published` is a number of the same
    model and data by the same protocol, of `source`.
    """

    label: str
    trials: int
    remark: str
    validation: float | None
    default_validation: float | None
    tuned: Estimate | None
    default: Estimate | None = None
    gain: Estimate | None = None
    published: float | None = None
    source: str = ""
    options: tuple[TunedOption, ...] = ()


@dataclass(frozen=True)
class TuningReport:
    """The tuned models on one dataset whose options one metric chose; `head` is its name in the table.

    `looked_up` says whether published numbers were looked for.
    """

    dataset: str
    metric: str
    head: str
    protocol: str
    higher_is_better: bool | None
    models: tuple[TunedModel, ...]
    looked_up: bool = False


def tuning_reports(
    rows: Sequence[Row],
    published: Sequence[PublishedValue] | None = None,
    protocols: Protocols | None = None,
) -> tuple[TuningReport, ...]:
    """What tuning gained each tuned model of some rows, a report for each dataset and metric that chose.

    Which options matter is known where the rows have the records of their searches. `protocols` are the fields of each
    protocol by its hash, by which `published` numbers are matched; None: nobody has looked for any.
    """
    gathered, numbers, reports = gather(rows), () if published is None else published, []
    searches = {row.search: row.searched for row in rows if row.searched is not None}
    for table in assemble(rows) if any(row.trials for row in rows) else ():
        models = [row for row in table.rows if row.role == "model" and row.stage == "final"]
        for metric in dict.fromkeys(row.tuned_metric for row in models if row.trials):
            tuned = [row for row in models if row.trials and row.tuned_metric == metric]
            column = next((c for c in table.columns if c.metric == metric), None)
            key = None if column is None else (column.metric, column.protocol)
            ours = (protocols or {}).get("" if column is None else column.protocol, {})
            known = [
                p
                for p in numbers
                if (p.dataset, p.metric) == (table.dataset, metric)
                and ours
                and not differing(p.protocol, ours, p.tolerated)
            ]
            names = [row.model for row in tuned]
            labels = names if len(set(names)) == len(names) else [row.label for row in tuned]
            members = tuple(
                _tuned_model(label, row, models, gathered[table.dataset], key, searches, known)
                for label, row in zip(labels, tuned, strict=True)
            )
            head, better = (metric, None) if column is None else (column.head, column.higher_is_better)
            protocol = "" if column is None else column.protocol
            looked = published is not None
            reports.append(TuningReport(table.dataset, metric, head, protocol, better, members, looked))
    return tuple(reports)


def _tuned_model(
    label: str,
    row: TableRow,
    models: Sequence[TableRow],
    gathered: GatheredRows,
    key: ColumnKey | None,
    searches: Mapping[str, SearchRecord],
    known: Sequence[PublishedValue],
) -> TunedModel:
    column = None if key is None else gathered.columns[key]
    record = searches.get(row.search)
    default = next((each for each in models if _is_default_of(each, row)), None)
    estimates: list[Estimate | None] = []
    values: list[dict[int, float]] = []
    for each in (row, default):
        there = column is not None and each is not None and each.group in column.values
        estimates.append(column.estimate(each.group) if column and each and there else None)
        values.append(column.by_seed(each.group) if column and each and there else {})
    gain = None
    if column is not None and values[0].keys() & values[1].keys():
        tuned, untuned = values
        gain = paired_difference(*((tuned, untuned) if column.example.higher_is_better else (untuned, tuned)))
    matching = [p for p in known if (p.model, p.prior, p.latent_dim) == (row.model, row.prior, row.latent_dim)]
    return TunedModel(
        label=label,
        trials=row.trials,
        remark="" if record is None else _remark(record),
        validation=row.validation,
        default_validation=row.default_validation,
        tuned=estimates[0],
        default=estimates[1],
        gain=gain,
        published=matching[0].value if matching else None,
        source=matching[0].source if matching else "",
        options=_options(label, row, record),
    )


def _is_default_of(row: TableRow, tuned: TableRow) -> bool:
    """Whether a row is of the same training with the default of every option that was searched."""
    chosen = searched(tuned)
    if row.trials or row.defaults is None or any(name in row.defaults for name in chosen):
        return False
    alike = ("model", "prior", "latent_dim", "network", "images", "batch", "precision")
    rest = [{name: value for name, value in each.options.items() if name not in chosen} for each in (row, tuned)]
    return all(getattr(row, name) == getattr(tuned, name) for name in alike) and rest[0] == rest[1]


def _remark(record: SearchRecord) -> str:
    failed = sum(bool(trial.problem) for trial in record.trials)
    stopped = sum(bool(trial.stopped) for trial in record.trials)
    counts = [f"{failed} failed"] * bool(failed) + [f"{stopped} stopped early"] * bool(stopped)
    return f"{', '.join(counts)} (of {len(record.trials)})" if counts else ""


def _options(label: str, row: TableRow, record: SearchRecord | None) -> tuple[TunedOption, ...]:
    effects: dict[str, Sensitivity] = {}
    if record is not None:
        (values,) = search_values([record])
        effects = {effect.option: effect for effect in values.sensitivities}
    spaces = dict(part.split(" ", 1) for part in row.space.split(", ") if " " in part)
    options = []
    for name in searched(row):
        option, chosen = name.partition(".")[2], row.options.get(name)
        default = (row.defaults or {}).get(name, chosen)
        options.append(TunedOption(label, option, spaces.get(option, ""), default, chosen, effects.get(option)))
    return tuple(options)


# ---------------------------------------------------------------- as tables of words


@dataclass(frozen=True)
class WordTable:
    """A table whose cells are words, for every format: the first `texts` columns stand at the left."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    texts: int = 1


def word_tables(reports: Sequence[TuningReport], dataset: str) -> list[WordTable]:
    """Of the tuned models on a dataset: what tuning gained each, and what was searched, chosen and seen to matter."""
    return [
        table for each in reports if each.dataset == dataset for table in (_gain_table(each), *_option_tables(each))
    ]


def _gain_table(report: TuningReport) -> WordTable:
    models, direction = report.models, BETTER[report.higher_is_better]
    heads = ["model", "validation default", "validation chosen", "test default", "test tuned"]
    rows = [
        [
            model.label,
            _value(model.default_validation),
            _value(model.validation),
            _estimate(model.default) if model.default else NOT_RUN,
            _estimate(model.tuned),
        ]
        for model in models
    ]
    notes = [
        "validation: one training each, on validation images; that of the choice is the best of all trials, so too good"
        " (the winner's curse): compare the test values, of fresh seeds on test images"
    ]
    if any(model.gain for model in models):
        heads.append("gain")
        for row, model in zip(rows, models, strict=True):
            row.append(_estimate(model.gain))
        difference = "tuned less default" if report.higher_is_better else "default less tuned"
        notes.append(f"gain: {difference}, paired by seed, on test images; positive where tuned is better")
    if any(model.default is None for model in models):
        notes.append(
            f"{NOT_RUN}: the defaults have no test value; train them by genbench run with the flags of this study and"
            " its --out"
        )
    if remarks := [f"{model.label} {model.remark}" for model in models if model.remark]:
        notes.append(f"trials that were no candidates: {'; '.join(remarks)}")
    if report.looked_up and all(model.published is None for model in models):
        notes.append("published: no recipe has a number of these models and data by the same protocol")
    elif report.looked_up:
        heads.append("published")
        for row, model in zip(rows, models, strict=True):
            row.append(UNKNOWN if model.published is None else _value(model.published))
        sources = dict.fromkeys(model.source for model in models if model.source)
        notes += [f"published: {source}; the same protocol" for source in sources]
        if any(model.published is None for model in models):
            notes.append(f"{UNKNOWN}: no recipe has a number of this model and data by the same protocol")
    title = f"What tuning gained by {report.head}" + f", {direction}" * bool(direction)
    return WordTable(title, tuple(heads), tuple(map(tuple, rows)), tuple(notes))


def _option_tables(report: TuningReport) -> tuple[WordTable, ...]:
    options = [option for model in report.models for option in model.options]
    if not options:
        return ()
    title, heads = f"What was searched and chosen by validation {report.metric}", OPTION_HEADS
    rows = [(o.model, o.option, o.searched, option_text(o.default), option_text(o.chosen)) for o in options]
    if not any(option.effect for option in options):
        note = (
            f"which options matter is not known: it takes {FEWEST} independent trials besides the default, those of"
            " --algorithm random"
        )
        return (WordTable(title, heads, tuple(rows), (note,), 3),)
    note = (
        "best at: the third of the trials, by the option, that has the best median value (of a choice: the value);"
        " spread: between the medians of the thirds, in brackets what 95 % of searches stay below where the option does"
        " nothing; p: of no effect, Kruskal and Wallis's test by permutation, Holm over a model's options"
    )
    full = tuple((*row, *_effect(option.effect)) for row, option in zip(rows, options, strict=True))
    return (WordTable(f"{title}, and how much it matters", (*heads, *EFFECT_HEADS), full, (note,), 3),)


def _effect(effect: Sensitivity | None) -> tuple[str, str, str]:
    if effect is None:
        return ("", "", "")
    spread = f"{_value(effect.spread)} ({_value(effect.by_chance)})"
    return effect.best, spread, p_value(effect.p).removeprefix("p ").removeprefix("= ")


def _value(value: float | None) -> str:
    return "failed" if value is None else format_value(value, digits=3).plain


def _estimate(estimate: Estimate | None) -> str:
    return "" if estimate is None else format_estimate(estimate).plain


def tuning_records(reports: Sequence[TuningReport]) -> list[dict[str, object]]:
    """Every tuned model as plain numbers, for files."""
    return [
        {
            "dataset": report.dataset,
            "model": model.label,
            "metric": report.metric,
            "protocol": report.protocol,
            "trials": model.trials,
            "validation_default": model.default_validation,
            "validation_chosen": model.validation,
            **_numbers("test_default", model.default),
            **_numbers("test_tuned", model.tuned),
            **_numbers("gain", model.gain),
            "published": model.published,
            "source": model.source,
        }
        for report in reports
        for model in report.models
    ]


def sensitivity_records(reports: Sequence[TuningReport]) -> list[dict[str, object]]:
    """Every option that was searched as plain data, for files."""
    return [
        {
            "dataset": report.dataset,
            "model": option.model,
            "metric": report.metric,
            "option": option.option,
            "searched": option.searched,
            "default": option_text(option.default),
            "chosen": option_text(option.chosen),
            "best_at": effect.best if effect else "",
            "spread": effect.spread if effect else None,
            "spread_by_chance": effect.by_chance if effect else None,
            "p": effect.p if effect else None,
            **_numbers("rank_correlation", effect.rank_correlation if effect else None),
        }
        for report in reports
        for model in report.models
        for option in model.options
        for effect in (option.effect,)
    ]


def _numbers(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
