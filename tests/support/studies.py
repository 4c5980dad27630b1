"""A tiny study through the command line, tidy rows made by hand, and the text of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from click.testing import Result

from genbench.api import EvalProtocol, Measurement
from genbench.evaluation.measure import to_stored
from genbench.experiment.run import Component, Run
from genbench.storage.results import Row
from genbench.storage.run_dir import RunFolder
from genbench.storage.schema import MetricRecord

DOTS = ("--plugin", str(Path(__file__).parents[1] / "fixtures" / "dots.py"))
TINY = ("--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--images", "320", "--batch", "16")
TINY_NULL = ("--set", "latent-w2.n=40", "--set", "latent-w2.replicates=2")
TINY_METRICS = ("--metrics", "reconstruction,latent-w2,sharpness", *TINY_NULL)


def study(genbench: Callable[..., Result], *more: str) -> Result:
    """Train swae and vae on the tiny dataset."""
    return genbench("run", "swae", "vae", *DOTS, *TINY, *TINY_METRICS, *more)


ROLES = {"fid": "sample quality", "nearest-train.copies": "memorization", "fid-ladder.prior": "ladder"}
"""The roles of the metrics that rows are made of."""


def row(model: str = "swae", seed: int = 0, value: float | None = 1.0, metric: str = "fid", **facts: object) -> Row:
    """A row of a study; `facts` override."""
    known: dict[str, object] = {
        "run": f"{model}-s{seed}",
        "group": f"g-{model}",
        "label": model,
        "dataset": "glyphs",
        "model": model,
        "prior": "normal",
        "network": "conv",
        "latent_dim": 8,
        "seed": seed,
        "images": 1000,
        "metric": metric,
        "metric_role": ROLES.get(metric, ""),
        "value": value,
        "higher_is_better": False,
        "n": 500,
        "protocol": "aaaa1111",
    }
    return Row(**{**known, **facts})  # type: ignore[arg-type]


RECIPE_TEXT = """
name = "r"
about = "a"
citation = "c"
[protocols.p]
layer = "2048"
[[cells]]
name = "one"
dataset = "dots"
models = ["swae", "ae"]
priors = ["normal"]
latent-dims = [2]
network = "mlp"
seeds = 2
images = 64
batch = 16
metrics = ["reconstruction"]
lambda = "as it is"
[[published]]
cell = "one"
model = "swae"
metric = "reconstruction.pixel"
value = 1
margin = 0.5
protocol = "p"
source = "s"
"""


def fake_run(model: str = "swae", seed: int = 0, prior: str = "normal", **dataset: Any) -> Run:
    """A run of components that need not exist; `dataset` are fields of its dataset."""
    parts = {kind: Component(kind, (), f"{kind}-source") for kind in ("network", "prior", "model", "dataset")}
    parts["dataset"] = replace(parts["dataset"], name="folder", **dataset)
    parts |= {"model": replace(parts["model"], name=model), "prior": replace(parts["prior"], name=prior)}
    return Run(**parts, latent_dim=2, seed=seed, images=160, batch=16)


def store_run(folder: Path, run: Run, started: str = "", content: str = "images", **values: float) -> Path:
    """Write the folder of a trained run with one number for each metric, and without its weights."""
    at = RunFolder(folder / run.name)
    at.begin(run.record(), {"content": content, **({"started": started} if started else {})})
    cost = {"seconds": 1.0, "images": 160, "parameters": 9, "device": "cpu", "threads": 1}
    at.save_training({**cost, "peak_memory": None, "flops": None})
    (at.path / "weights.safetensors").touch()
    how = EvalProtocol("m", "d", "none", "test", 0, 10, "uint8")
    number = partial(Measurement, unit="u", higher_is_better=False, n=10, protocol=how)
    numbers = {
        name: MetricRecord(name, {}, "test", numbers=(to_stored(number(value=value)),))
        for name, value in values.items()
    }
    at.save_measurements(numbers)
    return at.path
