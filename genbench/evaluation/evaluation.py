"""A trained run as metrics see it: its pieces are computed when first asked for, once, and shared by the metrics."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar, cast

import torch
from torch import Generator, Tensor

from genbench.api import DataConfig, Evaluation, Images, Model, ModelContext, Split, TrainingStats
from genbench.data.images import to_float, to_uint8
from genbench.errors import MetricError
from genbench.utils.rng import generator

T = TypeVar("T")

BATCH = 500
"""Images that go through a model at once; no number depends on it."""

NOISE = 500
"""Draws made at once. It is part of what the draws are, so that it must not depend on any option or device."""

FIXED = 0
"""The seed of the order in which held-out and training images are used: the same for all runs, whatever their seed."""


def finite(images: Tensor, what: str) -> Tensor:
    """The images, or a `MetricError`: rounded to uint8, NaN would pass for black."""
    if not images.isfinite().all():
        raise MetricError(f"the model's {what} are not finite")
    return images


class DataEvaluation(Evaluation):
    """What every evaluation shares, of a trained model or not; every draw is made on the CPU, so that devices agree."""

    def __init__(
        self,
        setting: ModelContext,
        images: Images,
        *,
        seed: int,
        device: torch.device,
        training: TrainingStats,
        place: DataConfig,
        memory: MutableMapping[str, Any],
        split: Split = "test",
    ) -> None:
        """`memory` is shared by the runs of one dataset: what `shared` has computed."""
        self.setting, self.images, self.split = setting, images, split
        self.seed, self.device, self.training, self.place = seed, device, training, place
        self._memory = memory
        self._pieces: dict[str, Tensor] = {}
        self._own: dict[str, Any] = {}

    def generator(self, purpose: str) -> Generator:
        apart = () if self.split == "test" else (self.split,)  # what a lucky draw won must not win on the test split
        return generator("cpu", self.seed, "evaluation", *apart, purpose)

    def held_out(self, n: int) -> Tensor:
        name = "held-out" if self.split == "test" else self.split
        return _first(self.references, n, f"{self.split} images", name)

    def training_images(self, n: int) -> Tensor:
        return _first(self.images.train, n, "training images", "train")

    @torch.no_grad()
    def prior_draws(self, n: int, purpose: str) -> Tensor:
        prior, noise = self.setting.prior, self.noise(f"prior/{purpose}")
        blocks = [prior.sample(NOISE, noise) for _ in range(0, n, NOISE)]
        return torch.cat(blocks)[:n].to(self.device)

    def shared(self, key: str, make: Callable[[], T]) -> T:
        if key not in self._memory:  # two threads that ask at once both compute, and get what one of them has found
            self._memory.setdefault(key, make())
        return cast(T, self._memory[key])

    def own(self, key: str, make: Callable[[], T]) -> T:
        if key not in self._own:
            self._own[key] = make()
        return cast(T, self._own[key])

    def forget(self) -> None:
        """Let go of the model and of what was computed of it, which take the device's memory: see `Metric.detached`."""
        self._pieces.clear()
        self._own.clear()

    @torch.no_grad()
    def _blocks(self, name: str, inputs: Tensor, function: Callable[[Tensor], Tensor], size: int = 0) -> Tensor:
        """`function` over blocks of the inputs; kept, and the longest kept result serves shorter requests."""
        if name not in self._pieces or len(self._pieces[name]) < len(inputs):
            self._pieces[name] = torch.cat([function(block.to(self.device)) for block in inputs.split(size or BATCH)])
        return self._pieces[name][: len(inputs)]


def _first(images: Tensor, n: int, what: str, order: str) -> Tensor:
    """The first n of some images in an order of its own; n = 0 is all of them."""
    total = len(images)
    if n > total or not total:
        raise MetricError(f"{n or 'all'} {what} were asked for; the dataset has {total}")
    chosen = torch.randperm(total, generator=generator("cpu", FIXED, order))[: n or total]
    return images[chosen.to(images.device)]


def _whole(n: int, total: int) -> int:
    """Whole blocks for n of `total` images: no number may depend on how many another metric asked for."""
    return min(n + -n % NOISE, total) if n <= total else n


class RunEvaluation(DataEvaluation):
    """The evaluation of one trained model."""

    def __init__(
        self,
        model: Model,
        setting: ModelContext,
        images: Images,
        *,
        seed: int,
        device: torch.device,
        training: TrainingStats,
        place: DataConfig,
        memory: MutableMapping[str, Any],
        split: Split = "test",
    ) -> None:
        """`memory` is shared by the runs of one dataset: what `shared` has computed."""
        super().__init__(
            setting, images, seed=seed, device=device, training=training, place=place, memory=memory, split=split
        )
        self._model: Model | None = model.eval()

    @property
    def model(self) -> Model:
        if self._model is None:
            raise MetricError("what is detached of a measurement asks for the model, which is gone by then")
        return self._model

    def forget(self) -> None:
        super().forget()
        self._model = None

    def codes(self, n: int) -> Tensor:
        images = self.held_out(_whole(n, len(self.references)))
        return self._codes("codes", images)[: n or None]

    def training_codes(self, n: int) -> Tensor:
        images = self.training_images(_whole(n, len(self.images.train)))
        return self._codes("training codes", images)[: n or None]

    def reconstructions(self, n: int) -> Tensor:
        images = self.held_out(_whole(n, len(self.references)))
        rebuilt = self._blocks(
            "reconstructions",
            images,
            lambda x: finite(self.model.decode(self.model.encode(to_float(x))), "reconstructions"),
        )
        return rebuilt[: n or None]

    def samples(self, n: int) -> Tensor:
        draws = self.prior_draws(n + -n % NOISE, "samples")
        return self._blocks("samples", draws, self._decoded)[:n]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        return torch.cat([self._decoded(block.to(self.device)) for block in z.split(BATCH)])

    def _decoded(self, z: Tensor) -> Tensor:
        return to_uint8(finite(self.model.decode(z), "samples"))

    def _codes(self, name: str, images: Tensor) -> Tensor:
        noise = self.noise(name)
        return self._blocks(name, images, lambda x: self.model.sample_codes(to_float(x), noise), NOISE)
