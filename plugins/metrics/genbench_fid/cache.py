"""Features of real images kept on disk, so that no later command extracts them again.

Features and not moments alone: KID, precision and recall need each image's, and one file serves all metrics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from genbench.api import DataConfig, ProgressEvent
from genbench.data.tensor_files import compute_once, hash_tensors, load_tensors, save_tensors
from genbench.errors import DataError
from genbench.features import FeatureLayer

SCHEMA = 2
"""Part of a file's identity: another way of extracting is another file."""

MOST_BYTES = 2 * 2**30
"""Limit of the folder; the files read longest ago are removed first. 50,000 images at 2,048 features are
0.4 GB, 10,000 at 128 are 5 MB."""


def kept(data_config: DataConfig, extractor: FeatureLayer, images: Tensor, make: Callable[[], Tensor]) -> Tensor:
    """The features `(n, f)` of images, on their device, from `data_config.cache/features`, or made and kept there.

    Found by the hash of the images' bytes, the extractor with its code, layer and weights, the kind of device and the
    version of torch, since these round differently. A damaged file is replaced and reported to `data_config.report`.
    """
    content = hash_tensors({"images": images})
    computed_by = (extractor.implementation, extractor.fingerprint, extractor.layer, extractor.weights_label)
    fields = (SCHEMA, *computed_by, images.device.type, torch.__version__, content)
    identity = " ".join(map(str, fields))
    path = data_config.cache / "features" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.safetensors"

    def read() -> Tensor | None:
        if not path.exists():
            return None
        try:
            tensors, facts = load_tensors(path)
            if facts == {"identity": identity} and len(tensors["features"]) == len(images):
                path.touch()
                return tensors["features"].to(images.device)
        except (DataError, KeyError, OSError):
            pass
        data_config.report(ProgressEvent(f"features anew, since {path} is damaged", 0, 0))
        path.unlink(missing_ok=True)
        return None

    def computed() -> Tensor:
        what = f"{extractor.name} features of {len(images):,} real images, extracted once and kept"
        data_config.report(ProgressEvent(what, 0, 0))
        features = make()
        save_tensors(path, {"features": features}, {"identity": identity})
        bound(path.parent, path)
        return features

    return compute_once(path, read, computed)


def bound(folder: Path, newest: Path) -> None:
    """Remove the files that were read longest ago until `MOST_BYTES` are left; never the newest."""
    sizes: dict[Path, tuple[float, int]] = {}
    for path in folder.glob("*.safetensors"):
        try:
            stat = path.stat()
        except FileNotFoundError:  # another process keeps the bound, too
            continue
        sizes[path] = (stat.st_mtime, stat.st_size)
    total = sum(size for _, size in sizes.values())
    for path in sorted(sizes, key=lambda path: sizes[path]):
        if total > MOST_BYTES and path != newest:
            path.unlink(missing_ok=True)
            total -= sizes[path][1]
