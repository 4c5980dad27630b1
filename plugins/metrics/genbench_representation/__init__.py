"""Codes as representations: what can be read from them of the labels, and of the factors that images were made from."""

from __future__ import annotations

from collections.abc import Iterable

from genbench.api import ComponentSpec, Metric
from genbench.hookspecs import hookimpl
from genbench_representation.factors import DCI, MIG, SAP
from genbench_representation.labels import Clustering, LinearProbe, NeighborProbe


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """Three metrics of labels, three of factors."""
    yield ComponentSpec(
        name="linear-probe",
        aliases=("probe", "linear-classifier", "logistic-regression"),
        description="Accuracy of a linear classifier of codes",
        factory=LinearProbe,
        reference="scikit-learn",
    )
    yield ComponentSpec(
        name="knn-probe",
        aliases=("knn", "nearest-neighbors", "nearest-neighbours"),
        description="Accuracy of nearest neighbours of codes",
        factory=NeighborProbe,
        reference="scikit-learn",
    )
    yield ComponentSpec(
        name="clustering",
        aliases=("ari", "nmi", "k-means", "kmeans"),
        description="Agreement of clusters of codes with the labels",
        factory=Clustering,
        reference="scikit-learn",
    )
    yield ComponentSpec(
        name="mig",
        aliases=("mutual-information-gap",),
        description="Mutual information gap of codes, of known factors",
        factory=MIG,
        reference="arXiv:1802.04942",
    )
    yield ComponentSpec(
        name="dci",
        aliases=("disentanglement", "completeness", "informativeness"),
        description="Disentanglement, completeness and informativeness of codes, of known factors",
        factory=DCI,
        reference="Eastwood and Williams, ICLR 2018",
    )
    yield ComponentSpec(
        name="sap",
        aliases=("separated-attribute-predictability",),
        description="Separated attribute predictability of codes, of known factors",
        factory=SAP,
        reference="arXiv:1711.00848",
    )
