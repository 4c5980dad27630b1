"""A latent fit: n codes of held-out images against n draws of the prior, beside what two samples of the prior give."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Generator, Tensor

from genbench.api import Better, DataConfig, DatasetInfo, EvalProtocol, Evaluation, Measurement, Metric, Noise, Prior
from genbench.errors import MetricError, UsageError
from genbench_latent.blocks import Distance, across, as_given, excess, init_distributed, splits, variances, within
from genbench_latent.null import Null, describe, identity, kept, law

T = TypeVar("T")

NULL_SEED = 1711_01558
"""Seed of the first pair of prior samples of a null; they do not depend on the run, so that all runs share them."""

WHOLE_PAIRS = 8
"""Pairs, the first ones, whose whole samples are compared for the floor: 2,000 points cost the simplex a second."""

CPU = torch.device("cpu")

LEAST_BLOCK = 4
"""Points in the smallest block."""


@dataclass(frozen=True)
class Part:
    """A number of a latent fit: how it is computed, its unit and its column's head."""

    name: str
    method: str
    unit: str
    better: Better
    label: str


@dataclass(frozen=True, kw_only=True)
class LatentFit(Metric):
    """The debiased squared distance of codes from the prior, tested against its null; where it has one, the raw one.

    Subclasses have the options `n` (points of each sample), `blocks` (B) and `replicates` (pairs of prior samples
    behind the null). By simulation (reports/trust/latent-null.md) their defaults leave the rate of rejections at 5 % a
    standard deviation of 0.6 to 1 % over nulls of other seeds. The standard error is over held-out images and prior
    draws alike; all seeds encode the same images, so that values over seeds may spread less.
    """

    n: int
    blocks: int
    replicates: int

    name: ClassVar[str]
    debiased: ClassVar[Part]
    raw: ClassVar[Part | None] = None

    def __post_init__(self) -> None:
        """Refuse blocks that are too small."""
        least = LEAST_BLOCK * self.blocks
        if self.n < least:
            raise UsageError(
                f"{self.name}: {self.n} codes in {self.blocks} blocks are fewer than {LEAST_BLOCK} to a block: "
                f"--set {self.name}.n={least} or more, or fewer blocks (at least 4)"
            )

    @abstractmethod
    def distance(self, prior: Prior, device: torch.device = CPU) -> Distance:
        """The squared distance between blocks; no number depends on the device, which may make it faster."""

    @abstractmethod
    def slope(self, prior: Prior) -> float:
        """Under a small translation of one sample: variance that it adds to the statistic / mean that it adds."""

    def cut(self, sample: Tensor) -> list[Tensor]:
        """A sample's blocks, all of n // B points; the last n mod B points belong to none."""
        return list(sample.split(self.n // self.blocks)[: self.blocks])

    def statistic(self, table: Tensor, members: Tensor) -> Tensor:
        """The debiased squared distance, `(2B, 2B), (s, 2B) -> (s,)`."""
        return excess(table, members)

    def check(self, summary: DatasetInfo, prior: Prior, place: DataConfig) -> None:
        """Refuse more codes than there are held-out images."""
        if self.n > summary.test:
            raise UsageError(
                f"{self.name} encodes {self.n} held-out images and the dataset has {summary.test}: "
                f"--set {self.name}.n={summary.test} or less"
            )

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """The debiased distance with its standard error and p-value; before it the raw one beside its floor."""
        return self._begun(evaluation, evaluation.device)()

    def detached(self, evaluation: Evaluation) -> Callable[[], Iterator[Measurement]]:
        """All but the codes, the draws, and where on the device a start of the whole samples' transport is found."""
        return self._begun(evaluation, CPU)

    def whole(self, x: Tensor, y: Tensor, prior: Prior, device: torch.device) -> Callable[[], float]:
        """Computes the distance between whole samples on the CPU; what the device does for it is done at once."""
        distance = self.distance(prior)
        return lambda: _whole(distance, x, y)

    def _begun(self, evaluation: Evaluation, device: torch.device) -> Callable[[], Iterator[Measurement]]:
        """Takes codes and draws; what is returned keeps neither, which are on the evaluation's device."""
        codes, draws = evaluation.codes(self.n), evaluation.prior_draws(self.n, self.name)
        self._check_codes(codes, draws)
        prior, x, y = evaluation.setting.prior, _exact(codes), _exact(draws)
        distance = self.distance(prior, device)
        raw = self.whole(x, y, prior, codes.device) if self.raw else None

        def compared() -> Iterator[Measurement]:
            try:
                yield from self._compared(evaluation, x, y, distance, raw)
            except MetricError as error:
                raise MetricError(f"{self.name}: {error}") from None

        return compared

    def null(self, prior: Prior) -> Null:
        """The numbers between independent samples of the prior itself."""
        distance, members = self.distance(prior), splits(self.blocks)

        def compared(replicate: int) -> tuple[Tensor, list[float]]:
            noise = Noise(Generator().manual_seed(NULL_SEED + replicate))
            x, y = _exact(prior.sample(self.n, noise)), _exact(prior.sample(self.n, noise))
            raw = [_whole(distance, x, y)] if self.raw and replicate < WHOLE_PAIRS else []
            return within(distance, [*self.cut(x), *self.cut(y)]), raw

        found = _in_threads(compared, range(self.replicates))
        tables, raw = [table for table, _ in found], [value for _, values in found for value in values]
        return Null(
            statistics=torch.cat([self.statistic(table, members) for table in tables]),
            raw=torch.tensor(raw, dtype=torch.float64),
            mains=torch.tensor([variances(table).mains for table in tables], dtype=torch.float64),
            slope=torch.tensor(self.slope(prior), dtype=torch.float64),
        )

    def _compared(
        self, evaluation: Evaluation, x: Tensor, y: Tensor, distance: Distance, raw: Callable[[], float] | None
    ) -> Iterator[Measurement]:
        prior, place = evaluation.setting.prior, evaluation.place
        key = f"{self!r} {identity(prior)}"
        null = evaluation.shared(f"null {key}", lambda: kept(place, self.name, key, lambda: self.null(prior)))
        xs, ys = self.cut(x), self.cut(y)
        # Models of one seed meet the same draws, whose own distances are computed once.
        own = evaluation.shared(f"draws {evaluation.seed} {evaluation.split} {key}", lambda: within(distance, ys))
        table = init_distributed(within(distance, xs), across(distance, xs, ys), own)
        noise = variances(table)
        if self.raw and raw:
            value = raw()
            spread = _raw_variance(noise.mains, self.blocks, null)
            yield replace(
                self._plain(evaluation, self.raw, value),
                floor=float(null.raw.mean()),
                floor_sd=float(null.raw.std()),
                se=math.sqrt(spread) / (2.0 * value) if value > 0.0 else None,  # of a square root, to first order
            )
        value = float(self.statistic(table, as_given(self.blocks)))
        yield replace(
            self._plain(evaluation, self.debiased, value),
            floor=0.0,
            floor_sd=null.sd,
            se=math.sqrt(noise.total),
            p=null.p(value),
            minimum_detectable_effect=null.minimum_detectable_effect(),
        )

    def _check_codes(self, codes: Tensor, draws: Tensor) -> None:
        if codes.shape != draws.shape:
            raise MetricError(
                f"{self.name}: codes of shape {tuple(codes.shape)} against prior draws of shape {tuple(draws.shape)}"
            )
        bad = int((~torch.isfinite(codes)).any(1).sum())
        if bad:
            raise MetricError(f"{self.name}: {bad} of {len(codes)} codes hold values that are NaN or infinite")

    def _plain(self, evaluation: Evaluation, part: Part, value: float) -> Measurement:
        protocol = EvalProtocol(
            method=part.method,
            dataset=evaluation.images.content[:12],
            preparation=evaluation.images.preparation,
            split=evaluation.split,
            references=self.n,
            generated=0,
            values="codes, float64",
            dtype="float64",
            draws="derived from the run's seed, the same for all models",
            detail=f"{describe(evaluation.setting.prior)} {law(evaluation.setting.prior)}; {self!r}",
        )
        return Measurement(value, part.unit, part.better, self.n, protocol, part=part.name, label=part.label)


def _in_threads(function: Callable[[int], T], numbers: Iterable[int]) -> list[T]:
    """The function of each number, on as many threads as torch has here, each with one: POT's simplex has no more."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            return list(pool.map(function, numbers))
        finally:
            torch.set_num_threads(threads)  # the default of threads to come, which those of the pool have changed


def _whole(distance: Distance, x: Tensor, y: Tensor) -> float:
    """The distance itself between whole samples."""
    return math.sqrt(max(distance.between(distance.prepare(x), distance.prepare(y)), 0.0))


def _raw_variance(mains: float, count: int, null: Null) -> float:
    """The variance of the squared distance between whole samples.

    The null's own at this n, and what the main effects of the blocks have beyond the null's: that is a mean over
    blocks, so it falls as 1/B. (The null's part need not: in the plane it falls as 1/B^2.)
    """
    perfect = float(null.raw.square().var())
    return max(perfect + (mains - float(null.mains.mean())) / count, perfect / 2.0)


def _exact(sample: Tensor) -> Tensor:
    """The sample in float64 on the CPU, so that a number does not depend on the device."""
    return sample.detach().cpu().double()
