"""The precision of a training's arithmetic: part of the run, and never changed in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from genbench.api import Model
from genbench.errors import UnsupportedError, UsageError

Precision = Literal["float32", "tf32", "bfloat16"]
"""float32 throughout; products of float32 with 10 bits of mantissa, on a GPU alone; networks in bfloat16."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def check_precision(precision: str, device: torch.device) -> None:
    """Raise `UsageError` for one that there is not, or not on this device."""
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: possible are {', '.join(PRECISIONS)}")
    if precision == "tf32" and device.type != "cuda":
        raise UsageError(f"--precision tf32: only a CUDA device has it, not {device}; take float32 or bfloat16")


@contextmanager
def computing(model: Model, precision: Precision, device: torch.device) -> Iterator[None]:
    """The model computes with this precision within.

    bfloat16 holds inside the model's direct submodules (encoder, decoder, critic), each under an autocast of its own
    that ends where it returns: their results come back in float32, and losses, distances, priors and weights are in
    float32. Measurements are taken outside of this. `UnsupportedError` where a model has no submodules.
    """
    check_precision(precision, device)
    with _products(precision == "tf32", device):
        wrapped = list(_networks(model)) if precision == "bfloat16" else []
        if precision == "bfloat16" and not wrapped:
            raise UnsupportedError(
                f"--precision bfloat16: {type(model).__name__} has no networks as submodules; take float32"
            )
        for network in wrapped:
            network.forward = _lowered(network.forward, device.type)
        try:
            yield
        finally:
            for network in wrapped:
                del network.forward  # the class's own shows again


def _networks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules below that can be called: a ModuleList or ModuleDict cannot."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _networks(child)
        else:
            yield child


def _lowered(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    def lowered(*inputs: Any, **named: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return _in_float32(forward(*inputs, **named))

    return lowered


def _in_float32(result: Any) -> Any:
    """The same with every tensor of bfloat16 in float32."""
    if isinstance(result, Tensor):
        return result.float() if result.dtype == torch.bfloat16 else result
    if isinstance(result, tuple | list):
        return type(result)(_in_float32(member) for member in result)
    return result


@contextmanager
def _products(tf32: bool, device: torch.device) -> Iterator[None]:
    """TF32 in products and convolutions or not: torch would use it in convolutions unasked."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
