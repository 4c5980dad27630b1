"""The checks of networks, and of extractors on the kit's pictures (skipped where weights are missing)."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from genbench.api import DataConfig, Extractor, Network, Shape
from genbench.errors import DataError, UnsupportedError
from genbench.testing.results import ConformanceCheck, Failed, Skipped, expect, expect_tensor
from genbench.testing.synthetic import pictures

# ---------------------------------------------------------------- networks

SHAPES: tuple[Shape, ...] = tuple((c, side, side) for side in (28, 32, 64) for c in (1, 3))
LATENT = 5
LARGE = 10.0
"""The factor of weights and codes by which bounds of a decoder's outputs show."""


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


def build_network(factory: Callable[[Shape], Network]) -> Networks:
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
            expect_tensor(f"{pair.shape}: the output of the {what}", value)
            observation = f"{pair.shape}: the {what} yields {tuple(value.shape)} {value.dtype}, expected {shape}"
            expect(value.shape == shape and value.dtype == torch.float32, observation)
            expect(bool(value.isfinite().all()), f"{pair.shape}: the {what} yields values that are not finite")
    sizes = ", ".join("x".join(map(str, pair.shape)) for pair in subject.built)
    return f"accepts {sizes}" + (f"; refuses {len(subject.refused)} of {len(SHAPES)}" if subject.refused else "")


def decoder_yields_logits(subject: Networks) -> str:
    """The decoder's outputs are not confined to [0, 1] or [-1, 1]: models apply the sigmoid."""
    for pair in subject.built[:1]:
        decoder = copy.deepcopy(pair.decoder).eval()
        with torch.no_grad():
            for parameter in decoder.parameters():  # large weights reach the bounds of a sigmoid or a tanh
                parameter.mul_(LARGE)
            z = LARGE * torch.randn(8, LATENT, generator=torch.Generator().manual_seed(2))
            low, high = torch.aminmax(decoder(z))
        observation = f"with weights and codes {LARGE:g} times larger its outputs lie in [{low:.3g}, {high:.3g}]"
        if not bool(torch.isfinite(high - low)):  # so deep that they overflow
            return "outputs without bounds"
        expect(float(high) > 1.0 or float(low) < -1.0, f"{observation}: it ends in a function with bounds")
        expect(float(low) < 0.0, f"{observation}: no output is negative, so no pixel gets darker than 0.5")
    return observation


def parameters_are_registered(subject: Networks) -> str:
    """Backward reaches exactly what `parameters()` lists; encoder and decoder share no parameter."""
    for pair in subject.built[:1]:
        x = torch.rand(2, *pair.shape, generator=torch.Generator().manual_seed(0))
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
        x, z = torch.rand(2, *pair.shape, generator=g), torch.randn(2, LATENT, generator=g)
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


NETWORK_CHECKS: tuple[ConformanceCheck[Networks], ...] = (
    ConformanceCheck(
        round_trip_of_shapes,
        "end in (n, outputs) and (n, c, h, w); raise UnsupportedError in __init__ for other shapes",
    ),
    ConformanceCheck(
        decoder_yields_logits,
        "leave the sigmoid (or tanh, ReLU) at the decoder's end out: it returns logits, and models apply the sigmoid",
    ),
    ConformanceCheck(
        parameters_are_registered, "keep layers as attributes, nn.Sequential or nn.ModuleList, and use each"
    ),
    ConformanceCheck(evaluation_has_no_memory, "leave `train` alone; batch norm needs track_running_stats=True"),
)


# ---------------------------------------------------------------- extractors

FEW = 7


def build_extractor(make: Callable[[DataConfig], Extractor]) -> Extractor:
    """The extractor without a download."""
    folder = Path(tempfile.gettempdir())
    try:
        extractor = make(DataConfig(folder, folder))
        _features(extractor, extractor.default_layer, pictures(1, 5))
    except DataError as error:
        raise Skipped(f"needs weights that are not here: {error}") from None
    return extractor


@torch.no_grad()
def _features(extractor: Extractor, layer: str, images: Tensor) -> Tensor:
    features: Tensor = extractor.network(layer).eval()(images.expand(-1, 3, -1, -1))
    return features


def layers_give_features(subject: Extractor) -> str:
    """Every layer gives (n, f) finite float32 features of grey images repeated to three channels."""
    for layer in subject.layers:
        features = _features(subject, layer, pictures(FEW, 5))
        text = f"layer {layer} gives {tuple(features.shape)} {features.dtype}"
        expect(features.dim() == 2 and len(features) == FEW and features.dtype == torch.float32, text)
        expect(bool(features.isfinite().all()), f"layer {layer} is not finite")
    return ", ".join(subject.layers)


def named_layers_exist(subject: Extractor) -> str:
    """`default_layer` and `logits_layer` are among `layers`; each class has a logit."""
    for layer in filter(None, (subject.default_layer, subject.logits_layer)):
        expect(layer in subject.layers, f"there is no layer {layer} among {', '.join(subject.layers)}")
    if subject.classes:
        width = _features(subject, subject.logits_layer, pictures(1, 5)).shape[1]
        expect(width == len(subject.classes), f"{width} logits for {len(subject.classes)} classes")
    return subject.default_layer


def images_stand_alone(subject: Extractor) -> str:
    """The features of an image do not depend on the rest of its batch, and differ between images."""
    images = pictures(FEW, 5)
    together = _features(subject, subject.default_layer, images)
    alone = _features(subject, subject.default_layer, images[:1])
    gap = float((together[0] - together[1]).norm())
    expect(gap > 0.0, "two different images have equal features")
    change = float((together[0] - alone[0]).norm())
    expect(change <= 1e-3 * gap, f"the features of an image change by {change:.2g} with its batch")
    return "features of each image alone"


def weights_are_named(subject: Extractor) -> str:
    """`weights_label` is a text that is the same at every call."""
    label = subject.weights_label
    expect(bool(label) and label == subject.weights_label, f"weights_label is {label!r}")
    return label


EXTRACTOR_CHECKS: tuple[ConformanceCheck[Extractor], ...] = (
    ConformanceCheck(layers_give_features, "return one (n, f) float32 tensor from the network's forward"),
    ConformanceCheck(named_layers_exist, "name layers that `layers` lists"),
    ConformanceCheck(images_stand_alone, "put batch norm in evaluation mode"),
    ConformanceCheck(weights_are_named, "hash the weights: genbench.data.tensor_files.hash_file"),
)
