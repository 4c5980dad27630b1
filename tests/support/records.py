"""Run records and a listing of plug-ins made by hand: nothing is trained or loaded."""

from __future__ import annotations

from pathlib import Path

from genbench.experiment.run import Component, Run
from genbench.registry.listing import ListedComponent, ListedOption, Listing
from genbench.storage.run_dir import RunRecord
from genbench.storage.schema import MetricRecord, StoredMeasurement, TrainingRecord

BIBTEX = {
    "arXiv:1804.01947": "@misc{kolouri2019swae,\n  author = {Kolouri, S.},\n  title = {SWAE},\n  year = {2019}\n}",
    "some/code": "@misc{some-code,\n  author = {{some}},\n  title = {code},\n  year = {2020}\n}",
    "torch": "@misc{torch,\n  author = {{torch}},\n  title = {torch},\n  year = {2019}\n}",
}


def component(name: str, **options: object) -> Component:
    return Component(name, tuple(sorted(options.items())), f"{name:0<12.12}")  # type: ignore[arg-type]


def record(model: str = "swae", seed: int = 0, value: float = 1.0, **facts: object) -> RunRecord:
    """A trained run with one number by fid; `facts` override."""
    run = Run(
        component("glyphs"),
        component(model, weight=10.0),
        component("normal"),
        component("mlp", width=200),
        latent_dim=8,
        seed=seed,
        images=1000,
        batch=100,
    )
    number = StoredMeasurement(
        *(value, "unit", False, 500, "aaaa1111", "", "sample quality", 0.4, "FID (x_1)", 0.01, 0.2, None, None, None),
        None,
        {"method": "Frechet distance", "extractor": "grey", "split": "test"},
    )
    known: dict[str, object] = {
        "path": Path("runs") / run.name,
        "files": frozenset(),
        "run": run,
        "provenance": {
            "command": "genbench run swae --dataset glyphs",
            "genbench": "0.2.0",
            "commit": "c0ffee123456",
            "python": "3.11",
            "packages": {"torch": "2.6", "scipy": "absent"},
            "device": "cpu (x)",
            "system": "Linux",
            "content": "d" * 64,
        },
        "state": "trained",
        "training": TrainingRecord(3, 12.5, 1000, 4321, "cpu", 1, None, 5e9),
        "measurements": {"key": MetricRecord("fid", {"n": 500}, "test", numbers=(number,))},
        "snapshots": {},
        "selections": {},
        "failure": "",
        "imported": None,
    }
    return RunRecord(**{**known, **facts})  # type: ignore[arg-type]


def listing(bibtex: dict[str, str] | None = None, reference: str = "arXiv:1804.01947") -> Listing:
    """A listing with every component of `record`; the model's reference is given."""
    weight = ListedOption("weight", "float", "1", "lambda", "some/code, for MNIST", "above 0")
    width = ListedOption("width", "int", "200", "units", "ours", "")
    components = {
        "model": (ListedComponent("swae", "Sliced & $quick$", reference, "p", (weight,)),),
        "prior": (ListedComponent("normal", "N(0, I)", "ours", "p"),),
        "network": (ListedComponent("mlp", "units", "ours: a guess", "p", (width,)),),
        "dataset": (ListedComponent("glyphs", "digits_drawn", "", "p"),),
        "metric": (ListedComponent("fid", "distance", "arXiv:1706.08500", "p"),),
        "extractor": (ListedComponent("grey", "small", "ours", "p"),),
    }
    return Listing((), components, {}, BIBTEX if bibtex is None else bibtex)
