"""The prior `my-prior`: independent Laplace coordinates. Change `sample`, then the properties."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Noise, Option, Prior
from genbench.hookspecs import hookimpl


class MyPrior(Prior):
    """p(z) = prod_i exp(-|z_i| / scale) / (2 scale) on R^d."""

    # Keyword-only parameters are the options: `--set my-prior.scale=2`. Everything else is fixed by the contract. For a
    # latent dimension without meaning raise genbench.api.UnsupportedError: the plan is refused before anything trains.
    def __init__(
        self,
        latent_dim: int,
        *,
        scale: Annotated[float, Option("mean of |z_i|", reference="the variance is then 1", above=0)] = math.sqrt(0.5),
    ) -> None:
        """Keep the options. A prior is a torch module; a learned one has parameters."""
        super().__init__()
        self.latent_dim = latent_dim
        self.scale = scale

    def sample(self, n: int, noise: Noise) -> Tensor:
        """n independent draws, `(n, d)` float32. All randomness comes from `noise`, on its device."""
        pair = -torch.log1p(-noise.uniform(2, n, self.latent_dim))  # exponential; `noise.normal` is there too
        return self.scale * (pair[0] - pair[1])

    # Once `sample` is another law, delete what follows, down to the hook: all of it is optional. A property left out is
    # estimated, or the prior is refused where it is needed. `genbench check` compares the rest with the draws.

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density in nats, `(n, d) -> (n,)`. Without it a VAE refuses this prior."""
        return (-z.abs() / self.scale - math.log(2 * self.scale)).sum(1)

    @property
    def full_support(self) -> bool:
        """The density is positive everywhere; leave it out where it is not."""
        return True

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, `(d,)`; estimated from 100,000 draws where it is left out."""
        return torch.full((self.latent_dim,), 2 * self.scale**2)


@hookimpl
def genbench_priors() -> Iterable[ComponentSpec[Prior]]:
    """The prior. `reference` is the paper that it comes from."""
    yield ComponentSpec(name="my-prior", description="Independent Laplace coordinates", factory=MyPrior, reference="")
