"""VQ-VAE: quantization, straight-through gradients, both ways to learn the codebook, and the fitted prior."""

from __future__ import annotations

import pytest
import torch

from genbench.errors import UnsupportedError
from genbench_priors import Normal
from genbench_vq_vae import COUNT_DECAY, VQVAE, Codebook
from support.models import batch, build, losses, seeded, train


def by_hand(model: VQVAE, z: torch.Tensor) -> torch.Tensor:
    """Each part of each code replaced by the nearest vector, one after another."""
    vectors = model.codebook.vectors.detach()
    parts = z.reshape(-1, vectors.shape[1])
    return torch.stack([vectors[((vectors - part) ** 2).sum(1).argmin()] for part in parts]).reshape(z.shape)


def output(model: VQVAE, x: torch.Tensor) -> torch.Tensor:
    return model.encoder(x).detach()


@pytest.mark.parametrize("codebook", ["loss", "ema"])
def test_objective(codebook: str) -> None:
    model = build(VQVAE, Normal(4), codebook=codebook, commitment=0.4, entries=8)
    x, z = batch(model)
    before = output(model, x)
    code = by_hand(model, before)
    assert torch.equal(model.encode(x), code)
    fit = float((model.decode(code) - x).square().sum((1, 2, 3)).mean().detach())
    apart = float((before - code).square().sum(1).mean())
    expected = fit + (0.4 if codebook == "ema" else 1.4) * apart
    assert float(losses(model, x, z)["autoencoder"].value.detach()) == pytest.approx(expected, rel=1e-5)


class Blocked(VQVAE):
    """The error: no straight-through estimator, so that the encoder learns from the commitment alone."""

    def training_step(self, x, z, noise):  # noqa: ANN001, ANN201
        import genbench_vq_vae

        kept = genbench_vq_vae.straight_through
        genbench_vq_vae.straight_through = lambda output, code: code
        try:
            yield from super().training_step(x, z, noise)
        finally:
            genbench_vq_vae.straight_through = kept


def reaches_the_encoder(make: type[VQVAE]) -> bool:
    """Whether the gradient at the encoder's output is that of the reconstruction at the quantized code."""
    model = build(make, Normal(4), commitment=0.0, entries=8)
    x, z = batch(model)
    code = by_hand(model, output(model, x)).requires_grad_()
    (model.decode(code) - x).square().sum((1, 2, 3)).mean().backward()
    seen = []
    model.encoder.register_forward_hook(lambda module, inputs, given: given.register_hook(seen.append) and None)
    losses(model, x, z)["autoencoder"].value.backward()
    return bool(seen) and torch.allclose(seen[0], code.grad, atol=1e-6) and bool(code.grad.any())


def test_gradients_pass_straight_through() -> None:
    assert reaches_the_encoder(VQVAE)
    assert not reaches_the_encoder(Blocked)


def test_the_codebook_loss_moves_vectors_and_the_commitment_moves_the_encoder() -> None:
    model = build(VQVAE, Normal(4), commitment=0.0, entries=8)
    x, z = batch(model)
    losses(model, x, z)["autoencoder"].value.backward()
    used = output(model, x).reshape(-1, 2)
    vectors = model.codebook.vectors.detach()
    nearest = torch.cdist(used, vectors).argmin(1)
    expected = torch.zeros_like(vectors)
    for part, index in zip(used, nearest, strict=True):  # gradient of mean |sg[z_e] - z_q|^2
        expected[index] += 2.0 * (vectors[index] - part) / len(x)
    assert torch.allclose(model.codebook.vectors.grad, expected, atol=1e-5)


def test_moving_means_become_the_means_of_what_is_nearest() -> None:
    model = build(VQVAE, Normal(4), codebook="ema", entries=3, decay=0.5)
    x, z = batch(model)
    for _ in range(60):
        losses(model, x, z)
    parts = output(model, x).reshape(-1, 2)
    nearest = torch.cdist(parts, model.codebook.vectors).argmin(1)
    for index in nearest.unique():
        assert torch.allclose(model.codebook.vectors[index], parts[nearest == index].mean(0), atol=1e-3)
    assert not any(name.endswith("vectors") for name, _ in model.named_parameters())
    assert "codebook.vectors" in model.state_dict()


def test_vectors_that_no_output_is_nearest_to_stay_where_they_are() -> None:
    model = build(VQVAE, Normal(4), codebook="ema", entries=16, decay=0.5)
    x, z = batch(model)
    model.codebook.vectors[8:] += 100.0
    model.codebook.sums[8:] += 100.0
    far = model.codebook.vectors[8:].clone()
    for _ in range(200):  # to counts of 1e-60, which are 0 in float32
        losses(model, x, z)
    assert torch.allclose(model.codebook.vectors[8:], far, rtol=1e-4)
    assert model.codebook.vectors.isfinite().all()


def test_the_prior_is_fitted_by_counts_position_by_position() -> None:
    model = build(VQVAE, Normal(4), entries=4)
    x, z = batch(model)
    before = model.codebook.counts.clone()
    losses(model, x, z)
    _, indices = model.codebook.nearest(output(model, x))
    used = torch.stack([torch.bincount(column, minlength=4) / len(x) for column in indices.T])
    assert torch.allclose(model.codebook.counts, COUNT_DECAY * before + (1 - COUNT_DECAY) * used, atol=1e-6)


def test_draws_follow_the_counts_and_have_the_stated_moments() -> None:
    torch.manual_seed(0)
    book = Codebook(4, 2, 3)
    book.counts.copy_(torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]]))
    draws = book.sample(40_000, seeded(0)).detach()
    assert draws.shape == (40_000, 4)
    for place, parts in enumerate(draws.view(-1, 2, 2).transpose(0, 1)):
        share = [(parts == vector).all(1).double().mean() for vector in book.vectors.detach()]
        assert torch.allclose(torch.stack(share).float(), book.counts[place], atol=0.01)
    assert torch.allclose(draws.mean(0), book.mean, atol=0.02)
    assert torch.allclose(draws.var(0), book.variance, atol=0.03)
    assert not book.has_density
    variance = book.variance
    book.vectors.data += 1e4
    assert torch.allclose(book.variance, variance, atol=1e-2)


def test_samples_are_of_the_codes_that_occur() -> None:
    model = build(VQVAE, Normal(4), entries=8)
    x, z = batch(model, n=64)
    for _ in train(model, 300, x, z):
        pass
    _, indices = model.codebook.nearest(output(model, x))
    draws = model.prior.sample(2000, seeded(0)).detach()
    _, drawn = model.codebook.nearest(draws)
    assert torch.allclose(model.codebook.nearest(draws)[0], draws)
    for column in range(2):
        common = torch.isin(drawn[:, column], indices[:, column].unique()).double().mean()
        assert common > 0.9


def test_sizes_that_do_not_divide_are_refused_in_one_line() -> None:
    with pytest.raises(UnsupportedError, match=r"set vq-vae.size to 1 or 2 or 3 or 6") as refusal:
        build(VQVAE, Normal(6), size=4)
    assert "\n" not in str(refusal.value)
    assert build(VQVAE, Normal(3)).codebook.size == 1
    assert build(VQVAE, Normal(8)).codebook.counts.shape == (4, 512)
