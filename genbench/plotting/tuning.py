"""Figures of searches: the expected best validation value against trials, and values against options. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
from genbench.stats.budget_curves import FEWEST, compare_budgets, expected_best
from genbench.stats.intervals import LEVEL
from genbench.stats.sensitivity import Scalar, Sensitivity, is_numeric, sensitivities, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from genbench.storage.schema import SearchRecord

MOST_OPTIONS = 4
"""Options that a row of the figure of sensitivity shows: the most sensitive."""


@dataclass(frozen=True)
class SearchValues:
    """A search as figures need it: the trials that were drawn from its space, in order, and the default beside them.

    `values` are validation values, NaN where a trial failed; `options` those that were searched. `independent` says
    that trials are independent draws, as those of a random search are. Searches of one `study` (dataset, network,
    prior, latent dimension, images), `metric` and `protocol` are compared. `logarithmic` names the options that were
    drawn on a logarithmic scale.
    """

    model: str
    study: str
    metric: str
    protocol: str
    higher_is_better: bool
    options: Sequence[Mapping[str, Scalar]]
    values: Sequence[float]
    default: float | None = None
    independent: bool = True
    logarithmic: frozenset[str] = field(default_factory=frozenset)


def search_values(searches: Iterable[SearchRecord]) -> list[SearchValues]:
    """Searches as figures need them; the first trial of a record is the default, which no law drew."""
    return [
        SearchValues(
            model=record.model,
            study=(
                f"{record.run.dataset.name}, {record.run.network.name}, {record.run.prior.name} prior,"
                f" d = {record.run.latent_dim}, {record.run.images:,} images"
            ),
            metric=record.metric,
            protocol=record.protocol,
            higher_is_better=record.higher_is_better,
            options=[trial.options for trial in record.trials[1:]],
            values=[math.nan if trial.value is None else trial.value for trial in record.trials[1:]],
            default=record.trials[0].value,
            independent=record.algorithm == "random",
            logarithmic=frozenset(name for name, search in record.space.items() if search.scale == "log"),
        )
        for record in searches
    ]


def budget_figure(searches: Sequence[SearchValues]) -> Drawing:
    """The expected best validation value against the number of random trials, one line a model with its band.

    The caption says where two models part. Raises `UsageError` where no search has independent trials.
    """
    panels = _panels(_usable(searches, "tuning"))
    styles = group_styles([(search.model, search.model) for search in searches])
    words: list[str] = []
    with styled():
        figure = blank(COLUMN, 2.4 * len(panels) + 0.4)
        grid = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axes, members in zip(grid, panels, strict=True):
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


def search_lines(searches: Sequence[SearchValues]) -> list[str]:
    """What the searches show, in words: where each two models part, and which options matter to each model.

    Nothing is said of searches whose trials are not independent, or all failed.
    """
    lines: list[str] = []
    for members in _panels(_independent(searches)):
        lines += budget_sentences(members)
        for search in members:
            tested = sensitivities(search.options, search.values, higher_is_better=search.higher_is_better)
            if tested:
                lines.append(f"{search.model}: {'; '.join(map(sensitivity_words, tested))}")
    return lines


def budget_sentences(searches: Sequence[SearchValues]) -> list[str]:
    """Where each two models part, in words; searches of one metric and protocol."""
    if len(searches) < 2:
        return []
    models = {search.model: search.values for search in searches}
    pairs = compare_budgets(models, higher_is_better=searches[0].higher_is_better)
    if not any(pair.trials for pair in pairs):
        return [f"fewer than {FEWEST} random trials: models are not compared by the number of trials"]
    if len(pairs) > 1 and not any(any(pair.ahead) for pair in pairs):
        reach = max(pair.trials[-1] for pair in pairs if pair.trials)
        return [f"no two models are distinguishable at any number of trials up to {reach}"]
    return [pair.sentence for pair in pairs]


def sensitivity_words(line: Sensitivity) -> str:
    """The sensitivity to one option in words."""
    if line.p > 1 - LEVEL:
        return f"no effect of {line.option} shown (p = {line.p:.2g})"
    p = "p < 0.001" if line.p < 0.001 else f"p = {line.p:.2g}"
    rho = line.rank_correlation
    interval = "" if rho is None or rho.low is None else f" [{rho.low:.2f}, {rho.high:.2f}]"
    correlation = "" if rho is None else f", rank correlation {rho.mean:.2f}{interval}"
    return (
        f"{line.option} matters, best at {line.best}: medians differ by {line.spread:.3g}"
        f" (by chance up to {line.by_chance:.3g}; {p}{correlation})"
    )


def _independent(searches: Sequence[SearchValues]) -> list[SearchValues]:
    return [s for s in searches if s.independent and any(math.isfinite(value) for value in s.values)]


def _usable(searches: Sequence[SearchValues], kind: str) -> list[SearchValues]:
    """The searches whose trials are independent, and not all failed."""
    if not searches:
        raise UsageError(f"{kind}: these runs have no search; make one with genbench tune")
    drawn = _independent(searches)
    if not drawn:
        raise UsageError(
            f"{kind}: it needs independent trials that have values, those of genbench tune --algorithm random"
        )
    return drawn


def _panels(searches: Sequence[SearchValues]) -> list[list[SearchValues]]:
    """Searches that are compared, panel by panel; of one model the last."""
    panels: dict[tuple[str, str, str], dict[str, SearchValues]] = {}
    for search in searches:
        panels.setdefault((search.study, search.metric, search.protocol), {})[search.model] = search
    return [list(panel.values()) for panel in panels.values()]


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
        for search in itertools.chain.from_iterable(_panels(_usable(searches, "sensitivity")))
        if (lines := sensitivities(search.options, search.values, higher_is_better=search.higher_is_better))
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
