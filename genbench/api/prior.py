"""The prior: the distribution that latent codes are meant to follow."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Generator, Tensor

from genbench.errors import UnsupportedError

MOMENT_DRAWS = 100_000
"""Draws behind the moments of a prior that does not state them: their relative error is about 0.5 %."""


class Prior(ABC):
    """A distribution on R^d that latent codes are meant to follow.

    Its `make` raises `UnsupportedError` where a latent dimension has no meaning; once made, only `log_prob` may raise.
    """

    latent_dim: int

    @abstractmethod
    def sample(self, n: int, generator: Generator) -> Tensor:
        """n independent draws, `(n, d)` float32 on the generator's device, determined by its state."""

    def sample_batch(self, n: int, generator: Generator) -> Tensor:
        """n draws for one training step, `(n, d)`; each row follows the prior, rows may be stratified.

        Measurements always use `sample`, whose rows are independent.
        """
        return self.sample(n, generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density with respect to Lebesgue measure in nats, `(n, d) -> (n,)`; -inf outside the support.

        Raises `UnsupportedError` where there is no such density; `has_density` says so beforehand.
        """
        raise UnsupportedError(f"the prior {type(self).__name__} has no density on R^{self.latent_dim}")

    @property
    def has_density(self) -> bool:
        """Whether `log_prob` is defined."""
        return type(self).log_prob is not Prior.log_prob

    @property
    def full_support(self) -> bool:
        """Whether the density is positive on all of R^d, so that KL(q | p) of a Gaussian q is finite."""
        return False

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lower and upper bound of every coordinate, or None where it is unbounded."""
        return None

    @property
    def normal_sigma(self) -> float | None:
        """The standard deviation where the prior is N(0, sigma^2 I): a Gaussian KL then has a closed form."""
        return None

    @property
    def mean(self) -> Tensor:
        """Mean of the prior, `(d,)` float32; of 100,000 draws where a prior does not state it."""
        return self.sample(MOMENT_DRAWS, Generator().manual_seed(0)).mean(0)

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, `(d,)` float32; of 100,000 draws where a prior does not state it."""
        return self.sample(MOMENT_DRAWS, Generator().manual_seed(0)).var(0)

    @property
    def pairwise_scale(self) -> float:
        """E|z - z'|^2 of two independent draws, which is twice the trace of the covariance.

        For N(0, sigma^2 I) this is 2 d sigma^2, the scale C of the IMQ kernel (arXiv:1711.01558, section 4).
        """
        return 2.0 * float(self.variance.sum())
