"""Tidy rows assembled into tables: one per dataset, groups down, (metric, protocol) pairs across. Data only, no text.

Numbers of different protocols never share a column, and models of different datasets never share a table, so nothing
is ranked that was not measured alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from genbench.analysis.gather import (
    DEFAULT_SORT,
    ColumnKey,
    ColumnValues,
    GatheredRows,
    RunProblem,
    gather,
    headline_metrics,
    labels,
    resolve_metric,
)
from genbench.experiment.run import SAMPLED
from genbench.stats.best import Mark, ModelTests, best_mean, best_tests, better_rivals, marks_of, model_tests
from genbench.stats.comparison import BestSetResult
from genbench.stats.intervals import (
    RESOLUTION,
    Estimate,
    Spread,
    combined_p,
    paired_difference,
    spread,
)
from genbench.stats.power import minimum_detectable_effect, pilot
from genbench.storage.results import Row
from genbench.storage.schema import Scalar

Section = Literal["headline", "detail", "fact"]
"""Prominence of a column: ranking metrics, their other parts, and metrics without a better direction."""


RowRole = Literal["model", "copy", "control"]
"""The role of a row: only a model is ranked and can be a best; a copy is a model that shows its training images."""

SPEED = "speed"
"""The role of metrics that say as much of the machine as of the model."""

ROW_ROLES: tuple[RowRole, ...] = ("model", "copy", "control")
MEMORIZATION = "memorization"
"""The role of a metric whose value is the share of samples that are copies of training images."""

MOST_COMPARED = 100
"""Models up to which the smallest detectable difference between two of them is computed."""

COPIES_ALLOWED = 0.05
"""The share above which a model is a copy: a perfect model's samples come that near by chance far less often."""


SETUP = (
    *("model", "prior", "latent_dim", "batch", "precision", "options", "defaults"),
    *("trials", "tuned_by", "tuned", "validation", "tuned_metric", "space", "default_validation", "search"),
)
"""The facts of a training that a row of a table has from the rows of its runs."""


@dataclass(frozen=True)
class Column:
    """One metric under one protocol.

    `head` names the prior where the metric has a column for each. `floor` is set where it is the same for all groups,
    `shared` where the metric was measured under other protocols that the head does not tell apart. `spread` is pooled
    over the models, and `minimum_detectable_effect` the smallest true value that every run's n detects. `detectable` is
    the smallest difference between two models that the seeds of all models detect with a power of 80 % (of the ranking
    column alone). `prior` is the prior of all its groups where other columns of the metric belong to other priors,
    `fit_seconds` the mean over its runs of the seconds of its sampler's fit.
    """

    metric: str
    protocol: str
    head: str
    higher_is_better: bool | None
    unit: str
    counts: tuple[int, ...]
    section: Section
    shared: bool
    floor: float | None = None
    floor_sd: float | None = None
    minimum_detectable_effect: float | None = None
    spread: Spread | None = None
    role: str = ""
    detectable: float | None = None
    prior: str = ""
    cautions: tuple[Caution, ...] = ()
    fit_seconds: float | None = None
    unproven: tuple[Caution, ...] = ()
    """Of a column that ranks models that were tuned alike: of which ones searches say nothing, and why."""


@dataclass(frozen=True)
class Caution:
    """Why a column's numbers are to be read with care; `labels` are those of the groups meant, none where all are."""

    text: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableCell:
    """A group's number in a column; `behind` is its paired difference from the best mean of the column.

    `p` is that of "every seed's run is perfect", `p_best` that of "this model is a best", adjusted for all models; `se`
    the standard error over draws where there is no interval; `spread` splits the group's spread over seeds into
    training and draws.
    """

    estimate: Estimate
    mark: Mark = ""
    floor: float | None = None
    chance: float | None = None
    behind: Estimate | None = None
    p: float | None = None
    se: float | None = None
    spread: Spread | None = None
    p_best: float | None = None
    worse_than: tuple[str, Estimate] | None = None
    """Of a model that is not a best: the group against which the evidence is strongest, and the paired difference."""
    options_worse: OptionsWorse | None = None
    """Of a tuned model that is a best because the searches do not show that it is worse, though fresh seeds do."""


@dataclass(frozen=True)
class OptionsWorse:
    """The chosen options of a model are worse than those of `rival`: the paired difference and the adjusted p-value."""

    rival: str
    difference: Estimate
    p: float | None


@dataclass(frozen=True)
class TableRow:
    """One group: its cells in the order of the columns (None: not measured), its seeds and their state.

    `options`, `defaults` and what is said of a search are those of `genbench.storage.results.Row`.
    """

    group: str
    label: str
    cells: tuple[TableCell | None, ...]
    seeds: tuple[int, ...]
    done: tuple[int, ...]
    first_run: str
    images: int
    network: str
    failed: bool
    seconds: float | None = None
    data: str = ""
    flops: float | None = None
    stage: str = "final"
    role: RowRole = "model"
    model: str = ""
    prior: str = ""
    latent_dim: int = 0
    batch: int = 0
    precision: str = "float32"
    options: Mapping[str, Scalar] = field(default_factory=dict, hash=False)
    defaults: Mapping[str, Scalar] | None = field(default=None, hash=False)
    trials: int = 0
    tuned_by: str = ""
    tuned: str = ""
    validation: float | None = None
    tuned_metric: str = ""
    space: str = ""
    default_validation: float | None = None
    search: str = ""
    elsewhere: bool = False
    """Whether it was trained elsewhere: then nothing is known of its training."""

    @property
    def state(self) -> str:
        """ "failed" or "unfinished" where no seed is done, else ""."""
        if self.done:
            return ""
        return "failed" if self.failed else "unfinished"


@dataclass(frozen=True)
class Table:
    """The results on one dataset.

    Rows are ranked by the metric `ranked_by`, that of the first column as assembled; "" where that one has no
    better direction.
    """

    dataset: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    problems: tuple[RunProblem, ...]
    ranked_by: str = ""

    @property
    def ranking(self) -> int | None:
        """The place of the column that ranks; None where none does or it is not among those shown."""
        return next((i for i, column in enumerate(self.columns) if column.metric == self.ranked_by), None)


def assemble(rows: Sequence[Row], sort: str | None = None) -> tuple[Table, ...]:
    """A table for each dataset, in the order in which the rows name them; ranked by the metric `sort`.

    `sort` is a name that `resolve_metric` takes. Without it the first metric of the role `DEFAULT_SORT` ranks, else
    the first that has a better direction.
    """
    if sort is not None:
        sort = resolve_metric(rows, sort)
    return tuple(_table(dataset, gathered, sort) for dataset, gathered in gather(rows).items())


def _table(dataset: str, gathered: GatheredRows, sort: str | None) -> Table:
    roles = _roles(gathered)
    columns = _columns(gathered, sort, roles)
    names = labels(gathered.groups)
    cells: dict[Column, dict[str, TableCell]] = {}
    for column in columns:
        measured = gathered.columns[column.metric, column.protocol]
        ranks = column.metric == columns[0].metric
        made, unproven = _cells(column, measured, roles, ranks=ranks)
        cautions = [
            _caution(why, [name for name, each in unproven.items() if each == why], measured, names)
            for why in dict.fromkeys(unproven.values())
        ]
        cells[replace(column, unproven=tuple(cautions))] = made
    columns = tuple(cells)
    lines = [
        TableRow(
            group=name,
            label=names[name],
            cells=tuple(cells[column].get(name) for column in columns),
            seeds=tuple(sorted(group.seeds)),
            done=tuple(sorted(seed for seed, status in group.seeds.items() if status == "done")),
            first_run=group.first.run,
            images=group.first.images,
            network=group.first.network,
            failed="failed" in group.seeds.values(),
            seconds=group.first.seconds,
            data=group.first.data,
            flops=group.first.flops,
            stage=group.first.stage,
            role=roles[name],
            elsewhere=group.first.role == "external",
            **{fact: getattr(group.first, fact) for fact in SETUP},
        )
        for name, group in gathered.groups.items()
    ]
    ranked_by = columns[0].metric if columns and columns[0].higher_is_better is not None else ""
    return Table(dataset, columns, _ranked(lines, columns), tuple(gathered.problems), ranked_by)


def _roles(gathered: GatheredRows) -> dict[str, RowRole]:
    """The role of each group; a control stays one where it copies."""
    copies = {
        group
        for measured in gathered.columns.values()
        for group in measured.values
        if measured.example.metric_role == MEMORIZATION and fmean(measured.by_seed(group).values()) > COPIES_ALLOWED
    }
    return {
        name: "control" if group.first.role == "control" else "copy" if name in copies else "model"
        for name, group in gathered.groups.items()
    }


def _columns(gathered: GatheredRows, sort: str | None, roles: Mapping[str, RowRole]) -> tuple[Column, ...]:
    """The columns: the ranking one first, then headlines, their other parts, and facts that rank nothing."""
    collected, names = gathered.columns, labels(gathered.groups)
    priors = _priors(gathered)
    protocols = Counter((metric, priors.get((metric, protocol), "")) for metric, protocol in collected)
    headline = headline_metrics(collected)
    ranking = _ranking(collected, sort)
    order: dict[Section, int] = {"headline": 0, "detail": 1, "fact": 2}
    columns = []
    for key, measured in collected.items():
        ranks = measured.example.higher_is_better is not None
        section: Section = "fact" if not ranks else "headline" if key[0] in headline else "detail"
        floor = _one_floor(measured.floors) if len(measured.floors) == len(measured.values) else None
        prior = priors.get(key, "")
        columns.append(
            Column(
                metric=key[0],
                protocol=key[1],
                head=(measured.head or key[0]) + (f" ({prior})" if prior else ""),
                prior=prior,
                detectable=_detectable(measured, roles) if key[0] == ranking else None,
                role=measured.example.metric_role,
                higher_is_better=measured.example.higher_is_better,
                unit=measured.example.unit,
                counts=tuple(sorted(measured.counts)),
                section="headline" if key[0] == ranking else section,
                shared=protocols[key[0], prior] > 1,
                floor=floor,
                floor_sd=fmean(measured.floor_sds) if floor is not None and measured.floor_sds else None,
                minimum_detectable_effect=measured.minimum_detectable_effect,
                cautions=tuple(_caution(text, meant, measured, names) for text, meant in measured.cautions.items()),
                fit_seconds=fmean(measured.fit_seconds) if measured.fit_seconds else None,
                spread=spread([_spread_of(measured, name) for name in measured.values if roles[name] == "model"]),
            )
        )
    metrics = list(dict.fromkeys(metric for metric, _ in collected))
    first_seen = {metric: position for position, metric in enumerate(metrics)}
    together: dict[str, int] = {}
    for metric in metrics:
        together.setdefault(_without_sampler(metric), first_seen[metric])

    def sort_key(column: Column) -> tuple[bool, int, int, int, int]:
        groups, metric = len(collected[column.metric, column.protocol].values), column.metric
        place = together[_without_sampler(metric)]  # beside the same metric of other samplers
        return metric != ranking, order[column.section], place, first_seen[metric], -groups

    return tuple(sorted(columns, key=sort_key))


def _without_sampler(metric: str) -> str:
    """The name of a number by any sampler.

    >>> _without_sampler("kid"), _without_sampler("density-coverage@gmm.density")
    ('kid', 'density-coverage.density')
    """
    name, _, rest = metric.partition(SAMPLED)
    return name + rest[len(rest.partition(".")[0]) :]


def _priors(gathered: GatheredRows) -> dict[ColumnKey, str]:
    """The prior of each column of metrics that have a column for each prior: `ring`, `ring, d = 8` or `d = 8`."""
    owners: dict[str, dict[str, set[tuple[str, int]]]] = {}
    for (metric, protocol), measured in gathered.columns.items():
        first = [gathered.groups[name].first for name in measured.values]
        owners.setdefault(metric, {})[protocol] = {(row.prior, row.latent_dim) for row in first}
    named: dict[ColumnKey, str] = {}
    for metric, by_protocol in owners.items():
        single = [next(iter(each)) for each in by_protocol.values() if len(each) == 1]
        if len(single) < len(by_protocol) or len(set(single)) < 2:
            continue
        names = len({prior for prior, _ in single}) > 1
        dims = len({dim for _, dim in single}) > 1
        for protocol, ((prior, dim),) in by_protocol.items():
            named[metric, protocol] = ", ".join([prior] * names + [f"d = {dim}"] * dims)
    return named


def _caution(text: str, meant: Container[str], measured: ColumnValues, names: Mapping[str, str]) -> Caution:
    """A caution on a column with the labels of the groups that it is said of, where they are not all of them."""
    unmeant = any(group not in meant for group in measured.values)
    return Caution(text, tuple(names[group] for group in measured.values if group in meant) if unmeant else ())


def _detectable(measured: ColumnValues, roles: Mapping[str, RowRole]) -> float | None:
    """The smallest difference that the models' shared seeds detect with a power of 80 %; None where none varies."""
    names = [name for name in measured.values if roles[name] == "model"]
    if len(names) > MOST_COMPARED:
        return None
    models = [measured.by_seed(name) for name in names]
    study = pilot(models, [measured.known_errors(name) for name in names])
    if study is None or study.sd == 0:
        return None
    return study.sd * minimum_detectable_effect(min(len(models[i]) for i in study.members))


def _ranking(collected: Mapping[ColumnKey, ColumnValues], sort: str | None) -> str:
    """The metric that ranks the lines, "" where there is none."""
    metrics = {metric: measured.example.higher_is_better for (metric, _), measured in collected.items()}
    if sort in metrics:
        return sort or ""
    headlines = headline_metrics(collected)
    for (metric, _), measured in collected.items():
        if measured.example.metric_role == DEFAULT_SORT and metric in headlines:
            return metric
    return next((metric for metric, higher in metrics.items() if higher is not None and metric in headlines), "")


def _one_floor(floors: Mapping[str, Sequence[float]]) -> float | None:
    """The floor where all groups have the same to a thousandth, else None."""
    means = [fmean(values) for values in floors.values()]
    if not means or max(means) - min(means) > 1e-3 * max(abs(mean) for mean in means):
        return None
    return fmean(means)


def _spread_of(measured: ColumnValues, name: str) -> tuple[list[float], list[float]]:
    """A group's values over seeds and their standard errors over draws."""
    return list(measured.by_seed(name).values()), measured.errors_of(name)


def _cells(
    column: Column, measured: ColumnValues, roles: Mapping[str, RowRole], *, ranks: bool
) -> tuple[dict[str, TableCell], Mapping[str, str]]:
    """The groups' cells in one column, and of which their searches say nothing; only models are marked and compared.

    In the column that ranks, groups that were tuned alike are compared as models, not by their chosen options alone.
    """
    by_seed = {name: measured.by_seed(name) for name in measured.values}
    known = {name: measured.known_errors(name) for name in by_seed}
    estimates = {name: measured.estimate(name) for name in by_seed}
    models = {name: values for name, values in by_seed.items() if roles[name] == "model"}
    marks: Mapping[str, Mark] = {}
    tests: Mapping[str, BestSetResult] = {}
    options: Mapping[str, BestSetResult] = {}
    as_models, best = ModelTests({}, {}), None
    if column.higher_is_better is not None and len(models) > 1:
        lower = not column.higher_is_better
        options = best_tests(models, lower=lower, errors=known)
        as_models = model_tests(models, measured.searches if ranks else {}, lower=lower, errors=known)
        tests = as_models.results
        best, marks = best_mean(models, lower=lower), marks_of(tests)
    rounding = RESOLUTION * max(abs(value.mean) for value in estimates.values())
    cells = {}
    for name, values in by_seed.items():
        floors, errors, p_values = measured.floors.get(name), measured.errors_of(name), measured.p_values.get(name, {})
        pair = (known[name], known[best]) if best is not None else ({}, {})
        worse = name in tests and tests[name].status == "worse"
        against = []
        if name in options and options[name].status == "worse":
            allowed = as_models.rivals[name] if worse else models
            against = [
                each
                for each in better_rivals(name, models, known, lower=not column.higher_is_better)
                if each[0] in allowed
            ]
        cells[name] = TableCell(
            estimates[name],
            marks.get(name, ""),
            floor=fmean(floors) if floors and column.floor is None else None,
            chance=fmean(measured.chances[name]) if name in measured.chances else None,
            behind=None if best is None or name == best else paired_difference(values, by_seed[best], errors=pair),
            p=combined_p(list(p_values.values())) if p_values.keys() == values.keys() else None,
            se=errors[0] if estimates[name].low is None and errors and errors[0] > rounding else None,
            spread=spread([_spread_of(measured, name)]),
            p_best=tests[name].p if name in tests else None,
            worse_than=against[0] if against and worse else None,
            options_worse=OptionsWorse(*against[0], options[name].p) if against and not worse else None,
        )
    return cells, as_models.unproven


def _ranked(lines: Iterable[TableRow], columns: Sequence[Column]) -> tuple[TableRow, ...]:
    """Models best first; then those without the ranking number, by label; then those of which no seed is done.

    Where no number ranks, models are in the order of their labels. Copies and controls are below all models.
    """
    direction = columns[0].higher_is_better if columns else None
    sign = 0.0 if direction is None else -1.0 if direction else 1.0

    def sort_key(row: TableRow) -> tuple[int, bool, str, bool, float, str]:
        cell = row.cells[0] if row.cells else None
        value = sign * cell.estimate.mean if cell and sign else 0.0
        return ROW_ROLES.index(row.role), not row.done, row.state, cell is None, value, row.label

    return tuple(sorted(lines, key=sort_key))


# ---------------------------------------------------------------- columns by their names


def choose_tables(rows: Sequence[Row], sort: str | None = None, columns: Sequence[str] = ()) -> tuple[Table, ...]:
    """The tables of `assemble` with some columns alone, in their order; all of them where none is named.

    A name is a column's label ("FID (grey28)") or any that `resolve_metric` knows ("latent-w2", "latent-w2.excess").
    Without `sort` the first of the columns that has a better direction ranks.
    Raises `UsageError` for a name that no table has.
    """
    tables = assemble(rows, sort)
    if not columns:
        return tables
    possible = [column for table in tables for column in table.columns]
    matches = [match for name in columns for match in _named(rows, possible, name)]
    if sort is None:
        ranking = next((column.metric for column in matches if column.higher_is_better is not None), None)
        tables = assemble(rows, ranking)
    return tuple(_restricted(table, matches) for table in tables)


def of_columns(rows: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """The rows of these columns, and those that name a run alone; all rows where none is named."""
    if not columns:
        return list(rows)
    tables = choose_tables(rows, columns=columns)
    metrics = {column.metric for table in tables for column in table.columns}
    return [row for row in rows if not row.metric or row.metric in metrics]


def headlines(table: Table) -> Table:
    """The main number of each metric, speed left out: the columns of a table in print where none are named."""
    chosen = [column for column in table.columns if column.section == "headline" and column.role != SPEED]
    return _restricted(table, chosen or table.columns)


def _named(rows: Iterable[Row], possible: Sequence[Column], name: str) -> list[Column]:
    """The columns that a name means: several where a metric was measured under several protocols."""
    wanted, metrics = name.strip().casefold(), {column.metric for column in possible}
    if wanted not in {metric.casefold() for metric in metrics}:
        labelled = [column for column in possible if column.head.casefold() == wanted]
        if labelled:  # also where the label names the prior of its column
            return labelled
    metric = resolve_metric((row for row in rows if row.metric in metrics), name, "column")
    return [column for column in possible if column.metric == metric]


def split_protocols(table: Table) -> tuple[Table, ...]:
    """The table with one protocol of each metric, the one of most groups; the others in further tables, likewise.

    A further table has the rows that were measured so.
    """
    protocols: dict[str, list[str]] = {}
    parts: dict[int, list[int]] = {}
    for i, column in enumerate(table.columns):
        known = protocols.setdefault(column.metric, [])
        if column.protocol not in known:
            known.append(column.protocol)
        parts.setdefault(known.index(column.protocol), []).append(i)
    first, *others = (_of(table, kept) for _, kept in sorted(parts.items())) if parts else [table]
    return first, *(replace(part, rows=tuple(row for row in part.rows if any(row.cells))) for part in others)


def _restricted(table: Table, chosen: Iterable[Column]) -> Table:
    """A table with the chosen columns that it has, each once, as headlines."""
    keys = dict.fromkeys((column.metric, column.protocol) for column in chosen)
    places = {(column.metric, column.protocol): i for i, column in enumerate(table.columns)}
    kept = _of(table, [places[key] for key in keys if key in places])
    return replace(kept, columns=tuple(replace(column, section="headline") for column in kept.columns))


def _of(table: Table, places: Sequence[int]) -> Table:
    """A table with the columns of these places."""
    return replace(
        table,
        columns=tuple(table.columns[i] for i in places),
        rows=tuple(replace(row, cells=tuple(row.cells[i] for i in places)) for row in table.rows),
    )
