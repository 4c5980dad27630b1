"""The metric `my-metric`: mean absolute error of reconstructions. Change `measure`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch

from genbench.api import ComponentSpec, Evaluation, Measurement, Metric, Option
from genbench.hookspecs import hookimpl


class MyMetric(Metric):
    """E |x - decode(encode(x))| on held-out images, mean over pixels, values in [0, 1]."""

    # True where the numbers depend on `e.samples`: they are then measured for each sampler of a run.
    uses_samples = False

    # Keyword-only parameters are the options: `--set my-metric.n=500`. Override `validate(info, prior, data_config)` to
    # refuse while planning a measurement that is impossible.
    def __init__(self, *, n: Annotated[int, Option("held-out images; 0: all", low=0)] = 0) -> None:
        """Keep the options."""
        self.n = n

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The numbers of one trained run; raise `genbench.errors.MetricError` where there is no right value.

        `e` computes its pieces when first asked for, once for all metrics. Images `(n, c, h, w)`: `held_out(n)`,
        `training_images(n)` and `samples(n)` are uint8, `reconstructions(n)` float32 in [0, 1]. Codes `(n, d)`:
        `codes(n)`, `prior_draws(n, purpose)`. Noise comes from `e.generator(purpose)`.
        """
        n = min(self.n, len(e.references)) or len(e.references)
        images = e.held_out(n).to(e.device)
        rebuilt = e.reconstructions(n).to(e.device)  # codes may hold NaN: if not isfinite().all(), raise MetricError
        value = float((images / 255 - rebuilt).abs().mean(dtype=torch.float64))
        # A protocol says how the number was measured; numbers of different protocols never share a column.
        # `e.protocol` fills in the dataset, its preprocessing and the split.
        protocol = e.protocol(method="mean absolute error", references=n, generated=0, values="[0, 1]", draws="none")
        # `floor` is the value that a perfect model would get with this many images; for a metric of samples, that of
        # `e.training_images(n)`. Role: "sample quality", "reconstruction", "latent fit" or "" (none).
        yield Measurement(
            value=value,
            unit="mean over pixels",
            higher_is_better=False,
            n=n,
            protocol=protocol,
            role="reconstruction",
            floor=0.0,
            label="MAE per pixel",
        )


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """The metric. `reference` is the paper that it comes from."""
    yield ComponentSpec(
        name="my-metric", description="Mean absolute error of reconstructions", factory=MyMetric, reference=""
    )
