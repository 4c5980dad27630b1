"""MIND: the sliced squared 2-Wasserstein distance between features of samples and of real images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Generator, Tensor

from genbench.api import ComponentSpec, Evaluation, Measurement, Metric, Noise, Option
from genbench.distances import random_projections, sliced_wasserstein_cost, sorted_rows
from genbench.features import FeatureLayer
from genbench.hookspecs import hookimpl
from genbench_fid import COUNT, FEATURES, LAYER, SPLIT, WEIGHTS, FeatureMetric, References

SCALE = 3.0
"""Of the factor 3 f, f the count of features: a translation of the samples by t adds 3 |t|^2."""

DIRECTIONS_SEED = 2605_06797
"""Seed of the directions: the same in every run, so that they cancel in comparisons."""

BLOCK_ELEMENTS = 2**23
"""Projections of one set held at once, 32 MiB in float32, whatever the number of images."""


class MIND(FeatureMetric):
    r"""Monge Inception distance (arXiv:2605.06797).

    .. math:: \frac{3 f}{L} \sum_{l=1}^L W_2^2(\theta_l \cdot x, \theta_l \cdot y)

    for f features and L random directions. The factor 3 f is that of public implementations of the paper, the
    development version of torch-fidelity among them, and 1,000 directions are the number that most of these take; they
    compare equal numbers of images by sorting, and draw a subset of the larger set where the numbers differ. Ours: the
    quantile functions of unequal sets are integrated exactly instead, so that no image is left out, the directions are
    fixed, and there are a floor and a standard error.

    Like FID it lies above the distance of the laws by about c/n: compare equal n only. The standard error is that of
    the samples' draw, by `influence`; the references and the directions count as given. At the floor, where the
    first-order part all but vanishes, it is some 10 to 20 % too large.
    """

    name = "mind"
    method = "3 f times the sliced W2^2 of features"

    def __init__(
        self,
        *,
        features: Annotated[str, FEATURES] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        count: Annotated[int, COUNT] = 0,
        split: Annotated[References, SPLIT] = "test",
        projections: Annotated[int, Option("random directions", reference="torch-fidelity", low=1)] = 1000,
    ) -> None:
        super().__init__(features, layer, weights, count, split)
        self.projections = projections

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """One number; its floor is the distance of as many real training images from the references."""
        extractor = self.extractor(e.images.shape, e.data_config)
        real = self.reference_features(e, extractor)
        n = self.count or len(real)
        self.refuse_few(n, len(real))
        generated = self.sample_features(e, extractor, n)
        theta = directions(self.projections, real)
        floor, floor_sd = self.real_floor(e, extractor, real, n, theta)
        matching = "sorted" if n == len(real) else f"quantiles of {n} and {len(real)} integrated"
        yield Measurement(
            value=mind(real, generated, theta),
            unit="squared feature distance",
            higher_is_better=False,
            n=n,
            protocol=self.protocol(e, extractor, len(real), n, f"{self.projections} directions, {matching}"),
            role="sample quality",
            floor=floor,
            floor_sd=floor_sd,
            se=standard_error(real, generated, theta),
            label=f"MIND ({extractor.label()})",
            caution=self.caution(extractor),
        )

    def real_floor(
        self, e: Evaluation, extractor: FeatureLayer, real: Tensor, n: int, theta: Tensor
    ) -> tuple[float, float] | tuple[None, None]:
        """The distance of n training images, the same for all runs, from the references; and its standard error."""
        if n > len(e.images.train):
            return None, None

        def measured() -> tuple[float, float]:
            training = self.training_features(e, extractor, n)
            return mind(real, training, theta), standard_error(real, training, theta)

        key = f"mind/floor/{extractor}/{self.source(e)}/{e.images.sha256}/{n}/{len(theta)}/{e.device}"
        return e.cache_for_dataset(key, measured)


def directions(count: int, features: Tensor) -> Tensor:
    """Directions for features `(n, f)`, `(count, f)` float32 on their device."""
    noise = Noise(Generator().manual_seed(DIRECTIONS_SEED))
    return random_projections(count, features.shape[1], noise).to(features.device)


def mind(real: Tensor, generated: Tensor, theta: Tensor) -> float:
    """MIND of features, `(n, f), (m, f)`, along directions `(L, f)`."""
    real, generated = _centred(real, generated)
    costs = [float(sliced_wasserstein_cost(real, generated, t)) * len(t) for t in _blocks(theta, real, generated)]
    return SCALE * theta.shape[1] * math.fsum(costs) / len(theta)


def influence(real: Tensor, generated: Tensor, theta: Tensor) -> Tensor:
    """The first-order contribution of each sample to MIND, `(n, f), (m, f), (L, f) -> (m,)` float64, with mean zero.

    The derivative of W2^2 in the law of the samples is its Kantorovich potential. Along a direction, from one sorted
    sample u_i to the next, the potential rises by (u_{i+1} - u_i) (u_i + u_{i+1} - 2 v), v being the quantile of the
    references at i / m: where i / m lies between two of them, the middle.
    """
    real, generated = _centred(real, generated)
    m, n = len(generated), len(real)
    steps = torch.arange(1, m) * n
    below, above = (steps - 1) // m, steps // m  # the references on both sides of the quantiles i / m
    total = torch.zeros(m, dtype=torch.float64, device=generated.device)
    for t in _blocks(theta, real, generated):
        u, order = torch.sort(t @ generated.T, dim=1)
        v = sorted_rows(t @ real.T)
        middle = (v[:, below] + v[:, above]) / 2.0
        rise = (u[:, 1:] - u[:, :-1]) * (u[:, 1:] + u[:, :-1] - 2.0 * middle)
        potential = torch.nn.functional.pad(rise.double().cumsum(1), (1, 0))
        total += torch.zeros_like(potential).scatter_(1, order, potential).sum(0)
    total *= SCALE * theta.shape[1] / len(theta)
    return total - total.mean()


def standard_error(real: Tensor, generated: Tensor, theta: Tensor) -> float:
    """Standard error of MIND over draws of the samples, `(n, f), (m, f), (L, f)`."""
    return float(influence(real, generated, theta).std()) / math.sqrt(len(generated))


def _centred(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Both about the real mean: far from the origin float32 has few digits for differences."""
    centre = real.double().mean(0)
    return (real - centre).float(), (generated - centre).float()


def _blocks(theta: Tensor, real: Tensor, generated: Tensor) -> Iterable[Tensor]:
    """Directions, some at a time."""
    blocks: tuple[Tensor, ...] = theta.split(max(1, BLOCK_ELEMENTS // (len(real) + len(generated))))
    return blocks


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """The Monge Inception distance."""
    yield ComponentSpec(
        name="mind",
        aliases=("monge", "sliced-fid"),
        description="Sliced Wasserstein distance of features, samples against real",
        factory=MIND,
        reference="arXiv:2605.06797",
    )
