"""The model `relational-ae`: relational autoencoder (arXiv:2002.02913) with spherical slices (arXiv:2010.01787)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, OptimizerConfig, Option, Prior, Search
from genbench.distances import fused_gromov_costs, power_spherical
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, GaussianComponents, GaussianMixture, adam, require_unset_prior, squared_error

_RELATIONAL = "arXiv:2002.02913"
_SPHERICAL = "arXiv:2010.01787"
_CODE = "HongtengXu/Relational-AutoEncoders"


class EqualMixture(GaussianMixture):
    """K equally likely Gaussians with trained means and a trained standard deviation of each coordinate."""

    def __init__(self, latent_dim: int, count: int) -> None:
        super().__init__()
        self.latent_dim, self.count = latent_dim, count
        self.means = nn.Parameter(torch.randn(count, latent_dim))
        self.log_variances = nn.Parameter(torch.randn(count, latent_dim))

    def components(self) -> GaussianComponents:
        """The trained Gaussians with weights 1 / K."""
        weights = self.means.new_full((self.count,), -math.log(self.count))
        return GaussianComponents(self.means, self.log_variances, weights)

    def sample_batch(self, n: int, noise: Noise) -> Tensor:
        """The components take turns, as in the authors' code, from a random one on, `(n, d)`; differentiable."""
        component = (torch.arange(n, device=noise.device) + noise.integers(self.count, 1)) % self.count
        component = component.to(self.means.device)
        deviation = noise.normal(n, self.latent_dim, dtype=self.means.dtype).to(self.means.device)
        return self.means[component] + (0.5 * self.log_variances[component]).exp() * deviation


class RelationalAE(Autoencoder):
    r"""min E |x - psi(phi(x))|^2 + weight D(phi(x), z), with images x, encoder phi, decoder psi and prior draws z.

    .. math:: D = \max_m E_{\theta \sim PS(m, \kappa)} \; FGW_\beta(\theta \cdot \phi(x), \theta \cdot z)

    is the sliced fused Gromov-Wasserstein discrepancy: a share 1 - beta of squared differences of sorted slices, and
    beta of the squared differences of their squared distances, in the cheaper of the sorted and the reversed order:
    the minimum or a bound of it, see `genbench.distances.fused_gromov_costs`. Directions come from a power spherical
    distribution about m, which ascends their mean cost by one step of Adam after each step of the autoencoder: the
    variant PSSFG of arXiv:2010.01787. kappa = 0 gives uniform directions and no ascent, the SFG of arXiv:2002.02913.

    By default z is drawn from a mixture of Gaussians, trained with the autoencoder by the same loss. It is `prior`,
    which samples are decoded from and latent fit compares codes with; a `--prior` other than N(0, I) would not be used
    and is refused. Without `learn_prior` z are draws of `--prior`.

    Source: arXiv:2002.02913, its deterministic variant, and HongtengXu/Relational-AutoEncoders. That code sums the
    first share over the batch and averages the second, so that its beta of 0.1 means less the larger the batch is; it
    leaves directions of length sqrt(d). Here all are means over unit directions, on which its gamma = 1 with 50
    directions of 8 numbers is a weight of 400.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        learn_prior: Annotated[
            bool, Option("train a mixture in the place of the given prior", reference=_RELATIONAL)
        ] = True,
        components: Annotated[int, Option("Gaussians of the trained mixture", reference=_CODE, low=1)] = 10,
        weight: Annotated[
            float,
            Option(
                "gamma, before the discrepancy",
                reference=f"ours; {_CODE}, for MNIST: 400",
                low=0,
                search=Search("log", 1, 10000),
            ),
        ] = 100.0,
        beta: Annotated[float, Option("share of relations", reference=_CODE, low=0, high=1)] = 0.1,
        kappa: Annotated[int, Option("concentration of directions; 0 is uniform", reference="ours", low=0)] = 10,
        projections: Annotated[int, Option("directions L at each step", reference=_CODE, low=1)] = 50,
        rate: Annotated[
            float, Option("Adam's learning rate", reference=_CODE, above=0, search=Search("log", 1e-4, 0.01))
        ] = 1e-3,
        ascent_rate: Annotated[float, Option("Adam's learning rate of m", reference="ours", above=0)] = 1e-2,
    ) -> None:
        if learn_prior:
            require_unset_prior("relational-ae", context.prior, "set relational-ae.learn-prior=false")
        super().__init__(context)
        self.mixture = EqualMixture(context.latent_dim, components) if learn_prior else None
        self.weight, self.beta, self.kappa, self.projections = weight, beta, kappa, projections
        self.optimizers = adam(rate), adam(ascent_rate)
        start = normalize(torch.randn(context.latent_dim), dim=0)
        if kappa:
            self.location = nn.Parameter(start)
        else:
            self.register_buffer("location", start, persistent=False)

    @property
    def prior(self) -> Prior:
        """The trained mixture, where there is one."""
        return self.context.prior if self.mixture is None else self.mixture

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """One optimizer for autoencoder and mixture, and one for the location of the directions."""
        mixture = () if self.mixture is None else tuple(self.mixture.parameters())
        configs = {"autoencoder": OptimizerConfig((*self.autoencoder_parameters(), *mixture), self.optimizers[0])}
        if self.kappa:
            configs["slices"] = OptimizerConfig((self.location,), self.optimizers[1])
        return configs

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """Two losses: summed squares + weight * discrepancy, then the negative of what the directions ascend."""
        code = self.encode(x)
        reconstruction = squared_error(self.logits(code), x).mean()
        if self.mixture is not None:
            z = self.mixture.sample_batch(len(x), noise)
        theta = power_spherical(self.location, self.kappa, self.projections, noise)
        distance = self.discrepancy(code, z, theta.detach())
        terms = {"reconstruction": reconstruction.detach(), "sliced-fgw": distance.detach()}
        yield Loss("autoencoder", reconstruction + self.weight * distance, terms)

        if self.kappa:  # on the same codes, so that it does not matter which of the two steps comes first
            yield Loss("slices", -self.discrepancy(code.detach(), z.detach(), theta))

    def discrepancy(self, code: Tensor, z: Tensor, theta: Tensor) -> Tensor:
        """The mean over directions of the fused Gromov-Wasserstein cost, `(n, d), (n, d), (L, d) -> ()`."""
        return fused_gromov_costs(theta @ code.T, theta @ z.T, self.beta).mean()


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="relational-ae",
        aliases=("relational", "gromov-wasserstein", "ssfg", "drae"),
        family="Wasserstein autoencoders",
        description="Relational autoencoder, learned mixture prior",
        factory=RelationalAE,
        reference=f"{_RELATIONAL}, {_SPHERICAL}",
    )
