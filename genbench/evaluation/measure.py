"""Runs metrics, checks their numbers and saves them with the pictures of a run."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from operator import index
from typing import Any, get_args

import msgspec
import torch
from torch import Tensor

from genbench.api import Measurement
from genbench.api.metric import MetricRole
from genbench.data.images import save_grid, to_uint8
from genbench.errors import GenbenchError, MetricError, NotApplicableError, SystemFailureError, one_line, printable
from genbench.evaluation.evaluation import DataEvaluation, DetachedEvaluation
from genbench.experiment.build import create_metric, create_sampler
from genbench.experiment.run import SAMPLED, Component, split_sampler
from genbench.registry.loader import Registry
from genbench.storage.run_dir import RECONSTRUCTIONS, SAMPLES, RunFolder
from genbench.storage.schema import MetricRecord, StoredMeasurement
from genbench.utils.io import LARGEST
from genbench.utils.plugin_code import describe_error

PICTURE_IMAGES = 64
"""Images in a picture."""

OPTIONAL_NUMBERS = (
    "floor",
    "floor_sd",
    "se",
    "low",
    "high",
    "p_value",
    "minimum_detectable_effect",
    "chance",
    "chance_sd",
)
"""Fields of a measurement that are a finite number or None."""


def measure(registry: Registry, component: Component, evaluation: DataEvaluation) -> MetricRecord:
    """One metric's entry for metrics.json: numbers, an error, or the reason why the metric does not apply.

    `seconds` hold what this metric computed first; what it shares with earlier ones was counted there.
    """
    background = isinstance(evaluation, DetachedEvaluation)
    entry = MetricRecord(component.name, component.values, evaluation.split, background=background)
    started, fitting = time.perf_counter(), 0.0
    metric, sampler = split_sampler(component)
    try:
        with torch.no_grad():
            if sampler is not None:
                evaluation = _sampled(registry, sampler, evaluation)
                fitting = time.perf_counter() - started
            shared = evaluation.shared_seconds
            numbers = create_metric(registry, metric).measure(evaluation)
            stored = tuple(to_stored(_labelled(number, metric, sampler)) for number in numbers)
        _check_components([number.component for number in stored])
    except SystemFailureError:  # of the disk and not of the metric: the other runs would meet it as well
        raise
    except NotApplicableError as reason:
        return msgspec.structs.replace(entry, inapplicable=one_line(reason))
    except (Exception, SystemExit) as error:  # a metric that fails must not cost the others
        cause = describe_error(error).removeprefix(f"{component.name}: ")
        trace = "" if isinstance(error, GenbenchError) else "".join(traceback.format_exception(error))
        return msgspec.structs.replace(entry, error=cause, trace=printable(trace))
    seconds, fit_seconds = time.perf_counter() - started, evaluation.fit_seconds
    if fit_seconds is not None and fitting >= fit_seconds:  # it was fitted for this metric
        seconds -= fit_seconds
    return msgspec.structs.replace(
        entry,
        numbers=stored,
        seconds=round(seconds, 3),
        fit_seconds=None if fit_seconds is None else round(fit_seconds, 3),
        shared_seconds=round(evaluation.shared_seconds - shared, 3) or None,
    )


def _sampled(registry: Registry, sampler: Component, evaluation: DataEvaluation) -> DataEvaluation:
    """The evaluation with samples of a sampler, which is fitted once for all metrics."""
    options = ", ".join(f"{name}={value!r}" for name, value in sampler.options)
    return evaluation.with_sampler(f"{sampler.name}({options})", create_sampler(registry, sampler, evaluation.prior))


def _labelled(number: Measurement, metric: Component, sampler: Component | None) -> Measurement:
    """The number with its sampler's name in the column head."""
    if sampler is None:
        return number
    name = f"{metric.name}.{number.component}" if number.component else metric.name
    return replace(number, label=f"{number.label or name} {SAMPLED}{sampler.name}")


def to_stored(number: Measurement) -> StoredMeasurement:
    """A measurement as metrics.json stores it; numbers of NumPy and torch become Python's.

    Raises `MetricError` for a field that breaks the contract: in metrics.json it would make every other number of the
    run unreadable.
    """
    suffix = f" of {number.component}" if number.component else ""
    plain: dict[str, Any] = {name.name: getattr(number, name.name) for name in fields(number)}
    plain |= {"value": _finite(number.value, f"value{suffix}")}
    plain |= {
        name: None if plain[name] is None else _finite(plain[name], f"{name}{suffix}") for name in OPTIONAL_NUMBERS
    }
    if plain["p_value"] is not None and not 0 <= plain["p_value"] <= 1:
        raise MetricError(f"the p_value{suffix} is {plain['p_value']:g}, and a p-value lies between 0 and 1")
    _check_spread(plain, suffix)
    try:
        plain["n"] = index(number.n)
    except TypeError:
        plain["n"] = -1
    if plain["n"] < 0:
        raise MetricError(f"the n{suffix} is {number.n!r}, and n counts images or codes")
    if number.higher_is_better not in (True, False, None):
        raise MetricError(f"higher_is_better{suffix} is {number.higher_is_better!r}; possible: True, False, None")
    texts = ("unit", "component", "role", "label", "caution")
    wrong = next((name for name in texts if not isinstance(plain[name], str)), None)
    if wrong is not None:
        raise MetricError(f"the {wrong} is {plain[wrong]!r}, and should be a string")
    if number.role not in get_args(MetricRole):
        possible = ", ".join(repr(role) for role in get_args(MetricRole))
        raise MetricError(f"the role{suffix} is {number.role!r}; possible: {possible}")
    plain |= {"protocol": number.protocol.key, "how": asdict(number.protocol)}
    try:
        return msgspec.convert(plain, StoredMeasurement)
    except msgspec.ValidationError as error:
        raise MetricError(f"a field{suffix} cannot be stored: {one_line(error)}") from None


def _finite(number: Any, name: str) -> float:
    try:
        value = float(number.detach() if isinstance(number, Tensor) else number)
    except (TypeError, ValueError):
        raise MetricError(f"the {name} is no number ({number!r})") from None
    except OverflowError:  # an int of 400 digits
        value = math.inf
    if not math.isfinite(value):
        raise MetricError(f"the {name} is not finite ({value})")
    if abs(value) > LARGEST:
        raise MetricError(f"the {name} is {value:g}, and the largest number that can be compared is {LARGEST:g}")
    return value


def _check_spread(plain: Mapping[str, Any], suffix: str) -> None:
    """Raise `MetricError` for a negative spread, or an interval with one end or the wrong way round."""
    for name in ("se", "floor_sd", "minimum_detectable_effect", "chance_sd"):
        if (plain[name] or 0) < 0:
            raise MetricError(f"the {name}{suffix} is {plain[name]:g}, and cannot be negative")
    low, high = plain["low"], plain["high"]
    if (low is None) != (high is None) or (low is not None and low > high):
        raise MetricError(f"the interval{suffix} is {low} to {high}: give low and high, low at most high")


def _check_components(names: list[str]) -> None:
    """Raise `MetricError` for a metric without a number, or with two of the same name."""
    if not names:
        raise MetricError("it yields no number; a metric that has no meaning for a run raises NotApplicableError")
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise MetricError(f"it yields two numbers of the component {duplicate!r}: the components of a metric differ")


def pairs(evaluation: DataEvaluation, n: int, columns: int = 8) -> Tensor:
    """Originals and their reconstructions in alternating rows of `columns`, `(2n, c, h, w)` uint8."""
    n = min(n, len(evaluation.references))
    real, rebuilt = evaluation.held_out(n), to_uint8(evaluation.reconstructions(n).clone())
    rows = zip(real.split(columns), rebuilt.split(columns), strict=True)
    return torch.cat([row for pair in rows for row in pair])


def save_pictures(evaluation: DataEvaluation, folder: RunFolder) -> list[str]:
    """Write the pictures that are missing; returns the errors, so that measurements go on after them."""
    drawn: dict[str, Callable[[], Tensor]] = {
        SAMPLES: lambda: evaluation.samples(min(PICTURE_IMAGES, evaluation.most_samples or PICTURE_IMAGES)),
        RECONSTRUCTIONS: lambda: pairs(evaluation, PICTURE_IMAGES // 2),
    }
    problems = []
    for name, draw in drawn.items():
        try:
            if not (folder.path / name).exists():
                save_grid(folder.path / name, draw())
        except NotApplicableError:
            continue
        except (Exception, SystemExit) as error:  # a plug-in may raise anything
            problems.append(f"pictures: {describe_error(error)}")
    return problems


def replace_measurement(
    measurements: Mapping[str, MetricRecord], component: Component, entry: MetricRecord
) -> dict[str, MetricRecord]:
    """The measurements with a new entry, without those of the same metric and options by another source."""
    unchanged = {
        key: known
        for key, known in measurements.items()
        if (known.metric, known.options) != (component.name, component.values)
    }
    return {**unchanged, component.key: entry}


def save_measurement(folder: RunFolder, component: Component, entry: MetricRecord) -> list[str]:
    """Save a metric's entry in metrics.json; returns its error, if there is one."""
    folder.save_measurements(replace_measurement(folder.measurements(), component, entry))
    return [f"{component.name}: {entry.error}"] if entry.error else []
