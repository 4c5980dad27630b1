"""The checks of models: shapes, optimizers, gradients, randomness, modes, state."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch

from genbench.api import Model, Prior
from genbench.errors import UnsupportedError
from genbench.testing.fixtures import (
    BATCH,
    LATENT,
    PERIOD,
    SHAPE,
    Cube,
    DecoderHalf,
    EncoderHalf,
    Gauss,
    LearnedGauss,
    Small,
    UnitSphere,
    fresh,
    losses,
    model_context,
    seeded_noise,
    squares,
    steps,
)
from genbench.testing.results import BoundFactory, ConformanceCheck, Skipped, expect, expect_tensor, global_state

GREY = 0.35
"""Standardised as MNIST is, 0.71: a model that fits standardised targets moves away from it."""

CLEARLY = 0.9
"""The share of the mean image's error at which a training need not go on."""


@dataclass(frozen=True)
class Models:
    """One model by its factory, `factory(context, **options)`, with defaults for options that are not given."""

    factory: BoundFactory
    prior: Prior

    def new(self, **options: object) -> Model:
        """An untrained model of the prior on the small network."""
        return fresh(self.factory, model_context(self.prior), **options)

    def draws(self, n: int, seed: int = 1) -> torch.Tensor:
        """Draws of the prior, `(n, 2)`."""
        return self.prior.sample(n, seeded_noise(seed))


def build(factory: BoundFactory) -> Models:
    """The subject, with N(0, I), or for a model that refuses it a law on the sphere.

    A model is made once, so that a factory that raises fails before any check.
    """
    subject = Models(factory, Gauss(LATENT))
    try:
        subject.new()
    except UnsupportedError as refusal:
        subject = Models(factory, UnitSphere(LATENT))
        try:
            subject.new()
        except UnsupportedError:
            raise refusal from None
    return subject


def shapes_ranges_dtype_device(subject: Models) -> str:
    """Codes are (n, d), images (n, c, h, w) in [0, 1], all float32 on the input's device, for 1 and 7 images."""
    model = subject.new().eval()
    for n in (1, 7):
        x = squares(n)
        with torch.no_grad():
            outputs = {
                "encode": (model.encode(x), (n, LATENT)),
                "sample_codes": (model.sample_codes(x, seeded_noise(0)), (n, LATENT)),
                "decode": (model.decode(20.0 * subject.draws(n)), (n, *SHAPE)),
            }
        for name, (value, shape) in outputs.items():
            expect_tensor(f"{name} of {n} images", value)
            expect(value.shape == shape, f"{name} of {n} images is {tuple(value.shape)}, expected {shape}")
            expect(value.dtype == torch.float32 and value.device == x.device, f"{name} is {value.dtype} {value.device}")
        image = outputs["decode"][0]
        low, high = float(image.min()), float(image.max())
        expect(low >= 0.0 and high <= 1.0, f"decoded images lie in [{low:.3g}, {high:.3g}], not in [0, 1]")
    return "codes and images as the contract says"


def optimizers_have_all_parameters(subject: Models) -> str:
    """The optimizers' parameters are disjoint and together all of the model's; each optimizer has a loss."""
    model = subject.new()
    names = {id(p): name for name, p in model.named_parameters()}
    owners: dict[int, str] = {}
    configs = model.configure_optimizers()
    for optimizer, config in configs.items():
        for p in config.parameters:
            expect(id(p) in names, f"optimizer {optimizer} has a tensor that is no parameter of the model")
            expect(id(p) not in owners, f"{names[id(p)]} belongs to {owners.get(id(p))} and to {optimizer}")
            owners[id(p)] = optimizer
    orphans = [name for key, name in names.items() if key not in owners]
    expect(not orphans, f"no optimizer has {', '.join(orphans)}")
    yielded, known = set(losses(model, squares(BATCH), subject.draws(BATCH))), set(configs)
    expect(yielded <= known, f"losses for {sorted(yielded - known)}, which `configure_optimizers` does not name")
    expect(yielded == known, f"no loss for {sorted(known - yielded)}")
    return f"optimizers {', '.join(configs)}"


def gradients_reach_everything(subject: Models) -> str:
    """Each parameter gets a finite gradient from its optimizer's losses; not all zero in encoder and decoder."""
    model = subject.new()
    configs, names = model.configure_optimizers(), {id(p): name for name, p in model.named_parameters()}
    sizes: dict[int, float] = {}
    for loss in model.training_step(squares(BATCH), subject.draws(BATCH), seeded_noise(0)):
        expect(loss.value.dim() == 0, f"the loss of {loss.optimizer} is {tuple(loss.value.shape)}, not a scalar")
        expect(not any(term.requires_grad for term in loss.logs.values()), f"logs of {loss.optimizer} are not detached")
        owned = configs[loss.optimizer].parameters
        grads = torch.autograd.grad(loss.value, owned, allow_unused=True, retain_graph=True)
        for p, grad in zip(owned, grads, strict=True):
            if grad is not None:
                expect(bool(grad.isfinite().all()), f"the gradient of {names.get(id(p), 'a parameter')} is not finite")
                sizes[id(p)] = sizes.get(id(p), 0.0) + float(grad.abs().sum())
    for half, kind in (("encoder", EncoderHalf), ("decoder", DecoderHalf)):
        inside = [id(p) for module in model.modules() if isinstance(module, kind) for p in module.parameters()]
        expect(bool(inside), f"no module of the model is the {half} that context.network made")
        expect(sum(sizes.get(p, 0.0) for p in inside) > 0.0, f"no loss has a gradient in the {half}")
    for optimizer, config in configs.items():
        missed = [names.get(id(p), "a parameter") for p in config.parameters if id(p) not in sizes]
        expect(not missed, f"no loss of {optimizer} reaches {', '.join(missed)}")
        expect(sum(sizes[id(p)] for p in config.parameters) > 0.0, f"every gradient of {optimizer} is zero")
    return "finite and present, in encoder and decoder"


def finite_over_priors(subject: Models) -> str:
    """Losses are finite scalars over priors with and without a density, or the prior is `UnsupportedError`.

    A learned prior is trained by the model's optimizers and kept in its state dict, or by none: then it is refused.
    """
    words = []
    priors = {
        "normal": Gauss(LATENT),
        "density": Gauss(LATENT, False),
        "draws alone": Cube(LATENT),
        "sphere": UnitSphere(LATENT),
        "learned": LearnedGauss(LATENT),
    }
    for label, prior in priors.items():
        try:
            model = fresh(subject.factory, model_context(prior))
        except UnsupportedError:
            words.append(f"{label}: refused")
            continue
        if label == "learned" and not _trains(model, prior):
            words.append("learned: refused")
            continue
        x, z = squares(BATCH), model.prior.sample_batch(BATCH, seeded_noise(1)).detach()
        for optimizer, loss in losses(model, x, z).items():
            expect(math.isfinite(float(loss)), f"{label}: the loss of {optimizer} is {float(loss)}")
        words.append(f"{label}: finite")
    return ", ".join(words)


def _trains(model: Model, prior: Prior) -> bool:
    """Whether the model has the prior's parameters, which an optimizer must have and a loss must reach."""
    if not {id(p) for p in prior.parameters()} <= {id(p) for p in model.parameters()}:
        return False
    expect(model.prior is prior, "the model keeps the learned prior, and its `prior` is another")
    before = [p.detach().clone() for p in prior.parameters()]
    steps(model, iter([(squares(BATCH), prior.sample(BATCH, seeded_noise(1)).detach())]))
    moved = any(not torch.equal(a, p) for a, p in zip(before, prior.parameters(), strict=True))
    expect(moved, "the model keeps the parameters of a learned prior, and no step changes them")
    return True


def likelihood_is_one_number_per_image(subject: Models) -> str:
    """`log_likelihood` is (n,) finite, without randomness, of each image alone; or not defined."""
    model = subject.new().eval()
    if not model.has_likelihood:
        raise Skipped("the model has no likelihood")
    x, z = squares(7), subject.draws(7)
    with torch.no_grad():
        value, again, alone = (
            model.log_likelihood(x, z),
            model.log_likelihood(x, z),
            model.log_likelihood(x[:2], z[:2]),
        )
    expect(value.shape == (7,), f"log_likelihood of 7 images is {tuple(value.shape)}, expected (7,)")
    expect(bool(value.isfinite().all()), "log_likelihood is not finite")
    expect(torch.equal(value, again), "log_likelihood is random")
    gap = float((value[:2] - alone).abs().max())
    expect(gap < 1e-3 * (1.0 + float(value.abs().max())), f"an image's likelihood depends on its batch ({gap:.2g})")
    return f"{float(value.mean()):.4g} nats per image, untrained"


def randomness_is_the_noise(subject: Models) -> str:
    """Equal noise gives equal losses and codes whatever the global state, which stays untouched."""
    model = subject.new()
    x, z = squares(BATCH), subject.draws(BATCH)
    before = global_state()
    first, code = losses(model, x, z), model.sample_codes(x, seeded_noise(3))
    expect(global_state() == before, "a step changes the global random state or the default dtype")
    torch.manual_seed(99)
    again = losses(model, x, z)
    expect(torch.equal(code, model.sample_codes(x, seeded_noise(3))), "sample_codes of equal noise differs")
    for optimizer, loss in first.items():
        expect(torch.equal(loss, again[optimizer]), f"the loss of {optimizer} differs for equal noise")
    expect(torch.equal(model.encode(x), model.encode(x)), "encode is random")
    return "the same for the same noise"


def evaluation_mode_is_kept(subject: Models) -> str:
    """`eval()` and `train()` reach every module, no method changes the mode, and eval decodes each code alone."""
    model = fresh(subject.factory, model_context(subject.prior, Small(normed=True)))
    steps(model, iter([(squares(BATCH, s), subject.draws(BATCH, s)) for s in range(3)]))
    expect(all(module.training for module in model.modules()), "a step leaves modules in evaluation mode")
    model.eval()
    expect(not any(module.training for module in model.modules()), "eval() leaves modules in training mode")
    with torch.no_grad():
        whole, x = model.decode(subject.draws(6)), squares(6)
        codes = model.encode(x)
        model.sample_codes(x, seeded_noise(0))
        expect(not any(module.training for module in model.modules()), "encode or decode turns training mode on")
        alone = model.decode(subject.draws(6)[:2]), model.encode(x[:2])
    apart = max(float((whole[:2] - alone[0]).abs().max()), float((codes[:2] - alone[1]).abs().max()))
    expect(apart < 1e-4, f"in evaluation an image depends on the rest of its batch ({apart:.2g})")
    return "each image alone"


def state_dict_round_trip(subject: Models) -> str:
    """A new model with the state dict of a trained one decodes the same samples."""
    model = subject.new()
    steps(model, iter([(squares(BATCH, s), subject.draws(BATCH, s)) for s in range(3)]))
    state = copy.deepcopy(model.state_dict())
    torch.manual_seed(7)
    restored = subject.factory(model_context(subject.prior))
    restored.load_state_dict(state)
    with torch.no_grad():
        for name, a, b in (
            ("decode", model.eval().decode(subject.draws(8)), restored.eval().decode(subject.draws(8))),
            ("encode", model.encode(squares(8)), restored.encode(squares(8))),
        ):
            expect(torch.equal(a, b), f"{name} differs after load_state_dict: state is kept outside the state dict")
    return f"{len(state)} tensors"


def smaller_batches(subject: Models) -> str:
    """A step of two images works and has a finite loss, after steps of sixteen."""
    model = subject.new()
    history = steps(model, iter([(squares(n), subject.draws(n)) for n in (BATCH, 2, 3)]))
    worst = [optimizer for each in history for optimizer, loss in each.items() if not math.isfinite(loss)]
    expect(not worst, f"the loss of {', '.join(worst)} is not finite")
    return "batches of 16, 2 and 3"


def learns_something(subject: Models) -> str:
    """At most 300 steps reconstruct held-out images better than their mean image does, and grey ones towards grey."""
    model = subject.new()
    x = squares(256, 999)
    blank = float((x - squares(256, 998).mean(0)).square().mean())  # of the mean image, which needs no code
    batches = ((squares(32, s), subject.draws(32, s)) for s in range(300))
    taken = len(steps(model, batches, until=lambda: _squared_error(model, x) < CLEARLY * blank))
    error = _squared_error(model, x)
    grey = torch.full((32, *SHAPE), GREY)
    of_grey = subject.new()
    before = _squared_error(of_grey, grey)
    steps(of_grey, ((grey, subject.draws(32, s)) for s in range(PERIOD)))
    after = _squared_error(of_grey, grey)
    expect(after < before, f"grey images of {GREY}: the squared error per pixel goes from {before:.4f} to {after:.4f}")
    expect(error < blank, f"squared error {error:.4f} per pixel, {blank:.4f} of the mean image")
    return f"squared error {error:.4f} per pixel after {taken} steps, {blank:.4f} of the mean image"


@torch.no_grad()
def _squared_error(model: Model, x: torch.Tensor) -> float:
    model.eval()
    error = float((model.decode(model.encode(x)) - x).square().mean())
    model.train()
    return error


CHECKS: tuple[ConformanceCheck[Models], ...] = (
    ConformanceCheck(
        shapes_ranges_dtype_device, "end `decode` in a sigmoid; keep the input's dtype and device; flatten codes"
    ),
    ConformanceCheck(
        optimizers_have_all_parameters,
        "give each parameter to one optimizer, e.g. OptimizerConfig(tuple(self.parameters()), adam(1e-3))",
    ),
    ConformanceCheck(
        gradients_reach_everything,
        "build encoder and decoder from context.network; no detach() or zero weight may cut one off",
    ),
    ConformanceCheck(
        finite_over_priors,
        "bound what is divided by or exponentiated, or raise UnsupportedError in __init__ for such a prior",
    ),
    ConformanceCheck(likelihood_is_one_number_per_image, "sum log p(x | z) over the pixels, `(n, c, h, w) -> (n,)`"),
    ConformanceCheck(
        randomness_is_the_noise, "draw from the `noise` that `training_step` and `sample_codes` are given"
    ),
    ConformanceCheck(
        evaluation_mode_is_kept, "do not override `train`, and never call .train() or .eval() in a method"
    ),
    ConformanceCheck(state_dict_round_trip, "register what learning changes as a parameter or a buffer"),
    ConformanceCheck(smaller_batches, "use len(x), not the batch size of an option"),
    ConformanceCheck(learns_something, "fit the given x, in [0, 1], with the images of `decode`; check sign and rate"),
)
