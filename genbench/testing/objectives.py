"""The checks of a model's loss: its sign, its scale, the effect of its options, and its sliced distances."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genbench.api import Model, ModelContext, Prior
from genbench.errors import GenbenchError, UnsupportedError
from genbench.registry.options import OptionSpec, specs
from genbench.testing.fixtures import (
    BATCH,
    LATENT,
    SHAPE,
    ControlledNetwork,
    Gauss,
    code_images,
    fresh,
    losses,
    model_context,
    seeded_noise,
    squares,
    steps,
)
from genbench.testing.models import Models
from genbench.testing.results import ConformanceCheck, Failed, Reported, Skipped, expect

AWAY = 3.0
"""Standard deviations by which codes are shifted."""

REPEATS = 50
Z = 7.0


def _controlled(subject: Models) -> tuple[Model, ControlledNetwork]:
    network = ControlledNetwork(SHAPE, LATENT)
    return fresh(subject.factory, model_context(subject.prior, network)), network


def batches(prior: Prior, n: int, count: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Images whose codes follow the prior, and independent draws of it."""
    for k in range(first, first + count):
        codes, z = prior.sample(n, seeded_noise(2 * k)), prior.sample(n, seeded_noise(2 * k + 1))
        yield code_images(codes, SHAPE), z


def matching_codes_cost_less(subject: Models) -> str:
    """The loss is lower where the codes follow the prior than where they are shifted (a wrong sign)."""
    model, network = _controlled(subject)
    names = list(model.configure_optimizers())
    encoding = next(name for name in names if _reaches_encoder(model, name))
    network.offset.value = AWAY
    if len(names) > 1:  # an adversary first learns to detect shifted codes, while the encoder is fixed
        steps(model, batches(subject.prior, 64, 150, 1000), learn=lambda name: name != encoding)
    sides = (AWAY,) if len(names) > 1 else (AWAY, -AWAY)
    means = []
    for side in sides:
        gaps = []
        for x, z in batches(subject.prior, 64, 8):
            network.offset.value = 0.0
            near = float(losses(model, x, z)[encoding])
            network.offset.value = side
            gaps.append(float(losses(model, x, z)[encoding]) - near)
        means.append(sum(gaps) / len(gaps))
    gap = min(means)
    if not any(means):
        expect(not _uses_draws(model), "the loss uses the prior's draws, and shifted codes do not change it at all")
        raise Reported("the loss does not depend on where the codes lie: that of a plain autoencoder")
    observation = f"codes shifted by {AWAY:g} standard deviations change the loss of {encoding} by {gap:+.3g}"
    expect(gap > 0.0, observation)
    blank = math.prod(SHAPE) / 12.0  # summed squared error of a grey image against uniform pixels
    expect(gap > 1e-3 * blank, f"{observation}: next to nothing beside a blank image's squared error of {blank:.1f}")
    return observation


def penalty_ignores_batch_size(subject: Models) -> str:
    """The loss does not depend on the batch's size: no bias in its mean, or none when the batch is repeated.

    A mean and a U-statistic have the same expectation for every size. A distance between the two empirical laws (sorted
    samples) has a sampling share, but is unchanged where every row occurs twice. A penalty that does neither (diagonal
    left in, division by n(n-1), shards of a batch) is another objective at another batch size.
    """
    model, network = _controlled(subject)
    worst = 0.0
    for offset in (0.0, AWAY):
        network.offset.value = offset
        # Noise of each batch's seed: the errors of a loss that is an estimate average out as well.
        prior = subject.prior
        small = [losses(model, x, z, seed=7 + 2 * k) for k, (x, z) in enumerate(batches(prior, 8, REPEATS))]
        doubled = ((x.repeat(2, 1, 1, 1), z.repeat(2, 1)) for x, z in batches(prior, 8, REPEATS))
        twice = [losses(model, x, z, seed=7 + 2 * k) for k, (x, z) in enumerate(doubled)]
        large: list[dict[str, Tensor]] = []
        for name in small[0]:
            a, c = (torch.stack([each[name] for each in group]).double() for group in (small, twice))
            floor = 1e-5 * float(a.abs().mean()) + 1e-9
            change = _score((c - a).mean(), (c - a).std(), floor)
            if change <= Z:
                worst = max(worst, change)
                continue
            large = large or [
                losses(model, x, z, seed=8 + 2 * k) for k, (x, z) in enumerate(batches(prior, 32, REPEATS, 5000))
            ]
            b = torch.stack([each[name] for each in large]).double()
            bias = _score(a.mean() - b.mean(), (a.var() + b.var()).sqrt(), floor)
            worst = max(worst, bias)
            observation = f"mean loss of {name} {float(a.mean()):.4g} for batches of 8, {float(b.mean()):.4g} for 32"
            expect(bias <= Z, f"{observation}, {float(c.mean()):.4g} for the 8 repeated twice")
    return f"{worst:.1f} standard errors at most"


def every_option_counts(subject: Models) -> str:
    """Each option changes the losses, the learning or the size of the model, alone or beside another option's value."""
    options = specs(subject.factory.spec.factory)
    defaults = {name.replace("-", "_"): spec.default for name, spec in options.items()}
    contexts: list[dict[str, object]] = [{}]
    contexts += [
        {n.replace("-", "_"): v} for n, s in options.items() if s.choices or s.type is bool for v in _other_values(s)
    ]
    prints: dict[str, tuple[float, ...]] = {}

    def behaviour(changes: dict[str, object]) -> tuple[float, ...] | None:
        key = repr(sorted(changes.items()))
        if key not in prints:
            try:
                prints[key] = _behaviour(subject, {**defaults, **changes})
            except GenbenchError:
                prints[key] = ()
        return prints[key] or None

    idle = []
    for name, spec in options.items():
        field, counts = name.replace("-", "_"), False
        for context in contexts:
            if field not in context and not counts:
                before = behaviour(context)
                after = [behaviour({**context, field: value}) for value in _other_values(spec)]
                counts = before is not None and any(each is not None and each != before for each in after)
        if not counts and list(_other_values(spec)):
            idle.append(name)
    expect(not idle, f"changing {', '.join(idle)} changes nothing")
    return f"{', '.join(options) or 'no options'}"


def step_waits_on_nothing(subject: Models) -> str:
    """A step reads no number off the device, so that it can be captured; reported, not required."""
    waits: list[str] = []
    model = subject.new()
    x, z = squares(BATCH), subject.draws(BATCH)
    with _OperationLog(waits):
        for _ in model.training_step(x, z, seeded_noise(0)):
            pass
    if waits:
        raise Reported(f"a step waits on the device {len(waits)} times ({', '.join(sorted(set(waits)))})")
    return "a step waits on nothing"


def the_prior_is_used(subject: Models) -> str:
    """A loss that depends on the codes depends on the prior too: N(0, 9 I) in place of N(0, I) changes it."""
    model = subject.new()
    if model.prior is not model.context.prior:
        raise Skipped("the model learns its prior")
    values = []
    for sigma in (1.0, 3.0):
        network = ControlledNetwork(SHAPE, LATENT)
        try:
            model = fresh(subject.factory, model_context(Gauss(LATENT, sigma=sigma), network))
        except UnsupportedError:
            raise Skipped("refuses N(0, 9 I)") from None
        for offset in (0.0, AWAY):
            network.offset.value = offset
            x, z = next(batches(subject.prior, 64, 1))
            values.append([float(loss) for loss in losses(model, x, sigma * z).values()])
    if values[0] == values[1]:
        raise Skipped("the loss does not depend on the codes")
    expect(values[1] != values[3], "the loss is the same for N(0, I) and N(0, 9 I): a prior is assumed in silence")
    return "the loss follows the prior"


def nothing_broadcasts_by_accident(subject: Models) -> str:
    """No step combines (n, 1) with (n,), which is (n, n); all pairs, where meant, are x[:, None] and y[None, :]."""
    model, n = subject.new(), 13
    pairs: list[str] = []
    with _OperationLog([], pairs, n):
        for _ in model.training_step(squares(n), subject.draws(n), seeded_noise(0)):
            pass
    expect(not pairs, f"{', '.join(sorted(set(pairs)))} of (n, 1) and (n,) is (n, n)")
    return "none"


def _uses_draws(model: Model) -> bool:
    x, z = next(batches(model.context.prior, 8, 1))
    z.requires_grad_()
    return any(
        torch.autograd.grad(loss.value, z, allow_unused=True, retain_graph=True)[0] is not None
        for loss in model.training_step(x, z, seeded_noise(0))
        if loss.value.requires_grad
    )


class _OperationLog(TorchDispatchMode):
    """Notes each operation that a host would wait for, and each that takes (n, 1) and (n,) to (n, n)."""

    def __init__(self, waits: list[str], pairs: list[str] | None = None, n: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits, self.pairs, self.n = waits, [] if pairs is None else pairs, n

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(func) for word in ("_local_scalar_dense", "nonzero", "masked_select")):
            self.waits.append(str(func))
        shapes = {tuple(each.shape) for each in args if isinstance(each, Tensor)}
        out = func(*args, **(kwargs or {}))
        pair = {(self.n, 1), (self.n,)} <= shapes
        if pair and isinstance(out, Tensor) and out.shape == (self.n, self.n):
            self.pairs.append(str(func))
        return out


def _reaches_encoder(model: Model, optimizer: str) -> bool:
    gain = {id(p) for name, p in model.named_parameters() if name.endswith("gain")}
    return any(id(p) in gain for p in model.configure_optimizers()[optimizer].parameters)


def _score(gap: Tensor, spread: Tensor, floor: float) -> float:
    return float(gap.abs() / (spread / math.sqrt(REPEATS) + floor))


def _other_values(spec: OptionSpec) -> list[object]:
    """Other values of an option than its default."""
    if spec.choices:
        return [value for value in spec.choices if value != spec.default]
    if spec.type is bool:
        return [not spec.default]
    if spec.type not in (int, float) or spec.default is None:
        return []
    value, high = spec.default, spec.meaning.high
    double = value * 2 + (1 if value == 0 else 0)
    return [spec.type(double if high is None or double <= high else value * 0.5)]


def _behaviour(subject: Models, options: dict[str, object]) -> tuple[float, ...]:
    """Numbers in which two models differ: losses of a few steps at epochs early and late, and sizes."""
    model = subject.new(**options)
    numbers = [float(sum(p.numel() for p in model.parameters()))]
    for config in model.configure_optimizers().values():
        numbers += [config.schedule(epoch) for epoch in (0, 40, 120)]
    for epoch in (0, 40):
        model.on_epoch_start(epoch)
        for each in steps(model, ((squares(BATCH, s), subject.draws(BATCH, s)) for s in range(3))):
            numbers += each.values()
    return tuple(numbers)


# ---------------------------------------------------------------- models with an option `projections`


def default_count(subject: Models) -> int:
    """The default of the option, or `Skipped`."""
    spec = specs(subject.factory.spec.factory).get("projections")
    if spec is None or not isinstance(spec.default, int):
        raise Skipped("there is no option `projections`")
    return spec.default


def projections_are_averaged(subject: Models) -> str:
    """Where there is an option `projections`, twice as many leave the size of the loss alone, within 30 %."""
    sizes, few = [], default_count(subject)
    for count in (few, 2 * few):
        network = ControlledNetwork(SHAPE, LATENT)
        model = fresh(subject.factory, model_context(subject.prior, network), projections=count)
        network.offset.value = AWAY
        totals = [
            sum(float(loss) for loss in losses(model, x, z, k).values())
            for k, (x, z) in enumerate(batches(subject.prior, 64, 20))
        ]
        sizes.append(sum(totals) / len(totals))
    text = f"loss {sizes[0]:.4g} with {few} directions, {sizes[1]:.4g} with {2 * few}"
    expect(abs(sizes[1] - sizes[0]) <= 0.3 * abs(sizes[0]), text)
    return text


def directions_have_unit_length(subject: Models) -> str:
    """On a line, where a unit direction is 1 or -1, drawing other directions does not rescale the penalty.

    The penalty of codes shifted by t and by 2 t, each less that of codes in place, under two generators: directions
    that are not normalised multiply both differences by one factor, the mean of |theta|^p. Nonlinear slices, which do
    depend on the draw there, change the two by different factors; that is reported and is no fault.
    """
    default_count(subject)
    network = ControlledNetwork(SHAPE, 1)
    model = fresh(subject.factory, ModelContext(SHAPE, 1, Gauss(1), network))
    x, z = code_images(subject.draws(64, 3)[:, :1], SHAPE), subject.draws(64, 4)[:, :1]
    gaps = []
    for seed in (1, 2):
        totals = []
        for offset in (0.0, AWAY, 2.0 * AWAY):
            network.offset.value = offset
            totals.append(sum(float(loss) for loss in losses(model, x, z, seed).values()))
        gaps.append((totals[1] - totals[0], totals[2] - totals[0]))
    (near_first, far_first), (near_second, far_second) = gaps
    if not near_first or not far_first:
        raise Skipped("the loss does not depend on the codes")
    near, far = near_second / near_first, far_second / far_first
    if abs(near - 1.0) <= 1e-3 and abs(far - 1.0) <= 1e-3:
        return "the same under another generator"
    if abs(near - far) <= 1e-3 * abs(near):
        raise Failed(f"other directions multiply the penalty by {near:.4g}, on a line where all have length one")
    raise Reported(f"other projections multiply the penalty by {near:.4g} or {far:.4g}: it is no linear slice")


CHECKS: tuple[ConformanceCheck[Models], ...] = (
    ConformanceCheck(
        matching_codes_cost_less, "add the penalty to the reconstruction cost, and make its weight and scale matter"
    ),
    ConformanceCheck(
        penalty_ignores_batch_size, "take means over the batch; of pairs, over n(n-1) without the diagonal"
    ),
    ConformanceCheck(every_option_counts, "use the option in the loss, or remove it"),
    ConformanceCheck(the_prior_is_used, "use z, self.prior.log_prob or normal_sigma; refuse priors that do not fit"),
    ConformanceCheck(
        nothing_broadcasts_by_accident, "squeeze the critic's (n, 1) to (n,) before adding log p(z), which is (n,)"
    ),
    ConformanceCheck(step_waits_on_nothing, "no .item(), float(tensor) or `if tensor` in `training_step`"),
    ConformanceCheck(projections_are_averaged, "take the mean over directions"),
    ConformanceCheck(
        directions_have_unit_length, "use genbench.distances.random_projections, or divide each direction by its norm"
    ),
)
