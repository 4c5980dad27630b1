"""The contract between the core and its plug-ins: small typed records and abstract classes, no behaviour of the core.

Conventions that hold everywhere. Images are `(n, c, h, w)`: uint8 in 0..255 at rest, float32 in [0, 1] where a model
sees them. Codes and prior draws are `(n, d)` float32. Randomness comes from a `torch.Generator` that is handed in,
never from global state.

This module, `genbench.hookspecs`, `genbench.nn`, `genbench.distances`, `genbench.data.images`, `genbench.errors` and
`genbench.testing` are the stable surface for plug-ins; anything deeper may change without a word, and `genbench check
--plugin FILE` tells where a file imports it.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import torch
from torch import Generator, Tensor, nn

from genbench.errors import NotApplicableError, UnsupportedError
from genbench.utils.deprecation import Renamed, renamed

API_VERSION = 1
"""The version of this contract. It rises when a plug-in that keeps the contract could stop working: a name or a field
is removed, a signature or a meaning changes. New names, and new fields with defaults, leave it alone. A renamed thing
keeps its old name, with a `DeprecationWarning`, for one release."""

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""

Better = Literal["lower", "higher", "neither"]
"""Which direction of a metric is the better one; "neither" is a fact that ranks nothing."""

Split = Literal["test", "validation"]
"""Which held-out images an evaluation uses: a choice is made on validation images, and its result told on test ones."""

T = TypeVar("T")


# ---------------------------------------------------------------- offers and options


@dataclass(frozen=True)
class Option:
    """What an option means; stands in the annotation: `weight: Annotated[float, Option("...", low=0)] = 10.0`.

    `about` is its meaning in a few words. `source` says where the default comes from. `low` and `high` are inclusive
    bounds, `above` an exclusive lower one. `file` marks the place of a file whose content, and not its place, decides
    the number: a metric's protocol tells the content by its hash, in the field `weights`.
    """

    about: str
    source: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    file: bool = False


@dataclass(frozen=True, kw_only=True)
class ComponentSpec(Generic[T]):
    """A named thing that a plug-in offers.

    The keyword-only parameters of `make` are its options: their annotations (int, float, bool, str, a `Literal` of
    strings, or one of these `| None`; with an `Option` in `Annotated`) and their defaults give the help, the
    validation and the complete record of a run. `name` is lower case letters, digits and hyphens, `about` one line for
    lists, `source` the paper or the code that it comes from ("ours" where there is none).
    """

    name: str
    about: str
    make: Callable[..., T]
    source: str = ""


# ---------------------------------------------------------------- priors

MOMENT_DRAWS = 100_000
"""Draws behind the moments of a prior that does not state them: their relative error is about 0.5 %."""


class Prior(ABC):
    """A distribution on R^d that latent codes are meant to follow.

    Its `make` raises `UnsupportedError` where a latent dimension has no meaning; once made, only `log_prob` may raise.
    """

    latent_dim: int

    @abstractmethod
    def sample(self, n: int, generator: Generator) -> Tensor:
        """n independent draws, `(n, d)` float32 on the generator's device, determined by its state."""

    def sample_batch(self, n: int, generator: Generator) -> Tensor:
        """n draws for one training step, `(n, d)`; each row follows the prior, rows may be stratified.

        Measurements always use `sample`, whose rows are independent.
        """
        return self.sample(n, generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density with respect to Lebesgue measure in nats, `(n, d) -> (n,)`; -inf outside the support.

        Raises `UnsupportedError` where there is no such density; `has_density` says so beforehand.
        """
        raise UnsupportedError(f"the prior {type(self).__name__} has no density on R^{self.latent_dim}")

    @property
    def has_density(self) -> bool:
        """Whether `log_prob` is defined."""
        return type(self).log_prob is not Prior.log_prob

    @property
    def full_support(self) -> bool:
        """Whether the density is positive on all of R^d, so that KL(q | p) of a Gaussian q is finite."""
        return False

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lower and upper bound of every coordinate, or None where it is unbounded."""
        return None

    @property
    def normal_sigma(self) -> float | None:
        """The standard deviation where the prior is N(0, sigma^2 I): a Gaussian KL then has a closed form."""
        return None

    @property
    def mean(self) -> Tensor:
        """Mean of the prior, `(d,)` float32; of 100,000 draws where a prior does not state it."""
        return self.sample(MOMENT_DRAWS, Generator().manual_seed(0)).mean(0)

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, `(d,)` float32; of 100,000 draws where a prior does not state it."""
        return self.sample(MOMENT_DRAWS, Generator().manual_seed(0)).var(0)

    @property
    def pairwise_scale(self) -> float:
        """E|z - z'|^2 of two independent draws, which is twice the trace of the covariance.

        For N(0, sigma^2 I) this is 2 d sigma^2, the scale C of the IMQ kernel (arXiv:1711.01558, section 4).
        """
        return 2.0 * float(self.variance.sum())


# ---------------------------------------------------------------- networks


class Network(ABC):
    """An encoder/decoder pair for one image shape: the controlled variable, the same for every model.

    Its `make` raises `UnsupportedError` for a shape that does not fit; once made, no method raises.
    """

    shape: Shape

    @abstractmethod
    def encoder(self, outputs: int) -> nn.Module:
        """An untrained module `(n, c, h, w)` in [0, 1] -> `(n, outputs)`."""

    @abstractmethod
    def decoder(self, latent_dim: int) -> nn.Module:
        """An untrained module `(n, latent_dim)` -> `(n, c, h, w)` *logits*: the model applies the sigmoid."""


# ---------------------------------------------------------------- models


@dataclass(frozen=True)
class ModelContext:
    """What a model is built for, the same for every model of a comparison.

    `shape` is the images', `latent_dim` the d of the codes, `prior` what they are meant to follow, `network` what makes
    encoder and decoder.
    """

    shape: Shape
    latent_dim: int
    prior: Prior
    network: Network


@dataclass(frozen=True)
class Loss:
    """One player's loss, a scalar to descend, and detached scalar terms for the log."""

    player: str
    loss: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


def constant_schedule(epoch: int) -> float:
    """The schedule that leaves the learning rate alone."""
    return 1.0


@dataclass(frozen=True)
class OptimizerConfig:
    """The `parameters` that one `optimizer` owns; `schedule(epoch)` multiplies its learning rate from that epoch on."""

    parameters: tuple[nn.Parameter, ...]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    schedule: Callable[[int], float] = constant_schedule


class Model(nn.Module, ABC):
    """An autoencoder-type generative model: codes for images, images for codes, and an objective as moves.

    Its `make` raises `UnsupportedError` for a setting that has no meaning (a KL divergence from a prior without a density); once
    made, no method raises: a loss that is not finite is the training loop's to tell, as `DivergenceError`.
    """

    setting: ModelContext

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """The point code that reconstructs x, `(n, c, h, w)` in [0, 1] -> `(n, d)`; no randomness."""

    def sample_codes(self, x: Tensor, generator: Generator) -> Tensor:
        """A draw from q(z | x), `(n, c, h, w) -> (n, d)`: what the prior is compared with.

        The same as `encode` for a deterministic encoder.
        """
        return self.encode(x)

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Images in [0, 1] for codes, `(n, d) -> (n, c, h, w)`; the mean where the decoder is a distribution."""

    @abstractmethod
    def configure_optimizers(self) -> Mapping[str, OptimizerConfig]:
        """The optimisers by name; their parameters are disjoint and together all of the model's."""

    @abstractmethod
    def training_step(self, x: Tensor, z: Tensor, generator: Generator) -> Iterator[Loss]:
        """One training step: yields a player's loss and is resumed after that player's optimiser step.

        x: `(n, c, h, w)` images in [0, 1]; z: `(n, d)` draws of the prior; any further noise comes from `generator`.
        Losses are means over the batch, so that the objective does not depend on its size. Never wait on the device
        here (no `.item()`), and never yield inside `no_grad` or `autocast`.
        """

    def on_epoch_start(self, epoch: int) -> None:
        """Called before each epoch, counted from 0, and again where a run resumes; a function of `epoch` alone."""


# ---------------------------------------------------------------- datasets


@dataclass(frozen=True)
class ProgressEvent:
    """How far a long preparation is: `done` of `total` units (0: unknown) of the work that `what` names."""

    what: str
    done: int
    total: int


def ignore_progress(progress: ProgressEvent) -> None:
    """The listener that shows nothing."""


@dataclass(frozen=True)
class DataConfig:
    """Where data may be read and kept, and how.

    `data_root` holds datasets in torchvision's layout, `cache` what can be made again. Without `download` nothing is
    fetched, without `skip_corrupt` a broken image is a `DataError`. `workers` is a count of threads or processes,
    `report` is told of long work.
    """

    data_root: Path
    cache: Path
    download: bool = False
    skip_corrupt: bool = False
    workers: int = 1
    report: Callable[[ProgressEvent], None] = ignore_progress


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset before it is decoded: the `shape` of an image and the counts of images in `train`,
    `test` and `validation`, and of `classes` (0: no labels).

    `class_names` says what each label stands for, the dataset's name before a slash ("mnist/7"); empty where unknown.
    """

    shape: Shape
    train: int
    test: int
    validation: int = 0
    classes: int = 0
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Images:
    """A decoded dataset: `(n, c, h, w)` uint8 per split, labels `(n,)` int64 where there are any.

    The splits are `train`, `test` and `validation`, the labels `train_labels`, `test_labels` and `validation_labels`;
    `skipped` counts corrupt images that were left out.
    `content` is a hash of all bytes, `preparation` says what was done to the originals (crop, filter, size),
    `class_names` what each label stands for, as in `DatasetInfo`.
    """

    train: Tensor
    test: Tensor
    validation: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    validation_labels: Tensor | None = None
    preparation: str = "none"
    skipped: int = 0
    content: str = ""
    class_names: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """Channels, height and width."""
        c, h, w = self.train.shape[1:]
        return (c, h, w)


class Dataset(ABC):
    """Images with fixed, disjoint splits."""

    @abstractmethod
    def inspect(self, place: DataConfig) -> DatasetInfo:
        """Shape and counts, cheaply and before any decoding.

        Raises `DataError` in one line where files are missing or broken: what, where it was looked for, what to do.
        """

    @abstractmethod
    def load(self, place: DataConfig) -> Images:
        """The decoded images on the CPU; the same bytes at every call. Long work reports to `place.report`.

        Raises `DataError` for an image that cannot be decoded, unless `place.skip_corrupt`.
        """


# ---------------------------------------------------------------- metrics


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


# ---------------------------------------------------------------- controls


class Control(ABC):
    """What numbers are read against (real images, noise, ...): measured like a model, trained by no gradient.

    A plain control depends neither on the prior nor on the latent dimension, so that a study measures it once; one with
    codes is a `LatentControl`.
    """

    parameters: int = 0
    """Count of the numbers that `fit` has set or drawn."""

    def check(self, summary: DatasetInfo, prior: Prior) -> None:
        """Refuse at planning time, with a `GenbenchError`, what this control cannot do; cheap."""

    def fit(self, images: Images, setting: ModelContext) -> None:
        """Compute from the *training* images what the control needs, the same at every call: nothing else is stored.

        Any randomness is torch's global state, which the caller derives from the seed as it does for a model's weights.
        """

    @abstractmethod
    def sample(self, n: int, evaluation: Evaluation) -> Tensor:
        """n samples, `(n, c, h, w)` uint8; the first m of n are the m that `sample(m, evaluation)` gives.

        Raises `NotApplicableError` where there are no n of them.
        """

    def reconstruct(self, x: Tensor) -> Tensor:
        """Reconstructions in [0, 1], not rounded, of images in [0, 1], `(n, c, h, w)` both; may be `NotApplicableError`."""
        raise NotApplicableError("this control reconstructs nothing")


class LatentControl(Control):
    """A control with an encoder and a decoder: its samples are decoded draws of the prior, as a model's are.

    `encode` and `decode` raise nothing.
    """

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Codes that compare with draws of the prior, `(n, c, h, w)` in [0, 1] -> `(n, d)`; no randomness."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Images in [0, 1] for codes, `(n, d) -> (n, c, h, w)`."""

    def sample(self, n: int, evaluation: Evaluation) -> Tensor:
        """Decoded draws of the prior, `(n, c, h, w)` uint8: the draws that every model of this seed decodes."""
        return evaluation.decode(evaluation.prior_draws(n, "samples"))

    def reconstruct(self, x: Tensor) -> Tensor:
        """decode(encode(x)), `(n, c, h, w)` in [0, 1] both."""
        return self.decode(self.encode(x))


# ---------------------------------------------------------------- recipes


@dataclass(frozen=True)
class Finding:
    """One number of an experiment: the `value` of a `metric` in a `case` ("d = 64, L = 50"), in its `unit`.

    It was measured under `seed`, from n repeats. `protocol` tells how, by the names of fields that the recipe states of
    its published numbers; where it is empty, a changed option or budget makes it another protocol.
    """

    case: str
    metric: str
    value: float
    n: int
    unit: str = ""
    seed: int = 0
    protocol: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A paper's experiment: the `text` of a TOML file, whose keys `genbench.reproduction.recipe` describes; `where` names the file.

    A recipe of `study = "grid"` has no code: its cells are trained and measured as `genbench run` would. What no grid
    can say has `study = "experiment"` and brings `experiment(seed, budget)`, budget a fraction in (0, 1] of its
    repeats, which yields findings; its published numbers, margins and verdicts are the file's all the same.
    """

    text: str
    where: str
    experiment: Callable[[int, float], Iterable[Finding]] | None = None


DEPRECATED: Mapping[str, Renamed] = {}
"""Old names of this module and what they are now."""

if not TYPE_CHECKING:  # a type checker would believe a module with a `__getattr__` to have every name
    __getattr__ = renamed(__name__, DEPRECATED)

__all__ = [
    "API_VERSION",
    "Better",
    "ComponentSpec",
    "Control",
    "DataConfig",
    "Dataset",
    "DatasetInfo",
    "EvalProtocol",
    "Evaluation",
    "Finding",
    "Images",
    "LatentControl",
    "Loss",
    "Measurement",
    "Metric",
    "Model",
    "ModelContext",
    "Network",
    "OptimizerConfig",
    "Option",
    "Prior",
    "ProgressEvent",
    "Recipe",
    "Shape",
    "Split",
    "TrainingStats",
    "UnsupportedError",
    "constant_schedule",
    "ignore_progress",
]
