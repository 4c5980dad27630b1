"""The sampler: a distribution of codes for samples, fitted after the training."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from genbench.api.noise import Noise
from genbench.errors import MetricError

DEFAULT_SAMPLER = "prior"
"""The name of the sampler whose numbers are those of the model as it is: measurements and protocols do not name it."""


class Sampler(ABC):
    """A distribution of latent codes that samples are decoded from, in the place of the prior.

    Its factory is `factory(prior, *, options...)`.

    Attributes:
        training_codes: Count of training images whose codes `fit` is given; 0 where none are needed. Fewer where the
            dataset has fewer.
        least_codes: Count of codes below which nothing can be fitted; the plan refuses smaller datasets.
    """

    training_codes: int = 0
    least_codes: int = 2

    def check_codes(self, codes: Tensor) -> None:
        """`MetricError` for too few codes, `(n, d)`, and for NaN or infinity; called before every `fit`."""
        if len(codes) < self.least_codes:
            raise MetricError(f"the sampler needs {self.least_codes:,} codes for its fit and has {len(codes):,}")
        if wrong := int((~codes.isfinite()).any(1).sum()):
            raise MetricError(f"{wrong:,} of {len(codes):,} codes are NaN or infinite: nothing can be fitted to them")

    def fit(self, codes: Tensor) -> None:
        """Fit to codes of training images, `(n, d)` float64 on the CPU; the same at every call with the same codes.

        They are finite, and at least `least_codes`. Torch's global random state is not used.

        Raises:
            MetricError: Nothing can be fitted to these codes.
        """

    @abstractmethod
    def sample(self, n: int, noise: Noise) -> Tensor:
        """n independent draws, `(n, d)` float32 on the CPU; all randomness comes from `noise`. Raises nothing."""
