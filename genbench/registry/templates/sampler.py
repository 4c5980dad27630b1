"""The sampler `my-sampler`: a Gaussian fitted to the codes of training images. Change `fit` and `sample`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Noise, Option, Prior, Sampler
from genbench.hookspecs import hookimpl


class MySampler(Sampler):
    """N(m, C) with the mean and the covariance of the codes; its draws are decoded in the place of the prior's."""

    # Keyword-only parameters are the options: `--set my-sampler.codes=1000`.
    def __init__(
        self, prior: Prior, *, codes: Annotated[int, Option("training images whose codes are fitted", low=2)] = 5_000
    ) -> None:
        """`training_codes` is the count of codes that `fit` is given (0: no fit), `least_codes` the fewest."""
        self.training_codes = codes

    def fit(self, codes: Tensor) -> None:
        """Codes of training images, `(n, d)` float64 on the CPU, finite. Seed what is random: equal fits."""
        self.mean = codes.mean(0)
        ridge = 1e-6 * torch.eye(codes.shape[1], dtype=codes.dtype)
        self.root = torch.linalg.cholesky(torch.cov(codes.T).reshape(ridge.shape) + ridge)

    def sample(self, n: int, noise: Noise) -> Tensor:
        """n independent draws, `(n, d)` float32 on the CPU. All randomness comes from `noise`."""
        normal = noise.normal(n, len(self.mean), dtype=torch.float64)
        draws: Tensor = self.mean + normal @ self.root.T
        return draws.float()


@hookimpl
def genbench_samplers() -> Iterable[ComponentSpec[Sampler]]:
    """The sampler. `reference` is the paper that it comes from."""
    yield ComponentSpec(name="my-sampler", description="A Gaussian fitted to codes", factory=MySampler, reference="")
