"""What a metric yields is checked before it is kept: one bad field must not cost the run's other numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from genbench.analysis.ladder import verdict
from genbench.api import EvalProtocol, Measurement
from genbench.errors import MetricError
from genbench.evaluation.measure import as_plain
from genbench.storage import schema as records

SOUND = Measurement(
    value=1.0, unit="unit", higher_is_better=False, n=10, protocol=EvalProtocol("none", "", "", "test", 1, 1, "none")
)


def test_numbers_of_numpy_and_torch_become_plain_json() -> None:
    number = replace(SOUND, value=torch.tensor(1.5), se=np.float32(0.25), n=torch.tensor(7), floor=torch.tensor(0.0))
    plain = as_plain(number)
    assert (plain["value"], plain["se"], plain["n"], plain["floor"]) == (1.5, 0.25, 7, 0.0)
    assert json.loads(json.dumps(plain)) == plain


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
    ],
)
def test_a_field_that_breaks_the_contract_is_refused(field: str, value: object, message: str | None) -> None:
    number = replace(SOUND, **{field: value})  # type: ignore[arg-type]
    if message is None:
        assert as_plain(number)[field] == 0.1
        return
    with pytest.raises(MetricError, match=message):
        as_plain(number)


def test_whatever_is_kept_can_be_read_again() -> None:
    entry = {"metric": "m", "options": {}, "error": "", "inapplicable": "", "split": "test"}
    assert records.MEASUREMENTS({"measurements": {"k": {**entry, "numbers": [as_plain(SOUND)]}}})


@pytest.mark.parametrize(("field", "value"), [("value", 10**400), ("n", 10**400), ("higher_is_better", "smaller")])
def test_a_number_that_no_float_holds_is_damage_and_no_traceback(field: str, value: object) -> None:
    entry = {"metric": "m", "options": {}, "error": "", "inapplicable": "", "split": "test"}
    numbers = [as_plain(SOUND) | {field: value}]
    assert not records.MEASUREMENTS({"measurements": {"k": {**entry, "numbers": numbers}}})


def test_a_step_of_the_ladder_is_no_share_of_less_than_itself() -> None:
    """Constant codes: the prior's samples score better than reconstructions do."""
    text = verdict({"real": 13.9, "reconstructions": 326.0, "mixture": 326.0, "prior": 305.0})
    assert text == "mostly the decoder (312, of which other steps win back 21)"
    assert "of 90" in verdict({"real": 10.0, "reconstructions": 90.0, "mixture": 95.0, "prior": 100.0})


def test_a_list_in_the_place_of_an_object_is_damage_and_no_traceback() -> None:
    entry = {"metric": "m", "options": {}, "error": "", "inapplicable": "", "split": "test", "numbers": []}
    assert records.MEASUREMENTS({"measurements": {"k": entry}})
    assert not records.MEASUREMENTS({"measurements": [entry]})
    assert not records.MEASUREMENTS({"measurements": {"k": {**entry, "numbers": {"a": as_plain(SOUND)}}}})
