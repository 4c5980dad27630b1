"""The metric `ring-coverage`: evenness of the codes around the origin, for priors that are symmetric under rotation.

An adversary may match a ring on part of it only (arXiv:1804.01947, section 4); a distance tells how far the codes are
off, not whether some directions are empty.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated

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
    Piece,
    Prior,
)
from genbench.errors import MetricError, UnsupportedError
from genbench.hookspecs import hookimpl

LEAST = 100
"""Codes."""

FLOORS = 8
"""Samples of the prior whose values are the floor."""


def sectors(z: Tensor, count: int) -> Tensor:
    """How many points lie in each of `count` sectors about the origin, first two coordinates, `(n, d) -> (count,)`."""
    turns = torch.atan2(z[:, 1].double(), z[:, 0].double()) / math.tau % 1.0
    return torch.bincount((turns * count).long().clamp(max=count - 1), minlength=count)


def covered(z: Tensor, count: int) -> float:
    """The share of sectors that hold at least half of their even share of the points, in [0, 1]."""
    return float((sectors(z, count) >= 0.5 * len(z) / count).double().mean())


def evenness(z: Tensor, count: int) -> float:
    """Entropy of the sectors' shares over that of equal shares, in [0, 1]; 1 where all are equal."""
    share = sectors(z, count).double() / len(z)
    return float(torch.special.entr(share).sum() / math.log(count))


@dataclass(frozen=True)
class RingCoverage(Metric):
    """Share of the sectors that the codes cover, and the entropy of their angles, beside the prior's own."""

    uses_samples = False
    _: KW_ONLY
    n: Annotated[int, Option("held-out images encoded, and prior draws", low=LEAST)] = 2000
    sectors: Annotated[int, Option("equal sectors about the origin", reference="ours", low=2, high=360)] = 36

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse codes on a line, and too few images."""
        if prior.latent_dim < 2:
            raise UnsupportedError("ring-coverage: angles are of a plane, and the latent dimension is 1")
        if info.test < self.n:
            advice = f"--set ring-coverage.n={info.test}" if info.test >= LEAST else f"it needs {LEAST}"
            raise UnsupportedError(f"ring-coverage: n = {self.n} and {info.test} held-out images: {advice}")

    def fit_to(self, info: DatasetInfo) -> Mapping[str, int]:
        """As many codes as there are held-out images."""
        return {"n": info.test} if self.n > info.test >= LEAST else {}

    def counts_needed(self, info: DatasetInfo) -> Mapping[Piece, int]:
        """`n` codes."""
        return {"codes": self.n}

    def measure(self, evaluation: Evaluation) -> Iterable[Measurement]:
        """The two numbers."""
        codes = evaluation.codes(self.n)
        if not codes.isfinite().all():
            raise MetricError("ring-coverage: some codes are NaN or infinite")
        draws = [evaluation.prior_draws(len(codes), f"ring-coverage/{i}") for i in range(FLOORS)]
        protocol = evaluation.protocol(
            method=f"codes in {self.sectors} equal sectors about the origin, first two coordinates",
            references=len(codes),
            generated=len(codes),
            values="draws of q(z | x)",
            dtype="float64",
        )
        for component, statistic, label in (("", covered, "sectors covered"), ("entropy", evenness, "angular entropy")):
            floors = [statistic(drawn, self.sectors) for drawn in draws]
            yield Measurement(
                value=statistic(codes, self.sectors),
                unit="share of the largest",
                higher_is_better=True,
                n=len(codes),
                protocol=protocol,
                component=component,
                role="latent fit",
                floor=statistics.fmean(floors),
                floor_sd=statistics.stdev(floors),
                label=label,
            )


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """The component."""
    about = "How evenly codes lie around the origin, in their first plane"
    yield ComponentSpec(name="ring-coverage", description=about, factory=RingCoverage, reference="ours")
