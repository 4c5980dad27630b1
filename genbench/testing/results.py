"""What a check is, and what it yields."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
import torch

from genbench.errors import one_line

Verdict = Literal["holds", "fails", "skipped", "reported"]
S = TypeVar("S")


class Failed(Exception):
    """What a check raises where its assertion does not hold: what was found, in one line."""


class Skipped(Exception):
    """What a check raises where it has no meaning or not what it needs: the reason."""


class Reported(Exception):
    """What a check raises for a finding that a reader should know and that is no fault."""


@dataclass(frozen=True)
class Result:
    """The verdict of one check on one offer; `detail` is what was found, `advice` what to do where it fails."""

    kind: str
    name: str
    check: str
    verdict: Verdict
    detail: str = ""
    advice: str = ""

    @property
    def id(self) -> str:
        """The id of a pytest case: `prior-spiral-first_two_moments`."""
        return f"{self.kind}-{self.name}-{self.check}"


@dataclass(frozen=True)
class Check(Generic[S]):
    """An assertion about a subject: `run` returns what it found, or raises `Failed`, `Skipped` or `Reported`."""

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


def verdicts(kind: str, name: str, checks: Iterable[Check[S]], subject: S) -> Iterator[Result]:
    """Each check's result, as it is found. Whatever a plug-in raises is a failure of the check that met it."""
    for check in checks:
        verdict: Verdict = "holds"
        state = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            detail = check.run(subject)
        except Skipped as reason:
            verdict, detail = "skipped", str(reason)
        except Reported as finding:
            verdict, detail = "reported", str(finding)
        except Failed as fault:
            verdict, detail = "fails", str(fault)
        except Exception as error:
            verdict, detail = "fails", f"raised {type(error).__name__}: {one_line(error)}"
        finally:
            random.setstate(state[0])
            np.random.set_state(state[1])
            torch.set_rng_state(state[2])
        yield Result(kind, name, check.name, verdict, detail, check.advice if verdict == "fails" else "")


def expect(condition: bool, fault: str) -> None:
    """`Failed` with the fault unless the condition holds."""
    if not condition:
        raise Failed(fault)


def global_state() -> tuple[str, str, tuple[int, ...], torch.dtype]:
    """The state of every global source of randomness, and the default dtype."""
    numpy = np.random.get_state()
    return repr(random.getstate()), repr(numpy), tuple(torch.get_rng_state().tolist()), torch.get_default_dtype()
