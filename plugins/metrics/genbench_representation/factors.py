"""What codes tell of the factors that images were made from: one unit for each factor, and one factor for each unit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from genbench.api import DataConfig, DatasetInfo, Evaluation, Measurement, Option, Prior
from genbench.errors import MetricError, UnsupportedError
from genbench_representation.common import (
    LEAST,
    SEED,
    Integers,
    Reals,
    RepresentationMetric,
    array,
    groups,
    jackknife,
    permutations,
)

Factors = Mapping[str, NDArray[np.generic]]
"""Values of factors by name, `(n,)` each: integers of a discrete factor, floating point numbers of a continuous one."""

GROUPS = 5
"""Groups of images, training and held-out, of which the jackknife leaves out one at a time."""

CHANCES = 5
"""Permutations of the codes behind the value of chance."""

N = Option("held-out images", low=LEAST)
TRAIN = Option("training images that trees are fitted to", low=LEAST)


@dataclass(frozen=True)
class CodedSplit:
    """Codes `(n, d)` and the factors of their images."""

    codes: Reals
    factors: Factors

    def at(self, rows: Integers) -> CodedSplit:
        """Some of the images."""
        return CodedSplit(self.codes[rows], {name: values[rows] for name, values in self.factors.items()})

    def permuted(self, order: Integers) -> CodedSplit:
        """The same codes for other images."""
        return CodedSplit(self.codes[order], self.factors)


@dataclass(frozen=True)
class FactorComponent:
    """One number: its name and its column's head."""

    name: str
    label: str


@dataclass(frozen=True, kw_only=True)
class FactorMetric(RepresentationMetric):
    """Base of the metrics that need factors.

    Each number is 1 for codes with one unit for each factor and nothing else, which is stated as the floor; its chance
    is that of permuted codes. Its standard error is of a jackknife over groups of images, training and held-out.
    """

    requirement: ClassVar[str] = "images whose factors are known"
    method: ClassVar[str]
    components: ClassVar[tuple[FactorComponent, ...]]

    @abstractmethod
    def numbers(self, train: CodedSplit, test: CodedSplit) -> Reals:
        """The components' values; `train` is that of no image where the metric fits nothing."""

    def lacks(self, info: DatasetInfo) -> bool:
        """Whether no factor is known."""
        return not info.factors

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse codes of one unit, too: there is no other to compare it with."""
        super().validate(info, prior, data_config)
        if prior.latent_dim < 2:
            raise UnsupportedError(f"{self.name} compares units of the code, and the latent dimension is 1")

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The numbers."""
        test = self.split(e.factors(self.n), e.codes(self.n))
        train = test.at(np.arange(0))
        if self.training_count:
            train = self.split(e.training_factors(self.training_count), e.training_codes(self.training_count))
        values = self.numbers(train, test)
        train_parts, test_parts = groups(len(train.codes), GROUPS), groups(len(test.codes), GROUPS)
        parts = [self.numbers(train.at(a), test.at(b)) for a, b in zip(train_parts, test_parts, strict=True)]
        orders = permutations(len(test.codes), CHANCES)
        train_orders = permutations(len(train.codes), CHANCES)
        chances = [self.numbers(train.permuted(a), test.permuted(b)) for a, b in zip(train_orders, orders, strict=True)]
        errors, chance, spread = jackknife(np.array(parts)), np.mean(chances, 0), np.std(chances, 0, ddof=1)
        names = ", ".join(f"{name}{'' if is_discrete(x) else ' (continuous)'}" for name, x in test.factors.items())
        protocol = e.protocol(
            method=self.method,
            references=len(test.codes),
            generated=0,
            values="draws of q(z | x)",
            dtype="float64",
            detail=f"mean over {len(test.factors)} factors: {names}; {self!r}",
        )
        for i, component in enumerate(self.components):
            yield Measurement(
                value=float(values[i]),
                unit="share",
                higher_is_better=True,
                n=len(test.codes),
                protocol=protocol,
                component=component.name,
                floor=1.0,
                se=float(errors[i]),
                label=component.label,
                chance=float(chance[i]),
                chance_sd=float(spread[i]),
            )

    def split(self, factors: Mapping[str, Tensor], codes: Tensor) -> CodedSplit:
        """Codes and factors as arrays; `MetricError` where a factor does not vary."""
        values = {name: each.numpy() for name, each in factors.items()}
        constant = next((name for name, each in values.items() if (each == each[0]).all()), None)
        if constant is not None:
            raise MetricError(f"{self.name}: the factor {constant} is the same for all {len(codes):,} images")
        if codes.shape[1] < 2:
            raise MetricError(f"{self.name} compares units of the code, and there is one")
        return CodedSplit(array(codes, self.name), values)


def is_discrete(values: NDArray[np.generic]) -> bool:
    """Whether a factor is discrete."""
    return np.issubdtype(values.dtype, np.integer)


# ---------------------------------------------------------------- mutual information gap


def binned(values: NDArray[np.generic], bins: int) -> Integers:
    """The number of each value's bin, of `bins` of equal width between the least and the largest; `(n,) -> (n,)`."""
    numbers = values.astype(np.float64)
    low, high = numbers.min(), numbers.max()
    if high <= low:
        return np.zeros(len(numbers), dtype=np.int64)
    places = (numbers - low) / (high - low) * bins
    numbered: Integers = np.minimum(places.astype(np.int64), bins - 1)
    return numbered


def levels(values: NDArray[np.generic], bins: int) -> Integers:
    """The classes of a factor: its values, or the bins of a continuous one."""
    if not is_discrete(values):
        return binned(values, bins)
    classes: Integers = np.unique(values, return_inverse=True)[1]
    return classes


def mutual_information(a: Integers, b: Integers) -> float:
    """Of two discrete variables, in nats, `(n,), (n,)`: the plug-in estimate from their joint counts."""
    width, n = int(b.max()) + 1, len(a)
    pairs, counts = np.unique(a * width + b, return_counts=True)  # a table of all pairs may not fit in memory
    joint, product = counts / n, (np.bincount(a) / n)[pairs // width] * (np.bincount(b) / n)[pairs % width]
    return float((joint * np.log(joint / product)).sum())


def gap(values: Reals) -> float:
    """The largest value less the second largest."""
    second, first = np.sort(values)[-2:]
    return float(first - second)


@dataclass(frozen=True, kw_only=True)
class MIG(FactorMetric):
    r"""Mutual information gap: how much more the best unit knows of a factor than the second best.

    .. math:: \frac1K \sum_k \frac{I(z_{(1)}; v_k) - I(z_{(2)}; v_k)}{H(v_k)}

    Source: arXiv:1802.04942, equation 6; units and continuous factors in 20 bins of equal width, as
    google-research/disentanglement_lib has them.
    """

    n: Annotated[int, N] = 10_000
    bins: Annotated[
        int, Option("bins of a unit and of a continuous factor", reference="disentanglement_lib", low=2, high=10_000)
    ] = 20

    name: ClassVar[str] = "mig"
    method: ClassVar[str] = "mutual information gap, bins of equal width"
    components: ClassVar[tuple[FactorComponent, ...]] = (FactorComponent("", "MIG"),)

    def numbers(self, train: CodedSplit, test: CodedSplit) -> Reals:
        """The mean gap over the factors."""
        units = [binned(unit, self.bins) for unit in test.codes.T]
        gaps = []
        for values in test.factors.values():
            factor = levels(values, self.bins)
            known = np.array([mutual_information(unit, factor) for unit in units])
            gaps.append(gap(known) / mutual_information(factor, factor))
        return np.array([np.mean(gaps)])


# ---------------------------------------------------------------- separated attribute predictability


def adjusted_accuracy(predicted: NDArray[np.generic], values: NDArray[np.generic]) -> float:
    """The mean over classes of the share that is right, rescaled: 0 for a constant guess, 1 for no error."""
    shares = [(predicted[values == level] == level).mean() for level in np.unique(values)]
    count = len(shares)
    return float((np.mean(shares) - 1.0 / count) / (1.0 - 1.0 / count)) if count > 1 else 0.0


def explained(predicted: Reals, values: Reals) -> float:
    """R^2, the share of the variance that a prediction explains; negative where it is worse than the mean."""
    return float(1.0 - ((predicted - values) ** 2).sum() / ((values - values.mean()) ** 2).sum())


def correlation_squared(unit: Reals, values: Reals) -> float:
    """The squared correlation of two variables, `(n,), (n,)`; 0 where either is constant."""
    a, b = unit - unit.mean(), values - values.mean()
    size = (a**2).sum() * (b**2).sum()
    return float((a @ b) ** 2 / size) if size > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class SAP(FactorMetric):
    """Separated attribute predictability: how much better the best unit predicts a factor than the second best.

    A unit's score is the squared correlation with a continuous factor. With a discrete one of c classes it is the
    balanced accuracy, on held-out images, of c - 1 thresholds that are fitted to training images, 0 for a constant
    guess and 1 for no error. (The paper's accuracy is not rescaled.)

    Source: arXiv:1711.00848.
    """

    n: Annotated[int, N] = 10_000
    train: Annotated[int, TRAIN] = 10_000

    name: ClassVar[str] = "sap"
    method: ClassVar[str] = "SAP: squared correlation, or rescaled balanced accuracy of thresholds"
    components: ClassVar[tuple[FactorComponent, ...]] = (FactorComponent("", "SAP"),)

    def numbers(self, train: CodedSplit, test: CodedSplit) -> Reals:
        """The mean gap over the factors."""
        from sklearn.tree import DecisionTreeClassifier  # a second to import

        gaps = []
        for name, values in test.factors.items():
            scores = []
            for j, unit in enumerate(test.codes.T):
                if is_discrete(values):
                    classes = len(np.unique(train.factors[name]))
                    tree = DecisionTreeClassifier(max_leaf_nodes=classes, class_weight="balanced", random_state=SEED)
                    tree.fit(train.codes[:, j : j + 1], train.factors[name])
                    scores.append(adjusted_accuracy(tree.predict(unit[:, None]), values))
                else:
                    scores.append(correlation_squared(unit, values.astype(np.float64)))
            gaps.append(gap(np.array(scores)))
        return np.array([np.mean(gaps)])


# ---------------------------------------------------------------- disentanglement, completeness, informativeness


def concentration(weights: Reals) -> Reals:
    """1 - the entropy of each row's shares over that of equal shares, `(rows, m) -> (rows,)`; 0 for a row of zeros."""
    totals = weights.sum(1, keepdims=True)
    shares = np.divide(weights, totals, out=np.full_like(weights, 1.0 / weights.shape[1]), where=totals > 0)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(1)
    return np.asarray(1.0 - entropy / np.log(weights.shape[1]))


@dataclass(frozen=True, kw_only=True)
class DCI(FactorMetric):
    """Disentanglement, completeness and informativeness, by random forests that predict each factor from the code.

    Disentanglement: each unit serves one factor; completeness: each factor has one unit, both by the entropy of the
    forests' importances, units weighted by theirs, factors equally. Informativeness: the mean over factors of the
    forests' held-out R^2, or balanced accuracy rescaled to 0 for a constant guess.

    Source: Eastwood and Williams, ICLR 2018, section 2.
    """

    n: Annotated[int, N] = 2_000
    train: Annotated[int, TRAIN] = 2_000
    trees: Annotated[int, Option("trees of a forest", reference="ours", low=1)] = 10

    name: ClassVar[str] = "dci"
    method: ClassVar[str] = "DCI by random forests' importances"
    components: ClassVar[tuple[FactorComponent, ...]] = (
        FactorComponent("disentanglement", "DCI disentanglement"),
        FactorComponent("completeness", "DCI completeness"),
        FactorComponent("informativeness", "DCI informativeness"),
    )

    def numbers(self, train: CodedSplit, test: CodedSplit) -> Reals:
        """The three numbers."""
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor  # a second to import

        importances, informed = [], []
        options = {"n_estimators": self.trees, "max_features": None, "min_samples_leaf": 10, "random_state": SEED}
        for name, values in train.factors.items():
            if is_discrete(values):
                forest = RandomForestClassifier(class_weight="balanced", **options).fit(train.codes, values)
                informed.append(adjusted_accuracy(forest.predict(test.codes), test.factors[name]))
            else:
                forest = RandomForestRegressor(**options).fit(train.codes, values)
                informed.append(explained(forest.predict(test.codes), test.factors[name].astype(np.float64)))
            importances.append(forest.feature_importances_)
        table = np.array(importances).T  # (units, factors)
        used = table.sum(1) / max(table.sum(), np.finfo(np.float64).tiny)
        disentanglement = float((used * concentration(table)).sum()) if table.shape[1] > 1 else 1.0
        return np.array([disentanglement, concentration(table.T).mean(), np.mean(informed)])
