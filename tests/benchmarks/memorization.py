"""How many copies do the memorization metrics find, and which underfitted models do they take for copiers?

    python tests/benchmarks/memorization.py --data-root DIR [--out reports/trust] [--threads 2]

A cell that the file in --out has is not measured again.

Samples are real images of MNIST that are new to the metric, of which 0 to 50 % are replaced by copies of training
images: exact ones, shifted by a pixel, or blurred. An alarm is a p-value of at most 5 %, and for the share of copies
also the rule of reports, more than 5 %. Underfitted models are new images that are blurred, noisy or projected to
principal components, and samples of a Gaussian. Training images, held-out images and samples are all from MNIST's
training images: to grey28 those have one law, which the test images do not share exactly. It measures without a goal.

Given the training images, copies, C_T and AuthPct depend on each sample alone, so that these are computed once for a
large pool and drawn from it again. FLD's gap is fitted anew for each draw, with other training images, since its
p-value is over their draw too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torchvision.transforms.functional import gaussian_blur

from genbench.api import DataConfig
from genbench.data.images import to_uint8
from genbench.experiment.build import create_dataset
from genbench.experiment.run import Component
from genbench.features import extract, feature_layer
from genbench.registry.loader import load
from genbench.utils.io import read_json, write_json, write_text
from genbench_copying import Cells, authentic, copying_test
from genbench_fld import gap
from genbench_nearest import copy_limit, more_often, nearest_rows

TRAINING, FRESH, SPOILT, PLANTED = 3_000, 8_000, 1_500, 1_500
N = 1_000
"""Samples, and held-out images: the metrics' default."""
CELLS, FRACTION, STEPS = 10, 0.1, 20
DOSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
GAP_DOSES = (0.01, 0.05, 0.2)
DRAWS = 300
GAP_TRAINING, GAP_N, GAP_DRAWS, GAP_NULLS = 1_500, 500, 12, 40
"""Of FLD's gap, whose mixtures are fitted anew in each draw."""
LEVEL, POWER, MOST_COPIES = 0.05, 0.8, 0.05
COPIES = {"exact": "exact", "shifted": "shifted by a pixel", "blurred": "blurred by 1 pixel"}
UNDERFITTED = {
    "blurred models": "new images, blurred by 1 pixel",
    "noisy models": "new images with noise of 30/255",
    "pca models": "new images projected to 20 principal components",
    "gaussian models": "samples of a Gaussian in pixels, clipped",
}
METRICS = {
    "copies": "copies, p <= 5 %",
    "copies > 5 %": "copies, share above 5 %",
    "data-copying": "C_T (data-copying)",
    "authpct": "AuthPct",
    "fld-gap": "FLD gap",
}


Known = tuple[Tensor, Tensor, Tensor, Tensor]
"""What metrics know of points: distance to the nearest training image, cell, distance within the cell, authentic."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("reports/trust"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = read_json(arguments.out / "memorization.json") if (arguments.out / "memorization.json").exists() else {}
    start = time.monotonic() - results.get("seconds", 0.0)
    cells: list[dict[str, Any]] = results.get("cells", [])
    known = {(x["space"], x["kind"], x["dose"], x["metric"]) for x in cells}
    data_config = DataConfig(arguments.data_root, Path("~/.cache/genbench").expanduser())
    pictures = images(data_config)
    extractor = feature_layer("grey28", "", "", data_config)

    def add(*added: dict[str, Any]) -> None:
        cells.extend(added)
        results = {"seconds": time.monotonic() - start, "cells": cells}
        write_json(arguments.out / "memorization.json", results)
        write_text(arguments.out / "memorization.md", markdown(results))

    with ThreadPoolExecutor(arguments.threads) as executor:
        for space in ("pixels", "features"):
            rows = {kind: x.flatten(1) if space == "pixels" else extract(extractor, x) for kind, x in pictures.items()}
            points = rows | {"exact": rows["real"]}
            fitted = [(kind, dose) for kind, dose in conditions() if kind in UNDERFITTED or dose in (0.0, *GAP_DOSES)]
            for kind, dose in fitted:
                if (space, kind, dose, "fld-gap") not in known:
                    draws = range(GAP_NULLS if dose == 0.0 else GAP_DRAWS)
                    gap_alarms = list(executor.map(partial(gap_alarm, points, kind, dose), draws))
                    add(cell(space, kind, dose, "fld-gap", gap_alarms))
            print(space, "fld-gap", f"{time.monotonic() - start:.0f} s", flush=True)
            todo = [(kind, dose) for kind, dose in conditions() if (space, kind, dose, "authpct") not in known]
            pool = prepared(points) if todo else {}
            for kind, dose in todo:
                alarmed = list(executor.map(partial(alarms, pool, kind, dose), range(DRAWS)))
                add(*(cell(space, kind, dose, metric, [x[metric] for x in alarmed]) for metric in alarmed[0]))
            print(space, f"{time.monotonic() - start:.0f} s", flush=True)
    print((arguments.out / "memorization.md").read_text())


def conditions() -> Iterable[tuple[str, float]]:
    """Kinds of samples with the share of them among the samples; the rest is new."""
    yield "exact", 0.0
    yield from ((kind, dose) for kind in COPIES for dose in DOSES)
    yield from ((kind, 1.0) for kind in UNDERFITTED)


def cell(space: str, kind: str, dose: float, metric: str, alarm_list: list[bool]) -> dict[str, Any]:
    """The share of alarms."""
    alarms = sum(alarm_list) / len(alarm_list)
    return {"space": space, "kind": kind, "dose": dose, "metric": metric, "draws": len(alarm_list), "alarms": alarms}


def images(data_config: DataConfig) -> dict[str, Tensor]:
    """Training images, new ones, copies and what underfitted models make, uint8."""
    registry = load()
    fingerprint = registry.get("dataset", "mnist").plugin.fingerprint
    x = create_dataset(registry, Component("mnist", (), fingerprint)).load(data_config).train
    random = Generator().manual_seed(0)
    x = x[torch.randperm(len(x), generator=random)]
    real, spoilt = x[: TRAINING + FRESH], x[TRAINING + FRESH :][:SPOILT]
    flat = real[:TRAINING].flatten(1).double() / 255
    mean, (values, vectors) = flat.mean(0), torch.linalg.eigh(torch.cov(flat.T))
    normal = torch.randn(SPOILT, len(mean), generator=random, dtype=torch.float64)
    drawn = mean + (normal * values.clamp(min=0).sqrt()) @ vectors.T
    main_ones = vectors[:, -20:]
    projected = mean + (spoilt.flatten(1).double() / 255 - mean) @ main_ones @ main_ones.T
    noise = 30 / 255 * torch.randn(spoilt.shape, generator=random)
    return {
        "real": real,
        "shifted": torch.nn.functional.pad(real, (1, 0))[..., :-1],
        "blurred": gaussian_blur(real, [7, 7], [1.0, 1.0]),
        "blurred models": gaussian_blur(spoilt, [7, 7], [1.0, 1.0]),
        "noisy models": to_uint8((spoilt.float() / 255 + noise).clamp(0, 1)),
        "pca models": to_uint8(projected.clamp(0, 1).float().view(spoilt.shape)),
        "gaussian models": to_uint8(drawn.clamp(0, 1).float().view(spoilt.shape)),
    }


def prepared(points: dict[str, Tensor]) -> dict[str, Known]:
    """What the metrics know of each point, by kind; "fresh" are the new images, after the training images of "real"."""
    training, known = points["real"][:TRAINING], dict[str, Known]()
    partition = Cells(training, CELLS)
    for kind, rows in points.items():
        if kind == "real":
            x, name = rows[TRAINING:], "fresh"
        else:
            x, name = rows[: PLANTED if kind in COPIES else None], kind
        parts = [nearest_rows(part, training)[0].sqrt() for part in x.split(1000)]
        cells = partition.assigned(x)
        within = torch.zeros(len(x), dtype=torch.float64)
        for number, distances in enumerate(partition.distances(x)):
            within[cells == number] = distances
        genuine = torch.cat([authentic(part, training) for part in x.split(1000)])
        known[name] = (torch.cat(parts), cells, within, genuine)
    return known


def alarms(pool: dict[str, Known], kind: str, dose: float, draw: int) -> dict[str, bool]:
    """Which of the metrics that depend on each sample alone raise an alarm."""
    random = Generator().manual_seed(draw)
    order, count = torch.randperm(FRESH, generator=random), round(dose * N)
    held_out, fresh = order[:N], order[N : 2 * N - count]
    planted = torch.randperm(len(pool[kind][0]), generator=random)[:count]
    real = [column[held_out] for column in pool["fresh"]]
    pairs = zip(pool["fresh"], pool[kind], strict=True)
    made = [torch.cat([usual[fresh], column[planted]]) for usual, column in pairs]
    limit = copy_limit(real[0], FRACTION)
    split = [[within[cells == number] for number in range(CELLS)] for _, cells, within, _ in (made, real)]
    return {
        "copies": more_often(made[0] < limit, real[0] < limit) <= LEVEL,
        "copies > 5 %": float((made[0] < limit).double().mean()) > MOST_COPIES,
        "data-copying": copying_test(*split).p_value <= LEVEL,
        "authpct": more_often(~made[3], ~real[3]) <= LEVEL,
    }


def gap_alarm(points: dict[str, Tensor], kind: str, dose: float, draw: int) -> bool:
    """Whether FLD's gap raises an alarm."""
    random, real = Generator().manual_seed(draw), points["real"]
    order, count = torch.randperm(len(real), generator=random), round(dose * GAP_N)
    training, held_out, fresh = order[:GAP_TRAINING], order[-GAP_N:], order[GAP_TRAINING:]
    planted = training[:count] if kind in COPIES else torch.randperm(SPOILT, generator=random)[:count]
    samples = torch.cat([real[fresh[: GAP_N - count]], points[kind][planted]])
    return gap(samples, real[training], real[held_out], STEPS).p_value <= LEVEL


def needed(cells: list[dict[str, Any]], space: str, kind: str, metric: str) -> float | None:
    """The dose at which power first reaches 80 %, linear in log dose between those tried; None where none does."""
    doses = [x for x in cells if (x["space"], x["kind"], x["metric"]) == (space, kind, metric) and x["dose"] > 0]
    doses.sort(key=lambda x: float(x["dose"]))
    if doses and doses[0]["alarms"] >= POWER:
        return float(doses[0]["dose"])
    for low, high in pairwise(doses):
        if low["alarms"] < POWER <= high["alarms"]:
            share = (POWER - low["alarms"]) / (high["alarms"] - low["alarms"])
            return float(low["dose"] * (high["dose"] / low["dose"]) ** share)
    return None


def markdown(results: dict[str, Any]) -> str:
    """The tables and what they say."""
    cells: list[dict[str, Any]] = results["cells"]
    alarmed = {(x["space"], x["kind"], x["dose"], x["metric"]): x["alarms"] for x in cells}
    lines = [
        "# Memorization: planted copies and underfitted models",
        "",
        "`python tests/benchmarks/memorization.py --data-root DIR`",
        "",
        f"{results['seconds']:.0f} seconds on two threads. Real images of MNIST: {TRAINING:,} training images, {N:,}"
        f" held-out ones, {N:,} samples. An alarm is a p-value of at most 5 % (of the second line a share above 5 %,"
        f" the rule of reports). {DRAWS} draws. FLD's gap, fitted anew in each draw: {GAP_TRAINING:,} training images,"
        f" {GAP_N} held-out ones, {GAP_N} samples, {GAP_DRAWS} draws and {GAP_NULLS} without copies, so that its rates"
        f" are known to {100 * (POWER * (1 - POWER) / GAP_DRAWS) ** 0.5:.0f} points at 80 %, and at 5 % to"
        f" {100 * (LEVEL * (1 - LEVEL) / GAP_NULLS) ** 0.5:.1f} on new images,"
        f" {100 * (LEVEL * (1 - LEVEL) / GAP_DRAWS) ** 0.5:.1f} on models.",
        "",
    ]
    for space in ("pixels", "features"):
        lines += [
            f"## In {'pixels' if space == 'pixels' else 'features of grey28'}",
            "",
            f"| alarms without copies | new images | {' | '.join(UNDERFITTED)} |",
            f"|:--|{'--:|' * (len(UNDERFITTED) + 1)}",
        ]
        for metric, title in METRICS.items():
            places = [("exact", 0.0), *((kind, 1.0) for kind in UNDERFITTED)]
            known = [alarmed.get((space, kind, dose, metric)) for kind, dose in places]
            lines.append(f"| {title} | {' | '.join('' if rate is None else f'{rate:.1%}' for rate in known)} |")
        for kind, title in COPIES.items():
            lines += [
                "",
                f"| power, copies {title} | {' | '.join(f'{dose:.0%}' for dose in DOSES)} | dose for 80 % |",
                f"|:--|{'--:|' * (len(DOSES) + 1)}",
            ]
            for metric, name in METRICS.items():
                known = [alarmed.get((space, kind, dose, metric)) for dose in DOSES]
                least = needed(cells, space, kind, metric)
                shown = "not found" if least is None else f"<= {least:.0%}" if least == DOSES[0] else f"{least:.1%}"
                rates = ["" if rate is None else f"{rate:.0%}" for rate in known]
                lines.append(f"| {name} | {' | '.join(rates)} | {shown} |")
        lines.append("")
    lines += [
        *(f"* {kind[0].upper()}{kind[1:]}: {title}." for kind, title in UNDERFITTED.items()),
        "",
        "## What it says",
        "",
        *(f"* {line}" for line in conclusions(cells)),
        "",
    ]
    return "\n".join(lines)


def conclusions(cells: list[dict[str, Any]]) -> list[str]:
    """Sentences about false alarms and about what is missed."""
    names = {(space, metric): f"{METRICS[metric]} in {space}" for space in ("pixels", "features") for metric in METRICS}
    false, missed = [], []
    for x in cells:
        name = names[x["space"], x["metric"]]
        error = (LEVEL * (1 - LEVEL) / x["draws"]) ** 0.5
        if (x["kind"] in UNDERFITTED or x["dose"] == 0.0) and x["alarms"] > LEVEL + 2.5 * error:
            made = x["kind"] if x["kind"] in UNDERFITTED else "new images"
            false.append(f"{name} on {made} ({x['alarms']:.0%})")
    for (space, metric), name in names.items():
        kinds = [kind for kind in COPIES if needed(cells, space, kind, metric) is None]
        if kinds:
            missed.append(f"{name} ({', '.join(kinds)})")
    return [
        f"Clearly more than 5 % of false alarms (by 2.5 standard errors): {'; '.join(false) or 'none'}.",
        f"Not found with a power of 80 % at any dose tried: {'; '.join(missed) or 'none'}.",
        "An underfitted model without alarms is not cleared: where its samples are far from the data, C_T and AuthPct"
        " are far on the other side, and copies among such samples are outweighed.",
        f"Limits: {TRAINING:,} training images; among 60,000 the nearest one is nearer, and copies stand out less. One"
        " dataset, one extractor, 1,000 samples.",
    ]


if __name__ == "__main__":
    main()
