"""Perceptual distances of reconstructions from held-out images, LPIPS and DISTS, by torchmetrics' arithmetic.

torchmetrics ships the weights that are each measure's and downloads those of the network below. Here these come from a
file, and nothing is downloaded. Images are not resized, and grey ones are repeated to three channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from genbench.api import ComponentSpec, DataConfig, DatasetInfo, Metric, Option, Prior
from genbench.data.tensor_files import hash_file
from genbench.errors import DataError, UsageError
from genbench.features import read_weights
from genbench.hookspecs import hookimpl
from genbench_similarity import Similarity

SHORT: dict[str, Literal["alex", "squeeze", "vgg"]] = {"alexnet": "alex", "squeezenet1_1": "squeeze", "vgg16": "vgg"}
"""torchvision's networks below LPIPS, whose convolutions alone are used, and the names that LPIPS has for them."""

CONVOLUTIONS = "features."
"""The beginning of the names of convolutions in torchvision's state_dicts."""

PIXELS = 2**18
"""Pixels of images at once: the activations of VGG16 are then below 1 GiB."""

STAGES = ((0, 4), (5, 9), (10, 16), (17, 23), (24, 30))
"""The modules of VGG16 in each stage of DISTS, whose pooling takes the place of the module between two stages."""

CHANNELS = (3, 64, 128, 256, 512, 512)
"""Of the image and of the stages' outputs."""

WEIGHTS = "file of the weights of torchvision's {}: safetensors, or a state_dict by torch.save; it is needed"


class Perceptual(Similarity):
    """A distance of deep features of each pair, averaged; its network's weights are in a file that the user names."""

    networks: ClassVar[tuple[str, ...]]
    unit = "distance"
    higher_is_better = False

    def __init__(self, n: int, weights: str) -> None:
        """Options that both metrics declare."""
        self.n, self.weights = n, weights

    @abstractmethod
    def measure_of(self, name: str, convolutions: nn.Sequential) -> nn.Module:
        """The distance on top of a network: two batches of images `(n, 3, h, w)` in [0, 1] to `(n,)`."""

    @cached_property
    def path(self) -> Path:
        """The file of weights."""
        possible = ", ".join(self.networks[:-1]) + " or " * (len(self.networks) > 1) + self.networks[-1]
        if self.weights == "none":
            raise DataError(
                f"{self.name} needs the weights of torchvision's {possible}, and nothing is downloaded:"
                f" --set {self.name}.weights=FILE"
            )
        path = Path(self.weights).expanduser()
        if not path.is_file():
            raise DataError(f"{self.name} weights: there is no file {self.weights}")
        return path

    @cached_property
    def backbone(self) -> tuple[str, nn.Module]:
        """The name of the network that the weights are of, and the distance on top of it."""
        from torchvision import models  # seconds to import

        state = {
            name.removeprefix(CONVOLUTIONS): tensor.float()
            for name, tensor in read_weights(self.path).items()
            if name.startswith(CONVOLUTIONS)
        }
        for name in self.networks:
            with torch.device("meta"):
                convolutions: nn.Sequential = getattr(models, name)().features
            if _shapes(convolutions.state_dict()) == _shapes(state):
                convolutions.load_state_dict(state, assign=True)
                return name, self.measure_of(name, convolutions).requires_grad_(False).eval()
        raise DataError(
            f"{self.path} holds weights of another network: {self.name} takes torchvision's"
            f" {' or '.join(self.networks)}: --set {self.name}.weights=FILE"
        )

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse missing weights, and images that are too small for the network, as well."""
        super().validate(info, prior, data_config)
        noise = torch.rand(2, *info.shape, generator=torch.Generator().manual_seed(0))
        try:
            distances = self.compare(noise[:1], noise[1:])
        except RuntimeError:
            raise UsageError(
                f"{self.name}: images of {info.shape[1]}x{info.shape[2]} pixels are too small for {self.backbone[0]}:"
                f" --set {self.name}.weights=FILE with those of vgg16"
            ) from None
        if not distances.isfinite().all():
            raise DataError(f"{self.name}: the weights in {self.path} give values that are NaN or infinite")

    @torch.no_grad()
    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of each pair."""
        network = self.backbone[1].to(x.device)
        # As features are extracted: TF32 would move the third digit.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            distances: Tensor = network(x.float().expand(-1, 3, -1, -1), y.float().expand(-1, 3, -1, -1))
        return distances.reshape(-1)

    def images_at_once(self, height: int, width: int) -> int:
        """As many as have so many pixels."""
        return min(super().images_at_once(height, width), max(1, PIXELS // (height * width)))

    def facts(self) -> Mapping[str, str]:
        """The network and its weights."""
        return {
            "values": "float in [0, 1], not rounded; grey repeated to three channels",
            "resize": "none",
            "extractor": self.backbone[0],
            "weights": f"custom {hash_file(self.path)[:12]}",
            "dtype": "float32",
            "detail": f"weights of {self.label} as torchmetrics ships them",
        }


class LPIPS(Perceptual):
    """Learned perceptual image patch similarity, version 0.1 (arXiv:1801.03924): a distance, 0 for equal images.

    The file of weights decides the network below; values of two networks do not compare. AlexNet needs images of 31x31
    pixels, VGG16 of 16x16.
    """

    name = "lpips"
    networks = ("alexnet", "squeezenet1_1", "vgg16")
    label = "LPIPS"
    method = "LPIPS 0.1 of each image, mean over images"

    def __init__(
        self,
        *,
        n: Annotated[int, Option("held-out images; 0: all", low=0)] = 2000,
        weights: Annotated[
            str,
            Option(WEIGHTS.format("alexnet, squeezenet1_1 or vgg16"), reference="arXiv:1801.03924", file=True),
        ] = "none",
    ) -> None:
        super().__init__(n, weights)

    def head(self) -> str:
        """The name with that of the network."""
        return f"LPIPS ({SHORT[self.backbone[0]]})"

    def measure_of(self, name: str, convolutions: nn.Sequential) -> nn.Module:
        """torchmetrics' distance with its own weights of the layers."""
        return LPIPSNetwork(SHORT[name], convolutions)


class LPIPSNetwork(nn.Module):
    """torchmetrics' LPIPS on given convolutions."""

    def __init__(self, name: Literal["alex", "squeeze", "vgg"], convolutions: nn.Sequential) -> None:
        """`name` is LPIPS's for the network."""
        from torchmetrics.functional.image import lpips  # seconds to import

        super().__init__()
        with torch.device("meta"):
            self.distance = lpips._LPIPS(pretrained=False, net=name, pnet_rand=True)
        self.distance.scaling_layer = lpips.ScalingLayer()  # its constants are no weights
        heads = read_weights(Path(lpips.__file__).with_name("lpips_models") / f"{name}.pth")
        below = {}
        for key in self.distance.net.state_dict():  # torchmetrics cuts networks into slices: slice1.0.weight
            kept = key.split(".", 2)[2] if key.startswith("slices.") else key.split(".", 1)[1]
            below[f"net.{key}"] = convolutions.state_dict()[kept]
        self.distance.load_state_dict({**heads, **below}, strict=False, assign=True)  # a layer has two names

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The distances of pairs, `(n, 3, h, w)` in [0, 1] -> `(n, 1, 1, 1)`."""
        distances: Tensor = self.distance(x, y, normalize=True)
        return distances


class DISTS(Perceptual):
    """Deep image structure and texture similarity (arXiv:2004.07728), as a distance in [0, 1], 0 for equal images.

    The authors resize photographs to 256 pixels first; here images keep their size, so that values compare with each
    other only.
    """

    name = "dists"
    label = "DISTS"
    networks = ("vgg16",)
    method = "DISTS of each image, mean over images"

    def __init__(
        self,
        *,
        n: Annotated[int, Option("held-out images; 0: all", low=0)] = 2000,
        weights: Annotated[str, Option(WEIGHTS.format("vgg16"), reference="arXiv:2004.07728", file=True)] = "none",
    ) -> None:
        super().__init__(n, weights)

    def measure_of(self, name: str, convolutions: nn.Sequential) -> nn.Module:
        """torchmetrics' distance with its own weights of structure and texture."""
        from torchmetrics.functional.image import dists  # seconds to import

        # The constructor would download VGG16.
        network = dists.DISTSNetwork.__new__(dists.DISTSNetwork)
        nn.Module.__init__(network)
        network.chns = list(CHANNELS)
        for i, (first, last) in enumerate(STAGES):
            pool = [dists.L2pooling(channels=CHANNELS[i])] if i else []
            network.add_module(f"stage{i + 1}", nn.Sequential(*pool, *convolutions[first:last]))
        for constant, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            network.register_buffer(constant, torch.tensor(values).view(1, -1, 1, 1))
        for weight, tensor in read_weights(dists._PATH_WEIGHT_DISTS).items():
            network.register_parameter(weight, nn.Parameter(tensor))
        made: nn.Module = network
        return made


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """LPIPS and DISTS."""
    yield ComponentSpec(
        name="lpips",
        description="Perceptual distance of reconstructions, learned from judgements of people",
        factory=LPIPS,
        reference="arXiv:1801.03924",
    )
    yield ComponentSpec(
        name="dists",
        description="Perceptual distance of reconstructions in structure and texture",
        factory=DISTS,
        reference="arXiv:2004.07728",
    )
