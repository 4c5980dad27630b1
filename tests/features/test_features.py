"""FID and KID: torch-fidelity's own result on the same images, and refusals before any training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch_fidelity
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

import genbench
import genbench.features.extractor
from conftest import DOTS, INCEPTION
from genbench.api import ComponentSpec, DataConfig, DatasetInfo, Evaluation, Extractor, Images
from genbench.distances import frechet_distance
from genbench.errors import DataError, GenbenchError, MetricError, UsageError
from genbench.experiment.plan import Plan
from genbench.features import FeatureLayer, extract, feature_layer, probe
from genbench.registry.loader import Registry
from genbench_fid import FID, KID
from genbench_grey28 import Grey28, Grey28Network
from genbench_inception import SIZE, FoldedInception, Inception, resized

pytestmark = pytest.mark.usefixtures("registry")  # which registers the extractors
NOWHERE = DataConfig(Path(), Path())

needs_inception = pytest.mark.skipif(not INCEPTION.exists(), reason=f"no Inception weights at {INCEPTION}")


class Pictures(TorchDataset[Tensor]):
    def __init__(self, images: Tensor) -> None:
        self.images = images.expand(-1, 3, -1, -1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def pictures(n: int, size: int, seed: int, channels: int = 1, noise: float = 40.0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    smooth = torch.nn.functional.interpolate(torch.rand(n, channels, 4, 4, generator=draws), size, mode="bilinear")
    rough = noise * torch.randn(n, channels, size, size, generator=draws)
    return (255 * smooth + rough).clamp(0, 255).to(torch.uint8)


def fidelity(first: Tensor, second: Tensor, extractor: FeatureLayer, **options: object) -> dict[str, float]:
    weights = {"feature_extractor_weights_path": extractor.weights} if extractor.weights else {}
    result: dict[str, float] = torch_fidelity.calculate_metrics(
        input1=Pictures(first),
        input2=Pictures(second),
        cuda=False,
        verbose=False,
        cache=False,
        save_cpu_ram=True,
        feature_extractor=extractor.implementation,
        **weights,
        **options,
    )
    return result


def ours(first: Tensor, second: Tensor, extractor: FeatureLayer) -> float:
    gaussians = [
        (f.double().mean(0), torch.cov(f.double().T)) for f in (extract(extractor, x) for x in (first, second))
    ]
    return frechet_distance(*gaussians[0], *gaussians[1])


class FidelityGrey28(FeatureExtractorBase):  # type: ignore[misc]
    """grey28 as torch-fidelity calls an extractor."""

    def __init__(self, name: str, features_list: list[str], **options: object) -> None:
        super().__init__(name, features_list)
        self.network = Grey28Network("128")

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images),)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("128",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "128"

    @staticmethod
    def can_be_compiled() -> bool:
        return False


@pytest.fixture(autouse=True)
def torch_fidelity_knows_grey28(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "grey28", FidelityGrey28)


@pytest.mark.filterwarnings("ignore")  # torch-fidelity's own DataLoader
def test_fid_with_grey28_equals_that_of_torch_fidelity() -> None:
    first, second = pictures(400, 28, 0), pictures(300, 28, 1, noise=60.0)
    extractor = feature_layer("grey28", "", "", NOWHERE)
    expected = fidelity(first, second, extractor, fid=True)["frechet_inception_distance"]
    assert ours(first, second, extractor) == pytest.approx(expected, rel=1e-3)


@needs_inception
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("channels", [1, 3])
def test_fid_with_inception_equals_that_of_torch_fidelity(channels: int) -> None:
    first, second = pictures(16, 32, 0, channels), pictures(16, 32, 1, channels, noise=60.0)
    extractor = feature_layer("inception", "192", str(INCEPTION), NOWHERE)
    expected = fidelity(first, second, extractor, fid=True, feature_layer_fid="192")["frechet_inception_distance"]
    assert ours(first, second, extractor) == pytest.approx(expected, rel=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_scored_pictures_have_the_fid_of_torch_fidelitys_own_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    dataset = genbench.load_dataset("dots", plugins=DOTS, options={"dots.size": 28})
    folders = tmp_path / "samples", tmp_path / "test"
    shown = (pictures(64, 28, 0), dataset.test)
    for folder, images in zip(folders, shown, strict=True):
        folder.mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    expected = torch_fidelity.calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        cuda=False,
        verbose=False,
        cache=False,
        fid=True,
        feature_extractor="grey28",
    )["frechet_inception_distance"]
    options = {"fid.features": "grey28", "fid.count": 64, "dots.size": 28}
    shutil.make_archive(str(folders[0]), "zip", folders[0])
    for source in (folders[0], folders[0].with_suffix(".zip"), shown[0].permute(0, 2, 3, 1).numpy() / 255):
        results = genbench.score(
            "pictures", source, metrics="fid", dataset="dots", plugins=DOTS, options=options, out=tmp_path / "runs"
        )
        (value,) = (row.value for row in results if row.metric == "fid")
        assert value == pytest.approx(expected, rel=1e-3)
    assert len(list((tmp_path / "runs").iterdir())) == 1, "the same images from anywhere are one run"


def test_layers_are_those_of_torch_fidelity() -> None:
    assert Inception.layers == FeatureExtractorInceptionV3.get_provided_features_list()
    assert Inception.logits_layer == FeatureExtractorInceptionV3.get_default_feature_layer_for_metric("isc")
    assert SIZE == FeatureExtractorInceptionV3.INPUT_IMAGE_SIZE


def test_folding_batch_norm_changes_inception_by_rounding_alone() -> None:
    images, made = pictures(2, 40, 0, 3), untrained_inception()
    for layer, expected in zip(made.get_provided_features_list(), made(images), strict=True):
        features = FoldedInception(made, layer)(images)
        assert (features - expected).norm() < 1e-5 * expected.norm(), layer
        assert (expected[0] - expected[1]).norm() > 1e-3 * expected.norm(), layer  # images stay distinguishable


def untrained_inception() -> FeatureExtractorInceptionV3:
    """With random weights, a batch normalisation that does something, and all layers."""
    with torch.random.fork_rng(), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        patch.setattr(torch, "load", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        layers = list(FeatureExtractorInceptionV3.get_provided_features_list())
        made = FeatureExtractorInceptionV3("inception-v3-compat", layers, feature_extractor_weights_path="none")
        for module in made.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0.0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
                module.bias.normal_(0.0, 0.3)
    return made


@pytest.mark.parametrize(("height", "width"), [(28, 28), (64, 40), (299, 299), (400, 320)])
def test_resizing_is_torch_fidelitys_bit_for_bit(height: int, width: int) -> None:
    x = 255 * torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    expected = interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
    assert torch.equal(resized(x), expected)
    assert torch.equal(resized(x.contiguous(memory_format=torch.channels_last)), expected)


@needs_inception
def test_features_do_not_depend_on_the_batch_or_the_order() -> None:
    images = pictures(7, 32, 0, 3)
    extractor = feature_layer("inception", "64", str(INCEPTION), NOWHERE)
    whole = extract(extractor, images)
    apart = torch.cat([extract(extractor, image[None]) for image in images])
    turned = extract(extractor, images.flip(0)).flip(0)
    torch.testing.assert_close(apart, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(turned, whole, rtol=1e-4, atol=1e-5)


@needs_inception
def test_weights_without_the_layer_are_refused_before_training(data_config: DataConfig) -> None:
    metric = FID(weights=str(INCEPTION), features="inception")
    with pytest.raises(DataError, match="no finite layer 2048"):
        metric.validate(DatasetInfo((3, 32, 32), 100, 100), None, data_config)  # type: ignore[arg-type]
    FID(weights=str(INCEPTION), features="inception", layer="192").validate(
        DatasetInfo((3, 32, 32), 100, 100), None, data_config
    )  # type: ignore[arg-type]


def test_missing_weights_are_refused_before_training_with_what_to_do(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(GenbenchError, match=r"weights are missing.*--set METRIC\.weights=FILE"):
        planned("swae", metrics=("fid",))  # 12x12: not a size for grey28
    with pytest.raises(GenbenchError, match=r"there is no file nowhere\.pth"):
        planned("swae", metrics=("fid",), settings=("fid.weights=nowhere.pth",))
    with pytest.raises(GenbenchError, match="did you mean 'inception'"):
        planned("swae", metrics=("fid",), settings=("fid.features=inceptoin",))
    with pytest.raises(GenbenchError, match=r"layer of the extractor 'grey28' called '7'"):
        planned("swae", metrics=("fid",), settings=("fid.features=grey28", "fid.layer=7"))


def test_a_pickle_that_would_run_code_is_refused_as_weights(tmp_path: Path) -> None:
    import pickle

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path(tmp_path / "attacked").write_text, ("ran",))  # type: ignore[return-value]

    evil = tmp_path / "weights.pth"
    evil.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(DataError, match=r"weights\.pth cannot be read as weights"):
        probe(feature_layer("inception", "64", str(evil), NOWHERE), 3, 32, 32)
    torch.save({"Conv2d_1a_3x3": Attack()}, evil)
    with pytest.raises(DataError, match=r"weights\.pth cannot be read as weights"):
        probe(feature_layer("inception", "64", str(evil), NOWHERE), 3, 32, 32)
    assert not (tmp_path / "attacked").exists()


def test_a_file_that_holds_no_inception_is_refused_and_never_said_to_be_unpickled(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(torch.nn.Linear(2, 2).state_dict(), file)
    whole = file.read_bytes()
    for content, reason in (
        (whole, "another network"),
        (whole[: len(whole) // 2], "damaged"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=reason) as refusal:
            probe(feature_layer("inception", "64", str(file), NOWHERE), 3, 32, 32)
        assert "weights_only=False" not in str(refusal.value)
        assert "`False`" not in str(refusal.value)


def test_features_are_of_uint8_only() -> None:
    with pytest.raises(MetricError, match="uint8"):
        extract(feature_layer("grey28", "128", "", NOWHERE), torch.rand(2, 1, 28, 28))


def test_weights_fit_inception_only(data_config: DataConfig) -> None:
    with pytest.raises(UsageError, match="its own weights"):
        feature_layer("grey28", "", "some.pth", data_config)


def test_cudnn_is_on_and_tf32_off_while_features_are_extracted(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torch.backends.cudnn.flags` would switch cuDNN off unless it is set otherwise."""
    seen: list[tuple[bool, bool]] = []

    class Flags(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32))
            return images.flatten(1)

    class FlagsExtractor(Grey28):
        def network(self, layer: str) -> torch.nn.Module:
            return Flags()

    spec = ComponentSpec(name="flags", description="", factory=FlagsExtractor)
    monkeypatch.setitem(genbench.features.extractor._registered, "flags", spec)
    extract(feature_layer("flags", "", "", NOWHERE), torch.zeros(1, 1, 28, 28, dtype=torch.uint8))
    assert seen == [(True, False)]


def test_any_registered_extractor_serves_a_metric_by_name_and_another_is_refused_while_planning(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Means(Extractor):
        layers = ("mean",)
        default_layer = "mean"
        weights_label = "none"  # type: ignore[assignment]

        def __init__(self, data_config: DataConfig) -> None:
            pass

        def network(self, layer: str) -> torch.nn.Module:
            return Mean()

    class Mean(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.float().mean((2, 3))

    with pytest.raises(GenbenchError, match="there is no feature extractor 'means'"):
        planned("swae", metrics=("fid",), settings=("fid.features=means",))
    spec = ComponentSpec(name="means", description="", factory=Means)
    monkeypatch.setitem(genbench.features.extractor._registered, "means", spec)
    served = ("fid", "fid-infinity", "fid-ladder", "kid", "mind", "precision-recall", "density-coverage")
    settings = (*(f"{name}.features=means" for name in served), "fid-ladder.codes=100")
    assert tuple(metric.name for metric in planned("swae", metrics=served, settings=settings).metrics) == served
    with pytest.raises(GenbenchError, match="the extractor 'means' tells no classes"):
        planned("swae", metrics=("inception-score",), settings=("inception-score.features=means",))
    with pytest.raises(GenbenchError, match="'means' does not name classes"):
        planned("swae", metrics=("class-balance",), settings=("class-balance.features=means",))
    with pytest.raises(GenbenchError, match="the extractor 'means' brings its own weights"):
        planned(
            "swae", metrics=("class-balance",), settings=("class-balance.features=means", "class-balance.weights=w")
        )


def test_the_column_head_names_the_extractor_and_the_protocol_its_weights(planned: Callable[..., Plan]) -> None:
    extractor = feature_layer("grey28", "128", "", NOWHERE)
    assert extractor.label() == "grey28"
    assert replace(extractor, layer="logits").label() == "grey28 layer logits"
    if INCEPTION.exists():
        assert feature_layer("inception", "768", str(INCEPTION), NOWHERE).weights_label.startswith("custom ")


def evaluation(real: Tensor, made: Tensor, data_config: DataConfig) -> Evaluation:
    """As much of a run as KID asks for: these images against those samples."""
    pieces = cast(
        "Evaluation",
        SimpleNamespace(
            images=Images(real, real, real[:0], sha256="0" * 64),
            references=real,
            split="test",
            sampler="",
            samples=lambda n: made[:n],
            training_images=lambda n: real[:n],
            cache_for_dataset=lambda key, compute: compute(),
            cache_for_run=lambda key, compute: compute(),
            device=torch.device("cpu"),
            data_config=data_config,
        ),
    )
    pieces.protocol = partial(Evaluation.protocol, pieces)  # type: ignore[method-assign]
    return pieces


@pytest.mark.filterwarnings("ignore")
def test_kid_with_grey28_equals_that_of_torch_fidelity(data_config: DataConfig) -> None:
    real, made = pictures(300, 28, 0), pictures(300, 28, 1, noise=60.0)
    extractor = feature_layer("grey28", "", "", data_config)
    expected = fidelity(made, real, extractor, kid=True, kid_subsets=20, kid_subset_size=100)
    (mean,) = KID(subsets=20, subset_size=100).measure(evaluation(real, made, data_config))
    assert mean.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3)
    assert mean.value > 0


def test_kid_takes_smaller_subsets_where_there_are_fewer_images_and_says_so(data_config: DataConfig) -> None:
    real, made = pictures(60, 28, 0), pictures(60, 28, 1)
    (mean,) = KID(subsets=5, subset_size=1000).measure(evaluation(real, made, data_config))
    assert (mean.n, mean.protocol.references) == (60, 60)
    assert "5 subsets of 60" in mean.protocol.detail
    with pytest.raises(MetricError, match="it needs 3 of each"):
        list(KID(count=1).measure(evaluation(real, made, data_config)))
