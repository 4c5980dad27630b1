"""Random state derived from a seed and a purpose, so that a resumed run equals an uninterrupted one.

Models of the same seed see the same data order, prior draws and evaluation noise: none of these depends on the model.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Generator


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2^63) for a purpose: ("prior", step), ("order", epoch), ... of a run's seed."""
    text = "/".join(str(item) for item in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(device: torch.device | str, seed: int, *purpose: str | int) -> Generator:
    """A generator on a device, in the state that seed and purpose determine."""
    derived = Generator(device=device)
    derived.manual_seed(derive_seed(seed, *purpose))
    return derived
