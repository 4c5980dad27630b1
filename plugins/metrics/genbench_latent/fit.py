"""A latent fit: n codes of held-out images against n draws of the prior, compared with two samples of the prior."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Generator, Tensor

from genbench.api import DataConfig, DatasetInfo, Evaluation, Measurement, Metric, Noise, Piece, Prior
from genbench.errors import MetricError, UsageError
from genbench_latent.blocks import Distance, across, as_given, block_table, excess, splits, variances, within
from genbench_latent.null import Null, cached_null, describe, identity, law

T = TypeVar("T")

NULL_SEED = 1711_01558
"""Seed of the first pair of prior samples of a null; they do not depend on the run, so that all runs share them."""

WHOLE_PAIRS = 8
"""Pairs, the first ones, whose whole samples are compared for the floor: 2,000 points cost the simplex a second."""

CPU = torch.device("cpu")

LEAST_BLOCK = 4
"""Points in the smallest block."""

LEAST_BLOCKS = 4
"""Blocks of a sample: the variance within a table has no fewer degrees of freedom."""

LEAST_CODES = LEAST_BLOCK * LEAST_BLOCKS
"""Codes of a latent fit."""


@dataclass(frozen=True)
class FitComponent:
    """A number of a latent fit: how it is computed, its unit and its column's head."""

    name: str
    method: str
    unit: str
    higher_is_better: bool | None
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
    debiased: ClassVar[FitComponent]
    raw: ClassVar[FitComponent | None] = None
    uses_samples = False
    on_cpu = True

    def __post_init__(self) -> None:
        """Refuse blocks that are too small."""
        least = LEAST_BLOCK * self.blocks
        if self.n < least:
            raise UsageError(
                f"{self.name}: {self.n} codes in {self.blocks} blocks are fewer than {LEAST_BLOCK} to a block: "
                f"--set {self.name}.blocks={max(LEAST_BLOCKS, self.n // LEAST_BLOCK)}, or --set {self.name}.n={least}"
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

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse more codes than there are held-out images."""
        if info.test < LEAST_CODES:
            raise UsageError(f"{self.name} needs {LEAST_CODES} held-out images and the dataset has {info.test}")
        if self.n > info.test:
            settings = " ".join(f"--set {self.name}.{option}={value}" for option, value in self.fit_to(info).items())
            raise UsageError(
                f"{self.name} encodes {self.n} held-out images and the dataset has {info.test}: {settings}"
            )

    def fit_to(self, info: DatasetInfo) -> Mapping[str, int]:
        """As many codes as there are held-out images, in blocks that are large enough."""
        n = min(self.n, info.test)
        fitted = {"n": n, "blocks": min(self.blocks, n // LEAST_BLOCK)}
        return {} if n < LEAST_CODES else {name: x for name, x in fitted.items() if x != getattr(self, name)}

    def counts_needed(self, info: DatasetInfo) -> Mapping[Piece, int]:
        """`n` codes."""
        return {"codes": self.n}

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """The debiased distance with its standard error and p-value; before it the raw one beside its floor."""
        codes, draws = evaluation.codes(self.n), evaluation.prior_draws(self.n, self.name)
        self._check_codes(codes, draws)
        try:
            yield from self._compared(evaluation, _exact(codes), _exact(draws))
        except MetricError as error:
            raise MetricError(f"{self.name}: {error}") from None

    def whole(self, x: Tensor, y: Tensor, prior: Prior, device: torch.device) -> float:
        """The distance between whole samples, `(n, d)` float64 on the CPU; the device may make it faster."""
        return _whole(self.distance(prior), x, y)

    def null(self, prior: Prior) -> Null:
        """The numbers between independent samples of the prior itself."""
        distance, members = self.distance(prior), splits(self.blocks)

        def compared(replicate: int) -> tuple[Tensor, list[float]]:
            noise = Noise(Generator().manual_seed(NULL_SEED + replicate))
            x, y = _exact(prior.sample(self.n, noise)), _exact(prior.sample(self.n, noise))
            raw = [_whole(distance, x, y)] if self.raw and replicate < WHOLE_PAIRS else []
            return within(distance, [*self.cut(x), *self.cut(y)]), raw

        pairs = _in_threads(compared, range(self.replicates))
        tables, raw = [table for table, _ in pairs], [value for _, values in pairs for value in values]
        return Null(
            statistics=torch.cat([self.statistic(table, members) for table in tables]),
            raw=torch.tensor(raw, dtype=torch.float64),
            mains=torch.tensor([variances(table).mains for table in tables], dtype=torch.float64),
            slope=torch.tensor(self.slope(prior), dtype=torch.float64),
        )

    def _compared(self, evaluation: Evaluation, x: Tensor, y: Tensor) -> Iterator[Measurement]:
        prior = evaluation.prior.frozen().cpu()  # where a null's draws are the same for every device
        data_config, device = evaluation.data_config, evaluation.device
        distance, key = self.distance(prior, device), f"{self!r} {identity(prior)}"
        null = evaluation.cache_for_dataset(
            f"null {key}", lambda: cached_null(data_config, self.name, key, lambda: self.null(prior))
        )
        xs, ys = self.cut(x), self.cut(y)
        # Models of one seed meet the same draws, whose distances from each other are computed once.
        draws_key = f"draws {evaluation.seed} {evaluation.split} {key}"
        within_draws = evaluation.cache_for_dataset(draws_key, lambda: within(distance, ys))
        table = block_table(within(distance, xs), across(distance, xs, ys), within_draws)
        noise = variances(table)
        if self.raw:
            value = self.whole(x, y, prior, device)
            spread = _raw_variance(noise.mains, self.blocks, null)
            yield replace(
                self._measurement(evaluation, self.raw, value),
                floor=float(null.raw.mean()),
                floor_sd=float(null.raw.std()),
                se=math.sqrt(spread) / (2.0 * value) if value > 0.0 else None,  # of a square root, to first order
            )
        value = float(self.statistic(table, as_given(self.blocks)))
        yield replace(
            self._measurement(evaluation, self.debiased, value),
            floor=0.0,
            floor_sd=null.sd,
            se=math.sqrt(noise.total),
            p_value=null.p_value(value),
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

    def _measurement(self, evaluation: Evaluation, component: FitComponent, value: float) -> Measurement:
        prior = evaluation.prior
        protocol = evaluation.protocol(
            method=component.method,
            references=self.n,
            generated=0,
            values="codes, float64",
            dtype="float64",
            draws="derived from the run's seed, the same for all models",
            detail=f"{describe(prior)} {'learned in training' if prior.learned else law(prior)}; {self!r}",
        )
        return Measurement(
            value=value,
            unit=component.unit,
            higher_is_better=component.higher_is_better,
            n=self.n,
            protocol=protocol,
            component=component.name,
            role="" if component.higher_is_better is None else "latent fit",
            label=component.label,
        )


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

    The null's variance at this n, plus the excess of the blocks' main effects over the null's: that is a mean over
    blocks, so it falls as 1/B. (The null's part need not: in the plane it falls as 1/B^2.)
    """
    perfect = float(null.raw.square().var())
    return max(perfect + (mains - float(null.mains.mean())) / count, perfect / 2.0)


def _exact(sample: Tensor) -> Tensor:
    """The sample in float64 on the CPU, so that a number does not depend on the device."""
    return sample.detach().cpu().double()
