"""Samplers: the prior itself, and a Gaussian mixture fitted to the codes of training images (arXiv:1903.12436)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from genbench.api import ComponentSpec, Noise, Option, Prior, Sampler
from genbench.errors import MetricError, one_line
from genbench.hookspecs import hookimpl

FIT_SEED = 1903
"""Seed of the mixture's initialization, the same for all runs."""

STEPS = 1000
"""Steps of expectation maximization within which it must converge; some 50 are usual."""

RIDGE = 1e-6
"""Added to the variances of the mixture, as scikit-learn does; codes are of the order of 1."""


class PriorSampler(Sampler):
    """Draws of the prior, which need no fit."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def sample(self, n: int, noise: Noise) -> Tensor:
        """n draws of the prior, `(n, d)` float32."""
        return self.prior.sample(n, noise)


class MixtureSampler(Sampler):
    """A mixture of Gaussians with full covariances, by scikit-learn's expectation maximization from k-means.

    Codes of fewer distinct values than components get a component each.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        components: Annotated[int, Option("Gaussians in the mixture", reference="arXiv:1903.12436", low=1)] = 10,
        codes: Annotated[int, Option("training images whose codes are fitted", low=2)] = 5_000,
    ) -> None:
        """Of `prior` its dimension alone counts: d + 1 codes are the fewest with a covariance of full rank."""
        self.components, self.training_codes = components, codes
        self.least_codes = components * (prior.latent_dim + 1)

    def fit(self, codes: Tensor) -> None:
        """Fit the mixture to codes, `(n, d)` float64."""
        from sklearn.exceptions import ConvergenceWarning  # a second to import
        from sklearn.mixture import GaussianMixture

        count = min(self.components, len(torch.unique(codes, dim=0)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an error below
            mixture = GaussianMixture(count, reg_covar=RIDGE, max_iter=STEPS, random_state=FIT_SEED)
            try:
                fitted = mixture.fit(codes.numpy())
            except ValueError as error:  # codes of 1e28, say
                raise MetricError(f"gmm: no mixture fits the codes: {one_line(error, 120)}") from None
        if not fitted.converged_:
            raise MetricError(f"gmm: the mixture of {count} Gaussians did not converge within {STEPS} steps")
        self.weights, self.means = torch.from_numpy(fitted.weights_), torch.from_numpy(fitted.means_)
        self.roots = torch.from_numpy(np.linalg.cholesky(fitted.covariances_))

    def draw(self, n: int, noise: Noise) -> Tensor:
        """n draws of the fitted mixture, `(n, d)` float64."""
        chosen = torch.multinomial(self.weights, n, replacement=True, generator=noise.generator)
        normal = noise.normal(n, self.means.shape[1], dtype=torch.float64)
        return self.means[chosen] + (self.roots[chosen] @ normal[:, :, None])[:, :, 0]

    def sample(self, n: int, noise: Noise) -> Tensor:
        """n draws of the fitted mixture, `(n, d)` float32."""
        return self.draw(n, noise).float()


@hookimpl
def genbench_samplers() -> Iterable[ComponentSpec[Sampler]]:
    """The prior and the mixture."""
    yield ComponentSpec(name="prior", description="draws of the prior", factory=PriorSampler, reference="ours")
    yield ComponentSpec(
        name="gmm",
        description="Gaussian mixture fitted to the codes of training images",
        factory=MixtureSampler,
        reference="arXiv:1903.12436",
    )
