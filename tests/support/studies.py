"""A tiny study through the command line, tidy rows made by hand, and the text of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from genbench.storage.results import Row

DOTS = ("--plugin", str(Path(__file__).parents[1] / "fixtures" / "dots.py"))
TINY = ("--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--images", "320", "--batch", "16")
TINY_METRICS = ("--metrics", "reconstruction,latent-w2,sharpness", "--set", "latent-w2.n=40")


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
