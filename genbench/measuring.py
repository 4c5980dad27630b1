"""A metric's numbers as data, and the pictures beside them."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor

from genbench.api import Measurement
from genbench.errors import GenbenchError, MetricError, NotApplicable, one_line
from genbench.evaluate import DataEvaluation
from genbench.images import to_uint8
from genbench.plugins import Catalogue
from genbench.runs import Choice, make_metric

BESIDE = ("floor", "floor_sd", "se", "low", "high", "p", "detectable")
"""What may stand beside a value: finite, or None."""


def measure(catalogue: Catalogue, choice: Choice, evaluation: DataEvaluation) -> dict[str, Any]:
    """One metric's entry for metrics.json: its numbers, why it failed, or why it does not apply."""
    entry: dict[str, Any] = {
        "metric": choice.name,
        "options": choice.values,
        "split": evaluation.split,
        "error": "",
        "inapplicable": "",
        "numbers": [],
    }
    try:
        with torch.no_grad():
            for number in make_metric(catalogue, choice).measure(evaluation):
                entry["numbers"].append(as_plain(number))
    except NotApplicable as reason:
        entry |= {"inapplicable": one_line(reason), "numbers": []}
    except (Exception, SystemExit) as error:  # a metric that fails must not cost the others
        kind = "" if isinstance(error, GenbenchError) else f"{type(error).__name__}: "
        entry["error"] = kind + one_line(error)
        entry["numbers"] = []
    return entry


def as_plain(number: Measurement) -> dict[str, Any]:
    """A measurement as JSON data; raises where the value is no finite number."""
    value = float(number.value)
    if value != value or value in (float("inf"), float("-inf")):
        raise MetricError(f"the value{f' of {number.part}' if number.part else ''} is not finite ({value})")
    plain = {name.name: getattr(number, name.name) for name in fields(number) if name.name != "protocol"}
    wrong = [name for name in BESIDE if plain[name] is not None and not math.isfinite(plain[name])]
    if wrong:
        raise MetricError(f"the {wrong[0]} {f'of {number.part} ' if number.part else ''}is not finite")
    return plain | {"value": value, "protocol": number.protocol.key, "how": asdict(number.protocol)}


def pairs(evaluation: DataEvaluation, n: int, columns: int = 8) -> Tensor:
    """Originals and their reconstructions in alternating rows of `columns`, `(2n, c, h, w)` uint8."""
    n = min(n, len(evaluation.references))
    real, rebuilt = evaluation.held_out(n), to_uint8(evaluation.reconstructions(n).clone())
    rows = zip(real.split(columns), rebuilt.split(columns), strict=True)
    return torch.cat([row for pair in rows for row in pair])
