"""The Sinkhorn autoencoder: its objective, and its regularization on the scale of the prior."""

from __future__ import annotations

import ot
import pytest
import torch

from genbench_priors import Normal
from genbench_sinkhorn_ae import SinkhornAE
from support.models import batch, build, losses, squares


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_objective_against_pot(sigma: float) -> None:
    model = build(SinkhornAE, Normal(2, sigma=sigma), weight=3.0, epsilon=0.2, iterations=300)
    x, z = batch(model)
    code = model.encode(x).detach()
    epsilon = 0.2 * 4.0 * sigma**2

    def entropic(a: torch.Tensor, b: torch.Tensor) -> float:
        cost = torch.cdist(a.double(), b.double()).square()
        plan = torch.from_numpy(ot.sinkhorn([], [], cost.numpy(), epsilon, method="sinkhorn_log", stopThr=1e-12))
        return float((plan * cost).sum() + epsilon * (plan * (plan * plan.numel()).log()).sum())

    divergence = entropic(code, z) - 0.5 * entropic(code, code) - 0.5 * entropic(z, z)
    expected = squares(model, x) + 3.0 * divergence
    assert float(losses(model, x, z)["autoencoder"].value.detach()) == pytest.approx(expected, rel=1e-4)
    biased = squares(model, x) + 3.0 * entropic(code, z)  # the error: no debiasing
    assert biased != pytest.approx(expected, rel=0.02)


def test_codes_that_are_the_draws_cost_nothing() -> None:
    model = build(SinkhornAE)
    x, _ = batch(model)
    loss = losses(model, x, model.encode(x).detach().flip(0))["autoencoder"]
    assert float(loss.logs["sinkhorn"]) == pytest.approx(0.0, abs=1e-5)
