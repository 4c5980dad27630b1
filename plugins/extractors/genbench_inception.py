"""The extractor `inception`: the Inception of FID (arXiv:1706.08500), as torch-fidelity has it, with less work.

Batch normalization is folded into the convolutions; images are resized along rows before they are repeated along
columns. Features differ from torch-fidelity's by rounding alone (a test asks for 1e-5 of their norm).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from genbench.api import ComponentSpec, DataConfig, Extractor, Option
from genbench.data.tensor_files import hash_file
from genbench.errors import DataError
from genbench.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

NAME = "inception-v3-compat"
"""torch-fidelity's name of the network whose values are those of the original FID."""

STANDARD = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""The SHA-256 of the standard weights, whose beginning is in the published file's name; any other file is custom."""

PUBLISHED_FILE = "weights-inception-2015-12-05-6726825d.pth"

SIZE = 299

PIECES = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)
"""torch-fidelity's modules in their order."""

LAST = {"64": "MaxPool_1", "192": "MaxPool_2", "768": "Mixed_6e"}
"""The piece whose mean over pixels a layer is; the other layers come after all of them."""


class Inception(Extractor):
    """The Inception network; its weights lie in torch's usual folder or in a file that is named."""

    layers = ("64", "192", "768", "2048", "logits_unbiased", "logits")
    default_layer = "2048"
    logits_layer = "logits_unbiased"
    implementation = NAME
    resize = "to 299x299, bilinear without antialiasing, as TensorFlow 1 did"
    cpu_batch = 4  # the largest activations of so few images stay near the processor (reports/speed)

    def __init__(
        self,
        data_config: DataConfig,
        *,
        weights: Annotated[str, Option("file in torch-fidelity's format; none: its usual place", file=True)] = "none",
    ) -> None:
        self.path = find_weights("" if weights == "none" else weights, data_config)
        self.sha256 = hash_file(self.path)  # 0.07 s; its time of modification would not tell another file for sure

    @property
    def weights_label(self) -> str:
        """Whether the file is the standard one, and the start of its hash."""
        digest = self.sha256
        return f"{'standard' if digest == STANDARD else 'custom'} {digest[:12]}"

    def network(self, layer: str) -> nn.Module:
        """The network up to a layer."""
        from torch_fidelity.utils import create_feature_extractor  # seconds to import

        try:
            with _no_pickle():
                made = create_feature_extractor(
                    NAME, [layer], cuda=False, verbose=False, feature_extractor_weights_path=str(self.path)
                )
        except Exception as error:  # whatever a foreign file makes torch raise, the user has to know which file it was
            # torch's own advice is to unpickle the file, so its text is left out.
            reason = (
                "they are of another network"
                if "state_dict" in str(error)
                else "it is damaged, or no state_dict that torch.load(weights_only=True) reads"
            )
            raise DataError(
                f"{self.path} cannot be read as weights of torch-fidelity's Inception: {reason}; give another file with"
                " --set METRIC.weights=FILE"
            ) from None
        return FoldedInception(made, layer)


def find_weights(given: str, data_config: DataConfig) -> Path:
    """The file of weights: the given one, or the published one in torch's folder, downloaded where that is allowed."""
    if given:
        path = Path(given).expanduser()
        if not path.is_file():
            raise DataError(f"inception weights: there is no file {given}")
        return path
    usual = Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED_FILE
    if usual.is_file():
        return usual
    if data_config.download:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        usual.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(usual), STANDARD, progress=False)
        except (OSError, RuntimeError) as error:
            raise DataError(f"inception weights could not be downloaded: {error}") from None
        return usual
    raise DataError(
        f"inception weights are missing: not in {usual.parent}; give a file with --set METRIC.weights=FILE, allow"
        " --download, choose another extractor with --set METRIC.features=..., or leave such"
        " metrics out of --metrics"
    )


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


class FoldedInception(nn.Module):
    """torch-fidelity's Inception up to one layer; it takes over the modules of the extractor that it is made of."""

    def __init__(self, made: FeatureExtractorInceptionV3, layer: str) -> None:
        """`layer` is one of `made.get_provided_features_list()`."""
        from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d

        super().__init__()
        end = PIECES.index(LAST.get(layer, PIECES[-1])) + 1
        self.pieces = nn.Sequential(*(getattr(made, name) for name in PIECES[:end]))
        for block in self.pieces.modules():
            if isinstance(block, BasicConv2d) and not isinstance(block.bn, nn.Identity):
                block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
        self.head = made.fc if layer.startswith("logits") else None
        self.biased = layer == "logits"

    def forward(self, images: Tensor) -> Tensor:
        """Features of images, `(n, 3, h, w)` uint8 -> `(n, f)` float32."""
        x = resized(images.float().contiguous(memory_format=torch.channels_last))
        features: Tensor = self.pieces(x.sub_(128).div_(128)).mean((2, 3))
        if self.head is not None:
            features = features @ self.head.weight.T
            features = features + self.head.bias if self.biased else features
        return features


def resized(x: Tensor) -> Tensor:
    """Bilinear to 299x299 as TensorFlow 1 did, `(n, c, h, w)` -> `(n, c, 299, 299)`, bit for bit torch-fidelity's.

    Pixel i of the result lies at i h / 299 of the original. torch-fidelity interpolates along a row anew for each of
    the result's rows that the row goes into; here once.
    """
    along = _positions(x.shape[3], x.device)
    low = x[:, :, :, along[0]]
    x = low + (x[:, :, :, along[1]] - low) * along[2]
    down = _positions(x.shape[2], x.device)
    low = x[:, :, down[0]]
    return low + (x[:, :, down[1]] - low) * down[2][:, None]


def _positions(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of the result the pixels before and after it, and its distance from the former in [0, 1)."""
    positions = torch.arange(SIZE, dtype=torch.float32, device=device) * torch.tensor(size / SIZE, dtype=torch.float32)
    low = positions.long()
    return low, (low + 1).clamp_max(size - 1), positions - low.float()


@hookimpl
def genbench_extractors() -> Iterable[ComponentSpec[Extractor]]:
    """The Inception of FID."""
    yield ComponentSpec(
        name="inception",
        description="the Inception network of FID, for photographs",
        factory=Inception,
        reference="arXiv:1706.08500",
    )
