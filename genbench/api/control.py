"""The control: what a model's numbers are read against."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from genbench.api.dataset import DatasetInfo, Images
from genbench.api.metric import Evaluation
from genbench.api.model import ModelContext
from genbench.api.prior import Prior
from genbench.errors import NotApplicableError


class Control(ABC):
    """What numbers are read against (real images, noise, ...): measured like a model, trained by no gradient.

    A plain control depends neither on the prior nor on the latent dimension, so that a study measures it once; one with
    codes is a `LatentControl`.
    """

    parameters: int = 0
    """Count of the numbers that `fit` has set or drawn."""

    def validate(self, info: DatasetInfo, prior: Prior) -> None:
        """Refuse at planning time, with a `GenbenchError`, what this control cannot do; cheap."""

    def fit(self, images: Images, context: ModelContext) -> None:
        """Compute from the *training* images what the control needs, the same at every call: nothing else is stored.

        Any randomness is torch's global state, which the caller derives from the seed as it does for a model's weights.
        """

    @abstractmethod
    def sample(self, n: int, evaluation: Evaluation) -> Tensor:
        """n samples, `(n, c, h, w)` uint8; the first m of n are the m that `sample(m, evaluation)` gives.

        Raises `NotApplicableError` where there are no n of them.
        """

    def reconstruct(self, x: Tensor) -> Tensor:
        """Reconstructions in [0, 1], not rounded, of images in [0, 1], `(n, c, h, w)` both.

        Raises `NotApplicableError` where the control has none.
        """
        raise NotApplicableError("this control reconstructs nothing")


class LatentControl(Control):
    """A control with an encoder and a decoder: its samples are decoded draws of the prior, as a model's are.

    `encode` and `decode` raise nothing.
    """

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Codes that compare with draws of the prior, `(n, c, h, w)` in [0, 1] -> `(n, d)`; no randomness."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Images in [0, 1] for codes, `(n, d) -> (n, c, h, w)`."""

    def sample(self, n: int, evaluation: Evaluation) -> Tensor:
        """Decoded draws of the prior, `(n, c, h, w)` uint8: the draws that every model of this seed decodes."""
        return evaluation.decode(evaluation.prior_draws(n, "samples"))

    def reconstruct(self, x: Tensor) -> Tensor:
        """decode(encode(x)), `(n, c, h, w)` in [0, 1] both."""
        return self.decode(self.encode(x))
