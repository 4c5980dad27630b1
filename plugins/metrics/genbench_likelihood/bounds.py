"""Bounds of log p(x): by importance sampling (arXiv:1509.00519), and the evidence lower bound in its two parts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genbench.api import Evaluation, Measurement, Model, Noise, Option, Prior
from genbench_likelihood.posterior import (
    BLOCK,
    LEAST,
    HeldOutMetric,
    blocks,
    collapse,
    kl,
    law_caution,
    law_detail,
    likelihood,
    log_prior,
    mean,
)

IMAGES = 25
"""Images whose draws are made together: with 20 draws each they fill a block."""

TOLERANCE = 0.1
"""Nats by which the second half of the draws may change a converged estimate; papers print tenths of a nat."""

LEAST_EFFECTIVE = 5.0
"""Effective draws an image below which the weights of a few draws decide."""


@dataclass(frozen=True)
class Bounds:
    """Importance-sampled estimates for each image, `(n,)` float64 each.

    `log_p` is the logarithm of the mean weight of all draws, `half` the mean of the same for either half of them,
    `effective` the effective number of draws, (sum w)^2 / sum w^2.
    """

    log_p: Tensor
    half: Tensor
    effective: Tensor


@torch.no_grad()
def log_weights(model: Model, prior: Prior, x: Tensor, draws: int, noise: Noise) -> Tensor:
    """log p(x, z) - log q(z | x) of draws z of q, images `(n, c, h, w)` in [0, 1] -> `(draws, n)` float64."""
    n, q, rows = len(x), model.posterior(x), []
    at_once = max(1, BLOCK // n)
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        repeated = x.repeat(count, 1, 1, 1)
        z = model.sample_codes(repeated, noise)
        joint = model.log_likelihood(repeated, z).double() + log_prior(prior, z).double()
        rows.append(joint.view(count, n) - q.log_prob(z.view(count, n, -1)).double())
    return torch.cat(rows)


def bounds(weights: Tensor) -> Bounds:
    """The estimates of log weights, `(k, n) -> (n,)` each, k at least 2."""
    first, second = (log_mean_exp(half) for half in weights.tensor_split(2))
    effective = torch.exp(2.0 * torch.logsumexp(weights, 0) - torch.logsumexp(2.0 * weights, 0))
    return Bounds(log_mean_exp(weights), (first + second) / 2.0, effective)


def log_mean_exp(values: Tensor) -> Tensor:
    """The logarithm of the mean over the first dimension of exp(values)."""
    return torch.logsumexp(values, 0) - math.log(len(values))


@dataclass(frozen=True, kw_only=True)
class NLL(HeldOutMetric):
    r"""-log p(x) of test images, estimated from k draws of q(z | x), and whether it has converged in k.

    .. math:: -\log \frac1k \sum_i \frac{p(x \mid z_i)\, p(z_i)}{q(z_i \mid x)}

    On average it is at least -log p(x), and falls to it as k grows. How far it is off is about what it falls from
    k / 2 draws to k (`gain`), where the weights have a variance: a bias of c / k is halved then. It is called
    converged where that is at most 0.1 nats an image and the draws count for at least 5.

    Source: arXiv:1509.00519, equation 8 and section 5.
    """

    name: ClassVar[str] = "nll"
    n: Annotated[int, Option("held-out images", low=LEAST)] = 1000
    samples: Annotated[
        int, Option("draws of q(z | x) for each image", reference="5,000 in arXiv:1509.00519", low=2)
    ] = 256

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The estimate for an image and for a pixel, what more draws gain, and how many of them count."""
        model, images, noise = likelihood(e), e.held_out(self.n), e.noise("nll")
        parts = [bounds(log_weights(model, e.prior, x, self.samples, noise)) for x in blocks(e, images, IMAGES)]
        log_p, half, effective = (torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0]))
        estimate, gain = mean(-log_p, "nll", "estimate"), mean(log_p - half, "nll", "estimate of half the draws")
        draws = mean(effective, "nll", "effective number of draws")

        # The verdict.
        law = model.likelihood_law
        converged = gain.value <= TOLERANCE and draws.value >= LEAST_EFFECTIVE
        verdict = "" if converged else f"not converged in {self.samples:,} draws, an upper bound: raise nll.samples"
        caution = "; ".join(text for text in (law_caution(law, images), verdict) if text)

        # The numbers.
        protocol = e.protocol(
            method=f"-log p(x) by importance sampling from q(z | x), {self.samples} draws",
            references=len(images),
            generated=0,
            dtype="float32, sums in float64",
            detail=f"{law_detail(law)}; converged where twice the draws gain at most {TOLERANCE:g} nats",
        )
        dimensions = images[0].numel()
        levels = math.log(256.0) if law == "Gaussian" else 0.0  # a density on [0, 1] to one on 256 grey levels
        scale = 1.0 / (dimensions * math.log(2.0))
        bits = (estimate.value + dimensions * levels) * scale
        numbers = (
            ("", estimate.value, estimate.se, "nats", False, f"NLL ({law})", caution),
            ("bits", bits, estimate.se * scale, "bits", False, f"bits per dim ({law})", caution),
            ("gain", gain.value, gain.se, "nats", None, "NLL, fall from k/2 to k draws", ""),
            ("effective", draws.value, draws.se, "draws", None, f"effective of {self.samples} draws", ""),
        )
        for component, value, se, unit, better, label, warning in numbers:
            yield Measurement(
                value=value,
                unit=unit,
                higher_is_better=better,
                n=len(images),
                protocol=protocol,
                component=component,
                se=se,
                label=label,
                caution=warning,
            )


@dataclass(frozen=True, kw_only=True)
class ELBO(HeldOutMetric):
    """The evidence lower bound E log p(x | z) - KL(q(z | x) | p(z)) and its parts, means over held-out images.

    Rate: the KL, in closed form for a prior N(0, s^2 I), else log q(z | x) - log p(z) at the draw. Distortion:
    -log p(x | z) at one draw z of q(z | x). A rate near 0 with no active unit is a collapse, and is called so.

    Source: arXiv:1711.00464, section 2.
    """

    name: ClassVar[str] = "elbo"
    n: Annotated[int, Option("held-out images; 0: all", low=0)] = 0

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        """The bound, the rate and the distortion, in nats for an image."""
        model, images, noise = likelihood(e), e.held_out(self.n), e.noise("elbo")
        rates, distortions, means = [], [], []
        for x in blocks(e, images):
            q, z = model.posterior(x), model.sample_codes(x, noise)
            rates.append(kl(q, z, e.prior))
            distortions.append(-model.log_likelihood(x, z))
            means.append(model.encode(x))
        rate, distortion = torch.cat(rates).double(), torch.cat(distortions).double()
        law = model.likelihood_law
        protocol = e.protocol(
            method="evidence lower bound, one draw of q(z | x) for each image",
            references=len(images),
            generated=0,
            dtype="float32, sums in float64",
            detail=f"{law_detail(law)}; KL in closed form where there is one, else at the draw",
        )
        collapsed, unlike = collapse(torch.cat(means)), law_caution(law, images)
        both = "; ".join(text for text in (collapsed, unlike) if text)
        for component, values, better, label, caution in (
            ("", -rate - distortion, True, f"ELBO ({law})", both),
            ("rate", rate, None, "rate", collapsed),
            ("distortion", distortion, None, f"distortion ({law})", unlike),
        ):
            number = mean(values, "elbo", component or "bound")
            yield Measurement(
                value=number.value,
                unit="nats",
                higher_is_better=better,
                n=len(images),
                protocol=protocol,
                component=component,
                se=number.se,
                label=label,
                caution=caution,
            )
