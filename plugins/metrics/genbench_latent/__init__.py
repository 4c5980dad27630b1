"""Latent fit: the distance of the codes of held-out images from the prior, beside that of two samples of the prior.

In many dimensions the 2-Wasserstein distance between samples is mostly its *floor*, the distance of two samples
of one law, and codes drawn together fall below it: in R^64, 2,000 codes that are all zero are nearer to a sample of
N(0, I) (7.99) than a second sample of N(0, I) is (8.79). The raw distance therefore ranks nothing; the `excess` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Generator, Tensor

from genbench.api import ComponentSpec, DataConfig, DatasetInfo, Metric, Noise, Option, Prior
from genbench.distances import exact_transport, random_projections, transport_start, wasserstein_distance
from genbench.errors import UsageError
from genbench.hookspecs import hookimpl
from genbench_latent.blocks import Distance
from genbench_latent.fit import CPU, LEAST_BLOCKS, LEAST_CODES, FitComponent, LatentFit
from genbench_latent.kernel import kernel_distance, translation_slope, unbiased

DIRECTIONS_SEED = 1804_01947
"""Seed of the directions of `latent-sw`: the same in every run and for every null."""

SQUARED = "\N{SUPERSCRIPT TWO}"

N = Option("held-out images encoded, and prior draws", low=LEAST_CODES)
BLOCKS = Option("blocks of each sample: for the debiased distance, its standard error and its null", low=LEAST_BLOCKS)
REPLICATES = Option("pairs of prior samples behind the p-value; up to eight of them give the floor", low=2)


@dataclass(frozen=True, kw_only=True)
class LatentW2(LatentFit):
    """Exact 2-Wasserstein distance, and its square without the sampling share of both samples."""

    n: Annotated[int, N] = 2000
    blocks: Annotated[int, BLOCKS] = 5
    replicates: Annotated[int, REPLICATES] = 16

    name: ClassVar[str] = "latent-w2"
    raw: ClassVar[FitComponent | None] = FitComponent(
        "", "exact 2-Wasserstein distance, network simplex", "code units", None, "latent W2"
    )
    debiased: ClassVar[FitComponent] = FitComponent(
        "excess",
        "centred exact W2^2 between blocks (arXiv:2203.11627)",
        "code units^2",
        False,
        f"latent W2{SQUARED} excess",
    )

    def distance(self, prior: Prior, device: torch.device = CPU) -> Distance:
        """W2^2; the device finds the simplex a start."""
        return Distance(lambda block: block, lambda u, v: wasserstein_distance(u, v, device) ** 2)

    def whole(self, x: Tensor, y: Tensor, prior: Prior, device: torch.device) -> float:
        """W2."""
        return exact_transport(x, y, transport_start(x, y, device))

    def slope(self, prior: Prior) -> float:
        """The slope of 2 t.(mean x - mean y), the noise that a translation by t adds beside |t|^2: 8 s^2 / n."""
        return 8.0 * _direction_variance(prior) / (self.n // self.blocks * self.blocks)


@dataclass(frozen=True, kw_only=True)
class LatentSW(LatentFit):
    """Sliced 2-Wasserstein distance over many fixed directions, and its centred square."""

    n: Annotated[int, N] = 2000
    blocks: Annotated[int, BLOCKS] = 5
    replicates: Annotated[int, REPLICATES] = 20
    projections: Annotated[int, Option("directions, the same for all runs", low=1)] = 500

    name: ClassVar[str] = "latent-sw"
    raw: ClassVar[FitComponent | None] = FitComponent(
        "", "sliced 2-Wasserstein distance", "code units", None, "latent SW2"
    )
    debiased: ClassVar[FitComponent] = FitComponent(
        "excess", "centred SW2^2 between blocks", "code units^2", False, f"latent SW2{SQUARED} excess"
    )

    def distance(self, prior: Prior, device: torch.device = CPU) -> Distance:
        """SW2^2: of sorted projections, the mean squared difference (arXiv:1804.01947, algorithm 1)."""
        noise = Noise(Generator().manual_seed(DIRECTIONS_SEED))
        theta = random_projections(self.projections, prior.latent_dim, noise, torch.float64)
        return Distance(
            lambda block: torch.sort(theta @ block.T, dim=1).values, lambda u, v: float((u - v).square().mean())
        )

    def slope(self, prior: Prior) -> float:
        """The slope of 2 t.(mean x - mean y) / d, the noise that a translation by t adds: 8 s^2 / (n d)."""
        used = self.n // self.blocks * self.blocks
        return 8.0 * _direction_variance(prior) / (used * prior.latent_dim)


@dataclass(frozen=True, kw_only=True)
class LatentMMD(LatentFit):
    """Unbiased squared MMD with WAE's kernel: its mean under a perfect fit is zero, its median a little below."""

    n: Annotated[int, N] = 2000
    blocks: Annotated[
        int, Option("blocks of each sample, for the standard error and the null alone", low=LEAST_BLOCKS)
    ] = 20
    replicates: Annotated[int, REPLICATES] = 10

    name: ClassVar[str] = "latent-mmd"
    debiased: ClassVar[FitComponent] = FitComponent(
        "",
        "unbiased squared MMD, IMQ kernel summed over seven scales",
        "kernel units",
        False,
        f"latent MMD{SQUARED}",
    )

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse a prior whose draws are all one point, too."""
        super().validate(info, prior, data_config)
        if not 0.0 < prior.pairwise_scale < torch.inf:
            raise UsageError(
                f"{self.name}: the prior's E|z - z'|^2 is {prior.pairwise_scale:g}, which is no scale for a kernel"
            )

    def distance(self, prior: Prior, device: torch.device = CPU) -> Distance:
        """-2 times the mean kernel, whose centred sum over all pairs of points is the squared MMD."""
        return kernel_distance(prior.pairwise_scale)

    def cut(self, sample: Tensor) -> list[Tensor]:
        """All points in blocks whose sizes differ by at most one."""
        return list(torch.tensor_split(sample, self.blocks))

    def statistic(self, table: Tensor, members: Tensor) -> Tensor:
        """The estimate over all pairs of points, those within a block too, as in `genbench.distances.mmd`."""
        sizes = torch.tensor([len(block) for block in self.cut(torch.empty(self.n, 1))], dtype=torch.float64)
        return unbiased(table, members, sizes.repeat(2))

    def slope(self, prior: Prior) -> float:
        """By the kernel's witness function; see `translation_slope`."""
        return translation_slope(prior) / self.n


def _direction_variance(prior: Prior) -> float:
    """The variance of a prior along a direction, the mean over directions: trace of the covariance / d."""
    return prior.pairwise_scale / (2.0 * prior.latent_dim)


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """Three views of the latent fit."""
    yield ComponentSpec(
        name="latent-w2",
        aliases=("w2", "wasserstein", "emd"),
        description="Exact 2-Wasserstein distance of codes to the prior",
        factory=LatentW2,
        reference="POT",
    )
    yield ComponentSpec(
        name="latent-sw",
        aliases=("sw", "sw2", "swd", "sliced-wasserstein"),
        description="Sliced 2-Wasserstein distance of codes to the prior",
        factory=LatentSW,
        reference="arXiv:1804.01947",
    )
    yield ComponentSpec(
        name="latent-mmd",
        aliases=("mmd",),
        description="Unbiased squared MMD of codes to the prior",
        factory=LatentMMD,
        reference="arXiv:1711.01558, algorithm 2",
    )
