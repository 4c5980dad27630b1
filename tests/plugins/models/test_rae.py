"""RAE: weight 0 is the autoencoder; its three regularizers against independent computations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genbench.api import Noise
from genbench_ae import AE
from genbench_priors import Normal
from genbench_rae import RAE
from support.models import SHAPE, batch, build, losses, seeded, squares, train


@pytest.mark.parametrize("regularizer", ["l2", "gradient", "none"])
def test_without_weights_it_is_trained_as_the_autoencoder_bit_for_bit(regularizer: str) -> None:
    plain = build(AE, rate=5e-4)
    ours = build(RAE, norm=0.0, weight=0.0, regularizer=regularizer)
    x, z = batch(plain)
    for model in (plain, ours):
        for _ in train(model, 5, x, z):
            pass
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_objective_with_l2(sigma: float) -> None:
    model = build(RAE, Normal(2, sigma=sigma), norm=0.3, weight=0.7)
    x, z = batch(model)
    code = model.encode(x).detach()
    norm = 0.5 * float((code / sigma).square().sum(1).mean())
    weights = sum(
        float(layer.weight.detach().square().sum()) for layer in model.decoder.modules() if isinstance(layer, nn.Linear)
    )
    expected = squares(model, x) + 0.3 * norm + 0.7 * weights
    assert float(losses(model, x, z)["autoencoder"].value.detach()) == pytest.approx(expected, rel=1e-5)


def jacobian(model: RAE, code: Tensor) -> float:
    """Half the mean squared Frobenius norm of the Jacobian of the decoded image, entry by entry."""
    each = [torch.autograd.functional.jacobian(lambda z: model.decode(z[None])[0], point) for point in code]
    return 0.5 * sum(float(matrix.square().sum()) for matrix in each) / len(each)


class OfSquares(RAE):
    """The penalty of the authors' code: the gradient of the sum of the squared pixels."""

    def gradient_penalty(self, code: Tensor, noise: Noise) -> Tensor:
        code = code.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.decode(code).square().sum(), code)
        return 0.5 * gradient.square().sum(1).mean()


def test_the_gradient_penalty_is_the_squared_jacobian_without_bias() -> None:
    def penalty(make: type[RAE]) -> tuple[float, float]:
        model = build(make, regularizer="gradient").double()
        with torch.no_grad():
            model.decoder[-2].bias.add_(2.0)  # bright images, on which the two penalties part
        code = 2.0 * torch.randn(3, 2, generator=seeded(1).generator, dtype=torch.float64)
        draws = [float(model.gradient_penalty(code, seeded(seed)).detach()) for seed in range(400)]
        return sum(draws) / len(draws), jacobian(model, code)

    ours, exact = penalty(RAE)
    assert ours == pytest.approx(exact, rel=0.1)
    faulty, exact = penalty(OfSquares)
    assert faulty != pytest.approx(exact, rel=0.3)


def test_the_gradient_penalty_reaches_encoder_and_decoder_and_no_running_statistics() -> None:
    model = build(RAE, regularizer="gradient", weight=1.0, norm=0.0)
    model.decoder.insert(1, nn.BatchNorm1d(16))
    x, _ = batch(model)
    penalty = model.gradient_penalty(model.encode(x), seeded(0))
    gradients = torch.autograd.grad(penalty, [model.encoder[1].weight, *model.decoder.parameters()], allow_unused=True)
    assert gradients[0].any()
    assert sum(gradient is not None and bool(gradient.any()) for gradient in gradients) > 2
    assert all(int(buffer) == 0 for name, buffer in model.decoder.named_buffers() if name.endswith("tracked"))


def test_spectral_norms_of_the_decoder_are_one() -> None:
    model = build(RAE, regularizer="spectral")
    x, z = batch(model)
    for _ in train(model, 60, x, z):
        pass
    model.eval()
    layers = [layer for layer in model.decoder.modules() if isinstance(layer, nn.Linear)]
    assert len(layers) > 1
    norms = [float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) for layer in layers]
    assert norms == pytest.approx([1.0] * len(norms), rel=0.05)
    free = [
        float(torch.linalg.matrix_norm(layer.weight.detach(), 2))
        for layer in build(RAE).decoder.modules()
        if isinstance(layer, nn.Linear)
    ]
    assert max(abs(norm - 1.0) for norm in free) > 0.05
    z = torch.randn(50, 2, generator=seeded(1).generator)
    steps = model.logits(z) - model.logits(z.flip(0))  # Lipschitz with the constant 1
    assert (steps.flatten(1).norm(dim=1) <= 1.1 * (z - z.flip(0)).norm(dim=1) + 1e-6).all()


def test_a_transposed_convolution_is_normalized_over_its_outputs() -> None:
    class Transposed:
        shape = SHAPE

        def encoder(self, outputs: int) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(36, outputs))

        def decoder(self, latent_dim: int) -> nn.Module:
            return nn.Sequential(nn.Unflatten(1, (latent_dim, 1, 1)), nn.ConvTranspose2d(latent_dim, 1, 6))

    from genbench.api import ModelContext

    torch.manual_seed(0)
    model = RAE(ModelContext(SHAPE, 2, Normal(2), Transposed()), regularizer="spectral")
    for _ in range(50):
        weight = model.decoder[1].weight.detach()
    assert float(torch.linalg.matrix_norm(weight.transpose(0, 1).flatten(1), 2)) == pytest.approx(1.0, rel=1e-3)
