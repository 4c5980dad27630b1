"""The page of the reality check, from fabricated runs: its sentences follow from the rows, and name them."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from reality_check import Design, keep_design
from reality_page import Citations, contradictions, write_page

from genbench.api import EvalProtocol, Measurement
from genbench.evaluation.measure import to_stored
from genbench.experiment.run import Component, Run
from genbench.storage.run_dir import RunFolder, save_searches
from genbench.storage.schema import MetricRecord, SearchRecord, StoredRun, StoredSearch, TrialRecord
from genbench.tuning.choice import chosen_run

MODELS = {"ae": 90.0, "swae": 30.0, "vae": 29.9}
"""Each model's FID. By the trials swae and vae are alike; vae's choice was lucky, and differs on fresh seeds."""


def train(run: Run, runs: Path) -> RunFolder:
    """The folder of a run that has been trained, as far as a reader can tell."""
    folder = RunFolder(runs / run.name)
    folder.begin(run.record(), {"content": "images"})
    cost = {"seconds": 1.0, "images": 160, "parameters": 9, "device": "cpu", "threads": 1}
    folder.save_training({**cost, "peak_memory": None, "flops": None})
    (folder.path / "weights.safetensors").touch()
    return folder


def fabricate(out: Path) -> None:
    """Three models: a search of seven trials each, and on one of two datasets three seeds at either option."""
    keep_design(Design(tuple(MODELS), ("mnist", "glyphs"), trials=7, seeds=3), out)
    how = EvalProtocol("m", "d", "none", "test", 0, 10, "uint8")
    searches = {}
    for model, fid in MODELS.items():
        parts = {kind: Component(kind, (), kind) for kind in ("dataset", "prior", "network")}
        component = Component(model, (("rate", 0.001),), "source")
        first = Run(**parts, model=component, latent_dim=2, seed=10_000, images=160, batch=16, role="trial")
        trials = [TrialRecord({"rate": 0.001 * (k + 1)}, "t", fid - k % 5 + 0.1 * k) for k in range(7)]
        searches[model] = SearchRecord(
            model=model,
            run=msgspec.convert(first.record(), StoredRun),
            algorithm="random",
            seed=10_000,
            by="trials",
            space={"rate": StoredSearch("log", 1e-4, 1e-2)},
            metric="fid",
            metric_options={},
            higher_is_better=False,
            protocol="p",
            trials=tuple(trials),
            chosen=4,
        )
        for gain, options in (
            (0.0, replace(first, role="model")),
            (12.0 if model == "vae" else 5.0, chosen_run(searches[model], 0)),
        ):
            for seed in range(3):
                folder = train(replace(options, seed=seed), out / "mnist")
                value = fid - gain + (seed, -seed, 2 * seed)[list(MODELS).index(model)] * 0.3
                number = Measurement(value=value, unit="u", higher_is_better=False, n=10, protocol=how)
                folder.save_measurements({"fid": MetricRecord("fid", {}, "test", numbers=(to_stored(number),))})
    train(first, out / "glyphs")  # glyphs has trials alone: there is nothing to compare yet
    for dataset in ("mnist", "glyphs"):
        save_searches(out / dataset, searches)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the page."""
    path = tmp_path_factory.mktemp("reality")
    fabricate(path / "runs")
    return Path(write_page(path / "runs", path / "page")).parent


def test_real_pairs_are_those_in_which_both_tests_agree(page: Path) -> None:
    with (page / "pairs.csv").open(encoding="utf-8", newline="") as file:
        tuned = [line for line in csv.DictReader(file) if line["condition"] == "tuned"]
    assert {(line["a"], line["b"]): line["real"] for line in tuned} == {
        ("ae", "swae"): "True",
        ("ae", "vae"): "True",
        ("swae", "vae"): "False",
    }
    assert [line["real_alone"] for line in tuned] == ["True", "True", "False"]
    assert {(line["a"], line["b"]): line["better"] for line in tuned} == {
        ("ae", "swae"): "swae",
        ("ae", "vae"): "vae",
        ("swae", "vae"): "vae",
    }


def test_every_citation_leads_to_a_line_and_what_is_missing_is_said(page: Path) -> None:
    text = (page / "README.md").read_text(encoding="utf-8")
    cited = {int(number) for number in re.findall(r"\[\[(\d+)\]\]\(#rows\)", text)}
    listed = {int(number) for number in re.findall(r"^(\d+)\. `\w+\.csv` where", text, re.MULTILINE)}
    assert cited == listed
    assert cited
    assert "* glyphs: nothing yet." in text
    assert "## glyphs" not in text
    assert re.search(r"pairs that \*\*really\*\* differ \| \*\*2\*\* of 3 \[\[", text)
    assert all((page / name).exists() for name in re.findall(r"\]\(([\w-]+\.png)\)", text))


def test_numbers_that_say_the_opposite_of_a_real_pair_on_all_datasets_are_named() -> None:
    """`mixed` does so on one of them alone."""
    ahead = {"fid": ("swae", "swae"), "mse": ("ae", "ae"), "mixed": ("ae", "swae")}
    pairs = [
        {"condition": "tuned", "a": "ae", "b": "swae", "view": view, "dataset": dataset, "ahead": model}
        for view, models in ahead.items()
        for dataset, model in zip(("mnist", "glyphs"), models, strict=True)
    ]
    (sentence,) = contradictions("swae", "ae", ["mnist", "glyphs"], Citations({"pairs": pairs}))
    assert sentence.startswith("By mse the means of `swae` and `ae` are the other way round on all of them")
    assert contradictions("ae", "swae", ["mnist"], Citations({"pairs": pairs[:1]}))
    assert not contradictions("swae", "ae", ["mnist"], Citations({"pairs": pairs[:1]}))
