"""The prior: the distribution that latent codes are meant to follow."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from genbench.api.noise import Noise
from genbench.errors import UnsupportedError

MOMENT_DRAWS = 100_000
"""Draws behind the moments of a prior that does not state them: their relative error is about 0.5 %."""


class Prior(nn.Module, ABC):
    """A distribution on R^d that latent codes are meant to follow.

    A subclass calls `super().__init__()` first and sets `latent_dim`. A fixed prior has no parameters; one with
    parameters is *learned*: models that keep it as a submodule train it, and all others are refused. Its factory raises
    `UnsupportedError` for a latent dimension that has no meaning; afterwards only `log_prob` may raise.

    Example:
        >>> import torch
        >>> class Cube(Prior):
        ...     def __init__(self, latent_dim):
        ...         super().__init__()
        ...         self.latent_dim = latent_dim
        ...     def sample(self, n, noise):
        ...         return noise.uniform(n, self.latent_dim)
        >>> Cube(2).sample(5, Noise(torch.Generator().manual_seed(0))).shape
        torch.Size([5, 2])
    """

    latent_dim: int

    moment_draws: ClassVar[int] = MOMENT_DRAWS
    """Draws behind moments that are not stated; fewer for a prior whose draws are slow."""

    @abstractmethod
    def sample(self, n: int, noise: Noise) -> Tensor:
        """n independent draws, `(n, d)` float32; all randomness comes from `noise`.

        They lie on `noise.device`, or for a prior with parameters on the device of those: measurements draw on the CPU.
        """

    def sample_batch(self, n: int, noise: Noise) -> Tensor:
        """n draws for one training step, `(n, d)` float32; each row follows the prior, rows may be stratified.

        Measurements always use `sample`, whose rows are independent.
        """
        return self.sample(n, noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density with respect to Lebesgue measure in nats, `(n, d) -> (n,)`; -inf outside the support.

        Raises:
            UnsupportedError: The prior has no density; `has_density` says so beforehand.
        """
        raise UnsupportedError(f"the prior {type(self).__name__} has no density on R^{self.latent_dim}")

    def extra_repr(self) -> str:
        """The plain attributes, for `repr(prior)`: "latent_dim=2, sigma=1.0"."""
        plain = {k: v for k, v in vars(self).items() if k != "training" and isinstance(v, bool | int | float | str)}
        return ", ".join(f"{name}={value!r}" for name, value in plain.items())

    @property
    def learned(self) -> bool:
        """Whether it has parameters, which a model trains."""
        return next(self.parameters(), None) is not None

    def frozen(self) -> Prior:
        """This prior as the training left it, for measurements: a copy without gradients, on the same device.

        A prior that a network computes overrides it with one of the same law that needs the network no more. A fixed
        prior is returned itself.
        """
        return copy.deepcopy(self).requires_grad_(False) if self.learned else self

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
        """Lower and upper bound of every coordinate, or None for an unbounded prior."""
        return None

    @property
    def normal_sigma(self) -> float | None:
        """The standard deviation of a prior N(0, sigma^2 I), else None: a Gaussian KL then has a closed form."""
        return None

    @property
    def sphere_radius(self) -> float | None:
        """The radius of a prior that is uniform on the sphere |z| = radius, else None: a KL on it has a closed form."""
        return None

    @property
    def mean(self) -> Tensor:
        """Mean of the prior, `(d,)` float32 on the CPU; estimated from `moment_draws` draws unless it is stated."""
        return self._estimated_moments()[0]

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, `(d,)` float32 on the CPU; estimated as the mean is."""
        return self._estimated_moments()[1]

    @torch.no_grad()
    def _estimated_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of draws; kept once nothing trains the prior any more."""
        moments: tuple[Tensor, Tensor] | None = self.__dict__.get("_moments")
        if moments is None:
            noise, n = Noise(Generator().manual_seed(0)), self.moment_draws
            block = min(n, 1000) if self.learned else n  # a network's activations of all draws would fill the memory
            z = torch.cat([self.sample(block, noise) for _ in range(0, n, block)]).cpu()
            moments = z.mean(0), z.var(0)
            if not any(parameter.requires_grad for parameter in self.parameters()):
                self._moments = moments
        return moments

    @property
    def pairwise_scale(self) -> float:
        """E|z - z'|^2 of two independent draws, which is twice the trace of the covariance.

        For N(0, sigma^2 I) this is 2 d sigma^2, the scale C of the IMQ kernel (arXiv:1711.01558, section 4).
        """
        return 2.0 * float(self.variance.sum())
