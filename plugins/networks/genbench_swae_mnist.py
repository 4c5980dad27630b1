"""The network `swae-mnist`: the convolutions of the notebooks that accompany SWAE (arXiv:1804.01947)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from genbench.api import ComponentSpec, Network, Shape
from genbench.hookspecs import hookimpl
from genbench.nn import require_shape


class SWAEMNIST(Network):
    """Pairs of 3x3 convolutions between 2x2 poolings; 203,250 + 308,193 parameters at two latent dimensions."""

    def __init__(self, shape: Shape) -> None:
        """Check the shape: the sizes within the network fit 28x28 grey alone."""
        require_shape("swae-mnist", shape, shape == (1, 28, 28), "it fits 1 x 28 x 28 alone; 'conv' and 'mlp' fit more")
        self.shape = shape

    def encoder(self, outputs: int) -> nn.Module:
        """`(n, 1, 28, 28) -> (n, outputs)` by way of 14, 7 and 4 pixels."""
        return nn.Sequential(
            *(*_conv(1, 16), *_conv(16, 16), _pool()),
            *(*_conv(16, 32), *_conv(32, 32), _pool()),
            *(*_conv(32, 64), *_conv(64, 64), _pool()),
            *(nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, outputs)),
        )

    def decoder(self, latent_dim: int) -> nn.Module:
        """`(n, latent_dim) -> (n, 1, 28, 28)` logits by way of 4, 8, 16, 14 and 28 pixels."""
        return nn.Sequential(
            # No activation between the first two layers: so it is in the notebooks.
            *(nn.Linear(latent_dim, 128), nn.Linear(128, 1024), nn.ReLU(), nn.Unflatten(1, (64, 4, 4))),
            *(nn.Upsample(scale_factor=2), *_conv(64, 64), *_conv(64, 64)),
            *(nn.Upsample(scale_factor=2), *_conv(64, 64, padding=0), *_conv(64, 64)),
            *(nn.Upsample(scale_factor=2), *_conv(64, 32), *_conv(32, 32)),
            nn.Conv2d(32, 1, 3, padding=1),
        )


def _conv(inputs: int, outputs: int, padding: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=padding), nn.LeakyReLU(0.2)


def _pool() -> nn.Module:
    """Average over 2x2 pixels, over fewer at the edge where the size is odd: 28 -> 14 -> 7 -> 4."""
    return nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)


@hookimpl
def genbench_networks() -> Iterable[ComponentSpec[Network]]:
    """The component."""
    yield ComponentSpec(
        name="swae-mnist",
        description="SWAE's convolutions for 28x28 grey",
        factory=SWAEMNIST,
        reference="arXiv:1804.01947, notebooks of skolouri/swae",
    )
