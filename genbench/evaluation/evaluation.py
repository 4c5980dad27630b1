"""The evaluation of a trained run: codes, samples and reconstructions, computed on first use and shared by metrics."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import Future
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import torch
from torch import Generator, Tensor

from genbench.api import DataConfig, Evaluation, Images, Model, ModelContext, Prior, Sampler, Split, TrainingStats
from genbench.data.images import to_float, to_uint8
from genbench.errors import MetricError, NotApplicableError
from genbench.utils.rng import generator

T = TypeVar("T")

BATCH = 500
"""Images that go through a model at once; no number depends on it."""

NOISE_BLOCK = 500
"""Draws made at once. The values of the draws depend on it, so it is the same for every option and device."""

ORDER_SEED = 0
"""The seed of the order in which held-out and training images are used: the same for all runs, whatever their seed."""


def finite(images: Tensor, pieces: str) -> Tensor:
    """The images, or a `MetricError`: rounded to uint8, NaN would pass for black."""
    if not images.isfinite().all():
        raise MetricError(f"the model's {pieces} are not finite")
    return images


class DataEvaluation(Evaluation):
    """Base of the evaluations of models and controls; every draw is made on the CPU, so that devices agree.

    `memory` is shared by the runs of one dataset, and by threads: the results of `cache_for_dataset`.
    """

    def __init__(
        self,
        context: ModelContext | None,
        images: Images,
        *,
        seed: int,
        device: torch.device,
        training: TrainingStats | None,
        data_config: DataConfig,
        memory: MutableMapping[str, Any],
        split: Split = "test",
    ) -> None:
        if context is not None:
            self.context = context
        if training is not None:
            self.training = training
        self.images, self.split = images, split
        self.seed, self.device, self.data_config = seed, device, data_config
        self._memory = memory
        self._pieces: dict[str, Tensor] = {}
        self._of_run: dict[str, Any] = {}
        self._sampler: Sampler | None = None
        self._sampled: dict[str, Self | Exception] = {}
        self.fit_seconds: float | None = None
        """Seconds of the sampler's fit, encoding not counted; None where nothing was fitted."""
        self.shared_seconds = 0.0
        """Seconds of `cache_for_dataset` so far: of real images, floors and null distributions, which runs share."""
        self._in_shared = False

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Of a model that was trained elsewhere there is neither context nor training."""
            if name in ("context", "training"):
                raise NotApplicableError(f"the {name} of a model that was trained elsewhere is not known")
            raise AttributeError(name)

    @property
    def prior(self) -> Prior:
        return self.context.prior

    @property
    def most_samples(self) -> int | None:
        """How many samples there are; None where any number can be drawn."""
        return None

    def with_sampler(self, label: str, sampler: Sampler) -> Self:
        """This evaluation with samples of a sampler, fitted on the first call to codes of training images.

        `label` is the sampler's name and options. All other pieces are shared. A fit that failed is not repeated: its
        error is raised again.
        """
        if label not in self._sampled:
            try:
                self._sampled[label] = self._fitted(label, sampler)
            except Exception as error:  # a sampler may raise anything
                self._sampled[label] = error
        twin = self._sampled[label]
        if isinstance(twin, Exception):
            raise twin
        return twin

    def _fitted(self, label: str, sampler: Sampler) -> Self:
        """A copy of this evaluation with the samples of a sampler, which is fitted."""
        fit_seconds = None
        if sampler.training_codes:
            codes = self.training_codes(min(sampler.training_codes, len(self.images.train))).double().cpu()
            sampler.check_codes(codes)
            started = time.perf_counter()
            sampler.fit(codes)
            fit_seconds = time.perf_counter() - started
        twin = copy.copy(self)
        twin.fit_seconds = fit_seconds
        twin.sampler, twin._sampler, twin._of_run = label, sampler, {}
        twin._pieces = {name: piece for name, piece in self._pieces.items() if name != "samples"}
        return twin

    def sampled_codes(self, n: int) -> Tensor:
        """n codes that samples are decoded from, `(n, d)`: draws of the prior, or of the sampler."""
        if self._sampler is None:
            return self.prior_draws(n, "samples")
        noise = self.noise("sampler")
        blocks = [self._sampler.sample(NOISE_BLOCK, noise) for _ in range(0, n, NOISE_BLOCK)]
        return torch.cat(blocks)[:n].to(self.device)

    def generator(self, purpose: str) -> Generator:
        # Other draws than on the test split: luck that got a snapshot selected must not count again.
        split = () if self.split == "test" else (self.split,)
        return generator("cpu", self.seed, "evaluation", *split, purpose)

    def order(self, n: int) -> Tensor:
        """The places of the images of `held_out(n)` in the dataset's order."""
        return _order(len(self.references), n, f"{self.split} images", self._split_name)

    def held_out(self, n: int) -> Tensor:
        return _first(self.references, n, f"{self.split} images", self._split_name)

    @property
    def _split_name(self) -> str:
        return "held-out" if self.split == "test" else self.split

    def training_images(self, n: int) -> Tensor:
        return _first(self.images.train, n, "training images", "train")

    def labels(self, n: int) -> Tensor:
        images = self.images
        return _labels(images.test_labels if self.split == "test" else images.validation_labels, self.order(n))

    def training_labels(self, n: int) -> Tensor:
        return _labels(self.images.train_labels, self._training_order(n))

    def factors(self, n: int) -> Mapping[str, Tensor]:
        images = self.images
        return _factors(images.test_factors if self.split == "test" else images.validation_factors, self.order(n))

    def training_factors(self, n: int) -> Mapping[str, Tensor]:
        return _factors(self.images.train_factors, self._training_order(n))

    def _training_order(self, n: int) -> Tensor:
        return _order(len(self.images.train), n, "training images", "train")

    @torch.no_grad()
    def prior_draws(self, n: int, purpose: str) -> Tensor:
        prior, noise = self.prior, self.noise(f"prior/{purpose}")
        blocks = [prior.sample(NOISE_BLOCK, noise) for _ in range(0, n, NOISE_BLOCK)]
        return torch.cat(blocks)[:n].to(self.device)

    def cache_for_dataset(self, key: str, compute: Callable[[], T]) -> T:
        outermost, started = not self._in_shared, time.perf_counter()
        self._in_shared = True
        try:
            return self._shared(key, compute)
        finally:
            if outermost:
                self._in_shared = False
                self.shared_seconds += time.perf_counter() - started

    def _shared(self, key: str, compute: Callable[[], T]) -> T:
        """The value in the memory; of several threads that ask for one, the first computes and the others wait."""
        new: Future[T] = Future()
        future = cast("Future[T]", self._memory.setdefault(key, new))
        if future is new:
            try:
                new.set_result(compute())
            except BaseException as error:
                del self._memory[key]
                new.set_exception(error)
        return future.result()

    def cache_for_run(self, key: str, compute: Callable[[], T]) -> T:
        if key not in self._of_run:
            self._of_run[key] = compute()
        return cast(T, self._of_run[key])

    @torch.no_grad()
    def _blocks(self, name: str, inputs: Tensor, function: Callable[[Tensor], Tensor], size: int = 0) -> Tensor:
        """`function` over blocks of the inputs; cached by name, and the longest result serves shorter requests."""
        if name not in self._pieces or len(self._pieces[name]) < len(inputs):
            self._pieces[name] = torch.cat([function(block.to(self.device)) for block in inputs.split(size or BATCH)])
        return self._pieces[name][: len(inputs)]


def _labels(labels: Tensor | None, order: Tensor) -> Tensor:
    if labels is None:
        raise NotApplicableError("the images have no labels")
    return labels.cpu()[order]


def _factors(factors: Mapping[str, Tensor], order: Tensor) -> Mapping[str, Tensor]:
    if not factors:
        raise NotApplicableError("the factors of the images are not known")
    return {name: values.cpu()[order] for name, values in factors.items()}


def _first(images: Tensor, n: int, kind: str, order: str) -> Tensor:
    """The first n of some images in the random order of that name; n = 0 is all of them."""
    return images[_order(len(images), n, kind, order).to(images.device)]


def _order(total: int, n: int, kind: str, order: str) -> Tensor:
    """The first n of a random order of that name."""
    if n > total or not total:
        raise MetricError(f"{n or 'all'} {kind} were asked for; the dataset has {total}")
    return torch.randperm(total, generator=generator("cpu", ORDER_SEED, order))[: n or total]


def _whole(n: int, total: int) -> int:
    """n rounded up to whole blocks, so that no number depends on the count that another metric asked for."""
    return min(n + -n % NOISE_BLOCK, total) if n <= total else n


class RunEvaluation(DataEvaluation):
    """The evaluation of one trained model."""

    def __init__(
        self,
        model: Model,
        context: ModelContext,
        images: Images,
        *,
        seed: int,
        device: torch.device,
        training: TrainingStats,
        data_config: DataConfig,
        memory: MutableMapping[str, Any],
        split: Split = "test",
    ) -> None:
        super().__init__(
            context,
            images,
            seed=seed,
            device=device,
            training=training,
            data_config=data_config,
            memory=memory,
            split=split,
        )
        self._model = model.eval()

    @property
    def model(self) -> Model:
        return self._model

    @cached_property
    def prior(self) -> Prior:
        return self._model.prior.frozen()

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
        return self._blocks("samples", self.sampled_codes(n + -n % NOISE_BLOCK), self._decoded)[:n]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        return torch.cat([self._decoded(block.to(self.device)) for block in z.split(BATCH)])

    def _decoded(self, z: Tensor) -> Tensor:
        return to_uint8(finite(self.model.decode(z), "samples"))

    def _codes(self, name: str, images: Tensor) -> Tensor:
        noise = self.noise(name)
        return self._blocks(name, images, lambda x: self.model.sample_codes(to_float(x), noise), NOISE_BLOCK)


class DetachedEvaluation(DataEvaluation):
    """What a metric with `on_cpu` asks of a trained model, on the CPU and without the model: for another thread."""

    def __init__(self, evaluation: DataEvaluation, codes: int) -> None:
        """Encodes so many held-out images; 0: no codes are needed."""
        super().__init__(
            evaluation.context,
            evaluation.images,
            seed=evaluation.seed,
            device=torch.device("cpu"),
            training=evaluation.training,
            data_config=evaluation.data_config,
            memory=evaluation._memory,
            split=evaluation.split,
        )
        self._prior = copy.deepcopy(evaluation.prior).cpu()
        self._codes = evaluation.codes(codes).cpu() if codes else torch.empty(0)

    @property
    def prior(self) -> Prior:
        return self._prior

    def codes(self, n: int) -> Tensor:
        if not 0 < n <= len(self._codes):
            raise MetricError(f"it asks for {n or 'all'} codes, and `counts_needed` states {len(self._codes)}")
        return self._codes[:n]

    def _absent(self, *_: Any, **__: Any) -> Any:
        raise MetricError("it is declared `on_cpu`, and asks for more than codes and draws of the prior")

    samples = reconstructions = decode = training_codes = held_out = training_images = _absent
    references = model = property(_absent)
