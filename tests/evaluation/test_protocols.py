"""Of every bundled metric: an option that changes a number changes its protocol, and other metrics change neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import genbench.features.extractor
from genbench.api import ComponentSpec, DataConfig, Images, Measurement, Split, TrainingStats
from genbench.data.images import with_content
from genbench.evaluation.evaluation import RunEvaluation
from genbench.experiment.build import create_model
from genbench.experiment.plan import Plan
from genbench.registry.loader import Registry, load
from genbench.registry.options import OptionSpec, specs
from genbench.testing.synthetic import pictures
from genbench_grey28 import Grey28, Grey28Network
from genbench_torchvision import MNIST

TRAIN, TEST, VALIDATION = 600, 160, 150
OTHER = "grey28-halved"

SMALL: Mapping[str, Mapping[str, Any]] = {
    "active-units": {"n": 100},
    "authpct": {"n": 100, "training": 60},
    "class-balance": {"n": 200},
    "clustering": {"n": 120},
    "code-nll": {"n": 100},
    "data-copying": {"n": 150, "training": 500, "cells": 2},
    "dci": {"n": 120, "train": 200, "trees": 4},
    "elbo": {"n": 100},
    "fld-gap": {"n": 100, "training": 400, "held_out": 100, "steps": 4},
    "knn-probe": {"n": 120, "train": 200},
    "linear-probe": {"n": 120, "train": 200},
    "mig": {"n": 120, "bins": 10},
    "mind": {"count": 150, "projections": 100},
    "mutual-information": {"n": 100},
    "nll": {"n": 60, "samples": 40},
    "sap": {"n": 120, "train": 200},
    "density-coverage": {"count": 150},
    "precision-recall": {"count": 150},
    "fid": {"count": 150},
    "fid-infinity": {"count": 560, "partitions": 2},
    "fid-interpolation": {"count": 150},
    "fid-ladder": {"count": 150, "codes": 200, "components": 2},
    "inception-score": {"n": 200, "splits": 4},
    "kid": {"count": 150, "subsets": 40, "subset_size": 50},
    "latent-w2": {"n": 80, "blocks": 4, "replicates": 2},
    "latent-sw": {"n": 80, "blocks": 4, "replicates": 2, "projections": 40},
    "latent-mmd": {"n": 80, "blocks": 4, "replicates": 2},
    "nearest-train": {"n": 100, "fraction": 1.0, "training": 60},
    "pixel-w2": {"n": 80, "blocks": 4},
    "pixel-sw": {"n": 80, "blocks": 4, "projections": 40},
    "ms-ssim": {"n": 60, "scales": 2},
    "psnr": {"n": 100},
    "reconstruction": {"n": 100},
    "ring-coverage": {"n": 120},
    "sharpness": {"n": 100},
    "ssim": {"n": 60},
}
"""Options that make a metric cheap enough for this file; those that are not named keep their defaults."""

TEXTS = {"features": OTHER, "layer": "logits"}
COUNTED = {"k", "splits", "blocks", "replicates", "partitions", "components", "cells", "trees", "bins", "steps"}
"""Small counts, which can only grow here; other numbers are lowered."""

SILENT = {
    "active-units.n",  # an untrained encoder's means hardly vary: no unit is active
    "active-units.threshold",
    "authpct.features",  # what is halved has the same neighbours
    "class-balance.features",  # half of the logits have the same largest one
    "class-balance.n",  # an untrained decoder's samples are all of one class
    "data-copying.features",
    "density-coverage.features",
    "fid.floor",
    "fld-gap.features",  # features are standardized first
    "inception-score.layer",  # the logits are what auto takes
    "nearest-train.layer",  # its features are pixels here, which have no layers
    "precision-recall.features",
}
"""Options whose other value gives the same numbers here."""

UNTRIED = {"weights", "scales"}
"""Files of weights, and scales of larger images: `test_features` and `test_perceptual` have them."""


class HalvedNetwork(Grey28Network):
    def forward(self, images: Tensor) -> Tensor:
        return 0.5 * super().forward(images)


class Halved(Grey28):
    """Another extractor: grey28's features, by half."""

    def network(self, layer: str) -> torch.nn.Module:
        return HalvedNetwork(layer)


METRICS = sorted(load().registrations["metric"].keys() - {"lpips", "dists"})
"""All but those that cannot do without a file of weights: `test_perceptual` has them."""

Make = Callable[..., RunEvaluation]


@pytest.fixture
def run(
    registry: Registry, planned: Callable[..., Plan], data_config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> Make:
    """An evaluation of an untrained model on labelled pictures, its caches new or another's."""
    monkeypatch.setitem(
        genbench.features.extractor._registered, OTHER, ComponentSpec(name=OTHER, description="", factory=Halved)
    )

    def labels(n: int) -> Tensor:
        return torch.arange(n) % 10

    def factors(n: int) -> dict[str, Tensor]:
        return {"third": torch.arange(n) % 3, "place": torch.arange(n).double()}

    images = with_content(
        Images(
            pictures(TRAIN, 1),
            pictures(TEST, 2),
            pictures(VALIDATION, 3),
            labels(TRAIN),
            labels(TEST),
            labels(VALIDATION),
            class_names=MNIST.class_names,
            train_factors=factors(TRAIN),
            test_factors=factors(TEST),
            validation_factors=factors(VALIDATION),
        )
    )

    def make(
        model: str = "vae", seed: int = 0, split: Split = "test", memory: dict[str, Any] | None = None
    ) -> RunEvaluation:
        torch.manual_seed(3)
        made = create_model(registry, planned(model, latent_dims=(4,)).runs[0], (1, 28, 28))
        return RunEvaluation(
            made,
            made.context,
            images,
            seed=seed,
            device=torch.device("cpu"),
            training=TrainingStats(1.0, 1000, 1, "cpu", 1),
            data_config=data_config,
            memory={} if memory is None else memory,
            split=split,
        )

    return make


ALONE: dict[str, dict[str, Measurement]] = {}
"""What each metric says of the vae with new caches, once measured."""


def measured(registry: Registry, name: str, e: RunEvaluation, **options: Any) -> dict[str, Measurement]:
    metric = registry.get("metric", name).spec.factory(**{**SMALL.get(name, {}), **options})
    with torch.no_grad():
        return {m.component: m for m in metric.measure(e)}


def another(name: str, spec: OptionSpec) -> Any:
    """A value of an option that is not the one it has here."""
    now = SMALL.get(name, {}).get(spec.name.replace("-", "_"), spec.default)
    if spec.choices:
        return next(choice for choice in spec.choices if choice != now)
    if spec.type is bool:
        return not now
    if spec.type is str:
        return TEXTS[spec.name]
    if spec.type is float:
        return now * 1.0000001
    return now + 1 if spec.name in COUNTED else now - 20


def differs(a: Measurement, b: Measurement) -> bool:
    """Whether one of two measurements says another number than the other; what only one of them has is no number."""
    both = zip(
        (a.value, a.floor, a.p_value, a.minimum_detectable_effect),
        (b.value, b.floor, b.p_value, b.minimum_detectable_effect),
        strict=True,
    )
    return any(x != y for x, y in both if x is not None and y is not None)


@pytest.mark.parametrize("name", METRICS)
def test_an_option_that_changes_a_number_changes_its_protocol(name: str, run: Make, registry: Registry) -> None:
    memory: dict[str, Any] = {}
    first = ALONE[name] = measured(registry, name, run(memory=memory))
    for spec in specs(registry.get("metric", name).spec.factory).values():
        if spec.name in UNTRIED:
            continue
        second = measured(registry, name, run(memory=memory), **{spec.name.replace("-", "_"): another(name, spec)})
        components = {
            component for component in first.keys() & second.keys() if differs(first[component], second[component])
        }
        assert bool(components) != (f"{name}.{spec.name}" in SILENT), f"{spec.name}: the other value shows nothing"
        clash = [
            component for component in components if first[component].protocol.key == second[component].protocol.key
        ]
        assert not clash, f"{spec.name} changes {clash} under one protocol"
    assert measured(registry, name, run(memory=memory)) == first, "other options left something in the caches"


def test_no_number_depends_on_the_company_or_the_order(run: Make, registry: Registry) -> None:
    """Not on other metrics, models, seeds and splits that were measured before it with the same caches."""
    alone = {name: ALONE.get(name) or measured(registry, name, run()) for name in METRICS}
    memory: dict[str, Any] = {}
    for evaluation in (run("dip-vae", seed=1, memory=memory), run(split="validation", memory=memory)):
        for name in METRICS:
            measured(registry, name, evaluation)
    shared = run(memory=memory)
    for name in reversed(METRICS):
        assert measured(registry, name, shared) == alone[name], name


def test_a_split_is_part_of_the_protocol_of_the_numbers_it_changes(run: Make, registry: Registry) -> None:
    evaluations = [run(split="test"), run(split="validation")]  # one each, since no number depends on its company
    for name in METRICS:
        test, validation = (measured(registry, name, evaluation) for evaluation in evaluations)
        for component, measurement in test.items():
            if differs(measurement, validation[component]) and measurement.protocol.split != "none":
                assert measurement.protocol.key != validation[component].protocol.key, (name, component)
