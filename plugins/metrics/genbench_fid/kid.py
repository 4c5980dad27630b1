"""The kernel distance of features (KID) and its standard error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor

from genbench.api import Evaluation, Measurement, Option
from genbench_fid.base import COUNT, FEATURES, LAYER, SPLIT, WEIGHTS, FeatureMetric, References

SUBSETS_SEED = 2020
"""torch-fidelity's own seed of the subsets."""

BLOCK = 1024
"""Rows of a kernel matrix computed at once."""


class KID(FeatureMetric):
    """Kernel distance: the unbiased squared MMD of features with a cubic kernel (arXiv:1801.01401, section 4).

    The value is torch-fidelity's, a mean over random subsets. Its "standard deviation" is that of one subset's value
    and depends on the subsets' size, so it is no standard error; the one given here is the jackknife's over samples
    of the estimate from all of them, with the share of the choice of subsets. The value may be negative: its mean is 0
    where both laws are equal.
    """

    name = "kid"
    least = 3
    method = "unbiased MMD^2 of features, kernel (x.y/f + 1)^3, mean over subsets"

    def __init__(
        self,
        *,
        features: Annotated[str, FEATURES] = "auto",
        layer: Annotated[str, LAYER] = "auto",
        weights: Annotated[str, WEIGHTS] = "none",
        count: Annotated[int, COUNT] = 0,
        split: Annotated[References, SPLIT] = "test",
        subsets: Annotated[int, Option("random subsets averaged over", reference="torch-fidelity", low=2)] = 100,
        subset_size: Annotated[int, Option("images in a subset", reference="torch-fidelity", low=2)] = 1000,
    ) -> None:
        super().__init__(features, layer, weights, count, split)
        self.subsets, self.subset_size = subsets, subset_size

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The mean over subsets, by torch-fidelity's own function."""
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

        extractor = self.extractor(e.images.shape, e.data_config)
        real = self.reference_features(e, extractor)
        n = self.count or len(real)
        self.refuse_few(n, len(real))
        generated = self.sample_features(e, extractor, n)
        size = min(self.subset_size, n, len(real))
        subsets = 1 if size == n == len(real) else self.subsets  # where each is all the images, one is as good as many
        result = kid_features_to_metric(
            generated.cpu().double(),
            real.cpu().double(),
            kid_subsets=subsets,
            kid_subset_size=size,
            rng_seed=SUBSETS_SEED,
            verbose=False,
        )
        detail = f"{self.subsets} subsets of {size}, drawn from seed {SUBSETS_SEED}"
        yield Measurement(
            value=result[KEY_METRIC_KID_MEAN],
            unit="MMD^2",
            higher_is_better=False,
            n=n,
            protocol=self.protocol(e, extractor, len(real), n, detail),
            role="sample quality",
            floor=0.0,
            se=math.hypot(standard_error(real, generated), result[KEY_METRIC_KID_STD] / math.sqrt(subsets)),
            label=f"KID ({extractor.label()})",
            caution=self.caution(extractor),
        )


def standard_error(real: Tensor, generated: Tensor) -> float:
    r"""Jackknife over the samples of the complete estimate, `(n, f), (m, f)`, m >= 3, the references fixed.

    .. math:: \frac{m-1}{m} \sum_i (U_{-i} - \bar U)^2, \qquad
              U = \frac{\sum_{i \ne j} k(x_i, x_j)}{m (m-1)} - \frac{2 \sum_{i,j} k(x_i, y_j)}{m n} + \dots

    U without sample i follows from the row sums alone. At equal laws, where the first-order part vanishes, it is too
    large by a factor of up to the root of two.
    """
    m, n = len(generated), len(real)
    within, across = _row_sums(generated, generated) - _kernel_diagonal(generated), _row_sums(generated, real)
    left = (within.sum() - 2.0 * within) / ((m - 1) * (m - 2)) - 2.0 * (across.sum() - across) / ((m - 1) * n)
    return math.sqrt((m - 1) / m * float((left - left.mean()).square().sum()))


def _row_sums(x: Tensor, y: Tensor) -> Tensor:
    """sum_j k(x_i, y_j), `(n, f), (m, f) -> (n,)` float64."""
    y = y.double()
    return torch.cat([_kernel(rows.double() @ y.T, y.shape[1]).sum(1) for rows in x.split(BLOCK)])


def _kernel_diagonal(x: Tensor) -> Tensor:
    return _kernel(x.double().square().sum(1), x.shape[1])


def _kernel(products: Tensor, width: int) -> Tensor:
    return (products / width + 1.0) ** 3
