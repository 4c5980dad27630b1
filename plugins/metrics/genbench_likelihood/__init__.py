"""Likelihood and collapse: bounds of log p(x), and what the codes of a stochastic encoder know of the image."""

from __future__ import annotations

from collections.abc import Iterable

from genbench.api import ComponentSpec, Metric
from genbench.hookspecs import hookimpl
from genbench_likelihood.bounds import ELBO, NLL
from genbench_likelihood.codes import ActiveUnits, CodeNLL, MutualInformation


@hookimpl
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:
    """Bounds of the likelihood, and three views of the codes."""
    yield ComponentSpec(
        name="nll",
        aliases=("log-likelihood", "likelihood", "loglik", "iwae"),
        description="Test -log p(x) by importance sampling, and whether it has converged",
        factory=NLL,
        reference="arXiv:1509.00519",
    )
    yield ComponentSpec(
        name="elbo",
        aliases=("rate", "distortion", "rate-distortion", "kl"),
        description="Evidence lower bound, rate and distortion",
        factory=ELBO,
        reference="arXiv:1711.00464",
    )
    yield ComponentSpec(
        name="active-units",
        aliases=("collapse", "posterior-collapse", "au"),
        description="Units of the code that depend on the image",
        factory=ActiveUnits,
        reference="arXiv:1509.00519",
    )
    yield ComponentSpec(
        name="mutual-information",
        aliases=("mi", "marginal-kl", "aggregated-posterior"),
        description="Information of codes on images, and KL(q(z) | p)",
        factory=MutualInformation,
        reference="arXiv:1711.00464",
    )
    yield ComponentSpec(
        name="code-nll",
        aliases=("prior-nll",),
        description="-log p(z) of the codes under the prior",
        factory=CodeNLL,
        reference="arXiv:1804.01947",
    )
