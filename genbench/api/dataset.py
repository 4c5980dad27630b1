"""The dataset: images with fixed, disjoint splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from genbench.api.network import Shape


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
    """Where data are read and kept, and how.

    Attributes:
        data_root: Datasets in torchvision's layout.
        cache: Files that can be made again.
        download: Whether missing files may be fetched.
        skip_corrupt: Whether images that cannot be decoded are left out; otherwise they are a `DataError`.
        workers: Count of threads or processes.
        report: Called with the progress of long work.
    """

    data_root: Path
    cache: Path
    download: bool = False
    skip_corrupt: bool = False
    workers: int = 1
    report: Callable[[ProgressEvent], None] = ignore_progress


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset before it is decoded.

    Attributes:
        shape: Channels, height and width of an image.
        train: Count of training images.
        test: Count of test images.
        validation: Count of validation images.
        classes: Count of classes; 0 where there are no labels.
        class_names: The meaning of each label, with the dataset's name before a slash ("mnist/7"); empty where unknown.
        skipped: Count of images that are left out because they are corrupt or absent (`DataConfig.skip_corrupt`); the
            other counts are without them.
        notes: How the files were read, a phrase each ("from faces/train and faces/test", "3 files passed over:
            3 .txt"). They are printed with the plan and kept with each run.
        factors: The names of the factors that the images were made from; empty where they are unknown.
        originals: A hash of the bytes of the files that are read, "" where the options alone decide the images. It
            takes the place of the options that say where files lie (`Option.file`) in the identity of a run.
    """

    shape: Shape
    train: int
    test: int
    validation: int = 0
    classes: int = 0
    class_names: tuple[str, ...] = ()
    skipped: int = 0
    notes: tuple[str, ...] = field(default=(), compare=False)
    originals: str = ""
    factors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Images:
    """A decoded dataset.

    Attributes:
        train: Training images, `(n, c, h, w)` uint8.
        test: Test images, likewise.
        validation: Validation images, likewise; `(0, c, h, w)` where there are none.
        train_labels: Labels of the training images, `(n,)` int64, where there are any.
        test_labels: Labels of the test images.
        validation_labels: Labels of the validation images.
        train_factors: What the training images were made from, where that is known: the values of each factor by its
            name, `(n,)`, int64 for a discrete factor and float64 for a continuous one. The same names in every split.
        test_factors: The factors of the test images.
        validation_factors: The factors of the validation images.
        preprocessing: What was done to the originals (crop, filter, size).
        skipped: Count of images that were left out because they are corrupt or absent.
        sha256: Hash of all bytes: see `genbench.data.images.with_content`.
        class_names: The meaning of each label, as in `DatasetInfo`.
        notes: How the files were read, as in `DatasetInfo`.
        duplicates: Count of test images that are training images as well: see `genbench.data.images.with_content`.
        originals: The hash of the files that were read, as in `DatasetInfo`.
    """

    train: Tensor
    test: Tensor
    validation: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    validation_labels: Tensor | None = None
    preprocessing: str = "none"
    skipped: int = 0
    sha256: str = ""
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    duplicates: int = 0
    originals: str = ""
    train_factors: Mapping[str, Tensor] = field(default_factory=dict)
    test_factors: Mapping[str, Tensor] = field(default_factory=dict)
    validation_factors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        """Channels, height and width."""
        c, h, w = self.train.shape[1:]
        return (c, h, w)


class Dataset(ABC):
    """Images with fixed, disjoint splits."""

    @abstractmethod
    def info(self, data_config: DataConfig) -> DatasetInfo:
        """Shape and counts, cheaply and before any decoding.

        With `data_config.skip_corrupt` the images are decoded (and kept): how many are left is known in no other way.

        Raises:
            DataError: Files are missing or broken. Its one line says which file, where it was looked for, what to do.
        """

    @abstractmethod
    def load(self, data_config: DataConfig) -> Images:
        """The decoded images on the CPU, the same bytes at every call. Long work reports to `data_config.report`.

        Raises:
            DataError: An image cannot be decoded, and `data_config.skip_corrupt` is False.
        """
