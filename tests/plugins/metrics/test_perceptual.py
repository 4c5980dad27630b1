"""LPIPS, DISTS and MS-SSIM: torchmetrics' own values on the same weights, zero of equals, refusals in one line."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
import torchvision
from scipy.signal import convolve2d
from torch import Generator, Tensor
from torchmetrics.functional.image import dists, lpips

from genbench.api import DataConfig, DatasetInfo, Measurement
from genbench.errors import DataError, GenbenchError, MetricError, UsageError
from genbench_perceptual import DISTS, LPIPS, Perceptual
from genbench_similarity import MSSSIM, SCALE_WEIGHTS, ms_ssim
from support.evaluations import evaluation

NO_PRIOR = cast(Any, None)
COLOR = DatasetInfo((3, 48, 48), train=8, test=8)
GREY28 = DatasetInfo((1, 28, 28), train=8, test=8)


def pictures(n: int, channels: int = 3, side: int = 48, seed: int = 0) -> Tensor:
    """Smooth random images in [0, 1]."""
    coarse = torch.rand(n, channels, 6, 6, generator=Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, side, mode="bilinear")


def as_bytes(images: Tensor) -> Tensor:
    return (255 * images).round().to(torch.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of convolutions with random weights, by torchvision's name of the network."""
    folder, draws, files = tmp_path_factory.mktemp("weights"), Generator().manual_seed(0), {}
    for name in ("alexnet", "squeezenet1_1", "vgg16"):
        with torch.device("meta"):
            shapes = getattr(torchvision.models, name)().features.state_dict()
        state = {}
        for key, tensor in shapes.items():
            gain = (2 / max(1, tensor[0].numel())) ** 0.5 if tensor.dim() == 4 else 0.05
            state[f"features.{key}"] = gain * torch.randn(tensor.shape, generator=draws)
        torch.save(state | {"classifier.6.bias": torch.zeros(3)}, folder / f"{name}.pth")
        files[name] = str(folder / f"{name}.pth")
    return files


@pytest.fixture
def no_download(weights: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's networks with these weights, as torchmetrics asks for them, without their classifiers."""

    class Network(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            with torch.device("meta"):
                self.features = getattr(torchvision.models, name)().features
            state = {key.removeprefix("features."): t for key, t in torch.load(weights[name]).items()}
            self.features.load_state_dict({k: t for k, t in state.items() if "classifier" not in k}, assign=True)

    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda net, pretrained: Network(net).features)
    monkeypatch.setattr(dists, "vgg16", lambda weights: Network("vgg16"))


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize(("name", "short"), [("alexnet", "alex"), ("squeezenet1_1", "squeeze"), ("vgg16", "vgg")])
def test_lpips_is_that_of_torchmetrics(name: str, short: Any, weights: dict[str, str]) -> None:
    x, y = pictures(3), pictures(3, seed=1)
    expected = lpips.learned_perceptual_image_patch_similarity(x, y, short, reduction="none", normalize=True)
    metric = LPIPS(weights=weights[name])
    torch.testing.assert_close(metric.compare(x, y), expected)
    assert metric.head() == f"LPIPS ({short})"
    assert float(metric.compare(x, x).abs().max()) < 1e-6
    assert float(expected.min()) > 1e-3


@pytest.mark.usefixtures("no_download")
def test_dists_is_that_of_torchmetrics(weights: dict[str, str]) -> None:
    x, y = pictures(3), pictures(3, seed=1)
    expected = dists.deep_image_structure_and_texture_similarity(x, y).detach()
    metric = DISTS(weights=weights["vgg16"])
    torch.testing.assert_close(metric.compare(x, y), expected)
    assert float(metric.compare(x, x).abs().max()) < 1e-5
    assert float(expected.min()) > 1e-2


def only(metric: Any, e: Any) -> Measurement:
    (number,) = metric.measure(e)
    return cast(Measurement, number)


def rebuilt_as(images: Tensor, rebuilt: Tensor, data_config: DataConfig) -> Any:
    """An evaluation of these reconstructions."""
    held_out = as_bytes(images)
    return evaluation(held_out, held_out, held_out, data_config, reconstructions=lambda n: rebuilt)


def test_the_distances_are_means_over_images_in_any_block_and_name_their_weights(
    weights: dict[str, str], data_config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, rebuilt = pictures(5, 1), pictures(5, 1, seed=1)  # grey
    broken, flat = rebuilt.clone(), torch.zeros_like(rebuilt)
    broken[2, 0, 4, 4] = torch.nan
    for metric in (LPIPS(weights=weights["alexnet"]), DISTS(weights=weights["vgg16"])):
        number = only(metric, rebuilt_as(images, rebuilt, data_config))
        with monkeypatch.context() as patch:
            patch.setattr("genbench_perceptual.PIXELS", 2 * 48**2)
            again = only(metric, rebuilt_as(images, rebuilt, data_config))
        assert again.value == pytest.approx(number.value, rel=1e-5)
        assert (number.higher_is_better, number.role, number.n) == (False, "reconstruction", 5)
        assert number.protocol.weights.startswith("custom ")
        assert number.protocol.extractor in ("alexnet", "vgg16")
        assert "grey repeated" in number.protocol.values
        with pytest.raises(MetricError, match="1 of 5 reconstructions hold values that are NaN"):
            only(metric, rebuilt_as(images, broken, data_config))
        assert only(metric, rebuilt_as(flat, flat, data_config)).value == pytest.approx(0.0, abs=1e-5)


def test_weights_are_checked_while_planning(weights: dict[str, str], data_config: DataConfig) -> None:
    def refused(metric: Perceptual, info: DatasetInfo = COLOR) -> str:
        with pytest.raises(GenbenchError) as refusal:
            metric.validate(info, NO_PRIOR, data_config)
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    assert "lpips needs the weights of torchvision's alexnet, squeezenet1_1 or vgg16" in refused(LPIPS(n=8))
    assert "--set dists.weights=FILE" in refused(DISTS(n=8))
    assert "there is no file nowhere.pth" in refused(DISTS(n=8, weights="nowhere.pth"))
    assert "another network: dists takes torchvision's vgg16" in refused(DISTS(n=8, weights=weights["alexnet"]))
    too_small = refused(LPIPS(n=8, weights=weights["alexnet"]), GREY28)
    assert "images of 28x28 pixels are too small for alexnet: --set lpips.weights=FILE with those of vgg16" in too_small
    assert "9 held-out images were asked for" in refused(LPIPS(n=9, weights=weights["vgg16"]))
    for metric in (LPIPS(n=8, weights=weights["vgg16"]), DISTS(n=8, weights=weights["vgg16"])):
        metric.validate(GREY28, NO_PRIOR, data_config)  # as advised


def test_weights_that_are_not_finite_are_refused(
    weights: dict[str, str], data_config: DataConfig, tmp_path: Any
) -> None:
    state = torch.load(weights["alexnet"])
    torch.save(state | {"features.0.weight": state["features.0.weight"] * torch.nan}, tmp_path / "nan.pth")
    with pytest.raises(DataError, match=r"nan\.pth give values that are NaN"):
        LPIPS(n=8, weights=str(tmp_path / "nan.pth")).validate(COLOR, NO_PRIOR, data_config)


# ---------------------------------------------------------------- several scales


def naive_ms_ssim(x: Tensor, y: Tensor, scales: int) -> float:
    """Of one channel of one pair, with scipy's convolutions and windows inside the image alone."""
    along = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(along, along) / np.outer(along, along).sum()
    a, b, product = x.double().numpy(), y.double().numpy(), 1.0
    weights = np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    for scale, weight in enumerate(weights):
        mean_a, mean_b = (convolve2d(image, window, "valid") for image in (a, b))
        var_a, var_b = (convolve2d(i * i, window, "valid") - m * m for i, m in ((a, mean_a), (b, mean_b)))
        covariance = convolve2d(a * b, window, "valid") - mean_a * mean_b
        term = (2 * covariance + 0.03**2) / (var_a + var_b + 0.03**2)
        if scale == scales - 1:
            term = term * (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        product *= max(0.0, term.mean()) ** weight
        a, b = (i[: 2 * (len(i) // 2), : 2 * (len(i) // 2)].reshape(len(i) // 2, 2, -1, 2).mean((1, 3)) for i in (a, b))
    return product


@pytest.mark.parametrize(("side", "scales"), [(28, 2), (64, 3), (176, 5)])
def test_ms_ssim_is_the_papers_formula(side: int, scales: int) -> None:
    channels = 3 if side < 100 else 1  # scipy's convolutions of large images take seconds
    x = pictures(2, channels, side)
    y = (0.8 * x + 0.1 * pictures(2, channels, side, seed=1)).clamp(0, 1)
    expected = [np.mean([naive_ms_ssim(x[i, c], y[i, c], scales) for c in range(channels)]) for i in range(2)]
    torch.testing.assert_close(ms_ssim(x, y, scales), torch.tensor(expected), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(ms_ssim(x, x, scales), torch.ones(2, dtype=torch.float64))


def test_ms_ssim_of_small_images_is_refused_with_the_scales_that_they_allow(data_config: DataConfig) -> None:
    for side, scales in ((28, 2), (32, 2), (64, 3), (100, 4)):
        info = DatasetInfo((1, side, side), train=8, test=8)
        with pytest.raises(UsageError, match=rf"5 scales need images of 176 pixels.*--set ms-ssim\.scales={scales}"):
            MSSSIM(n=8).validate(info, NO_PRIOR, data_config)
        MSSSIM(n=8, scales=scales).validate(info, NO_PRIOR, data_config)
    with pytest.raises(UsageError, match="use ssim"):
        MSSSIM(n=8).validate(DatasetInfo((1, 12, 12), train=8, test=8), NO_PRIOR, data_config)
    MSSSIM(n=8).validate(DatasetInfo((3, 176, 176), train=8, test=8), NO_PRIOR, data_config)
    images = as_bytes(pictures(4, 1, 28))
    number = only(
        MSSSIM(scales=2), evaluation(images, images, images, data_config, reconstructions=lambda n: images / 255)
    )
    assert number.value == pytest.approx(1.0)
    assert "2 scales, weights of the paper, divided by their sum" in number.protocol.method
