"""Figures from arrays: rows of images side by side, the decoded plane, codes over the prior. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench.plotting.style import PAGE, Drawing, blank, broken, printable, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Pixels = NDArray[np.uint8]
"""Images, `(n, h, w, c)` in 0..255."""

CLASSES = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#882255", "#999933", "#332288", "#661100")
MARGIN, HEAD, GAP = 1.15, 0.26, 0.05
"""Inches beside rows of images for their labels, above a block for its title, and between things."""

STORED, STORED_COLUMNS, STORED_PADDING = 64, 8, 2
"""The layout of a run's samples.png: images at most, columns, and pixels between images."""


@dataclass(frozen=True)
class ImageRow:
    """A row of images under the group's label; rows of one `block` share their columns' draws."""

    label: str
    images: Pixels
    block: str = ""


@dataclass(frozen=True)
class Codes:
    """Codes `(n, d)` of test images with classes `(n,)` (-1: none), prior draws `(m, d)`, and the direction `(d,)` of
    the largest distance between both, which is `distance` (W2).
    """

    label: str
    codes: NDArray[np.float64]
    classes: NDArray[np.int64]
    draws: NDArray[np.float64]
    direction: NDArray[np.float64]
    distance: float


def prior_key(prior: Mapping[str, Any]) -> str:
    """A key of a prior's draws for a seed and latent size: name, options and source, of a run's record."""
    return json.dumps([prior["name"], prior["options"], prior["fingerprint"]], sort_keys=True)


def prior_titles(priors: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The title of each prior by `prior_key`: the name, with options and source where several share the name."""
    by_key = {prior_key(prior): prior for prior in priors}
    titles = {}
    for key, prior in by_key.items():
        rivals = [rival for rival in by_key.values() if rival["name"] == prior["name"]]
        parts = [f"{name.replace('_', '-')}={value}" for name, value in prior["options"].items()]
        if len({rival["fingerprint"] for rival in rivals}) > 1:
            parts.append(f"source {prior['fingerprint'][:6]}")
        titles[key] = prior["name"] if len(rivals) == 1 else f"{prior['name']} ({', '.join(parts)})"
    return titles


def strips(name: str, caption: str, rows: Sequence[ImageRow]) -> Drawing:
    """Rows of images, one for each group, blocks under their own titles."""
    wide = max(joined(strip.images, len(strip.images)).shape[1] for strip in rows)
    unit = (PAGE - MARGIN - GAP) / wide  # inches a pixel
    heights = [unit * joined(strip.images, len(strip.images)).shape[0] for strip in rows]
    above = [HEAD if strip.block != (rows[k - 1].block if k else "") else GAP for k, strip in enumerate(rows)]
    total = sum(heights) + sum(above) + GAP
    with styled():
        figure = blank(PAGE, total)
        figure.set_layout_engine("none")  # exact places: images of one size in all rows, labels in their margin
        y = total
        for strip, height, space in zip(rows, heights, above, strict=True):
            y -= space + height
            picture = joined(strip.images, len(strip.images))
            width = unit * picture.shape[1]
            axes = figure.add_axes((MARGIN / PAGE, y / total, width / PAGE, height / total))
            _show(axes, picture)
            figure.text(
                (MARGIN - GAP) / PAGE, (y + height / 2) / total, broken(strip.label, 17), ha="right", va="center"
            )
            if space == HEAD:
                figure.text(MARGIN / PAGE, (y + height + GAP) / total, printable(strip.block), va="bottom")
    return Drawing(name, caption, figure)


def plane(caption: str, rows: Sequence[tuple[str, Pixels, tuple[float, float]]]) -> Drawing:
    """Decoded grids of a plane: label, the images row by row from the top, and the range of both coordinates."""
    with styled():
        across = min(2, len(rows))
        down = -(-len(rows) // across)
        figure = blank(3.5 * across, 3.6 * down)
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes, (label, images, (low, high)) in zip(panels, rows, strict=False):
            side = round(len(images) ** 0.5)
            half = (high - low) / (side - 1) / 2  # each image is centred on its code
            extent = (low - half, high + half, low - half, high + half)
            axes.imshow(joined(images, side, padding=2), extent=extent, cmap="gray", vmin=0, vmax=255)
            axes.set_title(broken(label, 44), loc="left")
            axes.set_xlabel("first latent coordinate")
            axes.set_ylabel("second latent coordinate")
        for axes in panels[len(rows) :]:
            axes.set_axis_off()
    return Drawing("grid", caption, figure)


def codes(caption: str, rows: Sequence[Codes]) -> Drawing:
    """Codes over draws of the prior, and the marginals of both along the direction of their largest distance."""
    with styled():
        figure = blank(PAGE, 3.1 * len(rows))
        panels = figure.subplots(len(rows), 2, squeeze=False)
        for (left, right), panel in zip(panels, rows, strict=True):
            _scatter(left, panel)
            _marginals(right, panel)
    return Drawing("codes", caption, figure)


def leading(codes: NDArray[np.float64], draws: NDArray[np.float64]) -> tuple[Any, Any]:
    """Codes and draws in the plane: as they are in 2-D, else along the two leading principal axes of the codes."""
    if codes.shape[1] <= 2:
        return codes, draws
    _, _, axes = np.linalg.svd(codes - codes.mean(0), full_matrices=False)
    return codes @ axes[:2].T, draws @ axes[:2].T


def _scatter(axes: Axes, panel: Codes) -> None:
    import matplotlib.patheffects as effects

    points, draws = leading(panel.codes, panel.draws)
    axes.scatter(draws[:, 0], draws[:, 1], s=2, color="#bbbbbb", linewidths=0, rasterized=True)
    for value in np.unique(panel.classes):
        members = points[panel.classes == value]
        hue = CLASSES[int(value) % len(CLASSES)] if value >= 0 else "#0072B2"
        axes.scatter(members[:, 0], members[:, 1], s=3, color=hue, linewidths=0, alpha=0.7, rasterized=True)
    for value in np.unique(panel.classes[panel.classes >= 0]):  # after all points, so that none lies over a number
        x, y = np.median(points[panel.classes == value], axis=0)
        axes.text(x, y, str(value), weight="bold", ha="center", va="center",
                  path_effects=[effects.withStroke(linewidth=2, foreground="white")])  # fmt: skip
    names = ("latent coordinate", "latent coordinate") if panel.codes.shape[1] == 2 else ("principal component",) * 2
    axes.set_xlabel(f"first {names[0]}")
    axes.set_ylabel(f"second {names[1]}")
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(broken(f"{panel.label}: codes by class, prior in grey", 52), loc="left")


def _marginals(axes: Axes, panel: Codes) -> None:
    u, v = panel.codes @ panel.direction, panel.draws @ panel.direction
    bins = np.linspace(min(u.min(), v.min()), max(u.max(), v.max()), 41).tolist()
    axes.hist(v, bins, density=True, color="#bbbbbb", label="prior")
    axes.hist(u, bins, density=True, histtype="step", color="#0072B2", lw=1.3, label="codes")
    axes.set_xlabel("projection on the worst direction")
    axes.set_ylabel("density")
    axes.set_title(f"worst projection: W2 = {panel.distance:.3g}", loc="left")
    axes.set_ylim(top=axes.get_ylim()[1] * 1.2)  # room for the legend
    axes.legend(loc="upper right", ncols=2)


def _show(axes: Axes, picture: Pixels) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def joined(images: Pixels, columns: int, padding: int = 1) -> Pixels:
    """Images as one picture, `(n, h, w, c)` -> `(H, W, c)`, or `(H, W)` where they are grey; white between them."""
    n, h, w, c = images.shape
    down = -(-n // columns)
    sheet = np.full((down * (h + padding), columns * (w + padding), c), 255, np.uint8)
    for k, image in enumerate(images):
        y, x = k // columns * (h + padding), k % columns * (w + padding)
        sheet[y : y + h, x : x + w] = image
    return sheet[:, :, 0] if c == 1 else sheet


def stored(path: Path, count: int, total: int = STORED) -> Pixels:
    """The first images of a run's samples.png of `total`, `(n, h, w, 3)`; none where it is laid out otherwise."""
    from PIL import Image

    with Image.open(path) as picture:
        sheet = np.asarray(picture.convert("RGB"))
    wide = min(STORED_COLUMNS, total)
    tall = -(-total // wide)
    h, w = (sheet.shape[0] - STORED_PADDING) // tall, (sheet.shape[1] - STORED_PADDING) // wide
    if sheet.shape[:2] != (h * tall + STORED_PADDING, w * wide + STORED_PADDING) or min(h, w) < 3:
        return np.zeros((0, 1, 1, 3), np.uint8)
    cells = [(k // wide * h + 2, k % wide * w + 2) for k in range(min(count, total))]
    return np.stack([sheet[y : y + h - 2, x : x + w - 2] for y, x in cells])
