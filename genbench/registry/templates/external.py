"""Scores `my-external`, a model that was trained elsewhere, by its weights file: `python my_external.py`.

Put your modules in the place of `Encoder` and `Decoder`, and fill in the constants. Nothing is trained.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import genbench

DATASET = "glyphs"
PRIOR = "normal"  # what the codes were trained to follow
DIMENSION = 8
SEED = 0  # the training seed; score the weights of each seed by its own number
WEIGHTS = "my_external.safetensors"
BATCH = 500


class Encoder(nn.Module):
    """Images `(n, c, h, w)` in [0, 1] -> codes `(n, d)`."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, DIMENSION))

    def forward(self, x: Tensor) -> Tensor:
        """The codes."""
        codes: Tensor = self.layers(x)
        return codes


class Decoder(nn.Module):
    """Codes `(n, d)` -> images `(n, c, h, w)` in [0, 1]."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        pixels = channels * height * width
        self.layers = nn.Sequential(nn.Linear(DIMENSION, pixels), nn.Sigmoid(), nn.Unflatten(1, shape))

    def forward(self, z: Tensor) -> Tensor:
        """The images."""
        images: Tensor = self.layers(z)
        return images


@torch.no_grad()
def main() -> None:
    """Loads the weights, draws samples, encodes and rebuilds the test images, and scores all of them."""
    test = genbench.load_dataset(DATASET).test  # `(n, c, h, w)` uint8, in the dataset's order
    _, channels, height, width = test.shape
    model = nn.ModuleDict({"encoder": Encoder(test[0].numel()), "decoder": Decoder((channels, height, width))})

    # For a .pt file: torch.load(WEIGHTS, weights_only=True), which runs none of its code.
    model.load_state_dict(load_file(WEIGHTS))
    model.eval()  # batch norm and dropout as in use

    draws = torch.randn(len(test), DIMENSION, generator=torch.Generator().manual_seed(SEED))
    samples = torch.cat([model["decoder"](z) for z in draws.split(BATCH)])
    codes = torch.cat([model["encoder"](x / 255) for x in test.split(BATCH)])
    rebuilt = torch.cat([model["decoder"](z) for z in codes.split(BATCH)])
    results = genbench.score(
        "my-external", samples, reconstructions=rebuilt, codes=codes, prior=PRIOR, dataset=DATASET, seed=SEED
    )
    print(results)


if __name__ == "__main__":
    main()
