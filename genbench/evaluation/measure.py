"""A metric's numbers as data, and the pictures beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from functools import partial
from operator import index
from typing import Any, get_args

import msgspec
import torch
from torch import Tensor

from genbench.api import Better, Measurement, Split
from genbench.data.images import save_grid, to_uint8
from genbench.errors import GenbenchError, MetricError, NotApplicableError, one_line
from genbench.evaluation.evaluation import DataEvaluation
from genbench.experiment.run import Component, make_metric
from genbench.registry.loader import Registry
from genbench.storage.run_dir import RECONSTRUCTIONS, SAMPLES, RunFolder
from genbench.storage.schema import MetricRecord, StoredMeasurement

PICTURED = 64
"""Samples in a picture."""

BESIDE = ("floor", "floor_sd", "se", "low", "high", "p_value", "minimum_detectable_effect")
"""What may stand beside a value: finite, or None."""


def measure(registry: Registry, choice: Component, evaluation: DataEvaluation) -> MetricRecord:
    """One metric's entry for metrics.json: its numbers, why it failed, or why it does not apply."""
    return _entry(choice, evaluation.split, lambda: make_metric(registry, choice).measure(evaluation))


def detached(registry: Registry, choice: Component, evaluation: DataEvaluation) -> Callable[[], MetricRecord] | None:
    """Gives the entry of `measure` without model and device, once asked for; None where the metric cannot.

    Nor where it fails here: `measure` then fails alike, and says so in the entry.
    """
    try:
        with torch.no_grad():
            numbers = make_metric(registry, choice).detached(evaluation)
    except (Exception, SystemExit):
        return None
    return None if numbers is None else partial(_entry, choice, evaluation.split, numbers)


def _entry(choice: Component, split: Split, numbers: Callable[[], Iterable[Measurement]]) -> MetricRecord:
    entry = MetricRecord(choice.name, choice.values, split)
    try:
        with torch.no_grad():
            stored = tuple(to_stored(number) for number in numbers())
        _check_parts([number.component for number in stored])
    except NotApplicableError as reason:
        return msgspec.structs.replace(entry, inapplicable=one_line(reason))
    except (Exception, SystemExit) as error:  # a metric that fails must not cost the others
        kind = "" if isinstance(error, GenbenchError) else f"{type(error).__name__}: "
        return msgspec.structs.replace(entry, error=kind + one_line(error).removeprefix(f"{choice.name}: "))
    return msgspec.structs.replace(entry, numbers=stored)


def to_stored(number: Measurement) -> StoredMeasurement:
    """A measurement as metrics.json holds it, numbers of NumPy and torch as Python's.

    Raises `MetricError` where a field is not what the contract says: one such field in metrics.json would make every
    other number of the run unreadable.
    """
    of = f" of {number.part}" if number.part else ""
    plain: dict[str, Any] = {name.name: getattr(number, name.name) for name in fields(number)}
    plain["component"], plain["p_value"] = plain.pop("part"), plain.pop("p")
    plain["higher_is_better"] = {"higher": True, "lower": False}.get(plain.pop("better"))
    plain |= {"value": _finite(number.value, f"value{of}")}
    plain |= {name: None if plain[name] is None else _finite(plain[name], f"{name}{of}") for name in BESIDE}
    if plain["p_value"] is not None and not 0 <= plain["p_value"] <= 1:
        raise MetricError(f"the p_value{of} is {plain['p_value']:g}, and a p-value lies between 0 and 1")
    try:
        plain["n"] = index(number.n)
    except TypeError:
        plain["n"] = -1
    if plain["n"] < 0:
        raise MetricError(f"the n{of} is {number.n!r}, and n counts images or codes")
    if number.better not in get_args(Better):
        raise MetricError(f"better{of} is {number.better!r}; possible: {', '.join(get_args(Better))}")
    wrong = next((name for name in ("unit", "component", "label") if not isinstance(plain[name], str)), None)
    if wrong is not None:
        raise MetricError(f"the {wrong} is {plain[wrong]!r}, and should be a string")
    plain |= {"protocol": number.protocol.key, "how": asdict(number.protocol)}
    try:
        return msgspec.convert(plain, StoredMeasurement)
    except msgspec.ValidationError as error:
        raise MetricError(f"a field{of} cannot be stored: {one_line(error)}") from None


def _finite(number: Any, what: str) -> float:
    try:
        value = float(number)
    except (TypeError, ValueError):
        raise MetricError(f"the {what} is no number ({number!r})") from None
    if not math.isfinite(value):
        raise MetricError(f"the {what} is not finite ({value})")
    return value


def _check_parts(parts: list[str]) -> None:
    """Raises `MetricError` where a metric yields no number, or two that nothing tells apart."""
    if not parts:
        raise MetricError("it yields no number; a metric that has no meaning for a run raises NotApplicable")
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice is not None:
        raise MetricError(f"it yields two numbers of the part {twice!r}: the parts of a metric differ")


def pairs(evaluation: DataEvaluation, n: int, columns: int = 8) -> Tensor:
    """Originals and their reconstructions in alternating rows of `columns`, `(2n, c, h, w)` uint8."""
    n = min(n, len(evaluation.references))
    real, rebuilt = evaluation.held_out(n), to_uint8(evaluation.reconstructions(n).clone())
    rows = zip(real.split(columns), rebuilt.split(columns), strict=True)
    return torch.cat([row for pair in rows for row in pair])


def picture(evaluation: DataEvaluation, folder: RunFolder) -> list[str]:
    """Write the pictures that are missing; what went wrong, which must not cost the measurements."""
    drawn: dict[str, Callable[[], Tensor]] = {
        SAMPLES: lambda: evaluation.samples(PICTURED),
        RECONSTRUCTIONS: lambda: pairs(evaluation, PICTURED // 2),
    }
    problems = []
    for name, draw in drawn.items():
        try:
            if not (folder.path / name).exists():
                save_grid(folder.path / name, draw())
        except NotApplicableError:
            continue
        except (Exception, SystemExit) as error:  # a plug-in may raise anything
            kind = "" if isinstance(error, GenbenchError) else f"{type(error).__name__}: "
            problems.append(f"pictures: {kind}{one_line(error)}")
    return problems
