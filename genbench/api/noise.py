"""Random numbers for priors and models, drawn from one generator."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


class Noise:
    """A stream of random numbers, on one device, for one purpose of one run.

    It wraps a `torch.Generator` that the core derives from the run's seed, the purpose and the step, so that equal
    steps of a resumed run draw equal numbers. Global random state is never used.

    Args:
        generator: The generator that every draw consumes, in the order of the calls.

    Example:
        >>> noise = Noise(torch.Generator().manual_seed(0))
        >>> noise.normal(2, 3).shape
        torch.Size([2, 3])
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    @property
    def device(self) -> torch.device:
        """The device of every tensor that is drawn."""
        return self._generator.device

    @property
    def generator(self) -> Generator:
        """The generator itself, for a distribution that the methods here do not cover (`tensor.exponential_`).

        A model or a prior that asks for it cannot be trained as an ensemble: several runs stacked into one program have
        a generator each, and only the methods of this class draw from all of them.
        """
        return self._generator

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Independent draws of N(0, 1), of the given shape: `normal(n, d)` is `(n, d)`."""
        return torch.randn(*shape, generator=self._generator, device=self.device, dtype=dtype)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Independent uniform draws in [0, 1), of the given shape: `uniform(n, d)` is `(n, d)`."""
        return torch.rand(*shape, generator=self._generator, device=self.device, dtype=dtype)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Independent uniform draws of 0 .. high - 1, int64, of the given shape: `integers(k, n)` is `(n,)`."""
        return torch.randint(high, shape, generator=self._generator, device=self.device)

    def permutation(self, n: int) -> Tensor:
        """A uniform permutation of 0 .. n - 1, `(n,)` int64."""
        return torch.randperm(n, generator=self._generator, device=self.device)
