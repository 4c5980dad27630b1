"""What a table says first: what was trained, which models are best; and last, whether extractors agree. Plain text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from genbench.analysis.formatting import format_estimate, format_value, p_value
from genbench.analysis.gather import DEFAULT_SORT, tuning_way
from genbench.analysis.table import Caution, Column, Table, TableRow
from genbench.stats.comparison import FEWEST
from genbench.stats.intervals import Estimate
from genbench.storage.results import EQUAL_COST, Row, option_text

LATENT_FIT = "latent fit"
"""The role of metrics that compare codes with the prior: see `genbench.api.Measurement`."""

OPTIONS_SHOWN = 6
"""Options named in the head; `genbench show RUN` has all."""

MODELS_NAMED = 4
"""Models named in a sentence; more are counted."""

SIGNIFICANT = 0.05


# ---------------------------------------------------------------- what was trained


def counted_models(rows: Sequence[TableRow]) -> str:
    """How many groups there are; of a full grid, models, priors and latent sizes apart.

    >>> counted_models([])
    '0 models'
    """
    counts = {"prior": len({row.prior for row in rows}), "latent size": len({row.latent_dim for row in rows})}
    wide = {noun: count for noun, count in counts.items() if count > 1}
    cells = Counter((row.prior, row.latent_dim) for row in rows)
    size = math.prod(wide.values())
    if len({*cells.values()}) == 1 and len(cells) == size:
        models = len(rows) // size
        return " x ".join([_counted(models, "model"), *(f"{count} {noun}s" for noun, count in wide.items())])
    if len({row.model for row in rows}) == len(rows):
        return _counted(len(rows), "model")
    return f"{len(rows)} combinations of {join_words(['model', *wide])}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def setup_lines(table: Table) -> list[str]:
    """What the models of a table were trained with: network, prior and latent size; images, batch, precision, options.

    A field that differs between models has all its values: `conv or mlp`. Empty for a table without models that were
    trained here.
    """
    models = [row for row in table.rows if row.role != "control" and not row.elsewhere]
    if not models:
        return []
    networks = _alternatives(sorted(map(_network, models)))
    priors = sorted({row.prior for row in models})
    dims = _alternatives(str(dim) for dim in sorted({row.latent_dim for row in models}))
    budgets = _alternatives(f"{images:,}" for images in sorted({row.images for row in models}))
    batches = _alternatives(f"{batch:,}" for batch in sorted({row.batch for row in models if row.batch}))
    lines = [
        f"{networks} · {_alternatives(priors)} prior{'s' * (len(priors) > 1)} · d = {dims}",
        f"{budgets} images each"
        + (f" in batches of {batches}" if batches else "")
        + f" · {_alternatives(sorted(row.precision for row in models))}",
    ]
    options = options_words(models)
    return [*lines, options] if options else lines


def options_words(rows: Sequence[TableRow]) -> str:
    """The options of models and priors that are not at their defaults, each with its default in brackets.

    Those of datasets and networks stand elsewhere in the head. "" where the runs do not record the defaults.
    """
    values: dict[str, dict[str, None]] = {}
    defaults: dict[str, str] = {}
    for row in rows:
        for name, default in (row.defaults or {}).items():
            if name.partition(".")[0] in (row.model, row.prior) and name not in searched(row):
                values.setdefault(name, {})[option_text(row.options.get(name))] = None
                defaults[name] = option_text(default)
    texts = [f"{name} = {', '.join(values[name])} ({defaults[name]})" for name in values]
    if not texts and any(row.trials for row in rows):
        return ""
    if not texts:
        return "" if any(row.defaults is None for row in rows) else "options at their defaults"
    more = f" and {len(texts) - OPTIONS_SHOWN} more" if len(texts) > OPTIONS_SHOWN else ""
    return f"not the default (in brackets): {', '.join(texts[:OPTIONS_SHOWN])}{more}"


def searched(row: TableRow) -> list[str]:
    """The options that a search has chosen, as NAME.OPTION."""
    return [f"{row.model}.{option}" for option in row.tuned.split(", ") if option]


def tuning_lines(table: Table) -> list[str]:
    """How options were searched; empty where none was."""
    models = [row for row in table.rows if row.role != "control" and not row.elsewhere]
    tuned = [row for row in models if row.trials]
    if not tuned:
        return []
    ways: dict[tuple[int, str], list[TableRow]] = {}
    for row in tuned:
        ways.setdefault((row.trials, row.tuned_by), []).append(row)
    lines = []
    for (trials, how), members in ways.items():
        each = "" if len(members) == 1 else " each"
        whose = f"{join_words(list(dict.fromkeys(row.model for row in members)))} " if len(ways) > 1 else ""
        lines.append(f"{whose}tuned, {_counted(trials, 'trial')}{each}: {how}")
    return lines


def tuning_words(a: Row, b: Row) -> str:
    """How two groups that are compared were tuned, of which each is given by a row; "" where none was."""
    if not a.trials and not b.trials:
        return ""
    ways = [f"tuned, {row.trials} trials, {row.tuned_by}" if row.trials else "not tuned" for row in (a, b)]
    if ways[0] == ways[1] or (a.tuned_by == b.tuned_by and EQUAL_COST in a.tuned_by):
        return f"both {ways[0]}: the options that were chosen are compared, and another search could choose others"
    return f"A {ways[0]}; B {ways[1]}: the difference may be owed to that alone"


def alike(rows: Sequence[TableRow]) -> bool:
    """Whether all models were tuned in one way, or none was."""
    return len({tuning_way(row.trials, row.tuned_by) for row in rows}) < 2


def at_defaults(rows: Sequence[TableRow]) -> bool:
    """Whether every option of every model is recorded as being at its default."""
    return all(
        row.defaults is not None and not any(n.startswith(f"{row.model}.") for n in row.defaults) for row in rows
    )


def _network(row: TableRow) -> str:
    """A network with its options: `conv (width 16)`."""
    prefix = f"{row.network}."
    options = [
        f"{name.removeprefix(prefix)} {option_text(value)}"
        for name, value in row.options.items()
        if name.startswith(prefix)
    ]
    return f"{row.network} ({', '.join(options)})" if options else row.network


def _alternatives(texts: Iterable[str]) -> str:
    return join_words(list(dict.fromkeys(texts)), "or")


def join_words(words: Sequence[str], last: str = "and") -> str:
    """Words as a list in a sentence.

    >>> join_words(["swae", "vae", "wae-gan"])
    'swae, vae and wae-gan'
    """
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)


# ---------------------------------------------------------------- the verdict


@dataclass(frozen=True)
class Behind:
    """A model that is not a best: the absolute paired difference from a better one, and the adjusted p-value.

    `rival` is the label of that better model, against which the evidence is strongest.
    """

    label: str
    difference: Estimate
    p: float | None
    rival: str = ""


@dataclass(frozen=True)
class Verdict:
    """Which models are best by the ranking metric, in words and as data.

    `best` are the models that cannot be told from the best, `worse` those that can, `undecided` those without a test.
    `options_worse` are those of the best whose chosen options are worse, while searches do not show that they are.
    `sentences` say the same, then whether codes match the prior, the differences that more seeds would tell, and
    how models were tuned; each ends without a stop.
    """

    metric: str
    best: tuple[str, ...]
    worse: tuple[Behind, ...]
    undecided: tuple[str, ...]
    sentences: tuple[str, ...]
    options_worse: tuple[Behind, ...] = ()

    @property
    def text(self) -> str:
        """The sentences as one paragraph."""
        return " ".join(f"{sentence}." for sentence in self.sentences)


def verdict(table: Table) -> Verdict:
    """The verdict on a table; without sentences where it has no models."""
    models = [row for row in table.rows if row.role == "model" and row.done]
    place = table.ranking
    column = None if place is None else table.columns[place]
    ranked = [(row, cell) for row in models if place is not None and (cell := row.cells[place]) is not None]
    best = tuple(row.label for row, cell in ranked if cell.mark == "best")
    labels = {row.group: row.label for row, _ in ranked}
    worse: list[Behind] = []
    options_worse: list[Behind] = []
    for row, cell in ranked:
        if best and cell.mark == "" and cell.worse_than is not None:
            rival, difference = cell.worse_than
            worse.append(Behind(row.label, absolute(difference), cell.p_best, labels[rival]))
        elif (chosen := cell.options_worse) is not None:
            options_worse.append(Behind(row.label, absolute(chosen.difference), chosen.p, labels[chosen.rival]))
    undecided = tuple(row.label for row, cell in ranked if cell.mark == "undecided")
    sentences: list[str] = []
    if column is not None and len(ranked) > 1:
        leader = ranked[0][0].label
        sentences.append(_ranking(column.head, leader, best, worse, [cell.estimate.n for _, cell in ranked]))
        sentences += _searches(column, leader, options_worse)
    sentences += _fit(table, models)
    if column is not None and len(best) > 1 and column.detectable and not options_worse:
        size = format_value(column.detectable, digits=2).plain
        sentences.append(f"Differences below {size} are often missed with these seeds (genbench power RUNS)")
    here = [row for row in models if not row.elsewhere]
    if len(here) > 1 and not alike(here):
        sentences.append("Not tuned alike: the ranks may be owed to that alone")
    elif len(here) > 1 and not here[0].trials and at_defaults(here):
        sentences.append("Not tuned: a comparison of defaults")
    chosen_options = tuple(options_worse)
    return Verdict(column.metric if column else "", best, tuple(worse), undecided, tuple(sentences), chosen_options)


def absolute(difference: Estimate) -> Estimate:
    """The same difference, counted from the better to the worse."""
    if difference.mean >= 0:
        return difference
    low, high = (None if end is None else -end for end in (difference.high, difference.low))
    return Estimate(-difference.mean, difference.n, low, high, difference.kind)


def _ranking(head: str, leader: str, best: Sequence[str], worse: Sequence[Behind], seeds: Sequence[int]) -> str:
    """The sentence on the ranking column; a rival is named where it is not the leader, the model of the best mean."""
    if not best:
        if max(seeds) == 1:
            return "One seed: differences may be noise (--seeds 5 gives intervals and tests)"
        if max(seeds) < FEWEST:
            return f"With {max(seeds)} seeds models cannot be told apart (use --seeds 5)"
        return f"No test between models by {head}: too few shared seeds, or differences that are equal in every seed"
    if len(best) > 1:
        named = join_words(best) if len(best) <= MODELS_NAMED else f"{len(best)} models"
        sentence = f"{named} cannot be told apart by {head}"
    else:
        sentence = f"{best[0]} is the best by {head}"
    if not worse:
        return sentence
    if len(worse) > MODELS_NAMED - 1:
        return f"{sentence}; {len(worse)} are worse"
    first, *further = worse
    texts = [_behind(first, leader), *(f"{behind.label} {_behind(behind, leader)}" for behind in further)]
    return f"{sentence}; {first.label} is worse {join_words(texts)}"


def _behind(behind: Behind, leader: str) -> str:
    p = "" if behind.p is None else f" ({p_value(behind.p)})"
    than = "" if behind.rival in ("", leader) else f"than {behind.rival} "
    return f"{than}by {format_estimate(behind.difference).plain}{p}"


def _searches(column: Column, leader: str, options_worse: Sequence[Behind]) -> list[str]:
    """Sentences on models of which the chosen options alone are known to be worse, or alone are compared."""
    sentences = []
    if len(options_worse) > MODELS_NAMED - 1:
        sentences.append(f"The chosen options of {len(options_worse)} models are worse than others")
    elif options_worse:
        texts = [f"those of {behind.label} {_behind(behind, leader)}" for behind in options_worse]
        texts[0] = f"The chosen options of {options_worse[0].label} are worse {_behind(options_worse[0], leader)}"
        sentences.append(join_words(texts))
    if column.unproven:
        return [*sentences, f"{column.head} compares chosen options, not models: {reasons(column.unproven)}"]
    return [f"{text}; the searches do not show that the models differ" for text in sentences]


def reasons(cautions: Sequence[Caution]) -> str:
    """Why searches say nothing, and of which models where not of all."""
    return "; ".join(
        caution.text + (f" ({join_words(caution.labels)})" if 0 < len(caution.labels) <= MODELS_NAMED else "")
        for caution in cautions
    )


def _fit(table: Table, models: Sequence[TableRow]) -> list[str]:
    """Which models' codes match the prior; Bonferroni over the metrics of that role that have p-values."""
    columns = [i for i, column in enumerate(table.columns) if column.role == LATENT_FIT]
    p_values: dict[str, float] = {}
    for row in models:
        tests = [cell.p for i in columns if (cell := row.cells[i]) is not None and cell.p is not None]
        if tests:
            p_values[row.label] = min(1.0, len(tests) * min(tests))
    if not p_values:
        return []
    off = [label for label, p in p_values.items() if p <= SIGNIFICANT]
    fitting = [label for label in p_values if label not in off]
    if not off:
        return [
            "Every model's codes may follow the prior"
            if len(fitting) > 1
            else f"The codes of {fitting[0]} may follow the prior"
        ]
    p = p_value(max(p_values[label] for label in off))
    if not fitting:
        return [f"No model matches the prior ({p})" if len(off) > 1 else f"{off[0]} does not match the prior ({p})"]
    named = join_words(fitting) if len(fitting) <= MODELS_NAMED else f"{len(fitting)} models"
    return [f"Only {named} may match the prior (the others: {p})"]


# ---------------------------------------------------------------- whether extractors agree

BY_EXTRACTOR = ("extractor", "layer", "weights", "resize", "dtype", "values", "references", "generated")
"""The fields of a protocol in which two measurements by different extractors may differ."""


def extractor_agreement(table: Table, protocols: Mapping[str, Mapping[str, object]]) -> str:
    """Whether the extractors that measured a metric agree on the best model; "" where none was measured by two.

    They agree where each one's set of bests is the same single model: the p-values are the largest of "another model
    is a best" (an intersection-union test needs no correction). They disagree where each model is refuted as a best by
    some extractor: the p-value is the largest over the models of the smallest over the extractors, times the number of
    extractors (Bonferroni). All p-values are those of the table's marks, paired over the seeds, by Holm's correction.
    `protocols` holds the fields of each protocol by its hash.
    """
    alike: dict[tuple[object, ...], dict[tuple[object, ...], int]] = {}
    for i, column in enumerate(table.columns):
        fields = protocols.get(column.protocol, {})
        if column.role == DEFAULT_SORT and column.higher_is_better is not None and fields.get("extractor"):
            rest = tuple(sorted((name, str(value)) for name, value in fields.items() if name not in BY_EXTRACTOR))
            by = tuple(fields.get(name) for name in ("extractor", "layer", "weights"))
            alike.setdefault((column.metric, column.prior, rest), {}).setdefault(by, i)
    several = [list(places.values()) for places in alike.values() if len(places) > 1]
    sentences = [text for places in several if (text := _agreement(table, places, protocols))]
    return f"Extractors: {'; '.join(sentences)}" if sentences else ""


def _agreement(table: Table, places: Sequence[int], protocols: Mapping[str, Mapping[str, object]]) -> str:
    """The sentence on the columns of one metric; "" where there is nothing to agree on."""
    columns = [table.columns[i] for i in places]
    metric, names = columns[0].head.partition(" (")[0], _extractor_names(columns, protocols)
    if columns[0].metric != table.ranked_by and any(row.trials for row in table.rows):
        metric = f"{metric} of chosen options"
    models = [row for row in table.rows if row.role == "model" and any(row.cells[i] for i in places)]
    if len(models) < 2:
        return ""
    unsure = f"{metric}: cannot tell whether {join_words(names)} agree"
    for row in models:
        missing = [name for name, i in zip(names, places, strict=True) if row.cells[i] is None]
        if missing:
            return f"{unsure}: {row.label} was not measured by {join_words(missing)}"
    cells = [{row.label: cell for row in models if (cell := row.cells[i]) is not None} for i in places]
    bests = [[label for label, cell in by_model.items() if cell.mark == "best"] for by_model in cells]
    if not all(bests):
        seeds = max(cell.estimate.n for by_model in cells for cell in by_model.values())
        why = "too few seeds for a test (use --seeds 5)" if seeds < FEWEST else "no test"
        return f"{unsure}: {why}"

    # Each extractor's winners, and how surely the others are none.
    refuted = [
        {label: cell.p_best for label, cell in by_model.items() if cell.mark == "" and cell.p_best is not None}
        for by_model in cells
    ]
    winners = [
        f"{_any_of(best)} by {name}" + (f" ({p_value(max(others.values()))})" if others else "")
        for best, others, name in zip(bests, refuted, names, strict=True)
    ]
    if all(best == bests[0] for best in bests) and len(bests[0]) == 1 < len(models):
        sure = join_words([p_value(max(others.values())) for others in refuted if others])
        return f"{metric}: {join_words(names)} agree that {bests[0][0]} is the best" + (f" ({sure})" if sure else "")
    against = [[others[row.label] for others in refuted if row.label in others] for row in models]
    if all(against):
        p = len(places) * max(map(min, against))
        if p <= SIGNIFICANT:
            return f"{metric}: {join_words(names)} disagree on the best: {join_words(winners)} (together {p_value(p)})"
    return f"{unsure} on the best: {join_words(winners)}"


def _any_of(labels: Sequence[str]) -> str:
    return join_words(labels, "or") if len(labels) <= MODELS_NAMED else f"any of {len(labels)} models"


def _extractor_names(columns: Sequence[Column], protocols: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The extractors as the heads of the columns name them, with their weights where these alone tell them apart."""
    fields = [protocols[column.protocol] for column in columns]
    names = [
        column.head.partition(" (")[2].partition(")")[0] or str(stated["extractor"])
        for column, stated in zip(columns, fields, strict=True)
    ]
    return [
        name if names.count(name) == 1 else f"{name} ({stated.get('weights', '')})"
        for name, stated in zip(names, fields, strict=True)
    ]
