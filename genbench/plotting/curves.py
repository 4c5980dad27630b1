"""Figures from tidy rows: metric against compute, metric against latent size, the FID ladder, ranks. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genbench.analysis.curves import By, Sheet, points, resolve, sheets
from genbench.analysis.ladder import ROLE, RUNGS
from genbench.analysis.table import Table, assemble
from genbench.errors import UsageError, one_line
from genbench.plotting.ranks import BARS, asked_metric, contestants, direction, near, ranks, scale
from genbench.plotting.style import COLUMN, PAGE, SOFT, Drawing, Style, blank, looks, share_legend, short, styled
from genbench.stats.intervals import Estimate, estimate
from genbench.storage.results import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    kept = next((row.metric for row in snapshots if row.metric), "")
    name = resolve(snapshots, metric) if metric is not None else kept
    found = [sheet for sheet in sheets(snapshots, name) if sheet.split == "validation"]
    look = _looks(snapshots)
    with styled():
        figure = blank(COLUMN if len(by) == 1 else PAGE, 2.3 * len(found) + 0.5)
        panels = figure.subplots(len(found), len(by), squeeze=False, sharey="row")
        for line, sheet in zip(panels, found, strict=True):
            for axes, unit in zip(line, by, strict=True):
                _curves(axes, sheet, unit, look)
            line[0].set_ylabel(direction(sheet.head, sheet.higher_is_better))
            line[0].set_title(f"{sheet.dataset}, validation images, protocol {sheet.protocol}", loc="left")
        share_legend(figure, panels[0, 0])
    return Drawing("curves", f"{name} against training cost: {BARS} (bands)", figure)


def _curves(axes: Axes, sheet: Sheet, by: By, look: Mapping[str, Style]) -> None:
    series: dict[str, list[tuple[float, Estimate]]] = {}
    labels = {}
    for point in points(sheet, by):
        if point.compute is not None:
            series.setdefault(point.group, []).append((point.compute, point.estimate))
            labels[point.group] = point.label
    if not series:
        raise UsageError(f"--by {by}: it is not recorded of these runs; possible: images, seconds")
    for group, its in series.items():
        band(axes, its, look[group], labels[group])
    axes.set_xscale("log")
    axes.set_xlabel(UNITS[by])
    _round_ticks(axes, sorted(x for its in series.values() for x, _ in its))


def _round_ticks(axes: Axes, xs: Sequence[float]) -> None:
    """Plain numbers at a logarithmic axis, a few of them even within one decade."""
    from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

    reach = xs[-1] / xs[0] if xs[0] > 0 else 1.0
    locator: Locator = LogLocator(base=10, subs=(1.0, 2.0, 5.0) if reach < 30 else (1.0,))
    axes.xaxis.set_major_locator(MaxNLocator(3) if reach < 10 else locator)  # within a decade LogLocator crowds
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if 1 <= x < 1e5 else f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def band(axes: Axes, its: Sequence[tuple[float, Estimate]], look: Style, label: str) -> None:
    """A line of means with a band from low to high."""
    xs, means = [x for x, _ in its], [e.mean for _, e in its]
    axes.plot(xs, means, color=look.color, marker=look.marker, ls=look.dash, label=short(label))
    if all(e.low is not None for _, e in its):
        lows, highs = [e.low or 0.0 for _, e in its], [e.high or 0.0 for _, e in its]
        axes.fill_between(xs, lows, highs, color=look.color, alpha=0.15, linewidth=0)


# ---------------------------------------------------------------- metric against latent size


def latent_size(rows: Sequence[Row], metric: str | None = None) -> Drawing:
    """The metric against the latent dimension, a panel for each dataset and protocol; controls are grey, dashed lines.

    Raises `UsageError` where no protocol covers two latent dimensions: what is not measured alike is not compared.
    """
    name = asked_metric(rows, metric)
    known = [row for row in contestants(rows) if row.metric == name and row.value is not None]
    panels: dict[tuple[str, str], dict[str, dict[int, list[Row]]]] = {}
    for row in known:
        series = re.sub(r"\bd=\d+(, )?", "", row.label).replace(" ()", "").replace(", )", ")")
        cell = panels.setdefault((row.dataset, row.protocol), {}).setdefault(series, {})
        cell.setdefault(row.latent_dim, []).append(row)
    shown = {key: its for key, its in panels.items() if len({d for cell in its.values() for d in cell}) > 1}
    if not shown:
        sizes = sorted({row.latent_dim for row in rows if row.role == "model"})
        if len(sizes) > 1:
            raise UsageError(f"latent-size: {name} was measured in another way at each latent size; try --metric fid")
        raise UsageError(
            f"latent-size: all runs have latent size {sizes[0] if sizes else '?'}: add --latent-dim 2,8,32"
        )
    look = looks(
        [
            (series, row.model)
            for its in shown.values()
            for series, cell in its.items()
            for row in next(iter(cell.values()))
        ]
    )
    grey = scale(rows, name)
    with styled():
        figure = blank(COLUMN, 2.3 * len(shown) + 0.5)
        axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for panel, ((dataset, protocol), its) in zip(axes, shown.items(), strict=True):
            for series, cell in its.items():
                _errors(panel, {d: estimate(_by_seed(own)) for d, own in sorted(cell.items())}, look[series], series)
            values = [row.value or 0.0 for cell in its.values() for own in cell.values() for row in own]
            for label, value in grey.get((dataset, protocol), ()):
                if near(value, values):
                    panel.axhline(value, color=SOFT, ls="--", lw=0.8)
                    panel.annotate(short(label, 24), (1, value), xycoords=("axes fraction", "data"), color=SOFT,
                                   ha="right", va="bottom")  # fmt: skip
            sizes = sorted({d for cell in its.values() for d in cell})
            panel.set_xscale("log", base=2)
            panel.set_xticks(sizes, [str(d) for d in sizes])
            panel.minorticks_off()
            panel.set_xlabel("latent dimension")
            first = next(row for row in known if (row.dataset, row.protocol) == (dataset, protocol))
            panel.set_ylabel(direction(first.head, first.higher_is_better))
            panel.set_title(f"{dataset}, protocol {protocol}", loc="left")
        share_legend(figure, axes[0])
    return Drawing("latent-size", f"{name} against the latent dimension: {BARS}", figure)


def _by_seed(rows: Sequence[Row]) -> list[float]:
    return [value for value in {row.seed: row.value for row in rows}.values() if value is not None]


def _errors(axes: Axes, its: Mapping[Any, Estimate], look: Style, label: str, shift: float = 0.0) -> None:
    """A line of means with error bars."""
    xs = [x + shift for x in its]
    means = [e.mean for e in its.values()]
    reach = [0.0 if e.half_width is None else e.half_width for e in its.values()]
    axes.errorbar(
        xs, means, yerr=reach, color=look.color, marker=look.marker, ls=look.dash, capsize=2, elinewidth=0.8,
        label=short(label),
    )  # fmt: skip


# ---------------------------------------------------------------- the ladder


def fid_ladder(rows: Sequence[Row]) -> Drawing:
    """FID from real images to samples of the prior, rung by rung, a panel for each dataset; controls and copies have no
    line.
    """
    tables = {table.dataset: _rungs(table) for table in assemble(rows)}
    shown = {dataset: found for dataset, found in tables.items() if found}
    if not shown:
        raise UsageError("ladder: no metric of these runs is a ladder: measure one (genbench list metrics)")
    look = _looks(rows)
    models = [row for row in rows if row.metric_role == ROLE]
    with styled():
        figure = blank(COLUMN, 2.4 * len(shown) + 0.6)
        axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for panel, (dataset, found) in zip(axes, shown.items(), strict=True):
            for k, ((group, label), rungs) in enumerate(found.items()):
                shift = 0.3 * ((k + 0.5) / len(found) - 0.5)
                _errors(panel, {RUNGS.index(rung): e for rung, e in rungs.items()}, look[group], label, shift)
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
    found: dict[tuple[str, str], dict[str, Estimate]] = {}
    for line in table.lines:
        for column, cell in zip(table.columns, line.cells, strict=True):
            rung = column.metric.partition(".")[2]
            if column.role == ROLE and rung in RUNGS and cell is not None and line.role == "model":
                found.setdefault((line.group, line.label), {}).setdefault(rung, cell.estimate)
    return {group: {rung: its[rung] for rung in RUNGS if rung in its} for group, its in found.items()}


def _looks(rows: Sequence[Row]) -> dict[str, Style]:
    return looks([(row.group, row.model) for row in rows if row.role == "model"])


FROM_ROWS: Mapping[str, Callable[[Sequence[Row]], Drawing]] = {
    "ranks": ranks,
    "curves": curves,
    "latent-size": latent_size,
    "ladder": fid_ladder,
}
"""The kinds that rows alone allow, as a report draws them."""


def possible(rows: Sequence[Row]) -> tuple[list[Drawing], list[str]]:
    """Every figure that the rows allow, and why each of the others is not drawn, in a line."""
    found, told = [], []
    for kind, draw in FROM_ROWS.items():
        try:
            found.append(draw(rows))
        except UsageError as error:
            text = one_line(error)
            told.append(text if text.startswith(f"{kind}: ") else f"{kind}: {text}")
    return found, told
