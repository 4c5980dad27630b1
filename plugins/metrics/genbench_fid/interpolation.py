"""FID of images decoded between the codes of pairs of held-out images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from torch import Tensor

from genbench.api import Evaluation, Measurement, Option
from genbench.errors import MetricError
from genbench_fid.base import COUNT, FEATURES, LAYER, WEIGHTS, FeatureMetric
from genbench_fid.frechet import UNIT, caution, distance, standard_error

Path = Literal["spherical", "linear"]

PATH = Option("between two codes: an arc around the origin, or a straight line", reference="arXiv:1903.12436")


class FIDInterpolation(FeatureMetric):
    r"""FID of the decoded midpoints of pairs of codes against the held-out images (arXiv:1903.12436, table 1).

    The codes of as many random pairs of different held-out images as there are samples are interpolated, and the point
    that is furthest from both ends is decoded. Spherical, for an angle :math:`\theta` between codes a and b, it is
    :math:`\frac{\sin(\theta / 2)}{\sin \theta} (a + b)`; where the sine is 0, as of codes on a line through the origin,
    it is (a + b) / 2, as in the authors' code. The codes of a random encoder are draws; the authors take their means.
    """

    name = "fid-interpolation"
    method = "Frechet distance of Gaussians fitted to features"
    uses_samples = False

    def __init__(
        self,
        *,
        features: Annotated[str, FEATURES] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        count: Annotated[int, COUNT] = 0,
        path: Annotated[Path, PATH] = "spherical",
    ) -> None:
        super().__init__(features, layer, weights, count, "test")
        self.path = path

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """One number."""
        extractor = self.extractor(e.images.shape, e.data_config)
        real = self.reference_features(e, extractor)
        n = self.count or len(real)
        self.refuse_few(n, len(real))
        codes = e.codes(0).cpu()
        if wrong := int((~codes.isfinite()).any(1).sum()):
            raise MetricError(f"fid-interpolation: {wrong:,} of {len(codes):,} codes are NaN or infinite")
        noise = e.noise("fid-interpolation")
        first, offset = noise.integers(len(codes), n), noise.integers(len(codes) - 1, n)
        second = (first + 1 + offset) % len(codes)
        between = midpoints(codes[first].double(), codes[second].double(), self.path).float()
        features = self.extracted(extractor, e.decode(between), "the interpolations")
        yield Measurement(
            value=distance(real, features),
            unit=UNIT,
            higher_is_better=False,
            n=n,
            protocol=self.protocol(e, extractor, len(real), n, f"{self.path} midpoints of pairs of held-out codes"),
            se=standard_error(real, features),
            label=f"FID interpolation ({extractor.label()})",
            caution=caution(real, features),
        )


def midpoints(a: Tensor, b: Tensor, path: Path) -> Tensor:
    """The points halfway between codes, `(n, d), (n, d) -> (n, d)`."""
    if path == "linear":
        return (a + b) / 2.0
    lengths = a.norm(dim=1) * b.norm(dim=1)
    cosine = ((a * b).sum(1) / lengths.clamp(min=torch.finfo(a.dtype).tiny)).clamp(-1.0, 1.0)
    angle = torch.where(lengths > 0.0, cosine.arccos(), 0.0)
    on_a_line = angle.sin() < 1e-6
    factor: Tensor = torch.where(on_a_line, 0.5, (angle / 2.0).sin() / angle.sin().clamp(min=1e-6))
    return factor[:, None] * (a + b)
