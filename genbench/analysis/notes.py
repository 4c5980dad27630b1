"""Sentences on a table's numbers: seeds, marks, protocols, failures. Plain text; the caller escapes it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from genbench.analysis.formatting import format_estimate, format_value, p_value
from genbench.analysis.gather import tuning_way
from genbench.analysis.headline import counted_models, join_words, verdict
from genbench.analysis.ladder import ladder
from genbench.analysis.table import COPIES_ALLOWED, Caution, Column, RowRole, Table, TableCell, TableRow
from genbench.experiment.run import SAMPLED
from genbench.stats.best import Mark
from genbench.stats.comparison import FEWEST
from genbench.stats.intervals import BOOTSTRAP_FROM, Estimate

Protocols = Mapping[str, Mapping[str, object]]
"""The fields of each protocol, by its hash."""

ARROWS: dict[bool | None, str] = {False: "↓", True: "↑"}
SIGNS: dict[Mark, str] = {"": "", "best": "•", "undecided": "?"}
PERFECT = "a perfect model"
"""The label of the row of floors."""

ONE_SEED = "one seed: no interval and no marks; differences may be noise (use --seeds 5)"
BEST = (
    "not distinguishable from the best (paired one-sided tests over shared seeds, Holm's correction, family-wise error "
    "5 % in each column); a marked row may have a worse mean than an unmarked one because its seeds vary more"
)
FEW = "no marks: too few seeds to tell which models may be the best (from three shared seeds on)"
SELECTED = "selected: the snapshot of each run that was best on validation images; its test value is measured once"
UNDECIDED = "? not tested: fewer than three seeds shared with any other group, or differences that are all equal"
CAUTION = "!"
"""The mark in the head of a column that a note warns of."""
LISTED = 4
"""Groups that a caution names; more are counted."""
SHORT = 5
"""Lines of notes below a table on a console that was not asked for all."""
HASH_LENGTH = 16
SYMBOL = 3
"""Letters of the longest unit that is a symbol and not words."""
UNEQUAL = 1.1
"""From this ratio of the floating point operations on, the costs of groups are said to differ."""
ROLES: dict[RowRole, str] = {
    "model": "",
    "copy": "copies training images: not ranked",
    "control": "controls: scale only, not ranked",
}
"""The titles above the rows of each role in a table."""

INTERVALS = {
    "t": "t-interval",
    "bootstrap": "studentised bootstrap interval",
    "sampling": "normal interval of the known sampling error (shares whose seeds vary less than that)",
}


@dataclass(frozen=True)
class ProtocolEntry:
    """One protocol: its hash, the columns measured so, and facts: n, unit and the fields that not all share."""

    protocol: str
    heads: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ProtocolLegend:
    """The protocols of a table; `common` are the fields that all of them share."""

    common: tuple[tuple[str, str], ...]
    entries: tuple[ProtocolEntry, ...]


@dataclass(frozen=True)
class FailureNote:
    """A failure that some seeds of a group share."""

    label: str
    seeds: str
    status: str
    cause: str

    @property
    def text(self) -> str:
        """One line, the cause last."""
        start = f"{self.label}, {self.seeds}, {self.status}"
        return f"{start}: {self.cause}" if self.cause else start


def title(table: Table) -> str:
    """One line: the dataset, the count of groups, the seeds, the ranking metric."""
    models = sum(row.role != "control" for row in table.rows)
    ranked = f" · ranked by {table.ranked_by}" if table.ranked_by and models > 1 else ""
    return f"{table.dataset} · {size(table)}{ranked}"


def size(table: Table) -> str:
    """How many models and seeds a table has."""
    models = [row for row in table.rows if row.role != "control"]
    seeds = seed_counts([(row.label, len(row.seeds)) for row in models]) if models else "no models"
    return f"{counted_models(models)} · {seeds}"


def blocks(rows: Sequence[TableRow]) -> list[tuple[str, list[TableRow]]]:
    """The rows of each role in their order, under their title ("" for models)."""
    return [(text, members) for role, text in ROLES.items() if (members := [row for row in rows if row.role == role])]


def progress(seeds: int, done: int) -> str:
    """The count of seeds behind a row, where it is some and not all of them: `2 of 3 seeds`."""
    return "" if done in {0, seeds} else f"{done} of {_counted([seeds], 'seed')}"


def head(column: Column) -> str:
    """A column's name with its unit, where that is a symbol such as ms, and an arrow towards the better values.

    A column whose numbers are to be read with care is marked by `!`.
    """
    arrow = ARROWS.get(column.higher_is_better, "")
    unit = f" ({column.unit})" if len(column.unit) in range(1, SYMBOL + 1) else ""
    return " ".join(part for part in (f"{column.head}{unit}", CAUTION * bool(column.cautions), arrow) if part)


def floor(value: float, sd: float | None = None) -> str:
    """A floor as it is printed under a head or a value, with its standard deviation over draws where it is known."""
    if sd is None or not sd > 0:
        return f"floor {format_value(value, digits=3).plain}"
    return f"floor {format_estimate(Estimate(value, 2, value - sd, value + sd)).plain}"


def perfect(column: Column) -> str:
    """What a perfect model would score in a column; "" where it is unknown or differs between groups."""
    return "" if column.floor is None else floor(column.floor, column.floor_sd).removeprefix("floor ")


def below_head(column: Column) -> list[str]:
    """The lines under a column's head: how many images or codes, the MDE."""
    texts = [f"n = {_range(column.counts)}"] if column.counts else []
    return texts + (
        []
        if column.minimum_detectable_effect is None
        else [f"MDE {format_value(column.minimum_detectable_effect, digits=2).plain}"]
    )


def below_cell(cell: TableCell) -> list[str]:
    """The lines under a value: its floor, that of chance, the error of its draws where one seed has no interval, p."""
    texts = [floor(cell.floor)] if cell.floor is not None else []
    if cell.chance is not None:
        texts.append(f"chance {format_value(cell.chance, digits=2).plain}")
    if cell.se is not None:
        texts.append(f"se {format_value(cell.se, digits=2).plain}")
    return texts + ([] if cell.p is None else [p_value(cell.p)])


def spreads(table: Table) -> list[str]:
    """The share of the sampling draw in the spread over seeds, pooled over the models, and how to narrow it.

    "At most": the standard errors err upwards where they err (a latent fit's, and those of FID and KID at the floor).
    """
    texts = []
    for column in table.columns:
        if column.spread is None or column.section == "detail" or column.spread.total == column.spread.draw == 0:
            continue  # all seeds have equal values: there is no spread to split
        total, draw = (format_value(sd, digits=2).plain for sd in (column.spread.total, column.spread.draw))
        text = f"{column.head}: sd over training seeds {total}, of which sampling draw at most {draw}"
        if column.spread.negative:
            advice = "the training's share is estimated below 0, set to 0: more samples a run first"
        elif column.spread.draw > column.spread.training:
            advice = "more samples a run narrow the interval most"
        else:
            advice = "more seeds narrow the interval, more samples hardly"
        texts.append(f"{text} ({advice})")
    return texts


def short_notes(table: Table, best: str) -> list[str]:
    """What a reader must know: the meaning of ± and of the marks shown, the verdict, and what must not be compared.

    At most `SHORT` lines; the last one says how many are left out.
    """
    cells = [cell for row in table.rows for cell in row.cells if cell]
    shown = {cell.mark for cell in cells}
    parts = ["± half the 95 % interval"] * any(cell.estimate.low is not None for cell in cells)
    limits = of_options(table)
    parts += [f"{best} cannot be told from the best (tests at 5 %{limits and f'; {limits}'})"] * ("best" in shown)
    parts += ["? not tested"] * ("undecided" in shown)
    texts = ["; ".join(parts)] * bool(parts) + _findings(table)
    if len(texts) <= SHORT:
        return texts
    return [*texts[: SHORT - 1], f"{len(texts) - SHORT + 1} more notes: --notes"]


def all_notes(table: Table, best: str) -> list[str]:
    """The verdict, what must not be compared, and every other note: for files and pages."""
    return _findings(table) + notes(table, best)


def _findings(table: Table) -> list[str]:
    return [text for text in (verdict(table).text, *warnings(table), *fits(table)) if text]


def fits(table: Table) -> list[str]:
    """The samplers that were fitted, with the mean seconds of their fits; of several options the longest."""
    seconds: dict[str, float] = {}
    for column in table.columns:
        if column.fit_seconds is not None:
            sampler = column.metric.partition(SAMPLED)[2].partition(".")[0]
            seconds[sampler] = max(column.fit_seconds, seconds.get(sampler, 0.0))
    words = [f"{name} {value:.2g} s" if value < 10 else f"{name} {value:,.0f} s" for name, value in seconds.items()]
    return [f"samplers (@) were fitted to training codes: {', '.join(words)} a run"] * bool(words)


def notes(table: Table, best: str = SIGNS["best"]) -> list[str]:
    """Sentences on intervals, marks, floors and unequal conditions; `best` is how bests are shown."""
    rows = [row for row in table.rows if row.role != "control"] or list(table.rows)
    cells = [cell for row in rows for cell in row.cells if cell]
    counts = sorted({cell.estimate.n for cell in cells})
    texts = []
    if any(cell.estimate.low is not None for cell in cells):
        seeds = _counted([count for count in counts if count > 1], "training seed")
        texts.append(f"± half the width of the 95 % {_kinds(cells)} of the mean over {seeds}")
    if counts == [1]:
        texts.append(ONE_SEED)
    elif counts[:1] == [1]:
        texts.append("a value without ± is of one seed: no interval")
    if any(cell.estimate.n > 1 and cell.estimate.low is None for cell in cells):
        texts.append("a value without ± whose seeds are all equal has no known spread: no interval")
    if len({len(row.seeds) for row in rows}) > 1:
        texts.append(f"seeds: {seed_counts([(row.label, len(row.seeds)) for row in rows])}")
    ranking = [cell for row in rows for cell, column in zip(row.cells, table.columns, strict=True)
               if cell and column.higher_is_better is not None]  # fmt: skip
    if len([row for row in rows if row.role == "model"]) > 1 and ranking:
        texts += marks({cell.mark for cell in ranking}, [cell.estimate.n for cell in ranking], best)
        if limits := of_options(table):
            texts.append(f"models that were tuned alike: {limits}")
    cells = [cell for row in table.rows for cell in row.cells if cell]
    if any(column.floor is not None for column in table.columns) or any(cell.floor is not None for cell in cells):
        spread = any(column.floor_sd for column in table.columns)
        more = ", ± its standard deviation over draws" if spread else ""
        texts.append(f"a perfect model: what one would score with this many images or codes{more}")
    if any(cell.chance is not None for cell in cells):
        texts.append("chance: what codes or samples that know nothing of the images score")
    if any(cell.p is not None for cell in cells):
        texts.append(
            "p: of a perfect fit in every seed, the smallest of the seeds' p-values times their number (Bonferroni)"
        )
    if any(column.minimum_detectable_effect is not None for column in table.columns):
        texts.append(
            "MDE (minimum detectable effect): the smallest true value that one run's n detects with 80 % power at 5 %"
        )
    if any(cell.se is not None for cell in cells):
        texts.append("se: standard error over the draws of one run, its weights fixed; no interval over training seeds")
    return texts + spreads(table) + ladder(table) + _costs(table)


def marks(shown: Container[Mark], seeds: Sequence[int], best: str = SIGNS["best"]) -> list[str]:
    """What the marks shown mean; without any, why there are none where `seeds` (of each value) are too few."""
    if "best" not in shown and "undecided" not in shown:
        return [FEW] if max(seeds, default=FEWEST) < FEWEST and max(seeds) > 1 else []
    return [f"{best} {BEST}"] * ("best" in shown) + [UNDECIDED] * ("undecided" in shown)


AT_CHOSEN_OPTIONS = "tuned models: compared at their chosen options, by seeds alone; on the models see the table"
"""Under comparisons that do not ask the searches."""


def of_options(table: Table) -> str:
    """Which marks of models that were tuned alike compare models and which chosen options; "" where none were."""
    ways = [way for row in table.rows if row.role == "model" and (way := tuning_way(row.trials, row.tuned_by))]
    place = table.ranking
    marked = any(cell.mark == "best" for row in table.rows for cell in row.cells if cell)
    if len(ways) == len(set(ways)) or place is None or not marked:
        return ""
    column, others = table.columns[place], sum(each.higher_is_better is not None for each in table.columns) > 1
    by = "by it no model is called worse" if column.unproven else "worse only where the searches show it too"
    return f"{column.head}: {by}" + "; other columns: of the chosen options" * others


def seed_counts(groups: Sequence[tuple[str, int]]) -> str:
    """How many seeds groups have, by label: `3 seeds`, or `5 seeds (swae 1)` with those that have fewer.

    >>> seed_counts([("vae", 5), ("ae", 5), ("swae", 1)])
    '5 seeds (swae 1)'
    """
    most = max((count for _, count in groups), default=0)
    fewer = [f"{label} {count}" for label, count in groups if count < most]
    listed = ", ".join(fewer[:6]) + (f" and {len(fewer) - 6} more" if len(fewer) > 6 else "")
    return _counted([most], "seed") + (f" ({listed})" if fewer else "")


def _kinds(cells: Sequence[TableCell]) -> str:
    kinds = {cell.estimate.kind for cell in cells}
    from_on = f" (from {BOOTSTRAP_FROM} seeds on)" if {"t", "bootstrap"} <= kinds else ""
    return " or ".join(f"{name}{from_on * (kind == 'bootstrap')}" for kind, name in INTERVALS.items() if kind in kinds)


def warnings(table: Table) -> list[str]:
    """What must not be compared, or with care."""
    texts = []
    if any(row.role == "copy" for row in table.rows):
        texts.append(
            f"copies training images: more than {COPIES_ALLOWED:.0%} of the samples sit on one; cannot be a best"
        )
    texts += [text for text in cautions(table) if text not in head_cautions(table)]
    texts += [SELECTED] * any(row.stage == "selected" for row in table.rows)
    texts += [f"images: {data}" for data in dict.fromkeys(row.data for row in table.rows) if data]
    models = [row for row in table.rows if row.role != "control" and not row.elsewhere]
    facts = {
        "images trained on": {f"{row.images:,}" for row in models if row.stage == "final"},
        "networks": {row.network for row in models},
    }
    differing = [
        f"{subject} ({', '.join(sorted(values)) if len(values) <= 6 else f'{len(values)} values'})"
        for subject, values in facts.items()
        if len(values) > 1
    ]
    if differing:
        texts.append(f"the groups differ in {' and in '.join(differing)}: compare with care")
    if elsewhere := [row.model for row in table.rows if row.elsewhere]:
        texts.append(
            f"trained elsewhere, on what and with which budget is not known: {', '.join(dict.fromkeys(elsewhere))}"
        )
    ways: dict[int, list[str]] = {}
    for metric in dict.fromkeys(column.metric for column in table.columns if column.shared):
        ways.setdefault(sum(column.metric == metric for column in table.columns), []).append(metric)
    if ways:
        measured = [
            f"{join_words(metrics)} {'was' if len(metrics) == 1 else 'were'} measured in {count} ways"
            for count, metrics in ways.items()
        ]
        texts.append(f"{'; '.join(measured)}: a column each, never compared across (see the protocols)")
    return texts


def cautions(table: Table) -> list[str]:
    """What the metrics say of numbers that are to be read with care; columns of which they say the same share a line.

    Groups are named where it is not said of all of them.

    >>> cautions(Table("glyphs", (), (), ()))
    []
    """
    return list(_cautions(table).values())


def head_cautions(table: Table) -> list[str]:
    """The cautions on the number that ranks, which stand in the head of the table and not among its notes."""
    texts = _cautions(table)
    return [] if table.ranking is None else [texts[caution] for caution in table.columns[table.ranking].cautions]


def _cautions(table: Table) -> dict[Caution, str]:
    """The line of each caution."""
    heads: dict[Caution, list[str]] = {}
    for column in table.columns:
        for caution in column.cautions:
            heads.setdefault(caution, []).append(column.head)
    return {
        caution: f"{CAUTION} {', '.join(dict.fromkeys(names))}{_said_of(caution.labels)}: {caution.text}"
        for caution, names in heads.items()
    }


def _said_of(labels: Sequence[str]) -> str:
    """The groups of a caution: ` of vae and iwae`, ` of 9 groups`."""
    if not labels:
        return ""
    return f" of {join_words(list(labels)) if len(labels) <= LISTED else f'{len(labels)} groups'}"


def _costs(table: Table) -> list[str]:
    """The cost of equal images, where it differs: operations and seconds."""
    models = [row for row in table.rows if row.role != "control" and row.stage == "final"]
    known = [(row.flops, row.label) for row in models if row.flops is not None]
    if not known or max(known)[0] <= UNEQUAL * min(known)[0]:
        return []
    (least, cheap), (most, dear) = min(known), max(known)
    seconds = [row.seconds for row in models if row.seconds is not None]
    clock = f", {min(seconds):,.3g} to {max(seconds):,.3g} seconds" if seconds else ""
    return [
        f"training cost {least:.2g} ({cheap}) to {most:.2g} FLOPs ({dear}){clock}; compare at equal cost: "
        "genbench curves --by flops"
    ]


def legend(table: Table, protocols: Protocols) -> ProtocolLegend:
    """The protocol of each column; fields that all protocols share are listed once."""
    fields = {key: _fields(protocols.get(key, {})) for key in dict.fromkeys(c.protocol for c in table.columns)}
    known = [stated for stated in fields.values() if stated]
    several = len(known) > 1
    shared = [pair for pair in known[0].items() if all(pair in fs.items() for fs in known)] if several else []
    entries = []
    for key, stated in fields.items():
        columns = [column for column in table.columns if column.protocol == key]
        facts = {"n": _range([n for column in columns for n in column.counts])}
        facts["unit"] = ", ".join(dict.fromkeys(column.unit for column in columns if column.unit))
        facts |= {name: value for name, value in stated.items() if (name, value) not in shared}
        heads = ", ".join(dict.fromkeys(column.head for column in columns))
        entries.append(
            ProtocolEntry(key[:HASH_LENGTH], heads, tuple((name, text) for name, text in facts.items() if text))
        )
    return ProtocolLegend(tuple(shared), tuple(entries))


def _range(counts: Sequence[int]) -> str:
    return " to ".join(f"{n:,}" for n in sorted({min(counts), max(counts)})) if counts else ""


def listed(facts: Iterable[tuple[str, str]]) -> str:
    """Facts in one line: `n = 2,000; unit W2; split test`; a method speaks for itself."""
    starts = {"n": "n = ", "method": ""}
    return "; ".join(starts.get(name, f"{name} ") + value for name, value in facts)


def _fields(protocol: Mapping[str, object]) -> dict[str, str]:
    """The fields that say something: an empty text or a count of 0 does not."""
    return {name: f"{value:,}" if type(value) is int else str(value) for name, value in protocol.items() if value}


def failures(table: Table) -> list[FailureNote]:
    """The problems of a table, those that differ by seed alone in one."""
    seeds: dict[tuple[str, str, str], set[int]] = {}
    for problem in table.problems:
        status = f"{problem.metric} {problem.status}" if problem.metric else problem.status
        seeds.setdefault((problem.label, status, problem.cause), set()).add(problem.seed)
    return [
        FailureNote(label, f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, sorted(numbers)))}", status, cause)
        for (label, status, cause), numbers in seeds.items()
    ]


def _counted(counts: list[int], noun: str) -> str:
    """`3 seeds`, `1 seed`, `2 to 3 seeds`."""
    if not counts:
        return f"no {noun}s"
    numbers = str(counts[-1]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{numbers} {noun}{'' if counts == [1] else 's'}"
