"""Figures of trained models, which are loaded, decoded and encoded here; `plotting.images` draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.analysis.headline import join_words
from genbench.api import DataConfig, Images, Model, Noise
from genbench.data.images import to_float, to_uint8
from genbench.distances import random_projections, sliced_wasserstein_cost
from genbench.errors import UsageError
from genbench.evaluation.evaluation import ORDER_SEED, finite
from genbench.evaluation.snapshots import trained_model
from genbench.experiment.build import load_dataset
from genbench.experiment.run import Component, Run
from genbench.plotting.images import Codes, ImageRow, Pixels, codes, plane, prior_key, prior_titles, strips
from genbench.plotting.style import Drawing
from genbench.registry.loader import Registry
from genbench.storage.results import rows
from genbench.storage.run_dir import RunRecord
from genbench.utils.rng import generator

GROUPS = 12
"""Groups that one figure can show."""

SIDE = 12
"""Images along a side of the decoded plane: as many as are seen apart at the width of a column."""

POINTS = 2000
CODES_COMPARED = 8
"""Images whose codes are drawn twice to see whether they are random."""
DIRECTIONS = 2000
STEPS = 50


@dataclass(frozen=True)
class TrainedGroup:
    """A group by its trained run of the lowest seed."""

    label: str
    run: Run
    model: Model

    @property
    def prior(self) -> Mapping[str, Any]:
        """The prior as the record has it."""
        prior: Mapping[str, Any] = self.run.record()["prior"]
        return prior


def lowest(records: Sequence[RunRecord]) -> dict[tuple[str, str], RunRecord]:
    """The trained run of the lowest seed of each group, by dataset and label: by dataset, prior, latent size, label."""
    labels = {row.run: row.label for row in rows(records) if row.stage == "final"}
    groups: dict[tuple[str, str], RunRecord] = {}
    for record in records:
        run = record.run
        if run.role == "model" and record.state == "trained":
            key = (run.dataset.name, labels.get(record.name, run.name))
            if key not in groups or run.seed < groups[key].run.seed:
                groups[key] = record
    if not groups:
        raise UsageError("these runs hold no trained model: re-run the command that started them")

    def order(entry: tuple[tuple[str, str], RunRecord]) -> tuple[str, str, int, str]:
        (dataset, label), record = entry
        return dataset, prior_key(record.run.record()["prior"]), record.run.latent_dim, label

    return dict(sorted(groups.items(), key=order))


def loaded(label: str, record: RunRecord, registry: Registry, device: torch.device) -> TrainedGroup:
    """A group's trained model."""
    return TrainedGroup(label, record.run, trained_model(registry, record.run, record.folder, device).eval())


def trained(records: Sequence[RunRecord], registry: Registry, device: torch.device) -> list[TrainedGroup]:
    """The groups of `lowest` with their models; `UsageError` where they are too many for one figure."""
    groups = lowest(records)
    if len(groups) > GROUPS:
        raise UsageError(f"{len(groups)} groups are too many for one figure (at most {GROUPS}): name fewer run folders")
    return [loaded(label, record, registry, device) for (_, label), record in groups.items()]


@dataclass(frozen=True)
class FigureBuilder:
    """Draws figures of some groups; `images` are decoded when a kind first needs them."""

    groups: Sequence[TrainedGroup]
    registry: Registry
    data_config: DataConfig
    device: torch.device
    seed: int
    count: int
    elsewhere: Sequence[ImageRow] = ()
    known: dict[Component, Images] = field(default_factory=dict)

    def kinds(self) -> dict[str, Callable[[], Drawing]]:
        """Every kind of figure by its name."""
        return {
            "samples": self.samples,
            "reconstructions": self.reconstructions,
            "interpolations": self.interpolations,
            "grid": self.grid,
            "codes": self.codes,
        }

    def held_out(self, group: TrainedGroup, n: int) -> tuple[Tensor, Tensor]:
        """The first test images in the order of all measurements, `(n, c, h, w)`, and their classes (-1: none)."""
        if group.run.dataset not in self.known:
            self.known[group.run.dataset] = load_dataset(self.registry, group.run.dataset, self.data_config)
        images = self.known[group.run.dataset]
        total = len(images.test)
        indices = torch.randperm(total, generator=generator("cpu", ORDER_SEED, "held-out"))[: min(n, total)]
        absent = torch.full((len(indices),), -1)
        classes = absent if images.test_labels is None else images.test_labels[indices]
        return to_float(images.test[indices]).to(self.device), classes

    def draws(self, group: TrainedGroup, n: int) -> Tensor:
        """Draws of the group's prior, `(n, d)`: the same for all groups of a fixed prior and a dimension."""
        return group.model.prior.sample(n, Noise(generator("cpu", self.seed, "sample"))).to(self.device)

    def samples(self) -> Drawing:
        """A row of samples for each group. In a block (one prior with its options) a column is one draw."""
        titles = prior_titles(group.prior for group in self.groups)
        entries = [
            ImageRow(
                group.label,
                self.decoded(group, self.draws(group, self.count)),
                f"{group.run.dataset.name}, prior {titles[prior_key(group.prior)]}, d = {group.run.latent_dim}",
            )
            for group in self.groups
        ]
        caption = "Samples: in each block a column is the same draw of a fixed prior; a learned one has its own draws"
        return strips("samples", caption, [*entries, *self.elsewhere])

    def reconstructions(self) -> Drawing:
        """Test images, and below them their reconstructions by each group."""
        entries: list[ImageRow] = []
        for group in self.groups:
            x, _ = self.held_out(group, self.count)
            if not entries or entries[-1].block != group.run.dataset.name:
                entries.append(ImageRow("test images", _pixels(to_uint8(x)), group.run.dataset.name))
            entries.append(ImageRow(group.label, self.decoded(group, group.model.encode(x)), group.run.dataset.name))
        return strips("reconstructions", "Test images and their reconstructions psi(phi(x))", entries)

    def interpolations(self) -> Drawing:
        """For each group and two pairs of test images psi(t phi(x0) + (1 - t) phi(x1)), the images at the ends."""
        entries: list[ImageRow] = []
        for group in self.groups:
            x, _ = self.held_out(group, 4)
            for x0, x1 in zip(x[0::2], x[1::2], strict=False):
                z0, z1 = group.model.encode(torch.stack([x0, x1]))
                t = torch.linspace(1.0, 0.0, self.count, device=self.device)[:, None]
                inner = self.decoded(group, t * z0 + (1 - t) * z1)
                ends = _pixels(to_uint8(torch.stack([x0, x1])))
                entries.append(
                    ImageRow(group.label, np.concatenate([ends[:1], inner, ends[1:]]), group.run.dataset.name)
                )
        caption = "psi(t phi(x0) + (1 - t) phi(x1)) for t from 1 to 0; first and last column: the test images x0 and x1"
        return strips("interpolations", caption, entries)

    def grid(self) -> Drawing:
        """The decoded grid of each 2-D latent space, over the square that holds 99 % of the prior."""
        flat = [group for group in self.groups if group.run.latent_dim == 2]
        if not flat:
            sizes = ", ".join(sorted({str(group.run.latent_dim) for group in self.groups}))
            raise UsageError(
                f"grid shows a latent plane, and these runs have latent size {sizes}: train with --latent-dim 2,"
                " or plot interpolations"
            )
        entries = []
        for group in flat:
            reach = float(torch.quantile(self.draws(group, 10_000).abs().flatten(), 0.99))
            line = torch.linspace(-reach, reach, SIDE, device=self.device)
            z = torch.cartesian_prod(line.flip(0), line).flip(1)  # the top row has the largest second coordinate
            entries.append((group.label, self.decoded(group, z), (-reach, reach)))
        return plane(f"The decoded {SIDE} x {SIDE} grid of the latent plane", entries)

    def codes(self) -> Drawing:
        """Codes of test images over draws of the prior, and their marginals along the worst projection."""
        entries, drawn = [], []
        for group in self.groups:
            x, classes = self.held_out(group, POINTS)
            drawn += [group.label] * has_random_codes(group.model, x[:CODES_COMPARED])
            noise = Noise(generator("cpu", self.seed, "codes"))
            z = torch.cat([group.model.sample_codes(block, noise) for block in x.split(500)])
            prior = self.draws(group, len(z))
            with torch.enable_grad():
                theta, distance = worst_projection(z, prior, Noise(generator("cpu", self.seed, "directions")))
            arrays = [tensor.double().cpu().numpy() for tensor in (z, prior, theta)]
            entries.append(Codes(group.label, arrays[0], classes.numpy(), arrays[1], arrays[2], distance))
        whose = "" if len(drawn) == len(self.groups) else f" for {join_words(drawn)}"
        how = f" (draws of q(z|x){whose})" if drawn else ""
        return codes(f"Codes of test images{how} over draws of the prior", entries)

    def decoded(self, group: TrainedGroup, z: Tensor) -> Pixels:
        """Decoded images of codes, `(n, d)` -> `(n, h, w, c)`."""
        blocks = [to_uint8(finite(group.model.decode(block), "samples")) for block in z.split(500)]
        return _pixels(torch.cat(blocks))


def has_random_codes(model: Model, x: Tensor) -> bool:
    """Whether two draws of the codes of images differ: a deterministic encoder has no q(z|x) to draw from."""
    first, second = (model.sample_codes(x, Noise(generator("cpu", seed, "random codes"))) for seed in (0, 1))
    return not torch.equal(first, second)


def worst_projection(x: Tensor, y: Tensor, noise: Noise) -> tuple[Tensor, float]:
    """The direction of the largest one-dimensional W2 between two samples, `(n, d), (n, d) -> (d,)`, and that W2.

    The best of 2,000 random directions, then ascent on the sphere (max-sliced Wasserstein, arXiv:1904.05877): a lower
    bound of the maximum, at least that of every direction tried.
    """
    many = random_projections(DIRECTIONS, x.shape[1], noise).to(x)
    pairs = ((torch.sort(some @ x.T, 1).values, torch.sort(some @ y.T, 1).values) for some in many.split(200))
    costs = torch.cat([(u - v).square().mean(1) for u, v in pairs])
    best, value = many[costs.argmax()], float(costs.max())
    theta, step = best.clone(), 0.1
    for _ in range(STEPS):
        theta = theta.detach().requires_grad_()
        (slope,) = torch.autograd.grad(sliced_wasserstein_cost(x, y, theta[None]), theta)
        moved = torch.nn.functional.normalize(best + step * torch.nn.functional.normalize(slope, dim=0), dim=0)
        cost = float(sliced_wasserstein_cost(x, y, moved[None]))
        if cost > value:
            best, value = moved.detach(), cost
        else:
            step /= 2
        theta = best.clone()
    return best.detach(), value**0.5


def _pixels(images: Tensor) -> Pixels:
    pixels: Pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels
