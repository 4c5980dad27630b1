"""Trains the weights of the extractor `grey28`: python -m genbench_grey28.train --data-root DIR

DIR holds MNIST and Fashion-MNIST in torchvision's layout; glyphs are drawn. The 180,000 training images are learnt for
a few epochs, half of them under small random rotations, stretches and shifts, so that features move little when an
image does; there is no noise or blur among them, for these are what a distance between features has to see. Then batch
norm is folded into the weights, the file is written, and what was written is measured on the test images.

The seed and the fixed number of threads determine the weights on one machine; another one rounds sums differently.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torchvision.datasets import MNIST, FashionMNIST

from genbench.api import DataConfig
from genbench.data.tensor_files import save_tensors
from genbench_glyphs import Glyphs
from genbench_grey28 import CLASSES, SIDE, WEIGHTS, Grey28Network, hidden_layers

THREADS = 1  # the one number of threads that every machine has, and the quickest where cores are shared
BATCH = 256
PEAK_RATE = 4e-3
TURN, STRETCH, SHIFT = 0.12, 0.08, 1.5  # half ranges: radians, share of the size, pixels

Labelled = tuple[Tensor, Tensor]
"""Images `(n, 1, 28, 28)` uint8 and their classes `(n,)` int64."""


def read_sets(data_root: Path) -> tuple[dict[str, Labelled], dict[str, Labelled]]:
    """Training and test images of the three sets by name, their classes numbered as in `CLASSES`."""
    train: dict[str, Labelled] = {}
    test: dict[str, Labelled] = {}
    for name, reader in (("mnist", MNIST), ("fashion-mnist", FashionMNIST)):
        for split, into in ((True, train), (False, test)):
            read = reader(data_root, train=split)
            into[name] = (read.data[:, None], read.targets + first_class(name))
    with tempfile.TemporaryDirectory() as cache:
        drawn = Glyphs().load(DataConfig(data_root, Path(cache)))
    assert drawn.train_labels is not None
    assert drawn.test_labels is not None
    train["glyphs"] = (drawn.train, drawn.train_labels + first_class("glyphs"))
    test["glyphs"] = (drawn.test, drawn.test_labels + first_class("glyphs"))
    return train, test


def first_class(name: str) -> int:
    """The number of a set's first class."""
    return next(i for i, known in enumerate(CLASSES) if known.startswith(f"{name}/"))


def moved(images: Tensor, generator: Generator) -> Tensor:
    """Images `(n, 1, 28, 28)` uint8, the first half turned, stretched and shifted a little, as float32 in [0, 1].

    The others stay as they are, because moving interpolates and so softens edges: a network that had seen only moved
    images took 42 % of the glyphs as they are for the same digits of MNIST.
    """
    x, n = images.float() / 255, len(images) // 2

    def uniform(reach: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) * 2 - 1) * reach

    turn, stretch, shift = uniform(TURN), 1 + uniform(STRETCH, 2), uniform(SHIFT * 2 / SIDE, 2)
    rows = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], dim=1).view(n, 2, 2) * stretch[:, None]
    grid = affine_grid(torch.cat([rows, shift[:, :, None]], dim=2), [n, 1, SIDE, SIDE], align_corners=False)
    return torch.cat([grid_sample(x[:n], grid, align_corners=False), x[n:]])


def normalised(layers: nn.Sequential) -> nn.Sequential:
    """The layers with a batch norm after each one that has weights."""
    mixed: list[nn.Module] = []
    for layer in layers:
        mixed.append(layer)
        if isinstance(layer, nn.Conv2d):
            mixed.append(nn.BatchNorm2d(layer.out_channels))
        elif isinstance(layer, nn.Linear):
            mixed.append(nn.BatchNorm1d(layer.out_features))
    return nn.Sequential(*mixed)


def folded(layers: nn.Sequential) -> nn.Sequential:
    """The inverse of `normalised`, in inference mode: each batch norm absorbed by the layer before it."""
    kept: list[nn.Module] = []
    for layer in layers.eval():
        before = kept[-1] if kept else None
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            kept[-1] = fuse_conv_bn_eval(before, layer)
        elif isinstance(layer, nn.BatchNorm1d) and isinstance(before, nn.Linear):
            kept[-1] = fuse_linear_bn_eval(before, layer)
        else:
            kept.append(layer)
    return nn.Sequential(*kept)


def batches(count: int, epochs: int, generator: Generator) -> Iterator[Tensor]:
    """Indices of whole batches, `(BATCH,)` each, in a fresh order in every epoch."""
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator)
        yield from (order[start : start + BATCH] for start in range(0, count - BATCH + 1, BATCH))


def train(images: Tensor, labels: Tensor, epochs: int, seed: int) -> dict[str, Tensor]:
    """The trained and folded weights, by their names in `Grey28Network`."""
    generator = Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torch's layers draw their initial weights from the global generator only
        layers, last = hidden_layers(), nn.Linear(128, len(CLASSES))
    hidden = normalised(layers).to(memory_format=torch.channels_last)
    parameters = [*hidden.parameters(), *last.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.02, fused=True)
    steps = len(images) // BATCH * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.25)
    for step, index in enumerate(batches(len(images), epochs, generator)):
        optimizer.zero_grad()
        loss = cross_entropy(last(hidden(moved(images[index], generator)).relu()), labels[index])
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            click.echo(f"step {step} of {steps}: loss {loss.item():.4f}")
    whole = nn.ModuleDict({"hidden": folded(hidden), "logits": last})
    return {name: weight.detach() for name, weight in whole.state_dict().items()}


@torch.no_grad()
def accuracy(network: Grey28Network, images: Tensor, labels: Tensor) -> float:
    """The share of images given their class of the 30."""
    predicted = torch.cat([network(block).argmax(dim=1) for block in images.split(1000)])
    return float((predicted == labels).double().mean())


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path, exists=True), required=True, help="where MNIST lies")
@click.option("--epochs", default=7, show_default=True, help="passes over the 180,000 images")
@click.option("--seed", default=0, show_default=True, help="of initial weights, order and movements")
@click.option("--out", type=click.Path(path_type=Path), default=WEIGHTS, show_default="the shipped file")
def main(data_root: Path, epochs: int, seed: int, out: Path) -> None:
    """Train the weights of grey28, write them and print their test accuracies."""
    torch.set_num_threads(THREADS)
    training, tests = read_sets(data_root)
    images, labels = (torch.cat(tensors) for tensors in zip(*training.values(), strict=True))
    weights = train(images, labels, epochs, seed)
    save_tensors(out, weights, {"epochs": str(epochs), "seed": str(seed), "torch": torch.__version__})
    network = Grey28Network("logits", out)
    for name, (x, y) in tests.items():
        click.echo(f"{name}: {accuracy(network, x, y):.2%} of {len(x)} test images")


if __name__ == "__main__":
    main()
