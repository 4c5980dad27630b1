"""A GPU that computes nothing: training steps on torch's meta device, and what they would launch.

Tensors there have shapes and no numbers, so that a step of any size takes milliseconds. Whatever reads a number on the
host raises, as it would within a CUDA graph. Operations are those of torch's dispatcher: on a GPU each is one kernel or
a few (a sort, a split product).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Generator, Tensor
from torch.optim import optimizer as torch_optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from genbench.api import Model, ModelContext, Noise, Prior
from genbench.registry.loader import Registry
from genbench.training.distributed import DistributedContext
from genbench.training.ensemble import Ensemble, record_draws
from genbench.training.step import SoloNoise, StepContext, TrainContext, create_train_context

META = torch.device("meta")
SHAPE, LATENT, BATCH = (1, 28, 28), 8, 128
FREE = ("aten.empty", "aten.new_empty", "aten.detach", "aten._unsafe_view", "aten.lift_fresh", "profiler.")
"""Operations that launch nothing, beside views."""


class Launches(TorchDispatchMode):
    """Counts operations by name; `crossings` are those that take numbers from the host to the device or back."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.crossings: list[str] = []

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, made)) if isinstance(leaf, Tensor)]
        devices = {t.device for t in tensors if t.dim() or func.name() in ("aten::_to_copy", "aten::copy_")}
        if META in devices and len(devices) > 1:
            self.crossings.append(str(func))
        if not func.is_view and not str(func).startswith(FREE):
            self.counts[str(func)] += 1
        return made


@dataclass
class Constants(TorchFunctionMode):
    """Adds `torch.tensor([...], device=...)` to the crossings: on the meta device it dispatches nothing."""

    crossings: list[str]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is torch.tensor and made.device == META:
            self.crossings.append("torch.tensor")
        return made


class EmptyNoise(Noise):
    """Draws on the meta device, which has no generator."""

    def __init__(self) -> None:
        self._device = META

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def generator(self) -> Generator:
        raise AssertionError("noise.generator")

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, device=META, dtype=dtype)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.rand(*shape, device=META, dtype=dtype)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, device=META)

    def permutation(self, n: int) -> Tensor:
        return torch.randperm(n, device=META)


@contextmanager
def meta_device() -> Iterator[None]:
    """Inside, fused optimizers accept the meta device, ensembles make their generator on the CPU, and what vmap could
    only do for one member after another raises."""
    fused, functorch = torch_optimizer._get_fused_kernels_supported_devices(), torch._C._functorch
    functorch._set_vmap_fallback_enabled(False)
    with (
        mock.patch.object(torch_optimizer, "_get_fused_kernels_supported_devices", return_value=[*fused, "meta"]),
        mock.patch("genbench.training.ensemble.Generator", return_value=Generator()),
    ):
        try:
            yield
        finally:
            functorch._set_vmap_fallback_enabled(True)


def build(
    registry: Registry,
    model: str,
    prior: str = "normal",
    options: Mapping[str, Any] | None = None,
    *,
    network: str = "mlp",
    shape: tuple[int, int, int] = SHAPE,
    latent: int = LATENT,
) -> Model:
    """A model on the CPU, ready for training."""
    given: Prior = registry.get("prior", prior).spec.factory(latent)  # type: ignore[assignment]
    setting = ModelContext(shape, latent, given, registry.get("network", network).spec.factory(shape))  # type: ignore[arg-type]
    made: Model = registry.get("model", model).spec.factory(setting, **(options or {}))  # type: ignore[assignment]
    if made.prior is given:
        getattr(made, "pairwise_scale", None)  # the host reads it in the first step, which is never a recorded one
    return made.train()


def on_meta(model: Model, batch: int = BATCH) -> TrainContext:
    """A training of the model, which is moved to the meta device, with optimizers as they are on a GPU."""
    model._apply(lambda t: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=META))
    configs = model.configure_optimizers()
    optimizers = {name: config.optimizer(config.parameters) for name, config in configs.items()}
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["capturable"] = True
    rates = {name: tuple(group["lr"] for group in o.param_groups) for name, o in optimizers.items()}
    images = torch.empty(4 * batch, *model.context.shape, dtype=torch.uint8, device=META)
    noise = SoloNoise(torch.device("cpu"), 0)
    noise.prior = noise.model = EmptyNoise()
    return TrainContext(model, model.prior, images, batch, 0, noise, configs, optimizers, rates, DistributedContext())


def stack_on_meta(models: Sequence[Model], batch: int = BATCH) -> Ensemble:
    """An ensemble of equal models, which are moved to the meta device; the draws are recorded on the CPU."""
    images = torch.zeros(batch, *models[0].context.shape, dtype=torch.uint8)
    draws = record_draws(create_train_context(models[0], models[0].prior, images, batch, 0))
    return Ensemble([replace(on_meta(model, batch), seed=k) for k, model in enumerate(models)], draws)


def launches(step: StepContext, *, first: bool = False) -> Launches:
    """The operations of a step: the second one, or the `first`, in which optimizers make their state."""
    indices, sums = torch.empty(step.batch_shape, dtype=torch.int64, device=META), dict[str, Tensor]()
    step.on_epoch_start(0)
    if not first:
        step.do_batch(indices, sums)
    with Launches() as seen, Constants(seen.crossings):
        step.do_batch(indices, sums)
    return seen
