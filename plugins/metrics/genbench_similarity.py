"""Similarity of reconstructions to held-out images: PSNR, SSIM and MS-SSIM, by torchmetrics' functions where right.

All are of single images and then averaged, so that no number depends on which images share a batch. torchmetrics'
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
from torch.nn.functional import avg_pool2d

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

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, the finest first (Wang et al. 2003, section 3.2)."""


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


def ms_ssim(x: Tensor, y: Tensor, scales: int) -> Tensor:
    """Multi-scale structural similarity of each pair, in [0, 1], each channel apart and then averaged.

    The product over scales of the contrast and structure terms, and of the whole SSIM at the coarsest one, each a mean
    over the windows inside the image, raised to the power of its weight. A negative term counts as 0. From scale to
    scale images are averaged over 2x2 pixels.

    x, y: `(n, c, h, w)` in [0, 1], h and w at least 11 * 2^(scales - 1) -> `(n,)` float64.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # seconds to import

    weights = torch.tensor(SCALE_WEIGHTS[:scales], dtype=torch.float64, device=x.device)
    n, channels = x.shape[:2]
    x, y = (images.double().flatten(0, 1)[:, None] for images in (x, y))
    terms = []
    for _ in range(scales - 1):
        _, contrast = structural_similarity_index_measure(
            y,
            x,
            sigma=SIGMA,
            kernel_size=WINDOW,
            data_range=1.0,
            reduction="none",
            return_contrast_sensitivity=True,
        )
        terms.append(contrast)
        x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
    terms.append(ssim(x, y))
    similarity = (torch.stack(terms, 1).clamp(min=0.0) ** (weights / weights.sum())).prod(1)
    return similarity.view(n, channels).mean(1)


SIMILARITY_FACTS = {
    "values": "float in [0, 1], not rounded",
    "dtype": "float64",
    "draws": "none",
    "detail": "data range 1",
}
"""Fields of the protocol of a similarity that says nothing else."""


class Similarity(Metric):
    """The mean over held-out images of a similarity to their reconstructions, or of a distance from them."""

    name: ClassVar[str]
    method: str
    unit: ClassVar[str]
    label: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
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
        block = self.images_at_once(*e.references.shape[2:])
        pairs = zip(e.held_out(n).split(block), e.reconstructions(n).split(block), strict=True)
        values = torch.cat([self.compare(to_float(x).to(y.device), y) for x, y in pairs]).cpu()
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
            **{**SIMILARITY_FACTS, **self.facts()},
        )
        yield Measurement(
            value=float(values.mean()),
            unit=self.unit,
            higher_is_better=self.higher_is_better,
            n=n,
            protocol=protocol,
            role="reconstruction",
            label=self.head(),
        )

    def head(self) -> str:
        """The head of the column."""
        return self.label

    def images_at_once(self, height: int, width: int) -> int:
        """How many images of a size are compared at once."""
        return BATCH

    def facts(self) -> Mapping[str, str]:
        """Fields of the protocol that are not those of all similarities."""
        return {}


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


class MSSSIM(Similarity):
    """Multi-scale structural similarity (Wang et al. 2003, doi:10.1109/ACSSC.2003.1292216); at most 1.

    The five scales of the paper need images of 176x176 pixels, since the window must fit into the coarsest one. Fewer
    scales are another measure, which is asked for and never chosen silently: three for 64x64 pixels, two for 28x28 and
    32x32, with the first weights divided by their sum.
    """

    name = "ms-ssim"
    unit = "similarity"
    label = "MS-SSIM"

    def __init__(
        self,
        *,
        n: Annotated[int, Option("held-out images; 0: all", low=0)] = 2000,
        scales: Annotated[
            int,
            Option(
                "scales, each of half the size: 5 need 176 pixels, 4 need 88, 3 need 44, 2 need 22",
                reference="doi:10.1109/ACSSC.2003.1292216",
                low=2,
                high=len(SCALE_WEIGHTS),
            ),
        ] = len(SCALE_WEIGHTS),
    ) -> None:
        self.n, self.scales = n, scales
        weights = "weights of the paper" + ", divided by their sum" * (scales < len(SCALE_WEIGHTS))
        self.method = f"MS-SSIM, {scales} scales, {weights}, Gaussian window {WINDOW}x{WINDOW} inside the image"

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse images whose coarsest scale is smaller than the window as well."""
        super().validate(info, prior, data_config)
        side = min(info.shape[1:])
        if side < WINDOW * 2 ** (self.scales - 1):
            possible = [scales for scales in range(2, self.scales) if side >= WINDOW * 2 ** (scales - 1)]
            remedy = f"--set ms-ssim.scales={possible[-1]}, another measure" if possible else "use ssim"
            raise UsageError(
                f"ms-ssim: {self.scales} scales need images of {WINDOW * 2 ** (self.scales - 1)} pixels a side, and"
                f" these have {info.shape[1]}x{info.shape[2]}: {remedy}"
            )

    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        """MS-SSIM of each pair."""
        return ms_ssim(x, y, self.scales)


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """PSNR, SSIM and MS-SSIM."""
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
    yield ComponentSpec(
        name="ms-ssim",
        aliases=("msssim",),
        description="Structural similarity at several scales on held-out images",
        factory=MSSSIM,
        reference="doi:10.1109/ACSSC.2003.1292216",
    )
