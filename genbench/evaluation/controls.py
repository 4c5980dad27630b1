"""Fitting of controls, and the evaluation of a fitted control."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from genbench.api import (
    Control,
    DataConfig,
    Images,
    LatentControl,
    Model,
    ModelContext,
    Split,
    TrainingStats,
)
from genbench.data.images import to_float, to_uint8
from genbench.errors import MetricError, NotApplicableError
from genbench.evaluation.evaluation import BATCH, DataEvaluation, finite
from genbench.experiment.build import create_context, create_control
from genbench.experiment.run import Run
from genbench.registry.loader import Registry
from genbench.storage.run_dir import RunFolder
from genbench.utils.rng import derive_seed

# ---------------------------------------------------------------- fitting


def fit_control(registry: Registry, run: Run, folder: RunFolder, images: Images, device: torch.device) -> Control:
    """A run's control, fitted to the training images; the first fit records its cost."""
    torch.manual_seed(derive_seed(run.seed, "weights"))
    control = create_control(registry, run)
    started = time.perf_counter()
    with torch.no_grad():
        control.fit(images, create_context(registry, run, images.shape))
    if folder.state != "trained":
        seconds, threads = time.perf_counter() - started, torch.get_num_threads()
        record = TrainingStats(seconds, 0, control.parameters, device.type, threads)
        folder.save_training(asdict(record))
        folder.save_fitted(run.key, images.sha256)
    return control


# ---------------------------------------------------------------- evaluation


class ControlEvaluation(DataEvaluation):
    """The evaluation of a fitted control; `NotApplicableError` where the control has no such part."""

    def __init__(
        self,
        control: Control,
        context: ModelContext,
        images: Images,
        *,
        seed: int,
        device: torch.device,
        training: TrainingStats,
        data_config: DataConfig,
        memory: MutableMapping[str, Any],
        split: Split = "test",
    ) -> None:
        super().__init__(
            context,
            images,
            seed=seed,
            device=device,
            training=training,
            data_config=data_config,
            memory=memory,
            split=split,
        )
        self._control = control

    @property
    def model(self) -> Model:
        raise NotApplicableError("a control is no model")

    @property
    def _latent(self) -> LatentControl:
        if not isinstance(self._control, LatentControl):
            raise NotApplicableError("this control has no codes")
        return self._control

    def codes(self, n: int) -> Tensor:
        return self._coded("codes", self.held_out(0), n)

    def training_codes(self, n: int) -> Tensor:
        return self._coded("training codes", self.training_images(0), n)

    def _coded(self, name: str, images: Tensor, n: int) -> Tensor:
        encode = self._latent.encode
        if n > len(images):
            raise MetricError(f"{n} {name} were asked for; there are {len(images)} images")
        return self._blocks(name, images[: n + -n % BATCH or None], lambda x: encode(to_float(x)))[: n or None]

    def reconstructions(self, n: int) -> Tensor:
        count = len(self.held_out(n))
        images = self.held_out(0)[: count + -count % BATCH]
        rebuilt = self._blocks(
            "reconstructions", images, lambda x: finite(self._control.reconstruct(to_float(x)), "reconstructions")
        )
        return rebuilt[:count]

    @torch.no_grad()
    def samples(self, n: int) -> Tensor:
        if len(self._pieces.get("samples", ())) < n:
            # Decoded samples come in whole blocks, like a model's.
            whole = n + -n % BATCH if isinstance(self._control, LatentControl) else n
            if self._sampler is None:
                images = self._control.sample(whole, self)
            else:
                images = self.decode(self.sampled_codes(whole))
            expected = (whole, *self.images.shape)
            if images.shape != expected or images.dtype != torch.uint8:
                raise MetricError(
                    f"the control samples {tuple(images.shape)} {images.dtype}, not {expected} torch.uint8"
                )
            self._pieces["samples"] = images.to(self.device)
        return self._pieces["samples"][:n]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        decode = self._latent.decode
        blocks = (decode(block.to(self.device)) for block in z.split(BATCH))
        return torch.cat([to_uint8(finite(images, "samples")) for images in blocks])
