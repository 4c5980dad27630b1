"""The options that say where runs are done, and the engine that they name. No torch until it is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from genbench.cli.options import Finite
from genbench.errors import UsageError

if TYPE_CHECKING:
    from genbench.execution.scheduler import Engine

EXECUTORS = ("serial", "local", "ray")
JOBS_HELP = (
    "Runs at once; GPUs are dealt out in turn. [1; on a CPU one for each core where that is faster and changes no"
    " number; ray: as many as fit]"
)
EXECUTOR_HELP = (
    "In this process, in worker processes, or on a Ray cluster. [serial; local for several runs at once or with"
    " --run-timeout]"
)
META = "genbench.engine."
"""Before the names under which a command's context keeps these options."""


@dataclass(frozen=True)
class Chosen:
    """The options as given; None where they were not.

    `jobs` runs at once at most, each on `cpus` cores and `gpus` GPUs of a Ray cluster at `address`, each for `limit`
    seconds at most.
    """

    executor: str | None = None
    jobs: int | None = None
    limit: float | None = None
    address: str | None = None
    gpus: float | None = None
    cpus: float | None = None


SERIAL = Chosen()
"""One run after another in this process."""


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    ctx.meta[f"{META}{param.name}"] = value


def engine_options(command: Any) -> Any:
    """The options that choose an executor; they stay in the context, for `chosen_engine`."""
    seconds, above = Finite(0, min_open=True), Finite(0)
    options: tuple[tuple[str, str, Any, str | None, str], ...] = (
        ("--run-timeout", "limit", seconds, "SECONDS", "Kill a run that takes longer; it is recorded as failed."),
        ("--cpus-per-run", "cpus", seconds, "N", "With ray: cores of a run. [1]"),
        ("--gpus-per-run", "gpus", above, "N", "With ray: GPUs of a run, or a part of one. [1 on cuda, else 0]"),
        ("--address", "address", str, "A", "With ray: auto, ray://HOST:PORT, HOST:PORT, or local. [auto]"),
        (
            "--jobs",
            "jobs",
            click.IntRange(1),
            "N",
            JOBS_HELP,
        ),
        (
            *("--executor", "executor", click.Choice(EXECUTORS), None),
            EXECUTOR_HELP,
        ),
    )
    for flag, name, kind, metavar, about in options:
        command = click.option(
            flag, name, type=kind, metavar=metavar, expose_value=False, callback=_keep, is_eager=True, help=about
        )(command)
    return command


def chosen_engine() -> Chosen:
    """The options of the command at work, checked; `UsageError` for those that do not fit each other."""
    meta = click.get_current_context().meta
    chosen = Chosen(**{name: meta.get(f"{META}{name}") for name in Chosen.__dataclass_fields__})
    if chosen.executor == "serial" and (chosen.jobs or 1) > 1:
        raise UsageError(f"--executor serial does one run at a time: leave it off, or --jobs {chosen.jobs}")
    if chosen.executor == "serial" and chosen.limit is not None:
        raise UsageError("--executor serial cannot end a run that is stuck: leave it off, or --run-timeout")
    for flag, value in (("address", chosen.address), ("gpus-per-run", chosen.gpus), ("cpus-per-run", chosen.cpus)):
        if value is not None and chosen.executor != "ray":
            raise UsageError(f"--{flag} {value} is for a Ray cluster: say --executor ray as well")
    return chosen


def engine_of(chosen: Chosen) -> Engine:
    """The engine of checked options; `UsageError` where ray is asked for and is not installed."""
    if chosen.executor == "ray":
        from genbench.execution.executors.ray import cluster

        return cluster(chosen.address or "auto", chosen.jobs, chosen.gpus, chosen.cpus or 1.0, chosen.limit)
    if chosen.executor == "local" or (chosen.jobs or 1) > 1 or chosen.limit is not None:
        from genbench.execution.executors.process import local

        return local(chosen.jobs or 1, chosen.limit)
    from genbench.execution.executors.serial import serial

    return serial


def undecided(chosen: Chosen) -> bool:
    """Whether the options leave open how many runs go on at once on this machine."""
    return chosen.executor in (None, "local") and chosen.jobs is None
