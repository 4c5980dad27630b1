r"""Sliced W2 of samples of random Gaussians against the closed form of W2 (arXiv:1804.01947, figure 2).

How the paper draws its Gaussians is not known to us. Here X ~ N(m, A A^T / d) and Y ~ N(0, B B^T / d), with m of
standard normal coordinates and A, B `(d, d)` of standard normal entries, so that E|m|^2 = E tr A A^T / d = d. Then

.. math:: d \, SW_2^2 = |m|^2 + d \, E_\theta (\sigma_X(\theta) - \sigma_Y(\theta))^2 \to |m|^2

because theta^T Sigma theta concentrates at tr Sigma / d, whereas W_2^2 = |m|^2 + tr Sigma_X + tr Sigma_Y -
2 |A^T B|_* / d. The singular values of A^T B / d have in the limit the mean 3/4, the moment 1/2 of the Fuss-Catalan law
of order 2, so that W_2^2 / d -> 1 + 2 - 3/2 = 3/2 and the factor W_2 / (sqrt(d) SW_2) -> sqrt(3/2) = 1.2247: the
paper's 1.22. It is no constant of the sliced distance: with a doubled distance of the means, |m|^2 = 4d, the same sums
give (4 + 1/2) / 4 and the factor 1.06.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.resources import files
from statistics import fmean, variance
from typing import Annotated

import numpy as np
import torch
from torch import Generator, Tensor

from genbench.api import Finding, Noise, Option, Recipe
from genbench.data.seeds import generator
from genbench.distances import random_projections

COUNTS = (1, 10, 50, 100, 500, 1000)
"""Directions L; fewer are the first of the most, so that one sort serves all."""

LAW = "N(m, A A' / d) and N(0, B B' / d), standard normal m, A, B"


def closed_form(m: Tensor, a: Tensor, b: Tensor) -> float:
    """W2 of N(m, A A^T / d) and N(0, B B^T / d), `(d,), (d, d), (d, d)`."""
    d = len(m)
    overlap = torch.linalg.svdvals(a.T @ b).sum()
    return math.sqrt(float(m.square().sum() + (a.square().sum() + b.square().sum() - 2.0 * overlap) / d))


def sliced(x: Tensor, y: Tensor, most: int, draws: Generator) -> Tensor:
    """Squared one-dimensional W2 of two samples along each of `most` directions, `(n, d), (n, d) -> (most,)`."""
    theta = random_projections(most, x.shape[1], Noise(draws))
    u, v = (np.sort((theta @ sample.T).numpy(), axis=1) for sample in (x, y))  # several times as fast as torch's sort
    return torch.from_numpy(np.square(u - v)).mean(1)


def repeat(d: int, samples: int, draws: Generator) -> tuple[float, list[float]]:
    """The closed form of one random pair, and sqrt(d) SW2 of samples of it for each L of `COUNTS`."""
    m, a, b = (torch.randn(*size, generator=draws) for size in ((d,), (d, d), (d, d)))
    x, y = (torch.randn(samples, d, generator=draws) @ root.T / math.sqrt(d) for root in (a, b))
    squares = sliced(x + m, y, COUNTS[-1], draws)
    return closed_form(m, a, b), [math.sqrt(d * float(squares[:count].mean())) for count in COUNTS]


def findings(seed: int, budget: float, repeats: int, samples: int, dims: int) -> Iterator[Finding]:
    """For each d and L the means, the variance of the sliced distance, and the ratio of the means."""
    n = max(2, round(budget * repeats))
    for d in (2**k for k in range(1, dims + 1)):
        exact, scaled = zip(
            *(repeat(d, samples, generator("cpu", seed, "gaussians", d, i)) for i in range(n)), strict=True
        )
        protocol = {"method": "W2 / (sqrt(d) SW2)", "law": LAW, "samples": str(samples), "repeats": str(n)}
        for index, count in enumerate(COUNTS):
            case, ratios = f"d = {d}, L = {count}", [values[index] for values in scaled]
            yield Finding(case, "W2", fmean(exact), n, "", seed, protocol)
            yield Finding(case, "sqrt(d) SW2", fmean(ratios), n, "", seed, protocol)
            yield Finding(case, "variance of sqrt(d) SW2", variance(ratios), n, "", seed, protocol)
            yield Finding(case, "factor", fmean(exact) / fmean(ratios), n, "", seed, protocol)


def gaussians(
    *,
    repeats: Annotated[
        int, Option("random pairs for each d; the paper has 1000", reference="ours: a minute", low=2)
    ] = 20,
    samples: Annotated[int, Option("points of each Gaussian, M", reference="arXiv:1804.01947", low=2)] = 1000,
    dims: Annotated[int, Option("powers of two up to 2^dims", reference="arXiv:1804.01947: 1024", low=1, high=12)] = 10,
) -> Recipe:
    """The recipe with its experiment."""

    def experiment(seed: int, budget: float) -> Iterator[Finding]:
        return findings(seed, budget, repeats, samples, dims)

    text = files("genbench_recipes").joinpath("swae-gaussians.toml").read_text(encoding="utf-8")
    return Recipe(text, "swae-gaussians.toml", experiment)
