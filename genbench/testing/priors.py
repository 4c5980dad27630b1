"""The checks of priors. Thresholds are seven standard errors: below 3e-12 each by the normal law, below 1e-8 for the
sparsest counts compared (100 expected), so below 1e-6 for the hundred or so comparisons that a prior undergoes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor

from genbench.api import Noise, Prior
from genbench.errors import GenbenchError, UnsupportedError
from genbench.testing.fixtures import seeded_noise
from genbench.testing.results import ConformanceCheck, Failed, Reported, Skipped, expect, expect_tensor, global_state

# ---------------------------------------------------------------- quadrature of a density

BASE = 64
"""Cells a side of the box to begin with; a multiple of every number of bins used."""

ROUNDS = 7
POINTS = 400_000
NODES = (0.0694318442, 0.3300094782, 0.6699905218, 0.9305681558)
WEIGHTS = (0.1739274226, 0.3260725774, 0.3260725774, 0.1739274226)
"""Gauss-Legendre on [0, 1], exact to degree 7."""


AROUND = 2
"""Boxes on every side of the draws' box that are searched for mass that no draw shows."""

SHELL = 16
"""Cells a side of each of these to begin with."""


@dataclass(frozen=True)
class Masses:
    """A density's mass per bin of a regular grid over a box of draws, and around that box.

    `low` and `high` are the box's corners, `(d,)`; `draws` counts the draws of each bin.
    """

    density: Tensor
    draws: Tensor
    around: float
    low: Tensor
    high: Tensor

    def beyond(self, z: Tensor) -> float:
        """The share of draws, `(n, d)`, that lie outside of everything integrated over."""
        reach = AROUND * (self.high - self.low)
        return 1.0 - float(_within(z, self.low - reach, self.high + reach).double().mean())


def masses(prior: Prior, z: Tensor, bins: int) -> Masses:
    """Masses in bins^d cells over a box of draws z, `(n, d)`, d = 1 or 2, and in the 5^d - 1 boxes around it.

    The box holds the draws and a quarter of their range more on each side, but is no wider than three times the range
    of the central 99.8 %: a heavy tail would make the cells too wide for the law's body.
    """
    low, high = _box(z)
    side, d = (high - low) / BASE, z.shape[1]
    middle, mass = _integrate(prior, low + _lattice(BASE, d) * side, side)
    density = torch.zeros(bins**d, dtype=torch.float64).index_add_(0, _bin(middle, low, high, bins), mass)
    inner = z[_within(z, low, high)]
    boxes = _lattice(2 * AROUND + 1, d) - AROUND
    corners = low + boxes[boxes.abs().sum(1) > 0] * (high - low)
    side = (high - low) / SHELL
    shell = (corners[:, None] + _lattice(SHELL, d) * side).flatten(0, 1)
    around = float(_integrate(prior, shell, side)[1].sum())
    return Masses(density, torch.bincount(_bin(inner, low, high, bins), minlength=bins**d), around, low, high)


def _box(z: Tensor) -> tuple[Tensor, Tensor]:
    least, most = z.min(0).values, z.max(0).values
    room = 0.25 * (most - least) + 1e-3
    tails = torch.quantile(z, torch.tensor([0.001, 0.999], dtype=z.dtype), dim=0)
    body = tails[1] - tails[0] + 1e-3
    return torch.maximum(least - room, tails[0] - body), torch.minimum(most + room, tails[1] + body)


def _within(z: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return ((z >= low) & (z < high)).all(1)


def _lattice(count: int, d: int) -> Tensor:
    """The count^d points of a lattice, `(count^d, d)` int64."""
    return torch.cartesian_prod(*[torch.arange(count)] * d).view(-1, d)


def _integrate(prior: Prior, corner: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    """Middles `(m, d)` and masses `(m,)` of the cells at `corner`, `(n, d)`, halved where that is needed.

    Cells are halved in each coordinate where two rules (4 and 2 points a side) disagree most, at most seven times.
    """
    d = corner.shape[1]
    size, budget = side.expand_as(corner), POINTS // 4**d
    cells: list[tuple[Tensor, Tensor]] = []
    for round_ in range(ROUNDS + 1):
        fine = _rule(prior, corner, size, NODES, WEIGHTS)
        coarse = _rule(prior, corner, size, (0.2113248654, 0.7886751346), (0.5, 0.5))
        error = (fine - coarse).abs()
        rough = error > 1e-7
        if int(rough.sum()) * 2**d > budget:
            rough = error >= error.topk(budget // 2**d).values[-1].clamp(min=1e-12)
        if round_ == ROUNDS:
            rough = torch.zeros_like(rough)
        cells.append((corner[~rough] + size[~rough] / 2, fine[~rough]))
        if not rough.any():
            break
        half = size[rough] / 2
        corner = (corner[rough][:, None] + _lattice(2, d) * half[:, None]).flatten(0, 1)
        size = half.repeat_interleave(2**d, 0)
    return torch.cat([middle for middle, _ in cells]), torch.cat([mass for _, mass in cells])


def _rule(prior: Prior, corner: Tensor, size: Tensor, nodes: tuple[float, ...], weights: tuple[float, ...]) -> Tensor:
    """The tensor-product rule on every cell, `(m, d) -> (m,)` float64."""
    d = corner.shape[1]
    at = torch.cartesian_prod(*[torch.tensor(nodes)] * d).view(-1, d)
    weight = torch.cartesian_prod(*[torch.tensor(weights, dtype=torch.float64)] * d).view(-1, d).prod(1)
    points = (corner[:, None] + at * size[:, None]).flatten(0, 1)
    density = torch.cat([prior.log_prob(block).double().exp() for block in points.split(200_000)])
    return density.view(len(corner), -1) @ weight * size.double().prod(1)


def _bin(z: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """The flat index of the bin of each point, `(n, d) -> (n,)` int64."""
    index = ((z - low) / (high - low) * bins).long().clamp(0, bins - 1)
    flat = index[:, 0]
    for j in range(1, z.shape[1]):
        flat = flat * bins + index[:, j]
    return flat


# ---------------------------------------------------------------- the checks

DRAWS = 40_000
BATCHES, BATCH = 400, 64
Z = 7.0
BINS = 8
DIMS = (2, 8, 1)
FIT_STEPS, FIT_BATCH = 60, 256


@dataclass(frozen=True)
class Priors:
    """A component's priors, one for each latent dimension among 2, 8 and 1 that it accepts.

    Of a learned prior, `priors` are fitted to `blobs` and train no more: its law must hold wherever training leads, and
    its start may be N(0, I) whatever the parameters do. `starts` are the same before that.
    """

    priors: tuple[Prior, ...]
    starts: tuple[Prior, ...] = ()


def build(factory: Callable[[int], Prior]) -> Priors:
    """The subject of the checks; raises the prior's error where no dimension is accepted."""
    torch.manual_seed(0)  # the kit puts the global state back
    made: list[Prior] = []
    refusal: GenbenchError | None = None
    for d in DIMS:
        try:
            made.append(factory(d))
        except UnsupportedError as error:
            refusal = error
    if not made:
        raise Failed(f"no latent dimension of {DIMS} is accepted: {refusal}")
    starts = tuple(prior for prior in made if "_parameters" in vars(prior) and prior.learned)
    return Priors(tuple(_fitted(prior) if prior in starts else prior for prior in made), starts)


def blobs(n: int, d: int, seed: int) -> Tensor:
    """Two blobs off the origin of standard deviation 0.5, `(n, d)`: what a learned prior is fitted to."""
    noise = seeded_noise(seed)
    side = 2.0 * noise.integers(2, n, 1) - 1.0
    return 1.0 + 1.5 * side + 0.5 * noise.normal(n, d)


def _fitted(start: Prior) -> Prior:
    """A copy of a learned prior after `FIT_STEPS` steps of maximum likelihood, without gradients."""
    prior = copy.deepcopy(start)
    if prior.has_density:
        optimizer = torch.optim.Adam(prior.parameters(), lr=0.02)
        for step in range(FIT_STEPS):
            optimizer.zero_grad()
            (-prior.log_prob(blobs(FIT_BATCH, prior.latent_dim, 100 + step)).mean()).backward()
            optimizer.step()
    return prior.requires_grad_(False)


class RecordingNoise(Noise):
    """Noise that records which of its methods were called, and whether its generator was asked for."""

    def __init__(self, generator: Generator) -> None:
        super().__init__(generator)
        self.methods: set[str] = set()
        self.raw = False

    @property
    def generator(self) -> Generator:
        """The generator; recorded."""
        self.raw = True
        return super().generator

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """As `Noise.normal`, `(*shape,)`; recorded."""
        self.methods.add("normal")
        return super().normal(*shape, dtype=dtype)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """As `Noise.uniform`, `(*shape,)`; recorded."""
        self.methods.add("uniform")
        return super().uniform(*shape, dtype=dtype)

    def integers(self, high: int, *shape: int) -> Tensor:
        """As `Noise.integers`, `(*shape,)`; recorded."""
        self.methods.add("integers")
        return super().integers(high, *shape)

    def permutation(self, n: int) -> Tensor:
        """As `Noise.permutation`, `(n,)`; recorded."""
        self.methods.add("permutation")
        return super().permutation(n)


@lru_cache(maxsize=len(DIMS))
def draws(prior: Prior, seed: int = 1, n: int = DRAWS) -> Tensor:
    """Independent draws in float64, `(n, d)`; the same for all checks that name the same seed, not to be changed."""
    return prior.sample(n, seeded_noise(seed)).double()


def shape_dtype_device(subject: Priors) -> str:
    """`sample` and `sample_batch` yield (n, d) finite float32 on the noise's device; `latent_dim` is d."""
    for prior in subject.priors:
        for method in (prior.sample, prior.sample_batch):
            for n in (1, 7):
                z = method(n, seeded_noise(0))
                expect_tensor(f"{method.__name__}({n})", z)
                observation = f"{method.__name__}({n}) is {tuple(z.shape)} {z.dtype} on {z.device}"
                expect(z.shape == (n, prior.latent_dim), f"{observation}: expected {(n, prior.latent_dim)}")
                expect(z.dtype == torch.float32 and z.device.type == "cpu", f"{observation}: expected float32 on cpu")
                expect(bool(z.isfinite().all()), f"{observation} with values that are not finite")
    return f"latent dimensions {', '.join(str(prior.latent_dim) for prior in subject.priors)}"


def determined_by_noise(subject: Priors) -> str:
    """Draws are a function of the noise; global random state is neither read nor changed."""
    for prior in subject.priors:
        for method in (prior.sample, prior.sample_batch):
            before = global_state()
            first = method(16, seeded_noise(0))
            expect(global_state() == before, f"{method.__name__} changes the global random state")
            again = method(16, seeded_noise(0))
            expect(torch.equal(first, again), f"{method.__name__} of equal noise gives different draws")
            different = method(16, seeded_noise(1))
            expect(not torch.equal(first, different), f"{method.__name__} of different noise gives equal draws")
    return "equal for equal noise, different for different noise"


def noise_is_drawn_by_its_methods(subject: Priors) -> str:
    """Draws come from the noise's methods, so that a model can be trained as an ensemble; reported, not required."""
    for prior in subject.priors:
        for method in (prior.sample, prior.sample_batch):
            noise = RecordingNoise(Generator().manual_seed(0))
            method(16, noise)
            if noise.raw:
                raise Reported(f"{method.__name__} asks for `noise.generator`: no ensembles of models with this prior")
    return ", ".join(f"noise.{name}" for name in sorted(noise.methods))


def module_is_initialized(subject: Priors) -> str:
    """A prior is a module that can be moved, copied and saved: `super().__init__()` was called."""
    for prior in subject.priors:
        twin = copy.deepcopy(prior)
        twin.load_state_dict(prior.state_dict())
        expect(twin.to("cpu").latent_dim == prior.latent_dim, "a copy has another latent dimension")
    count = sum(p.numel() for p in subject.priors[0].parameters())
    return f"{count:,} parameters"


def learned_by_its_density(subject: Priors) -> str:
    """A learned prior has a density on all of R^d, whose gradient reaches every parameter, and it fits two blobs."""
    for start, prior in _learned(subject):
        expect(start.has_density and start.full_support, "no density on all of R^d: `log_prob` and `full_support`")
        z = blobs(1000, prior.latent_dim, 99)
        parameters = dict(start.named_parameters())
        grads = torch.autograd.grad(-start.log_prob(z).mean(), tuple(parameters.values()), allow_unused=True)
        for name, grad in zip(parameters, grads, strict=True):
            expect(grad is not None, f"the gradient of log_prob does not reach {name}")
            expect(bool(grad.isfinite().all()), f"the gradient of log_prob in {name} is not finite")
        before, after = float(start.log_prob(z).detach().mean()), float(prior.log_prob(z).mean())
        expect(after > before, f"{FIT_STEPS} steps lower the log-likelihood from {before:.4g} to {after:.4g}")
    return f"log-likelihood of two blobs {before:.4g}, and {after:.4g} after {FIT_STEPS} steps"


def learning_is_kept(subject: Priors) -> str:
    """What a prior has learned changes its draws, and is kept by its state dict and by `frozen()`."""
    for start, prior in _learned(subject):
        restored = copy.deepcopy(start)
        restored.load_state_dict(prior.state_dict())
        restored.requires_grad_(False)
        drawn = prior.sample(16, seeded_noise(9))
        expect(not torch.equal(drawn, start.sample(16, seeded_noise(9))), "the draws do not follow the parameters")
        for what, twin in (("a prior with its state dict", restored), ("frozen()", prior.frozen())):
            draws_gap = (twin.sample(16, seeded_noise(9)) - drawn).abs().max()
            gap = max(float(draws_gap), float((twin.log_prob(drawn) - prior.log_prob(drawn)).abs().max()))
            expect(gap < 1e-4, f"{what} has different draws or densities ({gap:.2g})")
        expect(not any(p.requires_grad for p in prior.frozen().parameters()), "frozen() can be trained")
    return "restored from its state dict"


def first_two_moments(subject: Priors) -> str:
    """Mean and variance of the draws are the declared ones, within seven standard errors."""
    worst = 0.0
    for prior in subject.priors:
        z = draws(prior)
        _refuse_heavy(z)
        for what, values, stated, exact in (
            ("mean", z, prior.mean, type(prior).mean is not Prior.mean),
            ("variance", (z - z.mean(0)).square(), prior.variance, type(prior).variance is not Prior.variance),
        ):
            expect(stated.shape == (prior.latent_dim,), f"{what} is {tuple(stated.shape)}, not ({prior.latent_dim},)")
            score = _score(values, stated.double(), 0 if exact else prior.moment_draws)
            j = int(score.abs().argmax())
            worst = max(worst, float(score[j].abs()))
            observation = (
                f"coordinate {j} of {prior.latent_dim}: {what} {float(values.mean(0)[j]):.4g} of {DRAWS} draws"
            )
            expect(worst <= Z, f"{observation}, declared {float(stated[j]):.4g} ({worst:.0f} standard errors)")
    return f"largest deviation {worst:.1f} standard errors"


def pairwise_scale(subject: Priors) -> str:
    """`pairwise_scale` is E|z - z'|^2 of the draws, within seven standard errors."""
    for prior in subject.priors:
        z = draws(prior)
        _refuse_heavy(z)
        gaps = (z[::2] - z[1::2]).square().sum(1, keepdim=True)
        stated = torch.tensor([prior.pairwise_scale], dtype=torch.float64)
        exact = not {type(prior).pairwise_scale, type(prior).variance} <= {Prior.pairwise_scale, Prior.variance}
        score = float(_score(gaps, stated, 0 if exact else prior.moment_draws).abs())
        observation = f"d = {prior.latent_dim}: E|z - z'|^2 is {float(gaps.mean()):.4g}"
        expect(score <= Z, f"{observation}, declared {float(stated):.4g} ({score:.0f} standard errors)")
    return observation


def support(subject: Priors) -> str:
    """Every draw lies within the declared bounds, and the density there is positive."""
    for prior in subject.priors:
        z = draws(prior).float()
        if prior.bounds is not None:
            low, high = prior.bounds
            slack = 1e-5 * max(1.0, abs(low), abs(high))
            inside = low - slack <= float(z.min()) and float(z.max()) <= high + slack
            expect(inside, f"draws in [{float(z.min()):.4g}, {float(z.max()):.4g}], declared [{low:g}, {high:g}]")
        if prior.has_density:
            values = prior.log_prob(z)
            expect(values.shape == (DRAWS,), f"log_prob is {tuple(values.shape)}, not ({DRAWS},)")
            lost = int((~values.isfinite()).sum())
            expect(lost == 0, f"log_prob of {lost} of {DRAWS} draws is not finite")
    return "draws within their bounds"


def log_prob_agrees_with_draws(subject: Priors) -> str:
    """In one and two dimensions the density has the mass of the draws, cell by cell, within seven standard errors."""
    compared = 0
    for prior in _with_density(subject):
        mass = _masses_of(prior)
        expected, count = mass.density * DRAWS, mass.draws.double()
        slack = Z * (expected * (1 - mass.density).clamp(min=0)).clamp(min=100.0).sqrt() + 0.01 * expected
        excess = (count - expected).abs() - slack
        j = int(excess.argmax())
        compared += len(expected)
        observation = f"{int(count[j])} of {DRAWS} draws in a cell, log_prob says {float(expected[j]):.0f}"
        expect(float(excess[j]) <= 0.0, f"d = {prior.latent_dim}: {observation}")
    return f"{compared} cells"


def log_prob_integrates_to_one(subject: Priors) -> str:
    """In one and two dimensions the density's mass in and around the box of the draws, and the tail's share, are one.

    What lies beyond five boxes is the share of *other* draws there: a heavy tail is no fault. Two per cent are left to
    the quadrature, and seven standard errors to that share. Mass where no draw falls counts, as far as the boxes reach.
    """
    for prior in _with_density(subject):
        mass = _masses_of(prior)
        beyond = mass.beyond(draws(prior, seed=8).float())
        total = float(mass.density.sum()) + mass.around + beyond
        room = 0.02 + Z * math.sqrt(max(beyond * (1.0 - beyond), 1.0 / DRAWS) / DRAWS)
        where = f" ({mass.around:.3f} of it where few draws fall)" if mass.around > 0.02 else ""
        expect(abs(total - 1.0) <= room, f"d = {prior.latent_dim}: the density integrates to {total:.4f}{where}")
    return f"{total:.4f}"


def batches_follow_the_prior(subject: Priors) -> str:
    """`sample_batch`, used in training, has the law of `sample`, used in sampling: mean, variance and deciles.

    Mean and variance are of draws cut to the central 99.8 %, so that heavy tails do not matter.
    """
    for prior in subject.priors:
        z = draws(prior)
        edges = torch.quantile(z[:10_000], torch.linspace(0.1, 0.9, 9, dtype=torch.float64), dim=0)
        noise = seeded_noise(6)
        ends = _ends(z)
        centre = _trimmed(z, ends).mean(0)
        inherited = type(prior).sample_batch is Prior.sample_batch  # `sample` itself, of which the size alone is new
        count = BATCHES // 4 if inherited else BATCHES
        drawn = (prior.sample_batch(BATCH, noise).double() for _ in range(count))
        batches = [_features(batch, edges, centre, ends) for batch in drawn]
        means = torch.stack([batch.mean(0) for batch in batches])  # one per batch: rows of a batch may depend
        whole = _features(z, edges, centre, ends)
        gap = means.mean(0) - whole.mean(0)
        error = (means.var(0) / count + whole.var(0) / DRAWS).sqrt() + 1e-6
        score = (gap / error).abs()
        j, d = int(score.argmax()), prior.latent_dim
        what = "mean" if j < d else "variance" if j < 2 * d else "share below a decile"
        numbers = f"{float(means.mean(0)[j]):.4g} in training batches, {float(whole.mean(0)[j]):.4g} in sampling"
        expect(float(score[j]) <= Z, f"{what} of coordinate {j % d}: {numbers} ({float(score[j]):.0f} standard errors)")
    return f"batches of {BATCH}"


def rows_are_independent(subject: Priors) -> str:
    """Rows of `sample` are independent: means of blocks of 64 vary as independent rows would."""
    for prior in subject.priors:
        z = draws(prior, seed=7, n=BATCHES * BATCH)
        z = _trimmed(z, _ends(z))
        ratio = z.view(BATCHES, BATCH, -1).mean(1).var(0) / (z.var(0) / BATCH).clamp(min=1e-30)
        worst = float((ratio - 1.0).abs().max())
        bound = Z * math.sqrt(2.0 / BATCHES) * 1.5  # the chi-squared law's right tail is heavier than the normal one
        expect(worst <= bound, f"block means vary {float(ratio[(ratio - 1).abs().argmax()]):.2g} times as they should")
    return "block means vary as they should"


def _learned(subject: Priors) -> list[tuple[Prior, Prior]]:
    """Learned priors before and after their fit."""
    if not subject.starts:
        raise Skipped("the prior has no parameters")
    return list(zip(subject.starts, subject.priors, strict=True))


def _score(values: Tensor, stated: Tensor, estimates: int) -> Tensor:
    """Standard errors between the means of `(n, d)` values and the stated ones, of so many draws (0: exact)."""
    n = len(values)
    error = (values.var(0) * (1.0 / n + (1.0 / estimates if estimates else 0.0))).sqrt()
    return (values.mean(0) - stated) / (error + 1e-6 * (1.0 + stated.abs()))  # float32's rounding


def _refuse_heavy(z: Tensor) -> None:
    """`Skipped` where the variance of the draws has no standard error: tails of an index below 4, by Hill's estimate.

    Of the 100 largest of 40,000 deviations; the estimate is 5.3 for an exponential tail, more for a lighter one.
    """
    largest = (z - z.median(0).values).abs().topk(101, dim=0).values
    index = 100.0 / (largest[:-1] / largest[-1].clamp(min=1e-30)).log().sum(0).clamp(min=1e-9)
    if float(index.min()) < 4.0:
        raise Skipped(f"heavy tails (index {float(index.min()):.1f}): squares of the draws have no standard error")


def _trimmed(z: Tensor, ends: Tensor) -> Tensor:
    """Draws moved to the ends `(2, d)` where they lie beyond: means of these have a standard error for every law."""
    return torch.minimum(torch.maximum(z, ends[0]), ends[1])


def _ends(z: Tensor) -> Tensor:
    return torch.quantile(z[:10_000], torch.tensor([0.001, 0.999], dtype=torch.float64), dim=0)


def _features(z: Tensor, edges: Tensor, centre: Tensor, ends: Tensor) -> Tensor:
    below = (z[:, None, :] <= edges).double().flatten(1)
    z = _trimmed(z, ends)
    return torch.cat([z, (z - centre).square(), below], dim=1)


@lru_cache(maxsize=len(DIMS))
def _masses_of(prior: Prior) -> Masses:
    """The masses of a prior over its own draws, once for the checks that need them."""
    return masses(prior, draws(prior).float(), BINS)


def _with_density(subject: Priors) -> Sequence[Prior]:
    low = [prior for prior in subject.priors if prior.latent_dim <= 2]
    if not low:
        raise Skipped("a grid needs a latent dimension of 1 or 2, which this prior refuses")
    if not any(prior.has_density for prior in low):
        raise Skipped("the prior has no density")
    return [prior for prior in low if prior.has_density]


CHECKS: tuple[ConformanceCheck[Priors], ...] = (
    ConformanceCheck(
        shape_dtype_device,
        "return (n, latent_dim) float32 on noise.device; for a d without meaning raise UnsupportedError in __init__",
    ),
    ConformanceCheck(determined_by_noise, "draw with noise.normal, noise.uniform, ...; use no numpy, no random"),
    ConformanceCheck(noise_is_drawn_by_its_methods, "draw all randomness from the `noise` argument"),
    ConformanceCheck(
        module_is_initialized, "call super().__init__() first; keep learned numbers in parameters or buffers"
    ),
    ConformanceCheck(
        learned_by_its_density, "state `log_prob` and `full_support`, and use every parameter in `log_prob`"
    ),
    ConformanceCheck(
        learning_is_kept, "let `sample` follow the parameters that `log_prob` has; keep no number outside"
    ),
    ConformanceCheck(
        first_two_moments, "make `mean` and `variance` those of `sample`, or leave them out to have them estimated"
    ),
    ConformanceCheck(pairwise_scale, "leave `pairwise_scale` out (it follows from `variance`) or make it E|z - z'|^2"),
    ConformanceCheck(support, "make `bounds` hold every draw, and `log_prob` finite where draws fall"),
    ConformanceCheck(
        log_prob_agrees_with_draws,
        "`log_prob` and `sample` are two laws: compare their scale and norm, or leave `log_prob` out",
    ),
    ConformanceCheck(
        log_prob_integrates_to_one, "add the log of the normalizing constant to `log_prob`, or leave it out"
    ),
    ConformanceCheck(
        batches_follow_the_prior, "`sample_batch` may stratify, but each row must follow the law of `sample`"
    ),
    ConformanceCheck(rows_are_independent, "stratify in `sample_batch` alone; measurements need independent rows"),
)
