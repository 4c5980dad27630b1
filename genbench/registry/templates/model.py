"""The model `my-model`: an autoencoder whose codes are drawn to the prior by the energy distance. Change `penalty`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, OptimizerConfig, Option, Search
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, adam, squared_error


class MyModel(Autoencoder):
    """min E |x - D(E(x))|^2 + weight * energy(E(x), z). `Autoencoder` has encode and decode over the run's network."""

    # Keyword-only parameters are the options: `--set my-model.weight=5`. Say where each default comes from.
    def __init__(
        self,
        context: ModelContext,
        *,
        weight: Annotated[float, Option("weight of the penalty", low=0, search=Search("log", 0.1, 1000))] = 10.0,
        rate: Annotated[float, Option("Adam's learning rate", above=0, search=Search("log", 1e-4, 1e-2))] = 1e-3,
    ) -> None:
        """`context` has the image shape, the latent dimension, the prior and the network: the same for all models."""
        super().__init__(context)
        self.weight = weight
        self.optimizer = adam(rate, (0.9, 0.999))

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """The optimizers by name: disjoint parameters, together all of the model's. An adversary has a second one."""
        return {"autoencoder": OptimizerConfig(self.autoencoder_parameters(), self.optimizer)}

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One training step. x: images `(n, c, h, w)` in [0, 1]; z: `(n, d)` draws of the prior.

        Yield the loss of one optimizer; the method is resumed after that optimizer's step, and may yield the next loss.
        Losses are means over the batch. Draw noise with `noise.normal(*shape)`; never call `.item()`, which waits.
        """
        code = self.encode(x)
        fit = squared_error(self.logits(code), x).mean()
        apart = penalty(code, z)
        yield Loss("autoencoder", fit + self.weight * apart, {"fit": fit.detach(), "penalty": apart.detach()})


def penalty(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased energy distance 2 E|a - b| - E|a - a'| - E|b - b'| of `(n, d)` draws: its mean does not depend on n."""
    pairs = len(a) * max(len(a) - 1, 1)
    return 2 * torch.cdist(a, b).mean() - (torch.cdist(a, a).sum() + torch.cdist(b, b).sum()) / pairs


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The model. `reference` is the paper that it comes from."""
    yield ComponentSpec(
        name="my-model", description="Autoencoder with the energy distance", factory=MyModel, reference=""
    )
