"""How far the runs of a plan are, each read once: for the plan that is shown, the work that is left, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from genbench.storage.run_dir import RUN, Protocols, RunRecord, State, read_run

if TYPE_CHECKING:
    from genbench.execution.runner import Runner
    from genbench.experiment.plan import Plan


@dataclass(frozen=True)
class Standing:
    """The state of each run by its name, and the records of all where nothing at all is left to do."""

    states: Mapping[str, State | Literal["done"]]
    records: Sequence[RunRecord]

    @cached_property
    def done(self) -> frozenset[str]:
        """The names of the runs that lack nothing."""
        return frozenset(name for name, state in self.states.items() if state == "done")


def standing(bench: Runner, plan: Plan) -> Standing:
    """Read the runs of a plan; `StoreError` where what was measured of one is damaged.

    What was read is kept where all is done, since a table follows at once; held while runs train, it would take their
    memory for hours and show what was true at their beginning.
    """
    protocols: Protocols = {}
    states: dict[str, State | Literal["done"]] = {}
    records: list[RunRecord] = []
    whole = True
    for run in plan.runs:
        folder = bench.folder(run)
        record = read_run(folder.path, protocols) if folder.has(RUN) else None
        complete = record is not None and bench.complete(run, plan, record)
        states[run.name] = "done" if complete else "new" if record is None else record.state
        whole = whole and complete
        if record is not None and whole:
            records.append(record)
        else:
            records.clear()
    return Standing(states, records)
