"""Similarity of reconstructions to held-out images: PSNR and SSIM, by torchmetrics' functions where they are right.

Both are of single images and then averaged, so that no number depends on which images share a batch. torchmetrics'
defaults do otherwise for PSNR (one mean squared error of a whole batch, which is another number), and for SSIM average
over windows that reach into a mirrored border, where Wang et al. (2004) and their code use only windows that lie in
the image. Neither default is taken.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genbench.api import (
    ComponentSpec,
    DataConfig,
    DatasetInfo,
    Evaluation,
    Measurement,
    Metric,
    Option,
    Prior,
)
from genbench.data.images import to_float
from genbench.errors import MetricError, NotApplicableError, UsageError
from genbench.hookspecs import hookimpl

BATCH = 250
WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation in pixels of the Gaussian window (Wang et al. 2004, section III.B)."""


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair in decibels, -10 log10 of the mean squared error; infinite where equal.

    x, y: `(n, c, h, w)` in [0, 1] -> `(n,)` float64.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio  # seconds to import

    ratios: Tensor = peak_signal_noise_ratio(y.double(), x.double(), data_range=1.0, dim=(1, 2, 3), reduction="none")
    return ratios


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each pair, in [-1, 1], the mean over channels and over the windows inside the image.

    x, y: `(n, c, h, w)` in [0, 1], h and w at least 11 -> `(n,)` float64; K1 = 0.01, K2 = 0.03.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # seconds to import

    _, everywhere = structural_similarity_index_measure(
        y.double(),
        x.double(),
        sigma=SIGMA,
        kernel_size=WINDOW,
        data_range=1.0,
        reduction="none",
        return_full_image=True,
    )
    reach = WINDOW // 2
    inside: Tensor = everywhere[:, :, reach:-reach, reach:-reach]
    return inside.flatten(1).mean(1)


class Similarity(Metric):
    """The mean over held-out images of a similarity to their reconstructions."""

    name: ClassVar[str]
    method: ClassVar[str]
    unit: ClassVar[str]
    label: ClassVar[str]
    n: int
    uses_samples = False

    @abstractmethod
    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        """The similarity of each pair, `(n, c, h, w), (n, c, h, w) -> (n,)`."""

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse more images than there are held out."""
        if not info.test:
            raise UsageError(f"{self.name} needs held-out images and the dataset has none")
        if self.n > info.test:
            raise UsageError(
                f"{self.name}: {self.n} held-out images were asked for and the dataset has {info.test}: "
                f"--set {self.name}.n={info.test}"
            )

    def fit_to(self, info: DatasetInfo) -> Mapping[str, int]:
        """As many images as there are held out."""
        return {"n": info.test} if self.n > info.test > 0 else {}

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """One number; it has no sampling error, as the images are fixed and reconstruction draws nothing."""
        n = min(self.n, len(e.references)) or len(e.references)
        pairs = zip(e.held_out(n).split(BATCH), e.reconstructions(n).split(BATCH), strict=True)
        values = torch.cat([self.compare(to_float(x).to(y.device), y).cpu() for x, y in pairs])
        exact = int(values.isposinf().sum())
        if exact == n:
            raise NotApplicableError(f"{self.name}: the reconstructions are the images themselves: it is infinite")
        if exact:
            raise MetricError(f"{self.name}: {exact} of {n} reconstructions are exact, so that the mean is infinite")
        if not values.isfinite().all():
            bad = int((~values.isfinite()).sum())
            raise MetricError(f"{self.name}: {bad} of {n} reconstructions hold values that are NaN or infinite")
        protocol = e.protocol(
            method=self.method,
            references=n,
            generated=0,
            values="float in [0, 1], not rounded",
            dtype="float64",
            draws="none",
            detail="data range 1",
        )
        yield Measurement(
            value=float(values.mean()),
            unit=self.unit,
            higher_is_better=True,
            n=n,
            protocol=protocol,
            role="reconstruction",
            label=self.label,
        )


class PSNR(Similarity):
    """Peak signal-to-noise ratio of each image, averaged in decibels; infinite for a reconstruction without error."""

    name = "psnr"
    method = "PSNR of each image, mean over images"
    unit = "dB"
    label = "PSNR"

    def __init__(self, *, n: Annotated[int, Option("held-out images; 0: all", low=0)] = 0) -> None:
        self.n = n

    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        """PSNR of each pair."""
        return psnr(x, y)


class SSIM(Similarity):
    """Structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861), colours apart and averaged; at most 1."""

    name = "ssim"
    method = f"SSIM, Gaussian window {WINDOW}x{WINDOW} of sigma {SIGMA} inside the image, mean over images"
    unit = "similarity"
    label = "SSIM"

    def __init__(self, *, n: Annotated[int, Option("held-out images; 0: all", low=0)] = 2000) -> None:
        self.n = n

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse images smaller than the window as well."""
        super().validate(info, prior, data_config)
        _, h, w = info.shape
        if min(h, w) < WINDOW:
            raise UsageError(f"ssim: its window has {WINDOW}x{WINDOW} pixels and the images {h}x{w}")

    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        """SSIM of each pair."""
        return ssim(x, y)


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """PSNR and SSIM."""
    yield ComponentSpec(
        name="psnr",
        description="Peak signal-to-noise ratio on held-out images",
        factory=PSNR,
        reference="doi:10.1109/ICPR.2010.579",
    )
    yield ComponentSpec(
        name="ssim",
        description="Structural similarity on held-out images",
        factory=SSIM,
        reference="doi:10.1109/TIP.2003.819861",
    )
