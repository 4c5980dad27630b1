"""Planning of controls: real images, noise, an untrained network and the like, which give a column its scale.

A control is planned, recorded, skipped and evaluated like a run, at the first seed of a study. It stores no weights: it
is fitted again from the data wherever it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from genbench.api import DatasetInfo, LatentControl
from genbench.errors import GenbenchError, UnsupportedError
from genbench.experiment.build import create_context, create_control, create_prior
from genbench.experiment.run import Component, Run
from genbench.registry.loader import Registry


def control_runs(registry: Registry, runs: Sequence[Run], controls: Sequence[Component]) -> tuple[Run, ...]:
    """The runs of controls beside those of models, at the first seed, since nothing is trained.

    A control with codes comes once for each prior and latent dimension, any other once, at the first of both.
    """
    seed = runs[0].seed
    priors = list(dict.fromkeys((run.prior, run.latent_dim) for run in runs))
    planned: list[Run] = []
    for control in controls:
        run = replace(runs[0], model=control, seed=seed, images=0, batch=0, role="control", precision="float32")
        latent = isinstance(create_control(registry, run), LatentControl)
        planned += [replace(run, prior=prior, latent_dim=dim) for prior, dim in (priors if latent else priors[:1])]
    return tuple(planned)


def check_control(registry: Registry, run: Run, info: DatasetInfo) -> None:
    """Refuse, before anything trains, a control that the data or the prior do not allow."""
    try:
        create_context(registry, run, info.shape)
        create_control(registry, run).validate(info, create_prior(registry, run))
    except GenbenchError as error:
        raise UnsupportedError(f"the control '{run.model.name}': {error}") from None
