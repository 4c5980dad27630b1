"""The metric: a measurement of a trained run, its protocol, and what it may ask of the run."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar

import torch
from torch import Generator, Tensor

from genbench.api.dataset import DataConfig, DatasetInfo, Images
from genbench.api.model import Model, ModelContext
from genbench.api.noise import Noise
from genbench.api.prior import Prior

T = TypeVar("T")

Better = Literal["lower", "higher", "neither"]
"""Which direction of a metric is the better one; "neither" is a fact that ranks nothing."""

Split = Literal["test", "validation"]
"""Which held-out images an evaluation uses: a choice is made on validation images, and its result told on test ones."""


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


@dataclass(frozen=True)
class Measurement:
    """One number of a metric. `part` follows the metric's name after a dot where it has several.

    `floor` is the value that a perfect model would get at this n and `floor_sd` its standard deviation over draws,
    `unit` the unit or the scale, `better` its better direction, `protocol` how it was measured, `n` the count of images
    or codes that went in. `label` is a column head where the name alone would not do ("FID (grey28)").

    What is known of the value of *one* run, its weights fixed: `se` is its standard error over the draws (of samples,
    of the prior, of q(z|x)), in the unit of the value; `low` and `high` a 95 % interval where it has one that is not
    value -+ 1.96 se; `p` the p-value of "this model is perfect by this measure"; `minimum_detectable_effect` the smallest true value
    that n finds with a power of 80 % at a level of 5 %. Each is None where it is unknown or has no meaning.
    """

    value: float
    unit: str
    better: Better
    n: int
    protocol: EvalProtocol
    part: str = ""
    floor: float | None = None
    label: str = ""
    floor_sd: float | None = None
    se: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    minimum_detectable_effect: float | None = None


@dataclass(frozen=True)
class TrainingStats:
    """What training cost: seconds of training proper, images shown, parameters, and on what (`threads` of a CPU).

    `peak_memory` is in bytes, the device's during the training, or on a CPU the process's; None where unknown. `flops`
    are floating point operations, a multiplication and an addition counting two, of matrix products and convolutions in
    all players' forward and backward passes, as torch's counter has them; None where unknown. `precision` is that of
    the arithmetic, `memory_format` that of convolutions' weights ("contiguous" or "channels-last"), `step` says how
    steps were done: "eager", "graph" (one CUDA graph), or "eager: " and why a GPU had to do without a graph. `batch` is
    the count of images in a step, 0 where it is unknown. `jobs` is how many runs went on at once at most on this
    machine (--jobs), whose memory and caches they share.
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


class Evaluation(ABC):
    """A trained run as a metric sees it; pieces are computed when first asked for, once, and shared by the metrics.

    Samples come as uint8, rounded as a file would round them; reconstructions as they leave the model. A piece that
    this evaluation cannot have (the codes of a control that has no encoder) raises `NotApplicableError`, which a metric lets
    pass: the metric is then left out for this run, and nothing has failed.
    """

    setting: ModelContext
    images: Images
    split: Split
    seed: int
    device: torch.device
    training: TrainingStats
    place: DataConfig

    @property
    @abstractmethod
    def model(self) -> Model:
        """The trained model in evaluation mode."""

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

    @abstractmethod
    def codes(self, n: int) -> Tensor:
        """Draws of q(z | x) for `held_out(n)`, `(n, d)` float32."""

    @abstractmethod
    def training_codes(self, n: int) -> Tensor:
        """Draws of q(z | x) for `training_images(n)`, `(n, d)` float32: what a density is fitted to."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Images for any codes, `(n, d) -> (n, c, h, w)` uint8, rounded as samples are; computed anew at each call."""

    @abstractmethod
    def reconstructions(self, n: int) -> Tensor:
        """decode(encode(x)) for `held_out(n)`, `(n, c, h, w)` float32 in [0, 1], not rounded."""

    @abstractmethod
    def samples(self, n: int) -> Tensor:
        """Decoded prior draws, `(n, c, h, w)` uint8."""

    @abstractmethod
    def prior_draws(self, n: int, purpose: str) -> Tensor:
        """n independent draws of the prior for a purpose, `(n, d)` float32, the same for every model."""

    @abstractmethod
    def shared(self, key: str, make: Callable[[], T]) -> T:
        """`make()`, computed once per dataset and key and kept for every run of the command."""

    @abstractmethod
    def own(self, key: str, make: Callable[[], T]) -> T:
        """`make()`, computed once per key and kept for this run: what several metrics need of its samples."""


class Metric(ABC):
    """A measurement of a trained run."""

    def check(self, summary: DatasetInfo, prior: Prior, place: DataConfig) -> None:
        """Refuse at planning time, with a `GenbenchError`, what this metric cannot measure; cheap."""

    @abstractmethod
    def measure(self, evaluation: Evaluation) -> Iterable[Measurement]:
        """The numbers. Raises `MetricError` where there is no right value."""

    def detached(self, evaluation: Evaluation) -> Callable[[], Iterable[Measurement]] | None:
        """What is left of `measure` once all that needs the model or the device is done here; None: nothing is gained.

        What is returned gives the numbers of `measure`. It may be called on another thread while the next run trains on
        a GPU, so it keeps to the CPU and draws from generators of its own, and of the evaluation it asks for `shared`
        and the plain attributes alone: the model and its pieces are gone by then. Raises what `measure` raises.
        """
        return None
