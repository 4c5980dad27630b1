"""The model `cwae`: Cramer-Wold autoencoder (Knop et al., arXiv:1805.09235; JMLR 21, 2020)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, Option, Search
from genbench.distances import squared_distances
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, adam, squared_error

_CODE = "gmum/cwae-pytorch"
TINY = 1e-7
"""Added inside the logarithm, as in the authors' code: the distance is 0 where the laws are equal."""


class CWAE(Autoencoder):
    """min E |x - psi(phi(x))|^2 + weight log d_cw^2(phi(x), prior), with images x, encoder phi and decoder psi.

    Where the prior is N(0, s^2 I) the distance d_cw is that of the codes from the law itself, without any sampling; for
    other priors it is the two-sample distance from the batch of its draws, our generalisation. Gamma is Silverman's for
    a fixed count of `points`, times the prior's mean variance: the authors take the size of each batch, which makes a
    smaller last batch another objective.

    Source: arXiv:1805.09235, equation 12, and gmum/cwae-pytorch.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        weight: Annotated[
            float,
            Option(
                "lambda, before the log distance",
                reference=f"{_CODE}, MNIST; CelebA: 5",
                low=0,
                search=Search("log", 0.01, 100),
            ),
        ] = 1.0,
        log: Annotated[
            bool, Option("the distance's logarithm", reference=f"{_CODE}: cwae; without it cwae_plus")
        ] = True,
        points: Annotated[int, Option("sample size behind gamma", reference=f"{_CODE}: its batch", low=2)] = 128,
        rate: Annotated[
            float,
            Option(
                "Adam's learning rate", reference=f"{_CODE}; CelebA: 5e-4", above=0, search=Search("log", 1e-4, 0.01)
            ),
        ] = 1e-3,
    ) -> None:
        super().__init__(context)
        self.weight = weight
        self.log = log
        self.points = points
        self.optimizer = adam(rate)

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: summed squares + weight * log distance."""
        code = self.encode(x)
        reconstruction = squared_error(self.logits(code), x).mean()
        distance = self.distance(code, z)
        # Rounding may leave a distance of 0 at -1e-8, where the logarithm has no value.
        penalty = torch.log(distance.clamp(min=0.0) + TINY) if self.log else distance
        terms = {"reconstruction": reconstruction.detach(), "cramer-wold": distance.detach()}
        yield Loss("autoencoder", reconstruction + self.weight * penalty, terms)

    @property
    def gamma(self) -> float:
        """Silverman's smoothing, on the scale of the prior."""
        return silverman(self.points) * self.pairwise_scale / (2.0 * self.context.latent_dim)

    def distance(self, code: Tensor, z: Tensor) -> Tensor:
        """The distance of codes from the prior, `(n, d), (n, d) -> ()`."""
        sigma = self.prior.normal_sigma
        return between(code, z, self.gamma) if sigma is None else to_normal(code, self.gamma, sigma)


def phi(s: Tensor, d: int) -> Tensor:
    r"""The Cramer-Wold kernel \phi_d(s) = E exp(-s t^2), t a coordinate of a uniform direction in R^d, elementwise.

    It is 1F1(1/2; d/2; -s): exp(-s) for d = 1, exp(-s/2) I_0(s/2) for d = 2, and to leading order in 1/d
    (1 + 4 s / (2 d - 3))^{-1/2} (arXiv:1805.09235, section 4, for d >= 20). Of a value between 0 and 1 that is wrong by
    at most .092 for d = 3, .057 for 4, .022 for 8, .0076 for 20, .0022 for 64; the authors' code takes it from d = 8.
    """
    if d == 1:
        return torch.exp(-s)
    if d == 2:
        exact: Tensor = torch.special.i0e(0.5 * s)
        return exact
    return torch.rsqrt(1.0 + 4.0 * s / (2 * d - 3))


def silverman(points: int) -> float:
    """The variance (4 / (3 n))^(2/5) with which n points of a standard normal law are smoothed (section 4)."""
    return math.pow(4.0 / (3.0 * points), 0.4)


def to_normal(x: Tensor, gamma: float, sigma: float = 1.0) -> Tensor:
    r"""2 sqrt(pi) times the squared Cramer-Wold distance of a sample from N(0, sigma^2 I), `(n, d) -> ()`.

    The mean over directions of the squared L2 distance of the projected densities, both smoothed by N(0, gamma):

    .. math:: \frac{1}{n^2 \sqrt\gamma} \sum_{ij} \phi_d\Big(\frac{|x_i - x_j|^2}{4 \gamma}\Big)
              + \frac{1}{\sqrt{\sigma^2 + \gamma}} - \frac{2}{n \sqrt{\gamma + \sigma^2 / 2}}
              \sum_i \phi_d\Big(\frac{|x_i|^2}{2 \sigma^2 + 4 \gamma}\Big)

    arXiv:1805.09235, theorem 3 for sigma = 1; like the authors' code without the factor 1 / (2 sqrt(pi)).
    """
    d, half = x.shape[1], gamma + 0.5 * sigma**2
    within = phi(squared_distances(x, x) / (4.0 * gamma), d).mean() / math.sqrt(gamma)
    across = phi(x.square().sum(1) / (4.0 * half), d).mean() / math.sqrt(half)
    return within + 1.0 / math.sqrt(sigma**2 + gamma) - 2.0 * across


def between(x: Tensor, y: Tensor, gamma: float) -> Tensor:
    """2 sqrt(pi) times the squared Cramer-Wold distance between two samples, `(n, d), (m, d) -> ()`: equation 9."""
    d, scale = x.shape[1], 4.0 * gamma
    pairs = [phi(squared_distances(u, v) / scale, d).mean() for u, v in ((x, x), (y, y), (x, y))]
    return (pairs[0] + pairs[1] - 2.0 * pairs[2]) / math.sqrt(gamma)


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="cwae",
        family="Wasserstein autoencoders",
        description="Cramer-Wold autoencoder, closed form",
        factory=CWAE,
        reference="arXiv:1805.09235",
    )
