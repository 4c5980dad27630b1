"""The checks of samplers, fitted to normal codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.api import Noise, Prior, Sampler
from genbench.testing.fixtures import Gauss, seeded
from genbench.testing.results import ConformanceCheck, expect, global_state

LATENT = 4
CODES, DRAWS = 500, 2000
SHIFT = 3.0


@dataclass(frozen=True)
class Samplers:
    """One sampler, with its default options."""

    make: Callable[[Prior], Sampler]

    def fitted(self) -> Sampler:
        """A sampler fitted to N(3, 1) where it is fitted at all."""
        sampler = self.make(Gauss(LATENT))
        if sampler.training_codes:
            sampler.fit(codes())
        return sampler


def codes() -> Tensor:
    """Normal codes away from the origin, `(n, d)` float64."""
    return torch.randn(CODES, LATENT, generator=seeded(1), dtype=torch.float64) + SHIFT


def build(make: Callable[[Prior], Sampler]) -> Samplers:
    """The subject of the checks."""
    subject = Samplers(make)
    subject.fitted()
    return subject


def draws_have_their_shape(subject: Samplers) -> str:
    """`sample(n, noise)` is (n, d) finite float32 and uses no global randomness."""
    sampler, before = subject.fitted(), global_state()
    drawn = sampler.sample(7, Noise(seeded(2)))
    expect(global_state() == before, "sampling changes the global random state")
    text = f"sample(7, noise) is {tuple(drawn.shape)} {drawn.dtype}"
    expect(drawn.shape == (7, LATENT) and drawn.dtype == torch.float32, f"{text}, expected (7, {LATENT}) float32")
    expect(bool(drawn.isfinite().all()), "some draws are not finite")
    return text


def draws_are_determined(subject: Samplers) -> str:
    """A second fit to equal codes and equal noise give equal draws."""
    first, second = (subject.fitted().sample(50, Noise(seeded(3))) for _ in range(2))
    expect(torch.equal(first, second), "a second fit gives other draws")
    return "equal draws"


def draws_follow_the_codes(subject: Samplers) -> str:
    """The mean of draws is that of the codes fitted, or the prior's where nothing is fitted."""
    sampler = subject.fitted()
    expected = codes().mean(0) if sampler.training_codes else Gauss(LATENT).mean.double()
    gap = float((sampler.sample(DRAWS, Noise(seeded(4))).double().mean(0) - expected).abs().max())
    expect(gap < 0.3, f"the mean of {DRAWS} draws is {gap:.2g} from the mean of what was fitted")
    return f"within {gap:.2g}"


CHECKS: tuple[ConformanceCheck[Samplers], ...] = (
    ConformanceCheck(draws_have_their_shape, "draw from the noise alone, and return float32"),
    ConformanceCheck(draws_are_determined, "seed the fit: genbench.data.seeds.generator"),
    ConformanceCheck(draws_follow_the_codes, "fit to the codes that `fit` is given"),
)
