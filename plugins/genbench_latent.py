"""Latent fit: how far the codes of held-out images are from the prior, beside what two samples of the prior differ by.

In many dimensions the 2-Wasserstein distance between samples is mostly its *floor*, what two samples of one law differ
by, and codes drawn together fall below it: in R^64, 2,000 codes that are all zero are nearer to a sample of N(0, I)
(7.99) than a second sample of N(0, I) is (8.79). The raw distance therefore ranks nothing; the `excess` does.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Generator, Tensor

from genbench.api import Better, Evaluation, Measurement, Metric, Offer, Option, Place, Prior, Protocol, Summary
from genbench.distances import directions, exact_wasserstein, mmd, sliced_wasserstein
from genbench.errors import MetricError, UsageError
from genbench.hookspecs import hookimpl

DIRECTIONS_SEED = 1804_01947
"""Seed of the directions of `latent-sw`: the same in every run and for every floor."""

FLOOR_SEED = 1711_01558
"""Seed of the first pair of prior samples of a floor; they do not depend on the run, so that all runs share them."""


@dataclass(frozen=True)
class Part:
    """A statistic between codes and prior draws; `floor` is its mean under a perfect fit where theory gives it."""

    method: str
    unit: str
    better: Better
    label: str
    floor: float | None = None
    spread: str = "floor-sd"


@dataclass(frozen=True, kw_only=True)
class LatentFit(Metric):
    """A comparison of n codes with n prior draws, and of prior draws with each other for the floor and its spread."""

    n: Annotated[int, Option("held-out images encoded, and prior draws", low=4)] = 2000
    replicates: Annotated[int, Option("pairs of prior samples behind the floor and its spread", low=2)] = 5

    name: ClassVar[str]
    parts: ClassVar[dict[str, Part]]

    @abstractmethod
    def compare(self, x: Tensor, y: Tensor, prior: Prior) -> dict[str, float]:
        """The statistics between two samples by part, `(n, d), (n, d)` float64 on the CPU."""

    def check(self, summary: Summary, prior: Prior, place: Place) -> None:
        """Refuse more codes than there are held-out images."""
        if self.n > summary.test:
            raise UsageError(
                f"{self.name} encodes {self.n} held-out images and the dataset has {summary.test}: "
                f"--set {self.name}.n={summary.test} or less"
            )

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Each statistic beside its floor, and its standard deviation under a perfect fit."""
        prior, codes = evaluation.setting.prior, evaluation.codes(self.n)
        bad = int((~torch.isfinite(codes)).any(1).sum())
        if bad:
            raise MetricError(f"{self.name}: {bad} of {len(codes)} codes hold values that are NaN or infinite")
        draws = evaluation.prior_draws(self.n, self.name)
        found = self.compare(_exact(codes), _exact(draws), prior)
        null = evaluation.shared(f"{self!r} {_identity(prior)}", lambda: self.null(prior))
        for name, part in self.parts.items():
            perfect = [values[name] for values in null]
            floor = statistics.fmean(perfect) if part.floor is None else part.floor
            protocol = self._protocol(evaluation, part.method)
            yield Measurement(
                found[name], part.unit, part.better, self.n, protocol, part=name, floor=floor, label=part.label
            )
            spread, label = statistics.stdev(perfect), f"{part.label} floor sd"
            yield Measurement(spread, part.unit, "neither", self.n, protocol, part=part.spread, label=label)

    def null(self, prior: Prior) -> list[dict[str, float]]:
        """The statistics between independent samples of the prior itself, one dict for each replicate."""
        replicates = []
        for replicate in range(self.replicates):
            draws = Generator().manual_seed(FLOOR_SEED + replicate)
            x, y = prior.sample(self.n, draws), prior.sample(self.n, draws)
            replicates.append(self.compare(_exact(x), _exact(y), prior))
        return replicates

    def _protocol(self, evaluation: Evaluation, method: str) -> Protocol:
        return Protocol(
            method=method,
            dataset=evaluation.images.content[:12],
            preparation=evaluation.images.preparation,
            split="test",
            references=self.n,
            generated=0,
            values="codes",
            dtype="float64",
            detail=f"{_describe(evaluation.setting.prior)} {_law(evaluation.setting.prior)}; {self!r}",
        )


@dataclass(frozen=True, kw_only=True)
class LatentW2(LatentFit):
    """Exact 2-Wasserstein distance, and what is left of its square when both samples' own share is taken away."""

    name: ClassVar[str] = "latent-w2"
    parts: ClassVar[dict[str, Part]] = {
        "": Part("exact 2-Wasserstein distance, network simplex", "code units", "neither", "latent W2"),
        "excess": Part(
            "centred exact W2^2 between halves (arXiv:2203.11627)",
            "code units^2",
            "lower",
            "latent W2\N{SUPERSCRIPT TWO} excess",
            floor=0.0,
            spread="excess-sd",
        ),
    }

    def compare(self, x: Tensor, y: Tensor, prior: Prior) -> dict[str, float]:
        """W2 between the samples, and the centred square."""
        return {"": exact_wasserstein(x, y), "excess": centred(lambda u, v: exact_wasserstein(u, v) ** 2, x, y)}


@dataclass(frozen=True, kw_only=True)
class LatentSW(LatentFit):
    """Sliced 2-Wasserstein distance over many fixed directions, and its centred square."""

    projections: Annotated[int, Option("directions, the same for all runs", low=1)] = 500

    name: ClassVar[str] = "latent-sw"
    parts: ClassVar[dict[str, Part]] = {
        "": Part("sliced 2-Wasserstein distance", "code units", "neither", "latent SW2"),
        "excess": Part(
            "centred SW2^2 between halves",
            "code units^2",
            "lower",
            "latent SW2\N{SUPERSCRIPT TWO} excess",
            floor=0.0,
            spread="excess-sd",
        ),
    }

    def compare(self, x: Tensor, y: Tensor, prior: Prior) -> dict[str, float]:
        """SW2 between the samples, and the centred square."""
        theta = directions(self.projections, x.shape[1], Generator().manual_seed(DIRECTIONS_SEED), torch.float64)

        def squared(u: Tensor, v: Tensor) -> float:
            return float(sliced_wasserstein(u, v, theta))

        return {"": math.sqrt(squared(x, y)), "excess": centred(squared, x, y)}


@dataclass(frozen=True, kw_only=True)
class LatentMMD(LatentFit):
    """Unbiased squared MMD with WAE's kernel: its mean under a perfect fit is zero, its median a little below."""

    name: ClassVar[str] = "latent-mmd"
    parts: ClassVar[dict[str, Part]] = {
        "": Part(
            "unbiased squared MMD, IMQ kernel summed over seven scales",
            "kernel units",
            "lower",
            "latent MMD",
            floor=0.0,
        )
    }

    def compare(self, x: Tensor, y: Tensor, prior: Prior) -> dict[str, float]:
        """The unbiased estimate, with the scale of the prior."""
        return {"": float(mmd(x, y, scale=prior.pairwise_scale))}


def centred(squared: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor) -> float:
    r"""A squared distance without the sampling share of either sample, `(n, d), (n, d)`; it may be negative.

    .. math:: \tfrac14 \left( D(x, y) + D(x, y') + D(x', y) + D(x', y') \right) - \tfrac12 \left( D(x, x') + D(y, y')
              \right)

    for halves x, x' and y, y'. Its mean is exactly 0 where both samples have one law, |t|^2 times the factor of the
    distance where they differ by a translation t, and it does not reward codes that are too narrow. The symmetric
    form of the centring of arXiv:2203.11627, as in the debiased Sinkhorn divergence, arXiv:1810.08278.
    """
    half = min(len(x), len(y)) // 2
    x1, x2, y1, y2 = x[:half], x[half : 2 * half], y[:half], y[half : 2 * half]
    across = squared(x1, y1) + squared(x1, y2) + squared(x2, y1) + squared(x2, y2)
    return across / 4.0 - (squared(x1, x2) + squared(y1, y2)) / 2.0


def _exact(sample: Tensor) -> Tensor:
    """The sample in float64 on the CPU, so that a number does not depend on the device."""
    return sample.detach().cpu().double()


def _describe(prior: Prior) -> str:
    """The prior's class and its plain attributes, the same text on every machine."""
    public = {key: value for key, value in vars(prior).items() if isinstance(value, bool | int | float | str)}
    return f"{type(prior).__name__}({', '.join(f'{key}={value!r}' for key, value in public.items())})"


def _law(prior: Prior) -> str:
    """Six hexadecimal digits of three draws, rounded to what is the same on every machine."""
    rounded = (prior.sample(3, Generator().manual_seed(FLOOR_SEED)) * 1000).round().int()
    return hashlib.sha256(str(rounded.tolist()).encode()).hexdigest()[:6]


def _identity(prior: Prior) -> str:
    """A text that tells priors apart even where their plain attributes do not: it holds three of their draws."""
    return f"{_describe(prior)} {prior.sample(3, Generator().manual_seed(FLOOR_SEED)).tolist()}"


@hookimpl
def genbench_metrics() -> Iterable[Offer[Metric]]:
    """Three views of the latent fit."""
    yield Offer(
        name="latent-w2", about="Exact 2-Wasserstein distance of codes to the prior", make=LatentW2, source="POT"
    )
    yield Offer(
        name="latent-sw",
        about="Sliced 2-Wasserstein distance of codes to the prior",
        make=LatentSW,
        source="arXiv:1804.01947",
    )
    yield Offer(
        name="latent-mmd",
        about="Unbiased squared MMD of codes to the prior",
        make=LatentMMD,
        source="arXiv:1711.01558, algorithm 2",
    )
