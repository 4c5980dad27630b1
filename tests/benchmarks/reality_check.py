"""The reality check: every model tuned alike, ten fresh seeds, several metrics; which differences are real?

    python tests/benchmarks/reality_check.py run --out RUNS --data-root DIR --jobs 2
    python tests/benchmarks/reality_check.py page --out RUNS [--report reports/reality]

`run` may be killed at any time and started again, and does a dataset after the other, three seeds before all ten.
`page` writes README.md, its rows and figures from the runs that are there. The design is in reality_check.md.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import genbench
from genbench.errors import GenbenchError
from genbench.registry.loader import load
from genbench.utils.io import write_json

DATASETS = ("mnist", "fashion-mnist", "glyphs")
PRIORS = {"vmf-vae": "sphere"}
"""The prior of each model that refuses the normal one."""

CONTROLS = ("untrained", "mean-image", "pca")
METRICS = (
    *("fid", "kid", "pixel-sw", "reconstruction", "latent-sw", "latent-w2", "knn-probe", "nearest-train"),
    *("nll", "elbo", "active-units", "code-nll"),
)
METRIC_OPTIONS = {
    "kid.count": 200,
    "kid.subsets": 20,
    "latent-w2.n": 1000,
    "knn-probe.n": 2000,
    "nearest-train.n": 500,
    "nll.n": 500,
}
"""Fewer images than usual where a number would cost more than two seconds of a core."""

DATASET_OPTIONS: dict[str, dict[str, Any]] = {
    "mnist": {"mnist.validation": 5000},
    "fashion-mnist": {"fashion-mnist.validation": 5000},
}
SIZES = {"mlp.width": 128, "mlp.depth": 2, "wae-gan.width": 128, "factor-vae.width": 128}
"""Layers of the small network, and of the critics, which would cost seven times the autoencoder at their 512 units."""

FIRST_SEEDS = 3
"""Seeds that all models have before any has more."""

SOME_SEEDS = 5
"""Seeds that are measured by the second extractor and by samples of the mixture."""


@dataclass(frozen=True)
class Pass:
    """Some metrics of all models, by some seeds."""

    metrics: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    samplers: tuple[str, ...] = ("prior",)
    seeds: int = 0
    controls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Design:
    """What a study trains; it is written beside the runs, and another one in the same folder is refused.

    `images` are those shown in a training, `trials` those of each model, the default first.
    """

    models: tuple[str, ...]
    datasets: tuple[str, ...] = DATASETS
    trials: int = 12
    images: int = 200_000
    seeds: int = 10
    extractor: str = "efficientnet-lite0"
    """The second extractor, of KID; "": none."""
    batch: int = 128
    latent_dim: int = 8
    options: dict[str, int] = field(default_factory=lambda: dict(SIZES))

    def arguments(self, dataset: str, names: Sequence[str]) -> dict[str, Any]:
        """The arguments that searches and studies of these models, of one prior, share."""
        sizes = {key: size for key, size in self.options.items() if key.split(".")[0] in ("mlp", *names)}
        return {
            "models": list(names),
            "dataset": dataset,
            "priors": PRIORS.get(names[0], "normal"),
            "latent_dims": self.latent_dim,
            "network": "mlp",
            "images": self.images,
            "batch": self.batch,
            "options": {**sizes, **DATASET_OPTIONS.get(dataset, {})},
        }

    def passes(self) -> list[Pass]:
        """What is done to a dataset, the most useful first; runs are trained once, and later passes measure more."""
        few, some = (min(count, self.seeds) for count in (FIRST_SEEDS, SOME_SEEDS))
        main = Pass(METRICS, METRIC_OPTIONS | {"kid.features": "grey28"})
        further = [replace(main, seeds=self.seeds), Pass(("fid",), samplers=("gmm",), seeds=some)]
        if self.extractor:
            options = {name: value for name, value in METRIC_OPTIONS.items() if name.startswith("kid.")}
            options["kid.features"] = self.extractor
            further.append(Pass(("kid",), options, seeds=some, controls=CONTROLS))
        return [replace(main, seeds=few, controls=CONTROLS), *further]

    def groups(self) -> list[list[str]]:
        """The models of each prior."""
        priors: dict[str, list[str]] = {}
        for name in self.models:
            priors.setdefault(PRIORS.get(name, "normal"), []).append(name)
        return list(priors.values())


def do_dataset(design: Design, dataset: str, out: Path, data_root: str | None, jobs: int) -> list[str]:
    """Search, train and measure on one dataset; a line for each part that failed."""
    problems: list[str] = []
    common = {"data_root": data_root, "jobs": jobs, "threads": 1, "out": out / dataset, "progress": True}

    def attempt(function: Callable[..., Any], names: Sequence[str], each: Pass, **more: Any) -> bool:
        arguments = {**design.arguments(dataset, names), **common, **more}
        arguments["options"] |= each.options
        began = time.monotonic()
        print(
            f"{dataset}: {function.__name__} {' '.join(names)}: {' '.join(each.metrics)}, {each.seeds} seeds",
            flush=True,
        )
        try:
            study = function(**arguments, metrics=each.metrics, samplers=each.samplers, seeds=each.seeds)
        except GenbenchError as error:
            problems.append(f"{dataset}, {function.__name__} {' '.join(names)}: {error}")
            return False
        problems.extend(f"{dataset}, {name}: {cause}" for name, cause in study.failed.items())
        print(f"{dataset}: {time.monotonic() - began:.0f} s", flush=True)
        return True

    for each in design.passes():
        for names in design.groups():
            search = {"trials": design.trials, "metric": "fid"}
            if not attempt(genbench.tune, names, each, **search) and len(names) > 1:
                for name in names:  # one model without any good trial does not stop the others
                    attempt(genbench.tune, [name], each, **search)
            attempt(genbench.run, names, each)
        if each.controls:
            few = replace(each, seeds=min(FIRST_SEEDS, design.seeds))
            attempt(genbench.run, design.groups()[0][:1], few, controls=each.controls)
    return problems


def keep_design(design: Design, out: Path) -> None:
    """Write the design beside the runs; `SystemExit` where another one is there."""
    path, plain = out / "design.json", json.loads(json.dumps(asdict(design)))
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != plain:
            differing = [
                f"{key} {before.get(key)!r}, now {plain[key]!r}" for key in plain if before.get(key) != plain[key]
            ]
            raise SystemExit(f"{out} holds the runs of another design ({'; '.join(differing)}): name another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, plain)


def main() -> None:
    """Run, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["run", "page"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--report", type=Path, default=Path(__file__).parents[2] / "reports" / "reality")
    parser.add_argument("--data-root", help="folder of MNIST and Fashion-MNIST")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--datasets", default=",".join(DATASETS))
    parser.add_argument("--models", help="comma-separated [all]")
    parser.add_argument("--extractor", default=Design.extractor, help="the second one; '': none")
    for name in ("trials", "images", "seeds"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Design, name))
    asked = parser.parse_args()
    if asked.what == "page":
        from reality_page import write_page

        print(write_page(asked.out, asked.report))
        return
    models = tuple(asked.models.split(",") if asked.models else load([]).names("model"))
    counts = {name: getattr(asked, name) for name in ("trials", "images", "seeds")}
    design = replace(Design(models, tuple(asked.datasets.split(",")), extractor=asked.extractor), **counts)
    keep_design(design, asked.out)
    warnings.simplefilter("always")
    problems = [
        line
        for dataset in design.datasets
        for line in do_dataset(design, dataset, asked.out, asked.data_root, asked.jobs)
    ]
    print("\n".join(["done", *problems]), flush=True)


if __name__ == "__main__":
    main()
