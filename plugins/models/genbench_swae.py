"""The model `swae`: sliced-Wasserstein autoencoder (Kolouri et al., arXiv:1804.01947)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, OptimizerConfig, Option
from genbench.distances import random_projections, sliced_wasserstein_cost
from genbench.hookspecs import hookimpl
from genbench.nn import COSTS, Autoencoder, adam, rmsprop

_PAPER = "arXiv:1804.01947, algorithm 1"
_CWAE = "gmum/cwae-pytorch, for MNIST"
_NOTEBOOKS = "notebooks of skolouri/swae"


class SWAE(Autoencoder):
    r"""min E c(x, psi(phi(x))) + weight SW_p^p(phi(x), z), with images x, encoder phi, decoder psi and prior draws z.

    c is the cost of a reconstruction, a mean over the batch; SW_p^p the sliced Wasserstein cost, a mean over fresh
    directions and sorted codes. Neither depends on the batch size.

    Source: arXiv:1804.01947, algorithm 1. The authors' notebooks are
    `cost=bce-l1 weight=10 annealing=1.1 optimizer=rmsprop` with the network swae-mnist at a batch of 500.
    """

    strength: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        p: Annotated[float, Option("power of the distance", reference=_PAPER, low=1)] = 2.0,
        projections: Annotated[int, Option("directions L at each step", reference=_PAPER, low=1)] = 50,
        weight: Annotated[
            float,
            Option(
                "lambda, before the mean sliced distance", reference="gmum/cwae-pytorch, for CelebA; MNIST: 1", low=0
            ),
        ] = 100.0,
        cost: Annotated[
            Literal["squared", "bce-l1"],
            Option("summed squares, or mean cross entropy + mean absolute error", reference=_CWAE),
        ] = "squared",
        annealing: Annotated[
            float,
            Option("factor on the weight at every epoch from the twelfth on", reference="off; notebooks: 1.1", low=0),
        ] = 1.0,
        optimizer: Annotated[
            Literal["adam", "rmsprop"], Option("the optimizer", reference=f"{_CWAE}; notebooks: rmsprop")
        ] = "adam",
        rate: Annotated[float, Option("learning rate", reference=f"{_CWAE}; {_NOTEBOOKS}", above=0)] = 1e-3,
    ) -> None:
        super().__init__(context)
        self.p = p
        self.projections = projections
        self.weight = weight
        self.cost = COSTS[cost]
        self.annealing = annealing
        self.optimizer = adam(rate) if optimizer == "adam" else rmsprop(rate)
        # A tensor, not a number: a step that was captured as a CUDA graph sees its new value.
        self.register_buffer("strength", torch.full((), float(weight)), persistent=False)

    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """One optimizer for all parameters."""
        return {"autoencoder": OptimizerConfig(self.autoencoder_parameters(), self.optimizer)}

    def on_epoch_start(self, epoch: int) -> None:
        """Set the weight of this epoch: the notebooks' 10 becomes 61.2 in the last of 30 epochs."""
        self.strength.fill_(self.weight * self.annealing ** max(0, epoch - 10))

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: cost + strength * sliced distance."""
        code = self.encode(x)
        reconstruction = self.cost(self.logits(code), x).mean()
        theta = random_projections(self.projections, code.shape[1], noise, code.dtype)
        distance = sliced_wasserstein_cost(code, z, theta, self.p)
        terms = {"reconstruction": reconstruction.detach(), "sliced-w": distance.detach()}
        yield Loss("autoencoder", reconstruction + self.strength * distance, terms)


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="swae", description="Sliced-Wasserstein autoencoder", factory=SWAE, reference="arXiv:1804.01947"
    )
