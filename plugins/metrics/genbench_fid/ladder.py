"""The FID ladder: from real images over reconstructions and fitted densities to the prior, by one set of references."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated

import torch
from torch import Generator, Tensor

from genbench.api import DataConfig, DatasetInfo, Evaluation, Measurement, Option, Prior
from genbench.data.images import to_uint8
from genbench.errors import UsageError
from genbench.features import FeatureLayer
from genbench_fid.base import COUNT, FEATURES, LAYER, WEIGHTS, FeatureMetric
from genbench_fid.frechet import UNIT, caution, distance, standard_error
from genbench_samplers import MixtureSampler

LEAST = 100
"""Codes to which the densities are fitted."""


class FIDLadder(FeatureMetric):
    """FID of images decoded with ever less knowledge of the held-out images, each against the same references.

    `real`: training images, the floor. `reconstructions`: of the held-out images themselves. `mixture` and `gaussian`:
    samples decoded from a 10-component full-covariance mixture and from one Gaussian, both fitted to the codes of
    training images (arXiv:1903.12436, section 5). `prior`: samples, the FID itself. The step from the floor to the
    reconstructions is the decoder's; the one from the mixture to the prior is the latent mismatch.
    """

    name = "fid-ladder"
    method = "Frechet distance of Gaussians fitted to features"
    uses_samples = False  # one of its rungs is the prior itself

    def __init__(
        self,
        *,
        features: Annotated[str, FEATURES] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        count: Annotated[int, COUNT] = 0,
        codes: Annotated[int, Option("training images whose codes are fitted", low=LEAST)] = 5_000,
        components: Annotated[int, Option("Gaussians in the mixture", reference="arXiv:1903.12436", low=1)] = 10,
    ) -> None:
        super().__init__(features, layer, weights, count, "test")
        self.codes, self.components = codes, components

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse more codes than there are training images, and the cases of `FeatureMetric`."""
        if self.codes > info.train:
            raise UsageError(
                f"fid-ladder fits the codes of {self.codes} training images and the dataset has {info.train}: "
                + (f"--set fid-ladder.codes={info.train}" if info.train >= LEAST else f"it needs {LEAST}")
            )
        if self.codes < (least := MixtureSampler(prior, components=self.components).least_codes):
            raise UsageError(
                f"fid-ladder fits {self.components} Gaussians to {self.codes} codes of {prior.latent_dim} coordinates"
                f" and needs {least:,}: --set fid-ladder.codes={least}, or fewer components"
            )
        super().validate(info, prior, data_config)

    def fit_to(self, info: DatasetInfo) -> Mapping[str, int]:
        """As many codes as there are training images."""
        return {"codes": info.train} if self.codes > info.train >= LEAST else {}

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """A number for each rung."""
        extractor = self.extractor(e.images.shape, e.data_config)
        real = self.reference_features(e, extractor)
        n = self.count or len(real)
        self.refuse_few(n, len(real))
        codes = e.training_codes(self.codes).double().cpu()
        mixture = MixtureSampler(e.prior, components=self.components)
        mixture.check_codes(codes)
        floor = self.training_features(e, extractor, n) if n <= len(e.images.train) else None
        if floor is not None:
            yield self.rung(e, extractor, real, floor, "real", "training images")
        rebuilt = self.extracted(extractor, to_uint8(e.reconstructions(0).clone()), "the reconstructions")
        detail = "reconstructions of the references, rounded"
        # No standard error: neither the references nor their reconstructions are draws of the run.
        yield replace(self.rung(e, extractor, real, rebuilt, "reconstructions", detail), se=None)
        mixture.fit(codes)
        for component, drawn in (
            ("mixture", mixture.draw(n, e.noise("fid-ladder/mixture"))),
            ("gaussian", gaussian_draws(codes, n, e.generator("fid-ladder/gaussian"))),
        ):
            generated = self.extracted(extractor, e.decode(drawn.float()), f"the samples of a {component}")
            number = f"{self.components} components, " if component == "mixture" else ""
            detail = f"samples of a {component} ({number}full covariance) fitted to {self.codes} training codes"
            yield self.rung(e, extractor, real, generated, component, detail)
        generated = self.sample_features(e, extractor, n)
        yield self.rung(e, extractor, real, generated, "prior", "samples of the prior")

    def rung(
        self, e: Evaluation, extractor: FeatureLayer, real: Tensor, generated: Tensor, component: str, detail: str
    ) -> Measurement:
        """The distance of one set of images from the references."""
        return Measurement(
            value=distance(real, generated),
            unit=UNIT,
            higher_is_better=None if component == "real" else False,
            n=len(generated),
            protocol=self.protocol(e, extractor, len(real), len(generated), detail),
            component=component,
            role="ladder",
            se=standard_error(real, generated),
            label=f"FID {component} ({extractor.label()})",
            caution=self.caution(extractor, caution(real, generated)),
        )


def gaussian_draws(codes: Tensor, n: int, draws: Generator) -> Tensor:
    """n draws of the Gaussian with the codes' mean and covariance, `(m, d) -> (n, d)` float64; it may be singular."""
    values, vectors = torch.linalg.eigh(torch.atleast_2d(torch.cov(codes.T)))
    noise = torch.randn(n, codes.shape[1], generator=draws, dtype=codes.dtype)
    drawn: Tensor = codes.mean(0) + (noise * values.clamp(min=0.0).sqrt()) @ vectors.T
    return drawn
