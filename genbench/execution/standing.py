"""How far the runs of a plan are, each read once: for the plan that is shown, the work that is left, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from genbench.storage.run_dir import RunFolder, State, once, uncollected

if TYPE_CHECKING:
    from genbench.execution.runner import Runner
    from genbench.experiment.plan import Plan


@dataclass(frozen=True)
class Standing:
    """The state of each run by its name, and the folders as they were read where nothing at all is left to do."""

    states: Mapping[str, State | Literal["done"]]
    folders: Sequence[RunFolder]

    @cached_property
    def done(self) -> frozenset[str]:
        """The names of the runs that lack nothing."""
        return frozenset(name for name, state in self.states.items() if state == "done")


@uncollected()
def standing(bench: Runner, plan: Plan) -> Standing:
    """Read the runs of a plan; `StoreError` where what was measured of one is damaged.

    What was read is kept where all is done, since a table follows at once; held while runs train, it would take their
    memory for hours and show what was true at their beginning.
    """
    shared: dict[Any, Any] = {}
    states: dict[str, State | Literal["done"]] = {}
    folders: list[RunFolder] = []
    whole = True
    for run in plan.runs:
        folder = once(bench.folder(run).path, shared)
        complete = bench.complete(run, plan, folder)
        states[run.name] = "done" if complete else folder.state
        whole = whole and complete
        if whole:
            folders.append(folder)
        else:
            folders.clear()
    return Standing(states, folders)
