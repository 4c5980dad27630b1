"""The options `slices` and `function` of swae: objectives against independent arithmetic, and ascent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from genbench.distances import random_projections
from genbench.errors import UnsupportedError
from genbench_priors import Normal
from genbench_swae import SWAE, mean_cosine
from support.models import batch, build, losses, seeded, squares, train


def costs(u: torch.Tensor, v: torch.Tensor) -> np.ndarray:
    """Mean squared differences of sorted rows, in float64."""
    u, v = (np.sort(t.detach().double().numpy(), axis=1) for t in (u, v))
    return ((u - v) ** 2).mean(1)


@pytest.mark.parametrize("slices", ["uniform", "energy", "max", "distributional"])
@pytest.mark.parametrize("function", ["linear", "circular", "cubic"])
def test_objective(slices: str, function: str) -> None:
    model = build(SWAE, slices=slices, function=function, weight=3.0, projections=7, radius=1.5)
    x, z = batch(model)
    code = model.encode(x).detach()
    theta = random_projections(7, 4 if function == "cubic" else 2, seeded(5))
    if slices == "max":
        theta = normalize(model.slicer.theta.detach(), dim=1)
    if slices == "distributional":
        with torch.no_grad():
            model.slicer.map.weight.add_(0.3)
            theta = normalize(theta @ model.slicer.map.weight.T, dim=1)

    def sliced(points: torch.Tensor) -> torch.Tensor:
        a, b = points.T
        if function == "circular":
            return torch.stack([(points - 1.5 * t).norm(dim=1) for t in theta])
        return theta @ (torch.stack([a**3, a**2 * b, a * b**2, b**3]) if function == "cubic" else points.T)

    each = costs(sliced(code), sliced(z))
    weights = np.exp(each) / np.exp(each).sum()
    distance = {"max": each.max(), "energy": (weights * each).sum()}.get(slices, each.mean())
    both = losses(model, x, z)
    expected = squares(model, x) + 3.0 * distance
    assert float(both["autoencoder"].value.detach()) == pytest.approx(expected, rel=1e-4)
    if slices == "max":
        assert float(both["slices"].value.detach()) == pytest.approx(-each.mean(), rel=1e-4)
    elif slices == "distributional":
        pairs = [abs(float(theta[i] @ theta[j])) for i in range(7) for j in range(7) if i != j]
        assert float(both["slices"].value.detach()) == pytest.approx(np.mean(pairs) - each.mean(), rel=1e-4)
    else:
        assert list(both) == ["autoencoder"]


def test_distributional_slices_begin_as_uniform_ones() -> None:
    plain, ours = build(SWAE), build(SWAE, slices="distributional")
    x, z = batch(plain)
    values = [float(losses(model, x, z)["autoencoder"].value.detach()) for model in (plain, ours)]
    assert values[1] == pytest.approx(values[0], rel=1e-5)


class Descending(SWAE):
    """The sign of the ascent lost."""

    def training_step(self, x, z, noise):  # noqa: ANN001, ANN201
        for loss in super().training_step(x, z, noise):
            yield type(loss)(loss.optimizer, -loss.value) if loss.optimizer == "slices" else loss


@pytest.mark.parametrize("slices", ["max", "distributional"])
def test_directions_ascend_and_do_not_move_the_encoder(slices: str) -> None:
    def gain(make: type[SWAE]) -> float:
        model = build(make, slices=slices, projections=2, dissimilarity=0.0, rate=1e-12, ascent_rate=0.05)
        x, z = batch(model, n=40)
        z = z * torch.tensor([1.0, 4.0])  # one direction is worth more than the rest
        values = [float(loss.logs["sliced-w"]) for loss in train(model, 60, x, z) if loss.optimizer == "autoencoder"]
        return values[-1] / values[0]

    assert gain(SWAE) > 1.02
    assert gain(Descending) < 1.0
    model = build(SWAE, slices=slices)
    x, z = batch(model)
    losses(model, x, z)["slices"].value.backward()
    assert all(parameter.grad is None for parameter in model.autoencoder_parameters())


def test_the_dissimilarity_spreads_the_directions() -> None:
    def spread(dissimilarity: float) -> float:
        model = build(SWAE, slices="distributional", dissimilarity=dissimilarity, rate=1e-12, ascent_rate=0.05)
        x, z = batch(model, n=40)
        for _ in train(model, 80, x, z * torch.tensor([1.0, 4.0])):
            pass
        return float(mean_cosine(model.directions(random_projections(50, 2, seeded(0)))).detach())

    assert spread(100.0) < spread(0.0) - 0.05


def test_too_many_monomials_are_refused_in_one_line() -> None:
    with pytest.raises(UnsupportedError, match="10,424,128 monomials") as refusal:
        build(SWAE, Normal(64), function="quintic")
    assert "\n" not in str(refusal.value)
