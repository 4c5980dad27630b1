"""The unbiased MMD: references, theorems, and the errors found in public implementations.

An error is planted as a small faulty function; the theorem that ours satisfies must fail for it.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from genbench.distances import (
    WAE_SCALES,
    Kernel,
    imq_kernel,
    mmd,
    rbf_kernel,
    squared_distances,
)
from genbench.distances.mmd import fits_at_once
from genbench.errors import UsageError


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=dtype)


def test_squared_distances_equal_the_definition() -> None:
    x, y = normal(30, 4, 1), normal(20, 4, 2)
    assert torch.allclose(squared_distances(x, y), (x[:, None] - y[None]).square().sum(2))


def test_squared_distances_survive_a_far_origin() -> None:
    x, y = normal(30, 4, 1, dtype=torch.float32), normal(20, 4, 2, dtype=torch.float32)
    moved = squared_distances(x + 1000.0, y + 1000.0)
    assert torch.allclose(moved, ((x + 1000.0)[:, None] - (y + 1000.0)[None]).square().sum(2), rtol=1e-4, atol=1e-5)
    assert float(squared_distances(x, x).min()) >= 0.0


@pytest.mark.parametrize("kernel", [imq_kernel, rbf_kernel])
def test_kernels_are_summed_over_the_scales(kernel: Callable[..., Tensor]) -> None:
    r2 = torch.tensor([0.0, 1.0, 7.0], dtype=torch.float64)
    formula = {
        imq_kernel: lambda s: s * 3.0 / (s * 3.0 + r2),
        rbf_kernel: lambda s: torch.exp(-r2 / (s * 3.0)),
    }[kernel]
    assert torch.allclose(kernel(r2, 3.0), sum(formula(s) for s in WAE_SCALES))
    assert float(kernel(r2, 3.0)[0]) == len(WAE_SCALES)


Estimator = Callable[[Tensor, Tensor], Tensor]


def with_diagonal(x: Tensor, y: Tensor) -> Tensor:
    k = [imq_kernel(squared_distances(u, v), 4.0) for u, v in ((x, x), (y, y), (x, y))]
    return k[0].mean() + k[1].mean() - 2 * k[2].mean()


def cross_without_diagonal(x: Tensor, y: Tensor) -> Tensor:
    """The diagonal of the cross term left out of the sum while the count is that of all pairs."""
    cross = imq_kernel(squared_distances(x, y), 4.0)
    n = len(x)
    return mmd(x, y, scale=4.0) + 2 * cross.mean() - 2 * (cross.sum() - cross.trace()) / n**2


def unbiased(estimator: Estimator, n: int) -> bool:
    """Whether the mean under equality is zero within four standard errors, for batches of n in the plane."""
    draws = torch.randn(800, 2, n, 2, generator=seeded(), dtype=torch.float64)
    values = torch.stack([estimator(x, y) for x, y in draws])
    return abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(len(values))


@pytest.mark.parametrize("n", [4, 16])
@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_has_mean_zero_under_equality(n: int, kernel: Kernel) -> None:
    assert unbiased(lambda x, y: mmd(x, y, kernel=kernel, scale=4.0), n)


@pytest.mark.parametrize("faulty", [with_diagonal, cross_without_diagonal])
def test_a_misplaced_diagonal_biases_the_mean(faulty: Estimator) -> None:
    assert not unbiased(faulty, 4)
    assert not unbiased(faulty, 16)


def test_mmd_does_not_depend_on_the_batch_size() -> None:
    """The mean over small batches is the value of the whole, for shifted samples: one estimate of one number."""
    expected = []
    for n in (4, 16, 64):
        draws = torch.randn(6400 // n, 2, n, 2, generator=seeded(n), dtype=torch.float64)
        values = torch.stack([mmd(x, y + 1.0, scale=4.0) for x, y in draws])
        expected.append((float(values.mean()), float(values.std()) / math.sqrt(len(values))))
    for mean, error in expected:
        assert abs(mean - expected[-1][0]) < 4 * math.hypot(error, expected[-1][1])


def test_mmd_equals_the_double_loop() -> None:
    x, y, c = normal(7, 3, 1), normal(5, 3, 2) + 1, 6.0

    def k(u: Tensor, v: Tensor) -> float:
        return sum(s * c / (s * c + float((u - v).square().sum())) for s in WAE_SCALES)

    within_x = sum(k(x[i], x[j]) for i in range(7) for j in range(7) if i != j) / (7 * 6)
    within_y = sum(k(y[i], y[j]) for i in range(5) for j in range(5) if i != j) / (5 * 4)
    cross = sum(k(u, v) for u in x for v in y) * 2 / (7 * 5)
    assert float(mmd(x, y, scale=c)) == pytest.approx(within_x + within_y - cross, rel=1e-9)


def test_mmd_of_normals_is_the_closed_form() -> None:
    """E exp(-|u|^2 / a) for u ~ N(m, v I) is (1 + 2 v / a)^(-d/2) exp(-|m|^2 / (a + 2 v))."""
    d, a, shift = 3, 6.0, 0.8
    values = [
        mmd(normal(400, d, i), normal(400, d, 1000 + i) + shift, kernel="rbf", scale=a, scales=(1,)) for i in range(40)
    ]
    moment = (1 + 4 / a) ** (-d / 2)
    expected = 2 * moment * (1 - math.exp(-d * shift**2 / (a + 4)))
    error = float(torch.stack(values).std()) / math.sqrt(40)
    assert abs(float(torch.stack(values).mean()) - expected) < 4 * error


def test_mmd_in_blocks_equals_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(50, 3, 1), normal(41, 3, 2)
    whole = float(mmd(x, y, scale=6.0))
    monkeypatch.setattr(importlib.import_module("genbench.distances.mmd"), "BLOCK", 7)
    assert float(mmd(x, y, scale=6.0)) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_all_pairs_and_scales_at_once_equal_blocks_of_one_scale(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does, on the CPU: values, gradients, gradients of gradients, and all of them under vmap."""
    x, y = normal(9, 3, 1).requires_grad_(), normal(7, 3, 2).requires_grad_()

    def distance(u: Tensor, v: Tensor) -> Tensor:
        return mmd(u, v, kernel=kernel, scale=6.0)

    gradient = torch.func.grad(distance, argnums=(0, 1))
    samples = torch.stack([x, x + 1.0]).detach(), torch.stack([y, 2.0 * y]).detach()
    expected = distance(x, y), *gradient(x, y), *torch.vmap(gradient)(*samples)
    monkeypatch.setattr(importlib.import_module("genbench.distances.mmd"), "fits_at_once", lambda count, device: True)
    actual = distance(x, y), *gradient(x, y), *torch.vmap(gradient)(*samples)
    for before, after in zip(expected, actual, strict=True):
        assert torch.allclose(before, after, rtol=1e-12, atol=1e-15)
    assert torch.autograd.gradgradcheck(distance, (x, y))


def test_they_are_formed_at_once_on_a_gpu_as_far_as_they_are_small() -> None:
    gpu, scales = torch.device("cuda"), len(WAE_SCALES)
    assert fits_at_once((128 + 128) ** 2 * scales, gpu)
    assert fits_at_once((500 + 500) ** 2 * scales, gpu)
    assert not fits_at_once(2000 * 2000 * scales, gpu)
    assert not fits_at_once(4, torch.device("cpu"))


@pytest.mark.parametrize("d", [2, 64])
def test_the_kernel_at_the_prior_s_scale_has_a_gradient(d: int) -> None:
    """At C = 2 d codes shifted by 1 are drawn back; a kernel far wider is constant on them and draws nothing."""

    def draws_back(scale: float) -> bool:
        x = (normal(100, d, 1) + 1.0).requires_grad_()
        mmd(x, normal(100, d, 2), scale=scale).backward()
        assert x.grad is not None
        return float(x.grad.sum(0).mean()) > 0.01 / d

    assert draws_back(2.0 * d)
    assert not draws_back(2.0 * d * 1e4)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_gradient(kernel: Kernel) -> None:
    x, y = normal(6, 3, 1).requires_grad_(), normal(5, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda u, v: mmd(u, v, kernel=kernel, scale=6.0), (x, y))
    assert torch.autograd.gradgradcheck(lambda u, v: mmd(u, v, kernel=kernel, scale=6.0), (x, y))  # penalties of it


def test_mmd_gradient_is_finite_for_constant_codes() -> None:
    x = torch.zeros(8, 3, requires_grad=True)
    mmd(x, torch.zeros(8, 3), scale=6.0).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_mmd_refuses_what_has_no_estimate() -> None:
    with pytest.raises(UsageError, match="two of each"):
        mmd(torch.zeros(1, 2), torch.zeros(5, 2), scale=1.0)
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="positive and finite"):
            mmd(torch.zeros(4, 2), torch.zeros(5, 2), scale=scale)
