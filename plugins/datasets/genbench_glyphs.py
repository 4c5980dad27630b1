"""Dataset `glyphs`: 28x28 grey handwritten-looking digits, drawn here, the same bytes on every machine.

Each digit has a few skeletons of pen strokes. An image takes one of them, displaces its control points a little, bends,
slants, turns and stretches it, fits it into a box and inks it with a round pen, white on black as in MNIST.

Why the bytes do not vary: random numbers are raw words of Philox counters (numpy keeps that stream for good, which it
does not promise of `Generator.integers`), and all that follows is elementwise +, -, *, /, sqrt, min, max and comparison
in numpy, each rounded by IEEE 754 in exactly one way: no sine, no exponential, no sum whose order a processor chooses,
no kernel that fuses a product and a sum into one rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genbench.api import ComponentSpec, DataConfig, Dataset, DatasetInfo, Images, ProgressEvent
from genbench.data.images import cached
from genbench.hookspecs import hookimpl

Split = Literal["train", "test", "validation"]
Reals = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.int64]
Skeleton = tuple[Reals, ...]

SIDE = 28
SPLITS: dict[Split, int] = {"train": 60_000, "test": 10_000, "validation": 5_000}
SEED = 1804_01947
STEPS = 4  # straight segments per quadratic piece of a stroke
SOFTNESS = 1.2  # pixels over which the ink fades at a stroke's edge, about as in MNIST's antialiased reduction
CHUNK = 256  # images inked together: many enough to hide numpy's overhead, few enough for the processor's cache

RANGES: dict[str, tuple[float, float]] = {
    "slant": (0.14, 0.7),  # shift to the right per unit of height
    "turn": (0.0, 0.2),  # tangent of half the angle of a clockwise rotation
    "aspect": (0.95, 0.6),  # factor on the width
    "curvature": (1.0, 0.6),  # distance of a bend from the chord of its neighbours, 1 as in the skeleton
    "wobble": (2.2, 1.6),  # how far each control point strays, in skeleton units
    "size": (19.8, 2.6),  # longer side of the inked box, pixels
    "half_width": (1.25, 0.9),  # half the pen's width, pixels
    "shift_x": (0.0, 2.2),  # the box's centre right of the image's, pixels
    "shift_y": (0.0, 2.2),  # the box's centre below the image's, pixels
}
"""Middle and half range of each continuous factor, bell-shaped between (`_bell`)."""

SKELETONS = """
0: 5,0 0,0 0,14 10,14 10,0 5,0
0: 7,.5 1,-.5 -.5,8 1,14.5 9,14.5 10.5,5 7,-.5 4,1.5
0: 3.5,1 -1,5 0,14.5 6,14.5 10.5,9 10,-.5 4,0
1: 5,0 5.2,7 5,14
1: 5,0 4.6,5 5.2,10 5,14
1: 2.2,3.4 4,2.2 5.2,0 5.2,0 5,7 5,14
1: 2.2,3.2 5.2,0 5.2,0 5,7 5,14 / 1.8,14 5,13.8 8.4,14
2: 1,3.5 1.5,-.5 9,-1 10,5 5,10 0,14 0,14 5,13.4 9.8,13.6
2: 1,3 3,-1 10,-1 9.5,7 4,14.5 -1.2,13.4 1,10 6,13.5 10,13
2: .5,1.5 5,-1 11,0 8,7 1,13.6 1,13.6 5,12.8 10,14
3: 1,1.5 3,-.5 10,-1 9.5,6 4,6.5 4,6.5 10.5,6.5 10.5,14.5 3,14.5 .5,12
3: 1,.5 5,.3 9,.4 9,.4 4.5,5.6 4.5,5.6 11,5.5 10,14.8 3,14.5 .5,12.5
3: 1,2.5 3,-1 10.5,-.5 9,6 3,7.4 3,6 10,6 11,14 4,15 0,13.5
4: 2.4,0 1.4,4.5 .6,8.6 .6,8.6 5,8.4 9.8,8 / 8,1 7.6,8 7,14
4: 6.6,0 3,5 0,9.2 0,9.2 5,9 9.8,9 / 6.6,0 6.8,7 6.6,14
4: 1.4,.5 -.2,8 4,8.6 8.4,6 8.8,0 8.8,0 8.4,7 7.6,14
5: 2.5,.5 2.2,3 1.8,6 1.8,6 4,4.2 10.5,5 9.5,14.6 2,14.4 .4,12 / 2.5,.5 6,.4 9.4,0
5: 9,.2 6,.2 2.6,.6 2.6,.6 1.6,6.2 1.6,6.2 10,4 11,13.5 4,14.8 .4,13
5: 9.4,1 5.5,-.8 0,1 1.4,6.4 8.8,6.6 10,14 3,15 0,12.6
6: 7.5,0 2,3 -.8,9 .2,15 9.5,15 9.5,7.5 3,7 .9,11
6: 5,0 1.4,5 0,13 4,15 9.4,13.5 8,8 3.4,8 1.5,12.5
6: 8.4,1.4 5,-1 0,3 -.6,14.6 7,15.4 11,9 5,6 .6,9.5
7: .8,1 5,.6 9.4,.6 9.4,.6 6,6 4,14
7: 1,3 .8,.8 .8,.8 5,1 9.6,.5 9.6,.5 5.4,7 4.4,14
7: .8,.8 5,.8 9.4,.4 9.4,.4 6,7 4.6,14 / 2.6,7.6 5.4,7.4 8.4,7.2
7: .6,2 4,-.6 11,-.6 8.6,4 5,8 4.8,14
8: 8.6,2 6,-1.4 -.4,-.4 .8,5.4 5,7 10.8,9 8.6,15.2 .8,15.2 -.4,9 5,6.6 9.4,4.4 8.4,1
8: 5,0 .4,0 .4,6.4 9.4,6.4 9.4,0 5,0 / 5,6.4 -.6,6.6 -.6,14 10.4,14 10.4,6.6 5,6.4
8: 4.6,6.6 -.6,4.4 1.4,-.8 9.6,-1 10,4.4 2,8 -.8,14.6 8,15.4 10.6,9.4 4.6,6.6
9: 8.6,2 6,-1.4 -.6,-.4 0,7.6 6.4,8.4 9,4 8.8,1 8.8,1 8.6,7 7.4,14
9: 8.8,2.4 6,-1.4 -.6,-.4 0,7.6 7.4,8.4 8.8,2.4 8.8,2.4 9.4,9 8,14.8 2,13.8
9: 8,4 9,-.6 1,-.8 -.8,7.6 5,8 9,3 8,8 5,14
"""
"""One variant of a digit per line: control polygons in a box about 10 wide and 14 high, y down; "/" lifts the pen.

A stroke is the quadratic spline of its polygon, from end to end; a point that stands twice makes a corner."""


def _variants(text: str) -> tuple[tuple[Skeleton, ...], ...]:
    """Per digit its variants, each a tuple of strokes `(points, 2)`."""
    digits: dict[str, list[Skeleton]] = {}
    for line in text.split("\n")[1:-1]:
        digit, strokes = line.split(":")
        polygons = ([point.split(",") for point in stroke.split()] for stroke in strokes.split("/"))
        digits.setdefault(digit, []).append(tuple(np.array(polygon, dtype=np.float64) for polygon in polygons))
    return tuple(tuple(variants) for variants in digits.values())


VARIANTS = _variants(SKELETONS)
CLASS_NAMES = tuple(f"glyphs/{digit}" for digit in range(len(VARIANTS)))
POINTS = max(sum(map(len, skeleton)) for variants in VARIANTS for skeleton in variants)


def _stream(split: Split) -> np.random.Philox:
    """The split's own random words: one key per split, so that no two splits share any."""
    return np.random.Philox(key=(SEED << 8) + list(SPLITS).index(split))


def _bell(bits: NDArray[np.uint64]) -> Reals:
    """Bell-shaped numbers in [-1, 1], standard deviation 0.29: of each word the sum of its four 16-bit lanes."""
    lanes: list[Reals] = [((bits >> np.uint64(s)) & np.uint64(0xFFFF)).astype(np.float64) for s in (0, 16, 32, 48)]
    return (lanes[0] + lanes[1] + lanes[2] + lanes[3] - 2 * 0xFFFF) / (2 * 0xFFFF)


def _lots(split: Split, stream: np.random.Philox) -> tuple[Integers, Integers, dict[str, Reals]]:
    """Digit, variant and continuous factors of every image of a split, `(n,)` each."""
    n = SPLITS[split]
    digits = np.argsort(stream.random_raw(n), kind="stable") % len(VARIANTS)
    counts = np.array([len(variants) for variants in VARIANTS], dtype=np.uint64)[digits]
    variants = ((stream.random_raw(n) >> np.uint64(32)) * counts) >> np.uint64(32)
    factors = {name: middle + reach * _bell(stream.random_raw(n)) for name, (middle, reach) in RANGES.items()}
    return digits, variants.astype(np.int64), factors


def factors(split: Split) -> dict[str, Tensor]:
    """The factors of each image of a split, in the order of the images; computed again in a few milliseconds.

    `digit` (the label) and `variant` (the skeleton's number within the digit) are `(n,)` int64, the factors that
    `RANGES` explains `(n,)` float64.
    """
    digits, variants, continuous = _lots(split, _stream(split))
    named = {"digit": digits, "variant": variants} | continuous
    return {name: torch.from_numpy(values) for name, values in named.items()}


def _spline(points: Reals, curvature: Reals) -> Reals:
    """Points on the quadratic splines of control polygons, `(n, k, 2) -> (n, (k - 2) * STEPS + 1, 2)`."""
    chord = (points[:, :-2] + points[:, 2:]) / 2
    bend = chord + curvature[:, None, None] * (points[:, 1:-1] - chord)
    joints = np.concatenate([points[:, :1], (bend[:, :-1] + bend[:, 1:]) / 2, points[:, -1:]], axis=1)[:, :, None]
    time = (np.arange(STEPS) / STEPS)[:, None]
    ends = joints[:, :-1] * ((1 - time) * (1 - time)) + joints[:, 1:] * (time * time)
    pieces = ends + bend[:, :, None] * (2 * time * (1 - time))
    return np.concatenate([pieces.reshape(len(points), -1, 2), points[:, -1:]], axis=1)


def _segments(skeleton: Skeleton, strays: Reals, factors: dict[str, Reals]) -> tuple[Singles, Singles]:
    """Start and end of every straight segment in pixels, `(n, segments, 2)` each, for images of one skeleton.

    strays: `(n, POINTS, 2)` in [-1, 1], where each control point strays to; factors: `(n,)` each.
    """
    curves, used = [], 0
    for stroke in skeleton:
        # The two halves of a corner share one displacement, or it would open.
        same = np.concatenate([[0], np.cumsum((stroke[1:] != stroke[:-1]).any(axis=1))]) + used
        points = stroke + factors["wobble"][:, None, None] * strays[:, same]
        curves.append(_spline(points, factors["curvature"]))
        used += len(stroke)
    placed = _placed(np.concatenate(curves, axis=1), factors)
    ends = np.cumsum([curve.shape[1] for curve in curves])
    pen_down = np.setdiff1d(np.arange(placed.shape[1] - 1), ends - 1)
    return placed[:, pen_down], placed[:, pen_down + 1]


def _placed(curve: Reals, factors: dict[str, Reals]) -> Singles:
    """Curves `(n, points, 2)` in skeleton units -> the same, slanted, turned, stretched and fitted, in pixels."""
    slant, turn, aspect = (factors[name][:, None] for name in ("slant", "turn", "aspect"))
    x, y = (curve[..., 0] - slant * curve[..., 1]) * aspect, curve[..., 1]
    # A rotation by the angle whose half has the tangent `turn`: cosine and sine without either.
    cosine, sine = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    xy = np.stack([x * cosine - y * sine, x * sine + y * cosine], axis=-1)
    low, high = xy.min(axis=1, keepdims=True), xy.max(axis=1, keepdims=True)
    scale = (factors["size"] - 2 * factors["half_width"]) / (high - low).max(axis=(1, 2))
    shift = np.stack([factors["shift_x"], factors["shift_y"]], axis=-1)[:, None]
    placed: Singles = ((xy - (low + high) / 2) * scale[:, None, None] + shift + (SIDE - 1) / 2).astype(np.float32)
    return placed


def _inked(start: Singles, end: Singles, half_width: Singles) -> NDArray[np.uint8]:
    """Images `(n, 28, 28)` of the segments `(n, segments, 2)`: ink falls off with the distance to the nearest one."""
    reach = half_width.max() + SOFTNESS / 2
    pixels = np.arange(SIDE, dtype=np.float32)[:, None]
    nearest = np.full((SIDE, SIDE, len(start)), np.inf, dtype=np.float32)  # squared distance; images vary fastest
    for k in range(start.shape[1]):
        # Images of one skeleton have a segment in much the same place: only a window of pixels needs its distance.
        ends = np.stack([start[:, k], end[:, k]])
        left, top = (max(0, int(low)) for low in np.floor(ends.min(axis=(0, 1)) - reach))
        right, bottom = (int(high) for high in np.ceil(ends.max(axis=(0, 1)) + reach))
        from_x, from_y = pixels[left:right] - start[:, k, 0], pixels[top:bottom] - start[:, k, 1]
        step_x, step_y = end[:, k, 0] - start[:, k, 0], end[:, k, 1] - start[:, k, 1]
        length2 = np.maximum(step_x * step_x + step_y * step_y, np.float32(1e-6))
        # Where on the segment the nearest point lies, 0 at its start, 1 at its end.
        along = np.clip(from_x * (step_x / length2) + (from_y * (step_y / length2))[:, None], 0, 1)
        across, down = from_x - along * step_x, from_y[:, None] - along * step_y
        window = nearest[top:bottom, left:right]
        np.minimum(window, across * across + down * down, out=window)
    cover = (half_width - np.sqrt(nearest)) / np.float32(SOFTNESS) + np.float32(0.5)
    return np.moveaxis((np.clip(cover, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8), -1, 0)


def _drawn(split: Split, data_config: DataConfig) -> tuple[Tensor, Tensor]:
    """Images `(n, 1, 28, 28)` uint8 and digits `(n,)` int64 of a split; numpy frees Python's lock, so threads help."""
    n, done, stream = SPLITS[split], 0, _stream(split)
    digits, variants, factors = _lots(split, stream)
    strays = _bell(stream.random_raw(n * POINTS * 2)).reshape(n, POINTS, 2)
    images = np.empty((n, 1, SIDE, SIDE), dtype=np.uint8)

    def draw(chunk: tuple[Skeleton, Integers]) -> int:
        skeleton, rows = chunk
        chosen = {name: values[rows] for name, values in factors.items()}
        images[rows, 0] = _inked(*_segments(skeleton, strays[rows], chosen), chosen["half_width"].astype(np.float32))
        return len(rows)

    pool = ThreadPoolExecutor(max(1, data_config.workers))
    try:
        for count in pool.map(draw, _chunks(digits, variants)):
            data_config.report(ProgressEvent(f"drawing glyphs ({split})", done := done + count, n))
    finally:
        pool.shutdown(cancel_futures=True)
    return torch.from_numpy(images), torch.from_numpy(digits)


def _chunks(digits: Integers, variants: Integers) -> Iterator[tuple[Skeleton, Integers]]:
    """Rows of images that share a skeleton, at most `CHUNK` at a time."""
    for digit, skeletons in enumerate(VARIANTS):
        for variant, skeleton in enumerate(skeletons):
            rows = np.flatnonzero((digits == digit) & (variants == variant))
            yield from ((skeleton, rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK))


class Glyphs(Dataset):
    """The drawn digits: 60,000 images to train on, 10,000 to test, 5,000 to validate, each split exactly balanced.

    Labels are the digits; `factors` gives all else that an image was drawn with, but for its strays.
    """

    def info(self, data_config: DataConfig) -> DatasetInfo:
        """Shape and counts; nothing is read, so nothing can be missing."""
        return DatasetInfo(
            (1, SIDE, SIDE),
            **SPLITS,
            classes=len(VARIANTS),
            class_names=CLASS_NAMES,
            originals="",
            notes=(),
            factors=("digit", "variant", *RANGES),
        )

    def load(self, data_config: DataConfig) -> Images:
        """The images, drawn in seconds at the first call and kept under a hash of this file."""
        source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        images = cached(data_config, "glyphs", source, lambda: self._draw(data_config))
        return replace(
            images,
            class_names=CLASS_NAMES,
            train_factors=factors("train"),
            test_factors=factors("test"),
            validation_factors=factors("validation"),
        )

    def _draw(self, data_config: DataConfig) -> Images:
        train, test, validation = (_drawn(split, data_config) for split in SPLITS)
        about = f"drawn from stroke skeletons, {SIDE}x{SIDE}, seed {SEED}"
        return Images(train[0], test[0], validation[0], train[1], test[1], validation[1], preprocessing=about)


@hookimpl
def genbench_datasets() -> Iterable[ComponentSpec[Dataset]]:
    """The dataset of this file."""
    yield ComponentSpec(
        name="glyphs", description="handwritten-looking digits drawn on the spot, 28x28 grey", factory=Glyphs
    )
