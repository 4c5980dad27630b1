"""Tiny models, batches and one training step, for tests of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from genbench.api import Loss, Model, ModelContext, Noise, Prior
from genbench_mlp import MLP
from genbench_priors import Normal

SHAPE = (1, 6, 6)


def seeded(seed: int) -> Noise:
    return Noise(Generator().manual_seed(seed))


def build(make: Callable[..., Model], prior: Prior | None = None, **options: object) -> Model:
    torch.manual_seed(7)
    prior = prior or Normal(2)
    return make(ModelContext(SHAPE, prior.latent_dim, prior, MLP(SHAPE, width=16)), **options)


def batch(model: Model, n: int = 12) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, *SHAPE, generator=seeded(3).generator)
    return x, model.prior.sample(n, seeded(4)).detach()


def losses(model: Model, x: Tensor, z: Tensor, seed: int = 5) -> dict[str, Loss]:
    return {loss.optimizer: loss for loss in model.training_step(x, z, seeded(seed))}


def squares(model: Model, x: Tensor) -> float:
    """Mean over the batch of the summed squared errors, from the decoded images."""
    with torch.no_grad():
        decoded = model.decode(model.encode(x))
    return float((decoded - x).double().square().sum((1, 2, 3)).mean())


def train(model: Model, steps: int, x: Tensor, z: Tensor) -> Iterator[Loss]:
    """The training loop in ten lines; yields each loss after its optimizer's step."""
    configs = model.configure_optimizers()
    optimizers = {name: config.optimizer(config.parameters) for name, config in configs.items()}
    for step in range(steps):
        for loss in model.training_step(x, z, seeded(step)):
            optimizers[loss.optimizer].zero_grad()
            loss.value.backward(inputs=list(configs[loss.optimizer].parameters))
            optimizers[loss.optimizer].step()
            yield loss
