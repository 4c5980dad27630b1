"""Base class of networks for colour photographs whose weights are in a file, and the way of an image into them."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from genbench.api import DataConfig, Extractor, Option
from genbench.data.tensor_files import hash_file
from genbench.errors import DataError
from genbench.features import read_weights

SIDE = 224
BILINEAR = f"to {SIDE}x{SIDE}, bilinear without antialiasing, as TensorFlow 1 did"
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHTS = Option("file of the network's weights: safetensors, or a state_dict by torch.save; it is needed", file=True)

State = dict[str, Tensor]
"""The tensors of a network by their names."""


class VisionExtractor(Extractor):
    """A network for photographs of 224x224 pixels; its weights are in a file that the user names.

    Images are resized and normalized as torch-fidelity does for its extractors of the same names.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    """The weights that it takes, and where they are published, in words."""
    mean: ClassVar[tuple[float, float, float]]
    sd: ClassVar[tuple[float, float, float]]
    """Mean and standard deviation of each color by which pixels in [0, 1] are normalized."""
    cpu_batch = 16

    def __init__(self, data_config: DataConfig, *, weights: str = "none") -> None:
        self.path = self.find(data_config, "" if weights == "none" else weights)
        self.sha256 = hash_file(self.path)

    def find(self, data_config: DataConfig, given: str) -> Path:
        """The file of weights; `DataError` where there is none."""
        if not given:
            raise DataError(
                f"{self.name} needs a file of weights, and nothing is downloaded: --set METRIC.weights=FILE with"
                f" {self.source}"
            )
        path = Path(given).expanduser()
        if not path.is_file():
            raise DataError(f"{self.name} weights: there is no file {given}")
        return path

    @property
    def weights_label(self) -> str:
        """The start of the file's hash."""
        return f"custom {self.sha256[:12]}"

    @abstractmethod
    def build(self, state: State, layer: str) -> nn.Module:
        """The network with these weights, from normalized images `(n, 3, 224, 224)` to a layer `(n, f)`.

        Any error says that the weights are of another network.
        """

    def network(self, layer: str) -> nn.Module:
        """The network up to a layer."""
        state = {name: tensor.float() for name, tensor in read_weights(self.path).items()}
        try:
            network = self.build(state, layer)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            raise DataError(
                f"{self.path} holds weights of another network: {self.name} takes {self.source}:"
                " --set METRIC.weights=FILE"
            ) from None
        return Prepared(network.requires_grad_(False).eval(), self.mean, self.sd)


class Prepared(nn.Module):
    """A network behind the resize and the normalization: uint8 images in, features out."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], sd: tuple[float, ...]) -> None:
        """`mean` and `sd` of each color, of pixels in [0, 1]."""
        super().__init__()
        self.network = network
        for name, values in (("mean", mean), ("sd", sd)):
            self.register_buffer(name, 255 * torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of images, `(n, 3, h, w)` uint8 -> `(n, f)` float32."""
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        x = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(SIDE, SIDE), align_corners=False)
        features: Tensor = self.network((x - self.mean) / self.sd)
        return features


def filled(network: nn.Module, state: State) -> nn.Module:
    """A network that was made on torch's meta device, with its tensors taken from a state_dict of the same names."""
    network.load_state_dict({name: tensor.contiguous() for name, tensor in state.items()}, assign=True)
    return network
