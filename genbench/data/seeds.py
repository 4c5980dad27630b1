"""Random state derived from a seed and a purpose, so that no draw depends on the order of others."""

from __future__ import annotations

from genbench.utils.rng import derive_seed, generator

__all__ = ["derive_seed", "generator"]
