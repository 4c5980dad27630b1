"""A trained run as metrics see it: its pieces are computed when first asked for, once, and shared by the metrics."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar, cast

import torch
from torch import Generator, Tensor

from genbench.api import Evaluation, Images, Model, Place, Setting, TrainingRecord
from genbench.errors import MetricError
from genbench.images import to_float, to_uint8
from genbench.random import generator

T = TypeVar("T")

BATCH = 500
"""Images that go through a model at once. Noise is drawn per block of this size: it must not depend on any option."""

HELD_OUT = 0
"""The seed of the order in which held-out images are used: the same for all runs, whatever their seed."""


def finite(images: Tensor, what: str) -> Tensor:
    """The images, or a `MetricError`: rounded to uint8, NaN would pass for black."""
    if not images.isfinite().all():
        raise MetricError(f"the model's {what} are not finite")
    return images


class RunEvaluation(Evaluation):
    """The evaluation of one trained model; every draw is made on the CPU, so that devices agree."""

    def __init__(
        self,
        model: Model,
        setting: Setting,
        images: Images,
        *,
        seed: int,
        device: torch.device,
        training: TrainingRecord,
        place: Place,
        memory: MutableMapping[str, Any],
    ) -> None:
        """`memory` is shared by the runs of one dataset: what `shared` has computed."""
        self.model, self.setting, self.images = model.eval(), setting, images
        self.seed, self.device, self.training, self.place = seed, device, training, place
        self._memory = memory
        self._own: dict[str, Tensor] = {}

    def generator(self, purpose: str) -> Generator:
        return generator("cpu", self.seed, "evaluation", purpose)

    def held_out(self, n: int) -> Tensor:
        total = len(self.images.test)
        if n > total:
            raise MetricError(f"{n} held-out images were asked for; the dataset has {total}")
        order = torch.randperm(total, generator=generator("cpu", HELD_OUT, "held-out"))
        return self.images.test[order[: n or total].to(self.images.test.device)]

    def codes(self, n: int) -> Tensor:
        draws = self.generator("codes")
        images = self.held_out(self._whole(n))
        return self._blocks("codes", images, lambda x: self.model.sample_code(to_float(x), draws))[: n or None]

    def reconstructions(self, n: int) -> Tensor:
        images = self.held_out(self._whole(n))
        rebuilt = self._blocks(
            "reconstructions",
            images,
            lambda x: finite(self.model.decode(self.model.encode(to_float(x))), "reconstructions"),
        )
        return rebuilt[: n or None]

    def samples(self, n: int) -> Tensor:
        draws = self.prior_draws(n + -n % BATCH, "samples")
        return self._blocks("samples", draws, lambda z: to_uint8(finite(self.model.decode(z), "samples")))[:n]

    def prior_draws(self, n: int, purpose: str) -> Tensor:
        prior, draws = self.setting.prior, self.generator(f"prior/{purpose}")
        blocks = [prior.sample(BATCH, draws) for _ in range(0, n, BATCH)]
        return torch.cat(blocks)[:n].to(self.device)

    def shared(self, key: str, make: Callable[[], T]) -> T:
        if key not in self._memory:
            self._memory[key] = make()
        return cast(T, self._memory[key])

    def _whole(self, n: int) -> int:
        """Whole blocks for n held-out images: no number may depend on how many another metric asked for."""
        return min(n + -n % BATCH, len(self.images.test)) if n <= len(self.images.test) else n

    @torch.no_grad()
    def _blocks(self, name: str, inputs: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """`function` over blocks of the inputs; kept, and the longest kept result serves shorter requests."""
        if name not in self._own or len(self._own[name]) < len(inputs):
            self._own[name] = torch.cat([function(block.to(self.device)) for block in inputs.split(BATCH)])
        return self._own[name][: len(inputs)]
