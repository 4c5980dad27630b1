"""The hooks: one for each kind of component, without arguments, yielding `ComponentSpec`s; and `genbench_bibtex`.

A plug-in is a module with functions of these names, marked with `genbench.hookspecs.hookimpl`, and an entry point in
the group `genbench` (or the option `--plugin FILE`). Each yields
`ComponentSpec(name=..., description=..., factory=..., reference=...)`; the core calls `factory` with the arguments that
the hook's docstring states, and the options by keyword, while planning and again for each run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pluggy

from genbench.api import (
    ComponentSpec,
    Control,
    Dataset,
    Extractor,
    Metric,
    Model,
    Network,
    Prior,
    Recipe,
    Sampler,
    Tracker,
)

PROJECT = "genbench"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def genbench_models() -> Iterable[ComponentSpec[Model]]:  # type: ignore[empty-body]
    """Models: `factory(context: ModelContext, *, options...)` is an untrained `Model`."""


@hookspec
def genbench_priors() -> Iterable[ComponentSpec[Prior]]:  # type: ignore[empty-body]
    """Priors: `factory(latent_dim: int, *, options...)` is a `Prior`."""


@hookspec
def genbench_networks() -> Iterable[ComponentSpec[Network]]:  # type: ignore[empty-body]
    """Networks: `factory(shape: Shape, *, options...)` is a `Network`, an encoder/decoder pair."""


@hookspec
def genbench_datasets() -> Iterable[ComponentSpec[Dataset]]:  # type: ignore[empty-body]
    """Datasets: `factory(*, options...)` is a `Dataset`."""


@hookspec
def genbench_metrics() -> Iterable[ComponentSpec[Metric]]:  # type: ignore[empty-body]
    """Metrics: `factory(*, options...)` is a `Metric`."""


@hookspec
def genbench_extractors() -> Iterable[ComponentSpec[Extractor]]:  # type: ignore[empty-body]
    """Extractors: `factory(data_config: DataConfig, *, options...)` is an `Extractor`."""


@hookspec
def genbench_samplers() -> Iterable[ComponentSpec[Sampler]]:  # type: ignore[empty-body]
    """Samplers: `factory(prior: Prior, *, options...)` is a `Sampler`, not yet fitted."""


@hookspec
def genbench_controls() -> Iterable[ComponentSpec[Control]]:  # type: ignore[empty-body]
    """Controls: `factory(*, options...)` is a `Control`, not yet fitted."""


@hookspec
def genbench_recipes() -> Iterable[ComponentSpec[Recipe]]:  # type: ignore[empty-body]
    """Recipes: `factory(*, options...)` is a `Recipe`, whose text is read before anything trains."""


@hookspec
def genbench_trackers() -> Iterable[ComponentSpec[Tracker]]:  # type: ignore[empty-body]
    """Trackers: `factory(*, options...)` is a `Tracker`, made once for each run."""


@hookspec
def genbench_bibtex() -> Mapping[str, str]:  # type: ignore[empty-body]
    """BibTeX entries by the text that stands in a `reference`, as `{"arXiv:1312.6114": "@inproceedings{...}"}`.

    Optional: `genbench cite` and `genbench paper` print the entry of every reference in which such a text stands. A
    text of several plug-ins is that of the one loaded first. A library is named by its distribution.
    """
