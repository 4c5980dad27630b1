"""Tidy rows assembled into tables: one per dataset, groups down, (metric, protocol) pairs across. Data only, no text.

Numbers of different protocols never share a column, and models of different datasets never share a table, so nothing
is ranked that was not measured alike. `gather` sorts the rows by dataset, group and column, `assemble` makes tables.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from genbench.errors import UsageError, unknown
from genbench.experiment.run import SAMPLED
from genbench.stats import budget_curves
from genbench.stats.comparison import BestSetResult, set_of_best
from genbench.stats.intervals import (
    RESOLUTION,
    Errors,
    Estimate,
    Spread,
    combined_p,
    estimate,
    paired_difference,
    share_errors,
    share_scale,
    spread,
)
from genbench.stats.power import minimum_detectable_effect, pilot
from genbench.storage.results import EQUAL_COST, Row
from genbench.storage.schema import Scalar

DEFAULT_SORT = "sample quality"
"""The role of the metric that ranks where none is asked for: the first one with it."""

Section = Literal["headline", "detail", "fact"]
"""Prominence of a column: ranking metrics, their other parts, and metrics without a better direction."""

Mark = Literal["", "best", "undecided"]
"""A cell's mark: in the set of bests; no test with any other group although other groups could be tested."""


RowRole = Literal["model", "copy", "control"]
"""The role of a row: only a model is ranked and can be a best; a copy is a model that shows its training images."""

ROW_ROLES: tuple[RowRole, ...] = ("model", "copy", "control")
MEMORIZATION = "memorization"
"""The role of a metric whose value is the share of samples that are copies of training images."""

MOST_COMPARED = 100
"""Models up to which the smallest detectable difference between two of them is computed."""

COPIES_ALLOWED = 0.05
"""The share above which a model is a copy: a perfect model's samples come that near by chance far less often."""
CAUTIONS = "; "
"""What separates several cautions on one number: each becomes a note, whose columns and groups may differ."""


SETUP = (
    *("model", "prior", "latent_dim", "batch", "precision", "options", "defaults"),
    *("trials", "tuned_by", "tuned", "validation", "tuned_metric", "space", "default_validation", "search"),
)
"""The facts of a training that a row of a table has from the rows of its runs."""


# ---------------------------------------------------------------- gathering

ColumnKey = tuple[str, str]
"""A column: metric and protocol."""


@dataclass(frozen=True)
class RunProblem:
    """A run that failed or is unfinished, or (with `metric`) a number that could not be measured."""

    run: str
    label: str
    seed: int
    status: str
    cause: str
    metric: str = ""


@dataclass
class RunGroup:
    """Runs that differ by seed alone: their label, the row of the lowest seed, and each seed's status."""

    label: str
    first: Row
    seeds: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupSearch:
    """The search behind a tuned group, as comparisons of models need it.

    `way` is what groups that were tuned alike share, `trials` are the validation values of the trials that were drawn
    at random, NaN where one failed. `problem` is why the trials say nothing of a column, "" where they do.
    """

    key: str
    way: tuple[object, ...]
    trials: tuple[float, ...] = ()
    protocol: str = ""
    problem: str = ""


@dataclass
class ColumnValues:
    """The values of one (metric, protocol) pair by group and seed (a list: repeats), and floors by group.

    `errors` are standard errors over draws and `p_values` those of a perfect fit (of repeats the largest), by group and
    seed; `minimum_detectable_effect` is the largest of the smallest values that a run's n can detect.
    """

    example: Row
    head: str = ""
    counts: set[int] = field(default_factory=set)
    values: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    floors: dict[str, list[float]] = field(default_factory=dict)
    floor_sds: list[float] = field(default_factory=list)
    chances: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    p_values: dict[str, dict[int, float]] = field(default_factory=dict)
    minimum_detectable_effect: float | None = None
    cautions: dict[str, set[str]] = field(default_factory=dict)
    fit_seconds: list[float] = field(default_factory=list)
    searches: dict[str, GroupSearch] = field(default_factory=dict)
    _by_seed: dict[str, dict[int, float]] = field(default_factory=dict, repr=False, compare=False)
    _shares: tuple[int, float | None] | None = field(default=None, repr=False, compare=False)

    def by_seed(self, group: str) -> dict[int, float]:
        """A group's value for each seed; repeats of a seed are averaged, never counted twice. Asked once all is in."""
        if group not in self._by_seed:
            self._by_seed[group] = {
                seed: repeats[0] if len(repeats) == 1 else math.fsum(repeats) / len(repeats)
                for seed, repeats in self.values[group].items()
            }
        return self._by_seed[group]

    def known_errors(self, group: str) -> Errors:
        """The standard errors of a group's values where the whole column is of shares of n draws; else empty."""
        if self._shares is None:
            singles = [value for by_seed in self.values.values() for repeats in by_seed.values() for value in repeats]
            n = next(iter(self.counts)) if len(self.counts) == 1 else 0
            self._shares = (n, share_scale(singles, n, self.example.unit)) if n else (0, None)
        n, whole = self._shares
        by_seed = self.by_seed(group)
        return dict(zip(by_seed, share_errors(by_seed.values(), n, whole), strict=True)) if whole else {}

    def estimate(self, group: str) -> Estimate:
        """The mean of a group over seeds and its interval, which is not narrower than known errors allow."""
        return estimate(list(self.by_seed(group).values()), errors=list(self.known_errors(group).values()))

    def errors_of(self, group: str) -> list[float]:
        """The standard errors over draws, one for each seed; empty where any is unknown."""
        known = self.errors.get(group, {})
        return [max(known[seed]) for seed in self.values[group]] if known.keys() == self.values[group].keys() else []


@dataclass
class GatheredRows:
    """The rows of one dataset, in the order in which they came."""

    groups: dict[str, RunGroup] = field(default_factory=dict)
    columns: dict[ColumnKey, ColumnValues] = field(default_factory=dict)
    problems: dict[RunProblem, None] = field(default_factory=dict)


def gather(rows: Iterable[Row]) -> dict[str, GatheredRows]:
    """The rows by dataset, in one pass; snapshots of a training and numbers on validation images stay out."""
    datasets: dict[str, GatheredRows] = {}
    for row in rows:
        if row.stage == "snapshot" or (row.metric and row.split == "validation"):
            continue
        gathered = datasets.get(row.dataset)
        if gathered is None:
            gathered = datasets[row.dataset] = GatheredRows()
        group = gathered.groups.get(row.group)
        if group is None:
            group = gathered.groups[row.group] = RunGroup(row.label or row.model, row)
        if row.seed < group.first.seed:
            group.first = row
        if group.seeds.get(row.seed) != "done":  # a seed that was done anywhere is done
            group.seeds[row.seed] = row.status
        if row.metric and row.value is not None and math.isfinite(row.value):
            _collect(gathered.columns, row, row.value)
        elif row.metric or row.status != "done":
            status = "not measured" if row.metric else row.status
            problem = RunProblem(row.run, group.label, row.seed, status, row.error or _no_cause(row), row.metric)
            gathered.problems[problem] = None
    return datasets


def _collect(columns: dict[ColumnKey, ColumnValues], row: Row, value: float) -> None:
    column = columns.get((row.metric, row.protocol))
    if column is None:
        column = columns[row.metric, row.protocol] = ColumnValues(row)
    column.head = column.head or row.head
    if row.n is not None:
        column.counts.add(row.n)
    column.values.setdefault(row.group, {}).setdefault(row.seed, []).append(value)
    if row.trials and row.group not in column.searches:
        column.searches[row.group] = _search(row)
    for caution in filter(None, row.caution.split(CAUTIONS)):
        column.cautions.setdefault(caution, set()).add(row.group)
    if row.fit_seconds is not None:
        column.fit_seconds.append(row.fit_seconds)
    if row.floor is not None and math.isfinite(row.floor):
        column.floors.setdefault(row.group, []).append(row.floor)
    if row.floor_sd is not None and math.isfinite(row.floor_sd):
        column.floor_sds.append(row.floor_sd)
    if row.chance is not None and math.isfinite(row.chance):
        column.chances.setdefault(row.group, []).append(row.chance)
    if row.se is not None and math.isfinite(row.se):
        column.errors.setdefault(row.group, {}).setdefault(row.seed, []).append(row.se)
    if row.p_value is not None and math.isfinite(row.p_value):
        p_values = column.p_values.setdefault(row.group, {})
        p_values[row.seed] = max(row.p_value, p_values.get(row.seed, 0.0))
    if row.minimum_detectable_effect is not None and math.isfinite(row.minimum_detectable_effect):
        column.minimum_detectable_effect = max(row.minimum_detectable_effect, column.minimum_detectable_effect or 0.0)


def _no_cause(row: Row) -> str:
    if row.metric:
        return "no finite value"
    return "no cause was recorded" if row.status == "failed" else ""


def resolve_metric(rows: Iterable[Row], name: str, kind: str = "metric") -> str:
    """The full name of a metric that was measured, from any name that a reader of a table has for it.

    In this order, whatever the case, the same case first: its full name ("latent-w2.excess"), its label ("MSE per
    pixel"), its first part ("latent-w2", which means its excess over the floor, else the first part that ranks), or a
    beginning of one label alone. `UsageError` for another name, and for one that fits several metrics; `kind` is what
    the error calls it.
    """
    rows_of = {row.metric: row for row in rows if row.metric and (row.value is not None or row.metric == name)}
    wanted = name.strip().casefold()
    heads = {metric: (row.head or metric).casefold() for metric, row in rows_of.items()}
    parts = [metric for metric in rows_of if metric.casefold().split(".")[0] == wanted]
    ranked = [metric for metric in parts if rows_of[metric].higher_is_better is not None] or parts
    excess = [metric for metric in ranked if metric.endswith(".excess")]
    for matches in (
        [name] if name in rows_of else [],
        [metric for metric in rows_of if metric.casefold() == wanted],
        [metric for metric, head in heads.items() if head == wanted],
        (excess or ranked)[:1],
        [metric for metric, head in heads.items() if wanted and head.startswith(wanted)],
    ):
        if len(matches) > 1:
            listed = ", ".join(f"'{metric}' ({rows_of[metric].head or metric})" for metric in matches)
            raise UsageError(f"'{name}' names {len(matches)} metrics: give one of {listed}")
        if matches:
            return matches[0]
    raise unknown(kind, name, rows_of)


# ---------------------------------------------------------------- tables


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
    """The results on one dataset; rows are ranked by the metric `ranked_by`, that of the first column as assembled."""

    dataset: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    problems: tuple[RunProblem, ...]
    ranked_by: str = ""

    @property
    def ranking(self) -> int | None:
        """The place of the column that ranks; None where none does or it is not among those shown."""
        places = (
            i for i, c in enumerate(self.columns) if c.metric == self.ranked_by and c.higher_is_better is not None
        )
        return next(places, None)


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
    ranked_by = columns[0].metric if columns else ""
    return Table(dataset, columns, _ranked(lines, columns), tuple(gathered.problems), ranked_by)


def _roles(gathered: GatheredRows) -> dict[str, RowRole]:
    """The role of each group; a control stays one where it copies."""
    copies = {
        group
        for measured in gathered.columns.values()
        for group in measured.values
        if measured.example.metric_role == MEMORIZATION
        and _mean(list(measured.by_seed(group).values())) > COPIES_ALLOWED
    }
    return {
        name: "control" if group.first.role == "control" else "copy" if name in copies else "model"
        for name, group in gathered.groups.items()
    }


def labels(groups: Mapping[str, RunGroup]) -> dict[str, str]:
    """A label for each group; groups of equal labels get their names as well."""
    counts: dict[str, int] = {}
    for group in groups.values():
        counts[group.label] = counts.get(group.label, 0) + 1
    return {name: g.label if counts[g.label] == 1 else f"{g.label} [{name}]" for name, g in groups.items()}


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
                floor_sd=_mean(measured.floor_sds) if floor is not None and measured.floor_sds else None,
                minimum_detectable_effect=measured.minimum_detectable_effect,
                cautions=tuple(_caution(text, meant, measured, names) for text, meant in measured.cautions.items()),
                fit_seconds=_mean(measured.fit_seconds) if measured.fit_seconds else None,
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


def headline_metrics(collected: Mapping[ColumnKey, ColumnValues]) -> set[str]:
    """One metric for each name before the dot: its excess over the floor where it has one, else its first part."""
    chosen: dict[str, str] = {}
    for (metric, _), measured in collected.items():
        name, _, part = metric.partition(".")
        if measured.example.higher_is_better is not None and (name not in chosen or part == "excess"):
            chosen[name] = metric
    return set(chosen.values())


def _one_floor(floors: Mapping[str, Sequence[float]]) -> float | None:
    """The floor where all groups have the same to a thousandth, else None."""
    means = [_mean(values) for values in floors.values()]
    if not means or max(means) - min(means) > 1e-3 * max(abs(mean) for mean in means):
        return None
    return _mean(means)


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
        best, marks = _best(models, lower=lower), _marks(tests)
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
                each for each in _rivals(name, models, known, lower=not column.higher_is_better) if each[0] in allowed
            ]
        cells[name] = TableCell(
            estimates[name],
            marks.get(name, ""),
            floor=_mean(floors) if floors and column.floor is None else None,
            chance=_mean(measured.chances[name]) if name in measured.chances else None,
            behind=None if best is None or name == best else paired_difference(values, by_seed[best], errors=pair),
            p=combined_p(list(p_values.values())) if p_values.keys() == values.keys() else None,
            se=errors[0] if estimates[name].low is None and errors and errors[0] > rounding else None,
            spread=spread([_spread_of(measured, name)]),
            p_best=tests[name].p if name in tests else None,
            worse_than=against[0] if against and worse else None,
            options_worse=OptionsWorse(*against[0], options[name].p) if against and not worse else None,
        )
    return cells, as_models.unproven


# ---------------------------------------------------------------- models that were tuned


def tuning_way(row: Row | TableRow) -> tuple[object, ...]:
    """What groups that were tuned alike share; empty where nothing was tuned."""
    if not row.trials:
        return ()
    return (row.tuned_by,) if EQUAL_COST in row.tuned_by else (row.trials, row.tuned_by)


DEPENDENT = {
    "tpe": "trials of a TPE search depend on one another",
    "gp": "trials of a GP search depend on one another",
    "halving": "successive halving stops most trials before their end",
}
"""Why no budget curves are compared, by the algorithm of the searches."""


def _search(row: Row) -> GroupSearch:
    """The search behind a number of a tuned group."""
    record, way = row.searched, tuning_way(row)
    if row.metric != row.tuned_metric:
        return GroupSearch(row.search, way, problem=f"the searches are by {row.tuned_metric}")
    if record is None:
        return GroupSearch(row.search, way, problem="no tuning.json has the trials of the searches")
    if record.algorithm != "random":
        why = DEPENDENT.get(record.algorithm, f"trials of a {record.algorithm} search may depend on one another")
        return GroupSearch(row.search, way, problem=why)
    trials = tuple(math.nan if trial.value is None else trial.value for trial in record.trials[1:])
    problem = ""
    if not row.like_trials:
        problem = f"the searches measured {row.metric} by other options"
    elif EQUAL_COST in row.tuned_by:
        problem = f"the searches have their {record.by} alike, and not their trials"
    elif len(trials) < budget_curves.FEWEST:
        problem = f"fewer than {budget_curves.FEWEST} random trials"
    elif not any(map(math.isfinite, trials)):
        problem = "every random trial failed"
    return GroupSearch(row.search, way, trials, record.protocol, problem)


@dataclass(frozen=True)
class ModelTests:
    """The test of each group for being a best, as a model where groups were tuned alike.

    `rivals` are those that may be evidence against a group. `unproven` are groups whose searches say nothing, and why.
    """

    results: Mapping[str, BestSetResult]
    rivals: Mapping[str, Container[str]]
    unproven: Mapping[str, str] = field(default_factory=dict)


def model_tests(
    by_seed: Mapping[str, Mapping[int, float]],
    searches: Mapping[str, GroupSearch],
    *,
    lower: bool,
    errors: Mapping[str, Errors] | None = None,
) -> ModelTests:
    """The tests of `best_tests`, with the searches of groups that were tuned alike as a second condition.

    Fresh seeds compare chosen options, which differ between equal models too, by the luck of their searches. So of two
    groups that were tuned alike one is worse only where fresh seeds and the expected best values of the two searches,
    at the largest number of trials that is compared (`genbench.stats.budget_curves`), both say so; its p-value is the
    larger of the two. All pairs count in the correction of either test. Other groups are compared by seeds alone.

    Args:
        by_seed: The values of each group by training seed.
        searches: The searches of those that were tuned.
        lower: Whether lower values are better.
        errors: Known errors of the values, as of `best_tests`.
    """
    options = best_tests(by_seed, lower=lower, errors=errors)
    ways = Counter(searches[name].way for name in by_seed if name in searches)
    tuned = {name: searches[name] for name in by_seed if name in searches and ways[searches[name].way] > 1}
    unproven = {name: search.problem for name, search in tuned.items() if search.problem}
    rivals: dict[str, set[str]] = {}
    p_values: dict[str, float] = {}
    for name in by_seed:
        way = searches[name].way if name in tuned else None
        rivals[name] = {rival for rival in by_seed if way is None or rival not in tuned or tuned[rival].way != way}
        if options[name].status != "worse" or way is None:
            continue
        for rival, _ in _rivals(name, by_seed, errors or {}, lower=lower):  # the strongest evidence by seeds first
            if rival not in rivals[name] and (p := p_of_trials(name, rival, tuned, lower=lower)) is not None:
                rivals[name].add(rival)
                p_values[name] = p
                break
    results = best_tests(by_seed, lower=lower, errors=errors, rivals=rivals) if tuned else options
    for name, p in p_values.items():
        results[name] = replace(results[name], p=max(p, results[name].p or 0.0))
    return ModelTests(results, rivals, unproven)


def p_of_trials(name: str, rival: str, tuned: Mapping[str, GroupSearch], *, lower: bool) -> float | None:
    """The p-value of a rival's being ahead of a group by their searches' trials; None where they do not say so.

    `tuned` are the searches of all groups that are compared: the correction is for all pairs that were tuned alike.
    """
    behind, ahead = tuned[name], tuned[rival]
    if behind.problem or ahead.problem or behind.key == ahead.key or behind.protocol != ahead.protocol:
        return None
    comparable = [s for s in tuned.values() if (s.way, s.protocol, s.problem) == (behind.way, behind.protocol, "")]
    (pair,) = budget_curves.compare_budgets(
        {search.key: search.trials for search in comparable},
        higher_is_better=not lower,
        pairs={(behind.key, ahead.key), (ahead.key, behind.key)},
    )
    leads = {1: pair.first, -1: pair.second, 0: ""}[pair.ahead[-1]] == ahead.key
    return pair.p_values[-1] if leads else None


def _rivals(
    name: str, models: Mapping[str, Mapping[int, float]], known: Mapping[str, Errors], *, lower: bool
) -> list[tuple[str, Estimate]]:
    """The better models, the strongest evidence (by the difference in half-widths) first, and the differences."""
    sign = 1.0 if lower else -1.0
    differences = {
        rival: difference
        for rival, values in models.items()
        if rival != name
        and (difference := paired_difference(models[name], values, errors=(known.get(name, {}), known.get(rival, {}))))
    }
    tested = {
        rival: abs(d.mean) / d.half_width for rival, d in differences.items() if sign * d.mean > 0 and d.half_width
    }
    return [(rival, differences[rival]) for rival in sorted(tested, key=lambda rival: -tested[rival])]


def column_marks(
    by_seed: Mapping[str, Mapping[int, float]], *, lower: bool, errors: Mapping[str, Errors] | None = None
) -> dict[str, Mark]:
    """The marks of groups by their values over seeds and known errors: the set of bests; none without any test."""
    if len(by_seed) < 2:
        return {}
    return _marks(best_tests(by_seed, lower=lower, errors=errors))


def best_tests(
    by_seed: Mapping[str, Mapping[int, float]],
    *,
    lower: bool,
    errors: Mapping[str, Errors] | None = None,
    rivals: Mapping[str, Container[str]] | None = None,
) -> dict[str, BestSetResult]:
    """The test of each group for being a best; errors that are not known for every group are not used.

    `rivals` are for each group those that may be evidence against it: all where None.
    """
    known = [errors.get(name, {}) for name in by_seed] if errors and all(errors.get(name) for name in by_seed) else []
    places = None
    if rivals is not None:
        places = [{j for j, rival in enumerate(by_seed) if rival in rivals[name]} for name in by_seed]
    results = set_of_best(list(by_seed.values()), lower=lower, errors=known, rivals=places)
    return dict(zip(by_seed, results, strict=True))


def _marks(tests: Mapping[str, BestSetResult]) -> dict[str, Mark]:
    if all(test.status == "undecided" for test in tests.values()):
        return {}
    marks: dict[str, Mark] = {"best": "best", "worse": "", "undecided": "undecided"}
    return {name: marks[test.status] for name, test in tests.items()}


def _best(by_seed: Mapping[str, Mapping[int, float]], *, lower: bool) -> str:
    """The group of the best mean."""
    means = {name: _mean(list(values.values())) for name, values in by_seed.items()}
    return (min if lower else max)(means, key=lambda name: means[name])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _ranked(lines: Iterable[TableRow], columns: Sequence[Column]) -> tuple[TableRow, ...]:
    """Models best first; then those without the ranking number, by label; then those of which no seed is done.

    Copies and controls are below all models.
    """
    sign = -1.0 if columns and columns[0].higher_is_better else 1.0

    def sort_key(row: TableRow) -> tuple[int, bool, str, bool, float, str]:
        cell = row.cells[0] if row.cells else None
        value = sign * cell.estimate.mean if cell else 0.0
        return ROW_ROLES.index(row.role), not row.done, row.state, cell is None, value, row.label

    return tuple(sorted(lines, key=sort_key))
