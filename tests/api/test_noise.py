"""The noise draws what torch's functions draw from its generator, in the order of the calls."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from genbench.api import Noise


def seeded() -> Generator:
    return Generator().manual_seed(3)


def test_each_method_is_torchs_function_on_the_same_generator() -> None:
    noise, g = Noise(seeded()), seeded()
    assert torch.equal(noise.normal(5, 2), torch.randn(5, 2, generator=g))
    assert torch.equal(noise.uniform(7), torch.rand(7, generator=g))
    assert torch.equal(noise.permutation(9), torch.randperm(9, generator=g))
    assert torch.equal(noise.integers(4, 6), torch.randint(4, (6,), generator=g))
    assert torch.equal(noise.normal(3, dtype=torch.float64), torch.randn(3, generator=g, dtype=torch.float64))


def test_the_generator_is_the_one_that_was_given() -> None:
    g = seeded()
    assert Noise(g).generator is g


def test_the_default_dtype_does_not_change_the_draws() -> None:
    expected = Noise(seeded()).normal(4)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(Noise(seeded()).normal(4), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_draws_lie_on_the_generators_device() -> None:
    noise = Noise(Generator("cuda"))
    assert noise.device.type == noise.normal(2).device.type == noise.permutation(2).device.type == "cuda"
