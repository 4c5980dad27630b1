"""The control `my-control`: training images with noise. Change `sample` and `reconstruct`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Control, Evaluation, Images, ModelContext, Option
from genbench.data.images import to_float, to_uint8
from genbench.hookspecs import hookimpl


class MyControl(Control):
    """Training images and independent normal noise: what a model that only copies would show.

    A control is measured like a model and never ranked. One with codes is a `genbench.api.LatentControl`.
    """

    # Keyword-only parameters are the options: `--set my-control.sigma=0.2`.
    def __init__(self, *, sigma: Annotated[float, Option("noise, pixels in [0, 1]", low=0)] = 0.1) -> None:
        """Keep the options."""
        self.sigma = sigma

    def fit(self, images: Images, context: ModelContext) -> None:
        """Look at `images.train` alone; `parameters` counts the numbers that are kept. Nothing is stored."""
        self.parameters = 0

    def sample(self, n: int, evaluation: Evaluation) -> Tensor:
        """n images, `(n, c, h, w)` uint8; the first of them must not depend on n, so noise is drawn image by image."""
        images = evaluation.training_images(0)
        generator, shape = evaluation.generator("my-control"), (1, *evaluation.context.shape)
        noise = torch.cat([torch.randn(shape, generator=generator) for _ in range(n)]).to(images.device)
        repeated = images[torch.arange(n, device=images.device) % len(images)]
        return to_uint8((to_float(repeated) + self.sigma * noise).clamp(0.0, 1.0))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Reconstructions in [0, 1], each of its image alone; delete this where the control has none."""
        return x.clone()


@hookimpl
def genbench_controls() -> Iterable[ComponentSpec[Control]]:
    """The control. `reference` is the paper that it comes from."""
    yield ComponentSpec(name="my-control", description="Training images with noise", factory=MyControl, reference="")
