"""Measurements on the pictures themselves: reconstruction error and sharpness."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.api import (
    ComponentSpec,
    DataConfig,
    DatasetInfo,
    Evaluation,
    Measurement,
    Metric,
    Option,
    Piece,
    Prior,
)
from genbench.data.images import to_float
from genbench.errors import UsageError
from genbench.hookspecs import hookimpl

LAPLACE = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey, ITU-R BT.601."""


class Reconstruction(Metric):
    """Squared error of decode(encode(x)) on held-out images, pixel values in [0, 1], not rounded."""

    uses_samples = False

    def __init__(self, *, n: Annotated[int, Option("test images; 0: all", low=0)] = 0) -> None:
        self.n = n

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse a dataset without test images."""
        _refuse_none("reconstruction", info)

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """Two reductions of one error: mean over pixels, and sum over an image's pixels."""
        n = min(self.n, len(e.references)) or len(e.references)
        pairs = zip(e.held_out(n).split(1000), e.reconstructions(n).split(1000), strict=True)
        sums = [(to_float(x).to(y.device) - y).square().sum(dtype=torch.float64) for x, y in pairs]
        total = sum(torch.stack(sums).tolist())  # the device is waited for once
        protocol = e.protocol(
            method="squared error, mean over images",
            references=n,
            generated=0,
            values="float in [0, 1], not rounded",
            draws="none",
        )
        per_image = total / n
        pixels = math.prod(e.images.shape)
        for component, value, unit in (
            ("pixel", per_image / pixels, "mean over pixels"),
            ("image", per_image, "sum over pixels"),
        ):
            yield Measurement(
                value=value,
                unit=unit,
                higher_is_better=False,
                n=n,
                protocol=protocol,
                component=component,
                role="reconstruction",
                floor=0.0,
                label=f"MSE per {component}",
            )


class Sharpness(Metric):
    """Variance of the Laplace filter of grey samples in [0, 1], mean over images (arXiv:1711.01558, section 4).

    The floor is the sharpness of the real test images: blurred samples fall below it, noise lies above.
    """

    def __init__(self, *, n: Annotated[int, Option("samples", reference="arXiv:1711.01558", low=1)] = 1000) -> None:
        self.n = n

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse a dataset without test images, whose sharpness is the scale."""
        _refuse_none("sharpness", info)

    def counts_needed(self, info: DatasetInfo) -> Mapping[Piece, int]:
        """`n` samples."""
        return {"samples": self.n}

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The samples' sharpness, beside that of the real images as its reference value."""
        references = min(self.n, len(e.references))
        real = e.cache_for_dataset(
            f"sharpness/{references}/{e.split}/{e.images.sha256}", lambda: sharpness(e.held_out(references))
        )
        protocol = e.protocol(
            method="variance of the Laplace filter, grey in [0, 1], no padding",
            references=references,
            generated=self.n,
        )
        value = sharpness(e.samples(self.n))
        yield Measurement(
            value=value,
            unit="variance",
            higher_is_better=None,
            n=self.n,
            protocol=protocol,
            floor=real,
            label="sharpness",
        )


def _refuse_none(metric: str, info: DatasetInfo) -> None:
    if not info.test:
        raise UsageError(f"{metric} needs held-out images and the dataset has none")


def sharpness(images: Tensor) -> float:
    """Mean over images of the variance of the Laplace-filtered grey image, `(n, c, h, w)` uint8."""
    x = to_float(images)
    if x.shape[1] == 3:
        x = (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    filtered = F.conv2d(x, x.new_tensor(LAPLACE).view(1, 1, 3, 3)).flatten(1)
    return float(filtered.var(1, correction=0).double().mean())


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """Reconstruction and sharpness."""
    source = "arXiv:1711.01558, section 4: the cost |x - y|^2"
    yield ComponentSpec(
        name="reconstruction",
        aliases=("mse", "rmse", "l2", "reconstruction-error"),
        description="Squared error on held-out images",
        factory=Reconstruction,
        reference=source,
    )
    yield ComponentSpec(
        name="sharpness", description="Sharpness of the samples", factory=Sharpness, reference="arXiv:1711.01558"
    )
