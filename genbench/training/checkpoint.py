"""Training state in one safetensors file: model, optimizers, torch's random state, the step. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genbench.errors import DataError, StoreError, one_line
from genbench.utils.io import load_facts, load_tensors, save_tensors


def save_checkpoint(
    path: Path, model: nn.Module, optimizers: Mapping[str, Optimizer], key: str, step: int, seconds: float
) -> None:
    """Write the state from which a training resumes exactly."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    numbers: dict[str, Any] = {}
    for optimizer_name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                key_of_value = f"optimizer.{optimizer_name}.{index}.{name}"
                if isinstance(value, Tensor):
                    tensors[key_of_value] = value
                else:
                    numbers[key_of_value] = value
    tensors["random.cpu"] = torch.get_rng_state()  # for plug-ins that draw from torch's global state (dropout does)
    device = next(iter(model.parameters())).device
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    facts = {"key": key, "step": str(step), "seconds": repr(seconds), "numbers": json.dumps(numbers)}
    save_tensors(path, _distinct(tensors), facts)


def load_checkpoint(path: Path, model: nn.Module, optimizers: Mapping[str, Optimizer], key: str) -> tuple[int, float]:
    """Restore model, optimizers and random state in place; returns the steps and the seconds done.

    Raises `StoreError` for a file that is damaged or belongs to another run.
    """
    try:
        tensors, facts = load_tensors(path)
    except DataError as error:
        raise StoreError(f"{error}; move it away and repeat the command to train from the start") from None
    if facts.get("key") != key:
        raise StoreError(f"{path} belongs to another run ({facts.get('key')}, not {key}): move it away")
    load_weights(path, model, tensors)
    try:
        _restore(model, optimizers, tensors, json.loads(facts["numbers"]))
        return int(facts["step"]), float(facts["seconds"])
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise StoreError(
            f"{path} holds no checkpoint of this model ({type(error).__name__}: {one_line(error)}); move it away and"
            " repeat the command to train from the start"
        ) from None


def _restore(
    model: nn.Module, optimizers: Mapping[str, Optimizer], tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    """Restore optimizers and random states."""
    for optimizer_name, optimizer in optimizers.items():
        prefix = f"optimizer.{optimizer_name}."
        state: dict[int, dict[str, Any]] = {}
        for key, value in {**tensors, **numbers}.items():
            if key.startswith(prefix):
                index, name = key.removeprefix(prefix).split(".", 1)
                state.setdefault(int(index), {})[name] = value
        _lay_out_as_parameters(state, optimizer)
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["random.cpu"])
    device = next(iter(model.parameters())).device
    if device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], device)


def steps_done(path: Path) -> int:
    """The step of a checkpoint, read from its header alone; `StoreError` where it has none."""
    try:
        return int(load_facts(path)["step"])
    except (DataError, KeyError, ValueError) as error:
        raise StoreError(f"{path} is no checkpoint ({one_line(error)}): move it away") from None


def weights_shape(path: Path) -> tuple[int, int, int]:
    """The shape (c, h, w) of the images that a file's weights were trained on; `StoreError` where it has none."""
    try:
        c, h, w = (int(size) for size in load_tensors(path)[1]["shape"].split("x"))
    except (DataError, KeyError, ValueError) as error:
        raise StoreError(f"{path} are no trained weights ({one_line(error)}): move it away and train again") from None
    return c, h, w


def _lay_out_as_parameters(state: Mapping[int, dict[str, Any]], optimizer: Optimizer) -> None:
    """Give each optimizer state its parameter's strides, which fused optimizers need."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameters[index].shape:
                values[name] = torch.empty_like(parameters[index], dtype=value.dtype).copy_(value)


def save_weights(path: Path, model: nn.Module, facts: Mapping[str, str]) -> None:
    """Write a trained model's state without optimizers."""
    save_tensors(path, _distinct({f"model.{name}": value for name, value in model.state_dict().items()}), facts)


def restore_weights(path: Path, model: nn.Module, key: str) -> dict[str, str]:
    """Load the weights of a file by `save_weights` into the model; returns the file's facts.

    Raises `StoreError` for a file that is damaged or belongs to another run.
    """
    try:
        tensors, facts = load_tensors(path)
    except DataError as error:
        raise StoreError(f"{error}; move it away and repeat the command to train it again") from None
    if facts.get("key") != key:
        raise StoreError(f"{path} belongs to another run: move it away")
    load_weights(path, model, tensors)
    return facts


def load_weights(path: Path, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors called `model.*` into the model; raises `StoreError` where names or shapes do not fit."""
    state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise StoreError(f"{path} does not fit the model: {' '.join(str(error).split())}") from None


def _distinct(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share no storage, as tied weights do: safetensors refuses that."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
