"""The FID ladder: from real images over reconstructions and fitted densities to the prior, by one set of references."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from torch import Generator, Tensor

from genbench.api import DataConfig, DatasetInfo, Evaluation, Measurement, Option, Prior
from genbench.data.images import to_uint8
from genbench.errors import MetricError, UsageError, one_line
from genbench.features.extractor import Extractor
from genbench_fid.base import COUNT, FEATURES, LAYER, WEIGHTS, FeatureMetric
from genbench_fid.frechet import UNIT, distance, standard_error

FIT_SEED = 1903
"""Seed of the mixture's initialisation, the same for all runs."""

STEPS = 1000
"""Steps of expectation maximisation within which it must converge; some 50 are usual."""

RIDGE = 1e-6
"""Added to the variances of the mixture, as scikit-learn does; codes are of the order of 1."""


class FIDLadder(FeatureMetric):
    """FID of what a model decodes from ever less knowledge of the images, each against the same references.

    `real`: training images, the floor. `reconstructions`: of the held-out images themselves. `mixture` and `gaussian`:
    samples decoded from a 10-component full-covariance mixture and from one Gaussian, both fitted to the codes of
    training images (arXiv:1903.12436, section 5). `prior`: samples, the FID itself. The step from the floor to the
    reconstructions is the decoder's; the one from the mixture to the prior is the latent mismatch.
    """

    name = "fid-ladder"
    method = "Frechet distance of Gaussians fitted to features"

    def __init__(
        self,
        *,
        features: Annotated[str, FEATURES] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        count: Annotated[int, COUNT] = 0,
        codes: Annotated[int, Option("training images whose codes are fitted", low=100)] = 5_000,
        components: Annotated[int, Option("Gaussians in the mixture", reference="arXiv:1903.12436", low=1)] = 10,
    ) -> None:
        """See the annotations."""
        super().__init__(features, layer, weights, count, "test")
        self.codes, self.components = codes, components

    def check(self, summary: DatasetInfo, prior: Prior, place: DataConfig) -> None:
        """Refuse more codes than there are training images, and what any extractor refuses."""
        if self.codes > summary.train:
            raise UsageError(
                f"fid-ladder fits the codes of {self.codes} training images and the dataset has {summary.train}: "
                f"--set fid-ladder.codes={summary.train} or less"
            )
        super().check(summary, prior, place)

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """A number for each rung."""
        extractor = self.extractor(e.setting.shape, e.place)
        real = self.reference_features(e, extractor)
        n = self.count or len(real)
        self.refuse_few(n, len(real))
        codes = e.training_codes(self.codes).double().cpu()
        if not codes.isfinite().all():
            raise MetricError(f"fid-ladder: {int((~codes.isfinite()).any(1).sum())} codes are NaN or infinite")
        floor = self.training_features(e, extractor, n) if n <= len(e.images.train) else None
        if floor is not None:
            yield self.rung(e, extractor, real, floor, "real", "training images")
        rebuilt = self.extracted(extractor, to_uint8(e.reconstructions(0).clone()), "the reconstructions")
        detail = "reconstructions of the references, rounded"
        # No standard error: neither the references nor their reconstructions are draws of the run.
        yield replace(self.rung(e, extractor, real, rebuilt, "reconstructions", detail), se=None)
        for part, drawn in (
            ("mixture", mixture_draws(codes, n, self.components, e.generator("fid-ladder/mixture"))),
            ("gaussian", gaussian_draws(codes, n, e.generator("fid-ladder/gaussian"))),
        ):
            made = self.extracted(extractor, e.decode(drawn.float()), f"the samples of a {part}")
            number = f"{self.components} components, " if part == "mixture" else ""
            detail = f"samples of a {part} ({number}full covariance) fitted to {self.codes} training codes"
            yield self.rung(e, extractor, real, made, part, detail)
        made = self.sample_features(e, extractor, n)
        yield self.rung(e, extractor, real, made, "prior", "samples of the prior")

    def rung(
        self, e: Evaluation, extractor: Extractor, real: Tensor, made: Tensor, part: str, detail: str
    ) -> Measurement:
        """The distance of one set of images from the references."""
        return Measurement(
            distance(real, made),
            UNIT,
            "neither" if part == "real" else "lower",
            len(made),
            self.protocol(e, extractor, len(real), len(made), detail),
            part=part,
            se=standard_error(real, made),
            label=f"FID {part} ({extractor.head})",
        )


def gaussian_draws(codes: Tensor, n: int, draws: Generator) -> Tensor:
    """n draws of the Gaussian with the codes' mean and covariance, `(m, d) -> (n, d)` float64; it may be singular."""
    values, vectors = torch.linalg.eigh(torch.atleast_2d(torch.cov(codes.T)))
    noise = torch.randn(n, codes.shape[1], generator=draws, dtype=codes.dtype)
    found: Tensor = codes.mean(0) + (noise * values.clamp(min=0.0).sqrt()) @ vectors.T
    return found


def mixture_draws(codes: Tensor, n: int, components: int, draws: Generator) -> Tensor:
    """n draws of a mixture of full-covariance Gaussians fitted to codes, `(m, d) -> (n, d)` float64.

    The fit is scikit-learn's expectation maximisation from k-means. Codes of fewer distinct values than components
    get a component each.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning  # a second to import
    from sklearn.mixture import GaussianMixture

    count = min(components, len(torch.unique(codes, dim=0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an error below
        mixture = GaussianMixture(count, reg_covar=RIDGE, max_iter=STEPS, random_state=FIT_SEED)
        try:
            fitted = mixture.fit(codes.numpy())
        except ValueError as error:  # codes of 1e28, say
            raise MetricError(f"fid-ladder: no mixture fits the codes: {one_line(error, 120)}") from None
    if not fitted.converged_:
        raise MetricError(f"fid-ladder: the mixture of {count} Gaussians did not converge within {STEPS} steps")
    chosen = torch.multinomial(torch.from_numpy(fitted.weights_), n, replacement=True, generator=draws)
    roots = torch.from_numpy(np.linalg.cholesky(fitted.covariances_))
    noise = torch.randn(n, codes.shape[1], generator=draws, dtype=codes.dtype)
    found: Tensor = torch.from_numpy(fitted.means_)[chosen] + (roots[chosen] @ noise[:, :, None])[:, :, 0]
    return found
