"""The HTML report: the data of its template. Everything is text to the template, which escapes it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jinja2 import Environment, PackageLoader, StrictUndefined

from genbench import __version__
from genbench.analysis import notes
from genbench.analysis.compare import Comparison, compare
from genbench.analysis.formatting import format_estimate, format_value, p_value
from genbench.analysis.gather import gather
from genbench.analysis.headline import MODELS_NAMED, extractor_agreement, join_words, setup_lines, tuning_lines, verdict
from genbench.analysis.notes import FailureNote, ProtocolLegend, Protocols
from genbench.analysis.table import Column, Table, TableRow, split_protocols
from genbench.analysis.tuning import TuningReport, WordTable, word_tables
from genbench.errors import UsageError
from genbench.reporting.cost import Cost, cost_notes, cost_rows
from genbench.stats.comparison import holm_of_tests
from genbench.stats.intervals import Estimate
from genbench.storage.results import Row

COMMANDS_SHOWN = 5

RUNS_SHOWN = 500
"""Runs listed one by one in the plan; rows.csv holds all."""

PAIRED_MODELS = 8
"""Models of which every pair is compared; of more, only the values of each seed are shown."""

SEED_VALUES = 4_000
"""Values of single seeds that a page shows; rows.csv holds all."""

OTHER = "other"
BETTER: dict[bool | None, str] = {False: "lower is better", True: "higher is better", None: ""}
ABSENT = ""
PATH = re.compile(r"[^\s'\"(:,;=]*[/\\][^\s'\",;]*")
"""A path in a sentence, to the next space or quotation mark."""

PRIVATE = ("command", "commit", "imported", "host", "user")
"""Facts of provenance that name people, places or the project."""


@dataclass(frozen=True)
class Picture:
    """A picture of a run: its caption, its data: URI ("" where it is left out) and its file beside the report.

    `inches` is a figure's width on paper, 0 of a picture; `vector` is the file of a figure for print.
    """

    caption: str
    uri: str
    file: str
    inches: float = 0.0
    vector: str = ""
    first: bool = False
    """Whether the figure stands at the top of the page."""


@dataclass(frozen=True)
class Page:
    """All that the report is made from; `pictures` and `records` (parsed run.json) are by run.

    `title` is "" where the tables name it. `problems` has a line for each figure that could not be drawn. With
    `anonymous` the page has no command, commit, path or name of a folder. `submitted` says by group whose its runs are;
    with `apart` numbers of one metric under several protocols stand in tables apart instead of in columns. `tuning`
    says what is known of tuned models.
    """

    title: str
    tables: Sequence[Table]
    protocols: Protocols
    pictures: Mapping[str, Sequence[Picture]]
    records: Mapping[str, Mapping[str, object]]
    rows: Sequence[Row]
    command: str
    figures: Sequence[Picture] = ()
    problems: Sequence[str] = ()
    anonymous: bool = False
    cost: Cost | None = None
    submitted: Mapping[str, str] = field(default_factory=dict)
    apart: bool = False
    tuning: Sequence[TuningReport] = ()


@dataclass(frozen=True)
class CellView:
    """A cell: its text and half-width, its mark, the key that sorts it ("" is last), lines below, a hint on
    hovering, and a drawn interval.
    """

    text: str
    half: str = ""
    mark: str = ""
    key: str = ""
    below: Sequence[str] = ()
    hint: str = ""
    interval: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class ColumnView:
    """A column's head: its name, the better direction in words, lines below, its protocol and its group.

    An `extra` column is shown where its group is unfolded.
    """

    head: str
    better: str
    below: Sequence[str]
    protocol: str
    group: int
    extra: bool


@dataclass(frozen=True)
class GroupView:
    """A group of columns, which are neighbours: its title and their number, of which `extra` can be folded."""

    title: str
    size: int
    extra: int


@dataclass(frozen=True)
class RowView:
    """A row of a table; `title` stands above the first row of copies and of controls."""

    label: str
    progress: str
    state: str
    cells: Sequence[CellView]
    title: str = ""
    kind: str = ""
    submitted: str = ""


@dataclass(frozen=True)
class ResultsView:
    """A table of numbers."""

    groups: Sequence[GroupView]
    columns: Sequence[ColumnView]
    rows: Sequence[RowView]


@dataclass(frozen=True)
class CardView:
    """The pictures of one group's first seed, side by side with those of the others."""

    label: str
    role: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class SeedsView:
    """The values of one column for each seed, and the p-values of all pairs of models (Holm over the pairs).

    `values` have a row for each group, with a text for each of the `seeds`; `pairs` hold the two labels, the paired
    difference, the number of shared seeds and both p-values. `remark` is what a reader of the pairs must know.
    """

    head: str
    seeds: Sequence[int]
    values: Sequence[tuple[str, Sequence[str]]]
    pairs: Sequence[tuple[str, str, str, int, str, str]]
    remark: str = ""


@dataclass(frozen=True)
class TableView:
    """A dataset's results, from the verdict to the values of single seeds."""

    title: str
    verdict: str
    setup: Sequence[str]
    cards: Sequence[CardView]
    results: Sequence[ResultsView]
    notes: Sequence[str]
    failures: Sequence[FailureNote]
    legend: ProtocolLegend
    seeds: Sequence[SeedsView]
    tuning: Sequence[WordTable]


@dataclass(frozen=True)
class RunList:
    """The runs: facts that all share, and a table of those that differ."""

    common: Sequence[tuple[str, str]]
    heads: Sequence[str]
    runs: Sequence[Sequence[str]]
    hidden: int


def render(page: Page) -> str:
    """The report as one HTML file that requests nothing."""
    return rendered(
        "report.html",
        title=page.title or _title(page.tables),
        facts=_facts(page),
        commands=[] if page.anonymous else _commands(page),
        tables=[table_view(page, table) for table in page.tables],
        run_list=run_list(page),
        figures=page.figures,
        problems=page.problems,
        cost_rows=cost_rows(page.cost) if page.cost else [],
        cost_notes=cost_notes(page.cost) if page.cost else [],
        left_out=sum(not picture.uri for group in (page.figures, *page.pictures.values()) for picture in group),
    )


def rendered(template: str, **values: object) -> str:
    """A page of a template."""
    environment = Environment(
        loader=PackageLoader("genbench.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def _title(tables: Sequence[Table]) -> str:
    """What was compared: `swae, vae and wae-gan on mnist`."""
    names = list(
        dict.fromkeys(row.model or row.label for table in tables for row in table.rows if row.role != "control")
    )
    datasets = join_words(list(dict.fromkeys(table.dataset for table in tables)))
    if not names:
        return datasets or "No runs"
    return f"{join_words(names) if len(names) <= MODELS_NAMED + 2 else f'{len(names)} models'} on {datasets}"


def _facts(page: Page) -> list[str]:
    """The devices and versions that trained the runs."""
    devices: dict[str, None] = {}
    versions: dict[str, None] = {}
    for record in page.records.values():
        known = record.get("provenance")
        provenance: Mapping[str, object] = known if isinstance(known, Mapping) else {}
        if provenance.get("device"):
            devices[str(provenance["device"])] = None
        if provenance.get("genbench"):
            versions[f"genbench {provenance['genbench']}"] = None
    return [*devices, *(versions or {f"genbench {__version__}": None})]


def _commands(page: Page) -> list[str]:
    """The commands that trained the runs, each once."""
    commands: dict[str, None] = {}
    for record in page.records.values():
        provenance = record.get("provenance")
        if isinstance(provenance, Mapping) and provenance.get("command"):
            commands[str(provenance["command"])] = None
    return list(commands)[:COMMANDS_SHOWN] or ([page.command] if page.command else [])


# ---------------------------------------------------------------- a table


def table_view(page: Page, table: Table) -> TableView:
    """A table of the page with all that is said of it."""
    shown = _without_paths if page.anonymous else str
    agreement = extractor_agreement(table, page.protocols)
    return TableView(
        title=notes.title(table),
        verdict=verdict(table).text,
        setup=[*setup_lines(table), *tuning_lines(table), *notes.head_cautions(table)],
        cards=[
            CardView(row.label, row.role, page.pictures[row.first_run])
            for row in table.rows
            if page.pictures.get(row.first_run)
        ],
        results=[_results(page, part) for part in (split_protocols(table) if page.apart else [table])],
        notes=[
            *map(shown, notes.warnings(table)),
            *notes.fits(table),
            *notes.notes(table, best="bold:"),
            *filter(None, [agreement]),
        ],
        failures=[replace(failure, cause=shown(failure.cause)) for failure in notes.failures(table)],
        legend=notes.legend(table, page.protocols),
        seeds=_seeds(page.rows, table),
        tuning=word_tables(page.tuning, table.dataset),
    )


def _results(page: Page, table: Table) -> ResultsView:
    order = _column_order(table)
    span = _range(table)
    rows = [
        _row(row, order, span, above if k == 0 else "", page.submitted.get(row.group, ""))
        for above, members in notes.blocks(table.rows)
        for k, row in enumerate(members)
    ]
    if any(column.floor is not None for column in table.columns):
        models = sum(row.role != "control" for row in table.rows)
        rows.insert(models, _perfect(table, order))
    groups: list[GroupView] = []
    columns: list[ColumnView] = []
    for title, members in _grouped(table, order).items():
        extra = [i for i in members if table.columns[i].section != "headline"]
        if len(extra) == len(members):
            extra = extra[1:]
        columns += [_column(table.columns[i], len(groups), i in extra) for i in members]
        groups.append(GroupView(title, len(members), len(extra)))
    return ResultsView(groups, columns, rows)


def _grouped(table: Table, order: Sequence[int]) -> dict[str, list[int]]:
    """The columns of each role, by the role's name; the ranking column's role is first."""
    groups: dict[str, list[int]] = {}
    for i in order:
        groups.setdefault(table.columns[i].role or OTHER, []).append(i)
    return groups


def _column_order(table: Table) -> list[int]:
    """The columns by role, as the roles first occur, those without one last, and within a role headlines first."""
    roles = [*dict.fromkeys(column.role for column in table.columns if column.role), OTHER]
    sections = ("headline", "detail", "fact")
    return sorted(
        range(len(table.columns)),
        key=lambda i: (roles.index(table.columns[i].role or OTHER), sections.index(table.columns[i].section), i),
    )


def _column(column: Column, group: int, extra: bool) -> ColumnView:
    below = notes.below_head(column)
    head = f"{column.head} {notes.CAUTION}" if column.cautions else column.head
    return ColumnView(head, BETTER[column.higher_is_better], below, column.protocol, group, extra)


def _row(row: TableRow, order: Sequence[int], span: tuple[float, float], title: str, submitted: str) -> RowView:
    return RowView(
        label=row.label,
        progress=notes.progress(len(row.seeds), len(row.done)),
        state=row.state,
        cells=[_cell(row, i, span) for i in order],
        title=title,
        submitted=submitted,
    )


def _perfect(table: Table, order: Sequence[int]) -> RowView:
    """What a perfect model would score."""
    cells = []
    for i in order:
        floor, sd = table.columns[i].floor, table.columns[i].floor_sd
        if floor is None:
            cells.append(CellView(ABSENT))
            continue
        known = Estimate(floor, 1) if not sd else Estimate(floor, 2, floor - sd, floor + sd)
        digits = format_estimate(known)
        text, half = (digits.plain, "") if digits.exponent else (digits.mean, digits.half)
        cells.append(CellView(text, half, hint="± its standard deviation over draws" if sd else ""))
    return RowView("a perfect model", "", "", cells, kind="perfect")


def _cell(row: TableRow, i: int, span: tuple[float, float]) -> CellView:
    cell = row.cells[i]
    if cell is None:
        return CellView(ABSENT)
    estimate = cell.estimate
    hint = f"mean of {estimate.n} seed{'' if estimate.n == 1 else 's'}"
    if estimate.low is not None and estimate.high is not None:
        hint += f", 95 % interval {estimate.low:.4g} to {estimate.high:.4g}"
    if cell.behind is not None:
        hint += f"; minus the best, over {cell.behind.n} shared: {format_estimate(cell.behind).plain}"
    digits = format_estimate(estimate)
    text, half = (digits.plain, "") if digits.exponent else (digits.mean, digits.half)
    return CellView(
        text=text + (" ?" if cell.mark == "undecided" else ""),
        half=half,
        mark=cell.mark,
        key=repr(estimate.mean),
        below=notes.below_cell(cell),
        hint=hint,
        interval=_interval(row, *span) if i == 0 else None,
    )


def _range(table: Table) -> tuple[float, float]:
    """The range of the models' intervals in the ranking column; equal bounds where nothing is drawn."""
    spans = [_span(row) for row in table.rows if row.role == "model" and row.cells and row.cells[0]]
    if len(spans) < 2:
        return 0.0, 0.0
    return min(low for low, _, _ in spans), max(high for _, _, high in spans)


def _interval(row: TableRow, left: float, right: float) -> tuple[float, float, float] | None:
    """Low, mean and high of the ranking column as percentages of the range; a control would dwarf the others."""
    if not left < right or row.role != "model":
        return None
    low, mean, high = (round(100 * (x - left) / (right - left), 1) for x in _span(row))
    return low, mean, high


def _span(row: TableRow) -> tuple[float, float, float]:
    cell = row.cells[0]
    if cell is None:
        return math.nan, math.nan, math.nan
    e = cell.estimate
    return (e.mean if e.low is None else e.low), e.mean, (e.mean if e.high is None else e.high)


# ---------------------------------------------------------------- single seeds and pairs of models


def _seeds(rows: Sequence[Row], table: Table) -> list[SeedsView]:
    """The values of each seed in the headline columns, and all pairs of models; empty for one seed."""
    collected = gather(row for row in rows if row.dataset == table.dataset)[table.dataset].columns
    headlines = [column for column in table.columns if column.section == "headline"]
    seeds = sorted({seed for row in table.rows for seed in row.seeds})
    if len(seeds) < 2 or len(headlines) * len(table.rows) * len(seeds) > SEED_VALUES:
        return []
    pairs = _pairs(rows, table)
    remark = notes.AT_CHOSEN_OPTIONS if any(row.trials for row in table.rows) else ""
    views = []
    for column in headlines:
        values = collected[column.metric, column.protocol]
        lines = []
        for row in table.rows:
            if row.group in values.values:
                by_seed = values.by_seed(row.group)
                lines.append((row.label, [format_value(by_seed[s]).plain if s in by_seed else "" for s in seeds]))
        compared = pairs.get((column.metric, column.protocol), [])
        views.append(SeedsView(column.head, seeds, lines, compared, remark))
    return views


def _pairs(rows: Sequence[Row], table: Table) -> dict[tuple[str, str], list[tuple[str, str, str, int, str, str]]]:
    """The paired comparisons of all models by column, with Holm's correction over the pairs of a column."""
    models = [row.label for row in table.rows if row.role == "model" and row.done]
    if not 1 < len(models) <= PAIRED_MODELS:
        return {}
    raw: dict[tuple[str, str], list[tuple[str, str, Comparison]]] = {}
    for a, b in itertools.combinations(models, 2):
        try:
            compared = compare(rows, a, b)[2]
        except UsageError:  # no shared seeds, or no shared protocol
            continue
        for comparison in compared:
            raw.setdefault((comparison.metric, comparison.protocol), []).append((a, b, comparison))
    return {
        key: [
            (a, b, format_estimate(c.difference).plain, c.difference.n, _tested(c, c.p), _tested(c, p))
            for (a, b, c), p in zip(compared, holm_of_tests([c.p for _, _, c in compared]), strict=True)
        ]
        for key, compared in raw.items()
    }


def _tested(comparison: Comparison, p: float | None) -> str:
    """A p-value of a pair, or why it has none."""
    if comparison.conclusion == "equal":
        return "equal in every seed"
    return "no test: all differences are equal" if p is None else p_value(p)


# ---------------------------------------------------------------- the runs and their provenance


def run_list(page: Page) -> RunList:
    """Every run of the page with the fields of its record; fields that all share are listed once."""
    first = {row.run: row for row in reversed(page.rows)}
    runs = dict.fromkeys(row.run for row in page.rows)
    records = {run: dict(_flat("", page.records.get(run, {}))) for run in runs}
    if page.anonymous:
        records = {run: {k: v for k, v in record.items() if not _private(k, v)} for run, record in records.items()}
    known = [record for record in records.values() if record]
    keys = list(dict.fromkeys(key for record in known for key in record))
    same = [key for key in keys if all(record.get(key) == known[0].get(key) for record in known)]
    heads = [key for key in keys if key not in set(same)]
    shown = list(runs)[:RUNS_SHOWN]
    lines = [[run, first[run].label, first[run].status, *(records[run].get(key, "") for key in heads)] for run in shown]
    common = [*_origin(page), *((key, known[0][key]) for key in same)]
    return RunList(common, ["run", "group", "status", *heads], lines, len(runs) - len(shown))


def _origin(page: Page) -> list[tuple[str, str]]:
    """The command that made the report, and the content hash of each dataset, from the protocols."""
    facts = [("report made by", page.command)] if page.command and not page.anonymous else []
    data: dict[str, dict[str, None]] = {}
    for row in page.rows:
        how = page.protocols.get(row.protocol, {})
        if how.get("dataset"):
            prepared = f", prepared: {how['preparation']}" if how.get("preparation") not in (None, "", "none") else ""
            data.setdefault(row.dataset, {})[f"SHA-256 {how['dataset']}\N{HORIZONTAL ELLIPSIS}{prepared}"] = None
    return facts + [(f"data of {dataset}", "; ".join(texts)) for dataset, texts in data.items()]


def _without_paths(text: str) -> str:
    """A sentence whose paths are left out: they may name people."""
    return PATH.sub("\N{HORIZONTAL ELLIPSIS}", text)


def _private(field: str, value: str) -> bool:
    """Whether a field of a record may name people, places or the project."""
    return bool(set(field.split(".")) & set(PRIVATE)) or "/" in value or "\\" in value


def _flat(name: str, value: object) -> Iterable[tuple[str, str]]:
    """Nested data as dotted names and texts; what is empty is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value))
    elif value is not None and value != "":
        yield name, str(value)
