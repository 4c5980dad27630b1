"""The networks `wae-mnist` and `wae-celeba`: convolutions with batch norm of arXiv:1711.01558's code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from genbench.api import ComponentSpec, Network, Shape
from genbench.hookspecs import hookimpl
from genbench.nn import require_shape

ENCODER_WIDTHS = (128, 256, 512, 1024)


class WAENetwork(Network):
    """[convolution of stride 2, batch norm, ReLU] four times; transposed likewise from a grid of 1024 channels.

    Biases that the batch norm after them subtracts are kept, as published.
    """

    def __init__(self, shape: Shape, name: str, size: int, kernel: int, widths: Sequence[int]) -> None:
        """Check the shape. `widths` are the decoder's channels, halved in size from one to the next."""
        require_shape(
            name, shape, shape[1:] == (size, size), f"it fits {size} x {size} pixels; 'conv' and 'mlp' fit more"
        )
        self.shape = shape
        self.kernel = kernel
        self.widths = widths

    def encoder(self, outputs: int) -> nn.Module:
        """`(n, c, h, w) -> (n, outputs)`."""
        layers: list[nn.Module] = []
        channels, size = self.shape[0], self.shape[1]
        for width in ENCODER_WIDTHS:
            layers += [*_convolution(channels, width, self.kernel, 2, size), nn.BatchNorm2d(width), nn.ReLU()]
            channels, size = width, -(-size // 2)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size * size, outputs))

    def decoder(self, latent_dim: int) -> nn.Module:
        """`(n, latent_dim) -> (n, c, h, w)` logits."""
        channels = self.widths[0]
        size = self.shape[1] // 2 ** (len(self.widths) - 1)
        layers: list[nn.Module] = [nn.Linear(latent_dim, channels * size * size), nn.ReLU()]
        layers.append(nn.Unflatten(1, (channels, size, size)))
        for width in self.widths[1:]:
            layers += [self._double(channels, width), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        # Transposed at stride 1 is a convolution with the kernel turned about, which learning does not see.
        return nn.Sequential(*layers, *_convolution(channels, self.shape[0], self.kernel, 1, self.shape[1]))

    def _double(self, inputs: int, outputs: int) -> nn.Module:
        """A transposed convolution to exactly twice the size, for even and odd kernels."""
        padding, odd = (self.kernel - 1) // 2, self.kernel % 2
        return nn.ConvTranspose2d(inputs, outputs, self.kernel, 2, padding, output_padding=odd)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, size: int) -> tuple[nn.Module, nn.Module]:
    """A padding and a convolution to ceil(size / stride) pixels; an odd pixel goes right and below."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    before, after = total // 2, total - total // 2
    if before == after:  # then the convolution pads, without a copy of its input
        return nn.Identity(), nn.Conv2d(inputs, outputs, kernel, stride, before)
    return nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(inputs, outputs, kernel, stride)


def wae_mnist(shape: Shape) -> Network:
    """The network for 28x28 images: kernel 4, decoder 1024-512-256 from 7x7."""
    return WAENetwork(shape, "wae-mnist", 28, 4, (1024, 512, 256))


def wae_celeba(shape: Shape) -> Network:
    """The network for 64x64 images: kernel 5, decoder 1024-512-256-128 from 8x8."""
    return WAENetwork(shape, "wae-celeba", 64, 5, (1024, 512, 256, 128))


@hookimpl
def genbench_networks() -> Iterable[ComponentSpec[Network]]:
    """The components."""
    source = "arXiv:1711.01558, code of tolstikhin/wae"
    yield ComponentSpec(
        name="wae-mnist", description="WAE's convolutions for 28x28 images", factory=wae_mnist, reference=source
    )
    yield ComponentSpec(
        name="wae-celeba", description="WAE's convolutions for 64x64 images", factory=wae_celeba, reference=source
    )
