"""The bundled networks: shapes, published parameter counts, refusals; and the helpers that models share."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from genbench.api import Model, ModelContext, Network, Noise, Shape
from genbench.errors import UnsupportedError
from genbench.nn import COSTS, adam, bce_l1, rmsprop, wae_schedule
from genbench_ae import AE
from genbench_conv import Conv
from genbench_mlp import MLP
from genbench_priors import Normal
from genbench_resnet import ResidualBlock, ResNet
from genbench_swae import SWAE
from genbench_swae_mnist import SWAEMNIST
from genbench_vae import VAE
from genbench_wae_gan import WAEGAN
from genbench_wae_mmd import WAEMMD
from genbench_wae_networks import _convolution, wae_celeba, wae_mnist

Make = Callable[..., Model]
MakeNetwork = Callable[[Shape], Network]

SHAPES = [(c, size, size) for c in (1, 3) for size in (28, 32, 64)]
FITTING = [
    *((make, shape) for make in (Conv, MLP, ResNet) for shape in SHAPES),
    *((Conv, shape) for shape in [(1, 8, 8), (1, 16, 28), (2, 40, 64), (3, 128, 96)]),
    *((ResNet, shape) for shape in [(1, 8, 8), (3, 128, 128), (2, 64, 40), (3, 256, 96)]),
    (MLP, (1, 5, 7)),
    (SWAEMNIST, (1, 28, 28)),
    *((wae_mnist, (c, 28, 28)) for c in (1, 3)),
    *((wae_celeba, (c, 64, 64)) for c in (1, 3)),
]
MISFITS = [
    (Conv, (1, 30, 30), "conv"),
    (Conv, (1, 4, 4), "conv"),
    (Conv, (3, 36, 36), "conv"),
    (ResNet, (1, 30, 30), "resnet"),
    (ResNet, (3, 72, 72), "resnet"),
    (SWAEMNIST, (1, 32, 32), "swae-mnist"),
    (SWAEMNIST, (3, 28, 28), "swae-mnist"),
    (wae_mnist, (1, 32, 32), "wae-mnist"),
    (wae_celeba, (3, 32, 32), "wae-celeba"),
    (wae_celeba, (3, 64, 32), "wae-celeba"),
]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("make", "shape"), FITTING)
def test_shapes_and_no_memory_while_planning(make: MakeNetwork, shape: Shape) -> None:
    network = make(shape)
    with torch.device("meta"):
        encoder, decoder = network.encoder(6), network.decoder(5)
        assert encoder(torch.empty(3, *shape)).shape == (3, 6)
        assert decoder(torch.empty(3, 5)).shape == (3, *shape)
    assert network.shape == shape


@pytest.mark.parametrize(("make", "shape", "name"), MISFITS)
def test_refuses_sizes_that_do_not_fit_in_one_line(make: MakeNetwork, shape: Shape, name: str) -> None:
    given = " x ".join(map(str, shape))
    with pytest.raises(UnsupportedError, match=f"'{name}' cannot do images of {given} .*'mlp'") as refusal:
        make(shape)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("make", [Conv, ResNet])
def test_every_size_is_taken_or_refused_as_the_refusal_says(make: MakeNetwork) -> None:
    with pytest.raises(UnsupportedError) as refusal:
        make((1, 5, 5))
    rules = re.findall(r"of (\d+)(?: from 8)? to (\d+)", str(refusal.value))
    rules.append((str(2 * int(rules[-1][0])), str(2 * int(rules[-1][1]))))  # "and so on"
    for size in range(1, int(rules[-1][1]) + 1):
        step = next(int(step) for step, most in rules if size <= int(most))
        if size >= 8 and size % step == 0:
            assert make((3, size, size)).shape == (3, size, size)
        else:
            with pytest.raises(UnsupportedError):
                make((3, size, size))


def test_resnet_is_the_identity_around_its_blocks_and_sees_one_image_alone() -> None:
    torch.manual_seed(0)
    network = ResNet((1, 28, 28), width=8, depth=2)
    encoder = network.encoder(3)
    blocks = [layer for layer in encoder if isinstance(layer, ResidualBlock)]
    assert len(blocks) == 4
    x = torch.rand(5, 8, 14, 14)
    for layer in blocks[0].change:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    assert torch.equal(blocks[0](x), x)
    images = torch.rand(5, 1, 28, 28)
    assert torch.allclose(encoder.train()(images)[:1], encoder.eval()(images[:1]), atol=1e-5)


def test_swae_mnist_has_the_notebooks_parameter_counts() -> None:
    network = SWAEMNIST((1, 28, 28))
    assert count(network.encoder(2)) == 203_250
    assert count(network.decoder(2)) == 308_193


def test_swae_mnist_pools_without_counting_the_padding() -> None:
    """A constant picture stays constant: 28 -> 14 -> 7 -> 4 pixels, the last of which average two or one."""
    pools = [layer for layer in SWAEMNIST((1, 28, 28)).encoder(2) if isinstance(layer, nn.AvgPool2d)]
    x = torch.ones(1, 1, 28, 28)
    sizes = []
    for pool in pools:
        x = pool(x)
        sizes.append(x.shape[-1])
        assert torch.equal(x, torch.ones_like(x))
    assert sizes == [14, 7, 4]


def test_mlp_has_three_layers_of_200_units() -> None:
    network = MLP((1, 28, 28))
    inner = 2 * (200 * 200 + 200)
    assert count(network.encoder(8)) == 784 * 200 + 200 + inner + 200 * 8 + 8
    assert count(network.decoder(8)) == 8 * 200 + 200 + inner + 200 * 784 + 784


def by_hand(kernel: int, sizes: tuple[int, ...], grid: int, channels: tuple[int, ...], d: int) -> tuple[int, int]:
    """Weights and biases of WAE's layers, batch norm's scale and shift included."""
    encoder = sum(i * o * kernel**2 + o + 2 * o for i, o in itertools.pairwise(sizes))
    decoder = d * sizes[-1] * grid**2 + sizes[-1] * grid**2
    decoder += sum(i * o * kernel**2 + o + 2 * o for i, o in itertools.pairwise(channels))
    return encoder, decoder + channels[-1] * sizes[0] * kernel**2 + sizes[0]


def test_wae_networks_have_the_published_layers() -> None:
    with torch.device("meta"):
        mnist, celeba = wae_mnist((1, 28, 28)), wae_celeba((3, 64, 64))
        encoder, decoder = by_hand(4, (1, 128, 256, 512, 1024), 7, (1024, 512, 256), 8)
        assert count(mnist.encoder(8)) == encoder + 2 * 2 * 1024 * 8 + 8
        assert count(mnist.decoder(8)) == decoder
        encoder, decoder = by_hand(5, (3, 128, 256, 512, 1024), 8, (1024, 512, 256, 128), 64)
        assert count(celeba.encoder(64)) == encoder + 4 * 4 * 1024 * 64 + 64
        assert count(celeba.decoder(64)) == decoder


@pytest.mark.parametrize(("kernel", "stride", "size"), [(5, 1, 8), (5, 2, 8), (4, 1, 7), (4, 2, 7), (3, 1, 5)])
def test_convolutions_pad_as_tensorflow_does(kernel: int, stride: int, size: int) -> None:
    """To ceil(size / stride) pixels, an odd pixel right and below, whether the convolution itself pads or not."""
    padding, convolution = _convolution(2, 3, kernel, stride, size)
    assert isinstance(convolution, nn.Conv2d)
    x = torch.rand(2, 2, size, size)
    total = (-(-size // stride) - 1) * stride + kernel - size
    sides = (total // 2, total - total // 2) * 2
    expected = nn.functional.conv2d(nn.functional.pad(x, sides), convolution.weight, convolution.bias, stride)
    assert torch.allclose(convolution(padding(x)), expected, atol=1e-6)
    assert expected.shape[-1] == -(-size // stride)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [AE, SWAE, WAEMMD, WAEGAN, VAE])
def test_every_model_takes_a_step_on_the_default_network(make: Make, shape: Shape) -> None:
    torch.manual_seed(0)
    model = make(ModelContext(shape, 4, Normal(4), Conv(shape, hidden=16)))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, *shape, generator=generator)
    for loss in model.training_step(x, torch.randn(4, 4, generator=generator), Noise(generator)):
        config = model.configure_optimizers()[loss.optimizer]
        loss.value.backward(inputs=list(config.parameters))
        assert torch.isfinite(loss.value)
        assert all(parameter.grad.any() for parameter in config.parameters)
        config.optimizer(config.parameters).step()
    images = model.decode(model.encode(x)).detach()
    assert images.shape == x.shape
    assert 0.0 <= float(images.min()) <= float(images.max()) <= 1.0


# ---------------------------------------------------------------- helpers


def test_bce_l1_is_a_mean_over_pixels() -> None:
    x, y = np.random.default_rng(0).uniform(0.05, 0.95, (2, 3, 1, 4, 4))
    expected = (-(x * np.log(y) + (1 - x) * np.log(1 - y)) + np.abs(x - y)).mean(axis=(1, 2, 3))
    assert np.allclose(bce_l1(torch.logit(torch.tensor(y)), torch.tensor(x)).numpy(), expected)


@pytest.mark.parametrize("cost", COSTS)
def test_costs_are_one_number_for_each_image(cost: str) -> None:
    x, logits = torch.rand(5, 3, 4, 4), torch.randn(5, 3, 4, 4)
    whole = COSTS[cost](logits, x)
    assert whole.shape == (5,)
    assert torch.allclose(whole[2:3], COSTS[cost](logits[2:3], x[2:3]))


def test_adam_takes_the_textbook_step() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = adam(0.1, (0.5, 0.999))([parameter])
    m = v = np.zeros(2)
    w = np.array([1.0, -2.0])
    for t in range(1, 6):
        optimizer.zero_grad()
        (parameter**3).sum().backward()
        optimizer.step()
        g = 3 * w**2
        m, v = 0.5 * m + 0.5 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.1 * (m / (1 - 0.5**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert np.allclose(parameter.detach().numpy(), w, rtol=1e-5)


def test_rmsprop_takes_keras_step() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = rmsprop(0.1)([parameter])
    (parameter**2).sum().backward()
    optimizer.step()
    w = np.array([1.0, -2.0])
    g = 2 * w
    assert np.allclose(parameter.detach().numpy(), w - 0.1 * g / (np.sqrt(0.1 * g**2) + 1e-7), rtol=1e-5)


def test_wae_schedule_multiplies_its_factors() -> None:
    assert [wae_schedule(epoch) for epoch in (0, 30, 50, 100)] == [1.0, 1 / 2, 1 / 2 / 5, 1 / 2 / 5 / 10]
