"""What codes tell of the labels: classifiers fitted to codes of training images, clusters of codes of held-out ones."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from genbench.api import DatasetInfo, Evaluation, Measurement, Option
from genbench.errors import MetricError
from genbench_representation.common import (
    LEAST,
    SEED,
    Integers,
    Reals,
    RepresentationMetric,
    array,
    binomial_error,
    groups,
    jackknife,
    permutations,
    standardized,
)

CHANCES = 5
"""Permutations of the codes behind the accuracy of chance."""

RELABELINGS = 100
"""Permutations of the labels behind the agreement of chance."""

STEPS = 1000
"""Steps within which the linear classifier must converge; some 30 are usual."""

STARTS = 5
"""Starts of k-means, of which the best counts."""

GROUPS = 20
"""Groups of held-out images of which the jackknife leaves out one at a time."""

N = Option("held-out images", low=LEAST)
TRAIN = Option("training images that the classifier is fitted to", low=LEAST)


@dataclass(frozen=True, kw_only=True)
class LabelMetric(RepresentationMetric):
    """Base of the metrics that need labels."""

    requirement: ClassVar[str] = "labels"

    def lacks(self, info: DatasetInfo) -> bool:
        """Whether there are no classes."""
        return not info.classes


@dataclass(frozen=True, kw_only=True)
class Probe(LabelMetric):
    """Accuracy on held-out images of a classifier fitted to standardized codes of training images.

    The standard error is binomial; chance is the accuracy of the same classifier where the codes are permuted among the
    training images, and among the held-out ones.
    """

    train: int

    method: ClassVar[str]
    label: ClassVar[str]

    @abstractmethod
    def predict(self, codes: Reals, labels: Integers, test: Reals) -> Integers:
        """The classes of test codes `(m, d) -> (m,)` by a classifier fitted to codes `(n, d)` and labels `(n,)`."""

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The accuracy."""
        classes, test_classes = e.training_labels(self.train).numpy(), e.labels(self.n).numpy()
        codes, test = standardized(array(e.training_codes(self.train), self.name), array(e.codes(self.n), self.name))
        if len(np.unique(classes)) < 2:
            raise MetricError(f"{self.name}: all training images have one label")
        accuracy = float((self.predict(codes, classes, test) == test_classes).mean())
        orders = zip(permutations(len(codes), CHANCES), permutations(len(test), CHANCES), strict=True)
        chances = [float((self.predict(codes[a], classes, test[b]) == test_classes).mean()) for a, b in orders]
        yield Measurement(
            value=accuracy,
            unit="share",
            higher_is_better=True,
            n=len(test),
            protocol=e.protocol(
                method=self.method,
                references=len(test),
                generated=0,
                values="draws of q(z | x), standardized",
                dtype="float64",
                detail=f"fitted to {len(codes)} training images; {self!r}",
            ),
            se=binomial_error(accuracy, len(test)),
            label=self.label,
            chance=float(np.mean(chances)),
            chance_sd=float(np.std(chances, ddof=1)),
        )


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Probe):
    """Multinomial logistic regression with the penalty |w|^2 / 2C, C = 1, as scikit-learn has it."""

    n: Annotated[int, N] = 10_000
    train: Annotated[int, TRAIN] = 10_000

    name: ClassVar[str] = "linear-probe"
    method: ClassVar[str] = "accuracy of multinomial logistic regression, C = 1"
    label: ClassVar[str] = "linear probe accuracy"

    def predict(self, codes: Reals, labels: Integers, test: Reals) -> Integers:
        """By L-BFGS, which must converge."""
        from sklearn.exceptions import ConvergenceWarning  # a second to import
        from sklearn.linear_model import LogisticRegression

        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                predicted: Integers = LogisticRegression(max_iter=STEPS).fit(codes, labels).predict(test)
            except ConvergenceWarning:
                raise MetricError(f"{self.name}: the classifier has not converged in {STEPS:,} steps") from None
        return predicted


@dataclass(frozen=True, kw_only=True)
class NeighborProbe(Probe):
    """The majority among the k nearest codes of training images."""

    n: Annotated[int, N] = 10_000
    train: Annotated[int, TRAIN] = 10_000
    k: Annotated[int, Option("neighbours", reference="ours", low=1, high=LEAST)] = 10

    name: ClassVar[str] = "knn-probe"
    method: ClassVar[str] = "accuracy of the majority of the nearest neighbours"
    label: ClassVar[str] = "kNN accuracy"

    def predict(self, codes: Reals, labels: Integers, test: Reals) -> Integers:
        """By Euclidean distance."""
        from sklearn.neighbors import KNeighborsClassifier

        predicted: Integers = KNeighborsClassifier(self.k).fit(codes, labels).predict(test)
        return predicted


@dataclass(frozen=True, kw_only=True)
class Clustering(LabelMetric):
    """Agreement with the labels of as many clusters of held-out codes as there are labels, by k-means.

    The adjusted Rand index is 0 on average for clusters that know nothing of the labels and 1 for equal ones; the
    normalized mutual information, over the mean of both entropies, has the chance that is stated. Standard errors are
    of a jackknife over groups of images, the clusters fixed.
    """

    n: Annotated[int, N] = 10_000

    name: ClassVar[str] = "clustering"

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """Two agreements."""
        from sklearn.cluster import KMeans
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

        labels, codes = e.labels(self.n).numpy(), array(e.codes(self.n), self.name)
        classes = len(np.unique(labels))
        if classes < 2:
            raise MetricError(f"{self.name}: all held-out images have one label")
        distinct = len(np.unique(codes, axis=0))
        if distinct < classes:
            raise MetricError(f"{self.name}: {distinct} distinct codes make no {classes} clusters")
        codes, _ = standardized(codes, codes)
        clusters = KMeans(classes, n_init=STARTS, random_state=SEED).fit_predict(codes)
        protocol = e.protocol(
            method=f"k-means, {classes} clusters, the best of {STARTS} starts, against the labels",
            references=len(codes),
            generated=0,
            values="draws of q(z | x), standardized",
            dtype="float64",
        )
        for component, agreement, unit, label in (
            ("ari", adjusted_rand_score, "adjusted Rand index", "clusters, ARI"),
            ("nmi", normalized_mutual_info_score, "share of the entropy", "clusters, NMI"),
        ):
            chances = [agreement(labels[order], clusters) for order in permutations(len(codes), RELABELINGS)]
            parts = np.array([agreement(labels[rest], clusters[rest]) for rest in groups(len(codes), GROUPS)])
            yield Measurement(
                value=float(agreement(labels, clusters)),
                unit=unit,
                higher_is_better=True,
                n=len(codes),
                protocol=protocol,
                component=component,
                se=float(jackknife(parts)),
                label=label,
                chance=float(np.mean(chances)),
                chance_sd=float(np.std(chances, ddof=1)),
            )
