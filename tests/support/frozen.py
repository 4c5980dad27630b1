"""Numbers of a small grid, kept from the commit that `tests/data/frozen.json` names: a rebuild must not change them.

Training and measuring are deterministic on one kind of processor and one version of each library, so there the values
are equal to the last digit. Elsewhere other kernels round differently, and training enlarges the difference: there the
values agree to `ELSEWHERE`, relative to the value or to a hundredth of the largest value of its metric.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

FILE = Path(__file__).parents[1] / "data" / "frozen.json"
ELSEWHERE = 0.05
"""Relative tolerance on another processor or other libraries."""
ADVERSARIAL = {"value": 0.3, "floor": 0.05, "se": 0.5}
"""The same for a model with a critic, which amplifies rounding: on another CPU wae-gan's sharpness differed by 28 %,
the standard error of its latent-sw.excess by 43 %."""
LIBRARIES = {"torch": "torch", "numpy": "numpy", "scipy": "scipy", "scikit-learn": "scikit-learn", "pot": "pot"}

_COUNTS = {
    **{f"{name}.count": 1000 for name in ("fid", "fid-infinity", "fid-ladder", "kid", "precision-recall")},
    "density-coverage.count": 1000,
    "fid-ladder.codes": 1000,
    "kid.subset-size": 200,
    "kid.subsets": 20,
    "inception-score.n": 1000,
    "class-balance.n": 1000,
    "ssim.n": 500,
    "nearest-train.n": 200,
    **{f"latent-{name}.n": 400 for name in ("w2", "sw", "mmd")},
    "pixel-w2.n": 200,
    "pixel-sw.n": 200,
}
_ALL = (
    "fid,fid-infinity,fid-ladder,kid,reconstruction,latent-w2,latent-sw,latent-mmd,sharpness,inception-score,"
    "precision-recall,density-coverage,pixel-w2,pixel-sw,psnr,ssim,class-balance,nearest-train"
)
_MODELS = ("ae", "swae", "wae-mmd", "wae-gan", "vae", "cwae")


def command(
    models: Sequence[str], metrics: str, *arguments: str, network: str = "mlp", images: int = 12800, dim: int = 4
) -> list[str]:
    """The arguments of a `genbench run` of the grid, counts of the named metrics made small."""
    names = set(metrics.split(",")) | {"latent-sw" for argument in arguments if argument == "latent-sw"}
    counts = [f"{name}={count}" for name, count in _COUNTS.items() if name.split(".")[0] in names]
    settings = [argument for setting in counts for argument in ("--set", setting)]
    budget = ["--images", str(images), "--network", network, "--latent-dim", str(dim)]
    return ["run", *models, "--metrics", metrics, *budget, *settings, *arguments]


STUDIES = {
    "grid": command(_MODELS, _ALL, "--prior", "normal,mixture", "--seeds", "2"),
    "plane": command(
        ("swae", "wae-gan", "wae-mmd"),
        "ring-coverage,reconstruction,latent-w2",
        *("--prior", "ring,uniform", "--set", "swae.optimizer=rmsprop", "--set", "swae.cost=bce-l1"),
        *("--snapshots", "2", "--snapshot-metrics", "latent-sw"),
        network="conv",
        images=6400,
        dim=2,
    ),
    "controls": command(
        ("swae",), "fid,reconstruction,latent-w2,sharpness,nearest-train", "--controls=all", images=6400
    ),
    "select": command(
        ("swae", "vae"),
        "reconstruction,latent-sw",
        *("--precision", "bfloat16", "--snapshots", "3", "--select", "reconstruction"),
    ),
    "killed": command(("wae-gan",), "reconstruction,latent-sw", images=1_500_000),
}
"""The commands by study; "killed" is killed once its checkpoint stands, and run again."""

PART = command(_MODELS, "reconstruction,latent-w2,latent-sw,latent-mmd,sharpness,psnr", "--prior", "normal")
"""A part of "grid": one prior, one seed, the metrics that need no features."""


def same_machine() -> bool:
    """Whether the frozen values were measured on this kind of processor, with these versions of the libraries."""
    kept = json.loads(FILE.read_text())
    if kept["capability"] != torch.backends.cpu.get_cpu_capability() or kept["cpu"] not in _processor():
        return False
    return all(kept[name].split("+")[0] == version(package).split("+")[0] for name, package in LIBRARIES.items())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text() if info.exists() else ""


def frozen(study: str) -> dict[tuple[Any, ...], list[float | None]]:
    """Value, floor and standard error of each number of a study, by what identifies it."""
    rows = json.loads(FILE.read_text())["rows"]
    return {tuple(row[1:9]): row[9:] for row in rows if row[0] == study}


def measured(rows: Sequence[dict[str, Any]]) -> dict[tuple[Any, ...], list[float | None]]:
    """The same of an export's rows."""
    names = ("role", "model", "prior", "seed", "stage", "split", "images", "metric")
    kept = [row for row in rows if row["metric"] and not row["metric"].startswith("speed")]
    return {tuple(row[name] for name in names): [row[n] for n in ("value", "floor", "se")] for row in kept}


def differences(study: str, rows: Sequence[dict[str, Any]], *, exact: bool) -> list[str]:
    """What differs between an export's rows and the frozen ones, a line each; empty where nothing does."""
    before, now = frozen(study), measured(rows)
    largest: dict[str, float] = {}
    for key, values in before.items():
        largest[key[-1]] = max(largest.get(key[-1], 0.0), *(abs(value) for value in values if value is not None))
    lines = []
    for key, values in now.items():
        if key not in before:
            lines.append(f"{key}: not among the frozen values")
            continue
        for name, old, new in zip(("value", "floor", "se"), before[key], values, strict=True):
            if old == new:
                continue
            tolerance = ADVERSARIAL[name] if key[1] == "wae-gan" else ELSEWHERE
            margin = 0.0 if exact or old is None else tolerance * max(abs(old), largest[key[-1]] / 100)
            if old is None or new is None or abs(old - new) > margin:
                lines.append(f"{key}: {name} was {old}, is {new}")
    return lines
