"""Feature extractor `grey28`: a small classifier of 28x28 grey images, for FID without a download.

It tells 30 classes apart: the ten each of MNIST, Fashion-MNIST and glyphs.

Test accuracy among all 30 classes: MNIST 99.47 %, Fashion-MNIST 92.54 %, glyphs 99.52 % of 10,000 images each, as
printed by `python -m genbench_grey28.train --data-root DIR` (seven epochs, seed 0), which made the weights.

Layers: "128", the last hidden layer before its rectifier, and "logits", the 30 unnormalised log probabilities in the
order of `CLASSES`. There is no batch norm left to run in the wrong mode: training folds it into the weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from genbench.api import ComponentSpec, DataConfig, Extractor
from genbench.data.tensor_files import hash_file, hash_tensors, load_tensors
from genbench.errors import UnsupportedError
from genbench.hookspecs import hookimpl

NAME = "grey28"
SIDE = 28
WEIGHTS = Path(__file__).with_name("weights.safetensors")
WEIGHTS_HASH = hash_file(WEIGHTS) if WEIGHTS.exists() else ""
"""SHA-256 of the file of weights, hexadecimal; empty only while there is none because it is being trained."""

GARMENTS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
CLASSES = (
    *(f"mnist/{digit}" for digit in range(10)),
    *(f"fashion-mnist/{garment}" for garment in GARMENTS),
    *(f"glyphs/{digit}" for digit in range(10)),
)
"""The classes of the 30 logits."""


def hidden_layers() -> nn.Sequential:
    """Untrained layers from images `(n, 1, 28, 28)` in [0, 1] to the hidden layer `(n, 128)`."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * 3 * 3, 128),
    )


class Grey28Network(nn.Module):
    """The classifier up to one layer: uint8 images in, features out."""

    def __init__(self, layer: str = "128", weights: Path = WEIGHTS) -> None:
        """Loads the shipped weights, or others of the same layers; raises `DataError` where the checksum fails."""
        super().__init__()
        self.layer = layer
        self.hidden = hidden_layers()
        self.logits = nn.Linear(128, len(CLASSES))
        self.load_state_dict(load_tensors(weights)[0])
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """The layer's features of images `(n, 1 or 3, 28, 28)` uint8: `(n, 128)` or `(n, 30)` float32.

        Three channels are averaged, which for repeated grey gives exactly what one channel gives.
        """
        if images.dtype != torch.uint8:
            raise UnsupportedError(
                f"the extractor {NAME} takes uint8 images in 0..255, not {images.dtype}: round them first"
            )
        if images.dim() != 4 or images.shape[1] not in (1, 3) or images.shape[2:] != (SIDE, SIDE):
            raise UnsupportedError(
                f"the extractor {NAME} takes images (n, 1 or 3, {SIDE}, {SIDE}), not {tuple(images.shape)}:"
                " choose another one, such as inception"
            )
        x = images.to(torch.float32).sum(dim=1, keepdim=True) / (255 * images.shape[1])
        hidden: Tensor = self.hidden(x)
        return hidden if self.layer == "128" else self.logits(hidden.relu())


class Grey28(Extractor):
    """The classifier as an extractor; its weights are shipped."""

    layers = ("128", "logits")
    default_layer = "128"
    logits_layer = "logits"
    classes = CLASSES

    def __init__(self, data_config: DataConfig) -> None:
        """`data_config` is not needed: nothing is downloaded."""

    @property
    def weights_label(self) -> str:
        """That the weights are shipped, and the start of their hash."""
        return f"shipped {_state_hash()[:12]}"

    def network(self, layer: str) -> nn.Module:
        """The classifier up to a layer."""
        return Grey28Network(layer)


@lru_cache(maxsize=1)
def _state_hash() -> str:
    return hash_tensors(Grey28Network().state_dict())


@torch.no_grad()
def classify(images: Tensor, batch: int = 1000) -> Tensor:
    """Class probabilities of images `(n, 1 or 3, 28, 28)` uint8, `(n, 30)` float32 in the order of `CLASSES`."""
    network = Grey28Network("logits").to(images.device)
    return torch.cat([network(block).softmax(dim=1) for block in images.split(batch)])


@hookimpl
def genbench_extractors() -> Iterable[ComponentSpec[Extractor]]:
    """The classifier of 28x28 grey images."""
    yield ComponentSpec(
        name=NAME, description="a small classifier of 28x28 grey images", factory=Grey28, reference="ours"
    )
