"""Torch's process-wide state is restored, and a device that this machine lacks is refused."""

from __future__ import annotations

import pytest
import torch

from genbench.errors import UsageError
from genbench.utils.torch_state import isolated, pick_device, threads

CPU = torch.device("cpu")


def misbehave() -> None:
    torch.manual_seed(7)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    raise RuntimeError("a plug-in")


def test_isolation_restores_random_state_dtype_and_threads() -> None:
    with threads(2):
        random = torch.get_rng_state()
        with pytest.raises(RuntimeError, match="plug-in"), isolated(CPU):
            misbehave()
        assert torch.equal(torch.get_rng_state(), random)
        assert torch.get_default_dtype() == torch.float32
        assert torch.get_num_threads() == 2


def test_draws_inside_do_not_depend_on_draws_before() -> None:
    torch.manual_seed(0)
    with isolated(CPU):
        first = torch.rand(3)
    with isolated(CPU):
        assert torch.equal(torch.rand(3), first)


def test_the_device_of_an_option() -> None:
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type in ("cpu", "cuda")
    for name, reason in (("tpu", "possible are"), ("meta", "possible are"), ("cuda:99", "CUDA devices")):
        with pytest.raises(UsageError, match=reason):
            pick_device(name)
