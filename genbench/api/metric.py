"""The metric: a measurement of a trained run, its protocol, and what it may ask of the run."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Generator, Tensor

from genbench.api.dataset import DataConfig, DatasetInfo, Images
from genbench.api.model import Model, ModelContext
from genbench.api.noise import Noise
from genbench.api.prior import Prior
from genbench.errors import NotApplicableError

T = TypeVar("T")

Split = Literal["test", "validation"]
"""Which held-out images an evaluation uses: a choice is made on validation images, and its result told on test ones."""


Piece = Literal["samples", "codes"]
"""What a metric may need a number of; see `Metric.counts_needed`."""

MetricRole = Literal["", "sample quality", "reconstruction", "latent fit", "ladder", "memorization", "speed"]
"""What a number says of a model; see `Measurement`."""


@dataclass(frozen=True)
class EvalProtocol:
    """How a number was measured. Numbers of different protocols are never compared.

    It is the same for every model and seed of a study. `method` names the estimator, `detail` what else decides the
    number, `dtype` the precision of the arithmetic, `layer` that of the extractor whose outputs are used. `dataset` is
    the start of the hash of the images' bytes, `preparation` what was done to the originals (crop, filter, size),
    `split` and `references` the real images and their count, `generated` the count of samples, `values` their range and
    quantisation, `resize` what happens to an image on its way into the extractor, `weights` the extractor's, by the
    start of their hash, `draws` the rule by which random draws follow from the run's seed.
    """

    method: str
    dataset: str
    preparation: str
    split: str
    references: int
    generated: int
    values: str
    resize: str = ""
    extractor: str = ""
    layer: str = ""
    weights: str = ""
    dtype: str = "float32"
    draws: str = "from the run's seed and the purpose alone, the same for every model"
    detail: str = ""

    @property
    def key(self) -> str:
        """Eight hexadecimal digits that stand beside every number measured this way."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number of a metric.

    Args:
        value: The number, finite.
        unit: Its unit or scale.
        higher_is_better: Its better direction; None for a fact that ranks nothing.
        n: The count of images or codes that went in.
        protocol: How it was measured.
        component: The name of this number where the metric has several; it follows the metric's name after a dot.
        role: What the number says of a model, for reports that must know it without knowing the metric's name:
            "sample quality" (ranks a table by default), "memorization" (the share of samples, in [0, 1], that are
            copies of training images: a model with too many of them is marked and not ranked), "ladder" (a distance of
            images decoded from ever less knowledge, with the components real, reconstructions, mixture, gaussian and
            prior), "latent fit", "reconstruction", "speed", or "".
        label: A column head where the name alone would not do ("FID (grey28)").
        floor: The value of a perfect model at this n.
        floor_sd: The floor's standard deviation over draws.
        se: The value's standard error over the draws (of samples, of the prior, of q(z|x)) for one run with its
            weights fixed, in the unit of the value.
        low: Lower end of a 95 % interval that is not value - 1.96 se.
        high: Its upper end.
        p_value: The p-value of "this model is perfect by this measure", in [0, 1].
        minimum_detectable_effect: The smallest true value that n finds with a power of 80 % at a level of 5 %.
        chance: The value of codes or samples that know nothing of the images (codes that are permuted among them).
        chance_sd: Its standard deviation over draws.
        caution: Why this number is to be read with care and what to do, a few words without a stop ("biased upwards:
            40 samples for 128 features, use KID"); it stands with every table that shows the number. "; " separates
            several cautions, each of which becomes a note.

    The optional numbers are None where they are unknown or have no meaning.
    """

    value: float
    unit: str
    higher_is_better: bool | None
    n: int
    protocol: EvalProtocol
    component: str = ""
    role: MetricRole = ""
    label: str = ""
    floor: float | None = None
    floor_sd: float | None = None
    se: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    minimum_detectable_effect: float | None = None
    caution: str = ""
    chance: float | None = None
    chance_sd: float | None = None


@dataclass(frozen=True)
class TrainingStats:
    """What training cost: seconds of training proper, images shown, parameters, and the device (`threads` of a CPU).

    `peak_memory` is in bytes, the GPU's during the training; None on a CPU, where only the process's is known. `flops`
    are floating point operations, a multiplication and an addition counting two, of matrix products and convolutions in
    all forward and backward passes, as torch's counter has them; None where unknown. `precision` is that of the
    arithmetic, `memory_format` that of convolutions' weights ("contiguous" or "channels-last"), `step` says how
    steps were done: "eager", "graph" (one CUDA graph), or "eager: " and why a GPU had to do without a graph; then
    ", no ensemble: " and why, where that applies. `batch` is the count of images in a step, 0 where it is unknown.
    `jobs` is how many runs went on at once at most on this machine (--jobs), whose memory and caches they share.
    `ensemble` is how many were trained as one tensor program: the seconds, the peak memory and `jobs` are those of all
    of them, the other numbers those of this one.
    """

    seconds: float
    images: int
    parameters: int
    device: str
    threads: int
    peak_memory: int | None = None
    flops: float | None = None
    precision: str = "float32"
    memory_format: str = "contiguous"
    step: str = "eager"
    batch: int = 0
    jobs: int = 1
    ensemble: int = 1


class Evaluation(ABC):
    """A trained run as a metric sees it; pieces are computed when first asked for, once, and shared by the metrics.

    Samples are uint8, rounded as a file would round them; reconstructions are as they leave the model. A piece that an
    evaluation does not have (the codes of a control without an encoder, the model of results from files) raises
    `NotApplicableError`. A metric lets that error pass: it is then left out for this run, and nothing has failed.

    Attributes:
        context: What the model was built for.
        images: The dataset.
        split: Which held-out images are used.
        seed: The run's seed.
        device: Where pieces are computed and lie.
        training: What the training cost.
        data_config: Where data are read and kept.
        sampler: The sampler that `samples` come from, by name and options; "" for draws of the prior.
    """

    context: ModelContext
    images: Images
    split: Split
    seed: int
    device: torch.device
    training: TrainingStats
    data_config: DataConfig
    sampler: str = ""

    @property
    def model(self) -> Model:
        """The trained model in evaluation mode."""
        raise NotApplicableError("this evaluation has no model")

    @property
    def prior(self) -> Prior:
        """The distribution that codes are compared with and samples are drawn from."""
        raise NotApplicableError("this evaluation has no prior")

    @property
    def references(self) -> Tensor:
        """All held-out images of the split, `(n, c, h, w)` uint8, in the dataset's order."""
        return self.images.test if self.split == "test" else self.images.validation

    @abstractmethod
    def generator(self, purpose: str) -> Generator:
        """A CPU generator derived from the run's seed and the purpose: the same for every model."""

    def noise(self, purpose: str) -> Noise:
        """Random numbers of `generator(purpose)`, for priors and models, on the CPU."""
        return Noise(self.generator(purpose))

    @abstractmethod
    def held_out(self, n: int) -> Tensor:
        """The first n images of the split in a fixed random order, `(n, c, h, w)` uint8; n = 0 is all of them."""

    @abstractmethod
    def training_images(self, n: int) -> Tensor:
        """The first n training images in a fixed random order, `(n, c, h, w)` uint8; n = 0 is all of them."""

    def codes(self, n: int) -> Tensor:
        """Draws of q(z | x) for `held_out(n)`, `(n, d)` float32."""
        raise NotApplicableError("this evaluation has no codes")

    def training_codes(self, n: int) -> Tensor:
        """Draws of q(z | x) for `training_images(n)`, `(n, d)` float32: what a density is fitted to."""
        raise NotApplicableError("this evaluation has no codes")

    def labels(self, n: int) -> Tensor:
        """Labels of the images of `codes(n)`, `(n,)` int64 on the CPU."""
        raise NotApplicableError("this evaluation has no labels")

    def training_labels(self, n: int) -> Tensor:
        """Labels of the images of `training_codes(n)`, `(n,)` int64 on the CPU."""
        raise NotApplicableError("this evaluation has no labels")

    def factors(self, n: int) -> Mapping[str, Tensor]:
        """The factors of the images of `codes(n)` by name, `(n,)` on the CPU: see `Images.test_factors`."""
        raise NotApplicableError("this evaluation has no factors")

    def training_factors(self, n: int) -> Mapping[str, Tensor]:
        """The factors of the images of `training_codes(n)` by name, `(n,)` on the CPU."""
        raise NotApplicableError("this evaluation has no factors")

    def decode(self, z: Tensor) -> Tensor:
        """Images for any codes, `(n, d) -> (n, c, h, w)` uint8, rounded as samples are; computed anew at each call."""
        raise NotApplicableError("this evaluation has no decoder")

    def reconstructions(self, n: int) -> Tensor:
        """decode(encode(x)) for `held_out(n)`, `(n, c, h, w)` float32 in [0, 1], not rounded."""
        raise NotApplicableError("this evaluation has no reconstructions")

    def samples(self, n: int) -> Tensor:
        """Decoded draws of the sampler, `(n, c, h, w)` uint8."""
        raise NotApplicableError("this evaluation has no samples")

    def prior_draws(self, n: int, purpose: str) -> Tensor:
        """n independent draws of the prior for a purpose, `(n, d)` float32, the same for every model."""
        raise NotApplicableError("this evaluation has no prior")

    @abstractmethod
    def cache_for_dataset(self, key: str, compute: Callable[[], T]) -> T:
        """`compute()`, called once per dataset and key; the result is kept for every run of the command."""

    @abstractmethod
    def cache_for_run(self, key: str, compute: Callable[[], T]) -> T:
        """`compute()`, called once per key; the result is kept for this run: several metrics need the same features."""

    def protocol(
        self, *, method: str, references: int, generated: int, values: str = "uint8", **rest: str
    ) -> EvalProtocol:
        """How a number is measured, with what this evaluation knows of it filled in.

        Args:
            method: The estimator.
            references: The count of real images.
            generated: The count of samples; where it is not 0, a sampler other than the prior is named in `detail`.
            values: The range of the values and their quantization.
            **rest: Any other field of `EvalProtocol`; `dataset`, `preparation` and `split` are the evaluation's unless
                they are given here.
        """
        detail = rest.pop("detail", "")
        if self.sampler and generated:
            detail = f"{detail}; sampler {self.sampler}" if detail else f"sampler {self.sampler}"
        known = {
            "dataset": self.images.sha256[:12],
            "preparation": self.images.preprocessing,
            "split": self.split,
            "detail": detail,
        }
        return EvalProtocol(
            method=method, references=references, generated=generated, values=values, **{**known, **rest}
        )


class Metric(ABC):
    """A measurement of a trained run."""

    uses_samples: ClassVar[bool] = True
    """Whether the numbers depend on `Evaluation.samples`; where they do not, one measurement serves all samplers."""

    on_cpu: ClassVar[bool] = False
    """Whether `measure` computes on the CPU, and asks a trained model for `codes` alone, as many as `counts_needed`
    states, beside `prior_draws`. On a GPU it is then measured by a thread while the next run trains, from a copy of
    these codes: `evaluation.device` is the CPU, and there are neither model nor images."""

    def validate(self, info: DatasetInfo, prior: Prior, data_config: DataConfig) -> None:
        """Refuse at planning time, with a `GenbenchError`, what this metric cannot measure; cheap."""

    def fit_to(self, info: DatasetInfo) -> Mapping[str, int]:
        """The options that ask for more images than a dataset has, each with a value that it allows.

        They take the place of defaults. What the user has set is left to `validate`, which refuses it.
        """
        return {}

    def counts_needed(self, info: DatasetInfo) -> Mapping[Piece, int]:
        """How many samples and codes `measure` asks for on such a dataset: too few in files are refused at once.

        What is not named is first looked at when it is measured.
        """
        return {}

    @abstractmethod
    def measure(self, evaluation: Evaluation) -> Iterable[Measurement]:
        """The numbers, each component once.

        Raises:
            MetricError: There is no right value.
            NotApplicableError: The metric has no meaning for this run.
        """
