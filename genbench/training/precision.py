"""The precision of a training's arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from genbench.api import Model
from genbench.errors import UnsupportedError, UsageError
from genbench.experiment.run import PRECISIONS, Precision


def check_precision(precision: str, device: torch.device) -> None:
    """Raise `UsageError` for an unknown precision, or one that this device does not have."""
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: possible are {', '.join(PRECISIONS)}")
    if precision == "tf32" and device.type != "cuda":
        raise UsageError(f"--precision tf32: only a CUDA device has it, not {device}; take float32 or bfloat16")


@contextmanager
def computing(model: Model, precision: Precision, device: torch.device) -> Iterator[None]:
    """Let the model compute with this precision inside.

    bfloat16 applies to the model's direct submodules (encoder, decoder, critic), each under a separate autocast that
    ends where it returns: results come back in float32; losses, distances, priors and weights are in float32.
    Evaluation happens outside. Raises `UnsupportedError` where a model has no submodules.
    """
    check_precision(precision, device)
    with using_tf32(precision == "tf32", device):
        wrapped = list(_networks(model)) if precision == "bfloat16" else []
        if precision == "bfloat16" and not wrapped:
            raise UnsupportedError(
                f"--precision bfloat16: {type(model).__name__} has no networks as submodules; take float32"
            )
        for network in wrapped:
            network.forward = _in_bfloat16(network.forward, device.type)
        try:
            yield
        finally:
            for network in wrapped:
                del network.forward  # uncovers the method of the class


def _networks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost submodules that can be called: a ModuleList or ModuleDict cannot."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _networks(child)
        else:
            yield child


def _in_bfloat16(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    def in_bfloat16(*inputs: Any, **named: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return _in_float32(forward(*inputs, **named))

    return in_bfloat16


def _in_float32(result: Any) -> Any:
    """The result with every bfloat16 tensor in float32."""
    if isinstance(result, Tensor):
        return result.float() if result.dtype == torch.bfloat16 else result
    if isinstance(result, tuple | list):
        return type(result)(_in_float32(member) for member in result)
    return result


@contextmanager
def using_tf32(enabled: bool, device: torch.device) -> Iterator[None]:
    """Switch TF32 for products and convolutions; torch's default uses it in convolutions."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = enabled
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
