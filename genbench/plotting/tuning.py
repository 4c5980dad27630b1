"""Figures of searches: the expected best validation value against trials, and values against options. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genbench.analysis.tuning import SearchValues, budget_sentences, independent, panels
from genbench.errors import UsageError
from genbench.plotting.ranks import direction
from genbench.plotting.style import (
    COLUMN,
    HAIR,
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
from genbench.stats.budget_curves import expected_best
from genbench.stats.sensitivity import Sensitivity, is_numeric, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST_OPTIONS = 4
"""Options that a row of the figure of sensitivity shows: the most sensitive."""


def budget_figure(searches: Sequence[SearchValues]) -> Drawing:
    """The expected best validation value against the number of random trials, one line a model with its band.

    The caption says where two models part. Raises `UsageError` where no search has independent trials.
    """
    grouped = panels(_usable(searches, "tuning"))
    styles = group_styles([(search.model, search.model) for search in searches])
    words: list[str] = []
    with styled():
        figure = blank(COLUMN, 2.4 * len(grouped) + 0.4)
        grid = figure.subplots(len(grouped), 1, squeeze=False)[:, 0]
        for axes, members in zip(grid, grouped, strict=True):
            for search in members:
                _curve(axes, search, styles[search.model])
            first = members[0]
            axes.set_ylabel(direction(f"validation {printable(first.metric)}", first.higher_is_better))
            axes.set_title(f"{printable(first.study)}\nprotocol {first.protocol}", loc="left")
            axes.set_xlabel("random trials")
            axes.xaxis.get_major_locator().set_params(integer=True)
            words += budget_sentences(members)
        share_legend(figure, grid[0])
    caption = (
        "Expected best validation value of so many random trials, 95 % intervals (bands) up to half of them; crosses:"
        " the default"
    )
    return Drawing("tuning", "; ".join([caption, *words]), figure)


def _usable(searches: Sequence[SearchValues], kind: str) -> list[SearchValues]:
    """The searches whose trials are independent, and not all failed."""
    if not searches:
        raise UsageError(f"{kind}: these runs have no search; make one with genbench tune")
    drawn = independent(searches)
    if not drawn:
        raise UsageError(
            f"{kind}: it needs independent trials that have values, those of genbench tune --algorithm random"
        )
    return drawn


def _curve(axes: Axes, search: SearchValues, style: Style) -> None:
    """A model's line: whole where it has a band, thin beyond; its default as a cross before the first trial."""
    curve = expected_best(search.values, higher_is_better=search.higher_is_better)
    counts, means = list(range(1, len(curve) + 1)), [point.mean for point in curve]
    reach = max(1, len(curve) // 2)
    axes.plot(counts[:reach], means[:reach], color=style.color, ls=style.dash, label=short(search.model))
    axes.plot(counts[reach - 1 :], means[reach - 1 :], color=style.color, ls=style.dash, lw=0.6, alpha=0.7)
    banded = [
        (k, p.low, p.high) for k, p in zip(counts, curve, strict=True) if p.low is not None and p.high is not None
    ]
    if banded:
        ks, lows, highs = zip(*banded, strict=True)
        axes.fill_between(ks, lows, highs, color=style.color, alpha=0.15, linewidth=0)
    if search.default is not None:
        axes.plot([0], [search.default], color=style.color, marker="x", ls="none", clip_on=False)


# ---------------------------------------------------------------- values against options


def sensitivity_figure(searches: Sequence[SearchValues]) -> Drawing:
    """Validation values against each option, a row for each model, the most sensitive options first.

    Raises `UsageError` where no search has independent trials and an option that varies.
    """
    rows = [
        (search, lines)
        for search in itertools.chain.from_iterable(panels(_usable(searches, "sensitivity")))
        if (lines := search.sensitivities)
    ]
    if not rows:
        raise UsageError("sensitivity: no search has six trials and an option that varies")
    styles = group_styles([(search.model, search.model) for search in searches])
    columns = min(MOST_OPTIONS, max(len(lines) for _, lines in rows))
    several = len({(search.study, search.metric, search.protocol) for search, _ in rows}) > 1
    with styled():
        figure = blank(COLUMN if columns < 2 else PAGE, 1.7 * len(rows) + 0.3)
        grid = figure.subplots(len(rows), columns, squeeze=False, sharey="row")
        for line, (search, tested) in zip(grid, rows, strict=True):
            for axes, sensitivity in itertools.zip_longest(line, tested[:columns]):
                if sensitivity is None:
                    axes.set_axis_off()
                else:
                    _option(axes, search, sensitivity, styles[search.model])
            where = f"{short(search.study, 30)}\n" if several else ""
            line[0].set_ylabel(f"{short(search.model)}\n{where}{direction(search.metric, search.higher_is_better)}")
    return Drawing(
        "sensitivity",
        "Validation value of each trial against its options, failed ones left out; lines: medians of thirds"
        " (of a choice: of each value); p-values of no dependence, corrected over the options of a model",
        figure,
    )


def _option(axes: Axes, search: SearchValues, sensitivity: Sensitivity, style: Style) -> None:
    """The trials' values against one option, and the median of each group."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    name = sensitivity.option
    pairs = [(trial.get(name), value) for trial, value in zip(search.options, search.values, strict=True)]
    column = [option for option, _ in pairs]
    labels = [label for label, _, _ in sensitivity.groups]
    if is_numeric(column):
        numbers = [float(str(option)) for option in column]
        xs = [(x, value) for x, (_, value) in zip(numbers, pairs, strict=True) if math.isfinite(value)]
        if name in search.logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=4))
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
            axes.minorticks_off()
        else:
            axes.xaxis.set_major_locator(MaxNLocator(3))
        ordered = sorted(numbers)
        place = 0
        for _, count, median in sensitivity.groups:
            axes.plot([ordered[place], ordered[place + count - 1]], [median] * 2, color=SOFT, lw=1.5)
            place += count
    else:
        places = {text: k for k, text in enumerate(labels)}
        xs = [(places[text_of(option)], value) for option, value in pairs if math.isfinite(value)]
        axes.set_xticks(range(len(labels)), [short(text, 12) for text in labels])
        axes.set_xlim(-0.5, len(labels) - 0.5)
        for k, (_, _, median) in enumerate(sensitivity.groups):
            axes.plot([k - 0.3, k + 0.3], [median] * 2, color=SOFT, lw=1.5)
    axes.plot(
        [x for x, _ in xs],
        [value for _, value in xs],
        color=style.color,
        marker=style.marker,
        ls="none",
        ms=2.5,
        alpha=0.7,
    )
    axes.grid(axis="y", color=HAIR, lw=0.5)
    p = sensitivity.p
    axes.set_xlabel(printable(name))
    axes.set_title(f"p {'< 0.001' if p < 0.001 else f'= {p:.2g}'}", loc="left")
