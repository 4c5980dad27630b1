"""Figures: colors, markers, text sizes, and their files, which have the same bytes at every call.

Matplotlib is imported when something is drawn, never before, and without pyplot: no figure lives beyond its caller.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.errors import UsageError
from genbench.utils.io import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.5, 7.0
"""Widths in inches: one column of a two-column paper, and both."""

TEXT = 8.0
"""Points of all text, at the widths above: what journals ask for at least is 7."""

RESOLUTION = 220
"""Pixels an inch of a PNG."""

FORMATS = (".pdf", ".svg", ".png")

PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"),
    *("#332288", "#882255", "#117733", "#999933", "#AA4499", "#44AA99", "#661100", "#6699CC"),
)
"""Models' colors: Okabe and Ito's (2008), which all kinds of color vision distinguish, then P. Tol's muted scheme."""

MARKERS = "osD^vPX*<>hp"
DASHES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (1, 3)))
FACE, SOFT, HAIR = "white", "#555555", "#dddddd"


@dataclass(frozen=True)
class Style:
    """A group's line: the color of its model, a marker and a dash."""

    color: str
    marker: str
    dash: object


@dataclass(frozen=True)
class Drawing:
    """A figure with the stem of its file's name and its caption: what is shown and how it was measured."""

    name: str
    caption: str
    figure: Figure

    def save(self, path: str | Path) -> None:
        """Write the figure as .pdf, .svg or .png."""
        save(self.figure, checked_target(Path(path)))

    def _repr_png_(self) -> bytes:
        return encoded(self.figure, "png")


def group_styles(groups: Sequence[tuple[str, str]]) -> dict[str, Style]:
    """The style of each (group, model).

    Models take colors in the order in which they first appear. Groups of one model share its color, and differ in
    marker and dash.
    """
    models = list(dict.fromkeys(model for _, model in groups))
    styles: dict[str, Style] = {}
    counts: Counter[str] = Counter()
    for group, model in groups:
        if group in styles:
            continue
        index, repeat = models.index(model), counts[model]
        counts[model] += 1
        styles[group] = Style(
            PALETTE[index % len(PALETTE)],
            MARKERS[(index + 5 * repeat) % len(MARKERS)],
            DASHES[repeat % len(DASHES)],
        )
    return styles


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's settings while a figure is drawn or written; they are restored afterwards."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "font.size": TEXT,
                "axes.titlesize": TEXT,
                "axes.labelsize": TEXT,
                "xtick.labelsize": TEXT - 0.5,
                "ytick.labelsize": TEXT - 0.5,
                "legend.fontsize": TEXT - 0.5,
                "legend.frameon": False,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.linewidth": 0.6,
                "axes.grid": False,
                "lines.linewidth": 1.2,
                "lines.markersize": 4.0,
                "text.parse_math": False,  # a name is text
                "svg.hashsalt": "genbench",
                "pdf.fonttype": 42,
            }
        )
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor=FACE)


def printable(text: str) -> str:
    """Text for a figure: names come from anyone, and no font has a control character."""
    return "".join(character if character.isprintable() else " " for character in text)


def short(label: str, limit: int = 40) -> str:
    """A label that fits, without control characters."""
    label = printable(label)
    return label if len(label) <= limit else f"{label[: limit - 1]}\N{HORIZONTAL ELLIPSIS}"


def broken(label: str, width: int = 16) -> str:
    """A label over several lines of about `width` characters, for heads and margins."""
    import textwrap

    return "\n".join(textwrap.wrap(short(label, 4 * width), width)) or label


def share_legend(figure: Figure, axes: Axes) -> None:
    """One legend above all panels, from the handles of one of them; as many columns as the figure is wide."""
    handles, names = axes.get_legend_handles_labels()
    if not handles:
        return
    longest = max(len(name) for name in names)
    fits = max(1, int(figure.get_figwidth() * 72 / (TEXT * (0.56 * longest + 4.5))))
    figure.legend(handles, names, loc="outside upper center", ncols=min(fits, len(names)), handlelength=2.8)


def checked_target(target: Path) -> Path:
    """The file to write; `UsageError` where its ending names no format."""
    if target.suffix.lower() not in FORMATS:
        raise UsageError(f"--out {target}: name a file that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    return target


def save(figure: Figure, target: Path) -> None:
    """Write a figure atomically in the format that the file's name ends in; the same figure gives the same bytes."""
    data = encoded(figure, target.suffix.lower().lstrip("."))
    write_atomically(target, lambda temporary: _write(temporary, data))


def encoded(figure: Figure, form: str) -> bytes:
    """The bytes of a figure as "pdf", "svg" or "png", without dates."""
    absent: dict[str, dict[str, None]] = {
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "svg": {"Date": None},
        "png": {"Software": None},
    }
    buffer = io.BytesIO()
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks shows boxes
        figure.savefig(buffer, format=form, dpi=RESOLUTION, metadata=absent[form], facecolor=FACE)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
