"""What a training step costs in floating point operations, counted without touching the training."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from genbench.api import Model, Noise
from genbench.utils.rng import generator


def step_flops(model: Model, batch: int) -> float:
    """Floating point operations of one training step, a multiplication and an addition counting two.

    Counted by torch's FlopCounterMode over the forward and backward pass of every loss, on a copy of the model and
    images of noise: weights and torch's random state stay as they are. Matrix products and convolutions count, and nothing else:
    no activations, no normalisation, no optimiser step (Adam's is some ten operations a parameter, once a step). The
    count is that of a step of the first epoch. Raises whatever the model raises.
    """
    twin, device = copy.deepcopy(model), next(model.parameters()).device
    configure_optimizers = twin.configure_optimizers()
    x = torch.rand(batch, *model.context.shape, generator=generator("cpu", 0, "flops", "images")).to(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        z = twin.prior.sample_batch(batch, Noise(generator(device, 0, "flops", "prior")))
        twin.train()
        twin.on_epoch_start(0)
        counter = FlopCounterMode(display=False)
        with counter:
            for loss in twin.training_step(x, z, Noise(generator(device, 0, "flops", "model"))):
                loss.value.backward(inputs=configure_optimizers[loss.optimizer].parameters)
    return float(counter.get_total_flops())


def counted_flops(model: Model, batch: int) -> float | None:
    """`step_flops`, or None where a plug-in's model cannot be copied or counted: a training is worth more than a count.

    What is wrong with the model's step itself, the training tells.
    """
    try:
        return step_flops(model, batch)
    except (Exception, SystemExit):
        return None
