"""Features of images through torch-fidelity's extractors, on device tensors and without its DataLoader.

Any extractor registered with `torch_fidelity.register_feature_extractor` can be named; "inception" is short for
torch-fidelity's own "inception-v3-compat", whose values are those of the original FID (arXiv:1706.08500).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch_fidelity
from torch import Tensor
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from genbench.api import DataConfig
from genbench.errors import DataError, MetricError, UsageError, unknown
from genbench.features.inception import CPU_BATCH, FoldedInception
from genbench.features.inception import NAME as INCEPTION
from genbench.utils.io import hash_file, hash_tensors

SHORT = {"inception": INCEPTION}
STANDARD = {"inception": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"}
"""The SHA-256 of the standard weights, whose beginning is in the published file's name; any other file is custom."""
RESIZE = {"inception": "to 299x299, bilinear without antialiasing, as TensorFlow 1 did"}
"""What torch-fidelity's extractor does to images; others say it in a class attribute of this name."""
PUBLISHED_FILE = "weights-inception-2015-12-05-6726825d.pth"
BATCH = 100


@dataclass(frozen=True)
class Extractor:
    """A named extractor, one of its layers, and the file of its weights ("" where it ships its own)."""

    name: str
    layer: str
    weights: str = ""

    @property
    def registered(self) -> str:
        """The name under which torch-fidelity knows it."""
        return SHORT.get(self.name, self.name)

    @property
    def head(self) -> str:
        """The name for a column head: with the layer where it is not the default one."""
        usual = FEATURE_EXTRACTORS_REGISTRY[self.registered].get_default_feature_layer_for_metric("fid")
        return self.name if self.layer == usual else f"{self.name} layer {self.layer}"

    @property
    def resize(self) -> str:
        """What it does to an image that has not its size."""
        made = FEATURE_EXTRACTORS_REGISTRY[self.registered]
        return RESIZE.get(self.name) or str(getattr(made, "RESIZE", "as the extractor does"))

    @property
    def weights_label(self) -> str:
        """What the weights are: the start of the file's hash, and whether it is the standard file."""
        if not self.weights:
            return f"shipped {_state_hash(self)[:12]}"
        digest = _hash(self.weights, Path(self.weights).stat().st_mtime_ns)
        kind = "standard" if digest == STANDARD.get(self.name) else "custom"
        return f"{kind} {digest[:12]}"


def choose(name: str, layer: str, weights: str, place: DataConfig) -> Extractor:
    """The extractor of three options, "" meaning the default; raises in one line where it cannot be had."""
    possible = [*SHORT, *FEATURE_EXTRACTORS_REGISTRY]
    if SHORT.get(name, name) not in FEATURE_EXTRACTORS_REGISTRY:
        raise unknown("feature extractor", name, possible)
    made = FEATURE_EXTRACTORS_REGISTRY[SHORT.get(name, name)]
    layers = made.get_provided_features_list()
    if layer and layer not in layers:
        raise unknown(f"layer of the extractor '{name}' called", layer, layers)
    layer = layer or made.get_default_feature_layer_for_metric("fid")
    if name in SHORT:
        weights = str(_find_weights(name, weights, place))
    elif weights:
        raise UsageError(f"the extractor '{name}' brings its own weights; weights={weights} fits inception only")
    return Extractor(name, layer, weights)


def _find_weights(name: str, given: str, place: DataConfig) -> Path:
    if given:
        if not Path(given).is_file():
            raise DataError(f"{name} weights: there is no file {given}")
        return Path(given)
    usual = Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED_FILE
    if usual.is_file():
        return usual
    if place.download:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        usual.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(usual), STANDARD[name], progress=False)
        except (OSError, RuntimeError) as error:
            raise DataError(f"{name} weights could not be downloaded: {error}") from None
        return usual
    raise DataError(
        f"{name} weights are missing: not in {usual.parent}; give a file with --set fid.weights=FILE (kid alike),"
        f" allow --download, choose another extractor with --set fid.features=..., or leave fid out of --metrics"
    )


@lru_cache(maxsize=16)
def probe(extractor: Extractor, channels: int, height: int, width: int) -> int:
    """The count of features; raises now, before any training, if such images have no finite ones."""
    noise = torch.randint(0, 256, (2, channels, height, width), generator=torch.Generator().manual_seed(0))
    features = extract(extractor, noise.to(torch.uint8))
    if not features.isfinite().all():
        raise DataError(f"{extractor.weights or extractor.name} has no finite layer {extractor.layer}: choose another")
    return features.shape[1]


@torch.no_grad()
def extract(extractor: Extractor, images: Tensor) -> Tensor:
    """Features, `(n, c, h, w)` uint8 on any device -> `(n, f)` float32 on it; grey is repeated to three channels."""
    if images.dtype != torch.uint8:
        raise MetricError(f"features are taken of uint8 images, not {images.dtype}: round them first")
    made = _make(extractor, str(images.device))
    batch = CPU_BATCH if extractor.registered == INCEPTION and images.device.type == "cpu" else BATCH
    with torch.backends.cudnn.flags(allow_tf32=False):  # TF32 moves an FID by 1e-3; the protocol says float32
        blocks = [made(block.expand(-1, 3, -1, -1))[0].float() for block in images.split(batch)]
    return torch.cat(blocks)


def finite(features: Tensor, what: str) -> Tensor:
    """The features, or a `MetricError` that says whose are not finite."""
    if not features.isfinite().all():
        raise MetricError(f"the features of {what} are not finite")
    return features


@lru_cache(maxsize=4)
def _make(extractor: Extractor, device: str) -> torch.nn.Module:
    options = {"feature_extractor_weights_path": extractor.weights} if extractor.weights else {}
    try:
        with _no_pickle():
            made: torch.nn.Module = torch_fidelity.utils.create_feature_extractor(
                extractor.registered, [extractor.layer], cuda=False, verbose=False, **options
            )
    except Exception as error:  # whatever a foreign file makes torch raise, the user has to hear which file it was
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{extractor.weights or extractor.name} cannot be read as weights: {reason}") from None
    if extractor.registered == INCEPTION:
        made = FoldedInception(made, extractor.layer)
    return made.to(device).to(memory_format=torch.channels_last).eval()  # on a CPU 1.5 times the images per second


@contextlib.contextmanager
def _no_pickle() -> Iterator[None]:
    """torch-fidelity asks torch.load to unpickle anything; torch's own switch forbids it for the time being."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@lru_cache(maxsize=16)
def _state_hash(extractor: Extractor) -> str:
    """A hash of weights that come with an extractor's code and not as a file of ours."""
    return hash_tensors(_make(extractor, "cpu").state_dict())


@lru_cache(maxsize=16)
def _hash(path: str, modified: int) -> str:
    return hash_file(Path(path))
