"""The checks of datasets. What needs files that are absent is skipped, with the reason."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genbench.api import DataConfig, Dataset, Images
from genbench.errors import DataError, GenbenchError
from genbench.testing.results import ConformanceCheck, Skipped, expect

SPLITS = ("train", "test", "validation")


@dataclass
class Loaded:
    """A dataset, and its images in an empty data root, loaded when they are first needed."""

    dataset: Dataset
    _images: Images | None = None

    @property
    def images(self) -> Images:
        """The images, loaded once."""
        if self._images is None:
            self._images = load(self.dataset)
        return self._images


def build(make: Callable[[], Dataset]) -> Loaded:
    """The subject of the checks."""
    return Loaded(make())


def load(dataset: Dataset) -> Images:
    """The images with an empty data root and an empty cache, so that a second load cannot read the first's."""
    with tempfile.TemporaryDirectory() as folder:
        data_config = _empty(Path(folder))
        try:
            dataset.info(data_config)
        except DataError as error:
            reason = str(error).replace(folder, "DIR")
            raise Skipped(f"needs files that are not here: {reason}") from None
        return dataset.load(data_config)


def uint8_nchw(subject: Loaded) -> str:
    """Every split is (n, c, h, w) uint8, as many as `info` says, and uses more of 0..255 than 0 and 1."""
    images = subject.images
    with tempfile.TemporaryDirectory() as folder:
        summary = subject.dataset.info(_empty(Path(folder)))
    for split in SPLITS:
        tensor, count = getattr(images, split), getattr(summary, split)
        observation = f"{split} is {tuple(tensor.shape)} {tensor.dtype}"
        expect(tensor.dtype == torch.uint8 and tensor.dim() == 4, f"{observation}: expected (n, c, h, w) uint8")
        expect(tensor.shape == (count, *summary.shape), f"{observation}, `info` says {(count, *summary.shape)}")
        labels = getattr(images, f"{split}_labels")
        fits = labels is None or (labels.shape == (count,) and labels.dtype == torch.int64)
        expect(fits, f"{split}_labels are not ({count},) int64")
        factors = getattr(images, f"{split}_factors")
        expect(factors.keys() == images.train_factors.keys(), f"{split}_factors and train_factors have other names")
        kinds = (torch.int64, torch.float64)
        wrong = [name for name, each in factors.items() if each.shape != (count,) or each.dtype not in kinds]
        expect(not wrong, f"{split}_factors '{''.join(wrong[:1])}' is not ({count},) int64 or float64")
    stated = summary.factors == tuple(images.train_factors)
    expect(stated, f"`info` states the factors {summary.factors}, `load` {tuple(images.train_factors)}")
    expect(summary.originals == images.originals, "`info` and `load` state different `originals`")
    expect(int(images.train.max()) > 1, "no training pixel exceeds 1: images in [0, 1] were not scaled to 0..255")
    return f"{summary.train} + {summary.test} + {summary.validation} images of {summary.shape}"


def splits_are_disjoint(subject: Loaded) -> str:
    """No image is in two splits."""
    hashes = {split: set(_hashes(getattr(subject.images, split))) for split in SPLITS}
    for a, b in (("train", "test"), ("train", "validation"), ("validation", "test")):
        both = len(hashes[a] & hashes[b])
        expect(not both, f"{both} images are in {a} and in {b}")
    return "no image in two splits"


def second_load_is_equal(subject: Loaded) -> str:
    """A second load, with another empty cache, gives the same bytes and the same content hash."""
    first = subject.images
    torch.manual_seed(1)  # another global state: a split shuffled without a seed shows
    random.seed(1)
    np.random.seed(1)
    second = load(subject.dataset)
    for split in SPLITS:
        expect(torch.equal(getattr(first, split), getattr(second, split)), f"{split} differs at a second load")
    expect(bool(first.sha256) and first.sha256 == second.sha256, "the content hash is empty or differs")
    return f"content {first.sha256[:12]}"


def absent_files_are_named(subject: Loaded) -> str:
    """Without its files, `info` raises `DataError` in one line that names the path, or the option for it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subject.dataset.info(_empty(Path(folder)))
        except GenbenchError as error:
            text = str(error)
            expect(isinstance(error, DataError), f"raises {type(error).__name__}, not DataError: {text}")
            expect("\n" not in text, "the error has several lines")
            expect(
                folder in text or "--set" in text,
                f"the error names neither a path nor the option that gives it: {text}",
            )
            return text.replace(folder, "DIR")
    raise Skipped("needs no files")


def _empty(folder: Path) -> DataConfig:
    (folder / "data").mkdir(exist_ok=True)
    return DataConfig(data_root=folder / "data", cache=folder / "cache")


def _hashes(images: Tensor) -> list[bytes]:
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in images.numpy()]


CHECKS: tuple[ConformanceCheck[Loaded], ...] = (
    ConformanceCheck(
        absent_files_are_named, "raise DataError(f'... no {path} ...: what to do') in `info`, before any decoding"
    ),
    ConformanceCheck(uint8_nchw, "return uint8 (n, c, h, w) in 0..255 for each split, counted as `info` does"),
    ConformanceCheck(
        splits_are_disjoint, "split by index after removing duplicates; never split what was shuffled without a seed"
    ),
    ConformanceCheck(
        second_load_is_equal, "draw from a seeded generator, sort file names, and end with `with_content`"
    ),
)
