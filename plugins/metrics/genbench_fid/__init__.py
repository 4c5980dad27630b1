"""Distances between images in feature space: FID, its limit of infinitely many samples, its ladder, and KID."""

from __future__ import annotations

from collections.abc import Iterable

from genbench.api import ComponentSpec, Metric
from genbench.hookspecs import hookimpl
from genbench_fid.base import COUNT, FEATURES, LAYER, SPLIT, VALUES, WEIGHTS, FeatureMetric, References
from genbench_fid.frechet import FID, FIDInfinity
from genbench_fid.interpolation import FIDInterpolation
from genbench_fid.kid import KID
from genbench_fid.ladder import FIDLadder

__all__ = [
    "COUNT",
    "FEATURES",
    "FID",
    "KID",
    "LAYER",
    "SPLIT",
    "VALUES",
    "WEIGHTS",
    "FIDInfinity",
    "FIDInterpolation",
    "FIDLadder",
    "FeatureMetric",
    "References",
]


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """The Frechet distance in four forms, and the kernel distance."""
    yield ComponentSpec(
        name="fid",
        description="Frechet distance of features, samples against real",
        factory=FID,
        reference="arXiv:1706.08500",
    )
    yield ComponentSpec(
        name="fid-infinity",
        description="FID without its sample-size bias",
        factory=FIDInfinity,
        reference="arXiv:1911.07023",
    )
    yield ComponentSpec(
        name="fid-ladder",
        description="FID of reconstructions, fitted densities and the prior: why a model loses",
        factory=FIDLadder,
        reference="arXiv:1903.12436",
    )
    yield ComponentSpec(
        name="fid-interpolation",
        description="FID of images decoded between the codes of pairs of held-out images",
        factory=FIDInterpolation,
        reference="arXiv:1903.12436",
    )
    yield ComponentSpec(
        name="kid", description="Kernel distance of features, unbiased", factory=KID, reference="arXiv:1801.01401"
    )
