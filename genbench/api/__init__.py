"""The contract between the core and its plug-ins: small typed records and abstract classes, one kind a module.

Conventions. Images are `(n, c, h, w)`: uint8 in 0..255 at rest, float32 in [0, 1] as input of a model. Codes and prior
draws are `(n, d)` float32. Randomness comes from the `Noise` (or the `torch.Generator`) that is passed in, never from
global state.

Plug-ins may import `genbench.{api, data, distances, errors, features, hookspecs, nn, testing}`; anything else may
change without notice, and `genbench check --plugin FILE` reports where a file imports it.
"""

from __future__ import annotations

from genbench.api.control import Control, LatentControl
from genbench.api.dataset import DataConfig, Dataset, DatasetInfo, Images, ProgressEvent, ignore_progress
from genbench.api.extractor import Extractor
from genbench.api.metric import EvalProtocol, Evaluation, Measurement, Metric, Piece, Split, TrainingStats
from genbench.api.model import Loss, Model, ModelContext, OptimizerConfig, constant_schedule
from genbench.api.network import Network, Shape
from genbench.api.noise import Noise
from genbench.api.options import ComponentSpec, Option, Search
from genbench.api.prior import Prior
from genbench.api.recipe import Finding, Recipe
from genbench.api.sampler import Sampler
from genbench.api.tracker import TrackedRun, Tracker
from genbench.errors import UnsupportedError

API_VERSION = 2
"""The version of this contract. It rises when a plug-in that keeps the contract could stop working: a name or a field
is removed, a signature or a meaning changes. New names, and new fields with defaults, leave it alone."""

__all__ = [
    "API_VERSION",
    "ComponentSpec",
    "Control",
    "DataConfig",
    "Dataset",
    "DatasetInfo",
    "EvalProtocol",
    "Evaluation",
    "Extractor",
    "Finding",
    "Images",
    "LatentControl",
    "Loss",
    "Measurement",
    "Metric",
    "Model",
    "ModelContext",
    "Network",
    "Noise",
    "OptimizerConfig",
    "Option",
    "Piece",
    "Prior",
    "ProgressEvent",
    "Recipe",
    "Sampler",
    "Search",
    "Shape",
    "Split",
    "TrackedRun",
    "Tracker",
    "TrainingStats",
    "UnsupportedError",
    "constant_schedule",
    "ignore_progress",
]
