"""A conformance check, its result, and the run of several checks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from genbench.api import ComponentSpec
from genbench.registry.options import Value
from genbench.utils.plugin_code import describe_error, error_location

CheckStatus = Literal["holds", "fails", "skipped", "reported"]
S = TypeVar("S")


CODING_ERRORS = (AttributeError, ImportError, NameError, NotImplementedError)
"""Errors of a line whatever is checked: the advice of a check would mislead."""


class Failed(Exception):
    """Raised by a check whose assertion does not hold: the observation, in one line."""


class Skipped(Exception):
    """Raised by a check that has no meaning for its subject, or lacks something: the reason."""


class Reported(Exception):
    """Raised by a check for an observation that a reader should know and that is no fault."""


@dataclass(frozen=True)
class Result:
    """The result of one check of one component.

    Args:
        kind: The kind of component, "prior".
        name: The component's name.
        check: The check's name.
        status: "holds", "fails", "skipped" or "reported".
        detail: The observation.
        advice: The remedy of a failure.
    """

    kind: str
    name: str
    check: str
    status: CheckStatus
    detail: str = ""
    advice: str = ""

    @property
    def id(self) -> str:
        """The id of a pytest case: `prior-spiral-first_two_moments`."""
        return f"{self.kind}-{self.name}-{self.check}"


@dataclass(frozen=True)
class ConformanceCheck(Generic[S]):
    """An assertion about a subject: `run` returns its observation, or raises `Failed`, `Skipped` or `Reported`."""

    run: Callable[[S], str]
    advice: str

    @property
    def name(self) -> str:
        """The function's name."""
        return self.run.__name__

    @property
    def asserts(self) -> str:
        """The first line of the function's docstring."""
        return (self.run.__doc__ or "").strip().split("\n")[0]


@dataclass(frozen=True)
class BoundFactory:
    """A component's factory with its default options; those that a check changes are given by name."""

    spec: ComponentSpec[Any]
    defaults: Mapping[str, Value]

    def __call__(self, *arguments: Any, **changes: object) -> Any:
        """`factory(*arguments, **options)`."""
        return self.spec.factory(*arguments, **{**self.defaults, **changes})


def check_subject(kind: str, name: str, checks: Iterable[ConformanceCheck[S]], subject: S) -> Iterator[Result]:
    """Each check's result, one after another.

    Any exception that a plug-in raises is a failure of the check. Checks that meet the same one later are skipped: they
    have not seen what they check.
    """
    raised: dict[str, str] = {}
    for check in checks:
        status: CheckStatus = "holds"
        advice = check.advice
        state = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            detail = check.run(subject)
        except Skipped as reason:
            status, detail = "skipped", str(reason)
        except Reported as observation:
            status, detail = "reported", str(observation)
        except Failed as fault:
            status, detail = "fails", str(fault)
        except Exception as error:
            status, detail = "fails", describe_error(error)
            if isinstance(error, CODING_ERRORS) and error_location(error):
                advice = "mend this line"
            if raised.setdefault(detail, check.name) != check.name:
                status, detail = "skipped", f"the error of {raised[detail]} again"
        finally:
            random.setstate(state[0])
            np.random.set_state(state[1])
            torch.set_rng_state(state[2])
        yield Result(kind, name, check.name, status, detail, advice if status == "fails" else "")


def expect(condition: bool, fault: str) -> None:
    """`Failed` with the fault unless the condition holds."""
    if not condition:
        raise Failed(fault)


def expect_tensor(what: str, value: object) -> None:
    """`Failed` unless a value is a tensor: an array of NumPy has a shape and a dtype too."""
    kind = type(value)
    expect(isinstance(value, Tensor), f"{what} is a {kind.__module__}.{kind.__qualname__}, expected a torch.Tensor")


def global_state() -> tuple[str, str, tuple[int, ...], torch.dtype]:
    """The state of every global source of randomness, and the default dtype."""
    numpy = np.random.get_state()
    return repr(random.getstate()), repr(numpy), tuple(torch.get_rng_state().tolist()), torch.get_default_dtype()
