"""The model `swae`: sliced-Wasserstein autoencoder (Kolouri et al., arXiv:1804.01947)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, OptimizerConfig, Option, Search
from genbench.distances import (
    circular_slices,
    energy_weighted,
    monomials,
    random_projections,
    sliced_wasserstein_cost,
    wasserstein_costs,
)
from genbench.errors import UnsupportedError
from genbench.hookspecs import hookimpl
from genbench.nn import COSTS, Autoencoder, adam, rmsprop

_PAPER = "arXiv:1804.01947, algorithm 1"
_CWAE = "gmum/cwae-pytorch, for MNIST"
_NOTEBOOKS = "notebooks of skolouri/swae"
_GENERALIZED = "arXiv:1902.00434"

DEGREES = {"linear": 1, "cubic": 3, "quintic": 5}
"""Degrees of the polynomial defining functions: odd ones give a metric (arXiv:1902.00434)."""

MOST_MONOMIALS = 50_000
"""Numbers that a code may become under a polynomial defining function: at a batch of 128 they take 26 MB each way."""


class SWAE(Autoencoder):
    r"""min E c(x, psi(phi(x))) + weight SW_p^p(phi(x), z), with images x, encoder phi, decoder psi and prior draws z.

    c is the cost of a reconstruction, a mean over the batch; SW_p^p the sliced Wasserstein cost, a mean over fresh
    directions and sorted codes. Neither depends on the batch size.

    `slices` replaces the mean over uniform directions, `function` the linear slices; both combine:

    * max (arXiv:1904.05877): the largest cost over L directions, each of which ascends its cost by one step of Adam
      after each step of the autoencoder, from where the last step has left it. Maxima over subspaces are not taken.
    * distributional (arXiv:2002.07367): the mean over directions f(theta), theta uniform, where f is a linear map to
      the sphere that ascends this mean minus `dissimilarity` E |f(theta) . f(theta')|, the dual form with powers p in
      place of their roots. It starts as the identity, that is as uniform slices.
    * energy (arXiv:2304.13586): the mean over uniform directions weighted by the softmax of their costs.
    * circular |z - radius theta|, cubic and quintic, all monomials of that degree under random coefficients on the
      unit sphere: the generalized Radon transforms of arXiv:1902.00434, with its max-GSW where slices=max.

    Source: arXiv:1804.01947, algorithm 1. The authors' notebooks are
    `cost=bce-l1 weight=10 annealing=1.1 optimizer=rmsprop` with the network swae-mnist at a batch of 500.
    """

    strength: Tensor
    slicer: nn.Module | None

    def __init__(
        self,
        context: ModelContext,
        *,
        weight: Annotated[
            float,
            Option(
                "lambda, before the mean sliced distance",
                reference="gmum/cwae-pytorch, for CelebA; MNIST: 1",
                low=0,
                search=Search("log", 1, 10000),
            ),
        ] = 100.0,
        p: Annotated[float, Option("power of the distance", reference=_PAPER, low=1)] = 2.0,
        projections: Annotated[int, Option("directions L at each step", reference=_PAPER, low=1)] = 50,
        slices: Annotated[
            Literal["uniform", "max", "distributional", "energy"],
            Option(
                "how directions are chosen",
                reference="arXiv:1804.01947; max arXiv:1904.05877, arXiv:2002.07367, arXiv:2304.13586",
            ),
        ] = "uniform",
        function: Annotated[
            Literal["linear", "circular", "cubic", "quintic"],
            Option("what is sorted, a function of code and direction", reference=_GENERALIZED),
        ] = "linear",
        radius: Annotated[float, Option("radius of circular slices", reference="ours", above=0)] = 1.0,
        dissimilarity: Annotated[
            float, Option("lambda_C of distributional slices", reference="ours; arXiv:2002.07367: tuned", low=0)
        ] = 1.0,
        cost: Annotated[
            Literal["squared", "bce-l1"],
            Option("summed squares, or mean cross entropy + mean absolute error", reference=_CWAE),
        ] = "squared",
        annealing: Annotated[
            float,
            Option("factor on the weight at every epoch from the twelfth on", reference="off; notebooks: 1.1", low=0),
        ] = 1.0,
        optimizer: Annotated[
            Literal["adam", "rmsprop"], Option("the optimizer", reference=f"{_CWAE}; notebooks: rmsprop")
        ] = "adam",
        rate: Annotated[
            float,
            Option("learning rate", reference=f"{_CWAE}; {_NOTEBOOKS}", above=0, search=Search("log", 1e-4, 0.01)),
        ] = 1e-3,
        ascent_rate: Annotated[
            float, Option("Adam's learning rate of max and distributional slices", reference="ours", above=0)
        ] = 1e-2,
    ) -> None:
        super().__init__(context)
        self.p = p
        self.projections = projections
        self.weight = weight
        self.cost = COSTS[cost]
        self.annealing = annealing
        self.optimizer = adam(rate) if optimizer == "adam" else rmsprop(rate)
        self.slices, self.function, self.radius, self.dissimilarity = slices, function, radius, dissimilarity
        degree = DEGREES.get(function, 1)
        self.directions_dim = math.comb(context.latent_dim + degree - 1, degree)
        if self.directions_dim > MOST_MONOMIALS:
            raise UnsupportedError(
                f"swae's {function} slices of {context.latent_dim} latent dimensions have {self.directions_dim:,}"
                f" monomials, and {MOST_MONOMIALS:,} are the limit: set swae.function=circular, or --latent-dim lower"
            )
        self.slicer = None
        if slices in ("max", "distributional"):
            kind = Ascending if slices == "max" else Distributional
            self.slicer = kind(projections, self.directions_dim)
            self.ascent = adam(ascent_rate)
        # A tensor, not a number: a step that was captured as a CUDA graph sees its new value.
        self.register_buffer("strength", torch.full((), float(weight)), persistent=False)

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """One optimizer for the autoencoder, and one for directions that ascend."""
        configs = {"autoencoder": OptimizerConfig(self.autoencoder_parameters(), self.optimizer)}
        if self.slicer is not None:
            configs["slices"] = OptimizerConfig(tuple(self.slicer.parameters()), self.ascent)
        return configs

    def on_epoch_start(self, epoch: int) -> None:
        """Set the weight of this epoch: the notebooks' 10 becomes 61.2 in the last of 30 epochs."""
        self.strength.fill_(self.weight * self.annealing ** max(0, epoch - 10))

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """The loss cost + strength * sliced distance; where directions ascend, the negative of what they ascend."""
        code = self.encode(x)
        reconstruction = self.cost(self.logits(code), x).mean()
        theta = random_projections(self.projections, self.directions_dim, noise, code.dtype)
        if self.slices == "uniform" and self.function == "linear":
            distance = sliced_wasserstein_cost(code, z, theta, self.p)
        else:
            distance = self.combined(self.costs(code, z, self.directions(theta).detach()))
        terms = {"reconstruction": reconstruction.detach(), "sliced-w": distance.detach()}
        yield Loss("autoencoder", reconstruction + self.strength * distance, terms)

        if self.slicer is not None:  # on the same codes, so that it does not matter which of the two steps comes first
            directions = self.directions(theta)
            ascended = self.costs(code.detach(), z, directions).mean()
            if self.slices == "distributional":
                ascended = ascended - self.dissimilarity * mean_cosine(directions)
            yield Loss("slices", -ascended)

    def directions(self, theta: Tensor) -> Tensor:
        """The directions of this step from uniform ones, `(L, k) -> (L, k)`."""
        return theta if self.slicer is None else self.slicer(theta)

    def costs(self, code: Tensor, z: Tensor, directions: Tensor) -> Tensor:
        """W_p^p of each slice, `(n, d), (n, d), (L, k) -> (L,)`."""
        if self.function == "circular":
            u, v = circular_slices(code, directions, self.radius), circular_slices(z, directions, self.radius)
        else:
            degree = DEGREES[self.function]
            u, v = directions @ monomials(code, degree).T, directions @ monomials(z, degree).T
        return wasserstein_costs(u, v, self.p)

    def combined(self, costs: Tensor) -> Tensor:
        """One distance from the costs of the slices, `(L,) -> ()`."""
        if self.slices == "max":
            return costs.amax()
        return energy_weighted(costs) if self.slices == "energy" else costs.mean()


class Ascending(nn.Module):
    """L directions that are parameters; the uniform ones of a step are not used."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(normalize(torch.randn(count, dim), dim=1))

    def forward(self, uniform: Tensor) -> Tensor:
        """The parameters over their lengths, `(L, k)`."""
        return normalize(self.theta, dim=1)


class Distributional(nn.Module):
    """f(theta): a linear map and a normalization, the identity at first."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim)
        nn.init.eye_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, uniform: Tensor) -> Tensor:
        """Directions of length one, `(L, k) -> (L, k)`."""
        return normalize(self.map(uniform).to(uniform.dtype), dim=1)


def mean_cosine(directions: Tensor) -> Tensor:
    """E |theta . theta'| over pairs of different directions, `(L, k) -> ()`."""
    count = len(directions)
    total = (directions @ directions.T).abs().sum() - directions.square().sum()
    return total / max(1, count * (count - 1))


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="swae",
        aliases=("sliced-wasserstein", "max-sliced", "generalized-sliced", "distributional-sliced", "energy-sliced"),
        family="Wasserstein autoencoders",
        description="Sliced-Wasserstein autoencoder, other slices",
        factory=SWAE,
        reference="arXiv:1804.01947",
    )
