"""The checks of networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from genbench.api import Network, Shape
from genbench.errors import UnsupportedError
from genbench.testing.results import ConformanceCheck, Failed, expect

SHAPES: tuple[Shape, ...] = tuple((c, side, side) for side in (28, 32, 64) for c in (1, 3))
LATENT = 5


@dataclass(frozen=True)
class BuiltNetwork:
    """Encoder and decoder of a network for one shape."""

    shape: Shape
    encoder: nn.Module
    decoder: nn.Module


@dataclass(frozen=True)
class Networks:
    """A component's networks for every shape tried that it accepts, and the shapes that it refuses."""

    built: tuple[BuiltNetwork, ...]
    refused: tuple[Shape, ...]


def build(factory: Callable[[Shape], Network]) -> Networks:
    """The subject: 28, 32 and 64 pixels a side, grey and colour."""
    built, refused = [], []
    for shape in SHAPES:
        try:
            network = factory(shape)
        except UnsupportedError:
            refused.append(shape)
            continue
        if network.shape != shape:
            raise Failed(f"made for {shape}, the network's shape is {network.shape}")
        torch.manual_seed(0)  # the kit puts the global state back
        built.append(BuiltNetwork(shape, network.encoder(LATENT), network.decoder(LATENT)))
    if not built:
        raise Failed(f"every shape tried is refused: {', '.join(map(str, SHAPES))}")
    return Networks(tuple(built), tuple(refused))


def round_trip_of_shapes(subject: Networks) -> str:
    """The encoder yields (n, outputs) and the decoder (n, c, h, w), finite float32; other shapes are refused."""
    for pair in subject.built:
        x = torch.rand(3, *pair.shape, generator=torch.Generator().manual_seed(0))
        code = pair.encoder.eval()(x)
        image = pair.decoder.eval()(code)
        for what, value, shape in (("encoder", code, (3, LATENT)), ("decoder", image, (3, *pair.shape))):
            observation = f"{pair.shape}: the {what} yields {tuple(value.shape)} {value.dtype}, expected {shape}"
            expect(value.shape == shape and value.dtype == torch.float32, observation)
            expect(bool(value.isfinite().all()), f"{pair.shape}: the {what} yields values that are not finite")
    sizes = ", ".join("x".join(map(str, pair.shape)) for pair in subject.built)
    return f"accepts {sizes}" + (f"; refuses {len(subject.refused)} of {len(SHAPES)}" if subject.refused else "")


def parameters_are_registered(subject: Networks) -> str:
    """What backward reaches is what `parameters()` counts: each has a gradient, and encoder and decoder share none."""
    for pair in subject.built[:1]:
        x = torch.rand(4, *pair.shape, generator=torch.Generator().manual_seed(0))
        pair.decoder.train()(pair.encoder.train()(x)).square().sum().backward()
        for half, module in (("encoder", pair.encoder), ("decoder", pair.decoder)):
            idle = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
            expect(not idle, f"the {half}'s parameters {', '.join(idle)} have no part in its output")
        shared = {id(p) for p in pair.encoder.parameters()} & {id(p) for p in pair.decoder.parameters()}
        expect(not shared, "encoder and decoder share parameters")
        count = sum(p.numel() for p in (*pair.encoder.parameters(), *pair.decoder.parameters()))
    return f"{count:,} parameters for {'x'.join(map(str, pair.shape))} and {LATENT} outputs"


def evaluation_has_no_memory(subject: Networks) -> str:
    """In evaluation mode an image's code depends neither on its batch nor on earlier calls (no batch statistics)."""
    for pair in subject.built[:2]:
        g = torch.Generator().manual_seed(1)
        x, z = torch.rand(6, *pair.shape, generator=g), torch.randn(6, LATENT, generator=g)
        for what, module, inputs in (("encoder", pair.encoder.eval(), x), ("decoder", pair.decoder.eval(), z)):
            with torch.no_grad():
                first = module(inputs)
                module(3.0 * inputs.flip(0))
                again, alone = module(inputs), module(inputs[:1])
            expect(torch.equal(first, again), f"{pair.shape}: the {what} in eval mode remembers the last call")
            apart = float((alone - first[:1]).abs().max())
            bound = 1e-4 * (1.0 + float(first.abs().max()))
            expect(apart <= bound, f"{pair.shape}: the {what} in eval mode sees the rest of the batch ({apart:.2g})")
    return "codes and images are functions of their own row"


CHECKS: tuple[ConformanceCheck[Networks], ...] = (
    ConformanceCheck(
        round_trip_of_shapes,
        "end in (n, outputs) and (n, c, h, w); raise UnsupportedError in __init__ for other shapes",
    ),
    ConformanceCheck(
        parameters_are_registered, "keep layers as attributes, nn.Sequential or nn.ModuleList, and use each"
    ),
    ConformanceCheck(evaluation_has_no_memory, "leave `train` alone; batch norm needs track_running_stats=True"),
)
