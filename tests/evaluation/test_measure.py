"""What a metric yields is checked before it is kept: one bad field must not cost the run's other numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import numpy as np
import pytest
import torch
from click.testing import Result

from genbench.analysis.ladder import verdict
from genbench.api import ComponentSpec, EvalProtocol, Evaluation, Measurement, Metric
from genbench.errors import MetricError, StoreError
from genbench.evaluation.evaluation import DataEvaluation
from genbench.evaluation.measure import measure, to_stored
from genbench.experiment.run import Component
from genbench.registry.loader import Plugin, Registration, Registry
from genbench.storage.run_dir import RunFolder
from genbench.storage.schema import SCHEMA, MetricRecord, MetricsFile, decode
from support.studies import fake_run, store_run

SOUND = Measurement(
    value=1.0, unit="unit", higher_is_better=False, n=10, protocol=EvalProtocol("none", "", "", "test", 1, 1, "none")
)


def test_numbers_of_numpy_and_torch_become_plain_json() -> None:
    number = replace(SOUND, value=torch.tensor(1.5), se=np.float32(0.25), n=torch.tensor(7), floor=torch.tensor(0.0))
    stored = to_stored(number)
    assert (stored.value, stored.se, stored.n, stored.floor) == (1.5, 0.25, 7, 0.0)
    assert json.loads(json.dumps(msgspec.to_builtins(stored))) == msgspec.to_builtins(stored)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("n", -1, "the n is -1"),
        ("n", 2.5, "the n is 2.5"),
        ("p_value", -0.1, "the p_value is -0.1"),
        ("p_value", 1.5, "the p_value is 1.5"),
        ("se", "0.1", None),
        ("se", "small", "the se is no number"),
        ("low", float("-inf"), "the low is not finite"),
        ("higher_is_better", "smaller", "possible: True, False, None"),
        ("unit", None, "the unit is None"),
        ("component", 3, "the component is 3"),
        ("role", None, "the role is None"),
        ("role", "quality", "the role is 'quality'; possible: '', 'sample quality'"),
    ],
)
def test_a_field_that_breaks_the_contract_is_refused(field: str, value: object, message: str | None) -> None:
    number = replace(SOUND, **{field: value})  # type: ignore[arg-type]
    if message is None:
        assert getattr(to_stored(number), field) == 0.1
        return
    with pytest.raises(MetricError, match=message):
        to_stored(number)


def metrics_file(numbers: object, **fields: object) -> bytes:
    """metrics.json with one metric of these numbers."""
    entry = {"metric": "m", "options": {}, "error": "", "inapplicable": "", "split": "test", "numbers": numbers}
    return json.dumps({"schema": SCHEMA, "measurements": {"k": entry}} | fields).encode()


def fields_of_sound() -> Mapping[str, object]:
    fields: Mapping[str, object] = msgspec.to_builtins(to_stored(SOUND))
    return fields


def test_whatever_is_kept_can_be_read_again() -> None:
    read = decode(metrics_file([fields_of_sound()]), MetricsFile, "x.json")
    assert read.measurements == {"k": MetricRecord("m", {}, "test", numbers=(to_stored(SOUND),))}


@pytest.mark.parametrize(
    ("field", "value"),
    [("value", 10**400), ("n", 10**400), ("higher_is_better", "smaller"), ("p_value", 1.5), ("value", None), ("x", 1)],
)
def test_a_number_that_is_none_is_damage_and_no_traceback(field: str, value: object) -> None:
    with pytest.raises(StoreError, match=r"x\.json does not hold what its schema says"):
        decode(metrics_file([{**fields_of_sound(), field: value}]), MetricsFile, "x.json")


def test_a_step_of_the_ladder_is_no_share_of_less_than_itself() -> None:
    """Constant codes: the prior's samples score better than reconstructions do."""
    text = verdict({"real": 13.9, "reconstructions": 326.0, "mixture": 326.0, "prior": 305.0})
    assert text == "mostly the decoder (312, of which other steps win back 21)"
    assert "of 90" in verdict({"real": 10.0, "reconstructions": 90.0, "mixture": 95.0, "prior": 100.0})


def test_a_list_instead_of_an_object_is_damage_and_no_traceback() -> None:
    assert decode(metrics_file([]), MetricsFile, "x.json").measurements["k"].numbers == ()
    for data in (metrics_file([], measurements=[{}]), metrics_file({"a": fields_of_sound()})):
        with pytest.raises(StoreError, match="does not hold"):
            decode(data, MetricsFile, "x.json")


def test_the_trace_of_a_failing_metric_and_the_caution_of_a_number_are_kept_and_shown(
    genbench: Callable[..., Result], tmp_path: Path
) -> None:
    class Broken(Metric):
        def measure(self, evaluation: Evaluation) -> Iterable[Measurement]:
            raise ZeroDivisionError("planted")

    spec = ComponentSpec(name="broken", description="", factory=Broken)
    registry = Registry()
    registry.register("metric", Registration(spec, Plugin("mine", "mine.py", "loaded")))
    evaluation = cast("DataEvaluation", SimpleNamespace(split="test", shared_seconds=0.0))
    entry = measure(registry, Component("broken", (), "f"), evaluation)
    assert entry.error.endswith("ZeroDivisionError: planted")
    assert "in measure" in entry.trace
    cautious = MetricRecord("m", {}, "test", numbers=(to_stored(replace(SOUND, caution="use another")),))
    path = store_run(tmp_path / "runs", fake_run())
    RunFolder(path).save_measurements({"a": entry, "b": cautious})
    shown = genbench("show", str(path)).output
    assert "ZeroDivisionError: planted" in shown
    assert 'raise ZeroDivisionError("planted")' in shown
    assert "! m: use another" in shown
    stated = MetricRecord("m", {}, "test", error="no right value")
    RunFolder(path).save_measurements({"a": stated})
    assert "Traceback" not in genbench("show", str(path)).output
