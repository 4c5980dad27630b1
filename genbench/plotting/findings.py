"""The figure of an experiment: each of its metrics against the first number of its cases, a line for each other one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from genbench.plotting.curves import band
from genbench.plotting.ranks import BARS
from genbench.plotting.style import DASHES, MARKERS, PAGE, Drawing, Style, blank, share_legend, short, styled
from genbench.stats.intervals import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from genbench.api import Finding

Case = tuple[tuple[str, float], ...]
"""What a case says, by name."""


def findings(found: Sequence[Finding]) -> Drawing | None:
    """A panel for each metric over cases such as "d = 64, L = 50": the first number across, a line for each second one.

    None where the cases say no numbers, not the same ones, one value alone across, or more than two: there is nothing
    to draw a line through, and the table has it all.
    """
    cases = {finding.case: read(finding.case) for finding in found}
    names = {tuple(name for name, _ in case) for case in cases.values()}
    across = sorted({case[0][1] for case in cases.values() if case})
    if len(names) != 1 or len(across) < 2 or not 1 <= len(next(iter(names))) <= 2:
        return None
    metrics = tuple(dict.fromkeys(finding.metric for finding in found))
    with styled():
        columns = min(2, len(metrics))
        figure = blank(PAGE, 2.1 * -(-len(metrics) // columns) + 0.4)
        panels = figure.subplots(-(-len(metrics) // columns), columns, squeeze=False).flat
        for metric, axes in zip(metrics, panels, strict=False):  # metrics first: zip drops what it drew in vain
            lines: dict[str, dict[float, list[float]]] = {}
            for finding in found:
                if finding.metric == metric:
                    (_, x), *rest = cases[finding.case]
                    label = ", ".join(f"{name} = {value:g}" for name, value in rest) or metric
                    lines.setdefault(label, {}).setdefault(x, []).append(finding.value)
            _panel(axes, lines, next(iter(names))[0], metric)
        for axes in list(panels):
            axes.set_axis_off()  # a last panel that no metric fills
        share_legend(figure, figure.axes[0])
    return Drawing("findings", f"{', '.join(metrics)}: {BARS} (bands)", figure)


def read(case: str) -> Case:
    """The numbers of a case by their names; empty where it says anything else.

    >>> read("d = 64, L = 50")
    (('d', 64.0), ('L', 50.0))
    """
    parts = [re.fullmatch(r"\s*(\w[\w ]*?)\s*=\s*([-+]?\d[\d.]*(?:e[-+]?\d+)?)\s*", part) for part in case.split(",")]
    try:
        return tuple((part[1], float(part[2])) for part in parts if part is not None) if all(parts) else ()
    except ValueError:
        return ()


def _panel(axes: Axes, lines: dict[str, dict[float, list[float]]], across: str, metric: str) -> None:
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    shades = mpl.colormaps["viridis"]
    everything = []
    for place, (label, its) in enumerate(lines.items()):
        points: list[tuple[float, Estimate]] = [(x, estimate(values)) for x, values in sorted(its.items())]
        shade = to_hex(shades(0.85 * place / max(1, len(lines) - 1)))
        band(axes, points, Style(shade, MARKERS[place % len(MARKERS)], DASHES[place % len(DASHES)]), label)
        everything += [(x, point.mean) for x, point in points]
    _stretch(axes, "x", [x for x, _ in everything])
    _stretch(axes, "y", [y for _, y in everything])
    axes.set_xlabel(across)
    axes.set_ylabel(short(metric))


def _stretch(axes: Axes, which: Literal["x", "y"], values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers where positive values span more than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = min(values), max(values)
    if low <= 0 or high / low <= 10:
        return
    powers = all(math.log2(value).is_integer() for value in values)
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(base=4 if powers else 10))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
