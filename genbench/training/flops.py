"""Floating point operations of a forward pass and of a training step, counted by torch; a multiply-add counts two."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from genbench.api import Model, Noise
from genbench.utils.rng import generator


def forward_flops(model: Model, batch: int) -> int:
    """Operations of a batch's forward pass, in matrix products and convolutions, on the default device."""
    x = torch.zeros(batch, *model.context.shape)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval().decode(model.encode(x))
    return int(counter.get_total_flops())


def step_flops(model: Model, batch: int) -> float:
    """Operations of one training step, in the forward and backward passes of all its losses.

    Matrix products and convolutions count, and nothing else: no activations, no normalisation, no optimizer step
    (Adam's is some ten operations a parameter, once a step). The step is one of the first epoch. It is done on a copy
    of the model with images of noise, so weights and torch's random state stay as they are. Raises whatever the model
    raises.
    """
    twin, device = copy.deepcopy(model), next(model.parameters()).device
    configs = twin.configure_optimizers()
    x = torch.rand(batch, *model.context.shape, generator=generator("cpu", 0, "flops", "images")).to(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        z = twin.prior.sample_batch(batch, Noise(generator(device, 0, "flops", "prior")))
        twin.train()
        twin.on_epoch_start(0)
        counter = FlopCounterMode(display=False)
        with counter:
            for loss in twin.training_step(x, z, Noise(generator(device, 0, "flops", "model"))):
                loss.value.backward(inputs=configs[loss.optimizer].parameters)
    return float(counter.get_total_flops())


def counted_flops(model: Model, batch: int) -> float | None:
    """`step_flops`, or None where a plug-in's model cannot be copied or counted; it may be trained all the same."""
    try:
        return step_flops(model, batch)
    except (Exception, SystemExit):
        return None
