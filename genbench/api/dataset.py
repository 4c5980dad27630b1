"""The dataset: images with fixed, disjoint splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
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
