"""For tests: a metric with a planted best moment that tells which images it was shown, and data without validation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from genbench.api import Dataset, Evaluation, Images, Measurement, Metric, Offer, Option, Place, Protocol, Summary
from genbench.hookspecs import hookimpl
from genbench.images import with_content


class Planted(Metric):
    """On validation images best after 64 images, on test images after 160; `n` counts the test images in reach."""

    def __init__(self, *, shift: Annotated[float, Option("added to every value")] = 0.0) -> None:
        self.shift = shift

    def measure(self, evaluation: Evaluation) -> Iterable[Measurement]:
        best = {"validation": 64, "test": 160}[evaluation.split]
        how = Protocol("planted", "", "", evaluation.split, len(evaluation.references), 0, "")
        value = abs(evaluation.training.images - best) + self.shift
        yield Measurement(value, "images", "lower", len(evaluation.images.test), how)


class Unsplit(Dataset):
    """The squares of `dots`, drawn anew, without validation images unless some are set aside."""

    def __init__(self, *, validation: Annotated[int, Option("training images set aside", low=0)] = 0) -> None:
        self.validation = validation

    def inspect(self, place: Place) -> Summary:
        return Summary(shape=(1, 12, 12), train=100 - self.validation, test=60, validation=self.validation)

    def load(self, place: Place) -> Images:
        import torch

        images = torch.randint(0, 256, (160, 1, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        end = 100 - self.validation
        return with_content(Images(images[:end], images[100:], images[end:100]))


@hookimpl
def genbench_metrics() -> Iterable[Offer[Metric]]:
    yield Offer(name="planted", about="A planted best moment", make=Planted)


@hookimpl
def genbench_datasets() -> Iterable[Offer[Dataset]]:
    yield Offer(name="unsplit", about="No validation images", make=Unsplit)
