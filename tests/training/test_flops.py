"""The cost of a step: the closed form of its layers, and no trace on the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch

from genbench.api import Model
from genbench.experiment.build import create_model
from genbench.experiment.plan import Plan
from genbench.registry.loader import Registry
from genbench.training.flops import counted_flops, step_flops

BATCH = 16
ENCODER, DECODER = (144, 200, 200, 200, 2), (2, 200, 200, 200, 144)
CRITIC = (2, 512, 512, 512, 512, 1)


def product(*widths: Sequence[int]) -> float:
    """Operations of a forward pass through dense layers: 2 * batch * fan_in * fan_out each."""
    return sum(2.0 * BATCH * a * b for layers in widths for a, b in pairwise(layers))


def made(registry: Registry, plan: Plan) -> Model:
    torch.manual_seed(0)
    return create_model(registry, plan.runs[0], plan.dataset_info.shape)


def test_a_dense_autoencoder_costs_three_products_a_layer_but_the_first(
    registry: Registry, planned: Callable[..., Plan]
) -> None:
    """Forward, the gradient of the weights and that of the inputs, which the images do not need."""
    expected = 3 * product(ENCODER, DECODER) - product(ENCODER[:2])
    assert step_flops(made(registry, planned("ae")), BATCH) == expected
    assert step_flops(made(registry, planned("ae")), 2 * BATCH) == 2 * expected


def test_both_losses_of_an_adversarial_model_are_counted(registry: Registry, planned: Callable[..., Plan]) -> None:
    autoencoder = 3 * product(ENCODER, DECODER) - product(ENCODER[:2])
    fooling = 2 * product(CRITIC)  # forward, and the gradient of the codes: not that of the critic's weights
    catching = 2 * (3 * product(CRITIC) - product(CRITIC[:2]))  # draws of the prior and codes, through all weights
    assert step_flops(made(registry, planned("wae-gan")), BATCH) == autoencoder + fooling + catching


@pytest.mark.parametrize("model", ["swae", "vae", "wae-gan"])
def test_counting_leaves_no_trace(model: str, registry: Registry, planned: Callable[..., Plan]) -> None:
    """Not in the weights, not in running statistics, gradients, the mode or torch's random state."""
    built = made(registry, planned(model, network="normed"))
    built.eval()
    before = {name: value.clone() for name, value in built.state_dict().items()}
    state = torch.get_rng_state()
    assert step_flops(built, BATCH) > 0
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())
    assert all(parameter.grad is None for parameter in built.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not built.training


def test_a_model_that_cannot_be_copied_has_no_count(registry: Registry, planned: Callable[..., Plan]) -> None:
    built = made(registry, planned("ae"))
    built.stream = (step for step in ())  # type: ignore[assignment]  # a Python generator cannot be copied
    assert counted_flops(built, BATCH) is None
