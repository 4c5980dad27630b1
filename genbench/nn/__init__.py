"""Building blocks of models and networks: base classes, reconstruction losses, optimizers and layers."""

from __future__ import annotations

from genbench.nn.autoencoder import Autoencoder
from genbench.nn.layers import mlp_layers, require_shape
from genbench.nn.losses import COSTS, ReconstructionLoss, bce_l1, critic_loss, cross_entropy, squared_error
from genbench.nn.optimizers import OptimizerFactory, adam, rmsprop, wae_schedule
from genbench.nn.priors import (
    GaussianComponents,
    GaussianMixture,
    missing_density,
    require_finite_kl,
    require_unset_prior,
)
from genbench.nn.variational import (
    LOG_VARIANCE_BOUND,
    GaussianDraw,
    Likelihood,
    LikelihoodAutoencoder,
    LikelihoodOption,
    SigmaOption,
    VariationalAutoencoder,
)

__all__ = [
    "COSTS",
    "LOG_VARIANCE_BOUND",
    "Autoencoder",
    "GaussianComponents",
    "GaussianDraw",
    "GaussianMixture",
    "Likelihood",
    "LikelihoodAutoencoder",
    "LikelihoodOption",
    "OptimizerFactory",
    "ReconstructionLoss",
    "SigmaOption",
    "VariationalAutoencoder",
    "adam",
    "bce_l1",
    "critic_loss",
    "cross_entropy",
    "missing_density",
    "mlp_layers",
    "require_finite_kl",
    "require_shape",
    "require_unset_prior",
    "rmsprop",
    "squared_error",
    "wae_schedule",
]
