"""Metrics on images: what theory says of identical, replayed, constant and one-hot inputs, and independent code."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch_fidelity.metric_prc import calculate_precision_recall_full

import genbench_neighbours
from conftest import INCEPTION
from genbench.api import DataConfig, DatasetInfo
from genbench.data.images import to_uint8
from genbench.errors import DataError, GenbenchError, MetricError, NotApplicableError, UnsupportedError, UsageError
from genbench.experiment.plan import Plan
from genbench_class_balance import ClassBalance, balance, class_indices, perfect
from genbench_glyphs import CLASS_NAMES, Glyphs
from genbench_grey28 import CLASSES
from genbench_inception_score import InceptionScore, score
from genbench_nearest import NearestTrain, nearest
from genbench_neighbours import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from genbench_similarity import PSNR, SSIM, psnr, ssim
from genbench_torchvision import MNIST, FashionMNIST
from support.evaluations import draws, evaluation, measured, pictures

NO_PRIOR = cast(Any, None)
pytestmark = pytest.mark.usefixtures("registry")  # which registers the extractors
GREY = DatasetInfo((1, 28, 28), train=100, test=100, class_names=MNIST.class_names)


# ---------------------------------------------------------------- inception score


def test_the_inception_score_is_1_where_all_images_look_alike_and_c_for_c_sure_and_equal_classes() -> None:
    assert score(torch.zeros(100, 7), 10).mean == pytest.approx(1.0)
    classes = torch.eye(5).repeat(200, 1) * 2000.0  # probabilities that are 0 in float64, which alone give NaN
    assert score(classes, 2).mean == pytest.approx(5.0, rel=0.01)
    assert score(classes[torch.arange(0, 1000, 5)], 4).mean == pytest.approx(1.0)


def test_the_inception_scores_error_is_that_of_the_mean_of_its_splits() -> None:
    logits = 3 * draws(2000, 10)
    many = [score(3 * draws(2000, 10, seed=seed), 10) for seed in range(40)]
    spread = float(torch.tensor([result.mean for result in many]).std())
    typical = sum(result.standard_error(10) for result in many) / 40
    assert 0.7 < typical / spread < 1.4
    assert score(logits, 10).spread > 2 * score(logits, 10).standard_error(10)


def test_the_inception_score_of_training_images_is_at_its_floor(data_config: DataConfig) -> None:
    train = pictures(60, 0)
    (measurement,) = InceptionScore(n=60, splits=2).measure(evaluation(train, train, train, data_config))
    assert measurement.floor == measurement.value
    assert (measurement.label, measurement.protocol.layer) == ("Inception score (grey28)", "logits")


def test_the_inception_score_refuses_while_planning(data_config: DataConfig) -> None:
    with pytest.raises(UsageError, match="5 samples in 10 splits"):
        InceptionScore(n=5).validate(GREY, NO_PRIOR, data_config)
    with pytest.raises(UsageError, match="class logits, and layer 128"):
        InceptionScore(layer="128").validate(GREY, NO_PRIOR, data_config)
    InceptionScore().validate(GREY, NO_PRIOR, data_config)


@pytest.mark.skipif(not INCEPTION.exists(), reason=f"no Inception weights at {INCEPTION}")
def test_weights_without_logits_are_refused_while_planning(data_config: DataConfig) -> None:
    with pytest.raises(DataError, match="no finite layer logits_unbiased: give complete weights"):
        InceptionScore(weights=str(INCEPTION)).validate(DatasetInfo((3, 32, 32), 100, 100), NO_PRIOR, data_config)


# ---------------------------------------------------------------- precision, recall, density, coverage


def naive_prdc(real: Tensor, made: Tensor, k: int) -> dict[str, float]:
    """prdc's formulas, one pair at a time."""
    x, y = real.double().numpy(), made.double().numpy()
    within = np.sqrt(((x[:, None] - x[None]) ** 2).sum(2))
    across = np.sqrt(((x[:, None] - y[None]) ** 2).sum(2))
    made_within = np.sqrt(((y[:, None] - y[None]) ** 2).sum(2))
    radius, made_radius = np.sort(within, 1)[:, k], np.sort(made_within, 1)[:, k]
    inside = across < radius[:, None]
    return {
        "precision": inside.any(0).mean(),
        "recall": (across < made_radius[None]).any(1).mean(),
        "density": inside.sum(0).mean() / k,
        "coverage": (across.min(1) < radius).mean(),
    }


def both(real: Tensor, made: Tensor, k: int) -> dict[str, float]:
    values = precision_recall(real, made, k) | density_coverage(real, made, k)
    return {name: measurement.value for name, measurement in values.items()}


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1.0, 0.4), (0.2, 2.0)])
def test_neighbourhoods_are_those_of_prdcs_formulas(shift: float, scale: float) -> None:
    real, made = draws(150, 6) + 1000.0, scale * draws(110, 6, seed=1) + shift + 1000.0
    for k in (3, 5):
        assert both(real, made, k) == pytest.approx(naive_prdc(real, made, k), abs=1e-12)


def test_precision_and_recall_are_torch_fidelitys_and_not_exchanged() -> None:
    real, made = draws(300, 8), 0.4 * draws(200, 8, seed=1)
    precision, recall = calculate_precision_recall_full(made, real, neighborhood=3)
    values = both(real, made, 3)
    assert (values["precision"], values["recall"]) == pytest.approx((precision, recall))
    assert values["precision"] > values["recall"] + 0.3  # narrow samples lie among the real ones and miss most of them


def test_identical_sets_have_all_four_at_1_and_distant_ones_at_0() -> None:
    x = draws(200, 5)
    assert both(x, x, 4) == {"precision": 1.0, "recall": 1.0, "density": pytest.approx(1.0), "coverage": 1.0}
    assert set(both(x, x + 100.0, 4).values()) == {0.0}


def test_neighbourhoods_depend_neither_on_the_order_nor_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = draws(130, 5), draws(90, 5, seed=1)
    whole = both(real, made, 3)
    assert both(real.flip(0), made.flip(0), 3) == pytest.approx(whole)
    monkeypatch.setattr(genbench_neighbours, "CPU_BLOCK_ELEMENTS", 7 * 130)
    assert both(real, made, 3) == pytest.approx(whole)


def test_duplicates_are_at_distance_zero_and_constant_images_are_among_their_like() -> None:
    same = torch.full((20, 4), 1234.567)
    assert both(same, same, 3)["precision"] == both(same, same, 3)["recall"] == 1.0
    assert both(same, same + 1.0, 3)["precision"] == 0.0
    assert both(same, same, 3)["coverage"] == 0.0  # prdc's open balls of radius 0 hold nothing
    twice = draws(30, 130).repeat(2, 1) + 1e4
    assert float(genbench_neighbours.radii(twice.double(), 1).max()) == 0.0


@pytest.mark.parametrize("metric", [PrecisionRecall, DensityCoverage])
def test_neighbourhoods_need_more_images_than_neighbours(
    metric: type[PrecisionRecall], data_config: DataConfig
) -> None:
    with pytest.raises(UsageError, match=r"7 samples against 100 references.*need 8 of each"):
        metric(k=7, count=7).validate(GREY, NO_PRIOR, data_config)
    few = pictures(4, 0)
    with pytest.raises(MetricError, match="need 5 of each"):
        list(metric(k=4).measure(evaluation(few, few, few, data_config)))


@pytest.mark.parametrize("metric", [PrecisionRecall, DensityCoverage])
def test_replayed_training_images_are_at_the_floor_of_neighbourhoods(
    metric: type[PrecisionRecall], data_config: DataConfig
) -> None:
    train, test = pictures(60, 0), pictures(50, 1)
    values = measured(metric(), evaluation(train, test, train, data_config))
    assert all(
        measurement.value == measurement.floor and measurement.n == 50 and measurement.higher_is_better
        for measurement in values.values()
    )
    assert set(values) == ({"precision", "recall"} if metric is PrecisionRecall else {"density", "coverage"})


def test_neighbourhoods_are_of_the_evaluations_split(data_config: DataConfig) -> None:
    train, references = pictures(60, 0), pictures(30, 1)
    e = evaluation(train, train, train, data_config, references=references, split="validation")
    expected = measured(PrecisionRecall(), evaluation(train, references, train, data_config))
    for component, measurement in measured(PrecisionRecall(), e).items():
        assert (measurement.protocol.split, measurement.protocol.references, measurement.n) == ("validation", 30, 30)
        assert measurement.value == expected[component].value


# ---------------------------------------------------------------- PSNR and SSIM


def test_psnr_of_a_known_error() -> None:
    x = torch.full((3, 3, 12, 12), 0.5)
    y = x + torch.tensor([0.1, 0.01, 0.5]).view(3, 1, 1, 1)
    assert psnr(x, y).tolist() == pytest.approx([20.0, 40.0, -20 * math.log10(0.5)], rel=1e-5)


def test_psnr_is_of_each_image_and_not_of_the_batch(data_config: DataConfig) -> None:
    test = torch.full((2, 1, 12, 12), 100, dtype=torch.uint8)
    made = test / 255 + torch.tensor([0.1, 0.001]).view(2, 1, 1, 1)
    (measurement,) = PSNR().measure(evaluation(test, test, made, data_config))
    assert measurement.value == pytest.approx(40.0, rel=1e-4)  # of the batch it would be 23


def test_ssim_is_1_for_equal_images_and_the_formula_for_constant_ones() -> None:
    x = torch.rand(4, 3, 20, 20, generator=Generator().manual_seed(0))
    assert ssim(x, x).tolist() == pytest.approx([1.0] * 4)
    a, b, c1 = 0.2, 0.7, 0.01**2
    flat = torch.ones(1, 1, 12, 12)
    assert float(ssim(a * flat, b * flat)) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), rel=1e-5)


def test_ssim_is_that_of_windows_inside_the_image() -> None:
    x, y = pictures(2, 0, 15).double() / 255, pictures(2, 1, 15).double() / 255
    axis = torch.arange(11.0, dtype=torch.float64) - 5
    line = torch.exp(-0.5 * (axis / 1.5) ** 2)
    window = torch.outer(line, line) / line.sum() ** 2

    def mean(image: Tensor) -> Tensor:
        return (image.unfold(2, 11, 1).unfold(3, 11, 1) * window).sum((4, 5))

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    expected = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx * mx + my * my + 1e-4) * (vx + vy + 9e-4))
    torch.testing.assert_close(ssim(x, y), expected.flatten(1).mean(1))


@pytest.mark.parametrize("metric", [PSNR, SSIM])
def test_similarity_does_not_depend_on_the_batch_or_the_order(
    metric: type[PSNR], data_config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    test, made = pictures(11, 0), pictures(11, 1).float() / 255
    (whole,) = metric().measure(evaluation(test, test, made, data_config))
    monkeypatch.setattr("genbench_similarity.BATCH", 3)
    (parted,) = metric().measure(evaluation(test.flip(0), test.flip(0), made.flip(0), data_config))
    assert parted.value == pytest.approx(whole.value, rel=1e-9)


def test_similarity_of_bad_input_is_refused(data_config: DataConfig) -> None:
    test = pictures(4, 0)
    with pytest.raises(NotApplicableError, match="the images themselves"):
        list(PSNR().measure(evaluation(test, test, test / 255, data_config)))
    made = pictures(4, 1) / 255
    for metric, name in ((PSNR(), "psnr"), (SSIM(), "ssim")):
        broken = made.clone()
        broken[2, 0, 3, 3] = math.nan
        with pytest.raises(MetricError, match=f"{name}: 1 of 4 reconstructions hold"):
            list(metric.measure(evaluation(test, test, broken, data_config)))
    made[0] = test[0] / 255
    with pytest.raises(MetricError, match="1 of 4 reconstructions are exact"):
        list(PSNR().measure(evaluation(test, test, made, data_config)))
    with pytest.raises(UsageError, match="window has 11x11 pixels and the images 28x9"):
        SSIM(n=0).validate(DatasetInfo((1, 28, 9), 100, 100), NO_PRIOR, data_config)
    with pytest.raises(UsageError, match=r"psnr\.n=100"):
        PSNR(n=101).validate(GREY, NO_PRIOR, data_config)


# ---------------------------------------------------------------- class balance


def test_datasets_name_their_classes_as_grey28_does(data_config: DataConfig) -> None:
    assert (*MNIST.class_names, *FashionMNIST.class_names, *CLASS_NAMES) == CLASSES
    assert Glyphs().info(NO_PRIOR).class_names == CLASS_NAMES
    assert class_indices(FashionMNIST.class_names, ClassBalance().classifier(data_config)).tolist() == list(
        range(10, 20)
    )


def test_the_labels_themselves_are_balanced_and_disjoint_classes_are_not() -> None:
    labels = torch.tensor([0.25, 0.75, 0.0])
    assert balance(torch.tensor([25, 75, 0, 0]), labels).total == 0.0
    counts = balance(torch.tensor([0, 0, 30, 70]), labels)
    assert (counts.total, counts.missing, counts.outside) == pytest.approx((1.0, 2.0, 0.7))


def test_a_class_that_no_held_out_image_has_is_not_missing() -> None:
    labels = torch.tensor([0.5, 0.5, 0.0])
    assert balance(torch.tensor([5, 5, 0, 0]), labels).missing == 0
    assert balance(torch.tensor([5, 4, 1, 0]), labels).total == pytest.approx(0.1)


def test_the_floor_is_the_expected_total_variation_of_that_many_draws() -> None:
    """Of two equal classes it is E|B/n - 1/2| of a binomial B, about sqrt(1 / (2 pi n))."""
    null = perfect(torch.tensor([500, 500, 0]), torch.tensor([0.5, 0.5]), 1000)
    mean = sum(draw.total for draw in null) / len(null)
    assert mean == pytest.approx(math.sqrt(1 / (2 * math.pi * 1000)), rel=0.15)


def test_class_balance_of_glyphs(drawn: DataConfig, data_config: DataConfig) -> None:
    glyphs = Glyphs().load(drawn)
    assert glyphs.class_names == CLASS_NAMES
    test, labels = glyphs.test[:2000], cast(Tensor, glyphs.test_labels)[:2000]
    known = {"images": {"test_labels": labels, "class_names": CLASS_NAMES}}
    real = measured(ClassBalance(n=2000), evaluation(glyphs.train, test, glyphs.train[:2000], data_config, **known))
    total = real[""]
    assert total.floor is not None
    assert total.floor_sd is not None
    assert abs(total.value - total.floor) < 5 * total.floor_sd
    assert (real["missing"].value, real["outside"].value < 0.02) == (0.0, True)
    ones = glyphs.train[cast(Tensor, glyphs.train_labels) == 1][:300]
    collapsed = measured(ClassBalance(n=300), evaluation(glyphs.train, test, ones, data_config, **known))
    assert collapsed[""].value > 0.85
    assert collapsed["missing"].value >= 8


def test_class_balance_refuses_classes_that_it_does_not_know(
    planned: Callable[..., Plan], data_config: DataConfig
) -> None:
    with pytest.raises(UnsupportedError, match="class-balance knows the classes of mnist, fashion-mnist, glyphs"):
        planned("swae", metrics=("class-balance",))
    x = pictures(5, 0)
    with pytest.raises(NotApplicableError, match="not those of this dataset"):
        list(ClassBalance(n=5).measure(evaluation(x, x, x, data_config)))
    with pytest.raises(MetricError, match="have no labels"):
        list(ClassBalance(n=5).measure(evaluation(x, x, x, data_config, images={"class_names": CLASS_NAMES})))


# ---------------------------------------------------------------- the nearest training image


def test_the_nearest_distance_is_exact_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    training, images = pictures(300, 0), pictures(40, 1)
    images[:5] = training[100:105]
    images[5] = training[7] // 255 * 255  # far away, but with a nearest
    exact = (images[:, None].double() - training[None].double()).square().mean((2, 3, 4)).sqrt().amin(1) / 255
    assert nearest(images, training).tolist() == pytest.approx(exact.tolist(), rel=1e-12)
    assert nearest(images, training)[:5].tolist() == [0.0] * 5
    monkeypatch.setattr("genbench_nearest.BLOCK_ELEMENTS", 5000)
    assert torch.equal(nearest(images, training.flip(0)), nearest(images, training))


def test_replays_are_copies_and_new_or_blurred_images_are_not(data_config: DataConfig) -> None:
    train, test = pictures(400, 0), pictures(100, 1)
    fine = (train.float() + 2 * draws(*train.shape)).clamp(0, 255).round().to(torch.uint8)  # as a JPEG would
    blurred = to_uint8(torch.nn.functional.avg_pool2d(train / 255, 13, stride=1, padding=6))
    fates = {"replay": train, "fine": fine, "new": pictures(100, 2), "blurred": blurred}
    results = {
        name: measured(NearestTrain(n=100), evaluation(train, test, x, data_config)) for name, x in fates.items()
    }
    shares = {name: result["copies"].value for name, result in results.items()}
    assert shares == {"replay": 1.0, "fine": 1.0, "new": 0.0, "blurred": 0.0}
    assert results["replay"][""].value == 0.0
    new = results["new"][""]
    assert new.floor is not None
    assert new.floor_sd is not None
    assert new.se is not None
    assert abs(new.value - new.floor) < 4 * math.hypot(new.floor_sd, new.se)
    assert results["new"]["copies"].floor == 0.0


def test_copies_cannot_be_counted_where_held_out_images_are_training_images(data_config: DataConfig) -> None:
    train = pictures(20, 0)
    with pytest.raises(MetricError, match="nearest-train: half of the held-out images are training images"):
        list(NearestTrain(n=20).measure(evaluation(train, train, train, data_config)))
    with pytest.raises(GenbenchError, match="needs 2 of each"):
        NearestTrain().validate(DatasetInfo((1, 28, 28), train=10, test=1), NO_PRIOR, data_config)


def test_metrics_let_not_applicable_errors_pass(data_config: DataConfig) -> None:
    x = pictures(40, 0)

    def none(n: int) -> Tensor:
        raise NotApplicableError("no decoder")

    e = evaluation(x, x, x, data_config, samples=none, reconstructions=none, images={"class_names": CLASS_NAMES})
    metrics = (InceptionScore(n=40), PrecisionRecall(), DensityCoverage(), PSNR(), SSIM())
    for metric in metrics:
        with pytest.raises(NotApplicableError, match="no decoder"):
            list(metric.measure(e))
