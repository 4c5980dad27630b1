"""The model `ae`: an autoencoder without a regulariser, the control of every comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, OptimizerConfig, Option
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, adam, squared_error


class AE(Autoencoder):
    """min E |x - psi(phi(x))|^2; the law of the codes is left open, so that samples show the worth of a prior."""

    def __init__(
        self,
        context: ModelContext,
        *,
        rate: Annotated[float, Option("Adam's learning rate", reference="gmum/cwae-pytorch", above=0)] = 1e-3,
    ) -> None:
        """Build the autoencoder."""
        super().__init__(context)
        self.rate = rate

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """One optimizer for all parameters."""
        return {"autoencoder": OptimizerConfig(self.autoencoder_parameters(), adam(self.rate))}

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: the mean over the batch of the summed squared errors."""
        fit = squared_error(self.logits(self.encode(x)), x).mean()
        yield Loss("autoencoder", fit, {"reconstruction": fit.detach()})


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The model."""
    source = "doi:10.1126/science.1127647"
    yield ComponentSpec(
        name="ae", description="Autoencoder without a regulariser: the control", factory=AE, reference=source
    )
