"""A run as data, and the things that its choices name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from genbench.api import Control, Dataset, Metric, Model, ModelContext, Network, Prior, Sampler, Shape
from genbench.errors import GenbenchError, PluginError, StoreError, one_line
from genbench.registry.loader import Kind, Registry
from genbench.registry.options import Value
from genbench.training.precision import PRECISIONS, Precision

T = TypeVar("T")

Wrap = Callable[[Network], Network]
"""A network for a network: the same modules, made to do something more."""

Role = Literal["model", "control"]
"""Whether a run trains a model, or is a control, which is fitted in closed form and ranked with nothing."""

TRAINING = 1
"""Raised when the core changes in a way that changes trained weights: runs of another number are other runs."""

TRAINED: tuple[Kind, ...] = ("model", "control", "prior", "network")
"""What a trained run is made of; its data are told by their content."""


@dataclass(frozen=True)
class Component:
    """An offer by name with every option's value and the fingerprint of the source that offers it."""

    name: str
    options: tuple[tuple[str, Value], ...]
    fingerprint: str

    @property
    def values(self) -> dict[str, Value]:
        """The options as keyword arguments."""
        return dict(self.options)

    def plain(self) -> dict[str, Any]:
        """The fields by name."""
        return {"name": self.name, "options": self.options, "fingerprint": self.fingerprint}

    @cached_property
    def key(self) -> str:
        """Eight hexadecimal digits of everything in the choice."""
        return hashlib.sha256(json.dumps(self.plain()).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Run:
    """One training: what affects the weights, and nothing else.

    `images` counts the images shown, repeats included; the last batch may exceed it. A control stands where a model
    does, with `images` and `batch` 0. A `precision` of float32 is no part of the key or the record: older runs have it.
    """

    dataset: Component
    model: Component
    prior: Component
    network: Component
    latent_dim: int
    seed: int
    images: int
    batch: int
    role: Role = "model"
    precision: Precision = "float32"

    @cached_property
    def key(self) -> str:
        """A hash of everything that affects the weights."""
        plain = self._plain()
        role = plain.pop("role")
        text = json.dumps([TRAINING, plain] if role == "model" else [TRAINING, role, plain], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @cached_property
    def name(self) -> str:
        """The name of the run's folder: readable, and unique by the key."""
        model = self.model.name if self.role == "model" else f"control-{self.model.name}"
        return f"{self.dataset.name}-{model}-{self.prior.name}-{self.latent_dim}d-s{self.seed}-{self.key}"

    def record(self) -> dict[str, Any]:
        """The run as JSON data, options by name."""
        plain = self._plain()
        for kind in ("dataset", "model", "prior", "network"):
            plain[kind]["options"] = dict(plain[kind]["options"])
        return plain

    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        plain |= {kind: plain[kind].plain() for kind in ("dataset", "model", "prior", "network")}
        if self.precision == "float32":
            del plain["precision"]
        return plain


def run_of_record(record: Mapping[str, Any]) -> Run:
    """The run that `Run.record` describes; `StoreError` where it does not describe one."""
    try:
        choices = {
            kind: Component(
                record[kind]["name"], tuple(sorted(record[kind]["options"].items())), record[kind]["fingerprint"]
            )
            for kind in ("dataset", "model", "prior", "network")
        }
        counts = {name: int(record[name]) for name in ("latent_dim", "seed", "images", "batch")}
        role: Role = "control" if record["role"] == "control" else "model"
        precision: Precision = record.get("precision", "float32")
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"the record describes no run: {type(error).__name__} {error}") from None
    return Run(**choices, **counts, role=role, precision=precision)  # type: ignore[arg-type]  # which names stand where


# ---------------------------------------------------------------- from choices to things


def make_prior(registry: Registry, run: Run) -> Prior:
    """The prior of a run; kept on the CPU whatever the default device."""
    with torch.device("cpu"):
        return _made(registry, "prior", run.prior, Prior, run.latent_dim)


def make_model(registry: Registry, run: Run, shape: Shape, wrap: Wrap | None = None) -> Model:
    """A run's untrained model on the default device, weights from torch's global random state.

    `wrap` stands for its network where the model is trained in an unusual way.
    """
    setting = make_setting(registry, run, shape)
    setting = setting if wrap is None else replace(setting, network=wrap(setting.network))
    return _made(registry, "model", run.model, Model, setting)


def make_control(registry: Registry, run: Run) -> Control:
    """The control of a control's run, not yet fitted."""
    return _made(registry, "control", run.model, Control)


def make_setting(registry: Registry, run: Run, shape: Shape) -> ModelContext:
    """What a run's model, or its control, is built for."""
    network = _made(registry, "network", run.network, Network, shape)
    return ModelContext(shape, run.latent_dim, make_prior(registry, run), network)


def make_dataset(registry: Registry, choice: Component) -> Dataset:
    """The dataset of a choice."""
    return _made(registry, "dataset", choice, Dataset)


def make_metric(registry: Registry, choice: Component) -> Metric:
    """The metric of a choice."""
    return _made(registry, "metric", choice, Metric)


def make_sampler(registry: Registry, choice: Component, prior: Prior) -> Sampler:
    """The sampler of a choice, not yet fitted."""
    return _made(registry, "sampler", choice, Sampler, prior)


SAMPLED = "@"
"""Between the names of a metric and of a sampler."""


def with_sampler(metric: Component, sampler: Component) -> Component:
    """A metric of samples by a sampler as one component, `fid@gmm`, with the options of both."""
    options = {**metric.values, **{f"{sampler.name}.{name}": value for name, value in sampler.options}}
    name = f"{metric.name}{SAMPLED}{sampler.name}"
    return Component(name, tuple(sorted(options.items())), f"{metric.fingerprint} {sampler.fingerprint}")


def split_sampler(component: Component) -> tuple[Component, Component | None]:
    """The metric and the sampler of `with_sampler`; None where samples are the prior's."""
    name, joined, sampler = component.name.partition(SAMPLED)
    if not joined:
        return component, None
    fingerprints = component.fingerprint.split(" ")
    theirs = tuple((key, value) for key, value in component.options if key.startswith(f"{sampler}."))
    metric = Component(name, tuple(pair for pair in component.options if pair not in theirs), fingerprints[0])
    options = tuple((key.removeprefix(f"{sampler}."), value) for key, value in theirs)
    return metric, Component(sampler, options, fingerprints[-1])


class _Unset(TorchFunctionMode):
    """torch's initialisers leave weights alone: on the meta device there are none, and to see to it takes them long."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init" and "tensor" in (kwargs or {}):
            return kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def count_parameters(registry: Registry, run: Run, shape: Shape) -> int:
    """Parameters of a run's model, built without memory for its weights; surfaces what the model refuses."""
    with torch.device("meta"), _Unset():
        model = make_model(registry, run, shape)
    return sum(parameter.numel() for parameter in model.parameters())


def _made(registry: Registry, kind: Kind, choice: Component, wanted: type[T], *arguments: object) -> T:
    entry = registry.get(kind, choice.name)
    if entry.plugin.fingerprint != choice.fingerprint and kind in TRAINED and not registry.any_source:
        raise StoreError(
            f"the run was trained with another source of the {kind} '{choice.name}' ({choice.fingerprint or 'none'})"
            f" than {entry.plugin.name} offers now ({entry.plugin.fingerprint}): restore it, or say --allow-changed-source"
        )
    try:
        thing = entry.spec.factory(*arguments, **choice.values)
    except GenbenchError:
        raise
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {one_line(error)}"
        raise PluginError(f"the {kind} '{choice.name}' cannot be made: {cause}") from error
    if not isinstance(thing, wanted):
        raise PluginError(
            f"the {kind} '{choice.name}' made a {type(thing).__name__}, not a genbench.api.{wanted.__name__}"
        )
    return thing
