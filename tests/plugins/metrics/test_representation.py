"""Codes as representations: planted labels and factors score 1, permuted codes chance, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score
from torch import Generator, Tensor

import genbench_glyphs as glyphs
from genbench.api import DataConfig, DatasetInfo, Images, Measurement, Metric, ModelContext, TrainingStats
from genbench.errors import MetricError, NotApplicableError, UnsupportedError, UsageError
from genbench.evaluation.evaluation import DataEvaluation
from genbench.evaluation.external import ExternalEvaluation, ExternalResults
from genbench.testing.fixtures import Gauss, Small
from genbench_representation.common import groups, jackknife
from genbench_representation.factors import (
    DCI,
    MIG,
    SAP,
    CodedSplit,
    adjusted_accuracy,
    binned,
    concentration,
    explained,
    mutual_information,
)
from genbench_representation.labels import Clustering, LinearProbe, NeighborProbe

N = 400
PROBES = (LinearProbe(n=N, train=N), NeighborProbe(n=N, train=N))
FACTORS = (MIG(n=N), SAP(n=N, train=N), DCI(n=N, train=N, trees=3))
ALL = (*PROBES, Clustering(n=N), *FACTORS)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


class Coded(DataEvaluation):
    """An evaluation with given codes of training and test images, in the dataset's order."""

    def __init__(self, train_codes: Tensor, test_codes: Tensor, split: str = "test", **images: Any) -> None:
        train, test = (torch.zeros(len(codes), 1, 2, 2, dtype=torch.uint8) for codes in (train_codes, test_codes))
        validation = test if split == "validation" else test[:0]
        d = train_codes.shape[1]
        super().__init__(
            ModelContext((1, 2, 2), d, Gauss(d), Small((1, 2, 2))),
            Images(train, test, validation, sha256="0" * 64, **images),
            seed=0,
            device=torch.device("cpu"),
            training=TrainingStats(1.0, 1, 1, "cpu", 1),
            data_config=DataConfig(Path(), Path()),
            memory={},
            split=cast(Any, split),
        )
        self.train_codes, self.test_codes = train_codes, test_codes

    def codes(self, n: int) -> Tensor:
        return self.test_codes[self.order(n)]

    def training_codes(self, n: int) -> Tensor:
        return self.train_codes[self._training_order(n)]


def labelled(spread: float, d: int = 3, classes: int = 4, split: str = "test") -> Coded:
    """Codes around a centre for each label, with a spread; infinity: codes that know nothing of the label."""
    labels = [torch.randint(classes, (N,), generator=Generator().manual_seed(seed)) for seed in (1, 2)]
    centres = 4.0 * torch.eye(classes)[:, :d] + 1.0
    noise = [draws(N, d, seed=seed) for seed in (3, 4)]
    known = 0.0 if math.isinf(spread) else 1.0
    codes = [
        known * centres[a] + (1.0 if math.isinf(spread) else spread) * b for a, b in zip(labels, noise, strict=True)
    ]
    return Coded(*codes, split=split, train_labels=labels[0], **{f"{split}_labels": labels[1]})


def factors(seed: int, n: int = N) -> dict[str, Tensor]:
    """Independent factors: two discrete ones and two continuous ones."""
    generator = Generator().manual_seed(seed)
    return {
        "shape": torch.randint(3, (n,), generator=generator),
        "size": torch.rand(n, generator=generator, dtype=torch.float64),
        "color": torch.randint(10, (n,), generator=generator),
        "angle": torch.randn(n, generator=generator, dtype=torch.float64),
    }


def planted(n: int = N, mixing: Tensor | None = None) -> Coded:
    """Codes with a unit for each factor, in another order, scaled, and one of noise; or a linear mixture of these."""
    known = [factors(1, n), factors(2, n)]
    codes = []
    for seed, split in enumerate(known):
        units = [-3.0 * split["angle"], split["shape"], draws(n, seed=seed + 5), split["color"] / 9, split["size"] + 7]
        stacked = torch.stack([unit.double() for unit in units], 1)
        codes.append((stacked if mixing is None else stacked @ mixing).float())
    return Coded(codes[0], codes[1], train_factors=known[0], test_factors=known[1])


def measured(metric: Metric, e: Any) -> dict[str, Measurement]:
    return {number.component: number for number in metric.measure(e)}


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize("metric", PROBES, ids=lambda metric: metric.name)
def test_codes_apart_by_label_are_classified_without_error(metric: Metric, split: str) -> None:
    number = measured(metric, labelled(0.1, split=split))[""]
    assert number.value == 1.0
    assert number.se is None
    assert number.chance is not None
    assert 0.1 < number.chance < 0.4


@pytest.mark.parametrize("metric", PROBES, ids=lambda metric: metric.name)
def test_codes_that_know_nothing_are_classified_by_chance(metric: Metric) -> None:
    number = measured(metric, labelled(math.inf))[""]
    assert number.chance is not None
    assert number.chance_sd is not None
    assert abs(number.value - number.chance) < 4 * math.hypot(number.chance_sd, number.se or 0.0)
    assert number.se == pytest.approx(math.sqrt(number.value * (1 - number.value) / N))


def test_the_accuracy_has_no_scale_and_the_label_is_that_of_its_image() -> None:
    e = labelled(1.5)
    scale = torch.tensor([1e-3, 1.0, 1e3])
    scaled = Coded(
        e.train_codes * scale,
        e.test_codes * scale,
        train_labels=e.images.train_labels,
        test_labels=e.images.test_labels,
    )
    for metric in PROBES:
        assert measured(metric, scaled)[""].value == pytest.approx(measured(metric, e)[""].value, abs=0.006)
    part = measured(LinearProbe(n=100, train=200), e)[""]  # the first of the same order
    assert part.value > 0.6
    assert part.n == 100


def test_clusters_agree_with_labels_that_are_apart_and_not_with_others() -> None:
    apart, mixed = measured(Clustering(n=N), labelled(0.1)), measured(Clustering(n=N), labelled(math.inf))
    for component in ("ari", "nmi"):
        assert apart[component].value == pytest.approx(1.0)
        chance, sd = mixed[component].chance, mixed[component].chance_sd
        assert chance is not None
        assert sd is not None
        assert abs(mixed[component].value - chance) < 4 * sd
    assert mixed["ari"].chance == pytest.approx(0.0, abs=0.003)


# ---------------------------------------------------------------- factors


@pytest.mark.parametrize("metric", FACTORS, ids=lambda metric: metric.name)
def test_planted_factors_score_1_and_mixtures_and_permuted_codes_do_not(metric: Metric) -> None:
    known = measured(metric, planted())
    generator = Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    mixed = measured(metric, planted(mixing=turned))
    e = planted()
    e.train_codes, e.test_codes = e.train_codes.flip(0), e.test_codes.flip(0)
    permuted = measured(metric, e)
    for component, number in known.items():
        assert number.floor == 1.0
        assert number.value > 0.85
        assert number.chance is not None
        assert number.value > mixed[component].value + (0.05 if component == "informativeness" else 0.3)
        nothing = permuted[component]
        assert nothing.chance is not None
        assert nothing.chance_sd is not None
        assert abs(nothing.value - nothing.chance) < 0.02 + 4 * nothing.chance_sd


@pytest.mark.parametrize("metric", FACTORS[:2], ids=lambda metric: metric.name)
def test_a_factor_that_two_units_know_leaves_no_gap(metric: Metric) -> None:
    e = planted()
    twice = Coded(*(torch.cat([codes, -codes], 1) for codes in (e.train_codes, e.test_codes)), **factors_of(e))
    assert measured(metric, twice)[""].value == pytest.approx(0.0, abs=0.01)


def factors_of(e: Coded) -> dict[str, Any]:
    return {"train_factors": e.images.train_factors, "test_factors": e.images.test_factors}


def test_more_images_bring_planted_factors_nearer_to_1() -> None:
    for metric in (MIG(n=5000), SAP(n=5000, train=2000), DCI(n=1000, train=1000, trees=3)):
        for component, number in measured(metric, planted(5000)).items():
            assert number.value == pytest.approx(1.0, abs=0.03), (metric, component)


def test_the_factors_of_glyphs_are_planted_ones_but_for_variants_of_digits() -> None:
    known = [{name: values[:2000] for name, values in glyphs.factors(split).items()} for split in ("train", "test")]
    codes = [torch.stack([values.float() for values in split.values()], 1) for split in known]
    e = Coded(codes[0], codes[1], train_factors=known[0], test_factors=known[1])
    assert measured(MIG(n=2000), e)[""].value > 0.9
    assert measured(SAP(n=2000, train=2000), e)[""].value > 0.95


def test_jackknife_errors_are_those_of_other_images() -> None:
    turned = torch.linalg.qr(torch.randn(5, 5, generator=Generator().manual_seed(0), dtype=torch.float64)).Q
    e = planted(20 * N, turned)
    values, errors = [], []
    for part in range(20):
        rows = np.arange(part * N, (part + 1) * N)
        split = CodedSplit(e.test_codes.double().numpy(), {k: v.numpy() for k, v in e.images.test_factors.items()})
        values.append(MIG(n=N).numbers(split, split.at(rows))[0])
        parts = [MIG(n=N).numbers(split, split.at(rows).at(rest)) for rest in groups(N, 5)]
        errors.append(jackknife(np.array(parts))[0])
    assert 0.7 < np.mean(errors) / np.std(values) < 1.5


def test_pieces_against_their_formulas() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, 300), rng.integers(0, 6, 300)
    assert mutual_information(a, b) == pytest.approx(mutual_info_score(a, b))
    assert list(binned(np.array([0.0, 0.49, 0.5, 1.0]), 2)) == [0, 0, 1, 1]
    assert adjusted_accuracy(np.zeros(10), np.arange(10) % 2) == 0.0  # a constant guess
    assert adjusted_accuracy(np.arange(10) % 2, np.arange(10) % 2) == 1.0
    assert explained(np.full(4, 2.5), np.arange(1.0, 5.0)) == 0.0
    assert concentration(np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])) == pytest.approx([1, 0, 0])


# ---------------------------------------------------------------- what cannot be measured


def both(codes: Tensor) -> Coded:
    """Codes with labels and factors that vary."""
    labels = torch.arange(len(codes)) % 3
    known = factors(1, len(codes))
    return Coded(codes, codes, train_labels=labels, test_labels=labels, train_factors=known, test_factors=known)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_codes_that_are_not_finite_are_refused_in_one_line(metric: Metric) -> None:
    codes = draws(N, 3)
    codes[7, 1] = torch.nan
    with pytest.raises(MetricError, match=rf"^{cast(Any, metric).name}: 1 of 400 codes hold values that are NaN"):
        measured(metric, both(codes))


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_constant_codes_score_chance_or_are_refused(metric: Metric) -> None:
    e = both(torch.ones(N, 3))
    if isinstance(metric, Clustering):
        with pytest.raises(MetricError, match=r"^clustering: 1 distinct codes make no 3 clusters$"):
            measured(metric, e)
        return
    for number in measured(metric, e).values():
        assert number.value == pytest.approx(number.chance, abs=0.02)
        assert math.isfinite(number.value)


def test_labels_and_factors_that_do_not_vary_are_refused() -> None:
    e = both(draws(N, 3))
    ones = torch.ones(N, dtype=torch.int64)
    same = Coded(e.train_codes, e.test_codes, train_labels=ones, test_labels=ones)
    for metric in (*PROBES, Clustering(n=N)):
        with pytest.raises(MetricError, match="have one label"):
            measured(metric, same)
    with pytest.raises(MetricError, match="the factor size is the same for all 400 images"):
        measured(MIG(n=N), Coded(e.train_codes, e.test_codes, test_factors={"size": ones}))


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_datasets_without_labels_or_factors_are_refused_while_planning(metric: Any) -> None:
    prior, data_config = Gauss(2), DataConfig(Path(), Path())
    info = DatasetInfo((1, 2, 2), 500, 500, classes=3, factors=("size",))
    metric.validate(info, prior, data_config)
    with pytest.raises(UnsupportedError, match="this dataset has none: leave it out of --metrics"):
        metric.validate(DatasetInfo((1, 2, 2), 500, 500), prior, data_config)
    few = DatasetInfo((1, 2, 2), 500, 60, classes=3, factors=("size",))
    with pytest.raises(UsageError, match=rf"--set {metric.name}.n=60$"):
        metric.validate(few, prior, data_config)
    assert metric.fit_to(few) == {"n": 60}
    with pytest.raises(UsageError, match="needs 50 held-out images and the dataset has 9"):
        metric.validate(DatasetInfo((1, 2, 2), 500, 9, classes=3, factors=("size",)), prior, data_config)
    if metric in FACTORS:
        with pytest.raises(UnsupportedError, match="the latent dimension is 1"):
            metric.validate(info, Gauss(1), data_config)


def test_images_without_labels_and_codes_from_elsewhere_do_not_apply() -> None:
    codes = draws(N, 3)
    with pytest.raises(NotApplicableError, match="no labels"):
        measured(Clustering(n=N), Coded(codes, codes))
    with pytest.raises(NotApplicableError, match="factors of the images are not known"):
        measured(MIG(n=N), Coded(codes, codes))
    e = both(codes)
    elsewhere = ExternalEvaluation(
        ExternalResults(codes=codes),
        Gauss(3),
        e.images,
        seed=0,
        device=torch.device("cpu"),
        data_config=DataConfig(Path(), Path()),
        memory={},
    )
    for metric in ALL:
        with pytest.raises(NotApplicableError, match="trained elsewhere"):
            measured(metric, elsewhere)


def test_two_codes_are_too_few() -> None:
    e = both(draws(N, 3))
    with pytest.raises(MetricError, match="linear-probe needs 50 codes and has 2"):
        measured(LinearProbe(n=2, train=N), e)
