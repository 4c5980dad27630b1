"""The extractor grey28: its weights, its accuracy, its layers, and a FID that orders damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torchvision.datasets import MNIST, FashionMNIST
from torchvision.transforms.functional import gaussian_blur

from genbench.api import DataConfig, Images
from genbench.data.images import to_float, to_uint8
from genbench.errors import DataError, UnsupportedError
from genbench.utils.io import hash_file
from genbench_glyphs import Glyphs
from genbench_grey28 import CLASSES, WEIGHTS, WEIGHTS_HASH, Grey28, Grey28Network, classify
from genbench_grey28.train import BATCH, batches, folded, hidden_layers, moved, normalised

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def glyphs(drawn: DataConfig) -> Images:
    return Glyphs().load(drawn)


@pytest.fixture(scope="module")
def extractor() -> Grey28Network:
    return Grey28Network("128")


def fids(extractor: Grey28Network, real: Tensor, samples: list[Tensor]) -> list[float]:
    """FID of each of the others with the real images, by torch-fidelity's own functions."""

    def statistics(images: Tensor) -> dict[str, object]:
        features = torch.cat([extractor(block) for block in images.split(500)])
        return fid_features_to_statistics(features.double())

    first = statistics(real)
    return [fid_statistics_to_metric(first, statistics(images), verbose=False)[KEY_METRIC_FID] for images in samples]


# ---------------------------------------------------------------- what ships


def test_the_weights_are_small_and_their_hash_is_the_files() -> None:
    assert WEIGHTS.stat().st_size < 1_500_000
    assert hash_file(WEIGHTS) == WEIGHTS_HASH


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    damaged = bytearray(WEIGHTS.read_bytes())
    damaged[-1] ^= 1
    path = tmp_path / "weights.safetensors"
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="checksum"):
        Grey28Network("128", path)


def share_right(images: Tensor, digits: Tensor, first: int) -> float:
    return float((classify(images).argmax(dim=1) == digits + first).double().mean())


def test_accuracy_on_glyphs(glyphs: Images) -> None:
    assert share_right(glyphs.test, glyphs.test_labels, CLASSES.index("glyphs/0")) > 0.99


@pytest.mark.parametrize(
    ("reader", "first", "least"), [(MNIST, "mnist/0", 0.99), (FashionMNIST, "fashion-mnist/t-shirt", 0.91)]
)
def test_accuracy_on_real_sets(reader: type[MNIST], first: str, least: float) -> None:
    if not (DATA / reader.__name__ / "raw").is_dir():
        pytest.skip(f"{reader.__name__} is not in {DATA}")
    test = reader(DATA, train=False)
    assert share_right(test.data[:, None], test.targets, CLASSES.index(first)) > least


def test_classes_are_named_once_each() -> None:
    assert len(set(CLASSES)) == 30


# ---------------------------------------------------------------- layers and refusals


def test_layers_have_their_widths(glyphs: Images) -> None:
    images = glyphs.test[:7]
    logits, hidden = Grey28Network("logits")(images), Grey28Network("128")(images)
    assert logits.shape == (7, 30)
    assert hidden.shape == (7, 128)
    assert {logits.dtype, hidden.dtype} == {torch.float32}
    assert torch.allclose(logits.softmax(dim=1), classify(images))


def test_the_hidden_layer_serves_distances_and_the_logits_the_inception_score() -> None:
    assert (Grey28.default_layer, Grey28.logits_layer) == ("128", "logits")


def test_grey_repeated_to_three_channels_changes_no_bit(extractor: Grey28Network, glyphs: Images) -> None:
    images = glyphs.test[:64]
    assert torch.equal(extractor(images), extractor(images.expand(-1, 3, -1, -1)))


def test_features_do_not_depend_on_the_batch(extractor: Grey28Network, glyphs: Images) -> None:
    images = glyphs.test[:100]
    alone = torch.cat([extractor(block) for block in images.split(3)])
    assert torch.allclose(extractor(images), alone, rtol=1e-4, atol=1e-4)


def test_train_mode_changes_nothing_because_there_are_no_batch_statistics(glyphs: Images) -> None:
    extractor = Grey28Network("128")
    assert not extractor.training
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    before = extractor(glyphs.test[:64])
    assert torch.equal(extractor.train()(glyphs.test[:64]), before)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (torch.zeros(2, 1, 28, 28), "uint8"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), r"\(2, 3, 32, 32\).*inception"),
        (torch.zeros(2, 2, 28, 28, dtype=torch.uint8), r"\(2, 2, 28, 28\)"),
        (torch.zeros(28, 28, dtype=torch.uint8), r"\(28, 28\)"),
    ],
)
def test_other_images_are_refused_with_the_reason(extractor: Grey28Network, images: Tensor, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        extractor(images)


# ---------------------------------------------------------------- what its FID sees


def noisy(x: Tensor, sigma: float) -> Tensor:
    return x + sigma * torch.randn(x.shape, generator=Generator().manual_seed(0))


def blurred(x: Tensor, sigma: float) -> Tensor:
    return gaussian_blur(x, 9, sigma)


DAMAGES: list[tuple[Callable[[Tensor, float], Tensor], tuple[float, ...]]] = [
    (noisy, (0.03, 0.1, 0.2, 0.4)),
    (blurred, (0.4, 0.7, 1.2, 2.0)),
]


def held_out(source: str, glyphs: Images) -> tuple[Tensor, Tensor, Tensor]:
    """Two quarters of a test set of 10,000, mixed alike, and the labels of the second."""
    if source == "glyphs":
        images, labels = glyphs.test, glyphs.test_labels
    else:
        if not (DATA / source / "raw").is_dir():
            pytest.skip(f"{source} is not in {DATA}")
        read = {"MNIST": MNIST, "FashionMNIST": FashionMNIST}[source](DATA, train=False)
        images, labels = read.data[:, None], read.targets
    return images[::4], images[2::4], labels[2::4]


SOURCES = pytest.mark.parametrize("source", ["glyphs", "MNIST", "FashionMNIST"])


@SOURCES
@pytest.mark.parametrize(("damage", "degrees"), DAMAGES)
def test_fid_rises_with_noise_and_with_blur(
    extractor: Grey28Network,
    glyphs: Images,
    source: str,
    damage: Callable[[Tensor, float], Tensor],
    degrees: tuple[float, ...],
) -> None:
    real, reference, _ = held_out(source, glyphs)
    damaged = [to_uint8(damage(to_float(reference), degree)) for degree in degrees]
    values = fids(extractor, real, [reference, *damaged])
    assert values == sorted(values)
    assert values[-1] > 20 * values[0]


@SOURCES
def test_fid_rises_as_classes_are_dropped(extractor: Grey28Network, glyphs: Images, source: str) -> None:
    real, reference, labels = held_out(source, glyphs)
    values = fids(extractor, real, [reference[labels < classes] for classes in (10, 9, 7, 5, 3, 1)])
    assert values == sorted(values)
    assert values[1] > 2 * values[0]


def test_fid_of_images_with_themselves_is_nought(extractor: Grey28Network, glyphs: Images) -> None:
    assert fids(extractor, glyphs.test, [glyphs.test]) == [pytest.approx(0, abs=1e-4)]


# ---------------------------------------------------------------- how it was trained


def test_folding_batch_norm_away_changes_no_feature() -> None:
    layers = normalised(hidden_layers())
    layers(torch.rand(32, 1, 28, 28, generator=Generator().manual_seed(0)))  # moves the running statistics
    x = torch.rand(8, 1, 28, 28, generator=Generator().manual_seed(1))
    expected = layers.eval()(x)
    small = folded(layers)
    assert [type(layer) for layer in small] == [type(layer) for layer in hidden_layers()]
    assert torch.allclose(small(x), expected, atol=1e-5)


def test_every_epoch_shows_each_image_once_in_another_order() -> None:
    order = list(batches(3 * BATCH, epochs=2, generator=Generator().manual_seed(0)))
    first, second = torch.cat(order[:3]), torch.cat(order[3:])
    assert torch.equal(first.sort().values, torch.arange(3 * BATCH))
    assert torch.equal(second.sort().values, torch.arange(3 * BATCH))
    assert not torch.equal(first, second)


def test_half_of_the_images_shift_a_little_and_half_stay(glyphs: Images) -> None:
    images = glyphs.test[:256]
    once, again = (moved(images, Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(once, again)
    assert once.shape == (256, 1, 28, 28)
    assert -1e-6 <= float(once.min()) <= float(once.max()) <= 1 + 1e-6
    assert torch.equal(once[128:], to_float(images[128:]))
    change = (once - to_float(images))[:128].abs().mean(dim=(1, 2, 3))
    assert float(change.min()) > 0
    assert float(change.mean()) < 0.1
