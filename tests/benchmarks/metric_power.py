"""Which metric sees a known difference with the fewest images? Real images only.

    python tests/benchmarks/metric_power.py --data-root DIR [--out reports/trust] [--threads 2]

Two disjoint sets of n of MNIST's training images are compared by FID, FID-infinity, KID and MIND on features of
grey28: as they are (the null), and with one set changed (blurred, noisy, without a class, partly shifted). A metric
finds the difference in a draw where its value exceeds the 95 % quantile of its null at that n; its power is the share
of such draws. The sizes of the changes were chosen so that power rises over the n tried. It measures without a goal.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torchvision.transforms.functional import gaussian_blur

from genbench.api import DataConfig
from genbench.data.images import to_uint8
from genbench.experiment.build import create_dataset
from genbench.experiment.run import Component
from genbench.features import extract, feature_layer
from genbench.registry.loader import load
from genbench.utils.io import write_json, write_text
from genbench_fid.frechet import distance, extrapolated
from genbench_mind import directions, mind

SIZES = (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
DRAWS = {50: 200, 100: 200, 200: 200, 500: 200, 1_000: 120, 2_000: 80, 5_000: 50, 10_000: 50}
PARTITIONS = 2
"""Of FID-infinity, whose default of eight would take four times as long."""
RANGES = {"fid": (50, 10_000), "fid-infinity": (1_000, 5_000), "kid": (50, 2_000), "mind": (50, 5_000)}
"""Smallest and largest n. FID-infinity needs more than four times the 128 features; the others end for their time."""
BLUR, NOISE, KEPT, MOVED = 0.38, 2.5, 0.5, 0.5
DROPPED = 4
BLOCK = 1_000
LEVEL, POWER = 0.05, 0.8
CHANGES = {
    "none": "the null",
    "blur": f"Gaussian blur of {BLUR} pixels",
    "noise": f"Gaussian noise of {NOISE:g}/255",
    "class": f"every second image of the digit {DROPPED} replaced by one of another digit",
    "shift": f"{MOVED:.0%} of the images moved by one pixel to the right",
}
FACTOR = 10
"""MIND with 5,000 images is said to do what FID does with 50,000."""

Metric = Callable[[Tensor, Tensor], float]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("reports/trust"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    start = time.monotonic()
    torch.set_num_threads(1)
    changed, usual = features(arguments.data_root)
    theta = directions(1000, usual)
    metrics: dict[str, Metric] = {
        "fid": distance,
        "fid-infinity": lambda real, made: extrapolated(real, made, PARTITIONS).value,
        "kid": kid,
        "mind": partial(mind, theta=theta),
    }
    cells: list[dict[str, Any]] = []
    for n in SIZES:
        named = [name for name, (least, most) in RANGES.items() if least <= n <= most]
        with ThreadPoolExecutor(arguments.threads) as pool:
            draws = list(pool.map(partial(one_draw, changed, metrics, named, n), range(DRAWS[n])))
        for name in named:
            null = np.array([draw["none", name] for draw in draws])
            limit = float(np.quantile(null, 1.0 - LEVEL, method="higher"))
            for change in CHANGES:
                values = np.array([draw[change, name] for draw in draws])
                cells.append(
                    {
                        "metric": name,
                        "change": change,
                        "n": n,
                        "draws": len(draws),
                        "power": float((values > limit).mean()),
                        "mean": float(values.mean()),
                        "sd": float(values.std(ddof=1)),
                        "distance from the null": float((values.mean() - null.mean()) / null.std(ddof=1)),
                    }
                )
        print(n, f"{time.monotonic() - start:.0f} s", flush=True)
    results = {"seconds": time.monotonic() - start, "cells": cells}
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw_figure(cells, arguments.out / "metric-power.png")
    write_json(arguments.out / "metric-power.json", results)
    write_text(arguments.out / "metric-power.md", markdown(results))
    print(markdown(results))


class Features(dict[str, Tensor]):
    """Features of all images by change, `(60000, f)` each, and the images' labels."""

    labels: Tensor


def features(data_root: Path) -> tuple[Features, Tensor]:
    """Features of MNIST's training images, as they are and changed."""
    data_config = DataConfig(data_root, Path("~/.cache/genbench").expanduser())
    registry = load()
    fingerprint = registry.get("dataset", "mnist").plugin.fingerprint
    images = create_dataset(registry, Component("mnist", (), fingerprint)).load(data_config)
    extractor = feature_layer("grey28", "", "", data_config)
    x = images.train
    noise = NOISE / 255 * torch.randn(x.shape, generator=Generator().manual_seed(1))
    moved = torch.nn.functional.pad(x, (1, 0))[..., :-1]
    features = Features(
        {
            "none": extract(extractor, x),
            "blur": extract(extractor, gaussian_blur(x, [5, 5], [BLUR, BLUR])),
            "noise": extract(extractor, to_uint8((x.float() / 255 + noise).clamp(0, 1))),
            "shift": extract(extractor, moved),
        }
    )
    assert images.train_labels is not None
    features.labels = images.train_labels
    return features, features["none"]


def one_draw(
    changed: Features, metrics: dict[str, Metric], named: list[str], n: int, seed: int
) -> dict[tuple[str, str], float]:
    """The values of the metrics between n real images and n others, changed in every way."""
    random = Generator().manual_seed(1000 * n + seed)
    order = torch.randperm(len(changed.labels), generator=random)
    real, others, spare = changed["none"][order[:n]], order[n : 2 * n], order[2 * n :]
    values = {}
    for change in CHANGES:
        made = changed["none" if change == "class" else change][others]
        if change == "class":
            spare = spare[changed.labels[spare] != DROPPED]
            replaced = (changed.labels[others] == DROPPED) & (torch.rand(n, generator=random) >= KEPT)
            made[replaced] = changed["none"][spare[: int(replaced.sum())]]
        if change == "shift":
            stay = torch.rand(n, generator=random) >= MOVED
            made[stay] = changed["none"][others[stay]]
        for name in named:
            values[change, name] = metrics[name](real, made)
    return values


def kid(real: Tensor, made: Tensor) -> float:
    """KID of all pairs, the unbiased estimate to which the mean over many subsets tends."""
    n, m = len(real), len(made)
    within = [kernel_sum(x, x) - float(kernel(x.square().sum(1), x.shape[1]).double().sum()) for x in (real, made)]
    return within[0] / (n * (n - 1)) + within[1] / (m * (m - 1)) - 2.0 * kernel_sum(real, made) / (n * m)


def kernel_sum(x: Tensor, y: Tensor) -> float:
    """The sum of the cubic kernel over all pairs."""
    return math.fsum(float(kernel(rows @ y.T, x.shape[1]).sum(1).double().sum()) for rows in x.split(BLOCK))


def kernel(products: Tensor, width: int) -> Tensor:
    """KID's kernel of scalar products; it overwrites them."""
    base = products.div_(width).add_(1.0)
    return base.square().mul_(base)


def needed(cells: list[dict[str, Any]], name: str, change: str) -> float | None:
    """The n at which power first reaches 80 %, linear in log n between those tried; None where none of them does."""
    points = [(cell["n"], cell["power"]) for cell in cells if (cell["metric"], cell["change"]) == (name, change)]
    for (n, low), (m, high) in pairwise(points):
        if low < POWER <= high:
            return float(n * (m / n) ** ((POWER - low) / (high - low)))
    return None


def markdown(results: dict[str, Any]) -> str:
    """The tables and what they say."""
    cells: list[dict[str, Any]] = results["cells"]
    power = {(cell["metric"], cell["change"], cell["n"]): cell["power"] for cell in cells}
    lines = [
        "# Which metric sees a known difference with the fewest images",
        "",
        "`python tests/benchmarks/metric_power.py --data-root DIR`",
        "",
        f"{results['seconds']:.0f} seconds on two threads. Real images of MNIST, features of grey28. Each draw compares"
        " n training images with n others, one set changed. Power is the share of draws above the 95 % quantile of the"
        " null at that n: the value of a metric, bias and all, against its values between real images.",
        "",
        f"Draws: {', '.join(f'{draws} at n = {n:,}' for n, draws in DRAWS.items())}. A power of 50 % has a standard"
        f" error of {50 / DRAWS[50] ** 0.5:.0f} to {50 / DRAWS[10_000] ** 0.5:.0f} points from the draws alone, and the"
        f" 5 % are known to {100 * (LEVEL * (1 - LEVEL) / DRAWS[50]) ** 0.5:.1f} to"
        f" {100 * (LEVEL * (1 - LEVEL) / DRAWS[10_000]) ** 0.5:.1f} points. From n = 5,000 on draws share images.",
        "",
        "![power against n](metric-power.png)",
        "",
    ]
    sizes = " | ".join(f"{n:,}" for n in SIZES)
    for change, title in CHANGES.items():
        if change == "none":
            continue
        lines += [
            f"## {title}",
            "",
            f"| metric | {sizes} | n for 80 % |",
            f"|:--|{'--:|' * (len(SIZES) + 1)}",
        ]
        for name in RANGES:
            row = [f"{power[name, change, n]:.0%}" if (name, change, n) in power else "" for n in SIZES]
            least = needed(cells, name, change)
            lines.append(f"| {name} | {' | '.join(row)} | {'not reached' if least is None else f'{least:,.0f}'} |")
        lines.append("")
    lines += ["## What it says", "", *(f"* {line}" for line in conclusions(cells)), ""]
    return "\n".join(lines)


def conclusions(cells: list[dict[str, Any]]) -> list[str]:
    """Sentences about images needed, and about the factor of ten."""
    power = {(cell["metric"], cell["change"], cell["n"]): cell["power"] for cell in cells}
    lines, ratios = [], {}
    for change, title in CHANGES.items():
        if change == "none":
            continue
        least = {name: n for name in RANGES if (n := needed(cells, name, change)) is not None}
        if least:
            order = ", ".join(f"{name} {least[name]:,.0f}" for name in sorted(least, key=lambda name: least[name]))
            lines.append(f"{title}: images for a power of 80 %: {order}.")
        if {"fid", "mind"} <= set(least):
            ratios[change] = least["fid"] / least["mind"]
    pairs = [(n, FACTOR * n) for n in SIZES if FACTOR * n in SIZES]
    held = {
        (change, n): power["mind", change, n] >= power["fid", change, many]
        for n, many in pairs
        for change in CHANGES
        if change != "none" and power["fid", change, many] >= POWER
    }
    if not ratios:
        return lines
    said = "confirmed" if min(ratios.values()) >= FACTOR else "refuted" if max(ratios.values()) < FACTOR else "mixed"
    lines += [
        f"The claim that MIND with 5,000 images does what FID does with 50,000, as a factor of {FACTOR}: **{said}** at"
        f" these sizes. FID needs {', '.join(f'{ratio:.1f} ({change})' for change, ratio in ratios.items())} times the"
        f" images of MIND. MIND with n had the power of FID with {FACTOR} n in {sum(held.values())} of the"
        f" {len(held)} cases where FID with {FACTOR} n reached 80 %"
        f" (n = {', '.join(f'{n:,}' for n, _ in pairs)}).",
        "Limits: power to tell small changes from none, not the correlation with the progress of a training that the"
        " paper shows; 128 features of a classifier of grey images, not Inception's 2,048, whose covariances need more"
        " images; at most 10,000 images a side, so that 5,000 against 50,000 itself was not measured.",
        "KID is the unbiased estimate from all pairs; the metric `kid` averages over random subsets of at most 1,000"
        f" and adds their noise. FID-infinity has {PARTITIONS} partitions here.",
    ]
    return lines


def draw_figure(cells: list[dict[str, Any]], path: Path) -> None:
    """Power against n, a panel for each change."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    changes = [change for change in CHANGES if change != "none"]
    figure, axes = plt.subplots(1, len(changes), figsize=(9, 2.4), sharey=True, layout="constrained")
    for axis, change in zip(axes, changes, strict=True):
        for name, mark in zip(RANGES, "os^D", strict=True):
            points = [
                (cell["n"], cell["power"]) for cell in cells if (cell["metric"], cell["change"]) == (name, change)
            ]
            axis.semilogx(*zip(*points, strict=True), marker=mark, markersize=3, linewidth=1, label=name)
        axis.axhline(POWER, color="grey", linewidth=0.5, linestyle=":")
        axis.axhline(LEVEL, color="grey", linewidth=0.5, linestyle=":")
        axis.set(title=change, xlabel="n")
    axes[0].set_ylabel("power at 5 %")
    axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
