"""Figures from tidy rows: metric against compute, metric against latent size, the FID ladder, ranks. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from genbench.analysis.curves import By, CurveSet, LossCurve, curve_points, curve_sets, loss_curves, requested_metric
from genbench.analysis.gather import gather, resolve_metric
from genbench.analysis.ladder import ROLE, RUNGS
from genbench.analysis.table import Table, assemble
from genbench.errors import UsageError, one_line
from genbench.plotting.images import CLASSES
from genbench.plotting.ranks import BARS, contestants, direction, near, ranks, row_styles, scale
from genbench.plotting.style import (
    COLUMN,
    DASHES,
    MARKERS,
    PAGE,
    SOFT,
    Drawing,
    Style,
    blank,
    group_styles,
    printable,
    share_legend,
    short,
    styled,
)
from genbench.stats.equivalence import estimate_findings
from genbench.stats.intervals import Estimate
from genbench.storage.results import Row
from genbench.storage.run_dir import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from genbench.api import Finding

UNITS: dict[By, str] = {"images": "training images", "seconds": "training seconds", "flops": "training FLOPs"}


# ---------------------------------------------------------------- metric against compute


def curves(rows: Sequence[Row], metric: str | None = None, by: Sequence[By] = ("images", "seconds")) -> Drawing:
    """The metric at the snapshots of trainings, a row of panels for each dataset and protocol, bands over seeds.

    Raises `UsageError` where the runs have no snapshots.
    """
    snapshots = [row for row in rows if row.stage == "snapshot" and row.value is not None]
    if not snapshots:
        raise UsageError(
            "curves: these runs have no snapshots; repeat their genbench run with --snapshots 5, or plot another kind"
        )
    first = next((row.metric for row in snapshots if row.metric), "")
    name = resolve_metric(snapshots, metric) if metric is not None else first
    validation = [curve_set for curve_set in curve_sets(snapshots, name) if curve_set.split == "validation"]
    styles = row_styles(snapshots)
    with styled():
        figure = blank(COLUMN if len(by) == 1 else PAGE, 2.3 * len(validation) + 0.5)
        panels = figure.subplots(len(validation), len(by), squeeze=False, sharey="row")
        for line, curve_set in zip(panels, validation, strict=True):
            for axes, unit in zip(line, by, strict=True):
                _curves(axes, curve_set, unit, styles)
            line[0].set_ylabel(direction(curve_set.head, curve_set.higher_is_better))
            line[0].set_title(f"{curve_set.dataset}, validation images, protocol {curve_set.protocol}", loc="left")
        share_legend(figure, panels[0, 0])
    return Drawing("curves", f"{name} against training cost: {BARS} (bands)", figure)


def _curves(axes: Axes, curve_set: CurveSet, by: By, styles: Mapping[str, Style]) -> None:
    series: dict[str, list[tuple[float, Estimate]]] = {}
    labels = {}
    for point in curve_points(curve_set):
        cost = point.compute(by)
        if cost is not None:
            series.setdefault(point.group, []).append((cost, point.estimate))
            labels[point.group] = point.label
    if not series:
        raise UsageError(f"--by {by}: it is not recorded of these runs; possible: images, seconds")
    for group, entries in series.items():
        band(axes, entries, styles[group], labels[group])
    axes.set_xscale("log")
    axes.set_xlabel(UNITS[by])
    _round_ticks(axes, sorted(x for entries in series.values() for x, _ in entries))


def _round_ticks(axes: Axes, xs: Sequence[float]) -> None:
    """Plain numbers at a logarithmic axis, a few of them even within one decade."""
    from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

    reach = xs[-1] / xs[0] if xs[0] > 0 else 1.0
    locator: Locator = LogLocator(base=10, subs=(1.0, 2.0, 5.0) if reach < 30 else (1.0,))
    axes.xaxis.set_major_locator(MaxNLocator(3) if reach < 10 else locator)  # within a decade LogLocator crowds
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: round_number(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def round_number(x: float) -> str:
    """A count on an axis.

    >>> round_number(0.5), round_number(20_000), round_number(1_200_000), round_number(3e12)
    ('0.5', '20,000', '1.2M', '3e+12')
    """
    if 1e6 <= x < 1e9:
        return f"{x / 1e6:g}M"
    return f"{x:,.0f}" if 1 <= x < 1e6 else f"{x:g}"


def band(axes: Axes, points: Sequence[tuple[float, Estimate]], style: Style, label: str) -> None:
    """A line of means with a band from low to high."""
    xs, means = [x for x, _ in points], [e.mean for _, e in points]
    axes.plot(xs, means, color=style.color, marker=style.marker, ls=style.dash, label=short(label))
    if any(e.low is not None for _, e in points):
        lows = [e.mean if e.low is None else e.low for _, e in points]
        highs = [e.mean if e.high is None else e.high for _, e in points]
        axes.fill_between(xs, lows, highs, color=style.color, alpha=0.15, linewidth=0)


# ---------------------------------------------------------------- losses

DECADES = 100.0
"""A term whose means span more than this factor has a logarithmic axis."""


def losses(records: Sequence[RunRecord]) -> Drawing:
    """Loss terms against training images, a panel for each dataset and term, with a line for each group that has it.

    Raises `UsageError` where no run has a log.
    """
    from matplotlib.ticker import MaxNLocator

    entries = loss_curves(records)
    styles = group_styles([(curve.group, curve.model) for curve in entries])
    panels = list(dict.fromkeys((curve.dataset, curve.term) for curve in entries))
    several = len({dataset for dataset, _ in panels}) > 1
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    with styled():
        figure = blank(COLUMN if columns == 1 else PAGE, 1.9 * lines + 0.4)
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True).flatten()
        for axes, (dataset, term) in zip(grid, panels, strict=False):
            members = [curve for curve in entries if (curve.dataset, curve.term) == (dataset, term)]
            for curve in members:
                style = replace(styles[curve.group], marker="" if len(curve.points) > 1 else "o")
                band(axes, curve.points, style, curve.label)
            means = [point.mean for curve in members for _, point in curve.points]
            if min(means) > 0 and max(means) > DECADES * min(means):
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
            axes.set_title(f"{dataset}: {printable(term)}" if several else printable(term), loc="left")
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
            axes.xaxis.set_major_locator(MaxNLocator(4))
        for axes in grid[max(0, len(panels) - columns) : len(panels)]:  # the lowest of each column
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(UNITS["images"])
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        _legend(figure, entries, styles)
    seeds = f"{BARS} (bands)" if any(curve.seeds > 1 for curve in entries) else "one seed"
    return Drawing("losses", f"Losses and loss terms against training images: {seeds}", figure)


def _legend(figure: Figure, entries: Sequence[LossCurve], styles: Mapping[str, Style]) -> None:
    """One legend of all groups: no panel need have a line of each."""
    from matplotlib.lines import Line2D

    labels = {curve.group: curve.label for curve in entries}
    axes = figure.add_axes((0.0, 0.0, 0.0, 0.0), visible=False)
    for group, label in labels.items():
        axes.add_line(Line2D([], [], color=styles[group].color, ls=styles[group].dash, label=short(label)))
    share_legend(figure, axes)
    figure.delaxes(axes)


# ---------------------------------------------------------------- metric against latent size


def latent_size(rows: Sequence[Row], metric: str | None = None) -> Drawing:
    """The metric against the latent dimension, a panel for each dataset and protocol; controls are grey, dashed lines.

    Raises `UsageError` where no protocol covers two latent dimensions: what is not measured alike is not compared.
    """
    name = requested_metric(rows, metric)
    known = [row for row in contestants(rows) if row.metric == name and row.value is not None]
    panels: dict[tuple[str, str], dict[str, dict[int, list[Row]]]] = {}
    for row in known:
        series = re.sub(r"\bd=\d+(, )?", "", row.label).replace(" ()", "").replace(", )", ")")
        cell = panels.setdefault((row.dataset, row.protocol), {}).setdefault(series, {})
        cell.setdefault(row.latent_dim, []).append(row)
    shown = {key: entries for key, entries in panels.items() if len({d for cell in entries.values() for d in cell}) > 1}
    if not shown:
        sizes = sorted({row.latent_dim for row in rows if row.role == "model"})
        if len(sizes) > 1:
            raise UsageError(
                f"latent-size: {name} has another protocol at each latent size; name another one with --metric"
            )
        raise UsageError(
            f"latent-size: all runs have latent size {sizes[0] if sizes else '?'}: add --latent-dim 2,8,32"
        )
    styles = group_styles(
        [
            (series, row.model)
            for entries in shown.values()
            for series, cell in entries.items()
            for row in next(iter(cell.values()))
        ]
    )
    grey = scale(rows, name)
    gathered = gather(known)
    with styled():
        figure = blank(COLUMN, 2.3 * len(shown) + 0.5)
        axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for panel, ((dataset, protocol), entries) in zip(axes, shown.items(), strict=True):
            column = gathered[dataset].columns[name, protocol]
            for series, cell in entries.items():
                estimates = {d: column.estimate(members[0].group) for d, members in sorted(cell.items())}
                _errors(panel, estimates, styles[series], series)
            values = [row.value or 0.0 for cell in entries.values() for members in cell.values() for row in members]
            for label, value in grey.get((dataset, protocol), ()):
                if near(value, values):
                    panel.axhline(value, color=SOFT, ls="--", lw=0.8)
                    panel.annotate(short(label, 24), (1, value), xycoords=("axes fraction", "data"), color=SOFT,
                                   ha="right", va="bottom")  # fmt: skip
            sizes = sorted({d for cell in entries.values() for d in cell})
            panel.set_xscale("log", base=2)
            panel.set_xticks(sizes, [str(d) for d in sizes])
            panel.minorticks_off()
            panel.set_xlabel("latent dimension")
            first = next(row for row in known if (row.dataset, row.protocol) == (dataset, protocol))
            panel.set_ylabel(direction(first.head, first.higher_is_better))
            panel.set_title(f"{dataset}, protocol {protocol}", loc="left")
        share_legend(figure, axes[0])
    return Drawing("latent-size", f"{name} against the latent dimension: {BARS}", figure)


def _errors(axes: Axes, entries: Mapping[Any, Estimate], style: Style, label: str, shift: float = 0.0) -> None:
    """A line of means with error bars."""
    xs = [x + shift for x in entries]
    means = [e.mean for e in entries.values()]
    reach = [0.0 if e.half_width is None else e.half_width for e in entries.values()]
    axes.errorbar(
        xs, means, yerr=reach, color=style.color, marker=style.marker, ls=style.dash, capsize=2, elinewidth=0.8,
        label=short(label),
    )  # fmt: skip


# ---------------------------------------------------------------- the ladder


def fid_ladder(rows: Sequence[Row]) -> Drawing:
    """FID from real images to samples of the prior, rung by rung, a panel for each dataset; controls and copies are
    left out.
    """
    tables = {table.dataset: _rungs(table) for table in assemble(rows)}
    shown = {dataset: ladders for dataset, ladders in tables.items() if ladders}
    if not shown:
        raise UsageError(
            "ladder: no metric of these runs has the role ladder: genbench evaluate RUNS --metrics M"
            " (see `genbench list metrics`)"
        )
    styles = row_styles(rows)
    models = [row for row in rows if row.metric_role == ROLE]
    with styled():
        figure = blank(COLUMN, 2.4 * len(shown) + 0.6)
        axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for panel, (dataset, ladders) in zip(axes, shown.items(), strict=True):
            for k, ((group, label), rungs) in enumerate(ladders.items()):
                shift = 0.3 * ((k + 0.5) / len(ladders) - 0.5)
                _errors(panel, {RUNGS.index(rung): e for rung, e in rungs.items()}, styles[group], label, shift)
            panel.set_xticks(range(len(RUNGS)), ["real", "recon-\nstructions", "mixture", "Gaussian", "prior"])
            head = next((row.head for row in models if row.dataset == dataset), ROLE)
            panel.set_ylabel(
                re.sub(r" (real|reconstructions|mixture|gaussian|prior)", "", head) + " \N{DOWNWARDS ARROW}"
            )
            panel.set_xlabel("what is compared with the test images")
            protocol = next(
                (row.protocol for row in models if row.dataset == dataset and row.metric.endswith("prior")), ""
            )
            panel.set_title(f"{dataset}, protocol {protocol} (prior)", loc="left")
        share_legend(figure, axes[0])
    return Drawing("ladder", f"FID ladder: {BARS}", figure)


def _rungs(table: Table) -> dict[tuple[str, str], dict[str, Estimate]]:
    ladders: dict[tuple[str, str], dict[str, Estimate]] = {}
    for line in table.rows:
        for column, cell in zip(table.columns, line.cells, strict=True):
            rung = column.metric.partition(".")[2]
            if column.role == ROLE and rung in RUNGS and cell is not None and line.role == "model":
                ladders.setdefault((line.group, line.label), {}).setdefault(rung, cell.estimate)
    return {group: {rung: entries[rung] for rung in RUNGS if rung in entries} for group, entries in ladders.items()}


FROM_ROWS: Mapping[str, Callable[[Sequence[Row]], Drawing]] = {
    "ranks": ranks,
    "curves": curves,
    "latent-size": latent_size,
    "ladder": fid_ladder,
}
"""The kinds that rows alone allow, as a report draws them."""


def row_figures(rows: Sequence[Row]) -> tuple[list[Drawing], list[str]]:
    """Every possible figure, and a line with the reason for each other one."""
    drawings, problems = [], []
    for kind, draw in FROM_ROWS.items():
        try:
            drawings.append(draw(rows))
        except UsageError as error:
            text = one_line(error)
            problems.append(text if text.startswith(f"{kind}: ") else f"{kind}: {text}")
    return drawings, problems


# ---------------------------------------------------------------- the findings of an experiment


def findings(results: Sequence[Finding]) -> Drawing | None:
    """A panel for each metric over cases such as "d = 64, L = 50": the first number across, a line for each second one.

    None where the cases are not one or two numbers of the same names, or have one value alone across.
    """
    cases = {finding.case: case_numbers(finding.case) for finding in results}
    names = {tuple(name for name, _ in case) for case in cases.values()}
    across = {case[0][1] for case in cases.values() if case}
    if len(names) != 1 or len(across) < 2 or not 1 <= len(next(iter(names))) <= 2:
        return None
    metrics = tuple(dict.fromkeys(finding.metric for finding in results))
    estimates = estimate_findings(results)
    with styled():
        figure = blank(PAGE, 2.1 * -(-len(metrics) // 2) + 0.4)
        panels = list(figure.subplots(-(-len(metrics) // 2), min(2, len(metrics)), squeeze=False).flat)
        for metric, axes in zip(metrics, panels, strict=False):
            lines: dict[str, dict[float, Estimate]] = {}
            for (case, named), estimated in estimates.items():
                if named == metric:
                    (_, x), *second = cases[case]
                    label = ", ".join(f"{name} = {value:g}" for name, value in second) or metric
                    lines.setdefault(label, {})[x] = estimated
            for k, (label, values) in enumerate(lines.items()):
                style = Style(CLASSES[k % len(CLASSES)], MARKERS[k % len(MARKERS)], DASHES[k % len(DASHES)])
                band(axes, sorted(values.items()), style, label)
            if min(across) > 0:
                axes.set_xscale("log", base=2)
            axes.set_xticks(sorted(across), [f"{x:g}" for x in sorted(across)])
            axes.minorticks_off()
            if all(finding.value > 0 for finding in results if finding.metric == metric):
                axes.set_yscale("log")
            axes.set_xlabel(next(iter(names))[0])
            axes.set_ylabel(short(metric))
        for axes in panels[len(metrics) :]:
            axes.set_axis_off()
        share_legend(figure, figure.axes[0])
    return Drawing("findings", f"{', '.join(metrics)}: {BARS} (bands)", figure)


def case_numbers(case: str) -> tuple[tuple[str, float], ...]:
    """The numbers of a case by their names; empty where the text is anything else.

    >>> case_numbers("d = 64, L = 50")
    (('d', 64.0), ('L', 50.0))
    """
    parts = [re.fullmatch(r"\s*(\w[\w ]*?)\s*=\s*(\d+(?:\.\d+)?(?:e[-+]?\d+)?)\s*", part) for part in case.split(",")]
    return tuple((part[1], float(part[2])) for part in parts if part is not None) if all(parts) else ()
