"""The options of executors on the command line."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from genbench.cli.options import Finite, WholeOr
from genbench.execution.executors.choice import (
    EXECUTOR_OPTIONS,
    EXECUTORS,
    ExecutorConfig,
    check_executor,
    parse_executor_options,
)

META = "genbench.executor."
"""The prefix of these options in a command's context."""

FIELDS = {"executor": "executor", "jobs": "jobs", "run_timeout": "timeout", "executor_options": "options"}
"""The fields of `StudyConfig` and the names of these options."""


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    ctx.meta[f"{META}{param.name}"] = value


def executor_options(command: Any) -> Any:
    """The options that choose an executor; they stay in the context, for `read_executor_config`."""
    option = partial(click.option, expose_value=False, callback=_keep, is_eager=True)
    keys = "; ".join(f"{name}: {', '.join(options)}" for name, options in EXECUTOR_OPTIONS.items())
    command = option(
        "--executor-option",
        "options",
        multiple=True,
        metavar="KEY=VALUE",
        help=f"An option of the executor; repeatable. {keys}.",
    )(command)
    command = option(
        "--run-timeout",
        "timeout",
        type=Finite(0, min_open=True),
        metavar="SECONDS",
        help="Kill a run that takes longer; it is recorded as failed.",
    )(command)
    command = option(
        "--jobs",
        "jobs",
        type=WholeOr("auto"),
        metavar="N|auto",
        help="Runs at once; GPUs are assigned in turn. auto: one for each core or GPU. [1; ray, slurm: as many as fit]",
    )(command)
    return option(
        "--executor",
        "executor",
        type=click.Choice(EXECUTORS),
        help="In this process, in worker processes, on a Ray cluster, or as Slurm jobs. [serial; process for several"
        " runs at once or with --run-timeout]",
    )(command)


def given_executor_flags(context: click.Context) -> dict[str, Any]:
    """The options that were given, by the fields of `StudyConfig`."""
    values = {field: context.meta.get(f"{META}{name}") for field, name in FIELDS.items()}
    given = {field: value for field, value in values.items() if value not in (None, ())}
    if "executor_options" in given:
        given["executor_options"] = parse_executor_options(given["executor_options"])
    return given


def read_executor_config() -> ExecutorConfig:
    """The options of the command at work, checked; `UsageError` for those that do not fit each other."""
    meta = click.get_current_context().meta
    executor, jobs, timeout, texts = (meta.get(f"{META}{name}") for name in ("executor", "jobs", "timeout", "options"))
    return check_executor(executor, jobs, timeout, parse_executor_options(texts or ()))
