"""The model `wae-mmd`: Wasserstein autoencoder with a kernel penalty (Tolstikhin et al., arXiv:1711.01558)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

from torch import Tensor

from genbench.api import (
    ComponentSpec,
    Loss,
    Model,
    ModelContext,
    Noise,
    OptimizerConfig,
    Option,
    Search,
    constant_schedule,
)
from genbench.distances import mmd
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, adam, squared_error, wae_schedule

_CODE = "tolstikhin/wae, for MNIST"


class WAEMMD(Autoencoder):
    """min E |x - psi(phi(x))|^2 + weight MMD_k(phi(x), z), with images x, encoder phi, decoder psi and prior draws z.

    MMD_k is the unbiased estimate, which may be negative, with a kernel k summed over seven scales. Its bandwidth C is
    the prior's E|z - z'|^2, which is the authors' 2 d sigma^2 where the prior is normal.

    Source: arXiv:1711.01558, algorithm 2, and tolstikhin/wae. Left out are the code's pre-training of the encoder and
    its noise of 0.01 on the input.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        weight: Annotated[
            float,
            Option("lambda, before the MMD", reference=f"{_CODE}: 10 / 0.05", low=0, search=Search("log", 2, 20000)),
        ] = 200.0,
        kernel: Annotated[
            Literal["imq", "rbf"], Option("inverse multiquadratic or Gaussian", reference="arXiv:1711.01558, section 4")
        ] = "imq",
        rate: Annotated[
            float, Option("Adam's learning rate", reference=_CODE, above=0, search=Search("log", 1e-4, 0.01))
        ] = 1e-3,
        beta1: Annotated[
            float, Option("Adam's first decay", reference="arXiv:1711.01558, section 4", low=0, high=0.999)
        ] = 0.5,
        schedule: Annotated[
            Literal["published", "constant"],
            Option("rate / 2 from epoch 30, / 10 from 50, / 100 from 100", reference=_CODE),
        ] = "published",
    ) -> None:
        super().__init__(context)
        self.weight = weight
        self.kernel: Literal["imq", "rbf"] = kernel
        self.optimizer = adam(rate, (beta1, 0.999))
        self.schedule = {"published": wae_schedule, "constant": constant_schedule}[schedule]

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """One optimizer for all parameters."""
        return {"autoencoder": OptimizerConfig(self.autoencoder_parameters(), self.optimizer, self.schedule)}

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: summed squares + weight * MMD."""
        code = self.encode(x)
        reconstruction = squared_error(self.logits(code), x).mean()
        distance = mmd(code, z, kernel=self.kernel, scale=self.pairwise_scale)
        terms = {"reconstruction": reconstruction.detach(), "mmd": distance.detach()}
        yield Loss("autoencoder", reconstruction + self.weight * distance, terms)


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="wae-mmd",
        family="Wasserstein autoencoders",
        description="Wasserstein autoencoder, kernel penalty",
        factory=WAEMMD,
        reference="arXiv:1711.01558",
    )
