"""Weights of feature networks from files: safetensors, or a state_dict by torch.save; nothing is unpickled."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from genbench.errors import DataError


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by their names, on the CPU, as they are stored.

    Args:
        path: A file in the format of safetensors, by its suffix, or else of `torch.save(network.state_dict(), path)`.

    Raises:
        DataError: The file is missing, damaged, or holds something else.

    Example:
        >>> read_weights(Path("nowhere.pth"))
        Traceback (most recent call last):
        genbench.errors.DataError: there is no file nowhere.pth
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on TorchScript, which is given below
            state = _read(path)
    except Exception as error:  # whatever a foreign file makes torch raise, the user has to know which file it was
        # torch's own advice is to unpickle the file, so its text is left out.
        reason = (
            "it is a TorchScript archive: write its weights to a file with"
            " torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), NEW_FILE) and give that"
            if "TorchScript" in str(error)
            else "it is damaged, or neither safetensors nor a state_dict that torch.load(weights_only=True) reads"
        )
        raise DataError(f"{path} cannot be read as weights: {reason}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path} cannot be read as weights: it holds no state_dict, the tensors of a network by name")
    return {str(name): tensor for name, tensor in state.items()}


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
