"""The checks of metrics, on evaluations whose pieces are known (`genbench.testing.synthetic`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import genbench.evaluation.evaluation
import genbench.features.extractor
from genbench.api import DatasetInfo, Measurement, Metric
from genbench.data.images import info_of
from genbench.errors import GenbenchError, MetricError
from genbench.evaluation.evaluation import DetachedEvaluation
from genbench.evaluation.measure import to_stored
from genbench.registry.options import specs
from genbench.testing.fixtures import Gauss
from genbench.testing.results import ConformanceCheck, Failed, Reported, Skipped, expect
from genbench.testing.synthetic import CLASSES, FACTORS, LATENT, SHAPE, TEST, TRAIN, VALIDATION, Scene, Synthetic

GOOD = Scene()
BAD = Scene(samples="noise", shift=3.0, error=1.0)
SHARE = 0.05
"""The share of the gap between noise and real images by which order or chance may change a value."""

SIZES = ((TRAIN, TEST), (1200, 1000), (3000, 2500))
"""Training and test images, the smallest first."""


@dataclass
class Measured:
    """A metric's maker, and its numbers on the scenes measured so far, by component."""

    make: Callable[..., Metric]
    options: dict[str, int]
    train: int
    test: int
    known: dict[Scene, dict[str, Measurement]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    memory: dict[str, Any] = field(default_factory=dict)

    def on(self, scene: Scene) -> dict[str, Measurement]:
        """The measurements of a scene of the kit's dataset, once; scenes share its memory, as runs of a study do.

        Scenes that differ only in what the metric never asks for are one.
        """
        assert (scene.order, scene.strided, scene.test) == (0, False, 0)
        if self.known:
            unused = {name: getattr(GOOD, name) for name in ("samples", "shift", "error") if name not in self.asked}
            scene = replace(scene, **unused)
        if scene not in self.known:
            self.known[scene] = self.anew(scene, self.memory)
        return self.known[scene]

    def anew(self, scene: Scene, memory: dict[str, Any] | None = None) -> dict[str, Measurement]:
        """The measurements of a scene by a new metric and a new evaluation."""
        evaluation = self.evaluation(scene, memory)
        numbers = list(self.make(**self.options).measure(evaluation))
        self.asked |= evaluation.asked
        names = [each.component for each in numbers]
        expect(len(set(names)) == len(names), f"two measurements of one component: {', '.join(names)}")
        return {each.component: each for each in numbers}

    def evaluation(self, scene: Scene, memory: dict[str, Any] | None = None) -> Synthetic:
        """The scene with as many images as this metric is checked with."""
        return Synthetic(replace(scene, train=self.train, test=scene.test or self.test), memory)

    def ranked(self) -> dict[str, tuple[Measurement, Measurement]]:
        """Real and noise, of the components that rank and whose values differ between the scenes."""
        good, bad = self.on(GOOD), self.on(BAD)
        return {
            component: (good[component], bad[component])
            for component in good
            if component in bad
            and good[component].higher_is_better is not None
            and not math.isclose(good[component].value, bad[component].value, rel_tol=1e-6)  # rounding
        }


def build(make: Callable[..., Metric]) -> Measured:
    """The subject, on the smallest of three sizes that the metric accepts; larger counts among its options shrink."""
    options = specs(getattr(make, "spec").factory)  # noqa: B009
    refusal: Exception | None = None
    for train, test in SIZES:
        counts = {n.replace("-", "_"): s.default for n, s in options.items() if s.type is int}
        small = {n: test for n, default in counts.items() if isinstance(default, int) and default > test}
        subject = Measured(make, small, train, test)
        try:
            summary = DatasetInfo(SHAPE, train, test, VALIDATION, len(CLASSES), CLASSES, factors=FACTORS)
            subject.make(**small).validate(summary, Gauss(LATENT), subject.evaluation(GOOD).data_config)
            subject.on(GOOD)
        except GenbenchError as error:
            refusal = error
            continue
        return subject
    raise Skipped(f"refuses the kit's {SIZES[-1][1]} grey images of 28x28: {refusal}")


def finite_measurements(subject: Measured) -> str:
    """It yields measurements with finite values, a unit, a count and a protocol, which metrics.json can store."""
    numbers = subject.on(GOOD)
    expect(bool(numbers), "no measurement")
    for component, each in numbers.items():
        expect(isinstance(each, Measurement), f"yields {type(each).__name__}, not Measurement")
        expect(math.isfinite(each.value), f"component '{component}' is {each.value}")
        expect(bool(each.unit) and each.n > 0, f"component '{component}' lacks a unit or a count")
        try:
            to_stored(each)
        except MetricError as error:
            raise Failed(str(error)) from None
    return f"{len(numbers)} numbers"


def repeatable(subject: Measured) -> str:
    """A second measurement of equal inputs gives equal numbers and protocols."""
    first, second = subject.on(GOOD), subject.anew(GOOD)
    expect(first.keys() == second.keys(), "the components differ at a second measurement")
    for component, each in first.items():
        expect(
            each.value == second[component].value,
            f"component '{component}': {each.value:.6g}, then {second[component].value:.6g}",
        )
        expect(each.protocol == second[component].protocol, f"component '{component}': the protocols differ")
    return "equal numbers"


def direction_holds(subject: Measured) -> str:
    """`higher_is_better` is right: real images and codes of the prior score better than noise and shifted codes.

    Reported, and not required, of a metric that the scenes do not move or that ranks nothing (sharpness, a time).
    """
    pairs = subject.ranked()
    if not pairs:
        raise Reported(
            "no component that ranks differs between the kit's pictures and noise: its direction is not checked"
        )
    for component, (good, bad) in pairs.items():
        right = good.value > bad.value if good.higher_is_better else good.value < bad.value
        direction = "higher" if good.higher_is_better else "lower"
        text = f"component '{component}', {direction} is better: {good.value:.4g} for real, {bad.value:.4g} for noise"
        expect(right, text)
    return text


def order_does_not_matter(subject: Measured) -> str:
    """A permutation of images, samples and codes changes no value by more than 5 % of what noise would."""
    pairs = subject.ranked()
    permuted = subject.anew(Scene(order=5))
    for component, (good, bad) in pairs.items():
        change, gap = abs(permuted[component].value - good.value), abs(bad.value - good.value)
        expect(
            change <= SHARE * gap,
            f"component '{component}': {good.value:.6g} becomes {permuted[component].value:.6g} when permuted",
        )
    return f"{len(pairs)} components"


def batches_do_not_matter(subject: Measured) -> str:
    """Smaller batches through model and extractor, of images that lie otherwise in memory, change no value.

    Within float32's rounding: 0.1 % of the gap to noise, and a millionth of the value. A time or a memory is left out.
    """
    good = subject.on(GOOD)
    noisy = {component: bad.value for component, (_, bad) in subject.ranked().items()}
    with smaller_batches():
        smaller = subject.anew(replace(GOOD, strided=True))
    for component, each in good.items():
        room = 1e-3 * abs(noisy.get(component, each.value) - each.value) + 1e-6 * abs(each.value)
        text = f"component '{component}': {each.value:.8g}, and {smaller[component].value:.8g} in other batches"
        expect(abs(smaller[component].value - each.value) <= room, text)
    return f"{len(good)} numbers"


@contextmanager
def smaller_batches() -> Iterator[None]:
    """The core's batches are 37 and 11 images for the time being."""
    before = genbench.evaluation.evaluation.BATCH, genbench.features.extractor.BATCH
    genbench.evaluation.evaluation.BATCH, genbench.features.extractor.BATCH = 37, 11
    try:
        yield
    finally:
        genbench.evaluation.evaluation.BATCH, genbench.features.extractor.BATCH = before


def perfect_sits_at_the_floor(subject: Measured) -> str:
    """Where lower is better, the references themselves, exact reconstructions and prior draws reach the floor.

    The floor is 0 where none is stated; 5 % of the gap to noise, or six standard deviations of it, may be left.
    """
    lower = {component: pair for component, pair in subject.ranked().items() if pair[0].higher_is_better is False}
    if not lower:
        raise Skipped("no component where lower is better differs between the kit's pictures and noise")
    perfect = subject.on(Scene(samples="references", error=0.0))
    for component, (good, bad) in lower.items():
        floor = good.floor or 0.0
        room = max(SHARE * abs(bad.value - floor), 6.0 * (good.floor_sd or 0.0))
        value = perfect[component].value
        stated = "no floor is stated" if good.floor is None else f"the floor is {floor:.4g}"
        expect(value <= floor + room, f"component '{component}' is {value:.4g} where nothing is wrong; {stated}")
    return f"{len(lower)} components"


def contrast_is_seen(subject: Measured) -> str:
    """Samples at a third of their brightness are not taken for equally good, nor for better than real ones.

    Equally good: each image is rescaled by its own range. Better: samples and references are on two scales.
    """
    good, noisy = subject.on(GOOD), subject.on(Scene(samples="noise"))
    dim = subject.on(Scene(samples="dim"))
    dependent = [
        component
        for component, each in good.items()
        if each.value != noisy[component].value and each.higher_is_better is not None
    ]
    if not dependent:
        raise Skipped("no component that ranks depends on the samples")
    for component in dependent:
        change, gap = (
            abs(dim[component].value - good[component].value),
            abs(noisy[component].value - good[component].value),
        )
        values = f"{good[component].value:.4g} for real samples, {dim[component].value:.4g} at a third of their light"
        text = f"component '{component}': {values}"
        expect(change > 0.01 * gap, text)
        worse = good[component].value - dim[component].value
        worse = worse if good[component].higher_is_better else -worse
        expect(worse >= -SHARE * gap, f"{text}, which is better")
    return text


def refuses_what_it_cannot_measure(subject: Measured) -> str:
    """NaN in codes and reconstructions, or a single test image, is refused with `MetricError` or measured finitely."""
    words = []
    for what, scene in (("NaN", Scene(nan=True)), ("one image", Scene(test=1))):
        try:
            numbers = subject.anew(scene, None if scene.test else subject.memory)
        except GenbenchError:
            words.append(f"{what}: refused")
            continue
        except Exception as error:
            raise Failed(f"{what}: raises {type(error).__name__} ({error}), not MetricError") from None
        wrong = [component for component, each in numbers.items() if not math.isfinite(each.value)]
        expect(not wrong, f"{what}: component '{wrong[0] if wrong else ''}' is not finite, and nothing was raised")
        words.append(f"{what}: measured")
    return ", ".join(words)


def codes_suffice(subject: Measured) -> str:
    """A metric that is declared `on_cpu` has the same numbers from as many codes as it states, and nothing else."""
    metric = subject.make(**subject.options)
    if not metric.on_cpu:
        return "it is measured on the device"
    whole = subject.evaluation(GOOD, subject.memory)
    codes = metric.counts_needed(info_of(whole.images)).get("codes", 0)
    try:
        numbers = list(metric.measure(DetachedEvaluation(whole, codes)))
    except GenbenchError as error:
        raise Failed(str(error)) from None
    for each in numbers:
        value = subject.on(GOOD)[each.component].value
        expect(each.value == value, f"component '{each.component}': {each.value:.6g}, and {value:.6g} with the model")
    return f"{len(numbers)} numbers from {codes} codes"


CHECKS: tuple[ConformanceCheck[Measured], ...] = (
    ConformanceCheck(
        finite_measurements, "yield one Measurement for each component, its fields as genbench.api.Measurement says"
    ),
    ConformanceCheck(repeatable, "draw from e.generator(purpose) or e.prior_draws(n, purpose)"),
    ConformanceCheck(
        direction_holds, "state the opposite direction in `higher_is_better`, or None where the value ranks nothing"
    ),
    ConformanceCheck(order_does_not_matter, "compute over all images at once, not as a mean over batches"),
    ConformanceCheck(
        batches_do_not_matter, "treat each image alone; take statistics over all images, not over a batch of them"
    ),
    ConformanceCheck(
        perfect_sits_at_the_floor,
        "compare on one scale (held_out, samples: uint8; reconstructions: in [0, 1]); do not average over batches; "
        "state as `floor` what a perfect model gets at this n, as measured on training_images(n)",
    ),
    ConformanceCheck(
        contrast_is_seen,
        "scale samples and references, both uint8, by the same 255, never an image by its own minimum and maximum",
    ),
    ConformanceCheck(
        refuses_what_it_cannot_measure,
        "raise genbench.errors.MetricError with the count and the reason, e.g. where not codes.isfinite().all()",
    ),
    ConformanceCheck(
        codes_suffice, "state the count in `counts_needed`, ask for codes and prior_draws alone, or leave `on_cpu` out"
    ),
)
