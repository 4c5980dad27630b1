"""The checks of what a model is: shapes, players, gradients, randomness, modes, state."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from genbench.api import Model
from genbench.errors import UnsupportedError
from genbench.testing.fixtures import (
    BATCH,
    LATENT,
    SHAPE,
    Cube,
    DecoderHalf,
    EncoderHalf,
    Gauss,
    Small,
    fresh,
    losses,
    seeded,
    setting,
    squares,
    steps,
)
from genbench.testing.results import Check, expect, global_state

GREY = 0.35
"""Standardised as MNIST is, 0.71: a model that fits standardised targets moves away from it."""


@dataclass(frozen=True)
class Models:
    """One offer of a model: `make(setting, **options)`, defaults where an option is not given."""

    make: Callable[..., Model]

    def new(self, **options: object) -> Model:
        """An untrained model of N(0, I) on the small network."""
        return fresh(self.make, setting(), **options)


def build(make: Callable[..., Model]) -> Models:
    """The subject, made once so that what cannot be made is told first."""
    subject = Models(make)
    subject.new()
    return subject


def draws(n: int, seed: int = 1) -> torch.Tensor:
    """Draws of N(0, I), `(n, 2)`."""
    return Gauss(LATENT).sample(n, seeded(seed))


def shapes_ranges_dtype_device(subject: Models) -> str:
    """Codes are (n, d), images (n, c, h, w) in [0, 1], all float32 on the input's device, for 1 and 7 images."""
    model = subject.new().eval()
    for n in (1, 7):
        x = squares(n)
        with torch.no_grad():
            found = {
                "encode": (model.encode(x), (n, LATENT)),
                "sample_code": (model.sample_codes(x, seeded(0)), (n, LATENT)),
                "decode": (model.decode(20.0 * draws(n)), (n, *SHAPE)),
            }
        for name, (value, shape) in found.items():
            expect(value.shape == shape, f"{name} of {n} images is {tuple(value.shape)}, expected {shape}")
            expect(value.dtype == torch.float32 and value.device == x.device, f"{name} is {value.dtype} {value.device}")
        image = found["decode"][0]
        low, high = float(image.min()), float(image.max())
        expect(low >= 0.0 and high <= 1.0, f"decoded images lie in [{low:.3g}, {high:.3g}], not in [0, 1]")
    return "codes and images as the contract says"


def players_own_all_parameters(subject: Models) -> str:
    """The players' parameters are disjoint and together all of the model's; every move's player is one of them."""
    model = subject.new()
    names = {id(p): name for name, p in model.named_parameters()}
    owners: dict[int, str] = {}
    for player, owned in model.configure_optimizers().items():
        for p in owned.parameters:
            expect(id(p) in names, f"player {player} owns a tensor that is no parameter of the model")
            expect(id(p) not in owners, f"{names[id(p)]} belongs to {owners.get(id(p))} and to {player}")
            owners[id(p)] = player
    orphans = [name for key, name in names.items() if key not in owners]
    expect(not orphans, f"no player owns {', '.join(orphans)}")
    moved = set(losses(model, squares(BATCH), draws(BATCH)))
    expect(
        moved <= set(model.configure_optimizers()),
        f"moves of {sorted(moved - set(model.configure_optimizers()))}, who are no players",
    )
    expect(
        moved == set(model.configure_optimizers()), f"no move of {sorted(set(model.configure_optimizers()) - moved)}"
    )
    return f"players {', '.join(model.configure_optimizers())}"


def gradients_reach_everything(subject: Models) -> str:
    """Each parameter gets a finite gradient from its player's losses; those of encoder and decoder are not all zero."""
    model = subject.new()
    configure_optimizers, names = model.configure_optimizers(), {id(p): name for name, p in model.named_parameters()}
    sizes: dict[int, float] = {}
    for move in model.training_step(squares(BATCH), draws(BATCH), seeded(0)):
        expect(move.loss.dim() == 0, f"the loss of {move.player} is {tuple(move.loss.shape)}, not a scalar")
        owned = configure_optimizers[move.player].parameters
        grads = torch.autograd.grad(move.loss, owned, allow_unused=True, retain_graph=True)
        for p, grad in zip(owned, grads, strict=True):
            if grad is not None:
                expect(bool(grad.isfinite().all()), f"the gradient of {names.get(id(p), 'a parameter')} is not finite")
                sizes[id(p)] = sizes.get(id(p), 0.0) + float(grad.abs().sum())
    for half, kind in (("encoder", EncoderHalf), ("decoder", DecoderHalf)):
        inside = [id(p) for module in model.modules() if isinstance(module, kind) for p in module.parameters()]
        expect(bool(inside), f"no module of the model is the {half} that setting.network made")
        expect(sum(sizes.get(p, 0.0) for p in inside) > 0.0, f"no loss has a gradient in the {half}")
    for player, its in configure_optimizers.items():
        missed = [names.get(id(p), "a parameter") for p in its.parameters if id(p) not in sizes]
        expect(not missed, f"no loss of {player} reaches {', '.join(missed)}")
        expect(sum(sizes[id(p)] for p in its.parameters) > 0.0, f"every gradient of {player} is zero")
    return "finite and present, in encoder and decoder"


def finite_over_priors(subject: Models) -> str:
    """Losses are finite scalars over priors with and without a density, or the prior is `UnsupportedError`."""
    words = []
    for label, prior in (("normal", Gauss(LATENT)), ("density", Gauss(LATENT, False)), ("draws alone", Cube(LATENT))):
        try:
            model = fresh(subject.make, setting(prior))
        except UnsupportedError:
            words.append(f"{label}: refused")
            continue
        x, z = squares(BATCH), prior.sample_batch(BATCH, seeded(1))
        for player, loss in losses(model, x, z).items():
            expect(math.isfinite(float(loss)), f"{label}: the loss of {player} is {float(loss)}")
        words.append(f"{label}: finite")
    return ", ".join(words)


def randomness_is_the_generators(subject: Models) -> str:
    """Equal generators give equal losses and codes whatever the global state, which stays untouched."""
    model = subject.new()
    x, z = squares(BATCH), draws(BATCH)
    before = global_state()
    first, code = losses(model, x, z), model.sample_codes(x, seeded(3))
    expect(global_state() == before, "a step changes the global random state or the default dtype")
    torch.manual_seed(99)
    again = losses(model, x, z)
    expect(torch.equal(code, model.sample_codes(x, seeded(3))), "sample_code of equal generators differs")
    for player, loss in first.items():
        expect(torch.equal(loss, again[player]), f"the loss of {player} differs for equal generators")
    expect(torch.equal(model.encode(x), model.encode(x)), "encode is random")
    return "the same for the same generator"


def evaluation_mode_is_kept(subject: Models) -> str:
    """`eval()` and `train()` reach every module, no method changes the mode, and eval decodes each code alone."""
    model = fresh(subject.make, setting(network=Small(normed=True)))
    steps(model, iter([(squares(BATCH, s), draws(BATCH, s)) for s in range(3)]))
    expect(all(module.training for module in model.modules()), "a step leaves modules in evaluation mode")
    model.eval()
    expect(not any(module.training for module in model.modules()), "eval() leaves modules in training mode")
    with torch.no_grad():
        whole, x = model.decode(draws(6)), squares(6)
        codes = model.encode(x)
        model.sample_codes(x, seeded(0))
        expect(not any(module.training for module in model.modules()), "encode or decode turns training mode on")
        alone = model.decode(draws(6)[:2]), model.encode(x[:2])
    apart = max(float((whole[:2] - alone[0]).abs().max()), float((codes[:2] - alone[1]).abs().max()))
    expect(apart < 1e-4, f"in evaluation an image depends on the rest of its batch ({apart:.2g})")
    return "each image alone"


def state_dict_round_trip(subject: Models) -> str:
    """A new model with the state dict of a trained one decodes the same samples."""
    model = subject.new()
    steps(model, iter([(squares(BATCH, s), draws(BATCH, s)) for s in range(3)]))
    state = copy.deepcopy(model.state_dict())
    torch.manual_seed(7)
    other = subject.make(setting())
    other.load_state_dict(state)
    with torch.no_grad():
        for name, a, b in (
            ("decode", model.eval().decode(draws(8)), other.eval().decode(draws(8))),
            ("encode", model.encode(squares(8)), other.encode(squares(8))),
        ):
            expect(torch.equal(a, b), f"{name} differs after load_state_dict: state is kept outside the state dict")
    return f"{len(state)} tensors"


def smaller_batches(subject: Models) -> str:
    """A step of two images works and has a finite loss, after steps of sixteen."""
    model = subject.new()
    found = steps(model, iter([(squares(n), draws(n)) for n in (BATCH, 2, 3)]))
    worst = [player for each in found for player, loss in each.items() if not math.isfinite(loss)]
    expect(not worst, f"the loss of {', '.join(worst)} is not finite")
    return "batches of 16, 2 and 3"


def learns_something(subject: Models) -> str:
    """300 steps reconstruct held-out images better than their mean image does, and grey ones towards their grey."""
    model = subject.new()
    steps(model, ((squares(32, s), draws(32, s)) for s in range(300)))
    x = squares(256, 999)
    blank = float((x - squares(256, 998).mean(0)).square().mean())  # the mean image: what no code at all achieves
    error = _squared_error(model, x)
    grey = torch.full((32, *SHAPE), GREY)
    other = subject.new()
    before = _squared_error(other, grey)
    steps(other, ((grey, draws(32, s)) for s in range(100)))
    after = _squared_error(other, grey)
    expect(after < before, f"grey images of {GREY}: the squared error per pixel goes from {before:.4f} to {after:.4f}")
    expect(error < blank, f"squared error {error:.4f} per pixel, {blank:.4f} of the mean image")
    return f"squared error {error:.4f} per pixel, {blank:.4f} of the mean image"


@torch.no_grad()
def _squared_error(model: Model, x: torch.Tensor) -> float:
    model.eval()
    error = float((model.decode(model.encode(x)) - x).square().mean())
    model.train()
    return error


CHECKS: tuple[Check[Models], ...] = (
    Check(shapes_ranges_dtype_device, "end `decode` in a sigmoid; keep the input's dtype and device; flatten codes"),
    Check(players_own_all_parameters, "give each parameter to one Player, e.g. Player(tuple(self.parameters()), ...)"),
    Check(
        gradients_reach_everything,
        "build both halves from setting.network, and let no detach() or zero weight cut one off",
    ),
    Check(finite_over_priors, "bound what is divided by or exponentiated, or raise Refused in make for such a prior"),
    Check(randomness_is_the_generators, "draw with the generator that `training_step` and `sample_codes` are handed"),
    Check(evaluation_mode_is_kept, "do not override `train`, and never call .train() or .eval() in a method"),
    Check(state_dict_round_trip, "register what learning changes as a parameter or a buffer"),
    Check(smaller_batches, "use len(x), not the batch size of an option"),
    Check(learns_something, "fit the x that is handed in, in [0, 1], with what `decode` yields; check sign and rate"),
)
