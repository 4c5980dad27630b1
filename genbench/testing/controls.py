"""The checks of controls, on the kit's pictures, and of samplers, fitted to normal codes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from genbench.api import (
    Control,
    DataConfig,
    DatasetInfo,
    Images,
    LatentControl,
    ModelContext,
    Noise,
    Prior,
    Sampler,
    TrainingStats,
)
from genbench.data.images import to_float
from genbench.errors import MetricError, NotApplicableError
from genbench.evaluation.controls import ControlEvaluation
from genbench.testing.fixtures import Gauss, Small, seeded, seeded_noise
from genbench.testing.results import ConformanceCheck, Skipped, expect, expect_tensor, global_state
from genbench.testing.synthetic import SHAPE, noise, pictures, real_images

# ---------------------------------------------------------------- controls

LATENT = 8
TRAIN, TEST = 300, 120
FEW, SOME = 7, 70


@dataclass(frozen=True)
class Controls:
    """One control with its default options."""

    make: Callable[[], Control]

    def fitted(self, seed: int = 0, test: int = 2) -> tuple[Control, ControlEvaluation]:
        """A control fitted as a run fits it, and its evaluation; `test` seeds the held-out pictures."""
        images = real_images(TRAIN, TEST, 20, test_seed=test)
        context = ModelContext(SHAPE, LATENT, Gauss(LATENT), Small(SHAPE))
        control = self.make()
        torch.manual_seed(seed)  # the caller's part of the contract; the kit puts the global state back
        with torch.no_grad():
            control.fit(images, context)
        return control, evaluation(control, context, images)


def build_control(make: Callable[[], Control]) -> Controls:
    """The subject; raises the control's error where it refuses the kit's pictures."""
    subject = Controls(make)
    make().validate(DatasetInfo(SHAPE, TRAIN, TEST), Gauss(LATENT))
    subject.fitted()
    return subject


def evaluation(control: Control, context: ModelContext, images: Images) -> ControlEvaluation:
    """The evaluation that metrics get of a run of the seed 0."""
    data_config = DataConfig(Path(tempfile.gettempdir()), Path(tempfile.gettempdir()))
    cost = TrainingStats(0.0, 0, control.parameters, "cpu", 1)
    return ControlEvaluation(
        control, context, images, seed=0, device=torch.device("cpu"), training=cost, data_config=data_config, memory={}
    )


def samples_are_uint8(subject: Controls) -> str:
    """`sample(n, e)` is (n, c, h, w) uint8, the same at a second call, and uses no global randomness."""
    control, e = subject.fitted()
    with torch.no_grad():
        before = global_state()
        first = control.sample(FEW, e)
        expect_tensor(f"sample({FEW}, e)", first)
        expect(global_state() == before, "sampling changes the global random state")
        torch.manual_seed(99)
        again = control.sample(FEW, e)
    observation = f"sample({FEW}, e) is {tuple(first.shape)} {first.dtype}"
    expect(
        first.shape == (FEW, *SHAPE) and first.dtype == torch.uint8, f"{observation}, expected {(FEW, *SHAPE)} uint8"
    )
    expect(torch.equal(first, again), "a second call gives other samples")
    return observation


def fewer_samples_are_the_first(subject: Controls) -> str:
    """`sample(m, e)` is the first m of `sample(n, e)`, or `NotApplicableError` where there are no n.

    One grey level is left to the rounding of a decoder that is given another batch.
    """
    control, e = subject.fitted()
    with torch.no_grad():
        few, some = control.sample(FEW, e), control.sample(SOME, e)
        expect(_alike(few, some[:FEW]), f"sample({FEW}, e) is not the first {FEW} of sample({SOME}, e)")
        try:
            many = control.sample(10 * TRAIN, e)
        except NotApplicableError as reason:
            return f"{SOME} samples; for {10 * TRAIN}: {reason}"
    expect(len(many) == 10 * TRAIN, f"sample({10 * TRAIN}, e) gives {len(many)}")
    expect(_alike(some, many[:SOME]), f"sample({SOME}, e) is not the first {SOME} of sample({10 * TRAIN}, e)")
    return f"{FEW}, {SOME} and {10 * TRAIN} samples"


def reconstructs_in_the_unit_interval(subject: Controls) -> str:
    """Reconstructions are (n, c, h, w) in [0, 1], float32, of each image alone; or `NotApplicableError`."""
    control, _ = subject.fitted()
    x = to_float(pictures(FEW, 5))
    copy = x.clone()
    with torch.no_grad():
        try:
            made, alone = control.reconstruct(x), control.reconstruct(x[:2])
        except NotApplicableError as reason:
            raise Skipped(str(reason)) from None
    low, high = float(made.min()), float(made.max())
    expect(made.shape == x.shape and made.dtype == torch.float32, f"reconstruct is {tuple(made.shape)} {made.dtype}")
    expect(low >= 0.0 and high <= 1.0, f"reconstructions lie in [{low:.3g}, {high:.3g}], not in [0, 1]")
    expect(torch.equal(x, copy), "reconstruct changes the images that it is given")
    apart = float((made[:2] - alone).abs().max())
    expect(apart < 1e-4, f"a reconstruction depends on the rest of its batch ({apart:.2g})")
    return f"in [{low:.2f}, {high:.2f}]"


def codes_have_their_shape(subject: Controls) -> str:
    """A `LatentControl` encodes to (n, d) finite float32 without randomness and decodes to [0, 1]."""
    control, _ = subject.fitted()
    if not isinstance(control, LatentControl):
        raise Skipped("a control without codes")
    x = to_float(pictures(FEW, 5))
    with torch.no_grad():
        code = control.encode(x)
        again = control.encode(x)
        image = control.decode(4.0 * Gauss(LATENT).sample(FEW, seeded_noise(3)))
    expect(code.shape == (FEW, LATENT) and code.dtype == torch.float32, f"encode is {tuple(code.shape)} {code.dtype}")
    expect(bool(code.isfinite().all()) and torch.equal(code, again), "encode is random or not finite")
    low, high = float(image.min()), float(image.max())
    expect(image.shape == (FEW, *SHAPE), f"decode is {tuple(image.shape)}, expected {(FEW, *SHAPE)}")
    expect(low >= 0.0 and high <= 1.0, f"decoded images lie in [{low:.3g}, {high:.3g}], not in [0, 1]")
    return "codes and images as the contract says"


def fitted_again_is_the_same(subject: Controls) -> str:
    """A second fit from the same images and seed gives equal samples, reconstructions and count of parameters."""
    (first, e), (second, e_second) = subject.fitted(), subject.fitted()
    expect(first.parameters == second.parameters, f"{first.parameters} parameters, then {second.parameters}")
    for what, a, b in zip(("samples", "reconstructions"), _shown(first, e), _shown(second, e_second), strict=True):
        expect(torch.equal(a, b), f"a second fit gives other {what}: nothing is stored, so a rerun would differ")
    return f"{first.parameters:,} parameters"


def fitting_ignores_held_out_images(subject: Controls) -> str:
    """`fit` looks at training images alone: with other held-out images what was fitted is the same."""
    (first, e), (second, _) = subject.fitted(test=2), subject.fitted(test=9)
    e_second = evaluation(second, e.context, e.images)  # what samples are made *from* may be the held-out images
    expect(first.parameters == second.parameters, f"{first.parameters} parameters, then {second.parameters}")
    for what, a, b in zip(("samples", "reconstructions"), _shown(first, e), _shown(second, e_second), strict=True):
        expect(torch.equal(a, b), f"other held-out images at `fit` give other {what}")
    return "the same with other held-out images"


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and int((a.int() - b.int()).abs().max()) <= 1


@torch.no_grad()
def _shown(control: Control, e: ControlEvaluation) -> tuple[Tensor, Tensor]:
    """Samples, and reconstructions of images and of noise, which are empty where the control has none."""
    try:
        made = control.reconstruct(to_float(torch.cat([pictures(FEW, 5), noise(FEW, 6)])))
    except NotApplicableError:
        made = torch.empty(0)
    return control.sample(SOME, e), made


CONTROL_CHECKS: tuple[ConformanceCheck[Controls], ...] = (
    ConformanceCheck(
        samples_are_uint8, "round with x.mul(255).round().to(torch.uint8); draw from evaluation.generator(purpose)"
    ),
    ConformanceCheck(
        fewer_samples_are_the_first, "draw in blocks whose size does not depend on n, and cut the last one"
    ),
    ConformanceCheck(reconstructs_in_the_unit_interval, "clamp to [0, 1], and treat each image alone"),
    ConformanceCheck(codes_have_their_shape, "flatten what `encode` yields; end `decode` in a sigmoid or a clamp"),
    ConformanceCheck(
        fitted_again_is_the_same, "fit from the images; draw from torch's global state alone, which the caller seeds"
    ),
    ConformanceCheck(
        fitting_ignores_held_out_images, "use images.train in `fit`, never images.test or images.validation"
    ),
)


# ---------------------------------------------------------------- samplers

SAMPLER_LATENT = 4
CODES, DRAWS = 500, 2000
SHIFT = 3.0


@dataclass(frozen=True)
class Samplers:
    """One sampler, with its default options; `first` is fitted to N(3, 1) where it is fitted at all."""

    make: Callable[[Prior], Sampler]
    first: Sampler

    def fitted(self, to: Tensor) -> Sampler:
        """A sampler fitted to some codes, as a run fits it."""
        sampler = self.make(Gauss(SAMPLER_LATENT))
        if sampler.training_codes:
            sampler.check_codes(to)
            sampler.fit(to.clone())
        return sampler


def codes(seed: int = 1) -> Tensor:
    """Normal codes away from the origin, `(n, d)` float64."""
    return torch.randn(CODES, SAMPLER_LATENT, generator=seeded(seed), dtype=torch.float64) + SHIFT


def build_sampler(make: Callable[[Prior], Sampler]) -> Samplers:
    """The subject of the checks."""
    sampler = make(Gauss(SAMPLER_LATENT))
    return replace(subject := Samplers(make, sampler), first=subject.fitted(codes()))


def draws_have_their_shape(subject: Samplers) -> str:
    """`sample(n, noise)` is (n, d) finite float32 and uses no global randomness."""
    before = global_state()
    drawn = subject.first.sample(7, Noise(seeded(2)))
    expect_tensor("sample(7, noise)", drawn)
    expect(global_state() == before, "sampling changes the global random state")
    text = f"sample(7, noise) is {tuple(drawn.shape)} {drawn.dtype}"
    expect(
        drawn.shape == (7, SAMPLER_LATENT) and drawn.dtype == torch.float32,
        f"{text}, expected (7, {SAMPLER_LATENT}) float32",
    )
    expect(bool(drawn.isfinite().all()), "some draws are not finite")
    return text


def draws_follow_the_noise(subject: Samplers) -> str:
    """Equal noise gives equal draws, and other noise other draws, whatever the global random state."""
    first = subject.first.sample(50, Noise(seeded(3)))
    torch.manual_seed(99)
    expect(torch.equal(first, subject.first.sample(50, Noise(seeded(3)))), "two draws from equal noise differ")
    expect(not torch.equal(first, subject.first.sample(50, Noise(seeded(4)))), "draws from other noise are the same")
    return "equal draws from equal noise"


def fitted_again_draws_the_same(subject: Samplers) -> str:
    """A second fit to equal codes gives equal draws and leaves the codes and the global random state as they were."""
    if not subject.first.training_codes:
        raise Skipped("a sampler that is not fitted")
    given, again = codes(), subject.make(Gauss(SAMPLER_LATENT))
    torch.manual_seed(99)
    before = global_state()
    again.fit(given)
    expect(global_state() == before, "the fit changes the global random state")
    expect(torch.equal(given, codes()), "the fit changes the codes that it is given")
    first, second = (sampler.sample(50, Noise(seeded(3))) for sampler in (subject.first, again))
    expect(torch.equal(first, second), "a second fit to equal codes gives other draws")
    return "equal draws"


def draws_follow_the_codes(subject: Samplers) -> str:
    """The mean of draws is that of the codes fitted, or the prior's where nothing is fitted."""
    sampler = subject.first
    expected = codes().mean(0) if sampler.training_codes else Gauss(SAMPLER_LATENT).mean.double()
    gap = float((sampler.sample(DRAWS, Noise(seeded(4))).double().mean(0) - expected).abs().max())
    expect(gap < 0.3, f"the mean of {DRAWS} draws is {gap:.2g} from the mean of what was fitted")
    return f"within {gap:.2g}"


def odd_codes_are_fitted_or_refused(subject: Samplers) -> str:
    """`least_codes` codes, equal codes and a constant coordinate give finite draws, or `MetricError` for a reason."""
    if not (count := subject.first.training_codes):
        raise Skipped("a sampler that is not fitted")
    least = subject.first.least_codes
    expect(2 <= least <= count, f"least_codes is {least}, and {count} codes are fitted by default")
    level = codes()
    level[:, 0] = SHIFT
    odd = {
        f"least_codes, {least}": codes()[:least],
        "equal codes": torch.full((CODES, SAMPLER_LATENT), SHIFT, dtype=torch.float64),
        "codes with a constant coordinate": level,
    }
    refused = []
    for what, given in odd.items():
        try:
            drawn = subject.fitted(given).sample(7, Noise(seeded(2)))
        except MetricError as reason:
            expect(not what.startswith("least"), f"{what}, are refused: {reason}")
            refused.append(f"refuses {what}")
            continue
        expect(bool(drawn.isfinite().all()), f"fitted to {what}, some draws are not finite")
    return "; ".join(refused) or "finite draws"


SAMPLER_CHECKS: tuple[ConformanceCheck[Samplers], ...] = (
    ConformanceCheck(draws_have_their_shape, "draw from the noise alone, and return float32"),
    ConformanceCheck(draws_follow_the_noise, "draw from the noise alone"),
    ConformanceCheck(fitted_again_draws_the_same, "seed the fit: genbench.data.seeds.generator"),
    ConformanceCheck(draws_follow_the_codes, "fit to the codes that `fit` is given"),
    ConformanceCheck(
        odd_codes_are_fitted_or_refused, "set `least_codes`, and raise MetricError where nothing can be fitted"
    ),
)
