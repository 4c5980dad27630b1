"""The model `ae`: an autoencoder without a regulariser, the control of every comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from torch import Generator, Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, OptimizerConfig, Option
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, adam, squared_error


class AE(Autoencoder):
    """min E |x - psi(phi(x))|^2; what the codes follow is left open, so that samples show what a prior is worth."""

    def __init__(
        self,
        setting: ModelContext,
        *,
        rate: Annotated[float, Option("Adam's learning rate", source="gmum/cwae-pytorch", above=0)] = 1e-3,
    ) -> None:
        """Build the autoencoder."""
        super().__init__(setting)
        self.rate = rate

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """One optimiser for everything."""
        return {"autoencoder": OptimizerConfig(self.autoencoder_parameters(), adam(self.rate))}

    def training_step(self, x: Tensor, z: Tensor, generator: Generator) -> Iterator[Loss]:
        """One move: the mean over the batch of the summed squared errors."""
        fit = squared_error(self.logits(self.encode(x)), x).mean()
        yield Loss("autoencoder", fit, {"reconstruction": fit.detach()})


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """Offer the model."""
    source = "doi:10.1126/science.1127647"
    yield ComponentSpec(name="ae", about="Autoencoder without a regulariser: the control", make=AE, source=source)
