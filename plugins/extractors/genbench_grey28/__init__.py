"""Feature extractor `grey28`: a small classifier of 28x28 grey images, for FID without a download.

It tells 30 classes apart: the ten each of MNIST, Fashion-MNIST and glyphs. Importing this module registers it with
torch-fidelity, which then knows it by name as it knows its own extractors.

Test accuracy among all 30 classes: MNIST 99.47 %, Fashion-MNIST 92.54 %, glyphs 99.52 % of 10,000 images each, as
printed by `python -m genbench_grey28.train --data-root DIR` (seven epochs, seed 0), which made the weights.

Layers: "128", the last hidden layer before its rectifier, and "logits", the 30 unnormalised log probabilities in the
order of `CLASSES`. There is no batch norm left to run in the wrong mode: training folds it into the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch_fidelity
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from genbench.errors import UnsupportedError
from genbench.utils.io import hash_file, load_tensors

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
"""What each of the 30 logits stands for."""


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


class Grey28(FeatureExtractorBase):  # type: ignore[misc]  # torch-fidelity has no annotations
    """The extractor as torch-fidelity calls it: uint8 images in, one tensor per requested layer out."""

    RESIZE = "none"

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None, **options: Any
    ) -> None:
        """Loads the shipped weights, or others of the same layers; raises `DataError` where the checksum fails.

        options: all others of torch-fidelity, which it hands to every extractor alike; none concerns this one, but
        for an internal dtype other than float32, which is refused.
        """
        super().__init__(name, features_list)
        dtype = options.get("feature_extractor_internal_dtype")
        if dtype not in (None, "float32"):
            raise UnsupportedError(f"the extractor {NAME} computes in float32 only, not in {dtype}")
        self.hidden = hidden_layers()
        self.logits = nn.Linear(128, len(CLASSES))
        weights, _ = load_tensors(Path(feature_extractor_weights_path or WEIGHTS))
        self.load_state_dict(weights)
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.eval()

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """The requested layers of images `(n, 1 or 3, 28, 28)` uint8, `(n, 128)` or `(n, 30)` float32 each.

        Three channels are averaged, which for repeated grey gives exactly what one channel gives.
        """
        if input.dtype != torch.uint8:
            raise UnsupportedError(
                f"the extractor {NAME} takes uint8 images in 0..255, not {input.dtype}: round them first"
            )
        if input.dim() != 4 or input.shape[1] not in (1, 3) or input.shape[2:] != (SIDE, SIDE):
            raise UnsupportedError(
                f"the extractor {NAME} takes images (n, 1 or 3, {SIDE}, {SIDE}), not {tuple(input.shape)}:"
                " choose another one, such as inception"
            )
        x = input.to(torch.float32).sum(dim=1, keepdim=True) / (255 * input.shape[1])
        hidden = self.hidden(x)
        layers = {"128": hidden, "logits": self.logits(hidden.relu())}
        return tuple(layers[layer] for layer in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """The layers."""
        return "128", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The hidden layer, but the logits for the inception score, which is of class probabilities."""
        return {"isc": "logits", "fid": "128", "kid": "128", "prc": "128"}[metric]

    @staticmethod
    def can_be_compiled() -> bool:
        """Whether `torch.compile` may wrap it."""
        return True

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        """A black image."""
        return torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)


@torch.no_grad()
def classify(images: Tensor, batch: int = 1000) -> Tensor:
    """Class probabilities of images `(n, 1 or 3, 28, 28)` uint8, `(n, 30)` float32 in the order of `CLASSES`."""
    extractor = Grey28(NAME, ["logits"]).to(images.device)
    return torch.cat([extractor(block)[0].softmax(dim=1) for block in images.split(batch)])


if NAME not in FEATURE_EXTRACTORS_REGISTRY:  # torch-fidelity refuses a second registration, as a reload would be
    torch_fidelity.register_feature_extractor(NAME, Grey28)
