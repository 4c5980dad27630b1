"""The drawn digits: the same bytes everywhere, balanced and disjoint splits, factors that say what was drawn."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import genbench_glyphs as glyphs
from genbench.api import DataConfig, Images, ProgressEvent
from genbench.data.images import TENSORS, to_float

CONTENT = "1d7fbb520550696c5b950516fbf85dd3de182cae2075101c5d52d159f10276f3"
"""Of all splits and labels; met with numpy 1.26.4 and 2.4.6 on an AMD EPYC, with AVX-512 and with SSE alone."""

ROUNDED_IN_ONE_WAY = {"add", "clip", "maximum", "minimum", "sqrt", "floor", "ceil"}
NO_ARITHMETIC = {"arange", "argsort", "array", "concatenate", "empty", "flatnonzero", "full", "moveaxis", "setdiff1d"}
ON_INTEGERS = {"cumsum"}
NAMES = {"float32", "float64", "inf", "int64", "ndarray", "random", "stack", "uint8", "uint64"}


@pytest.fixture(scope="module")
def data_config(drawn: DataConfig) -> DataConfig:
    return drawn


@pytest.fixture(scope="module")
def images(data_config: DataConfig) -> Images:
    return glyphs.Glyphs().load(data_config)


def labels(images: Images, split: str) -> torch.Tensor:
    return getattr(images, f"{split}_labels")


def test_the_bytes_are_the_same_on_every_machine(images: Images) -> None:
    assert images.sha256 == CONTENT


def test_the_source_uses_no_function_that_processors_round_differently() -> None:
    tree = ast.parse(Path(glyphs.__file__).read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np"
    }
    assert used <= ROUNDED_IN_ONE_WAY | NO_ARITHMETIC | ON_INTEGERS | NAMES
    operators = {type(node.op) for node in ast.walk(tree) if isinstance(node, ast.BinOp | ast.AugAssign)}
    assert operators.isdisjoint({ast.Pow, ast.MatMult})
    methods = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert methods.isdisjoint({"sum", "mean", "dot", "std", "var", "prod"})


def test_a_second_load_draws_nothing(data_config: DataConfig, images: Images) -> None:
    heard: list[ProgressEvent] = []
    again = glyphs.Glyphs().load(replace(data_config, report=heard.append))
    assert heard == []
    assert all(torch.equal(getattr(again, name), getattr(images, name)) for name in TENSORS)


def test_drawing_reports_every_image_of_every_split(data_config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "SPLITS", {"train": 600, "test": 20, "validation": 10})
    heard: list[ProgressEvent] = []
    glyphs.Glyphs()._draw(replace(data_config, report=heard.append))
    last = {progress.what: (progress.done, progress.total) for progress in heard}
    assert last == {
        "drawing glyphs (train)": (600, 600),
        "drawing glyphs (test)": (20, 20),
        "drawing glyphs (validation)": (10, 10),
    }


def test_the_summary_agrees_with_the_images(data_config: DataConfig, images: Images) -> None:
    summary = glyphs.Glyphs().info(data_config)
    assert summary.shape == images.shape == (1, 28, 28)
    assert (summary.train, summary.test, summary.validation) == (60_000, 10_000, 5_000)
    assert (len(images.train), len(images.test), len(images.validation)) == (60_000, 10_000, 5_000)
    assert summary.classes == 10
    assert summary.factors == tuple(images.train_factors)
    assert {images.train.dtype, images.test.dtype, images.validation.dtype} == {torch.uint8}


@pytest.mark.parametrize("split", glyphs.SPLITS)
def test_classes_are_balanced_exactly_and_shuffled(images: Images, split: str) -> None:
    digits = labels(images, split)
    assert torch.equal(digits.bincount(), torch.full((10,), len(digits) // 10))
    changes = (digits[1:] != digits[:-1]).double().mean()
    assert changes == pytest.approx(0.9, abs=0.02)


def test_no_image_occurs_twice_within_or_across_splits(images: Images) -> None:
    everything = torch.cat([images.train, images.test, images.validation])
    assert len({image.tobytes() for image in everything.numpy()}) == len(everything)


def test_images_look_like_mnist_to_a_histogram(images: Images) -> None:
    """MNIST's training images: mean 0.131, deviation 0.308, 19 % of the pixels inked (torchvision's copy)."""
    x = to_float(images.test)
    assert float(x.mean()) == pytest.approx(0.131, abs=0.01)
    assert float(x.std()) == pytest.approx(0.308, abs=0.01)
    assert float((x > 0).float().mean()) == pytest.approx(0.19, abs=0.02)
    assert float(x[..., [0, -1], :].mean()) < 0.005


def test_a_nearest_neighbour_tells_the_digits_apart(images: Images) -> None:
    train, test = (to_float(x).flatten(1) for x in (images.train[:10_000], images.test[:1_000]))
    nearest = torch.cdist(test, train).argmin(dim=1)
    assert (labels(images, "train")[nearest] == labels(images, "test")[:1_000]).double().mean() > 0.95


def test_eight_linear_components_do_not_exhaust_the_images(images: Images) -> None:
    """An autoencoder has something to learn: PCA leaves 55.6 % of the variance (of MNIST's test images: 55.3 %)."""
    x = to_float(images.test).flatten(1).double()
    spectrum = torch.linalg.eigvalsh(torch.cov(x.T))
    assert spectrum[-8:].sum() / spectrum.sum() < 0.5


@pytest.mark.parametrize("split", glyphs.SPLITS)
def test_factors_stand_in_the_order_of_the_images(images: Images, split: glyphs.Split) -> None:
    factors = getattr(images, f"{split}_factors")
    assert factors.keys() == glyphs.factors(split).keys()
    assert all(torch.equal(values, factors[name]) for name, values in glyphs.factors(split).items())
    assert torch.equal(factors["digit"], labels(images, split))
    assert {len(values) for values in factors.values()} == {glyphs.SPLITS[split]}
    counts = torch.tensor([len(variants) for variants in glyphs.VARIANTS])[factors["digit"]]
    assert bool(((factors["variant"] >= 0) & (factors["variant"] < counts)).all())


def test_factors_fill_their_ranges(images: Images) -> None:
    factors = glyphs.factors("train")
    for name, (middle, reach) in glyphs.RANGES.items():
        values = factors[name]
        assert float((values - middle).abs().max()) <= reach
        assert float(values.mean()) == pytest.approx(middle, abs=reach * 0.01)
        assert float(values.std()) == pytest.approx(reach / 12**0.5, rel=0.02)  # four uniform lanes, averaged


def test_size_and_shift_are_what_the_images_show(images: Images) -> None:
    """The inked box, found in the pixels, is where and as large as the factors say, to a pixel or so."""
    factors = glyphs.factors("test")
    inked = images.test[:, 0] >= 128
    edges = {}
    for name, rows in (("x", inked.any(dim=1)), ("y", inked.any(dim=2))):
        first, last = rows.int().argmax(dim=1), 27 - rows.flip(1).int().argmax(dim=1)
        edges[name] = (last - first + 1, (first + last) / 2 - 13.5)
    longer = torch.maximum(edges["x"][0], edges["y"][0])
    assert float((longer - factors["size"]).abs().max()) < 1.6
    for axis in "xy":
        inside = edges[axis][0] < 24  # neither end is cut off by the image's border
        assert float((edges[axis][1] - factors[f"shift_{axis}"]).abs()[inside].max()) < 1.1


def test_slanted_digits_lean_to_the_right(images: Images) -> None:
    """Of the plain upright digit one, the centre of a row moves by slant * aspect to the right per row upwards."""
    factors = glyphs.factors("test")
    plain = (factors["digit"] == 1) & (factors["variant"] == 0) & (factors["turn"].abs() < 0.02)
    x = to_float(images.test[plain, 0]).double()
    column = torch.arange(28, dtype=torch.float64)
    weight = x.sum(dim=(1, 2))
    mean_x, mean_y = (x.sum(dim=1) @ column) / weight, (x.sum(dim=2) @ column) / weight
    from_x, from_y = column - mean_x[:, None], column - mean_y[:, None]
    covariance = torch.einsum("nyx,nx,ny->n", x, from_x, from_y) / torch.einsum("nyx,ny->n", x, from_y**2)
    expected = factors["slant"][plain] * factors["aspect"][plain]
    assert float(torch.corrcoef(torch.stack([-covariance, expected]))[0, 1]) > 0.95


# ---------------------------------------------------------------- geometry


def test_a_spline_runs_from_end_to_end_and_through_its_corners() -> None:
    polygon = np.array([[[0, 0], [4, 0], [4, 0], [4, 6]]], dtype=np.float64)
    curve = glyphs._spline(polygon, np.ones(1))[0]
    assert curve[0].tolist() == [0, 0]
    assert curve[-1].tolist() == [4, 6]
    assert [4, 0] in curve.tolist()


def test_curvature_nought_is_the_chord_and_one_the_skeleton() -> None:
    polygon = np.array([[[0, 0], [3, 4], [6, 0]]], dtype=np.float64)
    assert glyphs._spline(polygon, np.zeros(1))[0, :, 1].max() == 0
    assert glyphs._spline(polygon, np.ones(1))[0, :, 1].max() == 2  # a parabola: half the height of its control point


@pytest.mark.parametrize("half_width", [0.8, 1.3, 2.0])
@pytest.mark.parametrize("offset", [0.0, 0.3, 0.5])
def test_the_ink_across_a_stroke_is_the_pens_width(half_width: float, offset: float) -> None:
    """Wherever the stroke lies between the pixels, its cross-section adds up to twice the half width."""
    start, end = np.array([[[4.0, 13 + offset]]], np.float32), np.array([[[24.0, 13 + offset]]], np.float32)
    ink = glyphs._inked(start, end, np.array([half_width], np.float32))[0]
    assert ink[:, 14].sum() / 255 == pytest.approx(2 * half_width, abs=0.12)
    assert ink[:, 0].sum() == 0


def test_an_image_does_not_depend_on_its_companions() -> None:
    """Images inked together share a window of pixels; it must never cut any of them."""
    generator = np.random.Generator(np.random.Philox(7))
    start, end = (generator.uniform(-2, 30, (40, 5, 2)).astype(np.float32) for _ in range(2))
    half_width = generator.uniform(0.4, 2.2, 40).astype(np.float32)
    alone = [glyphs._inked(start[[i]], end[[i]], half_width[[i]])[0] for i in range(40)]
    assert np.array_equal(glyphs._inked(start, end, half_width), np.stack(alone))
