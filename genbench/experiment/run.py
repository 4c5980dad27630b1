"""A run as data. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from genbench.errors import StoreError

if TYPE_CHECKING:
    from genbench.registry.listing import Kind
    from genbench.registry.options import Value

Role = Literal["model", "control", "external", "trial"]
"""Whether a run trains a model, is a control, which is fitted in closed form and not ranked, holds the results of a
model that was trained elsewhere, or is a trial of a search: a model that is measured on validation images alone and
stands in no table."""

ROLES: tuple[Role, ...] = get_args(Role)

Precision = Literal["float32", "tf32", "bfloat16"]
"""float32 throughout; products of float32 with 10 bits of mantissa, on a GPU alone; networks in bfloat16."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

COMPONENTS = ("dataset", "model", "prior", "network")
"""The fields of a run that are components."""

TRAINING = 1
"""Raised when the core changes in a way that changes trained weights: runs of another number are other runs."""


@dataclass(frozen=True)
class Component:
    """A registered component by name, with the value of every option and the fingerprint of its plug-in's code.

    `originals` is a hash of the files that it reads, where it reads any, and `paths` are the options that say where
    those lie: the files' bytes identify the component, not their place.
    """

    name: str
    options: tuple[tuple[str, Value], ...]
    fingerprint: str
    originals: str = ""
    paths: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, Value]:
        """The options as keyword arguments."""
        return dict(self.options)

    def plain(self) -> dict[str, Any]:
        """The fields by name."""
        read = {"originals": self.originals, "paths": self.paths} if self.originals else {}
        return {"name": self.name, "options": self.options, "fingerprint": self.fingerprint, **read}

    def identity(self) -> dict[str, Any]:
        """The fields that identify the component."""
        plain = self.plain()
        paths = plain.pop("paths", ())
        return {**plain, "options": tuple(pair for pair in self.options if pair[0] not in paths)}

    @cached_property
    def key(self) -> str:
        """Eight hexadecimal digits of the identity."""
        return hashlib.sha256(json.dumps(self.identity()).encode()).hexdigest()[:8]


def distinct_names(components: Iterable[Component]) -> dict[Component, str]:
    """The name of each component; of several of the same name also the options in which they differ.

    Example: `swae (weight=1.0)` and `swae (weight=10.0)`.
    """
    families: dict[str, list[Component]] = {}
    for component in dict.fromkeys(components):
        families.setdefault(component.name, []).append(component)
    names: dict[Component, str] = {}
    for name, members in families.items():
        for component in members:
            words = [
                f"{option.replace('_', '-')}={value}"
                for option, value in component.options
                if any(member.values.get(option) != value for member in members)
            ]
            names[component] = f"{name} ({', '.join(words)})" if words else name
    return names


@dataclass(frozen=True)
class Run:
    """One training: everything that affects the weights, and nothing else.

    `images` counts the images shown, repeats included; the last batch may exceed it. A control stands in
    for the model, with `images` and `batch` 0. A `precision` of float32 is no part of the key or the record.

    Of a model that was trained elsewhere (`external_run`) nothing is known but its name, the `results` and what they
    were compared with.
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
    results: str = ""
    """A hash of the images and codes from elsewhere; "" where the model or control is genbench's."""

    @cached_property
    def key(self) -> str:
        """A hash of everything that affects the weights."""
        plain = self._plain() | {kind: getattr(self, kind).identity() for kind in COMPONENTS}
        role = plain.pop("role")
        text = json.dumps([TRAINING, plain] if role == "model" else [TRAINING, role, plain], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def trains(self) -> bool:
        """Whether it trains a model here."""
        return self.role in ("model", "trial")

    @property
    def label(self) -> str:
        """The readable part of the name."""
        if self.role == "external":
            return f"{self.dataset.name}-external-{self.model.name}-s{self.seed}"
        model = self.model.name if self.role == "model" else f"{self.role}-{self.model.name}"
        return f"{self.dataset.name}-{model}-{self.prior.name}-{self.latent_dim}d-s{self.seed}"

    @cached_property
    def name(self) -> str:
        """The name of the run's folder: readable, and unique by the key."""
        return f"{self.label}-{self.key}"

    def record(self) -> dict[str, Any]:
        """The run as JSON data, options by name."""
        plain = self._plain()
        for kind in COMPONENTS:
            plain[kind]["options"] = dict(plain[kind]["options"])
        return plain

    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        plain |= {kind: plain[kind].plain() for kind in COMPONENTS}
        if self.precision == "float32":
            del plain["precision"]
        if not self.results:
            del plain["results"]
        return plain


NONE = Component("none", (), "")
"""Stands for the network of results from elsewhere, and for the prior where there are no codes."""


def external_run(name: str, dataset: Component, seed: int, results: str, prior: Component, latent_dim: int) -> Run:
    """The run of a model that was trained elsewhere; `prior` is `NONE` and `latent_dim` 0 where it has no codes."""
    return Run(dataset, Component(name, (), ""), prior, NONE, latent_dim, seed, 0, 0, role="external", results=results)


def registered_components(run: Run) -> dict[Kind, Component]:
    """The components of a run that plug-ins provide, by kind: no model or network where it was trained elsewhere."""
    kinds: dict[Kind, Component] = {"dataset": run.dataset}
    if run.role != "external":
        kinds |= {"control" if run.role == "control" else "model": run.model, "network": run.network}
    if run.prior != NONE:
        kinds["prior"] = run.prior
    return kinds


def any_source(run: Run) -> Run:
    """The run without the fingerprints of its code, data and results: such runs were asked for with the same words."""
    components = {kind: replace(getattr(run, kind), fingerprint="", originals="", paths=()) for kind in COMPONENTS}
    return replace(run, **components, results="")


def changes(before: Run, now: Run) -> str:
    """The earlier code and data of a run that was done `before`, in words; "" where they are those of `now`."""
    changed = []
    for kind in COMPONENTS:
        old, new = getattr(before, kind), getattr(now, kind)
        name = f"the {before.role if kind == 'model' and not before.trains else kind} '{old.name}'"
        if old.fingerprint != new.fingerprint:
            changed.append(f"an earlier source of {name}")
        if old.originals != new.originals:
            paths = ", ".join(f"{path}={old.values[path]}" for path in old.paths or new.paths)
            known = "earlier files" if old.originals and new.originals else "unrecorded files"
            changed.append(f"{known} of {name}" + f" ({paths})" * bool(paths))
    if before.results != now.results:
        changed.append(f"earlier files of '{before.model.name}'")
    return " and ".join(changed)


SAMPLED = "@"
"""Between the names of a metric and of a sampler."""


def with_sampler(metric: Component, sampler: Component) -> Component:
    """A metric of samples by a sampler as one component, `METRIC@SAMPLER`, with the options of both."""
    options = {**metric.values, **{f"{sampler.name}.{name}": value for name, value in sampler.options}}
    name = f"{metric.name}{SAMPLED}{sampler.name}"
    fingerprint = f"{metric.fingerprint} {sampler.fingerprint}"
    return Component(name, tuple(sorted(options.items())), fingerprint, metric.originals, metric.paths)


def split_sampler(component: Component) -> tuple[Component, Component | None]:
    """The metric and the sampler of `with_sampler`; None where samples are those of the prior."""
    name, joined, sampler = component.name.partition(SAMPLED)
    if not joined:
        return component, None
    fingerprints = component.fingerprint.split(" ")
    prefixed = tuple((key, value) for key, value in component.options if key.startswith(f"{sampler}."))
    rest = tuple(pair for pair in component.options if pair not in prefixed)
    metric = Component(name, rest, fingerprints[0], component.originals, component.paths)
    options = tuple((key.removeprefix(f"{sampler}."), value) for key, value in prefixed)
    return metric, Component(sampler, options, fingerprints[-1])


def component_of_record(record: Mapping[str, Any]) -> Component:
    """The component with the fields of `Component.plain`, options by name; raises what dictionaries raise."""
    options = tuple(sorted(record["options"].items()))
    paths = tuple(record.get("paths", ()))
    return Component(record["name"], options, record["fingerprint"], record.get("originals", ""), paths)


def run_of_record(record: Mapping[str, Any]) -> Run:
    """The run that `Run.record` describes; `StoreError` where it does not describe one."""
    try:
        components = {kind: component_of_record(record[kind]) for kind in COMPONENTS}
        counts = {name: int(record[name]) for name in ("latent_dim", "seed", "images", "batch")}
        role: Role = record["role"]
        if role not in ROLES:
            raise ValueError(f"role {role!r}")
        precision: Precision = record.get("precision", "float32")
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"the record describes no run: {type(error).__name__} {error}") from None
    results = str(record.get("results", ""))
    return Run(**components, **counts, role=role, precision=precision, results=results)  # type: ignore[arg-type]  # names are fields
