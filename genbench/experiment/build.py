"""From the components of a run to objects: models, priors, networks, datasets, metrics and controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from genbench.api import (
    Control,
    DataConfig,
    Dataset,
    Images,
    Metric,
    Model,
    ModelContext,
    Network,
    Prior,
    Sampler,
    Shape,
    Tracker,
)
from genbench.errors import DataError, GenbenchError, PluginError, StoreError, UnsupportedError
from genbench.experiment.run import Component, Run, registered_components
from genbench.registry.listing import Kind
from genbench.registry.loader import Registry
from genbench.registry.options import REQUIRED, Value, default_text, specs
from genbench.utils.plugin_code import describe_error

T = TypeVar("T")

NetworkWrapper = Callable[[Network], Network]
"""Returns a network with the same modules that does something in addition."""

TRAINED: tuple[Kind, ...] = ("model", "control", "prior", "network")
"""The components of trained weights; data are identified by their hash."""


def create_prior(registry: Registry, run: Run) -> Prior:
    """The prior of a run, on the CPU whatever the default device."""
    with torch.device("cpu"):
        prior = _create(registry, "prior", run.prior, Prior, run.latent_dim)
    if "_parameters" not in vars(prior):
        raise PluginError(f"the prior '{run.prior.name}' does not call super().__init__() first")
    return prior


def create_model(registry: Registry, run: Run, shape: Shape, wrap: NetworkWrapper | None = None) -> Model:
    """A run's untrained model on the default device, weights from torch's global random state.

    `wrap` is applied to its network, as for training over several processes. Raises `UnsupportedError` where the prior
    is learned and the model does not train it.
    """
    context = create_context(registry, run, shape)
    context = context if wrap is None else replace(context, network=wrap(context.network))
    model = _create(registry, "model", run.model, Model, context)
    trained = {id(parameter) for parameter in model.parameters()}
    if any(id(parameter) not in trained for parameter in context.prior.parameters()):
        raise UnsupportedError(
            f"the model '{run.model.name}' does not train the parameters of the prior '{run.prior.name}': take a model"
            " that does, as most variational autoencoders do, or a prior without parameters, such as the default"
        )
    return model


def require_fixed_prior(what: str, run: Run, prior: Prior) -> None:
    """Raise `UnsupportedError` for a learned prior, which `what` compares codes with and nothing trains."""
    if prior.learned:
        raise UnsupportedError(
            f"{what} has no training in which the prior '{run.prior.name}' could be learned: take a prior without"
            " parameters"
        )


def create_control(registry: Registry, run: Run) -> Control:
    """The control of a control's run, not yet fitted."""
    return _create(registry, "control", run.model, Control)


def create_context(registry: Registry, run: Run, shape: Shape) -> ModelContext:
    """The context that a run's model or control is built for."""
    network = _create(registry, "network", run.network, Network, shape)
    return ModelContext(shape, run.latent_dim, create_prior(registry, run), network)


def replaced_defaults(registry: Registry, run: Run) -> dict[str, Value]:
    """The default of each option of a run that has another value, by NAME.OPTION; "required" where it has none."""
    replaced: dict[str, Value] = {}
    for kind, component in registered_components(run).items():
        options = specs(registry.get(kind, component.name).spec.factory)
        for name, value in component.options:
            spec = options.get(name.replace("_", "-"))
            if spec is not None and spec.default != value:
                default = default_text(spec) if spec.default is REQUIRED else spec.default
                replaced[f"{component.name}.{spec.name}"] = default
    return replaced


def create_dataset(registry: Registry, component: Component) -> Dataset:
    """The dataset of a component."""
    return _create(registry, "dataset", component, Dataset)


def load_dataset(registry: Registry, component: Component, data_config: DataConfig) -> Images:
    """The dataset's images on the CPU; `DataError` where the files are not those that identify the component."""
    images = create_dataset(registry, component).load(data_config)
    check_originals(component, images.originals)
    return images


def check_originals(component: Component, originals: str) -> None:
    """Raise `DataError` where these are not the files that identify the component."""
    if not component.originals or originals == component.originals:
        return
    if not originals:
        raise PluginError(f"the dataset '{component.name}' states its originals in info() and none in load()")
    paths = ", ".join(f"{name}={component.values[name]}" for name in component.paths)
    raise DataError(
        f"the files of the dataset '{component.name}'{f' ({paths})' * bool(paths)} are not those of the run: restore"
        " them, or train anew with genbench run"
    )


def create_metric(registry: Registry, component: Component) -> Metric:
    """The metric of a component."""
    return _create(registry, "metric", component, Metric)


def create_sampler(registry: Registry, component: Component, prior: Prior) -> Sampler:
    """The sampler of a component, not yet fitted."""
    return _create(registry, "sampler", component, Sampler, prior)


def create_tracker(registry: Registry, component: Component) -> Tracker:
    """The tracker of a component, for one run."""
    return _create(registry, "tracker", component, Tracker)


class _WithoutInitializers(TorchFunctionMode):
    """Skips torch's initializers: on the meta device there are no weights, and the calls are slow."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init" and "tensor" in (kwargs or {}):
            return kwargs["tensor"]
        if getattr(func, "__name__", "") in ("normal_", "uniform_") and args[0].is_meta:  # imports torch._dynamo
            return args[0]
        return func(*args, **(kwargs or {}))


def count_parameters(registry: Registry, run: Run, shape: Shape) -> int:
    """Parameters of a run's model, built without memory for weights; raises the errors of the model's constructor."""
    with torch.device("meta"), _WithoutInitializers():
        model = create_model(registry, run, shape)
    return sum(parameter.numel() for parameter in model.parameters())


def _create(registry: Registry, kind: Kind, component: Component, base: type[T], *arguments: object) -> T:
    registration = registry.get(kind, component.name)
    plugin = registration.plugin
    if plugin.fingerprint != component.fingerprint and kind in TRAINED and not registry.allow_changed_source:
        raise StoreError(
            f"the run was trained with another source of the {kind} '{component.name}'"
            f" ({component.fingerprint or 'none'}) than {plugin.name} has now ({plugin.fingerprint}): train anew"
            " with genbench run, restore it, or add --allow-changed-source"
        )
    try:
        created = registration.spec.factory(*arguments, **component.values)
    except GenbenchError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"the {kind} '{component.name}' cannot be made: {describe_error(error)}") from error
    if not isinstance(created, base):
        raise PluginError(
            f"the {kind} '{component.name}' made a {type(created).__name__}, not a genbench.api.{base.__name__}"
        )
    return created
