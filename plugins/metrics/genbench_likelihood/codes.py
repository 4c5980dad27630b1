"""Codes and their densities: active units, information on the image, the aggregated posterior, NLL under the prior."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genbench.api import DatasetInfo, Evaluation, Measurement, Model, Option, Piece
from genbench.errors import MetricError, NotApplicableError
from genbench_likelihood.posterior import (
    BLOCK,
    LEAST,
    THRESHOLD,
    HeldOutMetric,
    blocks,
    collapse,
    count_active,
    describe,
    log_prior,
    mean,
    stochastic,
)

RESAMPLES = 200
"""Bootstrap resamples of the images behind the error of a count of units: it is then known to 5 %."""

RESAMPLES_SEED = 1509_00519

ENTRIES = 2**22
"""Numbers of the largest temporary tensor, in which densities of many codes under many q(z | x) are computed."""

SATURATED = 0.9
"""The share of log n from which an estimate of the mutual information says no more than that it is large."""

FLOORS = 8
"""Samples of the prior whose mean -log p(z) is the floor of that of codes."""


@dataclass(frozen=True, kw_only=True)
class ActiveUnits(HeldOutMetric):
    """How many units of the code depend on the image: those whose mean under q(z | x) varies over the images.

    A unit is active where the variance over images of its mean exceeds the threshold. None: the decoder gets nothing of
    the image (posterior collapse). The error is that of a bootstrap over the images.

    Source: arXiv:1509.00519, section 5.2.
    """

    name: ClassVar[str] = "active-units"
    n: Annotated[int, Option("held-out images; 0: all", low=0)] = 0
    threshold: Annotated[
        float, Option("variance from which a unit is active", reference="arXiv:1509.00519", above=0)
    ] = THRESHOLD

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The count."""
        model, images = stochastic(e), e.held_out(self.n)
        means = posterior_means(model, blocks(e, images)).double().cpu()
        if len(means) < LEAST:
            raise MetricError(f"active-units needs {LEAST} held-out images and has {len(means)}")
        if not means.isfinite().all():
            raise MetricError("active-units: some means of q(z | x) are NaN or infinite")
        d = means.shape[1]
        generator = torch.Generator().manual_seed(RESAMPLES_SEED)
        counts = []
        for _ in range(RESAMPLES):
            chosen = torch.randint(len(means), (len(means),), generator=generator)
            counts.append(count_active(means[chosen], self.threshold))
        yield Measurement(
            value=count_active(means, self.threshold),
            unit=f"of {d} units",
            higher_is_better=None,
            n=len(means),
            protocol=e.protocol(
                method=f"units whose mean under q(z | x) has a variance over images above {self.threshold:g}",
                references=len(means),
                generated=0,
                values="means of q(z | x)",
                dtype="float64",
                detail=f"of {d} units",
            ),
            se=statistics.stdev(counts),
            label="active units",
            caution=collapse(means, self.threshold),
        )


def posterior_means(model: Model, x: Iterable[Tensor]) -> Tensor:
    """Means of q(z | x) for blocks of images, `(n, d)`."""
    try:
        return torch.cat([model.posterior(block).mean for block in x])
    except NotImplementedError:
        raise NotApplicableError("q(z | x) states no mean") from None


@torch.no_grad()
def log_aggregated(model: Model, x: Iterable[Tensor], z: Tensor) -> Tensor:
    """log of the mean over images x of q(z | x), codes `(m, d)` -> `(m,)` float64; blocks of images, bounded memory."""
    total = torch.full((len(z),), -torch.inf, dtype=torch.float64, device=z.device)
    count = 0
    for block in x:
        q, count = model.posterior(block), count + len(block)
        size = max(1, ENTRIES // (len(block) * z.shape[1]))
        log_densities = (torch.logsumexp(q.log_prob(part[:, None]).double(), 1) for part in z.split(size))
        total = torch.logaddexp(total, torch.cat(list(log_densities)))
    return total - math.log(count)


@dataclass(frozen=True, kw_only=True)
class MutualInformation(HeldOutMetric):
    r"""I(x; z) under q, and KL(q(z) | p) of the aggregated posterior, from n held-out images with a code each.

    .. math:: \hat I = \frac1n \sum_i \log \frac{q(z_i \mid x_i)}{q_n(z_i)}, \qquad
              \widehat{KL} = \frac1n \sum_i \log \frac{q_n(z_i)}{p(z_i)}, \qquad q_n(z) = \frac1n \sum_j q(z \mid x_j)

    Their sum estimates the rate, E KL(q(z | x) | p). The estimate of I never exceeds log n and is too small by
    what is missing there, that of the KL too large by the same: it is at least the rate - log n, which is stated as
    its floor, even where q(z) is the prior. From 0.9 log n on both are marked; I then lies between its estimate and
    the rate.

    Source: arXiv:1711.00464, appendix; the decomposition is that of Hoffman and Johnson (ELBO surgery, 2016).
    """

    name: ClassVar[str] = "mutual-information"
    n: Annotated[int, Option("held-out images, with a code each", low=LEAST)] = 2000

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The information, and the KL where the prior has a density."""
        model, images, z = stochastic(e), e.held_out(self.n), e.codes(self.n)
        pairs = zip(blocks(e, images), z.split(BLOCK), strict=True)
        own = torch.cat([model.posterior(x).log_prob(code).double() for x, code in pairs])
        aggregated = log_aggregated(model, blocks(e, images), z)
        information = mean(own - aggregated, "mutual-information", "estimate")
        limit = math.log(len(z))
        full = information.value > SATURATED * limit
        collapsed = collapse(torch.cat([model.encode(x) for x in blocks(e, images)]))
        protocol = e.protocol(
            method="q(z) as the mean of q(z | x) over the images themselves, one code for each",
            references=len(z),
            generated=0,
            values="draws of q(z | x)",
            dtype="float32, sums in float64",
            detail=f"I(x; z) at most log n = {limit:.2f} nats; KL(q(z) | p) at least the rate - log n, its floor",
        )
        bound = f"log {len(z):,} = {limit:.1f} nats"
        yield Measurement(
            value=information.value,
            unit="nats",
            higher_is_better=None,
            n=len(z),
            protocol=protocol,
            se=information.se,
            label="I(x; z)",
            caution=collapsed
            or (f"at its limit, {bound}: the true value lies between it and the rate" if full else ""),
        )
        try:
            expected = log_prior(e.prior, z).double()
        except NotApplicableError:  # the information alone needs no density of the prior
            return
        divergence = mean(aggregated - expected, "mutual-information", "KL")
        yield Measurement(
            value=divergence.value,
            unit="nats",
            higher_is_better=None,
            n=len(z),
            protocol=replace(protocol, detail=f"{protocol.detail}; {describe(e.prior)}"),
            component="marginal-kl",
            floor=max(0.0, float((own - expected).mean()) - limit),
            se=divergence.se,
            label="KL(q(z) | p)",
            caution=f"too large: I(x; z) is at its limit, {bound}" if full else "",
        )


@dataclass(frozen=True, kw_only=True)
class CodeNLL(HeldOutMetric):
    """Mean -log p(z) of the codes of held-out images under the prior, beside that of draws of the prior (the floor).

    It ranks nothing: codes that gather where the density is largest have less than the prior's own draws. Codes where
    the density is 0 have none.
    """

    name: ClassVar[str] = "code-nll"
    n: Annotated[int, Option("held-out images encoded, and prior draws", low=LEAST)] = 2000

    def needs(self, info: DatasetInfo) -> Mapping[Piece, int]:
        """The codes, where they come from files."""
        return {"codes": self.n}

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The number, with the prior's own as its floor."""
        codes = e.codes(self.n)
        if not codes.isfinite().all():
            raise MetricError("code-nll: some codes are NaN or infinite")
        values = -log_prior(e.prior, codes)
        outside = int(torch.isposinf(values).sum())
        if outside:
            raise NotApplicableError(
                f"the prior's density is 0 at {outside:,} of {len(codes):,} codes: their NLL is infinite"
            )
        number = mean(values, "code-nll", "NLL")
        draws = [e.prior_draws(len(codes), f"code-nll/{i}") for i in range(FLOORS)]
        floors = [float(-log_prior(e.prior, drawn).double().mean()) for drawn in draws]
        yield Measurement(
            value=number.value,
            unit="nats",
            higher_is_better=None,
            n=len(codes),
            protocol=e.protocol(
                method="mean of -log p(z) over codes of held-out images",
                references=len(codes),
                generated=0,
                values="draws of q(z | x)",
                dtype="float32, sums in float64",
                detail=describe(e.prior),
            ),
            floor=statistics.fmean(floors),
            floor_sd=statistics.stdev(floors),
            se=number.se,
            label="NLL of codes",
        )
