"""Tensors in safetensors files with a checksum, and hashes of files and tensors: for caches of datasets and metrics."""

from __future__ import annotations

from genbench.utils.io import hash_file, hash_tensors, load_tensors, save_tensors

__all__ = ["hash_file", "hash_tensors", "load_tensors", "save_tensors"]
