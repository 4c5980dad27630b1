"""Groups ranked by a metric with the ranks that each may have; functions that all figures of rows share. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genbench.analysis.curves import requested_metric
from genbench.analysis.gather import GatheredRows, gather
from genbench.analysis.table import assemble
from genbench.errors import UsageError
from genbench.plotting.style import COLUMN, HAIR, SOFT, Drawing, Style, blank, group_styles, short, styled
from genbench.stats.intervals import (
    LEVEL,
    Errors,
    Estimate,
    by_seed_table,
    estimate,
    paired_difference,
    paired_t_intervals,
    resampled,
)
from genbench.storage.results import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = 40
"""Groups that one panel of ranks can show."""

BARS = "mean and 95 % interval over training seeds"


def direction(head: str, higher_is_better: bool | None) -> str:
    """A head with an arrow towards the better values."""
    arrows: dict[bool | None, str] = {False: " \N{DOWNWARDS ARROW}", True: " \N{UPWARDS ARROW}"}
    return head + arrows.get(higher_is_better, "")


def contestants(rows: Sequence[Row]) -> list[Row]:
    """The rows that figures compare: models on test images, at the end and at the selected snapshot, each a group.

    Controls and copies of training images are left out, as the table ranks neither.
    """
    out = {(table.dataset, line.group) for table in assemble(rows) for line in table.rows if line.role != "model"}
    return [
        row for row in rows if row.stage != "snapshot" and row.split == "test" and (row.dataset, row.group) not in out
    ]


def scale(rows: Sequence[Row], metric: str) -> dict[tuple[str, str], list[tuple[str, float]]]:
    """The scores of controls by a metric, for each dataset and protocol: label and mean over seeds, drawn in grey."""
    scores: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for table in assemble(rows):
        for line in table.rows:
            for column, cell in zip(table.columns, line.cells, strict=True):
                if line.role == "control" and cell is not None and column.metric == metric:
                    controls = scores.setdefault((table.dataset, column.protocol), [])
                    controls.append((line.label, cell.estimate.mean))
    return scores


def row_styles(rows: Sequence[Row]) -> dict[str, Style]:
    """The styles of the groups of some rows: a model has one color in every figure of these rows."""
    return group_styles([(row.group, row.model) for row in rows if row.role != "control"])


def near(value: float, values: Sequence[float]) -> bool:
    """Whether a control is at most one range of the models' values beyond them: farther, it would dwarf them."""
    span = max(values) - min(values)
    return min(values) - span <= value <= max(values) + span


@dataclass(frozen=True)
class RankedGroup:
    """A group's mean and the ranks that it may have: simultaneously for all groups, with probability 95 %."""

    group: str
    label: str
    estimate: Estimate
    best: int
    worst: int


def rank_intervals(
    values: Mapping[str, Mapping[int, float]], *, lower: bool, errors: Mapping[str, Errors] | None = None
) -> dict[str, tuple[int, int]]:
    """The best and the worst rank that each group may have; `errors` are known standard errors of the values.

    From simultaneous intervals of all paired differences (Bonferroni): a group is behind those surely better than it
    and before those surely worse. All intervals cover together with at least the level, by the reasoning of Mogstad,
    Romano, Shaikh and Wilhelm (doi:10.1093/restud/rdad006), who bootstrap. Without shared seeds nothing is sure.
    """
    names = list(values)
    level = 1 - (1 - LEVEL) / max(1, len(names) * (len(names) - 1) // 2)
    table = by_seed_table(list(values.values()))
    ahead, behind = np.zeros(len(names), int), np.zeros(len(names), int)
    for i, name in enumerate(names[:-1]):
        if resampled(level) or errors:  # few groups: a bootstrap for each pair
            known = errors or {}
            gaps = [
                paired_difference(values[name], values[rival], level, (known.get(name, {}), known.get(rival, {})))
                for rival in names[i + 1 :]
            ]
            low = np.array([math.nan if gap is None or gap.low is None else gap.low for gap in gaps])
            high = np.array([math.nan if gap is None or gap.high is None else gap.high for gap in gaps])
        else:
            low, high = paired_t_intervals(table[:, i], table[:, i + 1 :], level)
        better, worse = (high < 0, low > 0) if lower else (low > 0, high < 0)
        ahead[i + 1 :] += better
        behind[i] += better.sum()
        ahead[i] += worse.sum()
        behind[i + 1 :] += worse
    return {name: (1 + int(ahead[i]), len(names) - int(behind[i])) for i, name in enumerate(names)}


def ranks(rows: Sequence[Row], metric: str | None = None) -> Drawing:
    """The groups in their order by a metric: means with intervals, and the ranks that each may have.

    Of more than `LINES` groups the best are shown, and the caption says so; controls are below in grey, with their
    value, and a mark where it does not dwarf the models'.
    """
    name = requested_metric(rows, metric)
    shown = {
        (dataset, protocol): _ranked(gathered, name, protocol)
        for dataset, gathered in gather(contestants(rows)).items()
        for measured, protocol in gathered.columns
        if measured == name
    }
    shown = {key: ranked for key, ranked in shown.items() if len(ranked) > 1}
    if not shown:
        raise UsageError(f"ranks: fewer than two models were measured by {name} in one way; name more runs")
    grey, styles = scale(rows, name), row_styles(rows)
    heights = [0.25 * (min(len(ranked), LINES) + len(grey.get(key, ()))) + 0.8 for key, ranked in shown.items()]
    with styled():
        figure = blank(COLUMN + 0.6, sum(heights))
        panels = figure.subplots(
            len(shown), 2, squeeze=False, sharey="row", gridspec_kw={"height_ratios": heights, "width_ratios": (3, 2)}
        )
        for (left, right), ((dataset, protocol), ranked) in zip(panels, shown.items(), strict=True):
            first = next(row for row in rows if (row.metric, row.protocol) == (name, protocol))
            _forest(left, right, ranked, grey.get((dataset, protocol), ()), styles)
            left.set_xlabel(direction(first.head, first.higher_is_better))
            left.set_title(f"{dataset}, protocol {protocol}", loc="left")
    most = max(len(ranked) for ranked in shown.values())
    cut = f"; the {LINES} best of {most} groups are shown, ranks are among all" if most > LINES else ""
    return Drawing("ranks", f"{name}: {BARS}; ranks that a group may have, 95 % for all groups together{cut}", figure)


def _ranked(gathered: GatheredRows, metric: str, protocol: str) -> list[RankedGroup]:
    column = gathered.columns[metric, protocol]
    if column.example.higher_is_better is None:
        columns = gathered.columns.items()
        metrics = dict.fromkeys(name for (name, _), each in columns if each.example.higher_is_better is not None)
        raise UsageError(
            f"ranks: {metric} has no better direction, so it ranks nothing; possible: {', '.join(metrics) or 'none'}"
        )
    lower = not column.example.higher_is_better
    values = {name: column.by_seed(name) for name in column.values}
    errors = {name: known for name in values if (known := column.known_errors(name))}
    possible = rank_intervals(values, lower=lower, errors=errors)
    ranked = [
        RankedGroup(
            name,
            gathered.groups[name].label,
            estimate(list(by_seed.values()), errors=list(errors.get(name, {}).values())),
            *possible[name],
        )
        for name, by_seed in values.items()
    ]
    return sorted(ranked, key=lambda entry: entry.estimate.mean if lower else -entry.estimate.mean)


def _forest(
    left: Axes,
    right: Axes,
    groups: Sequence[RankedGroup],
    grey: Sequence[tuple[str, float]],
    styles: Mapping[str, Style],
) -> None:
    ranked = groups[:LINES]
    for y, entry in enumerate(ranked):
        style = styles[entry.group]
        reach = entry.estimate.half_width or 0.0
        left.errorbar([entry.estimate.mean], [y], xerr=[reach], color=style.color, marker=style.marker, capsize=2)
        right.plot(
            [entry.best, entry.worst], [y, y], color=style.color, marker=style.marker, lw=3, solid_capstyle="round"
        )
    for y, (_, value) in enumerate(grey, start=len(ranked)):
        if near(value, [entry.estimate.mean for entry in ranked]):
            left.plot([value], [y], color=SOFT, marker="|", markersize=7)
    labels = [short(entry.label, 34) for entry in ranked]
    labels += [f"{short(label, 20)}, control: {value:.3g}" for label, value in grey]
    left.set_yticks(range(len(labels)), labels)
    for tick in left.get_yticklabels()[len(ranked) :]:
        tick.set_color(SOFT)
    left.set_ylim(len(labels) - 0.5, -0.5)
    right.set_xlim(0.5, len(groups) + 0.5)
    steps = max(1, len(groups) // 6)
    right.set_xticks(range(1, len(groups) + 1, steps))
    right.set_xlabel("rank")
    for axes in (left, right):
        axes.grid(axis="x", color=HAIR, lw=0.5)
        axes.tick_params(axis="y", length=0)
    right.spines["left"].set_color(SOFT)
