"""A store of many finished runs that were never trained: what the commands that read runs are measured on.

Every file is written by the store's own writers, from a grid that `genbench run` plans, so the same command finds all
of it done. Numbers are drawn around those of a real study; the records have a real one's size (14 kB of metrics a run).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import msgspec
import torch

from genbench.api import DataConfig
from genbench.data.images import save_grid
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, plan
from genbench.experiment.run import Component, Run
from genbench.registry.loader import Registry, load
from genbench.storage.run_dir import RECONSTRUCTIONS, SAMPLES, WEIGHTS, RunFolder
from genbench.storage.schema import MetricRecord
from genbench.utils.io import save_tensors

METRICS = ("fid", "reconstruction", "latent-w2", "latent-sw", "nearest-train", "sharpness", "speed")
MODELS, PRIORS = ("swae", "wae-gan", "wae-mmd", "vae"), ("normal", "uniform", "mixture", "sphere")


@dataclass(frozen=True)
class Shape:
    """How a store's runs fall into groups; `arguments` is what `genbench run` is given for them."""

    name: str
    models: tuple[str, ...]
    priors: tuple[str, ...]
    latent_dims: tuple[int, ...]
    seeds: int

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(self.models) * len(self.priors) * len(self.latent_dims) * self.seeds

    @property
    def arguments(self) -> list[str]:
        """The command line of the study."""
        lists = {"--prior": self.priors, "--latent-dim": map(str, self.latent_dims), "--metrics": METRICS}
        options = [word for option, names in lists.items() for word in (option, ",".join(names))]
        return [*self.models, *options, "--seeds", str(self.seeds), "--network", "mlp", "--epochs", "100"]


DEEP = Shape("20 groups x 500 seeds", MODELS, ("normal",), (2, 4, 8, 16, 32), 500)
WIDE = Shape(
    "2,000 groups x 5 seeds", ("swae", "wae-mmd", "ae", "wae-gan"), ("normal", "mixture"), tuple(range(2, 252)), 5
)

# component, mean, unit, higher_is_better, n, floor, standard error, p, label
NUMBERS: Mapping[
    str, tuple[tuple[str, float, str, bool | None, int, float | None, float | None, float | None, str], ...]
] = {
    "fid": (("", 41.0, "squared feature distance", False, 10000, 0.306, 0.313, None, "FID (grey28)"),),
    "reconstruction": (
        ("pixel", 0.0857, "squared intensity", False, 10000, 0.0, None, None, "MSE per pixel"),
        ("image", 67.2, "squared intensity", False, 10000, 0.0, None, None, "MSE per image"),
    ),
    "latent-w2": (
        ("", 3.18, "code units", None, 2000, 1.47, 0.0215, None, "latent W2"),
        ("excess", 8.49, "squared code units", False, 2000, 0.0, 0.137, 0.0005, "latent W2² excess"),
    ),
    "latent-sw": (
        ("", 0.639, "code units", None, 2000, 0.0528, 0.0085, None, "latent SW2"),
        ("excess", 0.403, "squared code units", False, 2000, 0.0, 0.0108, 0.0004, "latent SW2² excess"),
    ),
    "nearest-train": (
        ("", 0.212, "intensity", None, 1000, 0.133, 0.00084, None, "distance to the nearest training image"),
        ("copies", 0.003, "share", False, 1000, 0.0, None, None, "copies of training images"),
    ),
    "sharpness": (("", 0.0827, "squared intensity", None, 10000, 0.147, None, None, "Sharpness (floor: real)"),),
    "speed": (
        ("images-per-second", 16271.0, "images/s", True, 6000000, None, None, None, "images per second"),
        ("seconds", 368.0, "s", False, 6000000, None, None, None, "seconds"),
        ("parameters", 478792.0, "", None, 6000000, None, None, None, "parameters"),
        ("peak-memory", 793.0, "MiB", None, 6000000, None, None, None, "peak memory"),
    ),
}
PROVENANCE = {
    "command": "genbench run swae wae-gan wae-mmd vae --network mlp --epochs 100",
    "genbench": "0.1.0",
    "commit": "0" * 12,
    "python": "3.11.7",
    "packages": {"torch": "2.14.1", "torchvision": "0.29.1", "POT": "0.9.7", "numpy": "2.4.6", "scipy": "1.17.1"},
    "device": "cpu (synthetic)",
    "threads": 1,
    "system": "Linux x86_64",
    "content": "1d7fbb520550696c5b950516fbf85dd3de182cae2075101c5d52d159f10276f3",
}


def planned(shape: Shape, data_config: DataConfig, registry: Registry | None = None) -> Plan:
    """The plan that `genbench run` makes of the shape's arguments."""
    grid = ExperimentConfig(
        models=shape.models,
        dataset="glyphs",
        priors=shape.priors,
        latent_dims=shape.latent_dims,
        network="mlp",
        seeds=tuple(range(shape.seeds)),
        batch=128,
        metrics=METRICS,
        epochs=100,
    )
    return plan(grid, registry or load(), data_config)


def fill(store: Path, shape: Shape) -> None:
    """Write every run of the shape as trained and measured, with its log and two small pictures."""
    data_config = DataConfig(data_root=store, cache=store.parent / "cache")
    made = planned(shape, data_config)
    picture = torch.randint(0, 256, (64, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    store.mkdir(parents=True, exist_ok=True)
    save_grid(store.parent / "picture.png", picture)
    save_tensors(store.parent / WEIGHTS, {"weight": torch.zeros(4)})
    with _not_waiting_for_the_disk():
        for run in made.runs:
            _write(RunFolder(store / run.name), run, made.metrics, store.parent)


@contextmanager
def _not_waiting_for_the_disk() -> Iterator[None]:
    with patch.object(os, "fsync", lambda _: None):
        yield


def _write(folder: RunFolder, run: Run, metrics: tuple[Component, ...], shared: Path) -> None:
    draws = random.Random(run.key)
    folder.begin(run.record(), PROVENANCE)
    (folder.path / "lock").touch()
    for images in range(0, run.images + 1, run.images // 60):
        folder.log({"step": images // run.batch, "images": images, "loss": draws.random(), "fit": draws.random()})
    cost = {"seconds": 368.0 * (1 + draws.random()), "images": run.images, "parameters": 478792, "device": "cpu"}
    cost |= {"threads": 1, "peak_memory": 831455232, "flops": 1.5e13}
    folder.save_training(cost)
    for name, original in ((SAMPLES, "picture.png"), (RECONSTRUCTIONS, "picture.png"), (WEIGHTS, WEIGHTS)):
        os.link(shared / original, folder.path / name)
    quality = 1 + 0.2 * random.Random(repr(replace(run, seed=0))).random()
    folder.save_measurements({choice.key: _measured(choice, draws, quality) for choice in metrics})


def _measured(choice: Component, draws: random.Random, quality: float) -> MetricRecord:
    numbers = []
    for component, mean, unit, higher_is_better, n, floor, se, p_value, label in NUMBERS[choice.name]:
        how = {
            "method": f"that of {choice.name}, described in as many words as a real method",
            "dataset": PROVENANCE["content"],
            "preparation": "drawn from stroke skeletons, 28x28, seed 180401947",
            "split": "test",
            "references": n,
            "generated": n,
            "values": "0..255, rounded to uint8; grey repeated to three channels",
            "resize": "none",
            "extractor": "grey28",
            "layer": "128",
            "weights": "shipped 82cd032d1d9e",
            "dtype": "float32",
            "draws": "from the run's seed and the purpose alone, the same for every model",
            "detail": "",
        }
        value = mean if unit == "share" else mean * quality * (1 + draws.gauss(0, 0.03))
        numbers.append(
            {
                "value": value,
                "unit": unit,
                "higher_is_better": higher_is_better,
                "n": n,
                "protocol": f"{choice.key[:6]}{len(component):02d}",
                "component": component,
                "role": "memorization" if component == "copies" else "",
                "floor": floor,
                "label": label,
                "floor_sd": None if floor is None else 0.0376,
                "se": se,
                "low": None,
                "high": None,
                "p_value": p_value,
                "minimum_detectable_effect": 0.04 if p_value else None,
                "how": how,
            }
        )
    facts = {"metric": choice.name, "options": choice.values, "split": "test", "error": "", "inapplicable": ""}
    return msgspec.convert({**facts, "numbers": numbers}, MetricRecord)
