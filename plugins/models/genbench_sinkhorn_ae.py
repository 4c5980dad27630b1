"""The model `sinkhorn-ae`: Sinkhorn autoencoder (Patrini et al., arXiv:1810.01118; UAI 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, Option, Search
from genbench.distances import sinkhorn_divergence
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, adam, squared_error

_PAPER = "arXiv:1810.01118"


class SinkhornAE(Autoencoder):
    r"""min E |x - psi(phi(x))|^2 + weight S_eps(phi(x), z), with images x, encoder phi, decoder psi, prior draws z.

    .. math:: S_\epsilon(P, Q) = W_\epsilon(P, Q) - \tfrac12 W_\epsilon(P, P) - \tfrac12 W_\epsilon(Q, Q)

    is the Sinkhorn divergence for the squared Euclidean cost, after a fixed number of steps in the logarithmic domain
    (`genbench.distances.sinkhorn_divergence`). Its epsilon is a share of the prior's E|z - z'|^2, so that it means the
    same blur for every prior and latent size. Unlike a sliced distance it couples whole codes: the sampling floor of
    two batches of the prior falls slowly with their size in high dimensions, and the divergence leaves most of it out.

    Source: arXiv:1810.01118, algorithm 1, for any prior that can be sampled. The paper differentiates through the
    steps; here the gradient is that of the last one, which at convergence is the same (arXiv:1810.08278).
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        weight: Annotated[
            float,
            Option(
                "lambda, before the divergence", reference="ours, on glyphs", low=0, search=Search("log", 0.2, 2000)
            ),
        ] = 20.0,
        epsilon: Annotated[
            float, Option("entropic regularization, as a share of the prior's E|z - z'|^2", reference="ours", above=0)
        ] = 0.05,
        iterations: Annotated[int, Option("Sinkhorn steps", reference=f"ours; {_PAPER}: fixed as well", low=1)] = 20,
        rate: Annotated[
            float,
            Option("Adam's learning rate", reference="ours: that of swae", above=0, search=Search("log", 1e-4, 0.01)),
        ] = 1e-3,
    ) -> None:
        super().__init__(context)
        self.weight, self.epsilon, self.iterations = weight, epsilon, iterations
        self.optimizer = adam(rate)

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: summed squares + weight * divergence."""
        code = self.encode(x)
        reconstruction = squared_error(self.logits(code), x).mean()
        distance = sinkhorn_divergence(code, z, self.epsilon * self.pairwise_scale, self.iterations)
        terms = {"reconstruction": reconstruction.detach(), "sinkhorn": distance.detach()}
        yield Loss("autoencoder", reconstruction + self.weight * distance, terms)


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="sinkhorn-ae",
        aliases=("sae", "sinkhorn", "sinkhorn-autoencoder"),
        family="Wasserstein autoencoders",
        description="Sinkhorn autoencoder, entropic transport",
        factory=SinkhornAE,
        reference=_PAPER,
    )
