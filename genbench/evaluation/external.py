"""The evaluation of a model that was trained elsewhere, by its samples, reconstructions and codes."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genbench.api import DataConfig, Images, Model, Prior, Split
from genbench.data.images import to_float
from genbench.errors import DataError, MetricError, NotApplicableError
from genbench.evaluation.evaluation import DataEvaluation
from genbench.storage.run_dir import RESULTS, RunFolder
from genbench.utils.io import hash_tensors, load_tensors, save_tensors


@dataclass(frozen=True)
class ExternalResults:
    """What is known of a model that was trained elsewhere; at least one field is given.

    Attributes:
        samples: `(n, c, h, w)` uint8.
        reconstructions: Of all test images in the dataset's order, `(n, c, h, w)`, uint8 or float32 in [0, 1].
        codes: Of test images in any order, `(n, d)` float32.
    """

    samples: Tensor | None = None
    reconstructions: Tensor | None = None
    codes: Tensor | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is given, by name."""
        pieces = {"samples": self.samples, "reconstructions": self.reconstructions, "codes": self.codes}
        return {name: tensor for name, tensor in pieces.items() if tensor is not None}

    @property
    def sha256(self) -> str:
        """A hash of everything that is given."""
        return hash_tensors(self.tensors)


def save_results(folder: RunFolder, key: str, results: ExternalResults) -> None:
    """Write the results into the folder of the run with this key, where they are not there yet."""
    if not folder.has(RESULTS):
        save_tensors(folder.path / RESULTS, results.tensors, {"key": key})


def load_results(folder: RunFolder, key: str) -> ExternalResults:
    """The results in a run's folder."""
    tensors, facts = load_tensors(folder.results())
    if facts.get("key") != key:
        raise DataError(f"{folder.path / RESULTS} belongs to another run: move the folder away")
    return ExternalResults(**tensors)


class ExternalEvaluation(DataEvaluation):
    """The evaluation of results from elsewhere; `NotApplicableError` for what was not given."""

    def __init__(
        self,
        results: ExternalResults,
        prior: Prior | None,
        images: Images,
        *,
        seed: int,
        device: torch.device,
        data_config: DataConfig,
        memory: MutableMapping[str, Any],
        split: Split = "test",
    ) -> None:
        super().__init__(
            None,
            images,
            seed=seed,
            device=device,
            training=None,
            data_config=data_config,
            memory=memory,
            split=split,
        )
        self._results, self._prior = results, prior

    @property
    def model(self) -> Model:
        raise NotApplicableError("the model was trained elsewhere: only its results are known")

    @property
    def prior(self) -> Prior:
        if self._prior is None:
            raise NotApplicableError("no codes were given, and so no prior")
        return self._prior

    @property
    def most_samples(self) -> int | None:
        return None if self._results.samples is None else len(self._results.samples)

    def samples(self, n: int) -> Tensor:
        if self._sampler is not None:
            raise NotApplicableError("the model was trained elsewhere: it cannot decode the codes of a sampler")
        return _first(self._results.samples, n, "samples").to(self.device)

    def reconstructions(self, n: int) -> Tensor:
        if self._results.reconstructions is None or self.split != "test":
            raise NotApplicableError("no reconstructions were given")
        rebuilt = self._results.reconstructions
        order = self.order(n)
        chosen = rebuilt[order.to(rebuilt.device)]
        return (to_float(chosen) if chosen.dtype == torch.uint8 else chosen).to(self.device)

    def codes(self, n: int) -> Tensor:
        return _first(self._results.codes, n, "codes").to(self.device)

    def labels(self, n: int) -> Tensor:
        raise NotApplicableError("the model was trained elsewhere: which image a code is of is not known")

    def factors(self, n: int) -> Mapping[str, Tensor]:
        raise NotApplicableError("the model was trained elsewhere: which image a code is of is not known")

    def training_codes(self, n: int) -> Tensor:
        raise NotApplicableError("the model was trained elsewhere: the codes of training images are not known")

    def decode(self, z: Tensor) -> Tensor:
        raise NotApplicableError("the model was trained elsewhere: it cannot decode other codes")


def too_few(needed: int, given: int, name: str) -> str:
    """What is to be done where fewer samples or codes were given than a metric needs."""
    return (
        f"{needed:,} {name} are needed and {given:,} were given: give {needed:,}, or set this metric's count to at most"
        f" {given:,} (its number is then in a column of its own)"
    )


def _first(pieces: Tensor | None, n: int, name: str) -> Tensor:
    """The first n of some pieces, in the order in which they were given; n = 0 is all of them."""
    if pieces is None:
        raise NotApplicableError(f"no {name} were given")
    if n > len(pieces):
        raise MetricError(too_few(n, len(pieces), name))
    return pieces[: n or None]
