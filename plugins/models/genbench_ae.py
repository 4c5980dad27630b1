"""The model `ae`: autoencoder without a penalty on codes (Hinton and Salakhutdinov, doi:10.1126/science.1127647)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, Option, Search
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, adam, squared_error


class AE(Autoencoder):
    """min E |x - psi(phi(x))|^2, with images x, encoder phi and decoder psi.

    The law of the codes is left open: the samples show how far the prior is from it.

    Source: doi:10.1126/science.1127647; the optimizer is that of gmum/cwae-pytorch.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        rate: Annotated[
            float,
            Option("Adam's learning rate", reference="gmum/cwae-pytorch", above=0, search=Search("log", 1e-4, 0.01)),
        ] = 1e-3,
    ) -> None:
        super().__init__(context)
        self.optimizer = adam(rate)

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: the mean over the batch of the summed squared errors."""
        reconstruction = squared_error(self.logits(self.encode(x)), x).mean()
        yield Loss("autoencoder", reconstruction, {"reconstruction": reconstruction.detach()})


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="ae",
        family="Deterministic autoencoders",
        description="Autoencoder without a penalty on codes",
        factory=AE,
        reference="doi:10.1126/science.1127647",
    )
